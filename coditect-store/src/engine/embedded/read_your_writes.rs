//! Range reads through a transaction's own writes, step by step as FoundationDB's client does them
//! (`ReadYourWritesTransaction`).
//!
//! The client knows a part of the snapshot: the ranges that it has read. It resolves key selectors
//! in that part as far as it can and reads the database for the rest. Which keys it passes on the
//! way decides three things that a caller sees: whether the read fails at an unreadable key, which
//! conflict range it adds, and whether it needs a read version at all. So the steps are followed
//! here, in the client's order, wherever one of the three can differ: see [`View::range`].
//!
//! # Cost
//!
//! Each row costs a seek or two in the snapshot. Reads of plain ranges do not come here.

use super::{
    super::{
        limits::{MAX_KEY, accessed_unreadable},
        range::{KeySelector, KeyValue, Order, RangeQuery},
    },
    ranges::{KeyRange, is_key, next_key},
    reads::View,
    snapshot_cache::END_OF_KEYS,
    writes::{self, State},
};
use crate::Result;

/// Number of system keys that follow the last user key. A database always has some, and key
/// selectors and limits of the reads that go to it count them.
const SYSTEM_ROWS: u32 = 1000;

/// Maximum number of single cleared keys that one read of the database passes over, besides those
/// that earlier reads have met.
const MAX_SKIPPED_CLEARS: usize = 100;

/// A key selector without `or_equal`: the first key at or after `key`, and `offset - 1` keys on.
#[derive(Clone, Debug)]
struct Selector {
    key: Vec<u8>,
    offset: i64,
}

impl Selector {
    fn first_at(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), offset: 1 }
    }

    fn is_first_at(&self) -> bool {
        self.offset == 1
    }

    fn is_backward(&self) -> bool {
        self.offset <= 0
    }
}

impl From<&KeySelector> for Selector {
    fn from(selector: &KeySelector) -> Self {
        let KeySelector { key, offset, .. } = selector.without_or_equal();
        Self { key, offset: offset.into() }
    }
}

/// A maximal stretch of keys between which neither the writes nor the known part of the snapshot
/// change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    begin: Vec<u8>,
    end: Vec<u8>,
    /// Whether a versionstamp makes it unreadable; then nothing else about it may be used.
    unreadable: bool,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Not known without a read of the database.
    Unknown,
    Empty,
    /// A single key. Without a value if an atomic operation cleared it: no row, but selectors
    /// count it.
    Row(Option<Vec<u8>>),
}

impl Segment {
    /// Returns what is known of the segment. Fails if it is unreadable.
    fn kind(&self) -> Result<&Kind> {
        if self.unreadable { Err(accessed_unreadable()) } else { Ok(&self.kind) }
    }

    fn is_resolved(&self) -> bool {
        !self.unreadable && self.kind != Kind::Unknown
    }

    fn is_unknown(&self) -> bool {
        !self.unreadable && self.kind == Kind::Unknown
    }
}

/// What is left of the limits of a read.
#[derive(Clone, Copy)]
struct Remaining {
    rows: usize,
    bytes: Option<usize>,
}

impl Remaining {
    fn of(query: &RangeQuery) -> Self {
        // Large enough for any page, and small enough to add to.
        let rows = query.limit.unwrap_or(usize::MAX).min(1 << 40);
        Self { rows, bytes: query.target_bytes.map(|bytes| bytes.max(1)) }
    }

    fn is_reached(self) -> bool {
        self.rows == 0 || self.bytes == Some(0)
    }

    fn subtract(&mut self, row: &KeyValue) {
        self.rows -= 1;
        if let Some(bytes) = &mut self.bytes {
            *bytes = bytes.saturating_sub(row.key.len() + row.value.len());
        }
    }
}

/// The answer to a read.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) rows: Vec<KeyValue>,
    /// Whether a limit was reached before the end of the range.
    pub(super) more: bool,
    pub(super) ends: Ends,
}

impl Answer {
    fn empty(ends: Ends) -> Self {
        Self { ends, ..Self::default() }
    }
}

/// Whether selectors ran into the ends of the key space.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) begin: bool,
    pub(super) end: bool,
}

impl Ends {
    fn note(&mut self, resolved: &[u8]) {
        self.begin |= resolved.is_empty();
        self.end |= resolved == MAX_KEY;
    }
}

/// What a read of the database, without the transaction's writes, came to.
struct Fetched {
    first: Option<Vec<u8>>,
    last: Option<Vec<u8>>,
    more: bool,
    read_to_begin: bool,
}

impl Fetched {
    fn nothing(read_to_begin: bool) -> Self {
        Self { first: None, last: None, more: false, read_to_begin }
    }
}

/// One end of a range read, as far as it is resolved.
struct End {
    selector: Selector,
    /// The segment that it is in.
    segment: Segment,
    /// Its offset before it was given up at the first or last key.
    actual_offset: i64,
}

impl View<'_> {
    /// Returns the key that a selector means.
    pub(super) fn resolve_key(&mut self, selector: &KeySelector) -> Result<Vec<u8>> {
        self.key_of(&Selector::from(selector))
    }

    /// Returns the rows between two selectors.
    pub(super) fn read_range(&mut self, query: &RangeQuery) -> Result<Answer> {
        let (begin, end) = (Selector::from(&query.begin), Selector::from(&query.end));
        match query.order {
            Order::Ascending => self.ascend(begin, end, Remaining::of(query)),
            Order::Descending => self.descend(begin, end, Remaining::of(query)),
        }
    }

    fn key_of(&mut self, selector: &Selector) -> Result<Vec<u8>> {
        let one = Remaining { rows: 1, bytes: None };
        if selector.offset > 0 {
            let found = self.ascend(selector.clone(), Selector::first_at(MAX_KEY), one)?;
            Ok(match found.rows.into_iter().next() {
                _ if found.ends.begin => Vec::new(),
                Some(row) if !found.ends.end => row.key,
                _ => MAX_KEY.to_vec(),
            })
        } else {
            let end = Selector { offset: selector.offset + 1, ..selector.clone() };
            let found = self.descend(Selector::first_at(b""), end, one)?;
            Ok(match found.rows.into_iter().next() {
                _ if found.ends.end => MAX_KEY.to_vec(),
                Some(row) if !found.ends.begin => row.key,
                _ => Vec::new(),
            })
        }
    }

    fn ascend(&mut self, begin: Selector, end: Selector, mut left: Remaining) -> Result<Answer> {
        let mut ends = Ends::default();
        let mut begin = self.end_at(begin, &mut ends)?;
        let mut end = self.end_at(end, &mut ends)?;
        if let Some(answer) = nothing_between(&begin, &end, ends) {
            return Ok(answer);
        }
        if !end.selector.is_first_at() && begin.selector.key > end.selector.key {
            let resolved = self.key_of(&end.selector)?;
            ends.note(&resolved);
            if begin.selector.key >= resolved && !begin.selector.is_backward() {
                return Ok(Answer::default());
            }
            if resolved.is_empty() {
                return Ok(Answer::empty(ends));
            }
            self.resolve(&mut begin, &mut ends)?;
            self.resolve(&mut end, &mut ends)?;
        }
        let mut answer = Answer::default();
        let (mut past_end, mut extra, mut reads) = (0, 0, 0);
        loop {
            if answer.rows.is_empty() && is_inverted(&begin, &end) {
                return Ok(Answer::default());
            }
            if end.selector.offset <= 1 && end.selector.key.is_empty() {
                return Ok(Answer::empty(ends));
            }
            let met = begin.selector.offset >= end.selector.offset
                && begin.selector.key >= end.selector.key;
            if met || (begin.selector.offset >= 1 && begin.selector.key.as_slice() >= MAX_KEY) {
                if !end.selector.is_first_at() && !answer.rows.is_empty() {
                    let resolved = self.key_of(&end.selector)?;
                    ends.note(&resolved);
                    end.selector = Selector::first_at(resolved);
                }
                break;
            }
            let (at, goal) = (&begin.segment, &end.segment);
            if at.is_resolved() && at.begin > goal.begin {
                if end.selector.is_first_at() {
                    break;
                }
                return Ok(Answer::empty(ends));
            }
            if left.is_reached() && past_end > -end.selector.offset {
                break;
            }
            if at == goal
                && (at.is_resolved()
                    || (begin.selector.offset > 0
                        && end.selector.is_first_at()
                        && end.selector.key == at.begin))
            {
                break;
            }
            if *at.kind()? == Kind::Unknown {
                let clears = clear_limit(reads);
                let mut unknown_end = at.clone();
                let mut single = 0;
                if at.begin < goal.begin {
                    single = self
                        .skip_unknown(&mut unknown_end, goal, clears + MAX_SKIPPED_CLEARS)?
                        .min(clears);
                }
                let to = if unknown_end != *goal {
                    extra += (1 - end.selector.offset).max(0);
                    Selector::first_at(unknown_end.end)
                } else if end.selector.offset < 1 {
                    extra += 1 - end.selector.offset;
                    Selector::first_at(end.selector.key.clone())
                } else {
                    let mut to = end.selector.clone();
                    if to.offset > 1 {
                        single += self.count_clears(unknown_end, clears - single)?;
                        to.offset += offset(single);
                    }
                    to
                };
                extra += offset(single);
                let from = if begin.selector.is_first_at() {
                    let key = begin.segment.begin.clone().max(begin.selector.key);
                    begin.selector = Selector::first_at(key);
                    begin.selector.clone()
                } else if begin.selector.offset > 1 {
                    extra += begin.selector.offset - 1;
                    Selector::first_at(begin.selector.key.clone())
                } else {
                    let single = offset(self.count_clears_back(begin.segment.clone(), clears)?);
                    extra += single;
                    Selector { offset: begin.selector.offset - single, ..begin.selector.clone() }
                };
                let to = Selector { key: to.key.max(from.key.clone()), ..to };
                let rows = request_rows(left, extra, 2 - from.offset);
                (extra, reads) = (0, reads + 1);
                let fetched = self.fetch(&from, &to, rows, Order::Ascending)?;
                self.note_fetched(&fetched, &from, &to, Order::Ascending);
                self.resolve(&mut begin, &mut ends)?;
                self.resolve(&mut end, &mut ends)?;
                continue;
            }
            if let Kind::Row(Some(value)) = &at.kind {
                let row = KeyValue { key: at.begin.clone(), value: value.clone() };
                if left.is_reached() {
                    past_end += 1;
                } else {
                    left.subtract(&row);
                    answer.rows.push(row);
                }
            }
            begin.segment = self.segment_at(&begin.segment.end)?;
        }
        answer.more = left.is_reached();
        if end.selector.is_first_at() {
            let kept = answer.rows.partition_point(|row| row.key < end.selector.key);
            answer.more &= kept == answer.rows.len();
            answer.rows.truncate(kept);
        }
        answer.ends = Ends { begin: ends.begin, end: ends.end && !answer.more };
        Ok(answer)
    }

    fn descend(&mut self, begin: Selector, end: Selector, mut left: Remaining) -> Result<Answer> {
        let mut ends = Ends::default();
        let mut end = self.end_at(end, &mut ends)?;
        let mut begin = self.end_at(begin, &mut ends)?;
        if let Some(answer) = nothing_between(&begin, &end, ends) {
            return Ok(answer);
        }
        if !begin.selector.is_first_at() && begin.selector.key > end.selector.key {
            let resolved = self.key_of(&begin.selector)?;
            ends.note(&resolved);
            if resolved >= end.selector.key && end.selector.offset <= 1 {
                return Ok(Answer::default());
            }
            if resolved == MAX_KEY {
                return Ok(Answer::empty(ends));
            }
            self.resolve(&mut end, &mut ends)?;
            self.resolve(&mut begin, &mut ends)?;
        }
        let mut answer = Answer::default();
        let (mut past_begin, mut extra, mut reads) = (0, 0, 0);
        loop {
            if answer.rows.is_empty() && is_inverted(&begin, &end) {
                return Ok(Answer::default());
            }
            if !begin.selector.is_backward() && begin.selector.key.as_slice() >= MAX_KEY {
                return Ok(Answer::empty(ends));
            }
            let met = begin.selector.offset >= end.selector.offset
                && begin.selector.key >= end.selector.key;
            if met || (end.selector.offset <= 1 && end.selector.key.is_empty()) {
                if !begin.selector.is_first_at() && !answer.rows.is_empty() {
                    let resolved = self.key_of(&begin.selector)?;
                    ends.note(&resolved);
                    begin.selector = Selector::first_at(resolved);
                }
                break;
            }
            let is_past = past_begin >= begin.selector.offset - 1;
            if is_past && end.segment.is_resolved() && end.segment.begin < begin.segment.begin {
                if begin.selector.is_first_at() {
                    break;
                }
                return Ok(Answer::empty(ends));
            }
            if left.is_reached() && is_past {
                break;
            }
            if end.selector.is_first_at() && end.selector.key == end.segment.begin {
                if is_past && end.segment == begin.segment || end.segment.begin.is_empty() {
                    break;
                }
                end.segment = self.segment_before(&end.segment.begin)?;
            }
            let (at, goal) = (&end.segment, &begin.segment);
            if *at.kind()? == Kind::Unknown {
                let clears = clear_limit(reads);
                let mut unknown_end = at.clone();
                let mut single = 0;
                if at.begin > goal.begin {
                    single = self
                        .skip_unknown_back(&mut unknown_end, goal, clears + MAX_SKIPPED_CLEARS)?
                        .min(clears);
                }
                let from = if unknown_end != *goal {
                    extra += (begin.selector.offset - 1).max(0);
                    Selector::first_at(unknown_end.begin)
                } else if begin.selector.offset > 1 {
                    extra += begin.selector.offset - 1;
                    Selector::first_at(begin.selector.key.clone())
                } else {
                    let mut from = begin.selector.clone();
                    if from.offset < 1 {
                        single += self.count_clears_back(unknown_end, clears - single)?;
                        from.offset -= offset(single);
                    }
                    from
                };
                extra += offset(single);
                let to = if end.selector.is_first_at() {
                    let key = end.segment.end.clone().min(end.selector.key);
                    end.selector = Selector::first_at(key);
                    end.selector.clone()
                } else if end.selector.offset < 1 {
                    extra += 1 - end.selector.offset;
                    Selector::first_at(end.selector.key.clone())
                } else {
                    let single = offset(self.count_clears(end.segment.clone(), clears)?);
                    extra += single;
                    Selector { offset: end.selector.offset + single, ..end.selector.clone() }
                };
                let from = Selector { key: from.key.min(to.key.clone()), ..from };
                let rows = request_rows(left, extra, to.offset);
                (extra, reads) = (0, reads + 1);
                let fetched = self.fetch(&from, &to, rows, Order::Descending)?;
                self.note_fetched(&fetched, &from, &to, Order::Descending);
                self.resolve(&mut end, &mut ends)?;
                self.resolve(&mut begin, &mut ends)?;
                continue;
            }
            if let Kind::Row(Some(value)) = &at.kind {
                let row = KeyValue { key: at.begin.clone(), value: value.clone() };
                if left.is_reached() {
                    past_begin += 1;
                } else {
                    left.subtract(&row);
                    answer.rows.push(row);
                }
            }
            if end.segment == begin.segment || end.segment.begin.is_empty() {
                break;
            }
            end.segment = self.segment_before(&end.segment.begin)?;
        }
        answer.more = left.is_reached();
        if begin.selector.is_first_at() {
            let kept = answer.rows.partition_point(|row| row.key >= begin.selector.key);
            answer.more &= kept == answer.rows.len();
            answer.rows.truncate(kept);
        }
        answer.ends = Ends { begin: ends.begin && !answer.more, end: ends.end };
        Ok(answer)
    }

    fn end_at(&mut self, selector: Selector, ends: &mut Ends) -> Result<End> {
        let actual_offset = selector.offset;
        let segment = self.segment_at(&selector.key)?;
        let mut end = End { selector, segment, actual_offset };
        self.resolve(&mut end, ends)?;
        Ok(end)
    }

    /// Moves a selector towards the form "first key at or after", as far as is known without a read
    /// of the database.
    fn resolve(&mut self, end: &mut End, ends: &mut Ends) -> Result<()> {
        let Selector { key, offset } = &mut end.selector;
        let was_counted = *offset != 1;
        let mut at = self.segment_at(key)?;
        if *offset <= 0 && at.begin == *key && !key.is_empty() {
            at = self.segment_before(key)?;
        }
        while *offset > 1 && at.is_resolved() && at.end.as_slice() < MAX_KEY {
            if matches!(at.kind, Kind::Row(_)) {
                *offset -= 1;
            }
            at = self.segment_at(&at.end)?;
            key.clone_from(&at.begin);
        }
        while *offset < 1 && at.is_resolved() && !at.begin.is_empty() {
            if matches!(at.kind, Kind::Row(_)) {
                *offset += 1;
                if *offset == 1 {
                    key.clone_from(&at.begin);
                    break;
                }
            }
            at = self.segment_before(&at.begin)?;
            key.clone_from(&at.end);
        }
        if was_counted {
            end.actual_offset = *offset;
        }
        if at.is_resolved() && *offset < 1 {
            ends.begin = true;
            (*key, *offset) = (Vec::new(), 1);
        } else if at.is_resolved() && *offset > 1 {
            ends.end = true;
            (*key, *offset) = (MAX_KEY.to_vec(), 1);
        } else {
            while !at.unreadable && at.kind == Kind::Empty && at.end.as_slice() < MAX_KEY {
                at = self.segment_at(&at.end)?;
                key.clone_from(&at.begin);
            }
        }
        end.segment = at;
        Ok(())
    }

    /// Moves `at`, an unknown segment, to the last unknown one before the next stretch that is known
    /// to be empty or unreadable, but not past `goal`. Single cleared keys are passed over; returns
    /// their number.
    fn skip_unknown(&mut self, at: &mut Segment, goal: &Segment, limit: usize) -> Result<usize> {
        let mut begin = at.begin.clone();
        let (mut single, mut steps) = (0, 0);
        while at != goal && steps < limit {
            steps += 1;
            if at.unreadable || at.kind == Kind::Empty {
                if at.unreadable || !is_key(&begin, &at.end) {
                    break;
                }
                single += 1;
            } else {
                begin.clone_from(&at.end);
            }
            *at = self.segment_at(&at.end)?;
        }
        while !at.is_unknown() {
            *at = self.segment_before(&at.begin)?;
        }
        Ok(single)
    }

    /// The same towards the beginning.
    fn skip_unknown_back(
        &mut self,
        at: &mut Segment,
        goal: &Segment,
        limit: usize,
    ) -> Result<usize> {
        let mut end = at.end.clone();
        let (mut single, mut steps) = (0, 0);
        while at != goal && steps < limit {
            steps += 1;
            if at.unreadable || at.kind == Kind::Empty {
                if at.unreadable || !is_key(&at.begin, &end) {
                    break;
                }
                single += 1;
            } else {
                end.clone_from(&at.begin);
            }
            *at = self.segment_before(&at.begin)?;
        }
        while !at.is_unknown() {
            *at = self.segment_at(&at.end)?;
        }
        Ok(single)
    }

    /// Returns the number of single cleared keys from `at` on, up to the next longer stretch that is
    /// known to be empty, and at most `limit`.
    fn count_clears(&mut self, mut at: Segment, limit: usize) -> Result<usize> {
        let mut begin = at.begin.clone();
        let mut single = 0;
        while single < limit && at.end.as_slice() < MAX_KEY {
            if at.unreadable || at.kind == Kind::Empty {
                if at.unreadable || !is_key(&begin, &at.end) {
                    break;
                }
                single += 1;
            } else {
                begin.clone_from(&at.end);
            }
            at = self.segment_at(&at.end)?;
        }
        Ok(single)
    }

    /// The same towards the beginning.
    fn count_clears_back(&mut self, mut at: Segment, limit: usize) -> Result<usize> {
        let mut end = at.end.clone();
        let mut single = 0;
        while single < limit && !at.begin.is_empty() {
            if at.unreadable || at.kind == Kind::Empty {
                if at.unreadable || !is_key(&at.begin, &end) {
                    break;
                }
                single += 1;
            } else {
                end.clone_from(&at.begin);
            }
            at = self.segment_before(&at.begin)?;
        }
        Ok(single)
    }

    /// Returns the segment that `key` belongs to.
    fn segment_at(&mut self, key: &[u8]) -> Result<Segment> {
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
    fn segment_before(&mut self, key: &[u8]) -> Result<Segment> {
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

    /// Reads the database: the rows between two selectors, at most `limit` of them.
    fn fetch(
        &mut self,
        begin: &Selector,
        end: &Selector,
        limit: usize,
        order: Order,
    ) -> Result<Fetched> {
        let is_at_begin = begin.key.is_empty() && begin.offset < 1;
        // The client asks for a read version first.
        self.stored()?;
        if end.key.is_empty() && end.offset <= 1 {
            return Ok(Fetched::nothing(is_at_begin));
        }
        let from = if is_at_begin { Some(Vec::new()) } else { self.database_key(begin)? };
        let to = self.database_key(end)?;
        // Past the first key the client resolves the selectors one by one.
        let one_by_one = from.is_none() || to.is_none();
        let (from, to) = (from.unwrap_or_default(), to.unwrap_or_default());
        if from >= to {
            return Ok(Fetched::nothing(is_at_begin && !one_by_one));
        }
        let (mut first, mut last, mut count) = (None, None, 0);
        let mut take = |key: Vec<u8>| {
            first.get_or_insert_with(|| key.clone());
            last = Some(key);
            count += 1;
            count < limit
        };
        let system = (system_index(&from), system_index(&to));
        let mut goes_on = true;
        if order == Order::Descending {
            goes_on = (system.0..system.1).rev().all(|index| take(system_key(index)));
        }
        if goes_on && from.as_slice() < MAX_KEY {
            for row in self.stored()?.rows(&from, (&*to).min(MAX_KEY), order)? {
                goes_on = take(row?.key);
                if !goes_on {
                    break;
                }
            }
        }
        if goes_on && order == Order::Ascending {
            goes_on = (system.0..system.1).all(|index| take(system_key(index)));
        }
        let more = !goes_on;
        let read_to_begin = if one_by_one {
            from.is_empty() && (order == Order::Ascending || !more)
        } else {
            is_at_begin
        };
        Ok(Fetched { first, last, more, read_to_begin })
    }

    /// Adds to the cache the keys that a read of the database has shown.
    fn note_fetched(&mut self, fetched: &Fetched, begin: &Selector, end: &Selector, order: Order) {
        let complete = !fetched.more;
        let (low, high) = match order {
            Order::Ascending => (&fetched.first, &fetched.last),
            Order::Descending => (&fetched.last, &fetched.first),
        };
        let begin_is_known = begin.offset <= 1 && (complete || order == Order::Ascending);
        let end_is_known = end.offset >= 1 && (complete || order == Order::Descending);
        let mut from = if begin_is_known { begin.key.clone() } else { END_OF_KEYS.to_vec() };
        let mut to = if end_is_known { end.key.clone() } else { Vec::new() };
        if fetched.read_to_begin {
            from.clear();
        }
        if let (Some(low), Some(high)) = (low, high) {
            from = from.min(low.clone());
            to = to.max(next_key(high));
        }
        self.cache.insert(KeyRange::new(&from, &to));
    }

    /// Returns the key of the database that a selector means; `None` before the first.
    fn database_key(&mut self, selector: &Selector) -> Result<Option<Vec<u8>>> {
        let Selector { key, offset } = selector;
        if *offset == 1 {
            return Ok(Some(key.clone()));
        }
        if *offset < 1 {
            let mut at = key.clone();
            for _ in *offset..1 {
                match self.row_before(&at, b"")? {
                    Some((before, _)) => at = before,
                    None => return Ok(None),
                }
            }
            return Ok(Some(at));
        }
        let mut at = key.clone();
        for nth in 0..*offset {
            match self.row_from(&at, END_OF_KEYS)? {
                Some((found, _)) if nth + 1 == *offset => return Ok(Some(found)),
                Some((found, _)) => at = next_key(&found),
                None => break,
            }
        }
        Ok(Some(END_OF_KEYS.to_vec()))
    }

    /// Returns the first row of the database from `begin` up to, and without, `end`.
    fn row_from(&mut self, begin: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        if begin < MAX_KEY {
            let mut rows = self.stored()?.rows(begin, end.min(MAX_KEY), Order::Ascending)?;
            if let Some(row) = rows.next().transpose()? {
                return Ok(Some((row.key, row.value)));
            }
        }
        let index = system_index(begin);
        let key = system_key(index);
        Ok((index < SYSTEM_ROWS && key.as_slice() < end).then(|| (key, Vec::new())))
    }

    /// Returns the last row of the database before `end` that is not before `begin`.
    fn row_before(&mut self, end: &[u8], begin: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        if let Some(index) = system_index(end).checked_sub(1) {
            let key = system_key(index);
            if key.as_slice() >= begin {
                return Ok(Some((key, Vec::new())));
            }
        }
        if begin >= MAX_KEY {
            return Ok(None);
        }
        let mut rows = self.stored()?.rows(begin, end.min(MAX_KEY), Order::Descending)?;
        Ok(rows.next().transpose()?.map(|row| (row.key, row.value)))
    }
}

impl writes::Segment<'_> {
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

fn is_inverted(begin: &End, end: &End) -> bool {
    begin.actual_offset >= end.actual_offset && begin.selector.key >= end.selector.key
}

/// Returns the answer if the two ends show that there is nothing between them.
fn nothing_between(begin: &End, end: &End, ends: Ends) -> Option<Answer> {
    if is_inverted(begin, end) {
        return Some(Answer::default());
    }
    let at_end = begin.selector.is_first_at() && begin.selector.key == MAX_KEY;
    let at_begin = end.selector.is_first_at() && end.selector.key.is_empty();
    (at_end || at_begin).then(|| Answer::empty(ends))
}

/// Returns the number of single cleared keys that the next read of the database makes up for, after
/// `reads` reads.
fn clear_limit(reads: u32) -> usize {
    if reads == 0 { 0 } else { 1 << reads.min(20) }
}

fn request_rows(left: Remaining, extra: i64, at_least: i64) -> usize {
    let extra = usize::try_from(extra).unwrap_or(0);
    let at_least = usize::try_from(at_least).unwrap_or(0);
    (left.rows.max(1) + extra).max(at_least)
}

fn offset(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn system_key(index: u32) -> Vec<u8> {
    [b"\xff\x02/".as_slice(), &index.to_be_bytes()].concat()
}

/// Returns the number of system keys before `key`.
fn system_index(key: &[u8]) -> u32 {
    let (mut low, mut high) = (0, SYSTEM_ROWS);
    while low < high {
        let middle = low.midpoint(high);
        if system_key(middle).as_slice() < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
