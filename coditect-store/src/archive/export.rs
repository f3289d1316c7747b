//! Export: writes an archive of a [view](crate::engine::View).

use std::collections::BTreeSet;

use tokio::io::AsyncWrite;
use uuid::Uuid;

use super::{Manifest, Progress, Summary, frame::Writer};
use crate::{
    Error, ErrorKind, Result, Store,
    engine::{CheckedRow, View},
    entity::META,
    keyspace::{KeyRange, Located, Readable, TenantId},
    model::{Deleted, Deletion},
    records,
    store::import_marker,
};

/// Approximate size of a page of rows, in bytes.
const PAGE_BYTES: usize = 256 << 10;

/// The export of a store, or of one tenant. Created by [`Store::export`].
#[derive(Clone, Debug)]
pub struct Export {
    store: Store,
    tenant: Option<TenantId>,
}

impl Store {
    /// Returns an export of the store, or of one tenant, to an archive.
    pub fn export(&self) -> Export {
        Export::new(self.with_batch_priority("export"))
    }
}

impl Export {
    fn new(store: Store) -> Self {
        Self { store, tenant: None }
    }

    /// Exports `tenant` only.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Writes the archive to `sink`, and calls `observe` after each page. The store can be read and
    /// written meanwhile. On the embedded engine the archive has one version, the one at the call:
    /// later commits are not in it.
    ///
    /// An interrupted archive has no end, and is rejected by readers.
    ///
    /// # Errors
    ///
    /// `NotFound` if the tenant does not exist, or is being deleted; `Corrupt`, with the key, if a
    /// value is damaged; `NewerFormat` if a tenant has data that this program does not declare;
    /// `Unavailable` if `sink` cannot be written; errors of the engine.
    pub async fn run<W: AsyncWrite + Unpin>(
        &self,
        sink: &mut W,
        mut observe: impl FnMut(Progress),
    ) -> Result<Summary> {
        let database = self.store.database();
        let view = database.view().await?;
        let ranges = self.ranges();
        let retired = &records::retired_names(database, self.store.root()).await?;
        if let Some(tenant) = self.tenant {
            self.require(&view, tenant).await?;
        }
        let manifest = Manifest {
            id: Uuid::now_v7(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            store_format: crate::store::FORMAT,
            engine: database.engine().to_owned(),
            consistency: view.consistency(),
            tenant: self.tenant,
        };
        let mut writer = Writer::begin(sink, manifest).await?;
        for range in ranges {
            let mut pages = view.stream(range, PAGE_BYTES);
            while let Some(rows) = pages.next_page().await? {
                for row in rows {
                    self.write(&mut writer, row, retired).await?;
                }
                observe(writer.progress());
            }
        }
        let version = match view.consistency() {
            crate::engine::Consistency::OneVersion => view.version(),
            // The last page is not newer than the current version.
            crate::engine::Consistency::EachPage => {
                let version =
                    |tx: crate::engine::Transaction| async move { tx.read_version().await };
                database.run(version).await?
            }
        };
        writer.end(version).await
    }

    /// Returns the exported ranges, in order: declarations come first, so that an import can check
    /// them before other rows.
    fn ranges(&self) -> Vec<KeyRange> {
        let root = self.store.root();
        if let Some(tenant) = self.tenant {
            // The importing store resumes the tenant's pending deletions.
            return vec![root.tenant(tenant), Deletion::range(root, tenant)];
        }
        let (all, meta) = (root.range(), KeyRange::tuples(&root.key(&META.to_owned())));
        let before = KeyRange { begin: all.begin, end: meta.begin.clone() };
        let after = KeyRange { begin: meta.end.clone(), end: all.end };
        vec![meta, before, after]
    }

    async fn require(&self, view: &View, tenant: TenantId) -> Result<()> {
        let root = self.store.root();
        let is_there = async |KeyRange { begin, end }: KeyRange| {
            view.page(&begin, &end, 1).await.map(|page| !page.rows.is_empty())
        };
        let deletion = Deletion::key_of(root, tenant, Deleted::Tenant);
        let why = if is_there(KeyRange::prefix(&deletion)).await? {
            "the tenant is being deleted"
        } else if is_there(root.tenant(tenant)).await? {
            return Ok(());
        } else {
            "the tenant does not exist"
        };
        Err(Error::new(ErrorKind::NotFound, why))
    }

    async fn write<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut Writer<'_, W>,
        row: CheckedRow,
        retired: &BTreeSet<String>,
    ) -> Result<()> {
        let root = self.store.root();
        let CheckedRow { key, value } = row;
        let Some(value) = value else {
            let shown = Readable::key(root, &key);
            let message = format!("the value of {shown} is damaged: run a check of the store");
            return Err(Error::new(ErrorKind::Corrupt, message));
        };
        let wanted = if self.tenant.is_some() {
            self.is_original(&key, retired)?
        } else {
            key != import_marker::key(root)
        };
        if !wanted {
            return Ok(());
        }
        let key = key.strip_prefix(root.as_bytes()).unwrap_or(&key);
        writer.row(key, &value).await
    }

    /// Returns whether a tenant's row is primary data, rather than derived.
    fn is_original(&self, key: &[u8], retired: &BTreeSet<String>) -> Result<bool> {
        let root = self.store.root();
        let Some(located) = Located::of(root, key) else { return Err(self.unknown(key)) };
        let schema = self.store.schema();
        if schema.is_original(located) {
            return Ok(true);
        }
        // Other declared names are indexes.
        if schema.named(located.name).is_some() || retired.contains(located.name) {
            return Ok(false);
        }
        Err(self.unknown(key))
    }

    fn unknown(&self, key: &[u8]) -> Error {
        let shown = Readable::key(self.store.root(), key);
        let message = format!("the tenant has {shown}, which this program does not declare");
        Error::new(ErrorKind::NewerFormat, message)
    }
}
