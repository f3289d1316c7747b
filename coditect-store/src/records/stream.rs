//! Event streams in a transaction: append, read, update, remove. The only file that writes the
//! index keys of streams.
//!
//! An append reads the unique values and the catalog's epoch, and writes keys that the commit
//! completes with its versionstamp, so concurrent appends do not conflict. An appended event cannot
//! be read in its own transaction: its key is not known yet. Such a read, and any range read that
//! could include it, fails with `Invalid` (FoundationDB's 1036), and the transaction can no longer
//! commit.

use std::{borrow::Borrow, sync::atomic::Ordering};

use futures_util::future::try_join;

use super::{
    Scan, Transaction,
    index_maintainer::{find_unique_violation, reject, unique},
    scan::Source,
};
use crate::{
    Error, ErrorKind, Result,
    engine::{self, KeyValue},
    entity::{
        Encoded, Entry, EventStream, IndexKind, Mutable, POSITION_BYTES, Schema, StreamIndex,
        StreamIndexOf, StreamIndexType, Trimmed, Unique, decode_event_at, encode_event_at,
        event_key, require_entry_lengths,
    },
    keyspace::{KeyPart, KeyQuery, Position},
    telemetry,
};

/// An event of a stream, with its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<L> {
    /// Position in the stream.
    pub position: Position,
    /// The event.
    pub record: L,
}

/// A handle to an appended event, which has its position after the commit.
#[derive(Clone, Debug)]
pub struct AppendHandle {
    tx: engine::Transaction,
    order: u16,
}

impl AppendHandle {
    /// Returns the position of the event; `None` before the commit, and after an [unknown
    /// outcome](ErrorKind::MaybeCommitted), even if the transaction did commit. A unique index
    /// finds the event then.
    pub fn position(&self) -> Option<Position> {
        self.tx.versionstamp().map(|stamp| Position::new(stamp, self.order))
    }
}

impl Transaction {
    /// Appends an event to its stream, after all committed ones, and writes its index entries. One
    /// round of reads: its unique values, and once per transaction the catalog's epoch. Conflicts
    /// with writers of the same unique values and with readers of the end of the stream, not with
    /// other appends.
    ///
    /// The event cannot be read in this transaction: a read that could include it fails with
    /// `Invalid` (1036), and so does an append with the same unique value; the commit fails then.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` with the index's name if another event has one of its unique values; this
    /// call writes nothing then, and the transaction can continue. `Limit` after 65,536 appends.
    pub async fn append<L: EventStream>(&self, record: &L) -> Result<AppendHandle> {
        let Encoded { key: prefix, bytes, record } = encode_event_at(self.root(), record)?;
        let entries = entries(self, &record);
        require_lengths::<L>(&entries)?;
        let _claim = self.claim(unique(&entries).map(|entry| entry.key.clone()).collect()).await;
        let taken = find_unique_violation(self, &entries);
        let ((), taken) = try_join(self.require_writable::<L>(), taken).await?;
        reject(taken)?;
        let order = self.progress.appended.fetch_add(1, Ordering::Relaxed);
        let Ok(order) = u16::try_from(order) else {
            return Err(Error::new(ErrorKind::Limit, "a transaction can append 65,536 events"));
        };
        if order == 0 {
            self.raise_high_water();
        }
        Target::Next(order).write_key(self, prefix, &bytes);
        telemetry::written(L::SPACE.name(), bytes.len());
        for entry in entries {
            Target::Next(order).write_entry(self, entry);
        }
        Ok(AppendHandle { tx: self.engine.clone(), order })
    }

    /// Fails if the stream is not declared, or has an index that this program does not declare. One
    /// read per transaction.
    async fn require_writable<L: EventStream>(&self) -> Result<()> {
        self.context.schema.require_stream::<L>()?;
        self.known().await?.require_known(L::SPACE.name())
    }

    /// Returns the event at `position` of `stream`, or `None`. One read.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if the event cannot be decoded.
    pub async fn get_event<L: EventStream>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        self.context.schema.require_stream::<L>()?;
        let key = event_key::<L>(self.root(), scope, stream.borrow(), position);
        Ok(read(self, &key).await?.map(|event| event.record))
    }

    /// Returns the event with `value` in a unique index, or `None`. Two sequential reads.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the entry has no event.
    pub async fn find_event<L: EventStream, V: KeyPart>(
        &self,
        index: &StreamIndex<L, Unique<V>>,
        scope: L::Scope,
        value: impl Borrow<V>,
    ) -> Result<Option<Event<L>>> {
        self.context.schema.require_stream::<L>()?;
        let mut key = index.prefix(self.root(), scope);
        value.borrow().pack(&mut key);
        let Some(value) = self.engine.get(&key).await? else {
            return Ok(None);
        };
        let event = index.record_key(self.root(), &KeyValue { key, value })?;
        let event = self.read_indexed(index.name(), event).await?;
        decode(self, &event).map(Some)
    }

    /// Scans the events of `stream` at the selected positions, in commit order: `..` for all,
    /// `position..` for the ones from there on. Reads nothing until a [page](Scan::page) is
    /// requested.
    pub fn events<'a, L: EventStream>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        positions: impl KeyQuery<Position>,
    ) -> Scan<'a, Event<L>> {
        let prefix = L::SPACE.key(self.root(), scope, stream.borrow());
        let range = positions.keys(&prefix);
        Scan::new(
            self.clone(),
            Source::rows(Schema::require_stream::<L>, decode::<L>),
            prefix,
            range,
        )
    }

    /// Scans the events with the selected values in an index, by value, then in commit order.
    /// `values` is a value, a range, `..`, or the leading parts of a composite: see [`KeyQuery`].
    /// Reads nothing until a [page](Scan::page) is requested.
    pub fn scan_events<'a, L: EventStream, K: StreamIndexType>(
        &self,
        index: &'static StreamIndex<L, K>,
        scope: L::Scope,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, Event<L>> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        let source = Source::pointed_to(
            index.name(),
            Schema::require_stream::<L>,
            |root, entry| index.record_key(root, entry),
            decode::<L>,
        );
        Scan::new(self.clone(), source, prefix, range)
    }

    /// Replaces the event at `position` of its stream, and updates its index entries. Two rounds of
    /// reads: the event, and each new unique value.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no event at that position, `UniqueViolation` with the index's name if
    /// another event has one of its unique values. This call writes nothing then, and the
    /// transaction can continue.
    pub async fn update_event<L: Mutable>(&self, position: Position, record: &L) -> Result<()> {
        let Encoded { mut key, bytes, record } = encode_event_at(self.root(), record)?;
        position.pack(&mut key);
        let _record = self.claim(vec![key.clone()]).await;
        let before = read::<L>(self, &key);
        let ((), before) = try_join(self.require_writable::<L>(), before).await?;
        let Some(before) = before else {
            let message = format!("no event of {} at this position", L::SPACE.name());
            return Err(Error::new(ErrorKind::NotFound, message));
        };
        let (before, mut after) = (entries(self, &before.record), entries(self, &record));
        let leaving: Vec<Entry> =
            before.iter().filter(|entry| !after.contains(entry)).cloned().collect();
        after.retain(|entry| !before.contains(entry));
        require_lengths::<L>(&after)?;
        let _values = self.claim(unique(&after).map(|entry| entry.key.clone()).collect()).await;
        reject(find_unique_violation(self, &after).await?)?;
        let target = Target::At(position);
        for entry in leaving {
            target.clear_entry(self, entry);
        }
        self.engine.set(&key, &bytes);
        telemetry::written(L::SPACE.name(), bytes.len());
        for entry in after {
            target.write_entry(self, entry);
        }
        Ok(())
    }

    /// Removes the event at `position` of `stream` with its index entries, and returns it; `None`
    /// if there was none. One read.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if the event cannot be decoded: its entries are unknown.
    pub async fn remove_event<L: Mutable>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        let key = event_key::<L>(self.root(), scope, stream.borrow(), position);
        let key = key.as_slice();
        let _claim = self.claim(vec![key.to_vec()]).await;
        let removed = read::<L>(self, key);
        let ((), removed) = try_join(self.require_writable::<L>(), removed).await?;
        let Some(Event { position, record }) = removed else {
            return Ok(None);
        };
        self.engine.clear(key);
        for entry in entries(self, &record) {
            Target::At(position).clear_entry(self, entry);
        }
        Ok(Some(record))
    }

    /// Removes the oldest events of `stream` with their index entries, up to `limit` and to the
    /// first that `is_removed` rejects, and returns their number. One range read, which may return
    /// fewer than `limit`.
    ///
    /// # Errors
    ///
    /// Errors of [`Scan::page`].
    pub async fn trim<L: Trimmed>(
        &self,
        scope: L::Scope,
        stream: impl Borrow<L::Stream>,
        (limit, is_removed): (usize, impl Fn(&L) -> bool),
    ) -> Result<usize> {
        self.require_writable::<L>().await?;
        let oldest = self.events::<L>(scope, stream.borrow(), ..).page(limit, None).await?.items;
        let mut removed = 0;
        for Event { position, record } in oldest.iter().take_while(|it| is_removed(&it.record)) {
            self.engine.clear(&event_key::<L>(self.root(), scope, stream.borrow(), *position));
            for entry in entries(self, record) {
                Target::At(*position).clear_entry(self, entry);
            }
            removed += 1;
        }
        Ok(removed)
    }
}

/// The position at which an event is written.
#[derive(Clone, Copy)]
enum Target {
    /// Assigned by the commit; the number of earlier appends of this transaction.
    Next(u16),
    /// A known position.
    At(Position),
}

impl Target {
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
        if entry.kind != IndexKind::Unique {
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

    /// Clears an entry at a known position.
    fn clear_entry(self, tx: &Transaction, mut entry: Entry) {
        if let (Self::At(position), false) = (self, entry.kind == IndexKind::Unique) {
            position.pack(&mut entry.key);
        }
        tx.engine.clear(&entry.key);
    }
}

fn entries<L: EventStream>(tx: &Transaction, record: &L) -> Vec<Entry> {
    L::INDEXES.iter().filter_map(|index| index.entry(tx.root(), record)).collect()
}

/// Fails with `Limit` if an entry exceeds the engine's limits, with the position in its key or
/// value.
fn require_lengths<L: EventStream>(entries: &[Entry]) -> Result<()> {
    entries.iter().try_for_each(|entry| {
        let more = if entry.kind == IndexKind::Unique { 0 } else { POSITION_BYTES };
        require_entry_lengths(entry, L::SPACE.name(), more)
    })
}

/// Reads the event at `key`.
async fn read<L: EventStream>(tx: &Transaction, key: &[u8]) -> Result<Option<Event<L>>> {
    let Some(value) = tx.engine.get(key).await? else {
        return Ok(None);
    };
    decode(tx, &KeyValue { key: key.to_vec(), value }).map(Some)
}

/// Decodes the event in a row.
fn decode<L: EventStream>(tx: &Transaction, row: &KeyValue) -> Result<Event<L>> {
    telemetry::read(L::SPACE.name(), row.value.len());
    let (position, record) = decode_event_at(tx.root(), &row.key, &row.value)?;
    Ok(Event { position, record })
}
