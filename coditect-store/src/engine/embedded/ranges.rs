//! Key ranges, and sets of them.

use std::{collections::BTreeMap, fmt, mem, ops::Bound};

/// The keys from one (inclusive) to another (exclusive). A single key, the most common case, is one
/// allocation.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyRange {
    /// Begin and end. For a single key they overlap, since the end is the key and one more byte.
    bytes: Box<[u8]>,
    begin_length: usize,
    end_from: usize,
}

impl KeyRange {
    pub(super) fn new(begin: &[u8], end: &[u8]) -> Self {
        if is_key(begin, end) {
            return Self::of_key(begin);
        }
        let bytes = [begin, end].concat().into_boxed_slice();
        Self { bytes, begin_length: begin.len(), end_from: begin.len() }
    }

    pub(super) fn of_key(key: &[u8]) -> Self {
        Self { bytes: next_key(key).into_boxed_slice(), begin_length: key.len(), end_from: 0 }
    }

    pub(super) fn begin(&self) -> &[u8] {
        &self.bytes[..self.begin_length]
    }

    pub(super) fn end(&self) -> &[u8] {
        &self.bytes[self.end_from..]
    }

    /// Returns whether it contains a single key.
    pub(super) fn is_key(&self) -> bool {
        self.end_from == 0 && is_key(self.begin(), self.end())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.begin() >= self.end()
    }

    /// Returns the length of both ends, in bytes.
    fn length(&self) -> usize {
        self.begin().len() + self.end().len()
    }
}

impl From<&[u8]> for KeyRange {
    fn from(key: &[u8]) -> Self {
        Self::of_key(key)
    }
}

impl From<(Vec<u8>, Vec<u8>)> for KeyRange {
    fn from((begin, end): (Vec<u8>, Vec<u8>)) -> Self {
        Self::new(&begin, &end)
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRange").field(&self.begin()).field(&self.end()).finish()
    }
}

/// Returns the first key after `key`.
pub(super) fn next_key(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Returns whether the range from `key` to `end` contains only `key`.
pub(super) fn is_key(key: &[u8], end: &[u8]) -> bool {
    end.split_last() == Some((&0, key))
}

/// Maximum number of ranges that are collected before they are merged.
const MAX_RECENT: usize = 64;

/// A set of ranges.
///
/// Most transactions have few ranges and only list them, so inserted ranges are merged late: when
/// [required](Self::merge), or when there are many.
#[derive(Clone, Debug, Default)]
pub(super) struct RangeSet {
    /// Begin → end; they neither overlap nor touch.
    merged: BTreeMap<Vec<u8>, Vec<u8>>,
    recent: Vec<KeyRange>,
    bytes: usize,
}

impl RangeSet {
    pub(super) fn insert(&mut self, range: KeyRange) {
        if range.is_empty() {
            return;
        }
        if self.recent.len() == MAX_RECENT {
            self.merge();
        }
        self.bytes += range.length();
        self.recent.push(range);
    }

    /// Merges ranges that overlap or touch.
    pub(super) fn merge(&mut self) {
        for range in mem::take(&mut self.recent) {
            self.bytes -= range.length();
            self.insert_merged(range.begin().to_vec(), range.end().to_vec());
        }
    }

    fn insert_merged(&mut self, mut begin: Vec<u8>, mut end: Vec<u8>) {
        let mut before =
            self.merged.range::<[u8], _>((Bound::Unbounded, Bound::Included(begin.as_slice())));
        match before.next_back() {
            Some((_, known)) if *known >= end => return,
            Some((at, known)) if *known >= begin => begin.clone_from(at),
            _ => {}
        }
        loop {
            let touched = (Bound::Included(begin.as_slice()), Bound::Included(end.as_slice()));
            let Some((at, _)) = self.merged.range::<[u8], _>(touched).next() else { break };
            let at = at.clone();
            if let Some(known) = self.merged.remove(&at) {
                self.bytes -= at.len() + known.len();
                end = end.max(known);
            }
        }
        self.bytes += begin.len() + end.len();
        self.merged.insert(begin, end);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.merged.is_empty() && self.recent.is_empty()
    }

    /// Returns the number of ranges; exact after [`merge`](Self::merge), otherwise a lower bound.
    pub(super) fn len(&self) -> usize {
        self.merged.len() + self.recent.len()
    }

    /// Returns the length of all ends, in bytes; exact after [`merge`](Self::merge), otherwise a
    /// lower bound.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns ranges that together cover the set.
    pub(super) fn into_ranges(self) -> Vec<KeyRange> {
        let Self { merged, recent: mut ranges, .. } = self;
        ranges.extend(merged.into_iter().map(KeyRange::from));
        ranges
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn single_key_ranges_are_recognized() {
        for (begin, end) in [("", "a"), ("a", "b"), ("a", "a\0b"), ("b", "a"), ("", "")] {
            let range = KeyRange::new(begin.as_bytes(), end.as_bytes());
            assert_eq!((range.begin(), range.end()), (begin.as_bytes(), end.as_bytes()));
            assert!(!range.is_key(), "{range:?}");
            assert_eq!(range.is_empty(), begin >= end, "{range:?}");
        }
        for key in ["", "a", "a\0"] {
            let range = KeyRange::of_key(key.as_bytes());
            assert_eq!((range.begin(), range.end()), (key.as_bytes(), &*next_key(key.as_bytes())));
            assert_eq!(range, KeyRange::new(range.begin(), range.end()));
            assert!(range.is_key() && !range.is_empty());
        }
    }

    proptest! {
        #[test]
        fn range_set_covers_exactly_the_inserted_keys(
            inserts in vec((0_u8..30, 0_u8..30), 0..200),
            is_merged: bool,
        ) {
            let mut set = RangeSet::default();
            let mut plain = [false; 30];
            for (a, b) in inserts {
                set.insert(KeyRange::new(&[a], &[b]));
                if a < b {
                    plain[usize::from(a)..usize::from(b)].fill(true);
                }
            }
            let (ranges, bytes) = (set.len(), set.bytes());
            if is_merged {
                set.merge();
                prop_assert!(set.len() <= ranges && set.bytes() <= bytes);
                let ends: usize = set.merged.iter().map(|(a, b)| a.len() + b.len()).sum();
                prop_assert_eq!(set.bytes(), ends);
                let runs = plain.chunk_by(|a, b| a == b).filter(|run| run[0]).count();
                prop_assert_eq!(set.len(), runs);
            }
            let mut held = [false; 30];
            for range in set.into_ranges() {
                held[usize::from(range.begin()[0])..usize::from(range.end()[0])].fill(true);
            }
            prop_assert_eq!(held, plain);
        }
    }
}
