//! Writing records with their index entries. The only file that writes index keys.
//!
//! All reads and checks of a call come before its first write, so that one that fails has written
//! nothing and the transaction can go on.

use futures_util::future::{try_join, try_join_all};

use super::Transaction;
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

pub(super) async fn update<E: Entity>(tx: &Transaction, record: &E) -> Result<()> {
    let key = tx.record_key::<E>(record.scope(), &record.key())?;
    let bytes = entity::encode(record)?;
    let Some(before) = tx.read::<E>(&key).await? else {
        let message = format!("there is no record of {} with this key", E::SPACE.name());
        return Err(Error::new(ErrorKind::NotFound, message));
    };
    let change = Change::between(entries(tx, &before)?, entries(tx, record)?);
    refuse(first_taken(tx, &change.arriving).await?)?;
    tx.engine.set(&key, &bytes);
    clear(tx, &change.leaving);
    write(tx, &change.arriving);
    write(tx, &change.staying);
    Ok(())
}

pub(super) async fn delete<E: Entity>(tx: &Transaction, key: Vec<u8>) -> Result<Option<E>> {
    let Some(before) = tx.read::<E>(&key).await? else {
        return Ok(None);
    };
    let entries = entries(tx, &before)?;
    tx.engine.clear(&key);
    clear(tx, &entries);
    Ok(Some(before))
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
