//! The key space as a transaction sees it: its writes over the part of the snapshot that it has
//! read, divided where either of the two changes.

use super::{
    super::limits::accessed_unreadable,
    ranges::{is_key, next_key},
    snapshot_cache::END_OF_KEYS,
    transaction_view::TransactionView,
    write_map::{self, State},
};
use crate::Result;

/// A maximal stretch of keys between which neither the writes nor the known part of the snapshot
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) begin: Vec<u8>,
    pub(super) end: Vec<u8>,
    /// Whether a versionstamp makes it unreadable; then nothing else about it may be used.
    pub(super) unreadable: bool,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not known without a read of the database.
    Unknown,
    Empty,
    /// A single key. Without a value if an atomic operation cleared it: no row, but selectors
    /// count it.
    Row(Option<Vec<u8>>),
}

impl Segment {
    /// Returns the kind of the segment. Fails if it is unreadable.
    pub(super) fn kind(&self) -> Result<&Kind> {
        if self.unreadable { Err(accessed_unreadable()) } else { Ok(&self.kind) }
    }

    pub(super) fn is_resolved(&self) -> bool {
        !self.unreadable && self.kind != Kind::Unknown
    }

    pub(super) fn is_unknown(&self) -> bool {
        !self.unreadable && self.kind == Kind::Unknown
    }
}

impl TransactionView<'_> {
    /// Returns the segment that `key` belongs to.
    pub(super) fn segment_at(&mut self, key: &[u8]) -> Result<Segment> {
        let known = self.cache.range_at(key);
        let mut begin = known.begin;
        let mut end = known.end;
        let mut stored = None;
        if known.is_known {
            match self.row_from(key, &end)? {
                Some((at, value)) if at == key => {
                    (begin, end) = (key.to_vec(), next_key(key));
                    stored = Some(value);
                }
                row => {
                    if let Some((last, _)) = self.row_before(key, &begin)? {
                        begin = next_key(&last);
                    }
                    if let Some((next, _)) = row {
                        end = next;
                    }
                }
            }
        }
        Ok(self.writes.segment_at(key).over(begin, end, known.is_known, stored))
    }

    /// Returns the segment that the keys right before `key` belong to; `key` is not empty.
    pub(super) fn segment_before(&mut self, key: &[u8]) -> Result<Segment> {
        let known = self.cache.range_before(key);
        let mut begin = known.begin;
        let mut end = known.end;
        let mut stored = None;
        if known.is_known {
            match self.row_before(key, &begin)? {
                Some((at, value)) if is_key(&at, key) => {
                    (begin, end) = (at, key.to_vec());
                    stored = Some(value);
                }
                row => {
                    if let Some((last, _)) = row {
                        begin = next_key(&last);
                    }
                    if let Some((next, _)) = self.row_from(key, &end)? {
                        end = next;
                    }
                }
            }
        }
        Ok(self.writes.segment_before(key).over(begin, end, known.is_known, stored))
    }
}

impl write_map::Segment<'_> {
    /// Returns this segment over one of the snapshot, from `begin` to `end`.
    fn over(self, begin: Vec<u8>, end: Vec<u8>, known: bool, stored: Option<Vec<u8>>) -> Segment {
        let kind = match (self.state, known) {
            (State::Cleared, _) => Kind::Empty,
            (State::Unmodified, false) => Kind::Unknown,
            (State::Unmodified, true) => stored.map_or(Kind::Empty, |value| Kind::Row(Some(value))),
            (State::Written(written), false) if written.depends_on_stored() => Kind::Unknown,
            (State::Written(written), _) => Kind::Row(written.over(stored)),
        };
        let written_end = self.end.unwrap_or_else(|| END_OF_KEYS.to_vec());
        let (begin, end) = (begin.max(self.begin), end.min(written_end));
        Segment { begin, end, unreadable: self.unreadable, kind }
    }
}
