//! Removes blobs that no record has.

use chrono::{DateTime, Utc};

use super::{BlobId, BlobState, OrphanBlob, counted};
use crate::{
    Counter, Error, Result, Store, Transaction,
    batch::map_bounded,
    entity::{CHUNKS, record_key},
    keyspace::{KeyRange, TenantId},
    records::clear,
};

/// Maximum number of blobs removed at once, each with a mebibyte in memory.
const MAX_CONCURRENT: usize = 8;

/// [Removes](remove) `blobs`, several at once, and returns their number.
pub(crate) async fn remove_all(
    store: &Store,
    blobs: impl IntoIterator<Item = (TenantId, BlobId)>,
    over: Option<DateTime<Utc>>,
) -> Result<u64> {
    let remove = |(tenant, id)| {
        let store = store.clone();
        async move { remove(&store, tenant, id, over).await }
    };
    let blobs: Vec<_> = blobs.into_iter().collect();
    Ok(map_bounded(MAX_CONCURRENT, blobs, remove).await?.len() as u64)
}

/// Removes a detached blob: first it becomes unattachable, then its chunks are removed in
/// transactions of bounded size, then its record, which releases its bytes. Can be interrupted and
/// resumed. Ignores a blob that a record has, that does not exist, or whose lease has not expired
/// at `over`, if given.
pub(crate) async fn remove(
    store: &Store,
    tenant: TenantId,
    id: BlobId,
    over: Option<DateTime<Utc>>,
) -> Result<()> {
    let release = |tx: Transaction| async move {
        let Some(detached) = tx.get::<OrphanBlob>(tenant, id).await? else {
            return Ok::<_, Error>(false);
        };
        // It may have been renewed since it was found.
        if over.is_some_and(|now| detached.collect_after > now) {
            return Ok(false);
        }
        if detached.state != BlobState::Released {
            tx.update(&OrphanBlob { state: BlobState::Released, ..detached }).await?;
        }
        Ok(true)
    };
    if !store.run_idempotent(release).await? {
        return Ok(());
    }
    let chunks = KeyRange::tuples(&CHUNKS.key(store.root(), tenant, &id));
    let released = record_key::<OrphanBlob>(store.root(), tenant, &id);
    clear::range(store, chunks, &released).await?;
    let forget = |tx: Transaction| async move {
        match tx.delete::<OrphanBlob>(tenant, id).await? {
            Some(OrphanBlob { counted_bytes: bytes @ 1.., .. }) => {
                tx.release(tenant, Counter::BYTES, counted(bytes))
            }
            Some(_) | None => Ok(()),
        }
    };
    store.run_idempotent(forget).await
}

impl Store {
    /// Removes the chunks of the blob `id` at once and releases its bytes, unless a record has it:
    /// for an upload that will not be attached. Two transactions, and one per megabyte. If it is
    /// interrupted, [`collect_blobs`](Self::collect_blobs) removes the rest.
    ///
    /// # Errors
    ///
    /// Errors of [`run`](Self::run).
    pub async fn discard_blob(&self, tenant: TenantId, id: BlobId) -> Result<()> {
        remove(self, tenant, id, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobUpload, Clock, engine::Database};

    #[tokio::test]
    async fn renewed_blob_is_not_removed() {
        let store = Store::open(Database::temporary().unwrap()).await.unwrap();
        let (tenant, clock) = (TenantId::new(), Clock::system());
        let upload = BlobUpload::begin(&store, tenant, &clock).await.unwrap();
        let blob = upload.finish().await.unwrap();
        let lease = super::super::UPLOAD_LEASE;
        let (before, after) = (clock.now() + lease / 2, clock.now() + lease * 3);
        for (now, left) in [(before, 1), (after, 0)] {
            remove(&store, tenant, blob.id, Some(now)).await.unwrap();
            let there = store.begin().list::<OrphanBlob>(tenant).all(9).await.unwrap();
            assert_eq!(there.len(), left);
        }
    }
}
