//! The high-water mark of the versionstamps in a store.
//!
//! ```text
//! ("meta", "last_append") → position
//! ```
//!
//! Every transaction that appends to an event stream sets it, without a read, to its own
//! versionstamp. So the rows of a store contain the newest versionstamp among them, wherever they
//! are restored to. Where the database assigns lower versions, as a new FoundationDB cluster does,
//! later appends would sort before earlier ones: opening the store
//! [advances](engine::Database::advance_version) the versions first.
//!
//! A mark that cannot be decoded, or that no database can have assigned, is rejected: advancing to
//! it would use up the versions of the database. It can be [rebuilt](rebuild) from the events.

use super::Transaction;
use crate::{
    Error, ErrorKind, Result,
    engine::{self, AtomicOp, Database, Versionstamp},
    entity::{META, Schema},
    keyspace::{Located, Position, Root, packed, unpack_all},
};

/// Maximum version that an import accepts: in microseconds since 1970, the year 11104.
pub(crate) const MAX_IMPORTED_VERSION: u64 = 1 << 58;

/// Maximum version of the mark of a store that is opened. So far above [`MAX_IMPORTED_VERSION`]
/// that no store that was imported reaches it.
const MAX_MARK: u64 = 1 << 59;

/// Size of a page of rows, in bytes.
const PAGE_BYTES: usize = 256 << 10;

impl Transaction {
    /// Sets the mark, in a transaction that appends.
    pub(super) fn raise_high_water(&self) {
        let order = 0_u16.to_be_bytes();
        self.engine.set_versionstamped_value(&key(self.root()), &[Position::CODE], &order);
    }
}

/// Raises the mark to `version`, the newest version that imported rows may have.
pub(crate) fn raise_to(tx: &engine::Transaction, root: &Root, version: u64) {
    // The bytes of positions sort as they do.
    tx.atomic(AtomicOp::ByteMax, &key(root), &packed(&last_of(version)));
}

/// Returns the version of the mark if the database's versions are behind it. Conflicts with no
/// append.
///
/// # Errors
///
/// `Corrupt` if the mark cannot be decoded, or no database can have assigned its version.
pub(crate) async fn version_ahead(tx: &engine::Transaction, root: &Root) -> Result<Option<u64>> {
    let Some(mark) = tx.snapshot().get(&key(root)).await? else { return Ok(None) };
    let version = decode(&mark, MAX_MARK)?;
    Ok((version > tx.read_version().await?).then_some(version))
}

/// Checks the mark of an archive.
///
/// # Errors
///
/// `Corrupt` if it cannot be decoded, or no database can have assigned its version.
pub(crate) fn check_mark(value: &[u8]) -> Result<()> {
    decode(value, MAX_IMPORTED_VERSION).map(|_| ())
}

/// Returns the version in the key of an event, `None` for any other key.
pub(crate) fn event_version(schema: &Schema, located: Located<'_>) -> Option<u64> {
    schema.entity(located.name).filter(|declaration| declaration.is_stream)?;
    let (_, position) = located.rest.split_last_chunk::<{ 1 + Versionstamp::LEN + 2 }>()?;
    Some(unpack_all::<Position>(position).ok()?.versionstamp().version())
}

/// Replaces a mark that [`version_ahead`] rejects by the newest version among the events, and
/// returns whether it did. Reads all rows.
pub(crate) async fn rebuild(database: &Database, root: &Root, schema: &Schema) -> Result<bool> {
    let key = &key(root);
    let read = |tx: engine::Transaction| async move { tx.snapshot().get(key).await };
    let Some(bad) = database.run(read).await?.filter(|mark| decode(mark, MAX_MARK).is_err()) else {
        return Ok(false);
    };
    let mut newest = None;
    let mut pages = database.view().await?.stream(root.range(), PAGE_BYTES);
    while let Some(rows) = pages.next_page().await? {
        let versions = rows.iter().filter_map(|row| {
            event_version(schema, Located::of(root, &row.key)?).filter(|found| *found <= MAX_MARK)
        });
        newest = newest.max(versions.max());
    }
    let bad = &bad;
    let replace = |tx: engine::Transaction| async move {
        // An append may have replaced it.
        if tx.get(key).await?.as_ref() == Some(bad) {
            match newest {
                Some(version) => tx.set(key, &packed(&last_of(version))),
                None => tx.clear(key),
            }
        }
        Ok::<_, Error>(())
    };
    database.run(replace).await?;
    Ok(true)
}

/// Returns the version of `mark`. Fails unless it is at most `limit`.
fn decode(mark: &[u8], limit: u64) -> Result<u64> {
    let corrupt = |why: &str| {
        let message = format!(
            "the record (\"meta\", \"last_append\") {why}; in a store, `check --repair` \
             rebuilds it from the events"
        );
        Error::new(ErrorKind::Corrupt, message)
    };
    let position = unpack_all::<Position>(mark)
        .map_err(|cause| corrupt("cannot be decoded").with_source(cause))?;
    let version = position.versionstamp().version();
    if version > limit {
        return Err(corrupt(&format!("has version {version}, which no database assigns")));
    }
    Ok(version)
}

/// Returns a position after all events that were appended at `version`.
fn last_of(version: u64) -> Position {
    Position::new(Versionstamp::new(version, u16::MAX), 0)
}

fn key(root: &Root) -> Vec<u8> {
    root.key(&(META.to_owned(), "last_append".to_owned()))
}
