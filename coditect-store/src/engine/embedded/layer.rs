//! What was committed and is not in the B-tree yet: an ordered map that is cheap to clone, so that
//! each version has one of its own and shares what it has in common with the others.
//!
//! A layer lies over another, or over the B-tree. It says of a key that it has a value, that it has
//! none, or nothing; then what lies below is asked. That holds throughout: no point lies within a
//! cleared range unless it was written after the clear.

use std::{borrow::Borrow, cmp::Ordering, ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet};

use super::{
    super::range::Order,
    log::{Change, Changes, Encoder},
    storage::Batch,
};
use crate::Result;

/// A bound of a range, shared by all versions that have it.
pub(super) type Bytes = Arc<[u8]>;

/// What the map needs for an entry beside the entry's own bytes, about.
const OVERHEAD: usize = 64;

/// Merged changes are kept in pieces of this many bytes.
const PIECE: usize = 64 << 10;

/// Writes, in the order of their keys; the later ones over the earlier.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// By key.
    points: OrdSet<Point>,
    /// Begin → end of what was cleared; no two overlap or touch.
    clears: OrdMap<Bytes, Bytes>,
    bytes: usize,
}

/// The last thing done to a key: it lies where it was said, with what else was done then.
#[derive(Clone, Debug)]
pub(super) struct Point {
    changes: Changes,
    place: usize,
}

impl Point {
    pub(super) fn key(&self) -> &[u8] {
        self.changes.key_at(self.place)
    }

    /// `None` if it was cleared.
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.changes.value_at(self.place)
    }
}

impl Borrow<[u8]> for Point {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Point {}

impl PartialOrd for Point {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Point {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

/// What a layer knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    Value(&'a [u8]),
    Cleared,
    Nothing,
}

impl Layer {
    /// The memory that it takes at the most, about: what was written over is kept while anything is that
    /// was done with it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Does what was done.
    pub(super) fn redo(&mut self, changes: &Changes) {
        for (place, change) in changes.places() {
            self.bytes += change.length() + OVERHEAD;
            match change {
                Change::Set { .. } | Change::Clear { .. } => {
                    self.points.insert(Point { changes: changes.clone(), place });
                }
                Change::ClearRange { begin, end } => self.clear_range(begin, end),
            }
        }
    }

    /// Clears the keys from `begin` up to, and without, `end`.
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
        // The one that it may begin in or touch, and then those that begin within it.
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

    pub(super) fn find(&self, key: &[u8]) -> Known<'_> {
        match self.points.get(key) {
            Some(point) => point.value().map_or(Known::Cleared, Known::Value),
            None if self.cleared_around(key).is_some() => Known::Cleared,
            None => Known::Nothing,
        }
    }

    /// The cleared range that `key` lies in.
    pub(super) fn cleared_around(&self, key: &[u8]) -> Option<(&Bytes, &Bytes)> {
        if self.clears.is_empty() {
            return None;
        }
        let (begin, end) = self.clears.get_prev(key)?;
        (**end > *key).then_some((begin, end))
    }

    /// Whether it knows anything of the keys from `begin` up to `end`.
    pub(super) fn touches(&self, begin: &[u8], end: &[u8]) -> bool {
        let within = (Bound::Included(begin), Bound::Excluded(end));
        self.points.range::<_, [u8]>(within).next().is_some()
            || self.cleared_around(begin).is_some()
            || !self.clears.is_empty() && self.clears.range::<_, [u8]>(within).next().is_some()
    }

    /// Up to `count` of the points from `begin` up to `end`, from that end of the range at which
    /// the order begins.
    pub(super) fn points(
        &self,
        begin: &[u8],
        end: &[u8],
        order: Order,
        count: usize,
    ) -> Vec<Point> {
        let range = self.points.range::<_, [u8]>((Bound::Included(begin), Bound::Excluded(end)));
        match order {
            Order::Ascending => range.take(count).cloned().collect(),
            Order::Descending => range.rev().take(count).cloned().collect(),
        }
    }

    /// What was done, and was not written over: ranges first, each in the order of the keys.
    pub(super) fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        let clears = self.clears.iter().map(|(begin, end)| Change::ClearRange { begin, end });
        let points = self.points.iter().map(|point| match (point.key(), point.value()) {
            (key, Some(value)) => Change::Set { key, value },
            (key, None) => Change::Clear { key },
        });
        clears.chain(points)
    }

    /// Does to this what was done to `upper`, which is over it.
    pub(super) fn merge(&mut self, upper: &Self) {
        let mut encoder = Encoder::default();
        for change in upper.changes() {
            encoder.push(change);
            if encoder.length() >= PIECE {
                self.redo(&encoder.take());
            }
        }
        self.redo(&encoder.take());
    }

    /// Divides it into layers of about `bytes` each, as `length` counts them. Those that clear come first;
    /// each is with whether it does.
    pub(super) fn slices(
        &self,
        bytes: u64,
        length: impl Fn(Change<'_>) -> u64,
    ) -> Vec<(Self, bool)> {
        let mut slices = Vec::new();
        for clears in [true, false] {
            let (mut encoder, mut filled) = (Encoder::default(), 0);
            let mut finish = |encoder: &mut Encoder| {
                let mut slice = Self::default();
                slice.redo(&encoder.take());
                slices.push((slice, clears));
            };
            let is_wanted = |change: &Change<'_>| matches!(change, Change::Set { .. }) != clears;
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

    /// The memory that it would take without what was written over, about.
    pub(super) fn bytes_kept(&self) -> usize {
        self.changes().map(|change| change.length() + OVERHEAD).sum()
    }

    /// Does to `batch` what was done to this.
    pub(super) fn apply(&self, batch: &mut Batch<'_>) -> Result<()> {
        for change in self.changes() {
            match change {
                Change::Set { key, value } => batch.set(key, value)?,
                Change::Clear { key } => batch.clear(key)?,
                Change::ClearRange { begin, end } => batch.clear_range(begin, end)?,
            }
        }
        Ok(())
    }

    /// The key that `n` of `of` parts of what it has lie before, about, if it can be divided.
    pub(super) fn key_at(&self, n: usize, of: usize) -> Option<&[u8]> {
        // Either the ranges are most of it, or the points.
        let length = |change: Change<'_>| change.length() + OVERHEAD;
        let ranges: usize = self.changes().take(self.clears.len()).map(length).sum();
        let points: usize = self.changes().skip(self.clears.len()).map(length).sum();
        let (from, bytes) = if ranges > points { (0, ranges) } else { (self.clears.len(), points) };
        let mut before = 0;
        let mut behind = self.changes().skip(from).skip_while(|change| {
            before += length(*change);
            before <= bytes / of * n
        });
        let key = behind.next().map(|change| match change {
            Change::Set { key, .. } | Change::Clear { key } => key,
            Change::ClearRange { begin, .. } => begin,
        });
        let first = self.points.get_min().map(Point::key);
        key.filter(|key| ranges > points || first != Some(key))
    }
}
