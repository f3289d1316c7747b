//! Parameters and results of range reads.

use super::{Isolation, Transaction};
use crate::Result;

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// A key relative to another: the last key less than `key` (or equal to it, with `or_equal`), moved
/// forward by `offset` keys (manual: "Key selectors").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySelector {
    /// The reference key.
    pub key: Vec<u8>,
    /// Whether the reference key itself may be the start.
    pub or_equal: bool,
    /// Number of keys to move forward; backward if negative.
    pub offset: i32,
}

impl KeySelector {
    /// Selects the first key greater than or equal to `key`.
    pub fn first_greater_or_equal(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: false, offset: 1 }
    }

    /// Selects the first key greater than `key`.
    pub fn first_greater_than(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: true, offset: 1 }
    }

    /// Selects the last key less than or equal to `key`.
    pub fn last_less_or_equal(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: true, offset: 0 }
    }

    /// Selects the last key less than `key`.
    pub fn last_less_than(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), or_equal: false, offset: 0 }
    }

    /// Returns the equivalent selector without `or_equal`.
    pub(crate) fn without_or_equal(&self) -> Self {
        let mut key = self.key.clone();
        if self.or_equal {
            key.push(0);
        }
        Self { key, or_equal: false, offset: self.offset }
    }
}

/// Order of a range read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Ascending.
    #[default]
    Ascending,
    /// Descending.
    Descending,
}

/// A range, its order, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    /// Begin of the range (inclusive).
    pub begin: KeySelector,
    /// End of the range (exclusive).
    pub end: KeySelector,
    /// The order.
    pub order: Order,
    /// Maximum number of rows; `None` for no limit.
    pub limit: Option<usize>,
    /// Size of keys and values, in bytes, at which the page ends; `None` for no limit. A page has
    /// at least one row if there is one.
    pub target_bytes: Option<usize>,
}

impl RangeQuery {
    /// Returns the keys from `begin` (inclusive) to `end` (exclusive), ascending.
    pub fn new(begin: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self::between(
            KeySelector::first_greater_or_equal(begin),
            KeySelector::first_greater_or_equal(end),
        )
    }

    /// Returns the keys between two selectors, ascending.
    pub fn between(begin: KeySelector, end: KeySelector) -> Self {
        Self { begin, end, order: Order::Ascending, limit: None, target_bytes: None }
    }

    /// Sets the order.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets the descending order.
    #[must_use]
    pub fn descending(self) -> Self {
        self.order(Order::Descending)
    }

    /// Sets the maximum number of rows.
    #[must_use]
    pub fn limit(mut self, rows: usize) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Sets the size at which the page ends, in bytes.
    #[must_use]
    pub fn target_bytes(mut self, bytes: usize) -> Self {
        self.target_bytes = Some(bytes);
        self
    }

    /// Returns the rest of the range after `key`, the last key returned.
    fn after(mut self, key: &[u8]) -> Self {
        match self.order {
            Order::Ascending => self.begin = KeySelector::first_greater_than(key),
            Order::Descending => self.end = KeySelector::first_greater_or_equal(key),
        }
        self
    }
}

/// The reason why a page ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The range has no more rows.
    End,
    /// The limit of rows is reached; there may be more.
    Rows,
    /// The limit of bytes is reached; there may be more.
    Bytes,
}

/// One page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangePage {
    /// The rows, in the requested order.
    pub rows: Vec<KeyValue>,
    /// The reason why the page ends.
    pub stopped: Stopped,
}

/// A key, and its value unless that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedRow {
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` if its checksum does not match.
    pub value: Option<Vec<u8>>,
}

/// One page of a [view](super::View), in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewPage {
    /// The rows.
    pub rows: Vec<CheckedRow>,
    /// Whether the range may have more rows.
    pub more: bool,
}

impl From<RangePage> for ViewPage {
    fn from(page: RangePage) -> Self {
        let rows = page.rows.into_iter();
        let rows = rows.map(|row| CheckedRow { key: row.key, value: Some(row.value) });
        Self { rows: rows.collect(), more: page.stopped != Stopped::End }
    }
}

/// Size of a page of a [`RangeStream`], in bytes of keys and values.
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
