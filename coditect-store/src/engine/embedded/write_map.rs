//! The writes of a transaction: a map over the whole key space that its reads look through.
//!
//! It follows the `WriteMap` of FoundationDB's client, including its corner cases: a key that a
//! versionstamp is written to, or that a versionstamped key may become, is unreadable until it is
//! cleared; operations on
//! one key are kept in order; a later clear discards what it covers.

use std::{borrow::Cow, collections::BTreeMap, mem, ops::Bound};

use super::{
    super::{atomic::AtomicOp, limits::MAX_KEY},
    ranges::{KeyRange, is_key, next_key},
    wal::{Encoder, Mutation, MutationBatch},
};

/// One mutation of a commit, possibly not resolved yet.
#[derive(Debug)]
pub(super) enum PendingMutation {
    /// A mutation that does not depend on stored values.
    Plain(MutationBatch),
    Atomic {
        op: AtomicOp,
        key: Vec<u8>,
        operand: Vec<u8>,
    },
}

/// Collects the mutations of a transaction.
#[derive(Debug, Default)]
struct PendingMutations {
    done: Vec<PendingMutation>,
    plain: Encoder,
}

impl PendingMutations {
    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        if is_key(begin, end) {
            self.plain.push(Mutation::Clear { key: begin });
        } else if begin < end {
            self.plain.push(Mutation::ClearRange { begin, end });
        }
    }

    fn operation(&mut self, key: &[u8], operation: &Operation) {
        match operation {
            Operation::Become(Some(value)) => self.plain.push(Mutation::Set { key, value }),
            Operation::Become(None) => self.plain.push(Mutation::Clear { key }),
            Operation::Apply(op, operand) => {
                self.flush_plain();
                let (op, key, operand) = (*op, key.to_vec(), operand.clone());
                self.done.push(PendingMutation::Atomic { op, key, operand });
            }
        }
    }

    fn flush_plain(&mut self) {
        if self.plain.length() > 0 {
            self.done.push(PendingMutation::Plain(self.plain.take()));
        }
    }

    fn finish(mut self) -> Vec<PendingMutation> {
        self.flush_plain();
        self.done
    }
}

/// The writes of one transaction.
#[derive(Debug, Default)]
pub(super) struct WriteMap {
    /// Entries by key: each describes its key, and the keys up to the next entry.
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Whether anything was ever cleared or made unreadable.
    has_gaps: bool,
    /// Whether anything was ever made unreadable.
    has_unreadable: bool,
    /// Mutations from before a versionstamped key made its range unreadable, and these ranges.
    resolved: PendingMutations,
    resolved_ranges: Vec<KeyRange>,
}

#[derive(Debug)]
struct Entry {
    /// Operations on the key itself, in order; if empty, the key is in the state of the keys after
    /// it.
    operations: Vec<Operation>,
    /// Whether the key itself is unreadable.
    unreadable: bool,
    /// State of the keys after it.
    gap: Gap,
}

/// State of the keys between two entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Gap {
    cleared: bool,
    unreadable: bool,
}

/// One operation on a key, computed as far as possible without the stored value.
#[derive(Clone, Debug)]
enum Operation {
    /// Sets or clears the value.
    Become(Option<Vec<u8>>),
    Apply(AtomicOp, Vec<u8>),
}

/// A run of keys in the same state. `end` is `None` for the last one.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    pub(super) begin: Vec<u8>,
    pub(super) end: Option<Vec<u8>>,
    pub(super) unreadable: bool,
    pub(super) state: State<'a>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State<'a> {
    /// As stored.
    Unmodified,
    /// Cleared.
    Cleared,
    /// A single written key.
    Written(Written<'a>),
}

/// The operations on a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a>(&'a [Operation]);

impl Written<'_> {
    /// Returns whether the outcome depends on the stored value.
    pub(super) fn depends_on_stored(self) -> bool {
        matches!(self.0.first(), Some(Operation::Apply(op, _)) if op.reads_value())
    }

    /// Returns the outcome, given the stored value.
    pub(super) fn over(self, stored: Option<Vec<u8>>) -> Option<Vec<u8>> {
        self.0.iter().fold(stored, |value, operation| match operation {
            Operation::Become(value) => value.clone(),
            Operation::Apply(op, operand) => op.apply(value.as_deref(), operand),
        })
    }
}

impl Segment<'_> {
    /// Returns the segment before all writes.
    fn untouched_up_to(end: Option<Vec<u8>>) -> Self {
        Self { begin: Vec::new(), end, unreadable: false, state: State::Unmodified }
    }

    /// Returns whether reading it reads the database, so that it can conflict.
    pub(super) fn reads_stored(&self) -> bool {
        match self.state {
            State::Unmodified => true,
            State::Cleared => false,
            State::Written(written) => written.depends_on_stored(),
        }
    }
}

impl WriteMap {
    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) {
        self.write(key, Operation::Become(Some(value.to_vec())));
    }

    pub(super) fn apply(&mut self, op: AtomicOp, key: &[u8], operand: &[u8]) {
        self.write(key, Operation::Apply(op, operand.to_vec()));
    }

    pub(super) fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.cover(begin, end, Gap { cleared: true, unreadable: false });
    }

    /// Resolves the writes from `begin` to `end`, the keys that a versionstamped key may become,
    /// and makes the range unreadable.
    pub(super) fn make_unreadable(&mut self, begin: &[u8], end: &[u8]) {
        if begin >= end {
            return;
        }
        self.has_unreadable = true;
        self.resolve_range(begin, end);
        self.cover(begin, end, Gap { cleared: false, unreadable: true });
    }

    /// Returns all mutations, in the order in which the commit applies them.
    pub(super) fn into_mutations(self) -> Vec<PendingMutation> {
        let Self { entries, resolved: mut mutations, .. } = self;
        for (begin, end) in cleared(&entries) {
            mutations.clear_range(&begin, end);
        }
        for (key, entry) in &entries {
            entry.operations.iter().for_each(|one| mutations.operation(key, one));
        }
        mutations.finish()
    }

    /// Returns the ranges of all keys that are known to be written.
    pub(super) fn ranges(&self) -> impl Iterator<Item = KeyRange> {
        let keys = self.entries.iter().filter(|(_, entry)| has_its_key(&entry.operations));
        let cleared = cleared(&self.entries).map(|(begin, end)| KeyRange::new(&begin, end));
        let resolved = self.resolved_ranges.iter().cloned();
        keys.map(|(key, _)| KeyRange::of_key(key)).chain(cleared).chain(resolved)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns whether a key may be unreadable.
    pub(super) fn has_unreadable(&self) -> bool {
        self.has_unreadable
    }

    /// Returns the segment that contains `key`.
    pub(super) fn segment_at(&self, key: &[u8]) -> Segment<'_> {
        let end = || {
            let mut after = self.entries.range::<[u8], _>((Bound::Excluded(key), Bound::Unbounded));
            after.next().map(|(key, _)| key.clone())
        };
        match self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back() {
            None => Segment::untouched_up_to(end()),
            Some((at, entry)) if at == key && !entry.operations.is_empty() => entry.point(at),
            Some((at, entry)) => entry.segment_after(at, end()),
        }
    }

    /// Returns the segment of the keys immediately before `key`, which is not empty. It may end
    /// after `key`.
    pub(super) fn segment_before(&self, key: &[u8]) -> Segment<'_> {
        let end = || {
            let mut from = self.entries.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
            from.next().map(|(key, _)| key.clone())
        };
        match self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key))).next_back() {
            None => Segment::untouched_up_to(end()),
            Some((at, entry)) if !entry.operations.is_empty() && is_key(at, key) => entry.point(at),
            Some((at, entry)) => entry.segment_after(at, end()),
        }
    }

    fn gap_before(&self, key: &[u8]) -> Gap {
        if !self.has_gaps {
            return Gap::default();
        }
        let mut before = self.entries.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key)));
        before.next_back().map_or(Gap::default(), |(_, entry)| entry.gap)
    }

    fn write(&mut self, key: &[u8], operation: Operation) {
        let stamps = matches!(&operation, Operation::Apply(op, _) if !op.reads_value());
        self.has_unreadable |= stamps;
        let gap = self.gap_before(key);
        let new = || Entry { operations: Vec::new(), unreadable: gap.unreadable, gap };
        let entry = self.entries.entry(key.to_vec()).or_insert_with(new);
        if entry.operations.is_empty() {
            entry.unreadable = entry.gap.unreadable;
            if entry.gap.cleared {
                entry.operations.push(Operation::Become(None));
            }
        }
        entry.unreadable |= stamps;
        if entry.unreadable {
            entry.operations.push(operation);
        } else {
            entry.combine(operation);
        }
    }

    /// Replaces the entries from `begin` to `end` by a gap.
    fn cover(&mut self, begin: &[u8], end: &[u8], gap: Gap) {
        if begin >= end {
            return;
        }
        self.has_gaps = true;
        if !self.entries.contains_key(end) {
            let after = self.gap_before(end);
            let entry = Entry { operations: Vec::new(), unreadable: after.unreadable, gap: after };
            self.entries.insert(end.to_vec(), entry);
        }
        let covered = (Bound::Included(begin), Bound::Excluded(end));
        let gone: Vec<_> =
            self.entries.range::<[u8], _>(covered).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.entries.remove(&key);
        }
        let entry = Entry { operations: Vec::new(), unreadable: gap.unreadable, gap };
        self.entries.insert(begin.to_vec(), entry);
    }

    /// Resolves the writes from `begin` to `end`: cleared ranges first, then key by key.
    fn resolve_range(&mut self, begin: &[u8], end: &[u8]) {
        let mut resolved = mem::take(&mut self.resolved);
        let (mut written, mut ranges) = (Vec::new(), Vec::new());
        let mut at = begin.to_vec();
        while at.as_slice() < end {
            let segment = self.segment_at(&at);
            let until = segment.end.map_or_else(|| end.to_vec(), |next| next.min(end.to_vec()));
            match segment.state {
                State::Unmodified => {}
                State::Cleared => {
                    resolved.clear_range(&at, &until);
                    ranges.push(KeyRange::new(&at, &until));
                }
                State::Written(Written(operations)) => {
                    ranges.extend(has_its_key(operations).then(|| KeyRange::of_key(&at)));
                    written.push((at, operations));
                }
            }
            at = until;
        }
        for (key, operations) in written {
            for operation in operations {
                resolved.operation(&key, operation);
            }
        }
        self.resolved = resolved;
        self.resolved_ranges.append(&mut ranges);
    }
}

/// Returns whether an operation is on the key itself, and not on a versionstamped key.
fn has_its_key(operations: &[Operation]) -> bool {
    let becomes =
        |one: &Operation| matches!(one, Operation::Apply(AtomicOp::SetVersionstampedKey, _));
    operations.iter().any(|one| !becomes(one))
}

/// Returns the cleared ranges between entries.
fn cleared(entries: &BTreeMap<Vec<u8>, Entry>) -> impl Iterator<Item = (Cow<'_, [u8]>, &[u8])> {
    let ends = entries.keys().skip(1).map(Vec::as_slice).chain([MAX_KEY]);
    let gaps = entries.iter().zip(ends).filter(|((_, entry), _)| entry.gap.cleared);
    gaps.filter_map(|((key, entry), end)| {
        let is_gap_alone = entry.operations.is_empty();
        let begin = if is_gap_alone { Cow::Borrowed(&**key) } else { next_key(key).into() };
        (*begin < *end).then_some((begin, end))
    })
}

impl Entry {
    fn point(&self, key: &[u8]) -> Segment<'_> {
        Segment {
            begin: key.to_vec(),
            end: Some(next_key(key)),
            unreadable: self.unreadable,
            state: State::Written(Written(&self.operations)),
        }
    }

    fn segment_after(&self, key: &[u8], end: Option<Vec<u8>>) -> Segment<'_> {
        let begin = if self.operations.is_empty() { key.to_vec() } else { next_key(key) };
        let state = if self.gap.cleared { State::Cleared } else { State::Unmodified };
        Segment { begin, end, unreadable: self.gap.unreadable, state }
    }

    /// Adds an operation, combined with the previous one if that determines the value.
    fn combine(&mut self, operation: Operation) {
        match (self.operations.last_mut(), operation) {
            (_, Operation::Become(value)) => self.operations = vec![Operation::Become(value)],
            (Some(Operation::Become(value)), Operation::Apply(op, operand)) => {
                *value = op.apply(value.as_deref(), &operand);
            }
            (_, apply) => self.operations.push(apply),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value_at(writes: &WriteMap, key: &[u8], stored: Option<&[u8]>) -> Option<Vec<u8>> {
        match writes.segment_at(key).state {
            State::Unmodified => stored.map(<[u8]>::to_vec),
            State::Cleared => None,
            State::Written(written) => written.over(stored.map(<[u8]>::to_vec)),
        }
    }

    #[test]
    fn clear_hides_stored_and_written_values() {
        let mut writes = WriteMap::default();
        writes.set(b"b", b"1");
        writes.clear_range(b"a", b"c");
        assert_eq!(value_at(&writes, b"a", Some(b"old")), None);
        assert_eq!(value_at(&writes, b"b", Some(b"old")), None);
        assert_eq!(value_at(&writes, b"c", Some(b"old")), Some(b"old".to_vec()));
    }

    #[test]
    fn operation_on_a_cleared_key_ignores_the_stored_value() {
        let mut writes = WriteMap::default();
        writes.clear_range(b"a", b"c");
        writes.apply(AtomicOp::Add, b"b", b"\x02");
        writes.apply(AtomicOp::Add, b"b", b"\x03");
        assert_eq!(value_at(&writes, b"b", Some(b"\x40")), Some(b"\x05".to_vec()));
        assert!(!writes.segment_at(b"b").reads_stored());
        assert!(!writes.segment_at(b"b\0").reads_stored());
    }

    #[test]
    fn clears_precede_operations() {
        let mut writes = WriteMap::default();
        writes.clear_range(b"a", b"d");
        writes.set(b"b", b"1");
        let mutations = writes.into_mutations();
        let [PendingMutation::Plain(changes)] = &mutations[..] else { panic!("{mutations:?}") };
        let expected = [
            Mutation::ClearRange { begin: b"a", end: b"b" },
            Mutation::ClearRange { begin: b"b\0", end: b"d" },
            Mutation::Set { key: b"b", value: b"1" },
        ];
        assert_eq!(changes.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn segments_meet_in_both_directions() {
        let mut writes = WriteMap::default();
        writes.set(b"b", b"1");
        writes.clear_range(b"c", b"d");
        for key in [&b"b\0"[..], b"c", b"d"] {
            let before = writes.segment_before(key);
            assert_eq!(before.end.as_deref(), Some(key), "{before:?}");
            assert_eq!(writes.segment_at(&before.begin).begin, before.begin);
        }
    }
}
