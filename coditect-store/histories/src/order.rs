//! A partial order, with a reason for each relation.
//!
//! The transitive closure is maintained, so that queries are immediate, and a relation that would
//! close a cycle is rejected with that cycle.

use std::{collections::VecDeque, fmt};

use crate::Key;

/// Reason why one call precedes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The client of the other one began it after this one's end.
    Clock,
    /// The other one observed its write.
    Seen(Key),
    /// Its write was overwritten when the other's was observed, or precedes it in a list.
    Replaced(Key),
    /// It did not observe the other's write.
    Missed(Key),
    /// It observed another number in the register than the other one wrote, and nothing replaced
    /// that one.
    Differed(Key),
    /// One of the two is the only possible writer that replaced an observed number.
    Between(Key),
    /// The opposite order was tried, too.
    Tried,
}

/// Calls of which each precedes the next, and the last precedes the first.
#[derive(Clone, Debug)]
pub(crate) struct Circle(pub(crate) Vec<(usize, Why)>);

/// A partial order of calls.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Successors of each call, as bits.
    after: Vec<Vec<u64>>,
    /// Relations added, without their consequences.
    said: Vec<Vec<(usize, Why)>>,
}

impl Order {
    pub(crate) fn new(size: usize) -> Self {
        Self { after: vec![vec![0; size.div_ceil(64)]; size], said: vec![Vec::new(); size] }
    }

    /// Returns whether `one` precedes `other`.
    pub(crate) fn has(&self, one: usize, other: usize) -> bool {
        self.after[one][other / 64] >> (other % 64) & 1 == 1
    }

    /// Adds that `one` precedes `other`, and returns whether that is new.
    ///
    /// # Errors
    ///
    /// The cycle that this would close.
    pub(crate) fn put(&mut self, one: usize, other: usize, why: Why) -> Result<bool, Circle> {
        if one == other || self.has(other, one) {
            return Err(self.circle(one, other, why));
        }
        if self.has(one, other) {
            return Ok(false);
        }
        self.said[one].push((other, why));
        let mut later = self.after[other].clone();
        later[other / 64] |= 1 << (other % 64);
        for at in 0..self.after.len() {
            if at == one || (self.has(at, one) && !self.has(at, other)) {
                self.after[at].iter_mut().zip(&later).for_each(|(bits, more)| *bits |= more);
            }
        }
        Ok(true)
    }

    /// Returns the shortest cycle closed by `one` before `other`.
    fn circle(&self, one: usize, other: usize, why: Why) -> Circle {
        let mut circle = vec![(one, why)];
        let mut reached = vec![None; self.said.len()];
        let mut next = VecDeque::from([one]);
        // Backwards from the predecessors of `one`, so that the path is found in order.
        while let Some(at) = next.pop_front().filter(|at| *at != other) {
            for (before, said) in self.said.iter().enumerate() {
                let step = said.iter().find(|(to, _)| *to == at);
                if let (Some((_, why)), None) = (step, reached[before]) {
                    reached[before] = Some((at, *why));
                    next.push_back(before);
                }
            }
        }
        let mut at = other;
        while let Some((to, why)) = reached[at].filter(|_| at != one) {
            circle.push((at, why));
            at = to;
        }
        Circle(circle)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clock => f.write_str("was over before there was the next"),
            Self::Seen(key) => write!(f, "wrote to {key} what the next saw"),
            Self::Replaced(key) => write!(f, "wrote to {key} before the next did"),
            Self::Missed(key) => write!(f, "saw {key} without what the next wrote"),
            Self::Differed(key) => write!(f, "did not find in {key} what the next wrote"),
            Self::Between(key) => {
                write!(f, "comes before the next, since {key} was found to be changed")
            }
            Self::Tried => {
                f.write_str("comes before the next, or after it, which cannot be either")
            }
        }
    }
}
