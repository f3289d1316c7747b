//! The parts of its snapshot that a transaction has read, as FoundationDB's client caches them
//! (`SnapshotCache`).
//!
//! Only the ranges are kept: a snapshot does not change, so their rows can be read again. The
//! read ranges decide when its key selectors stop at an unreadable key, which conflict
//! ranges they add, and when a transaction takes its read version.
//!
//! # Invariants
//!
//! Entries do not overlap. Entries that touch stay separate, as they do in FoundationDB's client.

use std::{collections::BTreeMap, mem, ops::Bound};

use super::ranges::{KeyRange, next_key};

/// Maximum number of ranges that are collected before they are inserted.
const MAX_RECENT: usize = 1024;

/// The end of the key space, past the system keys.
pub(super) const END_OF_KEYS: &[u8] = b"\xff\xff";

/// The ranges of keys that a transaction has read.
#[derive(Debug, Default)]
pub(super) struct SnapshotCache {
    /// Begin → end.
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    recent: Vec<KeyRange>,
}

/// A stretch of keys that were all read, or all not.
pub(super) struct CacheRange {
    pub(super) begin: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) is_known: bool,
}

impl SnapshotCache {
    /// Records that every key of `range` was read.
    pub(super) fn insert(&mut self, range: KeyRange) {
        if range.is_empty() {
            return;
        }
        self.recent.push(range);
        if self.recent.len() >= MAX_RECENT {
            self.insert_recent();
        }
    }

    /// Returns the stretch that `key` belongs to.
    pub(super) fn range_at(&mut self, key: &[u8]) -> CacheRange {
        self.insert_recent();
        let mut before = self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        self.stretch(before.next_back(), key, |end| key < end)
    }

    /// Returns the stretch that the keys right before `key` belong to; `key` is not empty.
    pub(super) fn range_before(&mut self, key: &[u8]) -> CacheRange {
        self.insert_recent();
        let mut before = self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key)));
        self.stretch(before.next_back(), key, |end| key <= end)
    }

    /// Returns the entry `before` if `reaches` holds for its end, else the gap after it.
    fn stretch(
        &self,
        before: Option<(&Vec<u8>, &Vec<u8>)>,
        key: &[u8],
        reaches: impl Fn(&[u8]) -> bool,
    ) -> CacheRange {
        match before {
            Some((begin, end)) if reaches(end) => {
                CacheRange { begin: begin.clone(), end: end.clone(), is_known: true }
            }
            _ => {
                let begin = before.map_or_else(Vec::new, |(_, end)| end.clone());
                let mut after =
                    self.entries.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
                let end =
                    after.next().map_or_else(|| END_OF_KEYS.to_vec(), |(next, _)| next.clone());
                CacheRange { begin, end, is_known: false }
            }
        }
    }

    /// Inserts the recent ranges into the entries, in the order in which they were read.
    fn insert_recent(&mut self) {
        for range in mem::take(&mut self.recent) {
            if range.is_key() {
                self.insert_key(range.begin());
            } else {
                self.insert_range(range.begin(), range.end());
            }
        }
    }

    fn insert_key(&mut self, key: &[u8]) {
        let mut before = self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        if before.next_back().is_none_or(|(_, end)| end.as_slice() <= key) {
            self.entries.insert(key.to_vec(), next_key(key));
        }
    }

    /// Replaces the entries within the range by one. An entry that begins before it, or ends after
    /// it, is kept, and cuts it off.
    fn insert_range(&mut self, begin: &[u8], end: &[u8]) {
        let (mut begin, mut end) = (begin.to_vec(), end.to_vec());
        let mut before =
            self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(begin.as_slice())));
        if let Some((_, known)) = before.next_back()
            && *known > begin
        {
            begin.clone_from(known);
        }
        let mut last =
            self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Included(end.as_slice())));
        if let Some((at, known)) = last.next_back()
            && *known > end
        {
            end.clone_from(at);
        }
        if begin >= end {
            return;
        }
        let within = (Bound::Included(begin.as_slice()), Bound::Excluded(end.as_slice()));
        let replaced: Vec<_> =
            self.entries.range::<[u8], _>(within).map(|(at, _)| at.clone()).collect();
        for at in replaced {
            self.entries.remove(&at);
        }
        self.entries.insert(begin, end);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn touching_entries_stay_separate() {
        let mut cache = SnapshotCache::default();
        cache.insert(KeyRange::new(b"a", b"c"));
        cache.insert(KeyRange::new(b"b", b"e"));
        let first = cache.range_at(b"b");
        assert_eq!((first.begin, first.end, first.is_known), (b"a".into(), b"c".into(), true));
        let second = cache.range_before(b"d");
        assert_eq!((second.begin, second.end, second.is_known), (b"c".into(), b"e".into(), true));
        let gap = cache.range_at(b"e");
        assert_eq!((gap.begin, gap.end), (b"e".into(), END_OF_KEYS.to_vec()));
        assert!(!gap.is_known);
    }

    proptest! {
        #[test]
        fn exactly_the_read_keys_are_known(
            reads in vec((0_u8..30, 0_u8..30), 0..60),
            at in 0_u8..30,
        ) {
            let mut cache = SnapshotCache::default();
            let mut plain = [false; 31];
            for (a, b) in reads {
                cache.insert(KeyRange::new(&[a], &[b]));
                if a < b {
                    plain[usize::from(a)..usize::from(b)].fill(true);
                }
            }
            let range = cache.range_at(&[at]);
            prop_assert_eq!(range.is_known, plain[usize::from(at)]);
            prop_assert!(range.begin.as_slice() <= &[at][..] && &[at][..] < range.end.as_slice());
            if at > 0 {
                let range = cache.range_before(&[at]);
                prop_assert_eq!(range.is_known, plain[usize::from(at) - 1]);
                prop_assert!(range.begin.as_slice() < &[at][..]);
                prop_assert!(&[at][..] <= range.end.as_slice());
            }
        }
    }
}
