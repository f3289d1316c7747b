//! Reads a blob, or a part of it.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::{Blob, CHUNK_BYTES, OrphanBlob, chunk_key, gone, readers::Pin};
use crate::{
    Error, ErrorKind, Result, Store, Transaction,
    engine::{KeySelector, RangeQuery},
    entity::CHUNKS,
    keyspace::{KeyRange, TenantId, unpack_all},
};

/// Maximum number of chunks read at once.
const BATCH: u64 = 32;

/// Reads a blob in pieces, each in a transaction of its own without conflicts.
///
/// The bytes are verified: size and position of each chunk, and, if the whole blob is read, its
/// hash before the last piece is returned.
///
/// ```
/// # use coditect_store::{Blob, BlobReader, Result, Store, model::TenantId};
/// # async fn example(store: Store, tenant: TenantId, blob: Blob, mut out: Vec<u8>) -> Result<()> {
/// let mut reader = BlobReader::new(&store, tenant, blob);
/// while let Some(piece) = reader.next().await? {
///     out.extend_from_slice(&piece);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct BlobReader {
    store: Store,
    tenant: TenantId,
    blob: Blob,
    /// Remaining bytes.
    rest: Range<u64>,
    /// Hash of the bytes read, if the whole blob is read.
    hash: Option<Sha256>,
    /// Renews the blob's lease in this process if it is detached during the read.
    _pin: Pin,
}

impl BlobReader {
    /// Maximum size of a piece, in bytes.
    pub const MAX_PIECE_BYTES: u64 = BATCH * CHUNK_BYTES as u64;

    /// Creates a reader of all of `blob`.
    pub fn new(store: &Store, tenant: TenantId, blob: Blob) -> Self {
        Self::of(store, tenant, blob, 0..blob.size)
    }

    /// Creates a reader of the bytes from `range.start` (inclusive) to `range.end` (exclusive). The
    /// hash is verified only if the range is the whole blob.
    ///
    /// # Errors
    ///
    /// `Invalid` if the range starts after its end, or ends after the blob.
    pub fn range(store: &Store, tenant: TenantId, blob: Blob, range: Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > blob.size {
            return Err(Error::new(ErrorKind::Invalid, "the range is outside of the blob"));
        }
        Ok(Self::of(store, tenant, blob, range))
    }

    fn of(store: &Store, tenant: TenantId, blob: Blob, rest: Range<u64>) -> Self {
        let hash = (rest == (0..blob.size)).then(Sha256::new);
        let pin = store.readers().pin(tenant, blob.id);
        Self { store: store.clone(), tenant, blob, rest, hash, _pin: pin }
    }

    /// Returns the number of remaining bytes.
    pub fn remaining(&self) -> u64 {
        self.rest.end - self.rest.start
    }

    /// Returns the next bytes, up to 320 kB; `None` at the end. One read. Can be called again after
    /// an error.
    ///
    /// # Errors
    ///
    /// `NotFound` if the blob was collected; `Corrupt` if chunks are missing or differ from the
    /// upload; errors of [`Store::run`].
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (piece, end) = self.piece().await?;
        let hash = self.hash.clone().map(|hash| hash.chain_update(&piece));
        if end == self.rest.end
            && let Some(hash) = &hash
            && hash.clone().finalize()[..] != self.blob.sha256
        {
            let message = "the hash of a blob differs from that of its upload";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        self.hash = hash;
        self.rest.start = end;
        Ok(Some(piece))
    }

    /// Returns the next piece, and its end.
    async fn piece(&self) -> Result<(Vec<u8>, u64)> {
        let chunk_bytes = CHUNK_BYTES as u64;
        let first = self.rest.start / chunk_bytes;
        let last = self.rest.end.div_ceil(chunk_bytes).min(first + BATCH);
        let (tenant, blob) = (self.tenant, &self.blob);
        let read = |tx| async move { chunks(&tx, tenant, blob, first..last).await };
        let mut bytes = self.store.run(read).await?;
        let end = self.rest.end.min(last * chunk_bytes);
        bytes.truncate(length(first * chunk_bytes..end));
        bytes.drain(..length(first * chunk_bytes..self.rest.start));
        // The vector had room for whole chunks.
        bytes.shrink_to_fit();
        Ok((bytes, end))
    }
}

/// Returns the length of a range within a batch.
fn length(range: Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

/// Returns the bytes of the chunks `numbers` of `blob`.
async fn chunks(
    tx: &Transaction,
    tenant: TenantId,
    blob: &Blob,
    numbers: Range<u64>,
) -> Result<Vec<u8>> {
    let key = |n| chunk_key(tx.root(), tenant, blob.id, n);
    let query = RangeQuery::new(key(numbers.start), key(numbers.end));
    let rows = tx.engine().snapshot().get_range(&query).await?.rows;
    let prefix = CHUNKS.key(tx.root(), tenant, &blob.id);
    let mut bytes = Vec::with_capacity(rows.iter().map(|row| row.value.len()).sum());
    let mut rows = rows.iter();
    for n in numbers {
        let expected = (blob.size - n * CHUNK_BYTES as u64).min(CHUNK_BYTES as u64);
        let row = rows.next().filter(|row| {
            row.value.len() as u64 == expected
                && unpack_all::<u64>(&row.key[prefix.len()..]).is_ok_and(|found| found == n)
        });
        let Some(row) = row else {
            return Err(missing(tx, tenant, blob).await?);
        };
        bytes.extend_from_slice(&row.value);
    }
    Ok(bytes)
}

/// Returns the error for a missing chunk: whether the blob was collected, or is damaged.
async fn missing(tx: &Transaction, tenant: TenantId, blob: &Blob) -> Result<Error> {
    let range = KeyRange::tuples(&CHUNKS.key(tx.root(), tenant, &blob.id));
    let first = KeySelector::first_greater_or_equal(range.begin.clone());
    let some_are_left = range.contains(&tx.engine().snapshot().get_key(&first).await?);
    let detached = tx.get::<OrphanBlob>(tenant, blob.id).await?.is_some();
    let deleted = match tx.context.schema.tenant_deletion(tx.root(), tenant) {
        Some(key) => tx.engine().get(&key).await?.is_some(),
        None => false,
    };
    if some_are_left && !detached && !deleted {
        return Ok(Error::new(ErrorKind::Corrupt, "a chunk of a blob is missing or damaged"));
    }
    Ok(gone())
}
