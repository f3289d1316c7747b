//! Range reads through a transaction's own writes, in the steps of FoundationDB's client
//! (`ReadYourWritesTransaction`).
//!
//! The client knows a part of the snapshot: the ranges that it has read. It resolves key selectors
//! in that part as far as it can, and reads the database for the rest. The keys that it passes on
//! the way decide three visible effects: whether the read fails at an unreadable key, which
//! conflict range it adds, and whether it needs a read version. So its steps are followed here in
//! order, wherever one of the three can differ: see [`TransactionView::range`].
//!
//! # Cost
//!
//! Each row costs one or two seeks in the snapshot. Reads of plain ranges do not take this path.

use super::{
    super::{
        limits::MAX_KEY,
        range::{KeySelector, KeyValue, Order, RangeQuery},
    },
    database_reads::Selector,
    ranges::is_key,
    segments::{Kind, Segment},
    transaction_view::TransactionView,
};
use crate::Result;

/// Maximum number of single cleared keys that one read of the database passes, in addition to the
/// number met by earlier reads.
const MAX_SKIPPED_CLEARS: usize = 100;

/// The remaining limits of a read.
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

/// The result of a read.
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

/// The state of a read between its reads of the database.
#[derive(Default)]
struct Progress {
    /// Number of rows to request beyond the remaining limit.
    extra: i64,
    /// Number of reads of the database so far.
    reads: u32,
}

/// One end of a range read, as far as it is resolved.
struct End {
    selector: Selector,
    /// The segment that it is in.
    segment: Segment,
    /// The offset before it was clamped at the first or last key.
    actual_offset: i64,
}

impl TransactionView<'_> {
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
        let (mut past_end, mut progress) = (0, Progress::default());
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
                self.fetch_up(&mut begin, &end, left, &mut progress)?;
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
        let (mut past_begin, mut progress) = (0, Progress::default());
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
            let at = &end.segment;
            if *at.kind()? == Kind::Unknown {
                self.fetch_down(&begin, &mut end, left, &mut progress)?;
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

    /// Reads the unknown segment that an ascending read has come to, and more as far as it helps.
    fn fetch_up(
        &mut self,
        begin: &mut End,
        end: &End,
        left: Remaining,
        progress: &mut Progress,
    ) -> Result<()> {
        let (at, goal) = (&begin.segment, &end.segment);
        let clears = clear_limit(progress.reads);
        let mut unknown_end = at.clone();
        let mut single = 0;
        if at.begin < goal.begin {
            single =
                self.skip_unknown(&mut unknown_end, goal, clears + MAX_SKIPPED_CLEARS)?.min(clears);
        }
        let to = if unknown_end != *goal {
            progress.extra += (1 - end.selector.offset).max(0);
            Selector::first_at(unknown_end.end)
        } else if end.selector.offset < 1 {
            progress.extra += 1 - end.selector.offset;
            Selector::first_at(end.selector.key.clone())
        } else {
            let mut to = end.selector.clone();
            if to.offset > 1 {
                single += self.count_clears(unknown_end, clears - single)?;
                to.offset += offset(single);
            }
            to
        };
        progress.extra += offset(single);
        let from = if begin.selector.is_first_at() {
            let key = begin.segment.begin.clone().max(begin.selector.key.clone());
            begin.selector = Selector::first_at(key);
            begin.selector.clone()
        } else if begin.selector.offset > 1 {
            progress.extra += begin.selector.offset - 1;
            Selector::first_at(begin.selector.key.clone())
        } else {
            let single = offset(self.count_clears_back(begin.segment.clone(), clears)?);
            progress.extra += single;
            Selector { offset: begin.selector.offset - single, ..begin.selector.clone() }
        };
        let to = Selector { key: to.key.max(from.key.clone()), ..to };
        let rows = request_rows(left, progress.extra, 2 - from.offset);
        *progress = Progress { extra: 0, reads: progress.reads + 1 };
        let fetched = self.fetch(&from, &to, rows, Order::Ascending)?;
        self.note_fetched(&fetched, &from, &to, Order::Ascending);
        Ok(())
    }

    /// Reads the unknown segment that a descending read has come to, and more as far as it helps.
    fn fetch_down(
        &mut self,
        begin: &End,
        end: &mut End,
        left: Remaining,
        progress: &mut Progress,
    ) -> Result<()> {
        let (at, goal) = (&end.segment, &begin.segment);
        let clears = clear_limit(progress.reads);
        let mut unknown_end = at.clone();
        let mut single = 0;
        if at.begin > goal.begin {
            single = self
                .skip_unknown_back(&mut unknown_end, goal, clears + MAX_SKIPPED_CLEARS)?
                .min(clears);
        }
        let from = if unknown_end != *goal {
            progress.extra += (begin.selector.offset - 1).max(0);
            Selector::first_at(unknown_end.begin)
        } else if begin.selector.offset > 1 {
            progress.extra += begin.selector.offset - 1;
            Selector::first_at(begin.selector.key.clone())
        } else {
            let mut from = begin.selector.clone();
            if from.offset < 1 {
                single += self.count_clears_back(unknown_end, clears - single)?;
                from.offset -= offset(single);
            }
            from
        };
        progress.extra += offset(single);
        let to = if end.selector.is_first_at() {
            let key = end.segment.end.clone().min(end.selector.key.clone());
            end.selector = Selector::first_at(key);
            end.selector.clone()
        } else if end.selector.offset < 1 {
            progress.extra += 1 - end.selector.offset;
            Selector::first_at(end.selector.key.clone())
        } else {
            let single = offset(self.count_clears(end.segment.clone(), clears)?);
            progress.extra += single;
            Selector { offset: end.selector.offset + single, ..end.selector.clone() }
        };
        let from = Selector { key: from.key.min(to.key.clone()), ..from };
        let rows = request_rows(left, progress.extra, to.offset);
        *progress = Progress { extra: 0, reads: progress.reads + 1 };
        let fetched = self.fetch(&from, &to, rows, Order::Descending)?;
        self.note_fetched(&fetched, &from, &to, Order::Descending);
        Ok(())
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

    /// Moves `at`, an unknown segment, to the last unknown one before the next stretch that is
    /// known to be empty or unreadable, but not past `goal`. Single cleared keys are passed over;
    /// returns their number.
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

    /// As [`skip_unknown`](Self::skip_unknown), towards the beginning.
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

    /// Returns the number of single cleared keys from `at` on, up to the next longer stretch that
    /// is known to be empty, and at most `limit`.
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

    /// As [`count_clears`](Self::count_clears), towards the beginning.
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
