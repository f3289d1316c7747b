//! What a range read asks and answers.

use super::{Isolation, Transaction};
use crate::Result;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A key named by its place in the order: the last key less than `key` (or equal to it, with
/// `or_equal`), and `offset` keys on from there (manual: "Key selectors").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySelector {
    /// The key it starts from.
    pub key: Vec<u8>,
    /// Whether that key itself may be where it starts.
    pub or_equal: bool,
    /// How many keys to go on, or back if negative.
    pub offset: i32,
}

impl KeySelector {
    /// The first key that is `key` or after it.
    pub fn first_greater_or_equal(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: false, offset: 1 }
    }

    /// The first key after `key`.
    pub fn first_greater_than(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: true, offset: 1 }
    }

    /// The last key that is `key` or before it.
    pub fn last_less_or_equal(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: true, offset: 0 }
    }

    /// The last key before `key`.
    pub fn last_less_than(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: false, offset: 0 }
    }

    /// The same place, said without `or_equal`.
    pub(crate) fn without_or_equal(&self) -> Self {
        let mut key = self.key.clone();
        if self.or_equal {
            key.push(0);
        }
        Self { key, or_equal: false, offset: self.offset }
    }
}

/// In which order a range is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    #[default]
    Ascending,
    /// Largest key first.
    Descending,
}

/// Which keys to read, in which order, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// The first key of the range.
    pub begin: KeySelector,
    /// The first key past it.
    pub end: KeySelector,
    /// The order.
    pub order: Order,
    /// The most rows to give; `None` for all.
    pub limit: Option<usize>,
    /// Stop after the row with which keys and values come to this many bytes; `None` for no such
    /// stop. At least one row is given if there is one.
    pub target_bytes: Option<usize>,
}

impl RangeQuery {
    /// All keys from `begin` up to, and without, `end`, smallest first.
    pub fn new(begin: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self::between(
            KeySelector::first_greater_or_equal(begin),
            KeySelector::first_greater_or_equal(end),
        )
    }

    /// All keys between two selectors, smallest first.
    pub fn between(begin: KeySelector, end: KeySelector) -> Self {
        Self { begin, end, order: Order::Ascending, limit: None, target_bytes: None }
    }

    /// In the given order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Largest key first.
    #[must_use]
    pub fn descending(self) -> Self {
        self.order(Order::Descending)
    }

    /// At most `rows` rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Stop after the row with which keys and values come to `bytes` bytes.
    #[must_use]
    pub fn target_bytes(mut self, bytes: usize) -> Self {
        self.target_bytes = Some(bytes);
        self
    }

    /// The same range past `key`, the last one that was given.
    fn after(mut self, key: &[u8]) -> Self {
        match self.order {
            Order::Ascending => self.begin = KeySelector::first_greater_than(key),
            Order::Descending => self.end = KeySelector::first_greater_or_equal(key),
        }
        self
    }
}

/// Why a page has no more rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The range has no more.
    End,
    /// The limit of rows is reached; there may be more.
    Rows,
    /// The bytes that were asked for are reached; there may be more.
    Bytes,
}

/// One page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// The rows, in the order that was asked for.
    pub rows: Vec<KeyValue>,
    /// Why there are no more of them.
    pub stopped: Stopped,
}

/// How much one page of a [`RangeStream`] holds, in bytes of keys and values.
const STREAM_PAGE_BYTES: usize = 80_000;

/// A range, page by page, in bounded memory.
#[derive(Debug)]
pub struct RangeStream {
    transaction: Transaction,
    isolation: Isolation,
    rest: Option<RangeQuery>,
}

impl RangeStream {
    pub(super) fn new(transaction: Transaction, query: RangeQuery, isolation: Isolation) -> Self {
        Self { transaction, isolation, rest: Some(query) }
    }

    /// Returns the next rows; `None` after the last. No page is empty. After an error, or when its
    /// future was dropped, the next call reads the same page again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<KeyValue>>> {
        let Some(rest) = &self.rest else {
            return Ok(None);
        };
        let mut query = rest.clone();
        query.target_bytes.get_or_insert(STREAM_PAGE_BYTES);
        let page = self.transaction.read_range(&query, self.isolation).await?;
        // The position moves only here, after the last await.
        self.rest = match page.rows.last() {
            Some(last) if page.stopped == Stopped::Bytes => {
                let left = query.limit.map(|limit| limit - page.rows.len());
                (left != Some(0)).then(|| RangeQuery { limit: left, ..query.after(&last.key) })
            }
            _ => None,
        };
        Ok((!page.rows.is_empty()).then_some(page.rows))
    }
}
