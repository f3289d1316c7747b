//! Putting back what was saved: a row as it was, and the entries that it gives by what is declared
//! now.

use super::{PLAIN, build, catalog, maintain};
use crate::{
    Error, ErrorKind, Result,
    batch::map_concurrent,
    engine::{self, KeyValue},
    entity::{Entry, Form, META, Registry},
    keyspace::{Located, Readable, Root},
};

/// Writes `rows`, each a record, a record of a log with its position, a counter, or a chunk of a
/// blob; and the index entries of the first two. The keys must be free. One round of reads for each
/// hundred unique values.
///
/// # Errors
///
/// `UniqueViolation` with the index's name; `Corrupt` or `NewerFormat` if it is no record that this program can
/// read.
pub(crate) async fn restore(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
    rows: &[KeyValue],
) -> Result<()> {
    let entries = all_entries(root, registry, rows)?;
    let mut taken = build::unique_values(tx, entries.iter()).await?;
    for entry in entries.iter().filter(|entry| entry.form == Form::Unique) {
        let there = taken.insert(entry.key.clone(), entry.value.clone());
        maintain::refuse(there.map(|_| entry.index))?;
    }
    maintain::write(tx, &entries);
    for row in rows {
        tx.set(&row.key, &row.value);
    }
    Ok(())
}

/// Refuses what [`restore`] would refuse, unless it was restored before. Writes nothing.
pub(crate) async fn refuse_rivals(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
    rows: &[KeyValue],
) -> Result<()> {
    let entries = all_entries(root, registry, rows)?;
    let mut taken = build::unique_values(tx, entries.iter()).await?;
    build::refuse_others(&mut taken, &entries)
}

/// Takes back what [`restore`] has written.
pub(crate) fn take_back(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
    row: &KeyValue,
) -> Result<()> {
    maintain::clear(tx, &entries(root, registry, row)?);
    tx.clear(&row.key);
    Ok(())
}

/// Returns the index entries that `rows` give; refuses those that are too long.
fn all_entries(root: &Root, registry: &Registry, rows: &[KeyValue]) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    for row in rows {
        let entries = entries(root, registry, row)?;
        let name = Located::of(root, &row.key).map_or("", |located| located.name);
        maintain::require_lengths(root, name, &entries)?;
        all.extend(entries);
    }
    Ok(all)
}

/// The index entries that a row gives: none, if it is no record.
fn entries(root: &Root, registry: &Registry, row: &KeyValue) -> Result<Vec<Entry>> {
    let located = Located::of(root, &row.key);
    let name = located.map(|located| located.name).unwrap_or_default();
    if PLAIN.contains(&name) {
        return Ok(Vec::new());
    }
    let declaration = registry.declaration(name).ok_or_else(|| {
        let message = format!("{} is of no space", Readable::key(root, &row.key));
        Error::new(ErrorKind::Corrupt, message)
    })?;
    (declaration.entries)(root, row)
}

/// Refuses a store of whose indexes one is being built, or counted anew.
pub(crate) async fn require_all_built(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
) -> Result<()> {
    let require = |index: &'static str| async move {
        match catalog::read_state(tx, root, index).await? {
            catalog::State::Readable => Ok(()),
            _ => Err(catalog::not_built(index)),
        }
    };
    map_concurrent(registry.index_names(), require).await.map(|_| ())
}

/// Refuses a row of a store's archive that holds a declaration which is not this program's.
pub(crate) fn admit(registry: &Registry, located: Option<Located<'_>>, value: &[u8]) -> Result<()> {
    match located {
        Some(Located { tenant: None, name, rest }) if name == META => {
            catalog::admit(registry, rest, value)
        }
        _ => Ok(()),
    }
}

/// Refuses a row of `meta` that cannot be read, or contradicts what is declared.
pub(crate) fn check_meta(registry: &Registry, rest: &[u8], value: &[u8]) -> Result<()> {
    catalog::check_row(registry, rest, value)
}
