//! Writing a blob.

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use super::{Blob, CHUNK_BYTES, LEASE, chunk_key, gone};
use crate::{
    Clock, Error, ErrorKind, Result, Store, Transaction,
    model::{BlobId, BlobState, DetachedBlob, TenantId},
};

/// What one transaction writes, in bytes: whole chunks, within the megabyte that FoundationDB's
/// manual advises ("Performance considerations").
const BATCH_BYTES: usize = 90 * CHUNK_BYTES;

/// A blob that is being written.
///
/// It is dropped to be given up, and [collected](crate::Store::collect_blobs) then, when it was left
/// alone for half an hour or more; [`abandon`](Self::abandon) does that at once.
///
/// ```
/// # use coditect_store::{BlobUpload, Clock, Result, Store, model::TenantId};
/// # async fn example(store: Store, tenant: TenantId, mut pieces: impl Iterator<Item = Vec<u8>>) -> Result<()> {
/// let mut upload = BlobUpload::begin(&store, tenant, &Clock::system()).await?;
/// for piece in pieces {
///     upload.write(&piece).await?;
/// }
/// let blob = upload.finish().await?;
/// // Every byte is durable now, and nobody sees it yet: that is for a record to say.
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct BlobUpload {
    store: Store,
    clock: Clock,
    tenant: TenantId,
    id: BlobId,
    /// What is not written yet: less than a batch, between calls.
    buffer: Vec<u8>,
    /// Of what is written.
    hash: Sha256,
    size: u64,
}

impl BlobUpload {
    /// Begins one. One transaction.
    ///
    /// # Errors
    ///
    /// Those of [`Store::run`].
    pub async fn begin(store: &Store, tenant: TenantId, clock: &Clock) -> Result<Self> {
        let id = BlobId::new();
        let state = BlobState::Uploading;
        let collect_after = clock.now() + LEASE;
        let detached = &DetachedBlob { id, tenant_id: tenant, state, collect_after };
        let begin = |tx: Transaction| async move {
            match tx.create(detached).await {
                // Nobody else has this id: an attempt came through whose outcome was unknown.
                Err(error) if error.kind() == ErrorKind::Exists => Ok(()),
                outcome => outcome,
            }
        };
        store.run_idempotent(begin).await?;
        let (store, clock) = (store.clone(), clock.clone());
        Ok(Self { store, clock, tenant, id, buffer: Vec::new(), hash: Sha256::new(), size: 0 })
    }

    /// How many bytes were given so far.
    pub fn size(&self) -> u64 {
        self.size + self.buffer.len() as u64
    }

    /// Appends `bytes`. It keeps less than a megabyte, and writes the rest: one transaction for each
    /// 900,000 bytes. If it fails, or its future is dropped, an unknown part of `bytes` is appended,
    /// and the upload is of no use any more.
    ///
    /// # Errors
    ///
    /// `NotFound` if it was left alone for so long that it was collected; those of [`Store::run`].
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = BATCH_BYTES - self.buffer.len();
            let (front, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(front);
            bytes = rest;
            if self.buffer.len() == BATCH_BYTES {
                self.flush(LEASE / 2).await?;
            }
        }
        Ok(())
    }

    /// Writes what is left, and gives the blob, for a transaction to
    /// [attach](Transaction::attach) within the hour. One transaction.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub async fn finish(mut self) -> Result<Blob> {
        self.flush(LEASE).await?;
        Ok(Blob { id: self.id, size: self.size, sha256: self.hash.finalize().into() })
    }

    /// Gives it up, and removes what was written. A transaction for each megabyte.
    ///
    /// # Errors
    ///
    /// Those of [`Store::run`]; what is left is collected later.
    pub async fn abandon(self) -> Result<()> {
        super::collect::remove(&self.store, self.tenant, self.id, None).await
    }

    /// Writes the buffer as the chunks behind those that are there, and keeps them for `lease` at least.
    /// Once more is the same.
    async fn flush(&mut self, lease: TimeDelta) -> Result<()> {
        let (tenant, id, now, buffer) = (self.tenant, self.id, self.clock.now(), &self.buffer);
        let first = self.size / CHUNK_BYTES as u64;
        let write = |tx: Transaction| async move {
            renew(&tx, tenant, id, (now, lease)).await?;
            for (n, chunk) in (first..).zip(buffer.chunks(CHUNK_BYTES)) {
                tx.engine().set(&chunk_key(tx.root(), tenant, id, n), chunk);
            }
            Ok::<_, Error>(())
        };
        self.store.run_idempotent(write).await?;
        self.hash.update(&self.buffer);
        self.size += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Makes sure that the blob is not being collected, and will not be for as long as `at_least`.
async fn renew(
    tx: &Transaction,
    tenant: TenantId,
    id: BlobId,
    (now, at_least): (DateTime<Utc>, TimeDelta),
) -> Result<()> {
    let detached = tx.get::<DetachedBlob>(tenant, id).await?.ok_or_else(gone)?;
    if detached.state != BlobState::Uploading {
        return Err(gone());
    }
    if detached.collect_after < now + at_least {
        tx.update(&DetachedBlob { collect_after: now + LEASE, ..detached }).await?;
    }
    Ok(())
}
