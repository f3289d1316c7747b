//! Blobs: byte strings of any length, written and read in bounded memory.
//!
//! ```text
//! (T, "blob_chunks", blob, n)  → bytes        CHUNK_BYTES, fewer in the last chunk; n from 0
//! (T, "orphan_blobs", blob)    → OrphanBlob   while no record has the blob
//! ```
//!
//! A blob is [uploaded](BlobUpload) by several transactions, and is not visible. Then one
//! transaction [attaches](Transaction::attach) it and writes the record that has it as a field.
//! Deleting the record, or writing it without the blob, detaches the blob.
//!
//! # Invariants
//!
//! - A blob never changes: other content is another blob. So several transactions that read it see
//!   the same bytes.
//! - From before its first chunk is written until after its last is removed, a blob is either
//!   detached or held by one record, regardless of interruptions: no chunk leaks.
//! - An upload has a lease of [`UPLOAD_LEASE`], renewed by each write. A detached blob is kept for
//!   [`READ_LEASE`], which readers [renew](crate::Store::renew_read_leases). A blob is collected
//!   after its lease, and not while it can be attached: collection first makes it unattachable.
//! - A tenant's [`BYTES`](crate::Counter::BYTES) counter is the sum of the sizes of all blobs held
//!   by records and of the [counted bytes](OrphanBlob::counted_bytes) of all detached ones: an
//!   upload counts from its first byte, deleted content until its chunks are removed.
//! - The record has size and hash, so the bytes read are the bytes uploaded.

mod check;
mod collect;
mod orphan;
mod reader;
mod readers;
mod upload;

use std::{
    collections::BTreeMap,
    sync::{MutexGuard, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{BoxFuture, try_join_all};

pub use crate::entity::{Blob, BlobId, CHUNK_BYTES};
pub use check::BlobFault;
pub(crate) use check::{check, confirm, counted_bytes};
pub(crate) use collect::remove_all;
pub use orphan::{BlobState, OrphanBlob};
pub use reader::BlobReader;
pub(crate) use readers::Readers;
pub use upload::{BlobUpload, Reservation};

use super::Transaction;
use crate::{
    Counter, Error, ErrorKind, Result,
    entity::CHUNKS,
    keyspace::{KeyPart as _, Root, TenantId},
};

/// Time after which an upload without writes is collected.
pub const UPLOAD_LEASE: TimeDelta = TimeDelta::minutes(30);

/// Time for which a detached blob is kept for its readers, which can
/// [renew](crate::Store::renew_read_leases) it.
pub const READ_LEASE: TimeDelta = TimeDelta::seconds(15);

impl Transaction {
    /// Attaches an uploaded `blob` to a record that this transaction writes. It stays counted;
    /// bytes reserved beyond its size are released. Two reads of one key, which conflict with its
    /// collection.
    ///
    /// # Errors
    ///
    /// `NotFound` if the blob is not detached: it is attached already, or was collected after its
    /// lease. This call writes nothing then, and the transaction can continue. A blob detached from
    /// its record is `NotFound`, too, unless this transaction has detached it.
    pub async fn attach(&self, tenant: TenantId, blob: &Blob) -> Result<()> {
        let detached = self.get::<OrphanBlob>(tenant, blob.id).await?;
        let is_free = |detached: &OrphanBlob| {
            detached.state == BlobState::Uploading || self.detached().contains_key(&blob.id)
        };
        let detached = detached.filter(is_free).ok_or_else(gone)?;
        // A concurrent call of this transaction may have attached it.
        self.delete::<OrphanBlob>(tenant, blob.id).await?.ok_or_else(gone)?;
        self.detached().remove(&blob.id);
        match counted(detached.counted_bytes).saturating_sub(counted(blob.size)) {
            0 => Ok(()),
            unused => self.release(tenant, Counter::BYTES, unused),
        }
    }

    /// Detaches `blob` from its record, which this transaction deletes or changes. Its chunks are
    /// [collected](crate::Store::collect_blobs) after [`READ_LEASE`], and counted until then. One
    /// read.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if it is detached already.
    pub async fn detach(&self, tenant: TenantId, blob: &Blob, now: DateTime<Utc>) -> Result<()> {
        let detached = detached(tenant, blob, now);
        if self.detached().get(&blob.id) == Some(&false) {
            // Detached with its record before; the caller's time replaces that one.
            self.upsert(&detached).await?;
        } else {
            self.insert(&detached).await?;
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

/// Detaches the blobs of the record `key`, which is deleted or changed, except blobs that are
/// detached already, or that another record of this transaction has. One round of reads.
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
        blobs.iter().map(async |blob| match tx.insert(&detached(tenant, blob, now)).await {
            Ok(()) => {
                tx.detached().insert(blob.id, false);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        });
    try_join_all(detach).await.map(drop)
}

/// Records that the record `key` has `blobs`, and reattaches the ones that this transaction has
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

/// Deletes the record of a detached blob. Boxed because deleting a record calls this.
fn forget(tx: &Transaction, tenant: TenantId, blob: BlobId) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move { tx.delete::<OrphanBlob>(tenant, blob).await.map(drop) })
}

fn detached(tenant_id: TenantId, blob: &Blob, now: DateTime<Utc>) -> OrphanBlob {
    OrphanBlob {
        id: blob.id,
        tenant_id,
        state: BlobState::Released,
        collect_after: now + READ_LEASE,
        counted_bytes: blob.size,
    }
}

/// Returns the key of chunk `n`.
fn chunk_key(root: &Root, tenant: TenantId, blob: BlobId, n: u64) -> Vec<u8> {
    let mut key = CHUNKS.key(root, tenant, &blob);
    n.pack(&mut key);
    key
}

/// Converts a size to a counter's type.
pub(crate) fn counted(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "the blob does not exist, or was collected")
}
