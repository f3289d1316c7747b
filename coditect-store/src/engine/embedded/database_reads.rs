//! Reads of the database as FoundationDB's client sends them for a transaction, without its writes:
//! the reads of `read_your_writes`.
//!
//! System keys follow the user keys of a FoundationDB cluster. They are imitated here, since key
//! selectors and limits of such reads count them.

use super::{
    super::{
        limits::MAX_KEY,
        range::{KeySelector, Order},
    },
    ranges::{KeyRange, next_key},
    snapshot_cache::END_OF_KEYS,
    transaction_view::TransactionView,
};
use crate::Result;

/// Number of system keys that follow the last user key. A database always has some, and key
/// selectors and limits of the reads that go to it count them.
const SYSTEM_ROWS: u32 = 1000;

/// A key selector without `or_equal`: the first key at or after `key`, and `offset - 1` keys on.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    pub(super) key: Vec<u8>,
    pub(super) offset: i64,
}

impl Selector {
    pub(super) fn first_at(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), offset: 1 }
    }

    pub(super) fn is_first_at(&self) -> bool {
        self.offset == 1
    }

    pub(super) fn is_backward(&self) -> bool {
        self.offset <= 0
    }
}

impl From<&KeySelector> for Selector {
    fn from(selector: &KeySelector) -> Self {
        let KeySelector { key, offset, .. } = selector.without_or_equal();
        Self { key, offset: offset.into() }
    }
}

/// The result of a read of the database without the transaction's writes.
pub(super) struct Fetched {
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

impl TransactionView<'_> {
    /// Reads the database: the rows between two selectors, at most `limit` of them.
    pub(super) fn fetch(
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
        let mut has_more = true;
        if order == Order::Descending {
            has_more = (system.0..system.1).rev().all(|index| take(system_key(index)));
        }
        if has_more && from.as_slice() < MAX_KEY {
            for row in self.stored()?.rows(&from, (&*to).min(MAX_KEY), order)? {
                has_more = take(row?.key);
                if !has_more {
                    break;
                }
            }
        }
        if has_more && order == Order::Ascending {
            has_more = (system.0..system.1).all(|index| take(system_key(index)));
        }
        let more = !has_more;
        let read_to_begin = if one_by_one {
            from.is_empty() && (order == Order::Ascending || !more)
        } else {
            is_at_begin
        };
        Ok(Fetched { first, last, more, read_to_begin })
    }

    /// Adds the key range that a read of the database covered to the cache.
    pub(super) fn note_fetched(
        &mut self,
        fetched: &Fetched,
        begin: &Selector,
        end: &Selector,
        order: Order,
    ) {
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
    pub(super) fn row_from(
        &mut self,
        begin: &[u8],
        end: &[u8],
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
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
    pub(super) fn row_before(
        &mut self,
        end: &[u8],
        begin: &[u8],
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
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
