//! The conflict set: recent writes by version, which the reads of a commit are checked against.
//!
//! Only a read conflicts with a later write; two writes never do. The set remembers up to which
//! version it has evicted writes: a transaction that read before that version is too old to be
//! checked.

use std::{
    collections::{BTreeMap, VecDeque, btree_map},
    mem,
    ops::Bound,
    time::Duration,
};

use super::{
    super::limits::LIFETIME,
    ranges::{KeyRange, is_key},
    sync::Instant,
    wal::{Mutation, MutationBatch},
};

/// The version of the last write to each key, within the lifetime of transactions.
///
/// Writes are kept in generations, so that expired ones are evicted together. If the set needs too
/// much memory, the oldest generation is evicted early.
#[derive(Debug)]
pub(super) struct ConflictSet {
    /// Generations, oldest first; never empty.
    generations: VecDeque<Generation>,
    /// Writes up to this version may have been evicted.
    oldest_version: u64,
    /// Evicted generations, freed step by step, since freeing them at once would take long.
    pending_free: VecDeque<btree_map::IntoIter<Vec<u8>, u64>>,
    /// Number of writes recorded since the last step.
    recorded: usize,
}

/// The writes of one interval.
#[derive(Debug)]
struct Generation {
    /// Single keys, the most common case, with the version of their last write.
    points: BTreeMap<Vec<u8>, u64>,
    /// Ranges: each key begins a range that ends at the next key, with the version of its last
    /// write, or 0.
    ranges: BTreeMap<Vec<u8>, u64>,
    /// Version of the last write; if there is none, of the last one before this generation.
    last: u64,
    began: Instant,
    /// Approximate memory of the ranges, in bytes.
    bytes: usize,
}

/// Duration of a generation.
const GENERATION_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum memory of all generations, in bytes; each may use a tenth of it.
const MAX_BYTES: usize = 256 << 20;
/// Approximate memory of a range beside its key, in bytes.
const OVERHEAD: usize = 48;

impl ConflictSet {
    /// Returns an empty set, without the writes of versions up to `oldest_version`.
    pub(super) fn new(oldest_version: u64) -> Self {
        let generations = VecDeque::from([Generation::new(Instant::now(), oldest_version)]);
        Self { generations, oldest_version, pending_free: VecDeque::new(), recorded: 0 }
    }

    /// Returns whether writes after `version` may have been evicted, so that a read at it cannot be
    /// checked.
    pub(super) fn is_too_old(&self, version: u64) -> bool {
        version < self.oldest_version
    }

    /// Returns whether a key of the range was written after `version`.
    pub(super) fn conflicts_with(&self, version: u64, range: &KeyRange) -> bool {
        let mut later =
            self.generations.iter().rev().take_while(|generation| generation.last > version);
        later.any(|generation| generation.conflicts_with(version, range))
    }

    /// Records the writes of `version`, which is not below any recorded before.
    pub(super) fn record(&mut self, version: u64, changes: &MutationBatch) {
        let Some(newest) = self.generations.back_mut() else { return };
        for change in changes.iter() {
            self.recorded += 1;
            match change {
                Mutation::Set { key, .. } | Mutation::Clear { key } => {
                    newest.record_key(version, key);
                }
                Mutation::ClearRange { begin, end } => newest.record(version, begin, end),
            }
        }
    }

    /// Records a write to a range, whether or not it has keys.
    pub(super) fn record_range(&mut self, version: u64, range: &KeyRange) {
        self.recorded += 1;
        if let Some(newest) = self.generations.back_mut() {
            newest.record(version, range.begin(), range.end());
        }
    }

    /// Evicts writes that are too old to conflict with any transaction at the time `now`. Keeps one
    /// generation more, since writes are recorded before they are published.
    pub(super) fn evict_expired(&mut self, now: Instant) {
        let is_full = |newest: &Generation| {
            now - newest.began >= GENERATION_INTERVAL || newest.bytes > MAX_BYTES / 10
        };
        if self.generations.back().is_none_or(is_full) {
            let last = self.generations.back().map_or(self.oldest_version, |newest| newest.last);
            self.generations.push_back(Generation::new(now, last));
        }
        while let Some(after) = self.generations.get(1)
            && (now - after.began > LIFETIME + GENERATION_INTERVAL || self.bytes() > MAX_BYTES)
            && let Some(oldest) = self.generations.pop_front()
        {
            self.oldest_version = self.oldest_version.max(oldest.last);
            self.pending_free.extend([oldest.points.into_iter(), oldest.ranges.into_iter()]);
        }
        self.free();
    }

    fn bytes(&self) -> usize {
        self.generations.iter().map(|generation| generation.bytes).sum()
    }

    /// Frees more evicted writes than were recorded since the last step, so that it catches up.
    fn free(&mut self) {
        let mut steps = 4 * mem::take(&mut self.recorded);
        while steps > 0
            && let Some(oldest) = self.pending_free.front_mut()
        {
            let freed = oldest.by_ref().take(steps).count();
            if freed < steps {
                self.pending_free.pop_front();
            }
            steps -= freed;
        }
    }
}

impl Generation {
    fn new(began: Instant, last: u64) -> Self {
        Self { points: BTreeMap::new(), ranges: BTreeMap::new(), last, began, bytes: 0 }
    }

    fn conflicts_with(&self, version: u64, range: &KeyRange) -> bool {
        let (begin, end) = (range.begin(), range.end());
        if begin >= end {
            return false;
        }
        let is_later = |(_, written): (&_, &u64)| *written > version;
        let is_written = if range.is_key() {
            self.points.get_key_value(begin).is_some_and(is_later)
        } else {
            let within = (Bound::Included(begin), Bound::Excluded(end));
            self.points.range::<[u8], _>(within).any(is_later)
        };
        if is_written || self.ranges.is_empty() {
            return is_written;
        }
        let at = (Bound::Unbounded, Bound::Included(begin));
        let within = (Bound::Excluded(begin), Bound::Excluded(end));
        self.ranges.range::<[u8], _>(at).next_back().is_some_and(is_later)
            || self.ranges.range::<[u8], _>(within).any(is_later)
    }

    fn record_key(&mut self, version: u64, key: &[u8]) {
        self.last = version;
        if self.points.insert(key.to_vec(), version).is_none() {
            self.bytes += key.len() + OVERHEAD;
        }
    }

    fn record(&mut self, version: u64, begin: &[u8], end: &[u8]) {
        if begin >= end {
            return;
        }
        if is_key(begin, end) {
            return self.record_key(version, begin);
        }
        self.last = version;
        let up_to_end = (Bound::Unbounded, Bound::Included(end));
        let after = self.ranges.range::<[u8], _>(up_to_end).next_back().map_or(0, |(_, at)| *at);
        let within = (Bound::Included(begin), Bound::Excluded(end));
        let covered: Vec<_> =
            self.ranges.range::<[u8], _>(within).map(|(key, _)| key.clone()).collect();
        for key in covered {
            self.ranges.remove(&key);
            self.bytes -= key.len() + OVERHEAD;
        }
        for (key, version) in [(begin, version), (end, after)] {
            if self.ranges.insert(key.to_vec(), version).is_none() {
                self.bytes += key.len() + OVERHEAD;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn range(begin: u8, end: u8) -> KeyRange {
        KeyRange::new(&[begin], &[end])
    }

    #[test]
    fn only_later_writes_of_read_keys_conflict() {
        let mut writes = ConflictSet::new(0);
        writes.record_range(10, &range(3, 5));
        assert!(writes.conflicts_with(9, &range(0, 9)));
        assert!(writes.conflicts_with(9, &range(4, 5)));
        assert!(!writes.conflicts_with(10, &range(0, 9)));
        assert!(!writes.conflicts_with(9, &range(5, 9)), "the end is not written");
        assert!(!writes.conflicts_with(9, &range(0, 3)), "the end is not read");
    }

    /// Records the writes of twenty seconds: a thousand versions per second, one write each; the
    /// last is 20,000.
    fn twenty_seconds(writes: &mut ConflictSet) {
        let started = Instant::now();
        let mut last = 0_u64;
        for second in 0..20 {
            for _ in 0..1_000 {
                last += 1;
                writes.record_range(last, &KeyRange::of_key(&last.to_be_bytes()));
            }
            writes.evict_expired(started + Duration::from_secs(second));
        }
    }

    #[test]
    fn expired_writes_are_evicted_and_older_transactions_are_too_old() {
        let mut writes = ConflictSet::new(0);
        twenty_seconds(&mut writes);
        assert!(!writes.is_too_old(20_000 - 6_000));
        assert!(writes.is_too_old(20_000 - 9_000));
        let range = KeyRange::of_key(&20_000_u64.to_be_bytes());
        assert!(writes.conflicts_with(14_000, &range));
        assert!(!writes.conflicts_with(20_000, &range));
    }

    #[test]
    fn evicted_writes_are_freed_step_by_step() {
        let mut writes = ConflictSet::new(0);
        twenty_seconds(&mut writes);
        let kept: usize = writes.generations.iter().map(|generation| generation.points.len()).sum();
        let pending_free: usize = writes.pending_free.iter().map(ExactSizeIterator::len).sum();
        assert!(kept <= 8_000, "{kept} writes of eight seconds are kept");
        assert!(pending_free <= 1_000, "{pending_free} writes are not freed");
        writes.record_range(20_001, &range(1, 2));
        writes.evict_expired(Instant::now() + Duration::from_secs(60));
        let left: usize = writes.pending_free.iter().map(ExactSizeIterator::len).sum();
        assert!(left > 6_000, "one step frees a part only");
    }

    #[test]
    fn writes_beyond_the_memory_limit_are_evicted_early() {
        let mut writes = ConflictSet::new(0);
        let now = Instant::now();
        for version in 1..=40_000_u64 {
            let key = version.to_be_bytes().repeat(1_250);
            writes.record_range(version, &KeyRange::of_key(&key));
            if version % 100 == 0 {
                writes.evict_expired(now);
            }
        }
        assert!(writes.bytes() <= MAX_BYTES, "{} bytes", writes.bytes());
        let steps = writes.generations.iter().flat_map(|generation| generation.points.keys());
        let counted: usize = steps.map(|key| key.len() + OVERHEAD).sum();
        assert_eq!(counted, writes.bytes());
        assert!(writes.is_too_old(1) && !writes.is_too_old(30_000));
    }

    proptest! {
        #[test]
        fn conflict_set_agrees_with_a_version_per_key(
            recorded in vec((0_u8..20, 0_u8..20), 1..40),
            asked in (0_u8..20, 0_u8..20, 0_u64..40),
            evictions in vec(any::<bool>(), 40),
        ) {
            let of = |a: u8, b: u8| if b == a + 1 { KeyRange::of_key(&[a]) } else { range(a, b) };
            let mut writes = ConflictSet::new(0);
            let mut now = Instant::now();
            let mut plain = [0_u64; 20];
            for (version, (a, b)) in (1_u64..).zip(recorded) {
                writes.record_range(version, &of(a.min(b), a.max(b)));
                plain[usize::from(a.min(b))..usize::from(a.max(b))].fill(version);
                if evictions[usize::try_from(version).unwrap() % evictions.len()] {
                    // Few enough for nothing to be evicted.
                    let is_short = writes.generations.len() < 6;
                    now += if is_short { GENERATION_INTERVAL } else { Duration::ZERO };
                    writes.evict_expired(now);
                }
            }
            let (a, b, version) = asked;
            let (begin, end) = (a.min(b), a.max(b));
            let mut versions = plain[usize::from(begin)..usize::from(end)].iter();
            let expected = versions.any(|at| *at > version);
            prop_assert_eq!(writes.conflicts_with(version, &range(begin, end)), expected);
        }
    }
}
