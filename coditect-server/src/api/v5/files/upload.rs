//! Uploads of contents, which are removed at once unless a record attaches them.

use coditect_store::{
    Blob, BlobUpload, Reservation, Store,
    model::{BlobId, TenantId},
};

use crate::{config::FILE_POLICY, http::problem::Problem, state::App};

/// The upload of a request. Its bytes are removed and released on drop and by
/// [`discard`](Self::discard), unless a record has attached the blob. After a kill, they are
/// collected when the lease expires.
pub(super) struct Upload {
    discard: DiscardOnDrop,
    upload: BlobUpload,
}

/// A complete blob that no record has attached yet.
pub(super) struct Uploaded {
    pub(super) blob: Blob,
    discard: DiscardOnDrop,
}

impl Upload {
    /// Maximum number of bytes of an upload that are in memory.
    pub(super) const MAX_BUFFERED_BYTES: usize = BlobUpload::BATCH_BYTES;

    /// Starts an upload of about `bytes` bytes for `tenant`, which count at once. It may exceed the
    /// tenant's quota by one file of the maximum size, so that a tenant at its quota can still
    /// replace contents. The quota is enforced when the content is attached.
    ///
    /// # Errors
    ///
    /// 403 if the quota does not permit even that.
    pub(super) async fn begin(app: &App, tenant: TenantId, bytes: u64) -> Result<Self, Problem> {
        let id = BlobId::new();
        let reserve = i64::try_from(app.config.file_limit).unwrap_or(i64::MAX);
        let limit = FILE_POLICY.bytes.saturating_add(reserve);
        let discard = DiscardOnDrop { store: app.store.clone(), tenant, id, armed: true };
        let reservation = Reservation { id, bytes, limit };
        let upload = BlobUpload::reserve(&app.store, tenant, reservation, &app.clock).await?;
        Ok(Self { discard, upload })
    }

    /// Returns the number of bytes written so far.
    pub(super) fn size(&self) -> u64 {
        self.upload.size()
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// Same as [`BlobUpload::write`].
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        Ok(self.upload.write(bytes).await?)
    }

    /// Completes the upload. On an error, its bytes are removed.
    ///
    /// # Errors
    ///
    /// Same as [`BlobUpload::finish`].
    pub(super) async fn finish(self) -> Result<Uploaded, Problem> {
        let Self { discard, upload } = self;
        match upload.finish().await {
            Ok(blob) => Ok(Uploaded { blob, discard }),
            Err(error) => {
                discard.run().await;
                Err(error.into())
            }
        }
    }

    /// Removes the bytes. After a failure they are collected later.
    pub(super) async fn discard(self) {
        self.discard.run().await;
    }
}

impl Uploaded {
    /// Leaves the blob to the record that has attached it.
    pub(super) fn keep(mut self) {
        self.discard.armed = false;
    }

    /// Removes the blob, unless a record has attached it. After a failure it is collected later.
    pub(super) async fn discard(self) {
        self.discard.run().await;
    }
}

/// Removes a blob in the background if the request ends before the upload.
struct DiscardOnDrop {
    store: Store,
    tenant: TenantId,
    id: BlobId,
    armed: bool,
}

impl DiscardOnDrop {
    async fn run(mut self) {
        discard(&self.store, self.tenant, self.id).await;
        self.armed = false;
    }
}

impl Drop for DiscardOnDrop {
    fn drop(&mut self) {
        if self.armed
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (store, tenant, id) = (self.store.clone(), self.tenant, self.id);
            runtime.spawn(async move { discard(&store, tenant, id).await });
        }
    }
}

async fn discard(store: &Store, tenant: TenantId, id: BlobId) {
    if let Err(error) = store.discard_blob(tenant, id).await {
        tracing::debug!(%error, "upload not discarded; it is collected when its lease ends");
    }
}
