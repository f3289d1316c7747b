//! The import marker: a record of the archive that is being imported, and of the progress.
//!
//! ```text
//! ("meta", "import") → (archive id, rows imported, has tenant, tenant)
//! ```
//!
//! It is written before the first row, moved in the transaction of each step's rows, and removed
//! after the last. A store with a marker cannot be opened.

use uuid::Uuid;

use crate::{
    Error, ErrorKind, Result, engine,
    entity::META,
    keyspace::{Root, TenantId, packed, unpack_all},
    records,
};

/// The progress of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Id of the archive.
    pub(crate) id: Uuid,
    /// Number of imported rows.
    pub(crate) rows: u64,
    /// Tenant of the archive; `None` for a whole store.
    pub(crate) tenant: Option<TenantId>,
}

/// A stored marker: archive, rows, whether it is of a tenant, tenant.
type Stored = (Uuid, u64, bool, TenantId);

impl Marker {
    pub(crate) async fn read(tx: &engine::Transaction, root: &Root) -> Result<Option<Self>> {
        let key = key(root);
        let stored = tx.get(&key).await?;
        stored.map(|bytes| records::unpack_meta(root, &key, &bytes).map(Self::of)).transpose()
    }

    pub(crate) fn write(&self, tx: &engine::Transaction, root: &Root) {
        let tenant = self.tenant.unwrap_or(TenantId(Uuid::nil()));
        let bytes = packed(&(self.id, self.rows, self.tenant.is_some(), tenant));
        tx.set(&key(root), &bytes);
    }

    pub(crate) fn clear(tx: &engine::Transaction, root: &Root) {
        tx.clear(&key(root));
    }

    fn of((id, rows, of_tenant, tenant): Stored) -> Self {
        Self { id, rows, tenant: of_tenant.then_some(tenant) }
    }

    pub(crate) fn unfinished(&self) -> Error {
        let message = format!(
            "the store has an unfinished import of archive {}: run it again with the \
             same archive, or roll it back",
            self.id
        );
        Error::new(ErrorKind::ImportInProgress, message)
    }
}

/// Returns the key of the marker.
pub(crate) fn key(root: &Root) -> Vec<u8> {
    root.key(&(META.to_owned(), "import".to_owned()))
}

/// Fails with `ImportInProgress` if the store has an unfinished import.
pub(crate) async fn refuse_unfinished(tx: &engine::Transaction, root: &Root) -> Result<()> {
    Marker::read(tx, root).await?.map_or(Ok(()), |marker| Err(marker.unfinished()))
}

/// Checks that a marker can be decoded.
pub(crate) fn check(value: &[u8]) -> Result<()> {
    unpack_all::<Stored>(value).map(|_| ())
}
