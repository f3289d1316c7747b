//! Scans: reading many records, page by page.

use std::fmt;

use futures_util::future::try_join_all;

use super::{Cursor, Transaction, cursor};
use crate::{
    Error, ErrorKind, Result,
    engine::{self, KeyValue, Order, RangeQuery},
    entity::{Entity, Index, IndexOf as _, IndexType, ListIndexType, Schema},
    keyspace::{KeyRange, Root},
};

/// Maximum number of records in a page.
pub const MAX_PAGE_RECORDS: usize = 1_000;

/// Maximum number of rows examined for a page; a [filter](Scan::filter) may reject any of them.
pub const MAX_PAGE_EXAMINED: usize = 1_000;

/// Size of the examined records at which a page ends, in bytes.
pub const MAX_PAGE_BYTES: usize = 1 << 20;

/// Number of rows read together.
const BATCH: usize = 100;

/// A scan of records, index entries or events, created by [`Transaction::scan`],
/// [`Transaction::list`], [`Transaction::scan_index_only`], [`Transaction::scan_counts`],
/// [`Transaction::events`] and [`Transaction::scan_events`], read [page](Self::page) by page. It
/// can be reused.
#[must_use = "nothing is read until a page is asked for"]
pub struct Scan<'a, E: 'static> {
    tx: Transaction,
    source: Source<E>,
    prefix: Vec<u8>,
    range: KeyRange,
    order: Order,
    filters: Vec<Filter<'a, E>>,
    is_snapshot: bool,
}

/// The rows of a scan, and their conversion to items.
pub(super) struct Source<E: 'static> {
    index: Option<&'static str>,
    /// Whether the index has a build state, which is checked before it is read.
    has_state: bool,
    declared: fn(&Schema) -> Result<()>,
    rows: Rows<E>,
}

/// Converts a row to an item.
type Decode<E> = Box<dyn Fn(&Transaction, &KeyValue) -> Result<E> + Send + Sync>;

/// Returns the key that an index entry points to.
type Pointer = Box<dyn Fn(&Root, &KeyValue) -> Result<Vec<u8>> + Send + Sync>;

enum Rows<E: 'static> {
    /// The row is converted itself.
    Own(Decode<E>),
    /// The row is an entry of the named index, and points to the row that is converted.
    Pointers(&'static str, Pointer, Decode<E>),
}

impl<E: Entity> Source<E> {
    /// Returns a source of an entity's records.
    pub(super) fn records() -> Self {
        let decode: Decode<E> = Box::new(|tx, row| tx.decode(&row.key, &row.value));
        let rows = Rows::Own(decode);
        Self { index: None, has_state: false, declared: Schema::require::<E>, rows }
    }

    /// Returns a source of the records that an index points to.
    pub(super) fn pointers<K: ListIndexType>(index: &'static Index<E, K>) -> Self {
        let decode: Decode<E> = Box::new(|tx, row| tx.decode(&row.key, &row.value));
        let pointer: Pointer = Box::new(|root, entry| index.record_key(root, entry));
        let rows = Rows::Pointers(index.name(), pointer, decode);
        Self { index: Some(index.name()), has_state: true, declared: Schema::require::<E>, rows }
    }
}

impl<T> Source<T> {
    /// Returns a source of rows that `decode` converts, where `declared` checks the schema.
    pub(super) fn rows(
        declared: fn(&Schema) -> Result<()>,
        decode: impl Fn(&Transaction, &KeyValue) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let rows = Rows::Own(Box::new(decode));
        Self { index: None, has_state: false, declared, rows }
    }

    /// Returns a source of rows that entries of `index`, which has no build state, point to.
    pub(super) fn pointed_to(
        index: &'static str,
        declared: fn(&Schema) -> Result<()>,
        pointer: impl Fn(&Root, &KeyValue) -> Result<Vec<u8>> + Send + Sync + 'static,
        decode: impl Fn(&Transaction, &KeyValue) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let rows = Rows::Pointers(index, Box::new(pointer), Box::new(decode));
        Self { index: Some(index), has_state: false, declared, rows }
    }

    /// Returns a source of an index's entries.
    pub(super) fn entries<E: Entity, K: IndexType>(
        index: &'static Index<E, K>,
        decode: impl Fn(&Transaction, &KeyValue) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let rows = Rows::Own(Box::new(decode));
        Self { index: Some(index.name()), has_state: true, declared: Schema::require::<E>, rows }
    }
}

struct Filter<'a, E> {
    label: String,
    keep: Box<dyn Fn(&E) -> bool + Send + Sync + 'a>,
}

/// A page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<E> {
    /// The records, in scan order.
    pub items: Vec<E>,
    /// Cursor of the next page; `None` at the end of the scan.
    pub next: Option<Cursor>,
    /// Reason why the page ended.
    pub stopped: Stopped,
}

/// Reason why a page ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The scan has no more records.
    End,
    /// The page has the requested number of records.
    Rows,
    /// [`MAX_PAGE_EXAMINED`] rows were examined, and filters rejected some.
    Examined,
    /// The examined records reached [`MAX_PAGE_BYTES`].
    Bytes,
}

impl<'a, E> Scan<'a, E> {
    pub(super) fn new(
        tx: Transaction,
        source: Source<E>,
        prefix: Vec<u8>,
        range: KeyRange,
    ) -> Self {
        let (order, filters) = (Order::Ascending, Vec::new());
        Self { tx, source, prefix, range, order, filters, is_snapshot: false }
    }

    /// Reverses the order: largest keys first, which for ids is newest first.
    pub fn rev(self) -> Self {
        self.order(Order::Descending)
    }

    /// Sets the order of keys; ascending by default.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Reads the rows of the range without conflicts: later writes to it do not fail this
    /// transaction. Records that an index points to are still read with conflicts.
    pub fn snapshot(self) -> Self {
        Self { is_snapshot: true, ..self }
    }

    /// Keeps only records for which `keep` returns true. `label` identifies the filter
    /// (`"type=theia"`): a cursor is bound to the labels of its scan's filters.
    pub fn filter(
        mut self,
        label: impl Into<String>,
        keep: impl Fn(&E) -> bool + Send + Sync + 'a,
    ) -> Self {
        self.filters.push(Filter { label: label.into(), keep: Box::new(keep) });
        self
    }

    /// Reads the first `limit` records, or the next ones after the cursor of an earlier page.
    ///
    /// A page may have fewer records and still a [next](Page::next) cursor: its cost is bounded by
    /// [`MAX_PAGE_EXAMINED`] rows and [`MAX_PAGE_BYTES`], not by the length of the scan. Records
    /// that an index points to are read up to a hundred concurrently. A page with
    /// [filters](Self::filter) reads batches of a hundred rows regardless of `limit`, and its
    /// cursor is after the last row that the filters examined. The rows read and the gaps between
    /// them are read conflicts: a page that reaches the end of a stream conflicts with appends.
    ///
    /// # Errors
    ///
    /// `Invalid` if `limit` is not within 1 and [`MAX_PAGE_RECORDS`], if `after` belongs to another
    /// scan, or if this transaction has appended events within the range (1036); `Corrupt` if an
    /// index entry has no record; `IndexBuilding` if the index is not built.
    pub async fn page(&self, limit: usize, after: Option<&Cursor>) -> Result<Page<E>> {
        (self.source.declared)(&self.tx.context.schema)?;
        if !(1..=MAX_PAGE_RECORDS).contains(&limit) {
            let message = format!("the limit of a page must be between 1 and {MAX_PAGE_RECORDS}");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some(index) = self.source.index.filter(|_| self.source.has_state) {
            self.tx.require_readable(index).await?;
        }
        let binding = self.binding();
        let mut range = self.range.clone();
        if let Some(after) = after {
            range = after.rest(range, &self.prefix, self.order, binding)?;
        }

        let mut items = Vec::new();
        let mut examined = Examined::default();
        loop {
            // A filter may reject any row, so a filtered page reads whole batches.
            let wanted = if self.filters.is_empty() { limit - items.len() } else { BATCH };
            let want = wanted.min(BATCH).min(MAX_PAGE_EXAMINED - examined.rows);
            let mut batch = self.batch(range.clone(), want).await?;
            let mut last = None;
            for row in batch.rows {
                if examined.bytes >= MAX_PAGE_BYTES || items.len() == limit {
                    batch.more = true;
                    break;
                }
                examined.rows += 1;
                examined.bytes += row.bytes;
                last = Some(row.key);
                items.extend(Some(row.record).filter(|record| self.keeps(record)));
            }
            let Some(last) = last.filter(|_| batch.more) else {
                return Ok(Page { items, next: None, stopped: Stopped::End });
            };
            if let Some(stopped) = examined.stopped(items.len() == limit) {
                let next = Some(Cursor::behind(&last, &self.prefix, binding));
                return Ok(Page { items, next, stopped });
            }
            range = match self.order {
                Order::Ascending => range.after(last),
                Order::Descending => range.before(last),
            };
        }
    }

    /// Returns a cursor at the start of an ascending scan, for a list that continues with this scan
    /// after another one.
    pub fn start(&self) -> Cursor {
        Cursor::behind(&self.range.begin, &self.prefix, self.binding())
    }

    /// Returns whether `cursor` belongs to this scan.
    pub fn is_of(&self, cursor: &Cursor) -> bool {
        cursor.is_bound_to(self.binding())
    }

    fn binding(&self) -> cursor::Binding {
        let labels: Vec<&str> = self.filters.iter().map(|filter| filter.label.as_str()).collect();
        cursor::binding(&self.range, self.order, &labels)
    }

    /// Reads all records.
    ///
    /// # Errors
    ///
    /// `Limit` if there are more than `at_most`; errors of [`page`](Self::page).
    pub async fn all(&self, at_most: usize) -> Result<Vec<E>> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let page = self.page(MAX_PAGE_RECORDS, next.as_ref()).await?;
            all.extend(page.items);
            if all.len() > at_most {
                let message = format!("more than {at_most} records");
                return Err(Error::new(ErrorKind::Limit, message));
            }
            next = page.next;
            if next.is_none() {
                return Ok(all);
            }
        }
    }

    fn keeps(&self, record: &E) -> bool {
        self.filters.iter().all(|filter| (filter.keep)(record))
    }

    /// Reads the first `want` records of `range`, fewer if they are large.
    async fn batch(&self, range: KeyRange, want: usize) -> Result<Batch<E>> {
        // One more row shows whether there are more, so that no cursor leads to an empty page.
        let query = RangeQuery::new(range.begin, range.end)
            .order(self.order)
            .limit(want + 1)
            .target_bytes(MAX_PAGE_BYTES);
        let engine = &self.tx.engine;
        let mut page = if self.is_snapshot {
            engine.snapshot().get_range(&query).await?
        } else {
            engine.get_range(&query).await?
        };
        let more = page.rows.len() > want || page.stopped != engine::Stopped::End;
        page.rows.truncate(want);
        let rows = try_join_all(page.rows.into_iter().map(|row| self.row(row))).await?;
        Ok(Batch { rows, more })
    }

    async fn row(&self, read: KeyValue) -> Result<Row<E>> {
        let (record, bytes) = match &self.source.rows {
            Rows::Own(decode) => (decode(&self.tx, &read)?, read.value.len()),
            Rows::Pointers(index, pointer, decode) => {
                let key = pointer(self.tx.root(), &read)?;
                let record = self.tx.read_indexed(index, key).await?;
                (decode(&self.tx, &record)?, record.value.len())
            }
        };
        Ok(Row { key: read.key, record, bytes })
    }
}

/// Rows read together.
struct Batch<E> {
    rows: Vec<Row<E>>,
    /// Whether there may be more rows.
    more: bool,
}

/// A row of the scan, with its record.
struct Row<E> {
    key: Vec<u8>,
    record: E,
    /// Size of the record, in bytes.
    bytes: usize,
}

/// The rows examined for a page.
#[derive(Default)]
struct Examined {
    rows: usize,
    bytes: usize,
}

impl Examined {
    /// Returns the reason why the page ends here, if it does.
    fn stopped(&self, full: bool) -> Option<Stopped> {
        if full {
            Some(Stopped::Rows)
        } else if self.rows >= MAX_PAGE_EXAMINED {
            Some(Stopped::Examined)
        } else if self.bytes >= MAX_PAGE_BYTES {
            Some(Stopped::Bytes)
        } else {
            None
        }
    }
}

impl<E> fmt::Debug for Scan<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<&str> = self.filters.iter().map(|filter| filter.label.as_str()).collect();
        f.debug_struct("Scan")
            .field("index", &self.source.index)
            .field("order", &self.order)
            .field("filters", &labels)
            .finish_non_exhaustive()
    }
}
