//! What must come before what, and why.
//!
//! All that follows is kept too, so that whether one comes before another is known at once, and what would
//! close a circle is refused with that circle.

use std::{collections::VecDeque, fmt};

use crate::Key;

/// Why one comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its client knew of its end before the other began.
    Clock,
    /// The other saw what it wrote.
    Seen(Key),
    /// What it wrote was gone when others saw what the other wrote, or is before it in a list.
    Replaced(Key),
    /// It did not see yet what the other wrote.
    Missed(Key),
    /// It found another number in the register than the other wrote, and nobody replaced that.
    Differed(Key),
    /// One of the two, and nobody else, can have replaced what was found to be gone.
    Between(Key),
    /// The other way round was tried too.
    Tried,
}

/// Some that each come before the next, and the last before the first.
#[derive(Clone, Debug)]
pub(crate) struct Circle(pub(crate) Vec<(usize, Why)>);

/// An order that may have gaps yet.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Who comes after each, as bits.
    after: Vec<Vec<u64>>,
    /// What was said, without what follows from it.
    said: Vec<Vec<(usize, Why)>>,
}

impl Order {
    pub(crate) fn new(size: usize) -> Self {
        Self { after: vec![vec![0; size.div_ceil(64)]; size], said: vec![Vec::new(); size] }
    }

    /// Whether it is known that `one` comes before `other`.
    pub(crate) fn has(&self, one: usize, other: usize) -> bool {
        self.after[one][other / 64] >> (other % 64) & 1 == 1
    }

    /// Has `one` come before `other`. Returns whether that is new.
    ///
    /// # Errors
    ///
    /// They cannot.
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

    /// The shortest that is closed by putting `one` before `other`.
    fn circle(&self, one: usize, other: usize, why: Why) -> Circle {
        let mut circle = vec![(one, why)];
        let mut reached = vec![None; self.said.len()];
        let mut next = VecDeque::from([one]);
        // Backwards, from what comes before `one`, so that the way is found in its own order.
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
