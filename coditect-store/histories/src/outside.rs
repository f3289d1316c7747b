//! The externally visible part of a transaction: its reads of others' writes, and its final writes.

use std::collections::BTreeMap;

use crate::{Call, Key, Op};

/// A transaction as seen by others.
#[derive(Default)]
pub(crate) struct Outside {
    pub(crate) lists: Vec<(Key, Vec<u32>)>,
    pub(crate) reads: Vec<(Key, u32)>,
    pub(crate) others: Vec<(Key, u32)>,
    /// Final writes, and intermediate ones that it overwrote itself.
    pub(crate) writes: Vec<(Key, u32)>,
    pub(crate) passing: Vec<(Key, u32)>,
    pub(crate) appends: Vec<(Key, u32)>,
}

impl Outside {
    /// Returns the external part of `call`, without its reads of its own writes.
    pub(crate) fn of(call: &Call) -> Result<Self, String> {
        let mut outside = Self::default();
        let mut own = BTreeMap::<Key, u32>::new();
        let mut ends = BTreeMap::<Key, Vec<u32>>::new();
        for op in &call.ops {
            match op {
                Op::Append(key, number) => ends.entry(key).or_default().push(*number),
                Op::Write(key, number) => {
                    let before = own.insert(key, *number);
                    outside.passing.extend(before.map(|before| (*key, before)));
                }
                Op::List(key, seen) => {
                    let end = ends.get(key).map_or(&[][..], Vec::as_slice);
                    let Some(seen) = seen.strip_suffix(end) else {
                        return Err(format!(
                            "does not see at the end of {key} what it appended: {call}"
                        ));
                    };
                    outside.lists.push((key, seen.to_vec()));
                }
                Op::Read(key, number) | Op::Other(key, number) => {
                    let is_same = matches!(op, Op::Read(..));
                    match own.get(key) {
                        Some(own) if (own == number) != is_same => {
                            return Err(format!("does not see in {key} what it wrote: {call}"));
                        }
                        Some(_) => {}
                        None if is_same => outside.reads.push((key, *number)),
                        None => outside.others.push((key, *number)),
                    }
                }
            }
        }
        outside.writes = own.into_iter().collect();
        for (key, numbers) in ends {
            let passing = numbers.iter().rev().skip(1).map(|number| (key, *number));
            outside.passing.extend(passing);
            outside.appends.extend(numbers.into_iter().map(|number| (key, number)));
        }
        Ok(outside)
    }

    /// Returns whether it read nothing. With an unknown outcome it may commit after all others.
    pub(crate) fn is_blind(&self) -> bool {
        self.lists.is_empty() && self.reads.is_empty() && self.others.is_empty()
    }

    /// Returns the numbers it read, each of which has a writer.
    pub(crate) fn seen(&self) -> impl Iterator<Item = (Key, u32)> {
        let listed =
            self.lists.iter().flat_map(|(key, seen)| seen.iter().map(|number| (*key, *number)));
        listed.chain(self.reads.iter().copied().filter(|(_, number)| *number > 0))
    }

    /// Returns the last number of each of its reads: for lists, the one at the end.
    pub(crate) fn last_seen(&self) -> impl Iterator<Item = (Key, u32)> {
        let listed = self.lists.iter().filter_map(|(key, seen)| Some((*key, *seen.last()?)));
        listed.chain(self.reads.iter().copied())
    }
}
