//! Logs in a transaction: append, read both ways, amend. The only file that writes the index keys
//! of logs.
//!
//! An append reads nothing but unique values and the epoch of the declarations, and writes keys that the commit completes: two who
//! append to one stream never conflict. What it wrote cannot be read before the commit, since
//! nobody knows yet where it lies: asking for it in the same transaction is `Invalid`
//! (FoundationDB's 1036), and so is every range that it may come to lie in. A transaction that has
//! asked so does not commit any more.

use std::{borrow::Borrow, fmt, sync::atomic::Ordering};

use futures_util::future::{try_join, try_join_all};

use super::{Cursor, EXAMINED_LIMIT, PAGE_BYTES, PAGE_LIMIT, Page, Stopped, Transaction, cursor};
use crate::{
    Error, ErrorKind, Result,
    engine::{self, KeyValue, Order, RangeQuery},
    entity::{
        Amendable, Encoded, Entry, Form, Log, LogIndex, LogIndexOf, LogKind, POSITION_BYTES,
        Trimmed, Unique, decode_logged_at, encode_logged_at, logged_key, require_entry_lengths,
    },
    keyspace::{KeyPart, KeyRange, Position, Select},
    telemetry,
};

/// Rows that are read together.
const BATCH: usize = 100;

/// A record of a log, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged<L> {
    /// Where it is.
    pub position: Position,
    /// The record.
    pub record: L,
}

/// A record that a transaction has appended. Once that is committed it tells where.
#[derive(Clone, Debug)]
pub struct Appended {
    tx: engine::Transaction,
    order: u16,
}

impl Appended {
    /// Where the record is; `None` before the commit, and where its outcome was
    /// [unknown](ErrorKind::MaybeCommitted), even if it turned out to be written: then a unique
    /// value finds it.
    pub fn position(&self) -> Option<Position> {
        self.tx.versionstamp().map(|stamp| Position::new(stamp, self.order))
    }
}

impl Transaction {
    /// Appends a record to its stream, behind all that were committed before, and writes its index
    /// entries. One round of reads: its unique values (and, once in a transaction, the epoch of the
    /// declarations). It conflicts with who takes one of those,
    /// with who reads the end of the stream, and not with others who append.
    ///
    /// It cannot be read in this transaction: reading where it may come to lie is `Invalid`
    /// (1036), so is appending another with the same unique value, and so is the commit then.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` with the name of the index if another record has one of its unique values; nothing
    /// of this call is written then, and the transaction can go on. `Limit` if the transaction has
    /// appended 65,536 before.
    pub async fn append<L: Log>(&self, record: &L) -> Result<Appended> {
        let Encoded { key: prefix, bytes, record } = encode_logged_at(self.root(), record)?;
        let entries = entries(self, &record);
        require_lengths::<L>(&entries)?;
        let _claim = self.claim(unique(&entries).map(|entry| entry.key.clone()).collect()).await;
        let taken = first_taken(self, &entries);
        let ((), taken) = try_join(self.require_writable::<L>(), taken).await?;
        refuse(taken)?;
        let order = self.progress.appended.fetch_add(1, Ordering::Relaxed);
        let Ok(order) = u16::try_from(order) else {
            return Err(Error::new(
                ErrorKind::Limit,
                "a transaction appends 65,536 records at most",
            ));
        };
        if order == 0 {
            self.raise_high_water();
        }
        Place::Next(order).write_key(self, prefix, &bytes);
        telemetry::written(L::SPACE.name(), bytes.len());
        for entry in entries {
            Place::Next(order).write_entry(self, entry);
        }
        Ok(Appended { tx: self.engine.clone(), order })
    }

    /// Refuses a log that was not declared, or of which another program has an index that this one
    /// does not know. One read in each transaction.
    async fn require_writable<L: Log>(&self) -> Result<()> {
        self.context.registry.require_log::<L>()?;
        self.known().await?.require_known(L::SPACE.name())
    }

    /// The record at `position` of `stream`, or `None`. One read.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if there is one that this program cannot read.
    pub async fn logged<L: Log>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        self.context.registry.require_log::<L>()?;
        let key = logged_key::<L>(self.root(), scope, stream.borrow(), position);
        Ok(read(self, &key).await?.map(|(logged, _)| logged.record))
    }

    /// The record of a log that has `value` in a unique index, or `None`. Two reads, one after the
    /// other.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the index has an entry without its record.
    pub async fn find_logged<L: Log, V: KeyPart>(
        &self,
        index: &LogIndex<L, Unique<V>>,
        scope: L::Scope,
        value: impl Borrow<V>,
    ) -> Result<Option<Logged<L>>> {
        self.context.registry.require_log::<L>()?;
        let mut key = index.prefix(self.root(), scope);
        value.borrow().pack(&mut key);
        let Some(value) = self.engine.get(&key).await? else {
            return Ok(None);
        };
        let (logged, _) = read_indexed(self, index, &KeyValue { key, value }).await?;
        Ok(Some(logged))
    }

    /// The records of `stream` at the positions that `positions` selects, in the order of their
    /// commits: `..` for all, `position..` for those from there on.
    ///
    /// Nothing is read until a [page](LogScan::page) is asked for.
    pub fn log<'a, L: Log>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        positions: impl Select<Position>,
    ) -> LogScan<'a, L> {
        let prefix = L::SPACE.key(self.root(), scope, stream.borrow());
        let range = positions.keys(&prefix);
        LogScan::new(self, None, prefix, range)
    }

    /// The records that `values` selects in an index of a log: by value, then in the order of
    /// their commits. `values` is a value, a range of them, `..`, or the first parts of a
    /// composite: see [`Select`].
    ///
    /// Nothing is read until a [page](LogScan::page) is asked for.
    pub fn scan_log<'a, L: Log, K: LogKind>(
        &self,
        index: &'static LogIndex<L, K>,
        scope: L::Scope,
        values: impl Select<K::Value>,
    ) -> LogScan<'a, L> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        LogScan::new(self, Some(index), prefix, range)
    }

    /// Writes a record over the one at `position` of its stream, and moves its index entries to
    /// where its values are now. Two rounds of reads: the record, and each unique value that is new.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no record at that position, `UniqueViolation` with the name of the index if
    /// another record has one of its unique values. Nothing of this call is written then, and the
    /// transaction can go on.
    pub async fn amend<L: Amendable>(&self, position: Position, record: &L) -> Result<()> {
        let Encoded { mut key, bytes, record } = encode_logged_at(self.root(), record)?;
        position.pack(&mut key);
        let _record = self.claim(vec![key.clone()]).await;
        let before = read::<L>(self, &key);
        let ((), before) = try_join(self.require_writable::<L>(), before).await?;
        let Some((before, _)) = before else {
            let message = format!("there is no record of {} at this position", L::SPACE.name());
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let (before, mut after) = (entries(self, &before.record), entries(self, &record));
        let leaving: Vec<Entry> =
            before.iter().filter(|entry| !after.contains(entry)).cloned().collect();
        after.retain(|entry| !before.contains(entry));
        require_lengths::<L>(&after)?;
        let _values = self.claim(unique(&after).map(|entry| entry.key.clone()).collect()).await;
        refuse(first_taken(self, &after).await?)?;
        let place = Place::At(position);
        for entry in leaving {
            place.clear_entry(self, entry);
        }
        self.engine.set(&key, &bytes);
        telemetry::written(L::SPACE.name(), bytes.len());
        for entry in after {
            place.write_entry(self, entry);
        }
        Ok(())
    }

    /// Takes the record at `position` of `stream` out, with its index entries, and gives it;
    /// `None` if there was none. One read.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if there is one that this program cannot read: its entries
    /// cannot be known.
    pub async fn take_out<L: Amendable>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        let key = logged_key::<L>(self.root(), scope, stream.borrow(), position);
        self.delete_logged_at_key(&key).await
    }

    /// Removes the oldest records of `stream` with their index entries, up to `limit` and to the
    /// first that `is_removed` refuses, and returns their number. One range read, which may hold
    /// fewer than `limit`.
    ///
    /// # Errors
    ///
    /// Those of [`LogScan::page`].
    pub async fn trim<L: Trimmed>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        (limit, is_removed): (usize, impl Fn(&L) -> bool),
    ) -> Result<usize> {
        self.require_writable::<L>().await?;
        let oldest = self.log::<L>(scope, stream.borrow(), ..).page(limit, None).await?.items;
        let mut removed = 0;
        for Logged { position, record } in oldest.iter().take_while(|it| is_removed(&it.record)) {
            self.engine.clear(&logged_key::<L>(self.root(), scope, stream.borrow(), *position));
            for entry in entries(self, record) {
                Place::At(*position).clear_entry(self, entry);
            }
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes the record of `L` under `key` with its entries, if there is one.
    pub(crate) async fn delete_logged_at_key<L: Log>(&self, key: &[u8]) -> Result<Option<L>> {
        let _claim = self.claim(vec![key.to_vec()]).await;
        let removed = read::<L>(self, key);
        let ((), removed) = try_join(self.require_writable::<L>(), removed).await?;
        let Some((Logged { position, record }, _)) = removed else {
            return Ok(None);
        };
        self.engine.clear(key);
        for entry in entries(self, &record) {
            Place::At(position).clear_entry(self, entry);
        }
        Ok(Some(record))
    }
}

/// Where a record of a log is written.
#[derive(Clone, Copy)]
enum Place {
    /// Where the commit puts it, behind so many others that this transaction has appended.
    Next(u16),
    /// Where it is.
    At(Position),
}

impl Place {
    /// Sets `prefix` ‖ position.
    fn write_key(self, tx: &Transaction, mut prefix: Vec<u8>, value: &[u8]) {
        match self {
            Self::Next(order) => {
                prefix.push(Position::CODE);
                tx.engine.set_versionstamped_key(&prefix, &order.to_be_bytes(), value);
            }
            Self::At(position) => {
                position.pack(&mut prefix);
                tx.engine.set(&prefix, value);
            }
        }
    }

    fn write_entry(self, tx: &Transaction, mut entry: Entry) {
        if entry.form != Form::Unique {
            return self.write_key(tx, entry.key, &entry.value);
        }
        match self {
            Self::Next(order) => {
                entry.value.push(Position::CODE);
                let order = order.to_be_bytes();
                tx.engine.set_versionstamped_value(&entry.key, &entry.value, &order);
            }
            Self::At(position) => {
                position.pack(&mut entry.value);
                tx.engine.set(&entry.key, &entry.value);
            }
        }
    }

    /// Clears what is at a position; what is none yet cannot be.
    fn clear_entry(self, tx: &Transaction, mut entry: Entry) {
        if let (Self::At(position), false) = (self, entry.form == Form::Unique) {
            position.pack(&mut entry.key);
        }
        tx.engine.clear(&entry.key);
    }
}

fn entries<L: Log>(tx: &Transaction, record: &L) -> Vec<Entry> {
    L::INDEXES.iter().filter_map(|index| index.entry(tx.root(), record)).collect()
}

/// Refuses entries that are longer than an engine takes. The position follows the key, or the value of
/// a unique one.
fn require_lengths<L: Log>(entries: &[Entry]) -> Result<()> {
    entries.iter().try_for_each(|entry| {
        let more = if entry.form == Form::Unique { 0 } else { POSITION_BYTES };
        require_entry_lengths(entry, L::SPACE.name(), more)
    })
}

/// Those of `entries` whose values are each of one record at most.
fn unique(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| entry.form == Form::Unique)
}

/// The first of the unique `entries` whose value another record has. The reads run together, and
/// conflict with whoever takes or leaves the value meanwhile.
async fn first_taken(tx: &Transaction, entries: &[Entry]) -> Result<Option<&'static str>> {
    let taken = try_join_all(unique(entries).map(async |entry| {
        let pointer = tx.engine.get(&entry.key).await?;
        Ok::<_, Error>(pointer.map(|_| entry.index))
    }));
    Ok(taken.await?.into_iter().flatten().next())
}

fn refuse(taken: Option<&'static str>) -> Result<()> {
    taken.map_or(Ok(()), |index| {
        let message = format!("another record has this value in index {index}");
        Err(Error::new(ErrorKind::UniqueViolation(index), message))
    })
}

/// The record at `key`, and how many bytes it is.
async fn read<L: Log>(tx: &Transaction, key: &[u8]) -> Result<Option<(Logged<L>, usize)>> {
    let Some(bytes) = tx.engine.get(key).await? else {
        return Ok(None);
    };
    Ok(Some((decode(tx, key, &bytes)?, bytes.len())))
}

/// The record that an entry of `index` points to, and how many bytes it is.
async fn read_indexed<L: Log>(
    tx: &Transaction,
    index: &dyn LogIndexOf<L>,
    entry: &KeyValue,
) -> Result<(Logged<L>, usize)> {
    let key = index.record_key(tx.root(), entry)?;
    read(tx, &key).await?.ok_or_else(|| {
        let message = format!("index {} has an entry without its record", index.name());
        Error::new(ErrorKind::Corrupt, message)
    })
}

fn decode<L: Log>(tx: &Transaction, key: &[u8], bytes: &[u8]) -> Result<Logged<L>> {
    telemetry::read(L::SPACE.name(), bytes.len());
    let (position, record) = decode_logged_at(tx.root(), key, bytes)?;
    Ok(Logged { position, record })
}

/// A question for many records of a log: made by [`Transaction::log`] and
/// [`Transaction::scan_log`], answered [page](Self::page) by page. It reads nothing by itself, and
/// can be asked again.
#[must_use = "nothing is read until a page is asked for"]
pub struct LogScan<'a, L: 'static> {
    tx: Transaction,
    index: Option<&'static dyn LogIndexOf<L>>,
    prefix: Vec<u8>,
    range: KeyRange,
    order: Order,
    filters: Vec<Filter<'a, L>>,
}

struct Filter<'a, L> {
    label: String,
    keep: Box<dyn Fn(&L) -> bool + Send + Sync + 'a>,
}

impl<'a, L: Log> LogScan<'a, L> {
    fn new(
        tx: &Transaction,
        index: Option<&'static dyn LogIndexOf<L>>,
        prefix: Vec<u8>,
        range: KeyRange,
    ) -> Self {
        Self { tx: tx.clone(), index, prefix, range, order: Order::Ascending, filters: Vec::new() }
    }

    /// The other way round: what was committed last comes first.
    pub fn newest_first(self) -> Self {
        self.order(Order::Descending)
    }

    /// In the given order; that of the commits if not said.
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Only the records that `keep` holds true for, of those that earlier filters left. `label`
    /// says which they are: a cursor holds for the filters whose labels it was made with.
    pub fn filter(
        mut self,
        label: impl Into<String>,
        keep: impl Fn(&L) -> bool + Send + Sync + 'a,
    ) -> Self {
        self.filters.push(Filter { label: label.into(), keep: Box::new(keep) });
        self
    }

    /// The first `limit` records, or the next ones behind a cursor that an earlier page gave. What
    /// is appended meanwhile comes behind all that was there: an older cursor leads to it if it
    /// goes forward, and past it if it goes back.
    ///
    /// A page may hold fewer and still have a [next](Page::next) one: its cost is bounded by
    /// [`EXAMINED_LIMIT`] rows and [`PAGE_BYTES`]. A page with [filters](Self::filter) reads whole
    /// batches of a hundred rows, whatever `limit` is, and its cursor points behind the last row
    /// that the filters have seen. The rows that were read, and the gaps between them, are what
    /// conflicts: a page that reaches the end of a stream conflicts with an append to it.
    ///
    /// # Errors
    ///
    /// `Invalid` if `limit` is not within 1 and [`PAGE_LIMIT`], if `after` is of another scan, or
    /// if this transaction has appended where it reads (1036); `Corrupt` if an index entry has no
    /// record.
    pub async fn page(&self, limit: usize, after: Option<&Cursor>) -> Result<Page<Logged<L>>> {
        self.tx.context.registry.require_log::<L>()?;
        if !(1..=PAGE_LIMIT).contains(&limit) {
            let message = format!("a page holds between 1 and {PAGE_LIMIT} records");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let labels: Vec<&str> = self.filters.iter().map(|filter| filter.label.as_str()).collect();
        let binding = cursor::binding(&self.range, self.order, &labels);
        let mut range = self.range.clone();
        if let Some(after) = after {
            range = after.rest(range, &self.prefix, self.order, binding)?;
        }

        let (mut items, mut rows, mut bytes) = (Vec::new(), 0, 0);
        loop {
            // A filter may reject any row, so a filtered page reads whole batches.
            let wanted = if self.filters.is_empty() { limit - items.len() } else { BATCH };
            let want = wanted.min(BATCH).min(EXAMINED_LIMIT - rows);
            let mut batch = self.batch(range.clone(), want).await?;
            let mut last = None;
            for row in batch.rows {
                if bytes >= PAGE_BYTES || items.len() == limit {
                    batch.more = true;
                    break;
                }
                rows += 1;
                bytes += row.bytes;
                last = Some(row.key);
                let kept = self.filters.iter().all(|filter| (filter.keep)(&row.logged.record));
                items.extend(Some(row.logged).filter(|_| kept));
            }
            let Some(last) = last.filter(|_| batch.more) else {
                return Ok(Page { items, next: None, stopped: Stopped::End });
            };
            let stopped = if items.len() == limit {
                Some(Stopped::Rows)
            } else if rows >= EXAMINED_LIMIT {
                Some(Stopped::Examined)
            } else {
                (bytes >= PAGE_BYTES).then_some(Stopped::Bytes)
            };
            if let Some(stopped) = stopped {
                let next = Some(Cursor::behind(&last, &self.prefix, binding));
                return Ok(Page { items, next, stopped });
            }
            range = match self.order {
                Order::Ascending => range.after(last),
                Order::Descending => range.before(last),
            };
        }
    }

    /// The first `want` records of `range`, fewer if they are large.
    async fn batch(&self, range: KeyRange, want: usize) -> Result<Batch<L>> {
        // One row more tells whether there is more, so that no cursor leads to nothing.
        let query = RangeQuery::new(range.begin, range.end)
            .order(self.order)
            .limit(want + 1)
            .target_bytes(PAGE_BYTES);
        let mut page = self.tx.engine.get_range(&query).await?;
        let more = page.rows.len() > want || page.stopped != engine::Stopped::End;
        page.rows.truncate(want);
        let rows = try_join_all(page.rows.into_iter().map(|row| self.row(row))).await?;
        Ok(Batch { rows, more })
    }

    async fn row(&self, read: KeyValue) -> Result<Row<L>> {
        let (logged, bytes) = match self.index {
            None => (decode(&self.tx, &read.key, &read.value)?, read.value.len()),
            Some(index) => read_indexed(&self.tx, index, &read).await?,
        };
        Ok(Row { key: read.key, logged, bytes })
    }
}

/// Rows that were read together.
struct Batch<L> {
    rows: Vec<Row<L>>,
    /// Whether there may be more behind them.
    more: bool,
}

/// A row of the scan, and its record.
struct Row<L> {
    key: Vec<u8>,
    logged: Logged<L>,
    /// The size of the record.
    bytes: usize,
}

impl<L> fmt::Debug for LogScan<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Vec<&str> = self.filters.iter().map(|filter| filter.label.as_str()).collect();
        f.debug_struct("LogScan")
            .field("index", &self.index.map(LogIndexOf::name))
            .field("order", &self.order)
            .field("filters", &labels)
            .finish_non_exhaustive()
    }
}
