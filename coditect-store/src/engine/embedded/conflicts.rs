//! Which keys were written when: what a commit's reads are checked against.
//!
//! Only a read against a later write conflicts; two writes never do. What is forgotten is
//! remembered as forgotten: a transaction that began before it is too old to be checked.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    time::{Duration, Instant},
};

use super::super::limits::LIFETIME;

/// A range of keys, without its end.
pub(super) type KeyRange = (Vec<u8>, Vec<u8>);

/// A set of ranges, kept apart from each other.
#[derive(Debug, Default)]
pub(super) struct RangeSet {
    /// Begin → end; no two overlap or touch.
    ranges: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
}

impl RangeSet {
    pub(super) fn insert(&mut self, mut begin: Vec<u8>, mut end: Vec<u8>) {
        if begin >= end {
            return;
        }
        let mut before =
            self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(begin.as_slice())));
        match before.next_back() {
            Some((_, known)) if *known >= end => return,
            Some((at, known)) if *known >= begin => begin.clone_from(at),
            _ => {}
        }
        loop {
            let touched = (Bound::Included(begin.as_slice()), Bound::Included(end.as_slice()));
            let Some((at, _)) = self.ranges.range::<[u8], _>(touched).next() else { break };
            let at = at.clone();
            if let Some(known) = self.ranges.remove(&at) {
                self.bytes -= at.len() + known.len();
                end = end.max(known);
            }
        }
        self.bytes += begin.len() + end.len();
        self.ranges.insert(begin, end);
    }

    /// Whether every key from `begin` to `end` is in it.
    pub(super) fn covers(&self, begin: &[u8], end: &[u8]) -> bool {
        let mut before = self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(begin)));
        begin >= end || before.next_back().is_some_and(|(_, known)| known.as_slice() >= end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// The bytes of all ends of its ranges.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_ranges(self) -> Vec<KeyRange> {
        self.ranges.into_iter().collect()
    }
}

/// The version of the last write of every key, as far back as it is kept.
#[derive(Debug)]
pub(super) struct RecentWrites {
    /// From each key up to the next one: the version of the last write there. The first is `""`.
    steps: BTreeMap<Vec<u8>, u64>,
    /// Writes up to this version may have been forgotten.
    forgotten: u64,
    /// When the map is this large, what is old is swept out.
    sweep_at: usize,
    /// Versions and when they were given, about one a second: how old a version is cannot be told
    /// from its number, since a clock that was set back makes them grow slowly.
    ages: VecDeque<(u64, Instant)>,
}

/// Below this many steps sweeping is not worth it.
const SMALLEST_SWEEP: usize = 4_096;

impl RecentWrites {
    /// Nothing is known about versions up to `forgotten`.
    pub(super) fn new(forgotten: u64) -> Self {
        let steps = BTreeMap::from([(Vec::new(), 0)]);
        Self { steps, forgotten, sweep_at: SMALLEST_SWEEP, ages: VecDeque::new() }
    }

    /// Whether too much is forgotten to check a transaction that reads at `version`.
    pub(super) fn is_too_old(&self, version: u64) -> bool {
        version < self.forgotten
    }

    /// Whether a key of the range was written after `version`.
    pub(super) fn was_written_after(&self, version: u64, (begin, end): &KeyRange) -> bool {
        if begin >= end {
            return false;
        }
        let at = (Bound::Unbounded, Bound::Included(begin.as_slice()));
        let covering = self.steps.range::<[u8], _>(at).next_back();
        if covering.is_some_and(|(_, written)| *written > version) {
            return true;
        }
        let within = (Bound::Excluded(begin.as_slice()), Bound::Excluded(end.as_slice()));
        self.steps.range::<[u8], _>(within).any(|(_, written)| *written > version)
    }

    /// Notes that the range was written at `version`, which is not below any noted before.
    pub(super) fn note(&mut self, version: u64, (begin, end): KeyRange) {
        if begin >= end {
            return;
        }
        let up_to_end = (Bound::Unbounded, Bound::Included(end.as_slice()));
        let after = self.steps.range::<[u8], _>(up_to_end).next_back().map_or(0, |(_, at)| *at);
        let within = (Bound::Included(begin.as_slice()), Bound::Excluded(end.as_slice()));
        let covered: Vec<_> =
            self.steps.range::<[u8], _>(within).map(|(key, _)| key.clone()).collect();
        for key in covered {
            self.steps.remove(&key);
        }
        self.steps.insert(begin, version);
        self.steps.insert(end, after);
    }

    /// Forgets the writes that no transaction is old enough to conflict with; `last_version` is given
    /// `now`.
    pub(super) fn forget(&mut self, now: Instant, last_version: u64) {
        if self.ages.back().is_none_or(|(_, at)| now - *at >= Duration::from_secs(1)) {
            self.ages.push_back((last_version, now));
        }
        while let [(_, _), (_, next), ..] = self.ages.make_contiguous()
            && now - *next > LIFETIME
        {
            self.ages.pop_front();
        }
        if let Some((version, _)) = self.ages.front().filter(|(_, at)| now - *at > LIFETIME) {
            self.forget_before(*version);
        }
    }

    /// Forgets writes before `version`, if there is enough to make it worth the walk.
    fn forget_before(&mut self, version: u64) {
        if self.steps.len() < self.sweep_at {
            return;
        }
        let mut previous = None;
        let mut forgotten = self.forgotten;
        self.steps.retain(|_, written| {
            if *written < version {
                forgotten = forgotten.max(*written);
                *written = 0;
            }
            let repeats = previous == Some(*written);
            previous = Some(*written);
            !repeats
        });
        self.forgotten = forgotten;
        self.sweep_at = SMALLEST_SWEEP.max(self.steps.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn range(begin: u8, end: u8) -> KeyRange {
        (vec![begin], vec![end])
    }

    #[test]
    fn only_later_writes_of_the_keys_read_conflict() {
        let mut writes = RecentWrites::new(0);
        writes.note(10, range(3, 5));
        assert!(writes.was_written_after(9, &range(0, 9)));
        assert!(writes.was_written_after(9, &range(4, 5)));
        assert!(!writes.was_written_after(10, &range(0, 9)));
        assert!(!writes.was_written_after(9, &range(5, 9)), "the end is not written");
        assert!(!writes.was_written_after(9, &range(0, 3)), "the end is not read");
    }

    #[test]
    fn what_is_forgotten_makes_older_transactions_too_old() {
        let mut writes = RecentWrites::new(5);
        writes.sweep_at = 0;
        writes.note(10, range(1, 2));
        writes.note(20, range(3, 4));
        writes.forget_before(15);
        assert!(writes.is_too_old(9));
        assert!(!writes.is_too_old(10));
        assert!(writes.was_written_after(10, &range(3, 4)));
    }

    #[test]
    fn writes_are_forgotten_by_their_age_though_a_clock_set_back_makes_versions_crawl() {
        let mut writes = RecentWrites::new(0);
        let started = Instant::now();
        let mut last = 0_u64;
        for second in 0..20 {
            for _ in 0..1_000 {
                last += 1;
                let key = last.to_be_bytes().to_vec();
                writes.note(last, (key.clone(), [key, vec![0]].concat()));
            }
            writes.forget(started + Duration::from_secs(second), last);
        }
        let kept = writes.steps.len();
        assert!(
            kept < 2 * 2 * 7_000,
            "{kept} steps for the writes of seven seconds, at twice that"
        );
        assert!(!writes.is_too_old(last - 4_000));
        assert!(writes.is_too_old(last - 19_000));
    }

    proptest! {
        #[test]
        fn recent_writes_agree_with_a_version_per_key(
            notes in vec((0_u8..20, 0_u8..20), 1..40),
            asked in (0_u8..20, 0_u8..20, 0_u64..40),
        ) {
            let mut writes = RecentWrites::new(0);
            let mut plain = [0_u64; 20];
            for (version, (a, b)) in (1_u64..).zip(notes) {
                writes.note(version, range(a.min(b), a.max(b)));
                plain[usize::from(a.min(b))..usize::from(a.max(b))].fill(version);
            }
            let (a, b, version) = asked;
            let (begin, end) = (a.min(b), a.max(b));
            let expected = plain[usize::from(begin)..usize::from(end)].iter().any(|at| *at > version);
            prop_assert_eq!(writes.was_written_after(version, &range(begin, end)), expected);
        }

        #[test]
        fn a_range_set_holds_what_was_put_in_and_no_more(
            inserts in vec((0_u8..30, 0_u8..30), 0..20),
        ) {
            let mut set = RangeSet::default();
            let mut plain = [false; 30];
            for (a, b) in inserts {
                set.insert(vec![a], vec![b]);
                if a < b {
                    plain[usize::from(a)..usize::from(b)].fill(true);
                }
            }
            let bytes: usize = set.ranges.iter().map(|(a, b)| a.len() + b.len()).sum();
            prop_assert_eq!(set.bytes(), bytes);
            let mut held = [false; 30];
            for (begin, end) in set.into_ranges() {
                held[usize::from(begin[0])..usize::from(end[0])].fill(true);
            }
            prop_assert_eq!(held, plain);
        }
    }
}
