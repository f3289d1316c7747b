//! Removing blobs that no record holds.

use chrono::{DateTime, Utc};

use super::CHUNKS;
use crate::{
    Error, Result, Store, Transaction,
    entity::{expiry_hour, hours_over},
    keyspace::KeyRange,
    model::{BlobId, BlobState, DetachedBlob, TenantId},
    repository::clear,
};

/// Removes a detached blob: first the chance to attach it, then its chunks, then all trace of it. It
/// can be broken off anywhere and begun again; of one that is attached, or gone, it removes nothing, nor
/// of one that is not `over` at that time, where one is given.
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
        let hour = expiry_hour(detached.collect_after);
        if over.is_some_and(|now| !hours_over(now).contains(&hour)) {
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
    let forget =
        |tx: Transaction| async move { tx.delete::<DetachedBlob>(tenant, id).await.map(|_| ()) };
    store.run_idempotent(forget).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlobUpload, Clock, engine::Database};

    #[tokio::test]
    async fn what_was_renewed_since_it_was_found_is_not_removed() {
        let store = Store::open(Database::scratch().unwrap()).await.unwrap();
        let (tenant, clock) = (TenantId::new(), Clock::system());
        let upload = BlobUpload::begin(&store, tenant, &clock).await.unwrap();
        let blob = upload.finish().await.unwrap();
        let lease = super::super::LEASE;
        let (before, after) = (clock.now() + lease / 2, clock.now() + lease * 3);
        for (now, left) in [(before, 1), (after, 0)] {
            remove(&store, tenant, blob.id, Some(now)).await.unwrap();
            let there = store.begin().list::<DetachedBlob>(tenant).all(9).await.unwrap();
            assert_eq!(there.len(), left);
        }
    }
}
