//! What a store keeps while an import into it is under way: which archive, and how much of it is
//! there.
//!
//! ```text
//! ("meta", "import") → (archive id, rows that are there, whether of a tenant, of which)
//! ```
//!
//! It is written before the first row and removed after the last, each step of the import moves it in
//! the transaction that writes the step's rows, and whoever opens a store looks at it first.

use uuid::Uuid;

use crate::{
    Error, ErrorKind, Result, engine,
    entity::META,
    keyspace::{Root, packed, unpack_all},
    model::TenantId,
};

/// How far an import is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The archive.
    pub(super) id: Uuid,
    /// How many of its rows are there.
    pub(super) rows: u64,
    /// Whose they are; `None` if it is a whole store.
    pub(super) tenant: Option<TenantId>,
}

impl Marker {
    pub(super) async fn read(tx: &engine::Transaction, root: &Root) -> Result<Option<Self>> {
        let stored = tx.get(&key(root)).await?;
        stored.map(|bytes| Self::unpack(&bytes)).transpose()
    }

    pub(super) fn write(&self, tx: &engine::Transaction, root: &Root) {
        let tenant = self.tenant.unwrap_or(TenantId(Uuid::nil()));
        let bytes = packed(&(self.id, self.rows, self.tenant.is_some(), tenant));
        tx.set(&key(root), &bytes);
    }

    pub(super) fn clear(tx: &engine::Transaction, root: &Root) {
        tx.clear(&key(root));
    }

    fn unpack(bytes: &[u8]) -> Result<Self> {
        let (id, rows, of_tenant, tenant): (Uuid, u64, bool, TenantId) = unpack_all(bytes)?;
        Ok(Self { id, rows, tenant: of_tenant.then_some(tenant) })
    }

    pub(super) fn unfinished(&self) -> Error {
        let message = format!(
            "an import into this store has not ended: run it again with the same archive, {}, or abandon it",
            self.id
        );
        Error::new(ErrorKind::ImportInProgress, message)
    }
}

/// The marker's key.
pub(super) fn key(root: &Root) -> Vec<u8> {
    root.key(&(META.to_owned(), "import".to_owned()))
}

/// Refuses a store that an import into has not ended.
pub(crate) async fn refuse_unfinished(tx: &engine::Transaction, root: &Root) -> Result<()> {
    Marker::read(tx, root).await?.map_or(Ok(()), |marker| Err(marker.unfinished()))
}

/// Refuses a value that is no marker's.
pub(crate) fn check_row(value: &[u8]) -> Result<()> {
    Marker::unpack(value).map(|_| ())
}
