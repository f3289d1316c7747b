//! Reading many records, page by page.

use std::fmt;

use futures_util::future::try_join_all;

use super::{Cursor, Transaction, cursor};
use crate::{
    Error, ErrorKind, Result,
    engine::{self, KeyValue, Order, RangeQuery},
    entity::{Entity, Index, IndexOf, Kind, ListKind, Registry},
    keyspace::KeyRange,
};

/// The most records that a page may hold.
pub const PAGE_LIMIT: usize = 1_000;

/// The most rows that are looked at for one page; a [filter](Scan::filter) may leave out any of
/// them.
pub const EXAMINED_LIMIT: usize = 1_000;

/// A page ends with the row at which the records looked at come to this many bytes.
pub const PAGE_BYTES: usize = 1 << 20;

/// Rows that are read together.
const BATCH: usize = 100;

/// A question for many records, or for what entries tell of them: made by [`Transaction::scan`],
/// [`Transaction::list`], [`Transaction::covered`] and [`Transaction::counts`], answered
/// [page](Self::page) by page. It reads nothing by itself, and can be asked again.
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

/// Where the rows of a scan come from, and what is made of them.
pub(super) struct Source<E: 'static> {
    index: Option<&'static str>,
    declared: fn(&Registry) -> Result<()>,
    rows: Rows<E>,
}

/// Reads a row as what is asked for.
type Decode<E> = Box<dyn Fn(&Transaction, &KeyValue) -> Result<E> + Send + Sync>;

enum Rows<E: 'static> {
    /// A row is what is asked for.
    Own(Decode<E>),
    /// A row points to the one that is.
    Pointers(&'static dyn IndexOf<E>, Decode<E>),
}

impl<E: Entity> Source<E> {
    /// The records themselves.
    pub(super) fn records() -> Self {
        let decode: Decode<E> = Box::new(|tx, row| tx.decode(&row.key, &row.value));
        Self { index: None, declared: Registry::require::<E>, rows: Rows::Own(decode) }
    }

    /// The records that an index leads to.
    pub(super) fn pointers<K: ListKind>(index: &'static Index<E, K>) -> Self {
        let decode: Decode<E> = Box::new(|tx, row| tx.decode(&row.key, &row.value));
        let rows = Rows::Pointers(index, decode);
        Self { index: Some(index.name()), declared: Registry::require::<E>, rows }
    }
}

impl<T> Source<T> {
    /// What `decode` makes of the entries of an index.
    pub(super) fn entries<E: Entity, K: Kind>(
        index: &'static Index<E, K>,
        decode: impl Fn(&Transaction, &KeyValue) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        let rows = Rows::Own(Box::new(decode));
        Self { index: Some(index.name()), declared: Registry::require::<E>, rows }
    }
}

struct Filter<'a, E> {
    label: String,
    keep: Box<dyn Fn(&E) -> bool + Send + Sync + 'a>,
}

/// Some of the records of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<E> {
    /// The records, in the order of the scan.
    pub items: Vec<E>,
    /// Where to go on; `None` exactly if there is no more.
    pub next: Option<Cursor>,
    /// Why there are no more records in this page.
    pub stopped: Stopped,
}

/// Why a page has no more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The scan has no more.
    End,
    /// It holds as many as were asked for.
    Rows,
    /// [`EXAMINED_LIMIT`] rows were looked at, and filters left some of them out.
    Examined,
    /// The records looked at came to [`PAGE_BYTES`].
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

    /// The other way round: the largest keys first, which with ids made in order is the newest.
    pub fn newest_first(self) -> Self {
        self.order(Order::Descending)
    }

    /// In the given order of keys; ascending if not said.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Reads the rows of the range without conflicts: a later write to it does not fail this
    /// transaction. Records that an index points to are read with conflicts all the same.
    pub fn snapshot(self) -> Self {
        Self { is_snapshot: true, ..self }
    }

    /// Only the records that `keep` holds true for, of those that earlier filters left. `label`
    /// says which they are (`"type=theia"`): a cursor holds for the filters whose labels it was
    /// made with.
    pub fn filter(
        mut self,
        label: impl Into<String>,
        keep: impl Fn(&E) -> bool + Send + Sync + 'a,
    ) -> Self {
        self.filters.push(Filter { label: label.into(), keep: Box::new(keep) });
        self
    }

    /// The first `limit` records, or the next ones behind a cursor that an earlier page gave.
    ///
    /// A page may hold fewer and still have a [next](Page::next) one: its cost is bounded by
    /// [`EXAMINED_LIMIT`] rows and [`PAGE_BYTES`], not by the length of the scan. Records that an
    /// index points to are read up to a hundred at once. A page with [filters](Self::filter) reads
    /// whole batches of a hundred rows, whatever `limit` is, and its cursor points behind the last
    /// row that the filters have seen. The rows that were read, and the gaps between them, are what
    /// conflicts.
    ///
    /// # Errors
    ///
    /// `Invalid` if `limit` is not within 1 and [`PAGE_LIMIT`], or `after` is of another scan;
    /// `Corrupt` if an index entry has no record; `IndexBuilding` if the index is not built.
    pub async fn page(&self, limit: usize, after: Option<&Cursor>) -> Result<Page<E>> {
        (self.source.declared)(&self.tx.context.registry)?;
        if !(1..=PAGE_LIMIT).contains(&limit) {
            let message = format!("a page holds between 1 and {PAGE_LIMIT} records");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some(index) = self.source.index {
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
            let want = wanted.min(BATCH).min(EXAMINED_LIMIT - examined.rows);
            let mut batch = self.batch(range.clone(), want).await?;
            let mut last = None;
            for row in batch.rows {
                if examined.bytes >= PAGE_BYTES || items.len() == limit {
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

    /// Returns the cursor that an ascending scan begins at, for a list that continues with this scan
    /// after another one.
    pub fn start(&self) -> Cursor {
        Cursor::behind(&self.range.begin, &self.prefix, self.binding())
    }

    /// Returns whether `cursor` is of this scan, rather than of another part of one list.
    pub fn is_of(&self, cursor: &Cursor) -> bool {
        cursor.is_bound_to(self.binding())
    }

    fn binding(&self) -> cursor::Binding {
        let labels: Vec<&str> = self.filters.iter().map(|filter| filter.label.as_str()).collect();
        cursor::binding(&self.range, self.order, &labels)
    }

    /// All records, in one go.
    ///
    /// # Errors
    ///
    /// `Limit` if they are more than `at_most`; and those of [`page`](Self::page).
    pub async fn all(&self, at_most: usize) -> Result<Vec<E>> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            let page = self.page(PAGE_LIMIT, next.as_ref()).await?;
            all.extend(page.items);
            if all.len() > at_most {
                let message = format!("there are more than {at_most} records");
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

    /// The first `want` records of `range`, fewer if they are large.
    async fn batch(&self, range: KeyRange, want: usize) -> Result<Batch<E>> {
        // One row more tells whether there is more, so that no cursor leads to nothing.
        let query = RangeQuery::new(range.begin, range.end)
            .order(self.order)
            .limit(want + 1)
            .target_bytes(PAGE_BYTES);
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
            Rows::Pointers(index, decode) => {
                let key = index.record_key(self.tx.root(), &read)?;
                let record = self.tx.read_indexed(index.name(), key).await?;
                (decode(&self.tx, &record)?, record.value.len())
            }
        };
        Ok(Row { key: read.key, record, bytes })
    }
}

/// Rows that were read together.
struct Batch<E> {
    rows: Vec<Row<E>>,
    /// Whether there may be more behind them.
    more: bool,
}

/// A row of the scan, and its record.
struct Row<E> {
    key: Vec<u8>,
    record: E,
    /// The size of the record.
    bytes: usize,
}

/// What has been looked at for a page.
#[derive(Default)]
struct Examined {
    rows: usize,
    bytes: usize,
}

impl Examined {
    /// Why the page ends here, if it does.
    fn stopped(&self, full: bool) -> Option<Stopped> {
        if full {
            Some(Stopped::Rows)
        } else if self.rows >= EXAMINED_LIMIT {
            Some(Stopped::Examined)
        } else if self.bytes >= PAGE_BYTES {
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
