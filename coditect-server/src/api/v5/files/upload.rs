//! Uploads of contents, whose bytes are removed at once unless a record holds them in the end.

use coditect_store::{
    Blob, BlobUpload, Reservation, Store,
    model::{BlobId, TenantId},
};

use crate::{config::FILE_POLICY, http::problem::Problem, state::App};

/// An upload of one request. If it is dropped, or [discarded](Self::discard), its bytes are removed and
/// released; a record keeps them if it attaches the blob before. What a killed process leaves is
/// collected when its lease has ended.
pub(super) struct Upload {
    discard: DiscardOnDrop,
    upload: BlobUpload,
}

/// A blob that was uploaded and that no record holds yet.
pub(super) struct Uploaded {
    pub(super) blob: Blob,
    discard: DiscardOnDrop,
}

impl Upload {
    /// Begins an upload of about `bytes` bytes for `tenant`, which are counted from now on. It may exceed
    /// the tenant's quota by one file of the largest size: so a tenant that has used all of it can still
    /// replace contents. Whether the content fits in the end is checked when it is attached.
    ///
    /// # Errors
    ///
    /// 403 if not even that fits.
    pub(super) async fn begin(app: &App, tenant: TenantId, bytes: u64) -> Result<Self, Problem> {
        let id = BlobId::new();
        let reserve = i64::try_from(app.config.file_limit).unwrap_or(i64::MAX);
        let limit = FILE_POLICY.bytes.saturating_add(reserve);
        let discard = DiscardOnDrop { store: app.store.clone(), tenant, id, armed: true };
        let reservation = Reservation { id, bytes, limit };
        let upload = BlobUpload::reserve(&app.store, tenant, reservation, &app.clock).await?;
        Ok(Self { discard, upload })
    }

    /// Returns the number of bytes that were written so far.
    pub(super) fn size(&self) -> u64 {
        self.upload.size()
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    ///
    /// Those of [`BlobUpload::write`].
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        Ok(self.upload.write(bytes).await?)
    }

    /// Ends the upload. If that fails, its bytes are removed.
    ///
    /// # Errors
    ///
    /// Those of [`BlobUpload::finish`].
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

    /// Removes what was written. If that fails, it is collected later.
    pub(super) async fn discard(self) {
        self.discard.run().await;
    }
}

impl Uploaded {
    /// Leaves the blob to the record that has attached it.
    pub(super) fn keep(mut self) {
        self.discard.armed = false;
    }

    /// Removes the blob, unless a record has attached it. If that fails, it is collected later.
    pub(super) async fn discard(self) {
        self.discard.run().await;
    }
}

/// Removes a blob in the background if a request ends before its upload does.
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
