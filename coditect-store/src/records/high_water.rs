//! The high-water mark of the versionstamps in a store.
//!
//! ```text
//! ("meta", "last_append") → position
//! ```
//!
//! Every transaction that appends to an event stream sets it, without a read, to its own versionstamp. So the rows of
//! a store tell the newest versionstamp among them, wherever they are restored to. Where the database
//! counts its versions from less, as a new FoundationDB cluster does, later appends would sort before
//! earlier ones: opening the store [advances](engine::Database::advance_version) the versions first.

use super::Transaction;
use crate::{
    Result,
    engine::{self, AtomicOp, Versionstamp},
    entity::META,
    keyspace::{Position, Root, packed, unpack_all},
};

impl Transaction {
    /// Sets the mark, in a transaction that appends.
    pub(super) fn raise_high_water(&self) {
        let order = 0_u16.to_be_bytes();
        self.engine.set_versionstamped_value(&key(self.root()), &[Position::CODE], &order);
    }
}

/// Raises the mark to `version`, of which rows may be that were imported.
pub(crate) fn raise_to(tx: &engine::Transaction, root: &Root, version: u64) {
    let position = Position::new(Versionstamp::new(version, u16::MAX), 0);
    // The bytes of positions sort as they do.
    tx.atomic(AtomicOp::ByteMax, &key(root), &packed(&position));
}

/// Returns the version of the mark if the database's versions are behind it. Conflicts with no append.
pub(crate) async fn version_ahead(tx: &engine::Transaction, root: &Root) -> Result<Option<u64>> {
    let Some(mark) = tx.snapshot().get(&key(root)).await? else { return Ok(None) };
    let version = unpack_all::<Position>(&mark)?.versionstamp().version();
    Ok((version > tx.read_version().await?).then_some(version))
}

fn key(root: &Root) -> Vec<u8> {
    root.key(&(META.to_owned(), "last_append".to_owned()))
}
