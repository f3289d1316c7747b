//! Writes a blob.

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use super::{
    Blob, BlobId, BlobState, CHUNK_BYTES, OrphanBlob, UPLOAD_LEASE, chunk_key, counted, gone,
};
use crate::{Clock, Counter, Error, ErrorKind, Result, Store, Transaction, keyspace::TenantId};

/// Bytes written by one transaction: whole chunks, below the megabyte recommended by FoundationDB's
/// manual ("Performance considerations").
const BATCH_BYTES: usize = 90 * CHUNK_BYTES;

/// Age at which a write renews a lease.
const RENEWAL_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// The quota of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Id of the blob.
    pub id: BlobId,
    /// Bytes counted from the start: the expected size, or 0. Bytes beyond them are counted as they
    /// are written.
    pub bytes: u64,
    /// Limit of the tenant's [`BYTES`](Counter::BYTES) counter for this upload.
    pub limit: i64,
}

/// An upload of a blob. Its bytes are counted from the first one.
///
/// [`discard`](Self::discard) removes the written bytes at once. A dropped upload is
/// [collected](crate::Store::collect_blobs) after its lease of [`UPLOAD_LEASE`].
///
/// ```
/// # use coditect_store::{BlobUpload, Clock, Result, Store, model::TenantId};
/// # async fn example(
/// #     store: Store, tenant: TenantId, pieces: impl Iterator<Item = Vec<u8>>,
/// # ) -> Result<()> {
/// let mut upload = BlobUpload::begin(&store, tenant, &Clock::system()).await?;
/// for piece in pieces {
///     upload.write(&piece).await?;
/// }
/// let blob = upload.finish().await?;
/// // The bytes are durable, and not visible until a record has the blob.
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct BlobUpload {
    store: Store,
    clock: Clock,
    tenant: TenantId,
    id: BlobId,
    /// Bytes not written yet: less than a batch, between calls.
    buffer: Vec<u8>,
    /// Hash of the written bytes.
    hash: Sha256,
    /// Number of written bytes.
    size: u64,
    limit: i64,
    /// Whether a write failed or was dropped: an unknown part of its bytes is in the buffer.
    interrupted: bool,
}

impl BlobUpload {
    /// Maximum number of bytes that are in memory and not written yet.
    pub const BATCH_BYTES: usize = BATCH_BYTES;

    /// Begins an upload without a reservation and a limit. One transaction.
    ///
    /// # Errors
    ///
    /// Errors of [`Store::run`].
    pub async fn begin(store: &Store, tenant: TenantId, clock: &Clock) -> Result<Self> {
        let reservation = Reservation { id: BlobId::new(), bytes: 0, limit: i64::MAX };
        Self::reserve(store, tenant, reservation, clock).await
    }

    /// Begins an upload within the tenant's quota. One transaction.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if the reservation exceeds the limit, `AlreadyExists` if an upload has this
    /// id; errors of [`Store::run`].
    pub async fn reserve(
        store: &Store,
        tenant: TenantId,
        Reservation { id, bytes, limit }: Reservation,
        clock: &Clock,
    ) -> Result<Self> {
        let state = BlobState::Uploading;
        let collect_after = clock.now() + UPLOAD_LEASE;
        let detached =
            &OrphanBlob { id, tenant_id: tenant, state, collect_after, counted_bytes: bytes };
        let begin = |tx: Transaction| async move {
            match tx.insert(detached).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    // An earlier attempt with unknown outcome has committed.
                    let found = tx.get::<OrphanBlob>(tenant, id).await?;
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

    /// Returns the number of bytes given so far.
    pub fn size(&self) -> u64 {
        self.size + self.buffer.len() as u64
    }

    /// Appends `bytes`. Buffers less than a megabyte, and writes the rest: one transaction per
    /// 900,000 bytes. If it fails, or its future is dropped, an unknown part of `bytes` is
    /// appended, and the only valid call is [`discard`](Self::discard).
    ///
    /// # Errors
    ///
    /// `NotFound` if the upload was collected after its lease; `QuotaExceeded` if the limit is
    /// exceeded; `Invalid` after a failed or dropped write; errors of [`Store::run`].
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
        let message = "an earlier write of this upload failed or was dropped: begin another upload";
        Err(Error::new(ErrorKind::Invalid, message))
    }

    /// Writes the buffered bytes and returns the blob, to be [attached](Transaction::attach) before
    /// its lease expires. One transaction.
    ///
    /// # Errors
    ///
    /// Errors of [`write`](Self::write).
    pub async fn finish(mut self) -> Result<Blob> {
        self.refuse_interrupted()?;
        self.flush().await?;
        Ok(Blob { id: self.id, size: self.size, sha256: self.hash.finalize().into() })
    }

    /// Removes the written bytes, as [`Store::discard_blob`] does. One transaction per megabyte.
    ///
    /// # Errors
    ///
    /// Errors of [`Store::run`]; the rest is collected later.
    pub async fn discard(self) -> Result<()> {
        super::collect::remove(&self.store, self.tenant, self.id, None).await
    }

    /// Writes the buffer as the next chunks, counts bytes beyond the reservation, and renews the
    /// lease. Idempotent.
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

/// Counts the blob with `size` bytes, and renews its lease.
async fn extend(
    tx: &Transaction,
    tenant: TenantId,
    id: BlobId,
    (size, limit): (u64, i64),
    now: DateTime<Utc>,
) -> Result<()> {
    let detached = tx.get::<OrphanBlob>(tenant, id).await?.ok_or_else(gone)?;
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
    let extended = OrphanBlob { collect_after, counted_bytes, ..detached.clone() };
    if extended == detached { Ok(()) } else { tx.update(&extended).await }
}
