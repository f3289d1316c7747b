//! Writing an archive of what a [view](crate::engine::View) shows.

use std::collections::BTreeSet;

use tokio::io::AsyncWrite;
use uuid::Uuid;

use super::{Manifest, Progress, Summary, frame::Writer, marker};
use crate::{
    Error, ErrorKind, Result, Store,
    engine::{CheckedRow, View},
    entity::META,
    keyspace::{KeyRange, Located, Readable},
    model::{Deleted, Deletion, TenantId},
    repository,
};

/// Rows are read in pages of about so many bytes.
const PAGE_BYTES: usize = 256 << 10;

/// The export of a store, or of one tenant: made by [`Store::export`].
#[derive(Clone, Debug)]
pub struct Export {
    store: Store,
    tenant: Option<TenantId>,
}

impl Export {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, tenant: None }
    }

    /// Of `tenant` alone.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Writes the archive to `sink`; `observe` is told how far it is, after each page. Reads and
    /// writes of the store go on meanwhile; on the embedded engine the archive is of the one version
    /// at which this was called, and what it does not have is what was committed later.
    ///
    /// If it is stopped, what was written has no end and is refused by who reads it.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such tenant, or it is being deleted; `Corrupt`, with the key, if a value is damaged;
    /// `NewerFormat` if a tenant has something that this program does not know; `Unavailable` if `sink`
    /// cannot be written; those of the engine.
    pub async fn run<W: AsyncWrite + Unpin>(
        &self,
        sink: &mut W,
        mut observe: impl FnMut(Progress),
    ) -> Result<Summary> {
        let database = self.store.database();
        let view = database.view().await?;
        let ranges = self.ranges();
        let retired = &repository::retired_names(database, self.store.root()).await?;
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
            // The last page is not of a later version than one that is asked for now.
            crate::engine::Consistency::EachPage => {
                let version =
                    |tx: crate::engine::Transaction| async move { tx.read_version().await };
                database.run(version).await?
            }
        };
        writer.end(version).await
    }

    /// What is exported, in this order: of a store the declarations come first, so that who imports
    /// knows what is to come.
    fn ranges(&self) -> Vec<KeyRange> {
        let root = self.store.root();
        if let Some(tenant) = self.tenant {
            // Who imports it completes what was being deleted.
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
            "this tenant is being deleted"
        } else if is_there(root.tenant(tenant)).await? {
            return Ok(());
        } else {
            "there is nothing of this tenant"
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
            let message = format!("the value of {shown} is damaged: check the store");
            return Err(Error::new(ErrorKind::Corrupt, message));
        };
        let wanted = if self.tenant.is_some() {
            self.is_original(&key, retired)?
        } else {
            key != marker::key(root)
        };
        if !wanted {
            return Ok(());
        }
        let key = key.strip_prefix(root.as_bytes()).unwrap_or(&key);
        writer.row(key, &value).await
    }

    /// Whether a tenant's row is a record's, a log's or a counter, rather than derived from one.
    fn is_original(&self, key: &[u8], retired: &BTreeSet<String>) -> Result<bool> {
        let root = self.store.root();
        let Some(located) = Located::of(root, key) else { return Err(self.unknown(key)) };
        let registry = self.store.registry();
        if registry.is_original(located) {
            return Ok(true);
        }
        // What is named, and no original, is derived from one.
        if registry.named(located.name).is_some() || retired.contains(located.name) {
            return Ok(false);
        }
        Err(self.unknown(key))
    }

    fn unknown(&self, key: &[u8]) -> Error {
        let shown = Readable::key(self.store.root(), key);
        let message = format!("{shown} is the tenant's, and this program does not know it");
        Error::new(ErrorKind::NewerFormat, message)
    }
}
