//! Removing blobs that no record holds.

use chrono::{DateTime, Utc};

use super::{CHUNKS, counted};
use crate::{
    Counter, Error, Result, Store, Transaction,
    batch::map_bounded,
    keyspace::KeyRange,
    model::{BlobId, BlobState, DetachedBlob, TenantId},
    repository::clear,
};

/// Maximum number of blobs that are removed at once: of each, a mebibyte is in memory.
const MAX_CONCURRENT: usize = 8;

/// [Removes](remove) `blobs`, several at once, and returns their number.
pub(in crate::repository) async fn remove_all(
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

/// Removes a detached blob: first it can no longer be attached, then its chunks are removed in
/// transactions of bounded size, then its record, which releases its bytes. It can be interrupted
/// anywhere and begun again. Removes nothing of a blob that a record holds, that does not exist, or
/// whose lease has not ended at the time `over`, where one is given.
pub(in crate::repository) async fn remove(
    store: &Store,
    tenant: TenantId,
    id: BlobId,
    over: Option<DateTime<Utc>>,
) -> Result<()> {
    let release = |tx: Transaction| async move {
        let Some(detached) = tx.get::<DetachedBlob>(tenant, id).await? else {
            return Ok::<_, Error>(false);
        };
        // It may have been renewed since it was found.
        if over.is_some_and(|now| detached.collect_after > now) {
            return Ok(false);
        }
        if detached.state != BlobState::Released {
            tx.update(&DetachedBlob { state: BlobState::Released, ..detached }).await?;
        }
        Ok(true)
    };
    if !store.run_idempotent(release).await? {
        return Ok(());
    }
    let chunks = KeyRange::tuples(&CHUNKS.key(store.root(), tenant, &id));
    clear::range(store, chunks).await?;
    let forget = |tx: Transaction| async move {
        match tx.delete::<DetachedBlob>(tenant, id).await? {
            Some(DetachedBlob { counted_bytes: bytes @ 1.., .. }) => {
                tx.release(tenant, Counter::BYTES, counted(bytes))
            }
            Some(_) | None => Ok(()),
        }
    };
    store.run_idempotent(forget).await
}

impl Store {
    /// Removes the chunks of the blob `id` at once and releases its bytes, unless a record holds it: for
    /// an upload that no record is going to attach. Two transactions, and one for each megabyte. If it
    /// is interrupted, [`collect_blobs`](Self::collect_blobs) removes the rest.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub async fn discard_blob(&self, tenant: TenantId, id: BlobId) -> Result<()> {
        remove(self, tenant, id, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobUpload, Clock, engine::Database};

    #[tokio::test]
    async fn what_was_renewed_since_it_was_found_is_not_removed() {
        let store = Store::open(Database::temporary().unwrap()).await.unwrap();
        let (tenant, clock) = (TenantId::new(), Clock::system());
        let upload = BlobUpload::begin(&store, tenant, &clock).await.unwrap();
        let blob = upload.finish().await.unwrap();
        let lease = super::super::UPLOAD_LEASE;
        let (before, after) = (clock.now() + lease / 2, clock.now() + lease * 3);
        for (now, left) in [(before, 1), (after, 0)] {
            remove(&store, tenant, blob.id, Some(now)).await.unwrap();
            let there = store.begin().list::<DetachedBlob>(tenant).all(9).await.unwrap();
            assert_eq!(there.len(), left);
        }
    }
}
