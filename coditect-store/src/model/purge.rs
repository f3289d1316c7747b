//! The purge of the product: expired records, unreferenced blobs and pending deletions.

use chrono::{DateTime, Utc};

use super::{AuthSession, ClientSequence, IdempotencyEntry, Ticket};
use crate::{
    BatchLimit, BatchSize, Entity as _, Error, Result, Store, Transaction,
    batch::map_concurrent,
    records::{
        Counter,
        purge::{BATCH, over},
    },
};

/// The result of a [purge](Store::purge): numbers of removed records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeReport {
    /// Expired login sessions.
    pub auth_sessions: u64,
    /// Expired tickets.
    pub tickets: u64,
    /// Expired responses to idempotent requests.
    pub idempotency_entries: u64,
    /// Expired update sequences of clients.
    pub client_sequences: u64,
    /// Blobs without a record.
    pub blobs: u64,
    /// Completed deletions.
    pub deletions: u64,
}

impl Store {
    /// Removes everything of the product that has expired at `now`, and resumes pending deletions.
    ///
    /// # Errors
    ///
    /// Errors of [`purge_expired`](Self::purge_expired), [`collect_blobs`](Self::collect_blobs) and
    /// [`resume_deletions`](Self::resume_deletions). The others are run all the same.
    pub async fn purge(&self, now: DateTime<Utc>) -> Result<PurgeReport> {
        let store = self.with_batch_priority("purge");
        // A failure of one does not stop the others.
        let auth_sessions = store.purge_expired::<AuthSession>(now).await;
        let tickets = store.purge_expired::<Ticket>(now).await;
        let idempotency_entries = store.purge_responses(now).await;
        let client_sequences = store.purge_expired::<ClientSequence>(now).await;
        let deletions = store.resume_deletions().await;
        let blobs = store.collect_blobs(now).await;
        Ok(PurgeReport {
            auth_sessions: auth_sessions?,
            tickets: tickets?,
            idempotency_entries: idempotency_entries?,
            client_sequences: client_sequences?,
            blobs: blobs?,
            deletions: deletions?,
        })
    }

    /// As [`purge_expired`](Self::purge_expired), of the responses to requests with an idempotency
    /// key, whose bytes are released.
    async fn purge_responses(&self, now: DateTime<Utc>) -> Result<u64> {
        let size = BatchSize::new(BATCH);
        let purge = |tx: Transaction, limit: BatchLimit| async move {
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
            match self.run_batch(&size, purge).await? {
                0 => return Ok(removed),
                some => removed += some as u64,
            }
        }
    }
}
