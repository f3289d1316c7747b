//! Writing a blob.

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use super::{Blob, CHUNK_BYTES, UPLOAD_LEASE, chunk_key, counted, gone};
use crate::{
    Clock, Counter, Error, ErrorKind, Result, Store, Transaction,
    model::{BlobId, BlobState, DetachedBlob, TenantId},
};

/// What one transaction writes, in bytes: whole chunks, within the megabyte that FoundationDB's
/// manual advises ("Performance considerations").
const BATCH_BYTES: usize = 90 * CHUNK_BYTES;

/// A lease is renewed when a write finds it older than this.
const RENEWAL_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// What an upload takes of its tenant's quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The id that the blob gets.
    pub id: BlobId,
    /// The bytes that are counted from the beginning on: the expected size, or 0. What is written
    /// beyond them is counted as it is written.
    pub bytes: u64,
    /// The limit of the tenant's [`BYTES`](Counter::BYTES) counter for this upload.
    pub limit: i64,
}

/// A blob that is being written. Its bytes are counted from the first one on.
///
/// [`abandon`](Self::abandon) removes what was written at once. An upload that is dropped is
/// [collected](crate::Store::collect_blobs) when its lease of [`UPLOAD_LEASE`] has ended.
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
    /// The hash of all bytes that are written.
    hash: Sha256,
    /// The number of bytes that are written.
    size: u64,
    limit: i64,
    /// Whether a write was begun and has not ended well: how much of it is in the buffer is unknown.
    interrupted: bool,
}

impl BlobUpload {
    /// Maximum number of bytes that are in memory and not written yet.
    pub const BATCH_BYTES: usize = BATCH_BYTES;

    /// Begins an upload that reserves nothing and has no limit. One transaction.
    ///
    /// # Errors
    ///
    /// Those of [`Store::run`].
    pub async fn begin(store: &Store, tenant: TenantId, clock: &Clock) -> Result<Self> {
        let reservation = Reservation { id: BlobId::new(), bytes: 0, limit: i64::MAX };
        Self::reserve(store, tenant, reservation, clock).await
    }

    /// Begins an upload within a limit of the tenant. One transaction.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if what is reserved exceeds the limit, `AlreadyExists` if there is an upload of this id; those
    /// of [`Store::run`].
    pub async fn reserve(
        store: &Store,
        tenant: TenantId,
        Reservation { id, bytes, limit }: Reservation,
        clock: &Clock,
    ) -> Result<Self> {
        let state = BlobState::Uploading;
        let collect_after = clock.now() + UPLOAD_LEASE;
        let detached =
            &DetachedBlob { id, tenant_id: tenant, state, collect_after, counted_bytes: bytes };
        let begin = |tx: Transaction| async move {
            match tx.create(detached).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    // An attempt whose outcome was unknown has committed.
                    let found = tx.get::<DetachedBlob>(tenant, id).await?;
                    if found.as_ref() == Some(detached) { Ok(()) } else { Err(error) }
                }
                Ok(()) if bytes > 0 => {
                    tx.charge(tenant, Counter::BYTES, counted(bytes), limit).await
                }
                outcome => outcome,
            }
        };
        store.run_idempotent(begin).await?;
        let (store, clock) = (store.clone(), clock.clone());
        let (buffer, hash, size) = (Vec::new(), Sha256::new(), 0);
        Ok(Self { store, clock, tenant, id, buffer, hash, size, limit, interrupted: false })
    }

    /// Returns the id of the blob.
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Returns the number of bytes that were given so far.
    pub fn size(&self) -> u64 {
        self.size + self.buffer.len() as u64
    }

    /// Appends `bytes`. It keeps less than a megabyte, and writes the rest: one transaction for each
    /// 900,000 bytes. If it fails, or its future is dropped, an unknown part of `bytes` is appended,
    /// and the upload accepts nothing any more but [`abandon`](Self::abandon).
    ///
    /// # Errors
    ///
    /// `NotFound` if its lease ended and it was collected; `QuotaExceeded` if it exceeds its limit; `Invalid`
    /// if an earlier write failed or was dropped; those of [`Store::run`].
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.refuse_interrupted()?;
        self.interrupted = true;
        while !bytes.is_empty() {
            let room = BATCH_BYTES - self.buffer.len();
            let (front, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(front);
            bytes = rest;
            if self.buffer.len() == BATCH_BYTES {
                self.flush().await?;
            }
        }
        self.interrupted = false;
        Ok(())
    }

    fn refuse_interrupted(&self) -> Result<()> {
        if !self.interrupted {
            return Ok(());
        }
        let message = "a write to this upload failed or was dropped: begin another upload";
        Err(Error::new(ErrorKind::Invalid, message))
    }

    /// Writes what is left and returns the blob, for a transaction to
    /// [attach](Transaction::attach) before its lease ends. One transaction.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub async fn finish(mut self) -> Result<Blob> {
        self.refuse_interrupted()?;
        self.flush().await?;
        Ok(Blob { id: self.id, size: self.size, sha256: self.hash.finalize().into() })
    }

    /// Removes what was written, as [`Store::discard_blob`] does. A transaction for each megabyte.
    ///
    /// # Errors
    ///
    /// Those of [`Store::run`]; what is left is collected later.
    pub async fn abandon(self) -> Result<()> {
        super::collect::remove(&self.store, self.tenant, self.id, None).await
    }

    /// Writes the buffer as the next chunks, counts what exceeds the reservation, and renews the lease.
    /// Running it again writes the same.
    async fn flush(&mut self) -> Result<()> {
        let (tenant, id, now, buffer) = (self.tenant, self.id, self.clock.now(), &self.buffer);
        let first = self.size / CHUNK_BYTES as u64;
        let (size, limit) = (self.size + buffer.len() as u64, self.limit);
        let write = |tx: Transaction| async move {
            extend(&tx, tenant, id, (size, limit), now).await?;
            for (n, chunk) in (first..).zip(buffer.chunks(CHUNK_BYTES)) {
                tx.engine().set(&chunk_key(tx.root(), tenant, id, n), chunk);
            }
            Ok::<_, Error>(())
        };
        self.store.run_idempotent(write).await?;
        self.hash.update(&self.buffer);
        self.size = size;
        self.buffer.clear();
        Ok(())
    }
}

/// Counts the blob with `size` bytes and renews its lease.
async fn extend(
    tx: &Transaction,
    tenant: TenantId,
    id: BlobId,
    (size, limit): (u64, i64),
    now: DateTime<Utc>,
) -> Result<()> {
    let detached = tx.get::<DetachedBlob>(tenant, id).await?.ok_or_else(gone)?;
    if detached.state != BlobState::Uploading {
        return Err(gone());
    }
    let counted_bytes = detached.counted_bytes.max(size);
    let more = counted_bytes - detached.counted_bytes;
    if more > 0 {
        tx.charge(tenant, Counter::BYTES, counted(more), limit).await?;
    }
    let is_old = detached.collect_after < now + (UPLOAD_LEASE - RENEWAL_INTERVAL);
    let collect_after = if is_old { now + UPLOAD_LEASE } else { detached.collect_after };
    let extended = DetachedBlob { collect_after, counted_bytes, ..detached.clone() };
    if extended == detached { Ok(()) } else { tx.update(&extended).await }
}
