//! Purges expired records and unreferenced blobs.
//!
//! All work is done in transactions of bounded size, can be interrupted, and can run in several
//! processes at once.

use chrono::{DateTime, Utc};

use super::{
    Transaction,
    blob::{self, OrphanBlob},
};
use crate::{
    BatchLimit, BatchSize, Error, Result, Store,
    batch::map_concurrent,
    entity::{Expiring, hours_over},
    keyspace::Global,
};

/// Maximum number of records that one transaction deletes.
pub(crate) const BATCH: usize = 100;

impl Store {
    /// Deletes the records of `E` whose hour of expiry has ended at `now`, and returns their
    /// number. One transaction per hundred.
    ///
    /// # Errors
    ///
    /// `Invalid` if `E` is not declared; `IndexBuilding` if the index is not built; errors of
    /// [`run`](Self::run).
    pub async fn purge_expired<E: Expiring>(&self, now: DateTime<Utc>) -> Result<u64> {
        let size = BatchSize::new(BATCH);
        let purge = |tx: Transaction, limit: BatchLimit| async move {
            let over = over::<E>(&tx, limit, now).await?;
            let keys: Vec<_> = over.iter().map(|record| (record.scope(), record.key())).collect();
            map_concurrent(&keys, |(scope, key)| tx.delete::<E>(*scope, key)).await?;
            Ok::<_, Error>(keys.len())
        };
        let mut removed = 0;
        loop {
            match self.run_batch(&size, purge).await? {
                0 => return Ok(removed),
                some => removed += some as u64,
            }
        }
    }

    /// Removes the blobs that no record has and whose leases have expired at `now`, and returns
    /// their number. Two transactions per blob, and one per megabyte.
    ///
    /// # Errors
    ///
    /// Errors of [`run`](Self::run).
    pub async fn collect_blobs(&self, now: DateTime<Utc>) -> Result<u64> {
        let size = BatchSize::new(BATCH);
        let mut collected = 0;
        loop {
            let due = |tx: Transaction, limit: BatchLimit| async move {
                let due = tx.scan(&OrphanBlob::BY_DUE, Global, ..now.timestamp());
                Ok::<_, Error>(due.page(limit.rows(), None).await?.items)
            };
            let over = self.run_batch(&size, due).await?;
            if over.is_empty() {
                return Ok(collected);
            }
            let blobs = over.into_iter().map(|detached| (detached.tenant_id, detached.id));
            collected += blob::remove_all(self, blobs, Some(now)).await?;
        }
    }
}

/// Returns the first records whose hour of expiry has ended.
pub(crate) async fn over<E: Expiring>(
    tx: &Transaction,
    limit: BatchLimit,
    now: DateTime<Utc>,
) -> Result<Vec<E>> {
    Ok(tx.scan(E::EXPIRY, Global, hours_over(now)).page(limit.rows(), None).await?.items)
}
