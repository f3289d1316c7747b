//! The memtable: an ordered map of recent commits that are not in the B-tree yet. Cloning is cheap,
//! since clones share their nodes.
//!
//! # Invariants
//!
//! A lookup returns a value, a deletion, or nothing; for nothing the reader continues in the
//! memtable or B-tree below. No entry is inside a range tombstone unless it was written after it.

use std::{borrow::Borrow, cmp::Ordering, ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};

use super::{
    super::range::Order,
    wal::{Encoder, Mutation, MutationBatch},
};
/// A bound of a range, shared by all versions that contain it.
pub(super) type Bytes = Arc<[u8]>;

/// Approximate memory of an entry beside its own bytes.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// Size of the chunks that merged mutations are stored in, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// An ordered map of the latest writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Memtable {
    /// Entries by key.
    points: OrdSet<Entry>,
    /// Range tombstones, begin → end; they neither overlap nor touch.
    clears: OrdMap<Bytes, Bytes>,
    bytes: usize,
}

/// The latest write to a key, as an offset into its batch.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    changes: MutationBatch,
    offset: usize,
}

impl Entry {
    pub(super) fn key(&self) -> &[u8] {
        self.changes.key_at(self.offset)
    }

    /// Returns the value; `None` if the key was cleared.
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.changes.value_at(self.offset)
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// The outcome of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lookup<'a> {
    Found(&'a [u8]),
    Deleted,
    Absent,
}

impl Memtable {
    /// Returns the approximate memory in use, in bytes. Overwritten values count as long as their
    /// batch is referenced.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Applies a batch.
    pub(super) fn apply(&mut self, changes: &MutationBatch) {
        for (offset, change) in changes.offsets() {
            self.bytes += change.length() + ENTRY_OVERHEAD_BYTES;
            match change {
                Mutation::Set { .. } | Mutation::Clear { .. } => {
                    self.points.insert(Entry { changes: changes.clone(), offset });
                }
                Mutation::ClearRange { begin, end } => self.clear_range(begin, end),
            }
        }
    }

    /// Clears the keys from `begin` (inclusive) to `end` (exclusive).
    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        if begin >= end {
            return;
        }
        let within = (Bound::Included(begin), Bound::Excluded(end));
        let gone: Vec<_> = self.points.range::<_, [u8]>(within).cloned().collect();
        for point in gone {
            self.points.remove(point.key());
        }
        let mut begin: Bytes = begin.into();
        let mut end: Bytes = end.into();
        // The tombstone that contains or touches the range, then the tombstones that begin inside.
        let before = self.clears.get_prev(&*begin).filter(|(_, to)| **to >= begin);
        let within = (Bound::Excluded(&*begin), Bound::Included(&*end));
        let after = self.clears.range::<_, [u8]>(within);
        let merged: Vec<_> = before
            .into_iter()
            .chain(after)
            .map(|(from, to)| (Arc::clone(from), Arc::clone(to)))
            .collect();
        for (from, to) in merged {
            self.clears.remove(&from);
            begin = begin.min(from);
            end = end.max(to);
        }
        self.clears.insert(begin, end);
    }

    /// Looks a key up.
    /// Looks a key up.
    pub(super) fn find(&self, key: &[u8]) -> Lookup<'_> {
        match self.points.get(key) {
            Some(point) => point.value().map_or(Lookup::Deleted, Lookup::Found),
            None if self.covering_tombstone(key).is_some() => Lookup::Deleted,
            None => Lookup::Absent,
        }
    }

    /// Returns the range tombstone that contains `key`.
    pub(super) fn covering_tombstone(&self, key: &[u8]) -> Option<(&Bytes, &Bytes)> {
        if self.clears.is_empty() {
            return None;
        }
        let (begin, end) = self.clears.get_prev(key)?;
        (**end > *key).then_some((begin, end))
    }

    /// Returns whether any entry or tombstone overlaps the keys from `begin` to `end`.
    pub(super) fn overlaps(&self, begin: &[u8], end: &[u8]) -> bool {
        let within = (Bound::Included(begin), Bound::Excluded(end));
        self.points.range::<_, [u8]>(within).next().is_some()
            || self.covering_tombstone(begin).is_some()
            || !self.clears.is_empty() && self.clears.range::<_, [u8]>(within).next().is_some()
    }

    /// Returns up to `count` entries from `begin` to `end`, starting at the end of the range at
    /// which the order begins.
    pub(super) fn points(
        &self,
        begin: &[u8],
        end: &[u8],
        order: Order,
        count: usize,
    ) -> Vec<Entry> {
        let range = self.points.range::<_, [u8]>((Bound::Included(begin), Bound::Excluded(end)));
        match order {
            Order::Ascending => range.take(count).cloned().collect(),
            Order::Descending => range.rev().take(count).cloned().collect(),
        }
    }

    /// Returns the mutations that were not overwritten: tombstones first, then entries, each in key
    /// order.
    pub(super) fn changes(&self) -> impl Iterator<Item = Mutation<'_>> {
        let clears = self.clears.iter().map(|(begin, end)| Mutation::ClearRange { begin, end });
        let points = self.points.iter().map(|point| match (point.key(), point.value()) {
            (key, Some(value)) => Mutation::Set { key, value },
            (key, None) => Mutation::Clear { key },
        });
        clears.chain(points)
    }

    /// Applies the content of `upper`, which is newer.
    pub(super) fn merge(&mut self, upper: &Self) {
        let mut encoder = Encoder::default();
        for change in upper.changes() {
            encoder.push(change);
            if encoder.length() >= CHUNK_BYTES {
                self.apply(&encoder.take());
            }
        }
        self.apply(&encoder.take());
    }

    /// Divides the content into memtables of about `bytes` each, as `length` counts them. Those
    /// with tombstones come first; each is returned with whether it has any.
    pub(super) fn slices(
        &self,
        bytes: u64,
        length: impl Fn(Mutation<'_>) -> u64,
    ) -> Vec<(Self, bool)> {
        let mut slices = Vec::new();
        for clears in [true, false] {
            let (mut encoder, mut filled) = (Encoder::default(), 0);
            let mut finish = |encoder: &mut Encoder| {
                let mut slice = Self::default();
                slice.apply(&encoder.take());
                slices.push((slice, clears));
            };
            let is_wanted =
                |change: &Mutation<'_>| matches!(change, Mutation::Set { .. }) != clears;
            for change in self.changes().filter(is_wanted) {
                encoder.push(change);
                filled += length(change);
                if filled >= bytes {
                    finish(&mut encoder);
                    filled = 0;
                }
            }
            if filled > 0 {
                finish(&mut encoder);
            }
        }
        slices
    }

    /// Returns the approximate memory without overwritten values, in bytes.
    pub(super) fn bytes_kept(&self) -> usize {
        self.changes().map(|change| change.length() + ENTRY_OVERHEAD_BYTES).sum()
    }

    /// Returns the key below which `n` of `of` equal parts are, approximately; `None` if it cannot
    /// be divided.
    pub(super) fn key_at(&self, n: usize, of: usize) -> Option<&[u8]> {
        // Divides by tombstones or by entries, whichever are more.
        let length = |change: Mutation<'_>| change.length() + ENTRY_OVERHEAD_BYTES;
        let ranges: usize = self.changes().take(self.clears.len()).map(length).sum();
        let points: usize = self.changes().skip(self.clears.len()).map(length).sum();
        let (from, bytes) = if ranges > points { (0, ranges) } else { (self.clears.len(), points) };
        let mut before = 0;
        let mut behind = self.changes().skip(from).skip_while(|change| {
            before += length(*change);
            before <= bytes / of * n
        });
        let key = behind.next().map(|change| match change {
            Mutation::Set { key, .. } | Mutation::Clear { key } => key,
            Mutation::ClearRange { begin, .. } => begin,
        });
        let first = self.points.get_min().map(Entry::key);
        key.filter(|key| ranges > points || first != Some(key))
    }
}
