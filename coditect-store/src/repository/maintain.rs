//! Writing records with their index entries. The only file that writes index keys.
//!
//! All reads and checks of a call come before its first write, so that one that fails has written
//! nothing and the transaction can go on.
//!
//! **Cost.** The epoch of the declarations is read in the same round as the record and its unique
//! values, so it adds a read to the first write of a transaction but no round trip.

use chrono::{DateTime, Utc};
use futures_util::future::{join, try_join_all, try_join3};

use super::{
    Revision, Stored, Transaction, blob,
    catalog::{self, State},
};
use crate::{
    Blob, Error, ErrorKind, Result,
    engine::{self, AtomicOp},
    entity::{self, Encoded, Entity, Entry, Form, META},
    keyspace::{Root, Scope as _},
    telemetry,
};

pub(super) async fn create<E: Entity>(tx: &Transaction, given: &E) -> Result<()> {
    let Encoded { key, bytes, record } = encode(tx, given)?;
    let values = unique_entries(tx, &record)?;
    require_lengths(tx.root(), E::SPACE.name(), &values)?;
    let keys = values.iter().map(|entry| entry.key.clone()).chain([key.clone()]);
    let _claim = tx.claim(keys.collect()).await;
    let upkeep = Upkeep::of::<E>(tx, &key);
    let (upkeep, present, taken) =
        try_join3(upkeep, tx.engine.get(&key), first_taken(tx, &values)).await?;
    let entries = upkeep.entries(tx, &record)?;
    require_lengths(tx.root(), E::SPACE.name(), &entries)?;
    if present.is_some() {
        let message = format!("there is a record of {} with this key", E::SPACE.name());
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    refuse(taken)?;
    if let Some(tenant) = record.scope().tenant() {
        blob::take_over(tx, (tenant, &key), blobs_of(&record)).await?;
    }
    tx.engine.set(&key, &bytes);
    telemetry::written(E::SPACE.name(), bytes.len());
    write(&tx.engine, &entries);
    Ok(())
}

/// Writes `record` over the one that is there, if that is `expected`.
pub(super) async fn update<E: Entity>(
    tx: &Transaction,
    record: &E,
    expected: Option<Revision>,
) -> Result<()> {
    let encoded = encode(tx, record)?;
    let _claim = tx.claim(vec![encoded.key.clone()]).await;
    let (before, upkeep) = read_for_write::<E>(tx, &encoded.key).await;
    let before = before?.ok_or_else(missing::<E>)?;
    require(&before, expected)?;
    let (upkeep, held) = (upkeep?, blobs_of(&*before));
    replace(tx, upkeep.entries(tx, &*before)?, held, &encoded, &upkeep).await
}

/// Writes `record`, over the one with its key if there is one.
pub(super) async fn upsert<E: Entity>(tx: &Transaction, record: &E) -> Result<()> {
    let encoded = encode(tx, record)?;
    let _claim = tx.claim(vec![encoded.key.clone()]).await;
    let (before, upkeep) = read_for_write::<E>(tx, &encoded.key).await;
    let (before, upkeep) = (before?, upkeep?);
    let held = before.as_deref().map_or(Vec::new(), blobs_of);
    let before = before.map_or(Ok(Vec::new()), |before| upkeep.entries(tx, &*before))?;
    replace(tx, before, held, &encoded, &upkeep).await
}

/// Changes the record `key` as `change` says, and gives what it is then.
pub(super) async fn modify<E: Entity>(
    tx: &Transaction,
    key: &[u8],
    change: impl FnOnce(&mut E),
) -> Result<E> {
    let _claim = tx.claim(vec![key.to_vec()]).await;
    let (before, upkeep) = read_for_write::<E>(tx, key).await;
    let mut record = before?.ok_or_else(missing::<E>)?.into_record();
    let upkeep = upkeep?;
    let (before, held) = (upkeep.entries(tx, &record)?, blobs_of(&record));
    change(&mut record);
    if tx.record_key::<E>(record.scope(), &record.key())? != key {
        let message = format!("a record of {} never changes its key", E::SPACE.name());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let encoded = encode(tx, &record)?;
    replace(tx, before, held, &encoded, &upkeep).await?;
    Ok(encoded.record)
}

/// Removes the record `key`, if it is `expected`, and detaches its blobs at a time, if that is given.
pub(super) async fn delete<E: Entity>(
    tx: &Transaction,
    key: &[u8],
    expected: Option<Revision>,
    detach_at: Option<DateTime<Utc>>,
) -> Result<Option<E>> {
    let _claim = tx.claim(vec![key.to_vec()]).await;
    let (before, upkeep) = read_for_write::<E>(tx, key).await;
    let Some(before) = before? else {
        return Ok(None);
    };
    require(&before, expected)?;
    let before = before.into_record();
    let entries = upkeep?.entries(tx, &before)?;
    if let (Some(now), Some(tenant)) = (detach_at, before.scope().tenant()) {
        blob::detach_all(tx, (tenant, key), blobs_of(&before), now).await?;
    }
    tx.engine.clear(key);
    clear(&tx.engine, &entries);
    Ok(Some(before))
}

/// Encodes a record that this store holds.
fn encode<E: Entity>(tx: &Transaction, record: &E) -> Result<Encoded<E>> {
    tx.context.registry.require::<E>()?;
    entity::encode_at(tx.root(), record)
}

/// The blobs that a record holds.
fn blobs_of<E: Entity>(record: &E) -> Vec<Blob> {
    E::BLOBS.map_or(Vec::new(), |blobs| blobs(record))
}

/// Reads the record `key` and the catalog in one round. An error of the catalog is for a caller that
/// goes on to write.
async fn read_for_write<E: Entity>(
    tx: &Transaction,
    key: &[u8],
) -> (Result<Option<Stored<E>>>, Result<Upkeep>) {
    join(tx.read_stored::<E>(key), Upkeep::of::<E>(tx, key)).await
}

/// Returns the entries of `record` in its unique indexes, which no index state changes.
fn unique_entries<E: Entity>(tx: &Transaction, record: &E) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for index in E::INDEXES.iter().filter(|index| index.form() == Form::Unique) {
        index.entries(tx.root(), record, &mut entries)?;
    }
    Ok(entries)
}

/// Writes a record over the one whose entries are `before`, and which holds the blobs `held`.
async fn replace<E: Entity>(
    tx: &Transaction,
    before: Vec<Entry>,
    mut held: Vec<Blob>,
    Encoded { key, bytes, record }: &Encoded<E>,
    upkeep: &Upkeep,
) -> Result<()> {
    let change = Change::between(before, upkeep.entries(tx, record)?);
    require_lengths(tx.root(), E::SPACE.name(), &change.arriving)?;
    require_lengths(tx.root(), E::SPACE.name(), &change.staying)?;
    let values = unique(&change.arriving).map(|entry| entry.key.clone());
    let _claim = tx.claim(values.collect()).await;
    refuse(first_taken(tx, &change.arriving).await?)?;
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
    clear(&tx.engine, &change.leaving);
    write(&tx.engine, &change.arriving);
    write(&tx.engine, &change.staying);
    Ok(())
}

fn require<E: Entity>(stored: &Stored<E>, expected: Option<Revision>) -> Result<()> {
    if expected.is_none_or(|revision| revision == stored.revision()) {
        return Ok(());
    }
    let message = format!("the record of {} was changed meanwhile", E::SPACE.name());
    Err(Error::new(ErrorKind::RevisionMismatch, message))
}

pub(super) fn missing<E: Entity>() -> Error {
    let message = format!("there is no record of {} with this key", E::SPACE.name());
    Error::new(ErrorKind::NotFound, message)
}

/// What becomes of a record's entries when it changes.
struct Change {
    /// Keys that it had, and has no more.
    leaving: Vec<Entry>,
    /// Keys that it did not have.
    arriving: Vec<Entry>,
    /// Keys that it keeps, with another value.
    staying: Vec<Entry>,
}

impl Change {
    fn between(mut before: Vec<Entry>, after: Vec<Entry>) -> Self {
        let mut change = Self { leaving: Vec::new(), arriving: Vec::new(), staying: Vec::new() };
        for entry in after {
            match before.iter().position(|old| old.key == entry.key) {
                None => change.arriving.push(entry),
                Some(at) if before.swap_remove(at).value != entry.value => {
                    change.staying.push(entry);
                }
                Some(_) => {}
            }
        }
        change.leaving = before;
        change
    }
}

/// Which entries of a record are kept up while indexes are being built.
///
/// Setting an entry twice does no harm, so those of most indexes are always written: what the build
/// has not come to yet is there already when it does. A number must not count a record twice: of
/// an index that counts, only the records that its build is past are kept up, and the others are
/// left to it. For that the position is read, so that a writer conflicts with a build that moves it.
struct Upkeep {
    /// Indexes whose build has yet to come to the record.
    ahead: Vec<&'static str>,
    /// Indexes that are being counted anew, and have counted the record.
    recounted: Vec<&'static str>,
}

impl Upkeep {
    async fn of<E: Entity>(tx: &Transaction, key: &[u8]) -> Result<Self> {
        let known = tx.known().await?;
        known.require_known(E::SPACE.name())?;
        let mut upkeep = Self { ahead: Vec::new(), recounted: Vec::new() };
        for index in E::INDEXES {
            let name = index.name();
            if index.form() != Form::Count || known.is_settled(name) {
                continue;
            }
            match catalog::read_state(&tx.engine, tx.root(), name).await? {
                State::WriteOnly(progress) if !progress.is_past(tx.root(), key) => {
                    upkeep.ahead.push(name);
                }
                State::Recount(progress) if progress.is_past(tx.root(), key) => {
                    upkeep.recounted.push(name);
                }
                State::Readable | State::WriteOnly(_) | State::Recount(_) => {}
            }
        }
        Ok(upkeep)
    }

    fn entries<E: Entity>(&self, tx: &Transaction, record: &E) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for index in E::INDEXES.iter().filter(|index| !self.ahead.contains(&index.name())) {
            index.entries(tx.root(), record, &mut entries)?;
        }
        let counted = entries.iter().filter(|entry| self.recounted.contains(&entry.index));
        let shadows: Vec<Entry> = counted.map(|entry| shadow(tx.root(), entry)).collect();
        entries.extend(shadows);
        Ok(entries)
    }
}

/// The entry beside `entry` that counts anew what it counts.
pub(super) fn shadow(root: &Root, entry: &Entry) -> Entry {
    let group = entry.key.strip_prefix(root.as_bytes()).unwrap_or(&entry.key);
    Entry { key: [shadows(root, entry.index).as_slice(), group].concat(), ..entry.clone() }
}

/// What the keys of all entries beside those of `index` begin with.
pub(super) fn shadows(root: &Root, index: &str) -> Vec<u8> {
    root.key(&(META.to_owned(), "recount".to_owned(), index.to_owned()))
}

/// Refuses entries of a record of `space` that are longer than an engine takes. Those that count
/// have a longer key while they are counted anew.
pub(super) fn require_lengths(root: &Root, space: &str, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let shadows = shadows(root, entry.index);
        let is_counted = entry.form == Form::Count && !entry.key.starts_with(&shadows);
        let more = if is_counted { shadows.len() } else { 0 };
        entity::require_entry_lengths(entry, space, more)?;
    }
    Ok(())
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

pub(super) fn refuse(taken: Option<&'static str>) -> Result<()> {
    taken.map_or(Ok(()), |index| {
        let message = format!("another record has this value in index {index}");
        Err(Error::new(ErrorKind::UniqueViolation(index), message))
    })
}

pub(super) fn write(tx: &engine::Transaction, entries: &[Entry]) {
    for Entry { key, value, form, .. } in entries {
        match form {
            Form::Unique | Form::Multi | Form::Covering => tx.set(key, value),
            Form::Count => tx.atomic(AtomicOp::Add, key, &1_i64.to_le_bytes()),
        }
    }
}

/// A unique value is given up only by whose it is: its entry is compared before it goes. A group
/// that nobody is in any more has no entry.
pub(super) fn clear(tx: &engine::Transaction, entries: &[Entry]) {
    for Entry { key, value, form, .. } in entries {
        match form {
            Form::Unique => tx.atomic(AtomicOp::CompareAndClear, key, value),
            Form::Multi | Form::Covering => tx.clear(key),
            Form::Count => {
                tx.atomic(AtomicOp::Add, key, &(-1_i64).to_le_bytes());
                tx.atomic(AtomicOp::CompareAndClear, key, &0_i64.to_le_bytes());
            }
        }
    }
}

/// Puts an entry right that was found to be missing or wrong.
pub(super) fn put(tx: &engine::Transaction, key: &[u8], value: &[u8]) {
    tx.set(key, value);
}

/// Removes an entry that no record gives.
pub(super) fn remove(tx: &engine::Transaction, key: &[u8]) {
    tx.clear(key);
}
