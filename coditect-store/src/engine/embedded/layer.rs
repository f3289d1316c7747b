//! What was committed and is not in the B-tree yet: an ordered map that is cheap to clone, so that
//! each version has one of its own and shares what it has in common with the others.
//!
//! A layer lies over another, or over the B-tree. It says of a key that it has a value, that it has
//! none, or nothing; then what lies below is asked. That holds throughout: no point lies within a
//! cleared range unless it was written after the clear.

use std::{ops::Bound, sync::Arc};

use imbl::OrdMap;

use super::{super::range::Order, log::Change, storage::Batch};
use crate::Result;

/// A key or a value, shared by all versions that have it.
pub(super) type Bytes = Arc<[u8]>;

/// What the map needs for an entry beside the entry's own bytes, about.
const OVERHEAD: usize = 96;

/// Writes, in the order of their keys; the later ones over the earlier.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// The last thing done to a key: its value, or `None` if it was cleared.
    points: OrdMap<Bytes, Option<Bytes>>,
    /// Begin → end of what was cleared; no two overlap or touch.
    clears: OrdMap<Bytes, Bytes>,
    bytes: usize,
}

/// What a layer knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Value(Bytes),
    Cleared,
    Nothing,
}

impl Layer {
    pub(super) fn is_empty(&self) -> bool {
        self.points.is_empty() && self.clears.is_empty()
    }

    /// The memory that it takes if nothing of it is shared, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Does what was done.
    pub(super) fn redo(&mut self, change: Change<'_>) {
        match change {
            Change::Set { key, value } => self.put(key, Some(value.into())),
            Change::Clear { key } => self.put(key, None),
            Change::ClearRange { begin, end } => self.clear_range(begin, end),
        }
    }

    /// Clears the keys from `begin` up to, and without, `end`.
    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        if begin >= end {
            return;
        }
        let within = (Bound::Included(begin), Bound::Excluded(end));
        let gone: Vec<_> =
            self.points.range::<_, [u8]>(within).map(|(key, _)| Arc::clone(key)).collect();
        for key in gone {
            if let Some(value) = self.points.remove(&key) {
                self.bytes -= point_bytes(&key, value.as_ref());
            }
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
            self.bytes -= from.len() + to.len() + OVERHEAD;
            begin = begin.min(from);
            end = end.max(to);
        }
        self.bytes += begin.len() + end.len() + OVERHEAD;
        self.clears.insert(begin, end);
    }

    pub(super) fn find(&self, key: &[u8]) -> Known {
        match self.points.get(key) {
            Some(Some(value)) => Known::Value(Arc::clone(value)),
            Some(None) => Known::Cleared,
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
    ) -> Vec<(Bytes, Option<Bytes>)> {
        let range = self.points.range::<_, [u8]>((Bound::Included(begin), Bound::Excluded(end)));
        let owned = |(key, value): (&Bytes, &Option<Bytes>)| (Arc::clone(key), value.clone());
        match order {
            Order::Ascending => range.take(count).map(owned).collect(),
            Order::Descending => range.rev().take(count).map(owned).collect(),
        }
    }

    /// Does to `batch` what was done to this.
    pub(super) fn apply(&self, batch: &mut Batch<'_>) -> Result<()> {
        for (begin, end) in &self.clears {
            batch.clear_range(begin, end)?;
        }
        for (key, value) in &self.points {
            match value {
                Some(value) => batch.set(key, value)?,
                None => batch.clear(key)?,
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &[u8], value: Option<Bytes>) {
        let key: Bytes = key.into();
        self.bytes += point_bytes(&key, value.as_ref());
        let length = key.len();
        if let Some(before) = self.points.insert(key, value) {
            self.bytes -= length + before.map_or(0, |value| value.len()) + OVERHEAD;
        }
    }
}

fn point_bytes(key: &Bytes, value: Option<&Bytes>) -> usize {
    key.len() + value.map_or(0, |value| value.len()) + OVERHEAD
}
