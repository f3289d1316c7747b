//! Reads through a transaction's own writes: stored and written rows, merged key by key before any
//! limit is applied.
//!
//! The result includes the conflict ranges that FoundationDB's client would add. Reads of plain
//! ranges are done here; `read_your_writes` does those whose outcome depends on the client's steps.

use super::{
    super::{
        limits::{MAX_KEY, accessed_unreadable, key_outside_legal_range},
        range::{KeySelector, KeyValue, Order, RangePage, RangeQuery, Stopped},
    },
    ranges::{KeyRange, RangeSet, next_key},
    read_your_writes::Answer,
    snapshot::MergeIter,
    transaction_view::TransactionView,
    write_map::{State, WriteMap},
};
use crate::Result;

/// The result of a range read.
pub(super) struct RangeRead {
    pub(super) page: RangePage,
    /// The range that the result depends on; may be empty.
    pub(super) depends_on: (Vec<u8>, Vec<u8>),
}

/// A cursor over the view, in one direction.
struct Walk {
    /// The current position.
    at: Vec<u8>,
    /// The end of the range.
    bound: Vec<u8>,
    order: Order,
    rows: Option<MergeIter>,
}

enum Step {
    Row(KeyValue),
    End,
}

impl TransactionView<'_> {
    pub(super) fn value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.writes.is_empty() {
            return self.stored_value(key);
        }
        let writes = self.writes;
        let segment = writes.segment_at(key);
        if segment.unreadable {
            return Err(accessed_unreadable());
        }
        match segment.state {
            State::Cleared => Ok(None),
            State::Unmodified => self.stored_value(key),
            State::Written(written) if written.depends_on_stored() => {
                Ok(written.over(self.stored_value(key)?))
            }
            State::Written(written) => Ok(written.over(None)),
        }
    }

    fn stored_value(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let value = self.stored()?.value(key)?;
        self.cache.insert(KeyRange::of_key(key));
        Ok(value)
    }

    /// Returns the key that the selector means, and the range that this depends on.
    pub(super) fn key(&mut self, selector: &KeySelector) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        if selector.key.as_slice() > MAX_KEY {
            return Err(key_outside_legal_range());
        }
        let key = self.resolve_key(selector)?;
        let from = selector.without_or_equal();
        let (begin, end) =
            if from.offset > 0 { (from.key, next_key(&key)) } else { (key.clone(), from.key) };
        Ok((key, begin, end))
    }

    /// Returns a page of rows, and the range that it depends on.
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
        let is_plain = begin.offset == 1 && end.offset == 1;
        let is_limited = query.limit.is_some() || query.target_bytes.is_some();
        let query = RangeQuery { begin, end, ..query.clone() };
        // The client reads up to its limit, and beyond it where own writes use up the limit.
        // Without other writes the steps do not matter.
        let writes = self.writes;
        let (answer, stopped) =
            if is_plain && !writes.has_unreadable() && (writes.is_empty() || !is_limited) {
                self.collect(&query)?
            } else {
                let answer = self.read_range(&query)?;
                let stopped = stopped(&query, &answer.rows);
                (answer, stopped)
            };
        let depends_on = depends_on(&query, &answer);
        Ok(RangeRead { page: RangePage { rows: answer.rows, stopped }, depends_on })
    }

    /// Returns the rows of a plain range, and why there are no more.
    fn collect(&mut self, query: &RangeQuery) -> Result<(Answer, Stopped)> {
        let (begin, end) = (&query.begin.key, &query.end.key);
        let (at, bound) = match query.order {
            Order::Ascending => (begin, end),
            Order::Descending => (end, begin),
        };
        let mut walk =
            Walk { at: at.clone(), bound: bound.clone(), order: query.order, rows: None };
        let mut answer = Answer::default();
        let mut stopped = Stopped::End;
        let mut bytes = 0;
        while stopped == Stopped::End {
            let Step::Row(row) = self.step(&mut walk)? else { break };
            bytes += row.key.len() + row.value.len();
            answer.rows.push(row);
            if query.limit.is_some_and(|limit| answer.rows.len() >= limit) {
                stopped = Stopped::Rows;
            } else if query.target_bytes.is_some_and(|target| bytes >= target) {
                stopped = Stopped::Bytes;
            }
        }
        answer.more = stopped != Stopped::End;
        let read = match (answer.rows.last().filter(|_| answer.more), query.order) {
            (None, _) => KeyRange::new(begin, end),
            (Some(last), Order::Ascending) => KeyRange::new(begin, &next_key(&last.key)),
            (Some(last), Order::Descending) => KeyRange::new(&last.key, end),
        };
        self.cache.insert(read);
        Ok((answer, stopped))
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
                return Err(accessed_unreadable());
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
                    if let Some(value) = written.over(stored) {
                        return Ok(Step::Row(KeyValue { key: from, value }));
                    }
                }
            }
        }
    }
}

/// Returns why a page has no more rows.
fn stopped(query: &RangeQuery, rows: &[KeyValue]) -> Stopped {
    let bytes = || rows.iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
    if query.limit.is_some_and(|limit| rows.len() >= limit) {
        Stopped::Rows
    } else if query.target_bytes.is_some_and(|target| !rows.is_empty() && bytes() >= target) {
        Stopped::Bytes
    } else {
        Stopped::End
    }
}

/// Adds to `conflicts` the part of a range that is read from the store rather than from own writes.
pub(super) fn note_read(writes: &WriteMap, conflicts: &mut RangeSet, range: KeyRange) {
    // Most transactions read first.
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

/// Returns the range that a page depends on: only as far as it was read.
fn depends_on(query: &RangeQuery, answer: &Answer) -> (Vec<u8>, Vec<u8>) {
    let (begin, end) = (&query.begin, &query.end);
    let in_order = begin.key < end.key;
    let (low, high) = if in_order { (&begin.key, &end.key) } else { (&end.key, &begin.key) };
    let (mut low, mut high) = (low.clone(), high.clone());
    let ascending = query.order == Order::Ascending;
    if in_order && answer.more {
        if ascending && end.offset > 0 {
            high.clone_from(&begin.key);
        } else if !ascending && begin.offset <= 1 {
            low.clone_from(&end.key);
        }
    }
    if answer.ends.begin && begin.offset <= 0 {
        low.clear();
    }
    if answer.ends.end && end.offset > 0 {
        high = MAX_KEY.to_vec();
    }
    if let (Some(first), Some(last)) = (answer.rows.first(), answer.rows.last()) {
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
