//! Blobs: bytes of any length, written and read in bounded memory.
//!
//! ```text
//! (T, "blob_chunks", blob, n)  → bytes      CHUNK_BYTES of them, fewer in the last chunk; n from 0
//! (T, "detached_blobs", blob)  → DetachedBlob   while no record holds it
//! ```
//!
//! A blob is [uploaded](BlobUpload) by as many transactions as it needs, and nobody sees it. Then one
//! transaction makes it a record's: it [attaches](Transaction::attach) the blob and writes the record
//! that has it as a field. A record that is deleted, or written without it, detaches it.
//!
//! What stays true:
//!
//! - A blob never changes: another content is another blob. So it is read in as many transactions as
//!   that takes, and all of them see the same bytes.
//! - From before its first chunk to after its last, a blob is either detached or held by one record,
//!   whatever is broken off and where: no chunk is ever lost sight of.
//! - An upload holds a lease of [`UPLOAD_LEASE`], which each write renews. A blob that is detached from
//!   its record is kept for [`READ_LEASE`], which readers [renew](crate::Store::renew_read_leases).
//!   A blob is collected when its lease has ended, never while it can still be attached: collecting
//!   begins by making that impossible.
//! - The tenant's [`BYTES`](crate::Counter::BYTES) counter is the sum of the sizes of all blobs that
//!   records hold and of the [counted bytes](DetachedBlob::counted_bytes) of all detached ones: an
//!   upload is counted from its first byte on, a deleted content until its chunks are removed.
//! - Length and hash are the record's, so what was attached is what was uploaded, to the byte.

mod check;
mod collect;
mod reader;
mod readers;
mod upload;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{BoxFuture, try_join_all};
use serde::{Deserialize, Serialize};

pub use check::{BlobFault, BlobFinding};
pub(crate) use check::{check, counted_bytes};
pub(super) use collect::remove_all;
pub use reader::BlobReader;
pub(crate) use readers::Readers;
pub use upload::{BlobUpload, Reservation};

use super::{TenantTransaction, Transaction};
use crate::{
    Counter, Error, ErrorKind, Result,
    keyspace::{KeyPart as _, Root, Space},
    model::{BlobId, BlobState, DetachedBlob, TenantId},
};

/// How long a chunk is, in bytes; the last one of a blob may be shorter. Persisted. FoundationDB's
/// manual, "Large values", has them at 10 kB.
pub const CHUNK_BYTES: usize = 10_000;

/// Where chunks lie.
pub(crate) const CHUNKS: Space<TenantId> = Space::tenant("blob_chunks").keyed(&["blob", "n"]);

/// How long an upload that is not written to is kept before it is collected.
pub const UPLOAD_LEASE: TimeDelta = TimeDelta::minutes(30);

/// How long a blob is kept after it was detached, for those who read it. A reader that needs longer
/// [renews](crate::Store::renew_read_leases) it.
pub const READ_LEASE: TimeDelta = TimeDelta::seconds(15);

/// Bytes that were uploaded: where they are, how many, and their hash. It is a field of the record
/// that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Blob {
    /// Its id.
    pub id: BlobId,
    /// How long it is, in bytes.
    pub size: u64,
    /// The SHA-256 of all its bytes.
    pub sha256: [u8; 32],
}

impl Blob {
    /// How many chunks it has.
    pub fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK_BYTES as u64)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({}, {} bytes)", self.id.0, self.size)
    }
}

impl Transaction {
    /// Makes `blob`, which was uploaded, that of a record which this transaction writes. It stays
    /// counted; what was reserved beyond its size is released. Two reads of one key, which conflict
    /// with its collection.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not detached: it was attached before, or was left for so long that it was
    /// collected. Nothing of this call is written then, and the transaction can go on. A blob that was
    /// detached from its record is `NotFound` too, unless this very transaction has done that.
    pub async fn attach(&self, tenant: TenantId, blob: &Blob) -> Result<()> {
        let detached = self.get::<DetachedBlob>(tenant, blob.id).await?;
        let is_free = |detached: &DetachedBlob| {
            detached.state == BlobState::Uploading || self.detached().contains_key(&blob.id)
        };
        let detached = detached.filter(is_free).ok_or_else(gone)?;
        // Another call that runs together with this one may have been faster.
        self.delete::<DetachedBlob>(tenant, blob.id).await?.ok_or_else(gone)?;
        self.detached().remove(&blob.id);
        match counted(detached.counted_bytes).saturating_sub(counted(blob.size)) {
            0 => Ok(()),
            unused => self.release(tenant, Counter::BYTES, unused),
        }
    }

    /// Detaches `blob` from its record, which this transaction deletes or changes. Its chunks are
    /// [collected](crate::Store::collect_blobs) once [`READ_LEASE`] is over, and counted until then.
    /// One read.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if it is detached already.
    pub async fn detach(&self, tenant: TenantId, blob: &Blob, now: DateTime<Utc>) -> Result<()> {
        let detached = detached(tenant, blob, now);
        if self.detached().get(&blob.id) == Some(&false) {
            // With its record: from now on it is kept as the caller says.
            self.upsert(&detached).await?;
        } else {
            self.create(&detached).await?;
        }
        self.detached().insert(blob.id, true);
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<BlobId, Vec<u8>>> {
        self.progress.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn detached(&self) -> MutexGuard<'_, BTreeMap<BlobId, bool>> {
        self.progress.detached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Detaches the blobs of the record `key`, which is deleted or changed, but for those that are detached
/// already, or that another record of this transaction holds. A read for each, in one round.
pub(super) async fn detach_all(
    tx: &Transaction,
    (tenant, key): (TenantId, &[u8]),
    mut blobs: Vec<Blob>,
    now: DateTime<Utc>,
) -> Result<()> {
    blobs.retain(|blob| {
        let mut held = tx.held();
        let is_held = held.get(&blob.id).is_some_and(|holder| holder != key);
        if !is_held {
            held.remove(&blob.id);
        }
        !is_held && !tx.detached().contains_key(&blob.id)
    });
    let detach =
        blobs.iter().map(async |blob| match tx.create(&detached(tenant, blob, now)).await {
            Ok(()) => {
                tx.detached().insert(blob.id, false);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        });
    try_join_all(detach).await.map(drop)
}

/// Notes that the record `key` holds `blobs`, and attaches those again that this transaction has
/// detached from another record.
pub(super) async fn take_over(
    tx: &Transaction,
    (tenant, key): (TenantId, &[u8]),
    blobs: Vec<Blob>,
) -> Result<()> {
    for blob in blobs {
        if tx.detached().get(&blob.id) == Some(&false) {
            forget(tx, tenant, blob.id).await?;
            tx.detached().remove(&blob.id);
        }
        tx.held().insert(blob.id, key.to_vec());
    }
    Ok(())
}

/// Deletes the record of a detached blob. Boxed, since that is a record too.
fn forget(tx: &Transaction, tenant: TenantId, blob: BlobId) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move { tx.delete::<DetachedBlob>(tenant, blob).await.map(drop) })
}

fn detached(tenant_id: TenantId, blob: &Blob, now: DateTime<Utc>) -> DetachedBlob {
    DetachedBlob {
        id: blob.id,
        tenant_id,
        state: BlobState::Released,
        collect_after: now + READ_LEASE,
        counted_bytes: blob.size,
    }
}

impl TenantTransaction {
    /// As [`Transaction::attach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn attach(&self, blob: &Blob) -> Result<()> {
        self.tx.attach(self.tenant, blob).await
    }

    /// As [`Transaction::detach`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn detach(&self, blob: &Blob, now: DateTime<Utc>) -> Result<()> {
        self.tx.detach(self.tenant, blob, now).await
    }
}

/// The key of the chunk `n`.
fn chunk_key(root: &Root, tenant: TenantId, blob: BlobId, n: u64) -> Vec<u8> {
    let mut key = CHUNKS.key(root, tenant, &blob);
    n.pack(&mut key);
    key
}

/// A size as a counter has it.
pub(crate) fn counted(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "the blob is not there, or not any more")
}
