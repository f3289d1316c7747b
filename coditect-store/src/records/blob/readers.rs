//! The blobs that this process reads, and their leases.
//!
//! A blob that is detached during a read is kept for [`READ_LEASE`]. The process renews that lease
//! for longer reads, so a slow download of a replaced file completes. If the process fails to renew
//! in time, the blob is collected, and the reader gets `NotFound`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{BlobId, BlobState, OrphanBlob, READ_LEASE};
use crate::{
    BatchLimit, BatchSize, Error, Result, Store, Transaction, batch::map_concurrent,
    keyspace::TenantId,
};

/// Maximum time for which the lease of one read is renewed.
const MAX_READ: TimeDelta = TimeDelta::hours(1);
/// Maximum number of blobs per transaction.
const BATCH: usize = 100;

type Key = (TenantId, BlobId);

/// The blobs that this process reads.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<BTreeMap<Key, Reading>>);

#[derive(Debug, Default)]
struct Reading {
    readers: usize,
    /// Time of the first renewal that found it.
    since: Option<DateTime<Utc>>,
}

/// Registration of one reader, until dropped.
#[derive(Debug)]
pub(super) struct Pin {
    readers: Arc<Readers>,
    key: Key,
}

impl Readers {
    /// Registers a reader of a blob.
    pub(super) fn pin(self: &Arc<Self>, tenant: TenantId, blob: BlobId) -> Pin {
        let key = (tenant, blob);
        self.lock().entry(key).or_default().readers += 1;
        Pin { readers: Arc::clone(self), key }
    }

    /// Returns the blobs whose leases must be renewed at `now`. A read found for the first time is
    /// younger than any lease that began during it.
    fn renewable(&self, now: DateTime<Utc>) -> Vec<Key> {
        let mut renewable = Vec::new();
        for (key, reading) in &mut *self.lock() {
            match reading.since {
                None => reading.since = Some(now),
                Some(since) if now - since <= MAX_READ => renewable.push(*key),
                Some(_) => {}
            }
        }
        renewable
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut all = self.readers.lock();
        if let Some(reading) = all.get_mut(&self.key) {
            reading.readers -= 1;
            if reading.readers == 0 {
                all.remove(&self.key);
            }
        }
    }
}

impl Store {
    /// Renews the leases of the detached blobs that this process reads, and returns their number. A
    /// process that streams blobs calls it at least three times per [`READ_LEASE`]. A read is
    /// renewed from the second call that finds it, for up to an hour. One read per blob.
    ///
    /// # Errors
    ///
    /// Errors of [`run`](Self::run).
    pub async fn renew_read_leases(&self, now: DateTime<Utc>) -> Result<u64> {
        let (mut renewed, size) = (0, BatchSize::new(BATCH));
        let renewable = self.readers().renewable(now);
        let mut rest = renewable.as_slice();
        while !rest.is_empty() {
            let renew = |tx: Transaction, limit: BatchLimit| async move {
                let keys = &rest[..rest.len().min(limit.rows())];
                let renew = |(tenant, id): Key| renew(tx.clone(), tenant, id, now);
                let renewed = map_concurrent(keys.iter().copied(), renew).await?;
                Ok::<_, Error>((keys.len(), renewed.into_iter().map(u64::from).sum::<u64>()))
            };
            let (done, count) = self.run_batch(&size, renew).await?;
            renewed += count;
            rest = &rest[done..];
        }
        Ok(renewed)
    }
}

/// Renews the lease of a detached blob, unless it is complete, and returns whether it did.
async fn renew(tx: Transaction, tenant: TenantId, id: BlobId, now: DateTime<Utc>) -> Result<bool> {
    let detached = tx.get::<OrphanBlob>(tenant, id).await?;
    let collect_after = now + READ_LEASE;
    let is_due =
        |blob: &OrphanBlob| blob.state == BlobState::Released && blob.collect_after < collect_after;
    let Some(detached) = detached.filter(is_due) else { return Ok(false) };
    tx.update(&OrphanBlob { collect_after, ..detached }).await?;
    Ok(true)
}
