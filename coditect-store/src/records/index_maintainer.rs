//! Writes records with their index entries. The only file that writes index keys of entities.
//!
//! Each call reads and checks before its first write: a call that fails has written nothing, and
//! the transaction can continue.
//!
//! **Cost.** The catalog's epoch is read in the same round as the record and its unique values, so
//! it adds a read to the first write of a transaction, but no round trip.

use chrono::{DateTime, Utc};
use futures_util::future::{join, try_join_all, try_join3};

use super::{
    Revision, Transaction, Versioned, blob,
    catalog::{self, State},
};
use crate::{
    Blob, Error, ErrorKind, Result,
    engine::{self, AtomicOp, KeyValue},
    entity::{self, Encoded, Entity, EntitySchema, Entry, IndexKind, META},
    keyspace::{Root, Scope as _},
    telemetry,
};

pub(super) async fn insert<E: Entity>(tx: &Transaction, given: &E) -> Result<()> {
    let Encoded { key, bytes, record } = encode(tx, given)?;
    let values = unique_entries(tx, &record)?;
    require_lengths(tx.root(), E::SPACE.name(), &values)?;
    let keys = values.iter().map(|entry| entry.key.clone()).chain([key.clone()]);
    let _claim = tx.claim(keys.collect()).await;
    let maintenance = IndexMaintenance::of::<E>(tx, &key);
    let (maintenance, present, taken) =
        try_join3(maintenance, tx.engine.get(&key), find_unique_violation(tx, &values)).await?;
    let entries = maintenance.entries(tx, &record)?;
    require_lengths(tx.root(), E::SPACE.name(), &entries)?;
    if present.is_some() {
        let message = format!("a record of {} with this key exists", E::SPACE.name());
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    reject(taken)?;
    if let Some(tenant) = record.scope().tenant() {
        blob::take_over(tx, (tenant, &key), blobs_of(&record)).await?;
    }
    tx.engine.set(&key, &bytes);
    telemetry::written(E::SPACE.name(), bytes.len());
    write(&tx.engine, &entries);
    Ok(())
}

/// Replaces the record with the key of `record`, if its revision is `expected`.
pub(super) async fn update<E: Entity>(
    tx: &Transaction,
    record: &E,
    expected: Option<Revision>,
) -> Result<()> {
    let encoded = encode(tx, record)?;
    let _claim = tx.claim(vec![encoded.key.clone()]).await;
    let (before, maintenance) = read_for_write::<E>(tx, &encoded.key).await;
    let before = before?.ok_or_else(missing::<E>)?;
    require(&before, expected)?;
    let (maintenance, held) = (maintenance?, blobs_of(&*before));
    replace(tx, maintenance.entries(tx, &*before)?, held, &encoded, &maintenance).await
}

/// Writes `record`, replacing one with its key. It is read even if it has no index entries and no
/// blobs: a record of a newer version of the program is not overwritten.
pub(super) async fn upsert<E: Entity>(tx: &Transaction, record: &E) -> Result<()> {
    let encoded = encode(tx, record)?;
    let _claim = tx.claim(vec![encoded.key.clone()]).await;
    let (before, maintenance) = read_for_write::<E>(tx, &encoded.key).await;
    let (before, maintenance) = (before?, maintenance?);
    let held = before.as_deref().map_or(Vec::new(), blobs_of);
    let before = before.map_or(Ok(Vec::new()), |before| maintenance.entries(tx, &*before))?;
    replace(tx, before, held, &encoded, &maintenance).await
}

/// Writes `record` over `before`, the record with its key as this transaction has read it.
pub(super) async fn upsert_over<E: Entity>(
    tx: &Transaction,
    before: Option<&E>,
    record: &E,
) -> Result<()> {
    let encoded = encode(tx, record)?;
    let _claim = tx.claim(vec![encoded.key.clone()]).await;
    let maintenance = IndexMaintenance::of::<E>(tx, &encoded.key).await?;
    let held = before.map_or(Vec::new(), blobs_of);
    let before = before.map_or(Ok(Vec::new()), |before| maintenance.entries(tx, before))?;
    replace(tx, before, held, &encoded, &maintenance).await
}

/// Applies `change` to the record `key`, and returns the changed record.
pub(super) async fn modify<E: Entity>(
    tx: &Transaction,
    key: &[u8],
    change: impl FnOnce(&mut E),
) -> Result<E> {
    let _claim = tx.claim(vec![key.to_vec()]).await;
    let (before, maintenance) = read_for_write::<E>(tx, key).await;
    let mut record = before?.ok_or_else(missing::<E>)?.into_record();
    let maintenance = maintenance?;
    let (before, held) = (maintenance.entries(tx, &record)?, blobs_of(&record));
    change(&mut record);
    if tx.record_key::<E>(record.scope(), &record.key())? != key {
        let message = format!("cannot change the key of a record of {}", E::SPACE.name());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let encoded = encode(tx, &record)?;
    replace(tx, before, held, &encoded, &maintenance).await?;
    Ok(encoded.record)
}

/// Deletes the record `key`, if its revision is `expected`, and detaches its blobs at `detach_at`,
/// if given.
pub(super) async fn delete<E: Entity>(
    tx: &Transaction,
    key: &[u8],
    expected: Option<Revision>,
    detach_at: Option<DateTime<Utc>>,
) -> Result<Option<E>> {
    let _claim = tx.claim(vec![key.to_vec()]).await;
    let (before, maintenance) = read_for_write::<E>(tx, key).await;
    let Some(before) = before? else {
        return Ok(None);
    };
    require(&before, expected)?;
    let before = before.into_record();
    let entries = maintenance?.entries(tx, &before)?;
    if let (Some(now), Some(tenant)) = (detach_at, before.scope().tenant()) {
        blob::detach_all(tx, (tenant, key), blobs_of(&before), now).await?;
    }
    tx.engine.clear(key);
    clear(&tx.engine, &entries);
    Ok(Some(before))
}

/// Deletes the record or event of `entity` under `key`, if there is one, with its entries and
/// without detaching its blobs.
pub(super) async fn delete_row(tx: &Transaction, entity: &EntitySchema, key: &[u8]) -> Result<()> {
    let _claim = tx.claim(vec![key.to_vec()]).await;
    let maintenance = IndexMaintenance::load(tx, entity.space, entity.indexes(), key);
    let (maintenance, value) = join(maintenance, tx.engine.get(key)).await;
    let Some(value) = value? else { return Ok(()) };
    let (maintenance, row) = (maintenance?, KeyValue { key: key.to_vec(), value });
    let mut entries = (entity.entries)(tx.root(), &row)?;
    entries.retain(|entry| !maintenance.ahead.contains(&entry.index));
    tx.engine.clear(key);
    clear(&tx.engine, &maintenance.with_recounts(tx, entries));
    Ok(())
}

/// Encodes a record of a declared entity.
fn encode<E: Entity>(tx: &Transaction, record: &E) -> Result<Encoded<E>> {
    tx.context.schema.require::<E>()?;
    entity::encode_at(tx.root(), record)
}

/// Returns the blobs of a record.
fn blobs_of<E: Entity>(record: &E) -> Vec<Blob> {
    E::BLOBS.map_or(Vec::new(), |blobs| blobs(record))
}

/// Reads the record `key` and the catalog in one round. The caller decides whether an error of the
/// catalog matters.
async fn read_for_write<E: Entity>(
    tx: &Transaction,
    key: &[u8],
) -> (Result<Option<Versioned<E>>>, Result<IndexMaintenance>) {
    join(tx.read_versioned::<E>(key), IndexMaintenance::of::<E>(tx, key)).await
}

/// Returns the entries of `record` in unique indexes, which do not depend on index states.
fn unique_entries<E: Entity>(tx: &Transaction, record: &E) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for index in E::INDEXES.iter().filter(|index| index.kind() == IndexKind::Unique) {
        index.entries(tx.root(), record, &mut entries)?;
    }
    Ok(entries)
}

/// Replaces a record that has the entries `before` and the blobs `held`.
async fn replace<E: Entity>(
    tx: &Transaction,
    before: Vec<Entry>,
    mut held: Vec<Blob>,
    Encoded { key, bytes, record }: &Encoded<E>,
    maintenance: &IndexMaintenance,
) -> Result<()> {
    let diff = IndexDiff::between(before, maintenance.entries(tx, record)?);
    require_lengths(tx.root(), E::SPACE.name(), &diff.inserted)?;
    require_lengths(tx.root(), E::SPACE.name(), &diff.updated)?;
    let values = unique(&diff.inserted).map(|entry| entry.key.clone());
    let _claim = tx.claim(values.collect()).await;
    reject(find_unique_violation(tx, &diff.inserted).await?)?;
    if let (Some(_), Some(tenant)) = (E::BLOBS, record.scope().tenant()) {
        let mut holds = blobs_of(record);
        let is_new = |blob: &Blob| held.iter().all(|held| held.id != blob.id);
        let arriving = holds.extract_if(.., |blob| is_new(blob)).collect();
        held.retain(|blob| holds.iter().all(|kept| kept.id != blob.id));
        blob::take_over(tx, (tenant, key), arriving).await?;
        blob::detach_all(tx, (tenant, key), held, tx.context.clock.now()).await?;
    }
    tx.engine.set(key, bytes);
    telemetry::written(E::SPACE.name(), bytes.len());
    clear(&tx.engine, &diff.removed);
    write(&tx.engine, &diff.inserted);
    write(&tx.engine, &diff.updated);
    Ok(())
}

fn require<E: Entity>(stored: &Versioned<E>, expected: Option<Revision>) -> Result<()> {
    if expected.is_none_or(|revision| revision == stored.revision()) {
        return Ok(());
    }
    let message = format!("a record of {} has another revision", E::SPACE.name());
    Err(Error::new(ErrorKind::RevisionMismatch, message))
}

pub(super) fn missing<E: Entity>() -> Error {
    let message = format!("no record of {} with this key", E::SPACE.name());
    Error::new(ErrorKind::NotFound, message)
}

/// The changes to a record's entries by an update.
struct IndexDiff {
    /// Entries to clear.
    removed: Vec<Entry>,
    /// Entries with new keys.
    inserted: Vec<Entry>,
    /// Entries with a changed value.
    updated: Vec<Entry>,
}

impl IndexDiff {
    fn between(mut before: Vec<Entry>, after: Vec<Entry>) -> Self {
        let mut diff = Self { removed: Vec::new(), inserted: Vec::new(), updated: Vec::new() };
        for entry in after {
            match before.iter().position(|old| old.key == entry.key) {
                None => diff.inserted.push(entry),
                Some(at) if before.swap_remove(at).value != entry.value => {
                    diff.updated.push(entry);
                }
                Some(_) => {}
            }
        }
        diff.removed = before;
        diff
    }
}

/// The effect of index states on the entries of one record.
///
/// Setting an entry twice is harmless, so entries of most indexes are always written, before or
/// after the build reaches the record. A counting index must not count a record twice: writers
/// maintain its entries only for records behind the build's position. They read the position, so
/// they conflict with a build that moves it.
struct IndexMaintenance {
    /// Counting indexes whose build has not reached the record.
    ahead: Vec<&'static str>,
    /// Counting indexes whose recount has passed the record.
    recounted: Vec<&'static str>,
}

impl IndexMaintenance {
    async fn of<E: Entity>(tx: &Transaction, key: &[u8]) -> Result<Self> {
        let indexes = E::INDEXES.iter().map(|index| (index.name(), index.kind()));
        Self::load(tx, E::SPACE.name(), indexes, key).await
    }

    async fn load(
        tx: &Transaction,
        space: &'static str,
        indexes: impl Iterator<Item = (&'static str, IndexKind)>,
        key: &[u8],
    ) -> Result<Self> {
        let known = tx.known().await?;
        known.require_known(space)?;
        let mut maintenance = Self { ahead: Vec::new(), recounted: Vec::new() };
        for (name, kind) in indexes {
            if kind != IndexKind::Count || known.is_settled(name) {
                continue;
            }
            match catalog::read_state(&tx.engine, tx.root(), name).await? {
                State::WriteOnly(progress) if !progress.is_past(tx.root(), key) => {
                    maintenance.ahead.push(name);
                }
                State::Recount(progress) if progress.is_past(tx.root(), key) => {
                    maintenance.recounted.push(name);
                }
                State::Readable | State::WriteOnly(_) | State::Recount(_) => {}
            }
        }
        Ok(maintenance)
    }

    fn entries<E: Entity>(&self, tx: &Transaction, record: &E) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for index in E::INDEXES.iter().filter(|index| !self.ahead.contains(&index.name())) {
            index.entries(tx.root(), record, &mut entries)?;
        }
        Ok(self.with_recounts(tx, entries))
    }

    /// Adds the entries of recounts in progress.
    fn with_recounts(&self, tx: &Transaction, mut entries: Vec<Entry>) -> Vec<Entry> {
        let counted = entries.iter().filter(|entry| self.recounted.contains(&entry.index));
        let shadows: Vec<Entry> = counted.map(|entry| shadow(tx.root(), entry)).collect();
        entries.extend(shadows);
        entries
    }
}

/// Returns the recount entry that corresponds to `entry`.
pub(super) fn shadow(root: &Root, entry: &Entry) -> Entry {
    let group = entry.key.strip_prefix(root.as_bytes()).unwrap_or(&entry.key);
    Entry { key: [shadows(root, entry.index).as_slice(), group].concat(), ..entry.clone() }
}

/// Returns the prefix of the recount entries of `index`.
pub(super) fn shadows(root: &Root, index: &str) -> Vec<u8> {
    root.key(&(META.to_owned(), "recount".to_owned(), index.to_owned()))
}

/// Fails with `Limit` if an entry of a record of `space` exceeds the engine's limits. Entries of
/// counting indexes have a longer key during a recount.
pub(super) fn require_lengths(root: &Root, space: &str, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let shadows = shadows(root, entry.index);
        let is_counted = entry.kind == IndexKind::Count && !entry.key.starts_with(&shadows);
        let more = if is_counted { shadows.len() } else { 0 };
        entity::require_entry_lengths(entry, space, more)?;
    }
    Ok(())
}

/// Returns the entries of unique indexes.
pub(super) fn unique(entries: &[Entry]) -> impl Iterator<Item = &Entry> {
    entries.iter().filter(|entry| entry.kind == IndexKind::Unique)
}

/// Returns the index of the first unique entry whose value another record has. Reads concurrently,
/// with conflicts.
pub(super) async fn find_unique_violation(
    tx: &Transaction,
    entries: &[Entry],
) -> Result<Option<&'static str>> {
    let taken = try_join_all(unique(entries).map(async |entry| {
        let pointer = tx.engine.get(&entry.key).await?;
        Ok::<_, Error>(pointer.map(|_| entry.index))
    }));
    Ok(taken.await?.into_iter().flatten().next())
}

pub(super) fn reject(taken: Option<&'static str>) -> Result<()> {
    taken.map_or(Ok(()), |index| {
        let message = format!("another record has this value in unique index {index}");
        Err(Error::new(ErrorKind::UniqueViolation(index), message))
    })
}

pub(super) fn write(tx: &engine::Transaction, entries: &[Entry]) {
    for Entry { key, value, kind, .. } in entries {
        match kind {
            IndexKind::Unique | IndexKind::Multi | IndexKind::Covering => tx.set(key, value),
            IndexKind::Count => tx.atomic(AtomicOp::Add, key, &1_i64.to_le_bytes()),
        }
    }
}

/// Clears entries. A unique entry is cleared only if it still points to this record; a count that
/// becomes zero is cleared.
pub(super) fn clear(tx: &engine::Transaction, entries: &[Entry]) {
    for Entry { key, value, kind, .. } in entries {
        match kind {
            IndexKind::Unique => tx.atomic(AtomicOp::CompareAndClear, key, value),
            IndexKind::Multi | IndexKind::Covering => tx.clear(key),
            IndexKind::Count => {
                tx.atomic(AtomicOp::Add, key, &(-1_i64).to_le_bytes());
                tx.atomic(AtomicOp::CompareAndClear, key, &0_i64.to_le_bytes());
            }
        }
    }
}

/// Repairs a missing or wrong entry.
pub(super) fn put(tx: &engine::Transaction, key: &[u8], value: &[u8]) {
    tx.set(key, value);
}

/// Removes an entry without a record.
pub(super) fn remove(tx: &engine::Transaction, key: &[u8]) {
    tx.clear(key);
}
