//! The sweep: removing what has ended by itself, and what was left behind.
//!
//! All of it is done in transactions of bounded size that can be run by several processes at once,
//! and be broken off anywhere.

use chrono::{DateTime, Utc};

use super::{Counter, Transaction, blob};
use crate::{
    BatchLimit, BatchSize, Entity as _, Error, Result, Store,
    batch::map_concurrent,
    entity::{Expiring, hours_over},
    keyspace::Global,
    model::{AuthSession, ClientSequence, DetachedBlob, IdempotencyEntry, Ticket},
};

/// Maximum number of records that one transaction removes.
const BATCH: usize = 100;

/// What a [sweep](Store::sweep) has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Logins that had ended by themselves.
    pub auth_sessions: u64,
    /// Tickets.
    pub tickets: u64,
    /// Answers to requests with an idempotency key.
    pub idempotency_entries: u64,
    /// What was known of clients that have long been gone.
    pub client_sequences: u64,
    /// Blobs that no record held.
    pub blobs: u64,
    /// Deletions that were under way, and are complete now.
    pub deletions: u64,
}

impl Store {
    /// Removes all of the product's that is over at `now`, and completes what is under way.
    ///
    /// # Errors
    ///
    /// Those of [`sweep_expired`](Self::sweep_expired), [`collect_blobs`](Self::collect_blobs) and
    /// [`complete_deletions`](Self::complete_deletions). The others are done all the same.
    pub async fn sweep(&self, now: DateTime<Utc>) -> Result<Swept> {
        let store = self.with_batch_priority("sweep");
        // One that fails does not keep the others from being done.
        let auth_sessions = store.sweep_expired::<AuthSession>(now).await;
        let tickets = store.sweep_expired::<Ticket>(now).await;
        let idempotency_entries = store.sweep_answers(now).await;
        let client_sequences = store.sweep_expired::<ClientSequence>(now).await;
        let deletions = store.complete_deletions().await;
        let blobs = store.collect_blobs(now).await;
        Ok(Swept {
            auth_sessions: auth_sessions?,
            tickets: tickets?,
            idempotency_entries: idempotency_entries?,
            client_sequences: client_sequences?,
            blobs: blobs?,
            deletions: deletions?,
        })
    }

    /// Removes the records of which the hour is over in which they end, and says how many they were.
    /// A transaction for each hundred.
    ///
    /// # Errors
    ///
    /// `Invalid` if `E` was not declared to the store; `IndexBuilding` if the index is not built;
    /// those of [`run`](Self::run).
    pub async fn sweep_expired<E: Expiring>(&self, now: DateTime<Utc>) -> Result<u64> {
        let size = BatchSize::new(BATCH);
        let sweep = |tx: Transaction, limit: BatchLimit| async move {
            let over = over::<E>(&tx, limit, now).await?;
            let keys: Vec<_> = over.iter().map(|record| (record.scope(), record.key())).collect();
            map_concurrent(&keys, |(scope, key)| tx.delete::<E>(*scope, key)).await?;
            Ok::<_, Error>(keys.len())
        };
        let mut removed = 0;
        loop {
            match self.run_batch(&size, sweep).await? {
                0 => return Ok(removed),
                some => removed += some as u64,
            }
        }
    }

    /// As [`sweep_expired`](Self::sweep_expired), of the answers to requests with an idempotency
    /// key, whose bytes are released.
    async fn sweep_answers(&self, now: DateTime<Utc>) -> Result<u64> {
        let size = BatchSize::new(BATCH);
        let sweep = |tx: Transaction, limit: BatchLimit| async move {
            let over = over::<IdempotencyEntry>(&tx, limit, now).await?;
            let delete = |entry: IdempotencyEntry| {
                let tx = tx.clone();
                async move { tx.delete::<IdempotencyEntry>(entry.tenant_id, entry.key()).await }
            };
            for removed in map_concurrent(over.iter().cloned(), delete).await?.iter().flatten() {
                tx.release(removed.tenant_id, Counter::BYTES, removed.counted_bytes())?;
            }
            Ok::<_, Error>(over.len())
        };
        let mut removed = 0;
        loop {
            match self.run_batch(&size, sweep).await? {
                0 => return Ok(removed),
                some => removed += some as u64,
            }
        }
    }

    /// Removes the blobs that no record holds and whose leases have ended at `now`, and returns their
    /// number. Two transactions each, and one for each megabyte.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub async fn collect_blobs(&self, now: DateTime<Utc>) -> Result<u64> {
        let size = BatchSize::new(BATCH);
        let mut collected = 0;
        loop {
            let due = |tx: Transaction, limit: BatchLimit| async move {
                let due = tx.scan(&DetachedBlob::BY_DUE, Global, ..now.timestamp());
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

/// Returns the first records whose hour of expiry is over.
async fn over<E: Expiring>(
    tx: &Transaction,
    limit: BatchLimit,
    now: DateTime<Utc>,
) -> Result<Vec<E>> {
    Ok(tx.scan(E::EXPIRY, Global, hours_over(now)).page(limit.rows(), None).await?.items)
}
