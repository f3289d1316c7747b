//! The blobs that this process reads, and the renewal of their leases.
//!
//! A blob that is detached while it is read is kept for [`READ_LEASE`]. A process that reads for longer
//! renews that lease, so a slow download of a file that was replaced ends with the bytes it began with.
//! If the process dies, or fails to renew in time, the blob is collected, and a reader gets `NotFound`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::READ_LEASE;
use crate::{
    BatchLimit, BatchSize, Error, Result, Store, Transaction,
    batch::map_concurrent,
    model::{BlobId, BlobState, DetachedBlob, TenantId},
};

/// The longest time for which leases of one read are renewed.
const MAX_READ: TimeDelta = TimeDelta::hours(1);
/// The most blobs that one transaction looks at.
const BATCH: usize = 100;

type Key = (TenantId, BlobId);

/// The blobs that readers of this process are reading.
#[derive(Debug, Default)]
pub(crate) struct Readers(Mutex<BTreeMap<Key, Reading>>);

#[derive(Debug, Default)]
struct Reading {
    readers: usize,
    /// The time of the first renewal that found it.
    since: Option<DateTime<Utc>>,
}

/// One reader, for as long as it lives.
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

    /// Returns the blobs whose leases are to be renewed at `now`. A read that an earlier call has not
    /// seen is younger than the lease of any blob that was detached during it.
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
    /// process that streams blobs calls it at least three times in each [`READ_LEASE`]. A read is
    /// renewed from the second call on that finds it, for an hour. One read for each of these.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
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

/// Renews the lease of a blob, if it is detached and has less than a whole lease left; returns
/// whether it was.
async fn renew(tx: Transaction, tenant: TenantId, id: BlobId, now: DateTime<Utc>) -> Result<bool> {
    let detached = tx.get::<DetachedBlob>(tenant, id).await?;
    let collect_after = now + READ_LEASE;
    let is_due = |blob: &DetachedBlob| {
        blob.state == BlobState::Released && blob.collect_after < collect_after
    };
    let Some(detached) = detached.filter(is_due) else { return Ok(false) };
    tx.update(&DetachedBlob { collect_after, ..detached }).await?;
    Ok(true)
}
