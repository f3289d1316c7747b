//! Reading through a transaction's own writes: what is stored and what was written, merged key by
//! key, before any limit is applied.
//!
//! Selectors, limits and the ranges that conflict follow FoundationDB's client step by step
//! (`ReadYourWrites`), since what conflicts is part of the answer. Unlike that one, it knows all that
//! is stored, so it never has to guess and come back.

use super::{
    super::{
        limits::{MAX_KEY, accessed_unreadable, key_outside_legal_range},
        range::{KeySelector, KeyValue, Order, RangePage, RangeQuery, Stopped},
    },
    board::{Board, Published},
    ranges::{KeyRange, RangeSet, next_key},
    snapshot::Rows,
    transaction::ReadPoint,
    writes::{State, Writes},
};
use crate::Result;

/// A transaction's view of the store.
pub(super) struct View<'a> {
    pub(super) writes: &'a Writes,
    /// Where what is stored is read: asked only when it matters, as the first time fixes the read version.
    pub(super) point: &'a mut ReadPoint,
    pub(super) board: &'a Board,
    /// What reads by counted selectors (of an offset other than 1) have passed over so far.
    pub(super) passed: &'a mut RangeSet,
}

/// The answer to a range read.
pub(super) struct RangeRead {
    pub(super) page: RangePage,
    /// What the answer depends on; empty if on nothing.
    pub(super) depends_on: (Vec<u8>, Vec<u8>),
}

/// A way through the view, in one direction.
struct Walk {
    /// How far it has come.
    at: Vec<u8>,
    /// Where it ends.
    bound: Vec<u8>,
    order: Order,
    rows: Option<Rows>,
}

enum Step {
    Row(KeyValue),
    /// A key that the transaction wrote to, and that has no value all the same. No row, but
    /// FoundationDB's selectors count it.
    Absent(Vec<u8>),
    /// A stretch of keys that can't be read, from one key to another; the walk stays before it.
    Unreadable(Vec<u8>, Vec<u8>),
    End,
}

/// Where a selector leads.
struct Place {
    key: Vec<u8>,
    /// What is left of the selector's offset; 1 when the place is found.
    offset: i32,
    /// The same before it was given up at the first or last key.
    actual_offset: i32,
    /// Whether it ran into keys that can't be read.
    stuck: bool,
}

/// Whether selectors ran into the ends of the key space.
#[derive(Clone, Copy, Default)]
struct Ends {
    begin: bool,
    end: bool,
}

/// The rows found between two places.
struct Found {
    rows: Vec<KeyValue>,
    stopped: Stopped,
    ends: Ends,
}

impl Found {
    fn nothing(ends: Ends) -> Self {
        Self { rows: Vec::new(), stopped: Stopped::End, ends }
    }

    fn more(&self) -> bool {
        self.stopped != Stopped::End
    }
}

impl View<'_> {
    fn stored(&mut self) -> Result<&Published> {
        self.point.get(self.board).map(|published| &**published)
    }

    pub(super) fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.writes.is_empty() {
            return self.stored()?.value(key);
        }
        let writes = self.writes;
        let segment = writes.segment_at(key);
        if segment.unreadable {
            return Err(accessed_unreadable());
        }
        match segment.state {
            State::Cleared => Ok(None),
            State::Unmodified => self.stored()?.value(key),
            State::Written(written) if written.depends_on_stored() => {
                Ok(written.over(self.stored()?.value(key)?))
            }
            State::Written(written) => Ok(written.over(None)),
        }
    }

    /// The key that the selector means, and the range that this depends on.
    pub(super) fn key(&mut self, selector: &KeySelector) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        if selector.key.as_slice() > MAX_KEY {
            return Err(key_outside_legal_range());
        }
        let from = selector.without_or_equal();
        let forward = from.offset > 0;
        let (query, order) = if forward {
            let end = KeySelector::first_greater_or_equal(MAX_KEY);
            (RangeQuery::between(from.clone(), end), Order::Ascending)
        } else {
            let end = KeySelector { offset: from.offset.saturating_add(1), ..from.clone() };
            (RangeQuery::between(KeySelector::first_greater_or_equal(b""), end), Order::Descending)
        };
        let found = self.find(&query.order(order).limit(1))?;
        let first = found.rows.into_iter().next().map(|row| row.key);
        let key = match (forward, found.ends) {
            (true, Ends { begin: true, .. }) | (false, Ends { begin: true, end: false }) => {
                Vec::new()
            }
            (true, Ends { end: true, .. }) | (false, Ends { end: true, .. }) => MAX_KEY.to_vec(),
            (true, _) => first.unwrap_or_else(|| MAX_KEY.to_vec()),
            (false, _) => first.unwrap_or_default(),
        };
        let (begin, end) =
            if forward { (from.key, next_key(&key)) } else { (key.clone(), from.key) };
        Ok((key, begin, end))
    }

    /// A page of rows, and the range that it depends on.
    pub(super) fn range(&mut self, query: &RangeQuery) -> Result<RangeRead> {
        if query.begin.key.as_slice() > MAX_KEY || query.end.key.as_slice() > MAX_KEY {
            return Err(key_outside_legal_range());
        }
        let nothing = || RangeRead {
            page: RangePage { rows: Vec::new(), stopped: Stopped::End },
            depends_on: (Vec::new(), Vec::new()),
        };
        if query.limit == Some(0) {
            let mut read = nothing();
            read.page.stopped = Stopped::Rows;
            return Ok(read);
        }
        let (begin, end) = (query.begin.without_or_equal(), query.end.without_or_equal());
        if begin.offset >= end.offset && begin.key >= end.key {
            return Ok(nothing());
        }
        let query = RangeQuery { begin, end, ..query.clone() };
        let found = self.find(&query)?;
        let depends_on = depends_on(&query, &found);
        Ok(RangeRead { page: RangePage { rows: found.rows, stopped: found.stopped }, depends_on })
    }

    /// The rows between two selectors (without `or_equal`).
    fn find(&mut self, query: &RangeQuery) -> Result<Found> {
        let mut ends = Ends::default();
        let begin = self.resolve(&query.begin, &mut ends)?;
        let end = self.resolve(&query.end, &mut ends)?;
        let counted = |selector: &KeySelector| selector.offset != 1;
        if counted(&query.begin) || counted(&query.end) {
            let (goal, place) = match query.order {
                Order::Ascending => (&query.end, &end),
                Order::Descending => (&query.begin, &begin),
            };
            let known =
                self.passed.covers((&goal.key).min(&place.key), (&goal.key).max(&place.key));
            if counted(goal) && query.begin.key > query.end.key && !known {
                // FoundationDB's client looks up the key that such a goal means, unless it has been
                // there, and so trips over unreadable keys on the way to it.
                self.key(goal)?;
            }
        }
        if begin.actual_offset >= end.actual_offset && begin.key >= end.key {
            return Ok(Found::nothing(Ends::default()));
        }
        let nothing_between = (end.offset <= 1 && end.key.is_empty())
            || (begin.offset >= end.offset && begin.key >= end.key)
            || (begin.offset >= 1 && begin.key.as_slice() >= MAX_KEY);
        if nothing_between {
            return Ok(Found::nothing(ends));
        }
        let (start, goal) = match query.order {
            Order::Ascending => (&begin, &end),
            Order::Descending => (&end, &begin),
        };
        if start.stuck {
            return Err(accessed_unreadable());
        }
        // A goal that isn't known yet may still be far enough away for what is asked: rows past
        // the limit then show that it is.
        let past_limit = match (goal.stuck, query.order) {
            (false, _) => Some(0),
            (true, Order::Ascending) => usize::try_from(1 - goal.offset).ok(),
            (true, Order::Descending) => usize::try_from(goal.offset - 1).ok(),
        };
        let mut found = self.collect(query, start, goal, past_limit.unwrap_or(0))?;
        if counted(&query.begin) || counted(&query.end) {
            self.passed.insert(KeyRange::from((begin.key, end.key)));
        }
        found.ends = Ends {
            begin: ends.begin && !(query.order == Order::Descending && found.more()),
            end: ends.end && !(query.order == Order::Ascending && found.more()),
        };
        Ok(found)
    }

    fn collect(
        &mut self,
        query: &RangeQuery,
        start: &Place,
        goal: &Place,
        past_limit: usize,
    ) -> Result<Found> {
        let bound = match (goal.stuck, query.order) {
            (false, _) => goal.key.clone(),
            (true, Order::Ascending) => MAX_KEY.to_vec(),
            (true, Order::Descending) => Vec::new(),
        };
        let mut walk = Walk { at: start.key.clone(), bound, order: query.order, rows: None };
        let mut found = Found::nothing(Ends::default());
        let mut bytes = 0;
        let mut past = 0;
        loop {
            if found.more() && past >= past_limit {
                return Ok(found);
            }
            match self.step(&mut walk)? {
                Step::End => return Ok(found),
                Step::Unreadable(..) => return Err(accessed_unreadable()),
                Step::Absent(_) => {}
                Step::Row(_) if found.more() => past += 1,
                Step::Row(row) => {
                    bytes += row.key.len() + row.value.len();
                    found.rows.push(row);
                    if query.limit.is_some_and(|limit| found.rows.len() >= limit) {
                        found.stopped = Stopped::Rows;
                    } else if query.target_bytes.is_some_and(|target| bytes >= target) {
                        found.stopped = Stopped::Bytes;
                    }
                }
            }
        }
    }

    fn resolve(&mut self, selector: &KeySelector, ends: &mut Ends) -> Result<Place> {
        let KeySelector { mut offset, .. } = *selector;
        let mut key = selector.key.clone();
        let mut stuck = false;
        let (order, bound) = if offset > 1 {
            (Order::Ascending, MAX_KEY.to_vec())
        } else {
            (Order::Descending, Vec::new())
        };
        let mut walk = Walk { at: key.clone(), bound, order, rows: None };
        while offset != 1 {
            match (self.step(&mut walk)?, order) {
                (Step::Row(KeyValue { key: at, .. }) | Step::Absent(at), Order::Ascending) => {
                    offset -= 1;
                    key = next_key(&at);
                }
                (Step::Row(KeyValue { key: at, .. }) | Step::Absent(at), Order::Descending) => {
                    offset += 1;
                    key = at;
                }
                (Step::Unreadable(begin, _), Order::Ascending) => {
                    key = key.max(begin);
                    stuck = true;
                    break;
                }
                (Step::Unreadable(_, end), Order::Descending) => {
                    key = key.min(end);
                    stuck = true;
                    break;
                }
                (Step::End, order) => {
                    let actual_offset = offset;
                    let key = match order {
                        Order::Ascending => {
                            ends.end = true;
                            MAX_KEY.to_vec()
                        }
                        Order::Descending => {
                            ends.begin = true;
                            Vec::new()
                        }
                    };
                    return Ok(Place { key, offset: 1, actual_offset, stuck });
                }
            }
        }
        Ok(Place { key, offset, actual_offset: offset, stuck })
    }

    fn step(&mut self, walk: &mut Walk) -> Result<Step> {
        loop {
            if let Some(row) = walk.rows.as_mut().and_then(Iterator::next) {
                return row.map(Step::Row);
            }
            walk.rows = None;
            let (segment, from, to, on) = match walk.order {
                Order::Ascending => {
                    if walk.at >= walk.bound {
                        return Ok(Step::End);
                    }
                    let segment = self.writes.segment_at(&walk.at);
                    let end = segment.end.as_ref().unwrap_or(&walk.bound).min(&walk.bound).clone();
                    (segment, walk.at.clone(), end.clone(), end)
                }
                Order::Descending => {
                    if walk.at <= walk.bound {
                        return Ok(Step::End);
                    }
                    let segment = self.writes.segment_before(&walk.at);
                    let begin = segment.begin.as_slice().max(&walk.bound).to_vec();
                    (segment, begin.clone(), walk.at.clone(), begin)
                }
            };
            if segment.unreadable {
                let end = segment.end.unwrap_or_else(|| MAX_KEY.to_vec());
                return Ok(Step::Unreadable(segment.begin, end));
            }
            walk.at = on;
            match segment.state {
                State::Cleared => {}
                State::Unmodified => {
                    walk.rows = Some(self.stored()?.rows(&from, &to, walk.order)?);
                }
                State::Written(written) => {
                    let stored = if written.depends_on_stored() {
                        self.stored()?.value(&from)?
                    } else {
                        None
                    };
                    return Ok(match written.over(stored) {
                        Some(value) => Step::Row(KeyValue { key: from, value }),
                        None => Step::Absent(from),
                    });
                }
            }
        }
    }
}

/// Adds to `conflicts` what of a range is read from the store, not from the transaction's own
/// writes.
pub(super) fn note_read(writes: &Writes, conflicts: &mut RangeSet, range: KeyRange) {
    // As a rule a transaction reads first.
    if writes.is_empty() {
        return conflicts.insert(range);
    }
    let (mut at, end) = (range.begin().to_vec(), range.end());
    while at.as_slice() < end {
        let segment = writes.segment_at(&at);
        let until = segment.end.as_deref().unwrap_or(end).min(end).to_vec();
        if segment.reads_stored() {
            conflicts.insert(KeyRange::new(&at, &until));
        }
        at = until;
    }
}

/// The range that a page depends on: only as far as it was read.
fn depends_on(query: &RangeQuery, found: &Found) -> (Vec<u8>, Vec<u8>) {
    let (begin, end) = (&query.begin, &query.end);
    let in_order = begin.key < end.key;
    let (low, high) = if in_order { (&begin.key, &end.key) } else { (&end.key, &begin.key) };
    let (mut low, mut high) = (low.clone(), high.clone());
    let ascending = query.order == Order::Ascending;
    if in_order && found.more() {
        if ascending && end.offset > 0 {
            high.clone_from(&begin.key);
        } else if !ascending && begin.offset <= 1 {
            low.clone_from(&end.key);
        }
    }
    if found.ends.begin && begin.offset <= 0 {
        low.clear();
    }
    if found.ends.end && end.offset > 1 {
        high = MAX_KEY.to_vec();
    }
    if let (Some(first), Some(last)) = (found.rows.first(), found.rows.last()) {
        if ascending {
            if begin.offset <= 0 {
                low = low.min(first.key.clone());
            }
            if high <= last.key {
                high = next_key(&last.key);
            }
        } else {
            low = low.min(last.key.clone());
            if end.offset > 0 && high <= first.key {
                high = next_key(&first.key);
            }
        }
    }
    (low, high)
}
