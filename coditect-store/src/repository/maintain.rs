//! Writing records with their index entries. The only file that writes index keys.
//!
//! All reads and checks of a call come before its first write, so that one that fails has written
//! nothing and the transaction can go on.

use futures_util::future::{try_join, try_join_all};

use super::{Revision, Stored, Transaction};
use crate::{
    Error, ErrorKind, Result,
    engine::AtomicOp,
    entity::{self, Entity, Entry, Form},
};

pub(super) async fn create<E: Entity>(tx: &Transaction, record: &E) -> Result<()> {
    let key = tx.record_key::<E>(record.scope(), &record.key())?;
    let bytes = entity::encode(record)?;
    let entries = entries(tx, record)?;
    let (present, taken) = try_join(tx.engine.get(&key), first_taken(tx, &entries)).await?;
    if present.is_some() {
        let message = format!("there is a record of {} with this key", E::SPACE.name());
        return Err(Error::new(ErrorKind::Exists, message));
    }
    refuse(taken)?;
    tx.engine.set(&key, &bytes);
    write(tx, &entries);
    Ok(())
}

/// Writes `record` over the one that is there, if that is `expected`.
pub(super) async fn update<E: Entity>(
    tx: &Transaction,
    record: &E,
    expected: Option<Revision>,
) -> Result<()> {
    let key = tx.record_key::<E>(record.scope(), &record.key())?;
    let before = tx.read_stored::<E>(&key).await?.ok_or_else(missing::<E>)?;
    require(&before, expected)?;
    replace(tx, &key, entries(tx, &*before)?, record).await
}

/// Changes the record `key` as `change` says, and gives what it is then.
pub(super) async fn modify<E: Entity>(
    tx: &Transaction,
    key: &[u8],
    change: impl FnOnce(&mut E),
) -> Result<E> {
    let mut record = tx.read_stored::<E>(key).await?.ok_or_else(missing::<E>)?.into_record();
    let before = entries(tx, &record)?;
    change(&mut record);
    if tx.record_key::<E>(record.scope(), &record.key())? != key {
        let message = format!("a record of {} never changes its key", E::SPACE.name());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    replace(tx, key, before, &record).await?;
    Ok(record)
}

/// Removes the record `key`, if it is `expected`.
pub(super) async fn delete<E: Entity>(
    tx: &Transaction,
    key: &[u8],
    expected: Option<Revision>,
) -> Result<Option<E>> {
    let Some(before) = tx.read_stored::<E>(key).await? else {
        return Ok(None);
    };
    require(&before, expected)?;
    let before = before.into_record();
    let entries = entries(tx, &before)?;
    tx.engine.clear(key);
    clear(tx, &entries);
    Ok(Some(before))
}

async fn replace<E: Entity>(
    tx: &Transaction,
    key: &[u8],
    before: Vec<Entry>,
    record: &E,
) -> Result<()> {
    let bytes = entity::encode(record)?;
    let change = Change::between(before, entries(tx, record)?);
    refuse(first_taken(tx, &change.arriving).await?)?;
    tx.engine.set(key, &bytes);
    clear(tx, &change.leaving);
    write(tx, &change.arriving);
    write(tx, &change.staying);
    Ok(())
}

fn require<E: Entity>(stored: &Stored<E>, expected: Option<Revision>) -> Result<()> {
    if expected.is_none_or(|revision| revision == stored.revision()) {
        return Ok(());
    }
    let message = format!("the record of {} was changed meanwhile", E::SPACE.name());
    Err(Error::new(ErrorKind::Stale, message))
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

fn entries<E: Entity>(tx: &Transaction, record: &E) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for index in E::INDEXES {
        index.entries(tx.root(), record, &mut entries)?;
    }
    Ok(entries)
}

/// The first of the unique `entries` whose value another record has. The reads run together, and
/// conflict with whoever takes or leaves the value meanwhile.
async fn first_taken(tx: &Transaction, entries: &[Entry]) -> Result<Option<&'static str>> {
    let unique = entries.iter().filter(|entry| entry.form == Form::Unique);
    let taken = try_join_all(unique.map(async |entry| {
        let pointer = tx.engine.get(&entry.key).await?;
        Ok::<_, Error>(pointer.map(|_| entry.index))
    }));
    Ok(taken.await?.into_iter().flatten().next())
}

fn refuse(taken: Option<&'static str>) -> Result<()> {
    taken.map_or(Ok(()), |index| {
        let message = format!("another record has this value in index {index}");
        Err(Error::new(ErrorKind::Unique(index), message))
    })
}

fn write(tx: &Transaction, entries: &[Entry]) {
    for Entry { key, value, form, .. } in entries {
        match form {
            Form::Unique | Form::Multi | Form::Covering => tx.engine.set(key, value),
            Form::Count => tx.engine.atomic(AtomicOp::Add, key, &1_i64.to_le_bytes()),
        }
    }
}

/// A unique value is given up only by whose it is: its entry is compared before it goes. A group
/// that nobody is in any more has no entry.
fn clear(tx: &Transaction, entries: &[Entry]) {
    for Entry { key, value, form, .. } in entries {
        match form {
            Form::Unique => tx.engine.atomic(AtomicOp::CompareAndClear, key, value),
            Form::Multi | Form::Covering => tx.engine.clear(key),
            Form::Count => {
                tx.engine.atomic(AtomicOp::Add, key, &(-1_i64).to_le_bytes());
                tx.engine.atomic(AtomicOp::CompareAndClear, key, &0_i64.to_le_bytes());
            }
        }
    }
}
