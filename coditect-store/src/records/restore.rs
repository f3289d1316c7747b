//! Restores archived rows, with the index entries of the current declarations.

use super::{build, catalog, index_maintainer};
use crate::{
    Error, ErrorKind, Result,
    batch::map_concurrent,
    engine::{self, KeyValue},
    entity::{Entry, IndexKind, PLAIN, Schema},
    keyspace::{Located, Readable, Root},
};

/// Writes `rows` (records, events with their positions, counters and blob chunks) and their index
/// entries. The keys must be free. One round of reads per hundred unique values.
///
/// # Errors
///
/// `UniqueViolation` with the index's name; `Corrupt` or `NewerFormat` if a row cannot be decoded.
pub(crate) async fn restore(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
    rows: &[KeyValue],
) -> Result<()> {
    let entries = all_entries(root, schema, rows)?;
    let mut taken = build::unique_values(tx, entries.iter()).await?;
    for entry in entries.iter().filter(|entry| entry.kind == IndexKind::Unique) {
        let there = taken.insert(entry.key.clone(), entry.value.clone());
        index_maintainer::reject(there.map(|_| entry.index))?;
    }
    index_maintainer::write(tx, &entries);
    for row in rows {
        tx.set(&row.key, &row.value);
    }
    Ok(())
}

/// Fails where [`restore`] would fail, except for rows that are restored already. Writes nothing.
pub(crate) async fn reject_rivals(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
    rows: &[KeyValue],
) -> Result<()> {
    let entries = all_entries(root, schema, rows)?;
    let mut taken = build::unique_values(tx, entries.iter()).await?;
    build::refuse_others(&mut taken, &entries)
}

/// Removes a row written by [`restore`], with its index entries.
pub(crate) fn rollback(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
    row: &KeyValue,
) -> Result<()> {
    index_maintainer::clear(tx, &entries(root, schema, row)?);
    tx.clear(&row.key);
    Ok(())
}

/// Returns the index entries of `rows`. Fails with `Limit` if one is too long.
fn all_entries(root: &Root, schema: &Schema, rows: &[KeyValue]) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    for row in rows {
        let entries = entries(root, schema, row)?;
        let name = Located::of(root, &row.key).map_or("", |located| located.name);
        index_maintainer::require_lengths(root, name, &entries)?;
        all.extend(entries);
    }
    Ok(all)
}

/// Returns the index entries of a row; none for counters and chunks.
fn entries(root: &Root, schema: &Schema, row: &KeyValue) -> Result<Vec<Entry>> {
    let located = Located::of(root, &row.key);
    let name = located.map(|located| located.name).unwrap_or_default();
    if PLAIN.contains(&name) {
        return Ok(Vec::new());
    }
    let declaration = schema.entity(name).ok_or_else(|| {
        let message = format!("{} is in no declared subspace", Readable::key(root, &row.key));
        Error::new(ErrorKind::Corrupt, message)
    })?;
    (declaration.entries)(root, row)
}

/// Fails with `IndexBuilding` unless all indexes are readable.
pub(crate) async fn require_all_built(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
) -> Result<()> {
    let require = |index: &'static str| async move {
        match catalog::read_state(tx, root, index).await? {
            catalog::State::Readable => Ok(()),
            _ => Err(catalog::not_built(index)),
        }
    };
    map_concurrent(schema.index_names(), require).await.map(|_| ())
}
