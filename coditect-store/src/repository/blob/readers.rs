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
    Error, Result, Store, Transaction,
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
        let mut renewed = 0;
        for keys in self.readers().renewable(now).chunks(BATCH) {
            let renew = |tx: Transaction| async move {
                let mut renewed = 0;
                for (tenant, id) in keys {
                    let detached = tx.get::<DetachedBlob>(*tenant, id).await?;
                    let released = |blob: &DetachedBlob| blob.state == BlobState::Released;
                    if let Some(detached) = detached.filter(released)
                        && detached.collect_after < now + READ_LEASE
                    {
                        let collect_after = now + READ_LEASE;
                        tx.update(&DetachedBlob { collect_after, ..detached }).await?;
                        renewed += 1;
                    }
                }
                Ok::<_, Error>(renewed)
            };
            renewed += self.run_idempotent(renew).await?;
        }
        Ok(renewed)
    }
}
