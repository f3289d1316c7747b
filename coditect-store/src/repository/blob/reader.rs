//! Reading a blob, or a part of it.

use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::{Blob, CHUNK_BYTES, CHUNKS, chunk_key, gone, readers::Pin};
use crate::{
    Error, ErrorKind, Result, Store, Transaction,
    engine::{KeySelector, RangeQuery},
    keyspace::{Global, KeyRange, unpack_all},
    model::{Deleted, Deletion, DetachedBlob, TenantId},
};

/// Maximum number of chunks that are read at once.
const BATCH: u64 = 32;

/// Reads a blob piece by piece, each in a transaction of its own that conflicts with nothing.
///
/// What is read is what was uploaded, or an error. If the whole of a blob is read its hash is compared
/// too, before the last piece is given: who has all pieces has the right bytes.
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
    /// The bytes that are still to be given.
    rest: Range<u64>,
    /// Of all bytes so far, if it reads all.
    hash: Option<Sha256>,
    /// Has the process renew the blob's lease if it is detached meanwhile.
    _pin: Pin,
}

impl BlobReader {
    /// Maximum size of a piece, in bytes.
    pub const MAX_PIECE_BYTES: u64 = BATCH * CHUNK_BYTES as u64;

    /// Reads all of `blob`.
    pub fn new(store: &Store, tenant: TenantId, blob: Blob) -> Self {
        Self::of(store, tenant, blob, 0..blob.size)
    }

    /// Reads the bytes of `blob` from `range.start` up to, and without, `range.end`. The hash of a
    /// part is not known, so it is not compared, unless the part is all.
    ///
    /// # Errors
    ///
    /// `Invalid` if the range begins past its end, or ends past the blob's.
    pub fn range(store: &Store, tenant: TenantId, blob: Blob, range: Range<u64>) -> Result<Self> {
        if range.start > range.end || range.end > blob.size {
            return Err(Error::new(ErrorKind::Invalid, "the blob has no such range"));
        }
        Ok(Self::of(store, tenant, blob, range))
    }

    fn of(store: &Store, tenant: TenantId, blob: Blob, rest: Range<u64>) -> Self {
        let hash = (rest == (0..blob.size)).then(Sha256::new);
        let pin = store.readers().pin(tenant, blob.id);
        Self { store: store.clone(), tenant, blob, rest, hash, _pin: pin }
    }

    /// How many bytes are still to be given.
    pub fn remaining(&self) -> u64 {
        self.rest.end - self.rest.start
    }

    /// The next bytes, up to 320 kB; `None` after the last. One read. After an error it can be asked
    /// again.
    ///
    /// # Errors
    ///
    /// `NotFound` if none of its chunks is there: it was collected meanwhile, unless a record still holds
    /// it; `Corrupt` if what is stored is not what was uploaded; those of [`Store::run`].
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
            let message = "the bytes of a blob are not those that were uploaded";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        self.hash = hash;
        self.rest.start = end;
        Ok(Some(piece))
    }

    /// The bytes from where it is, and where they end.
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
        // A piece holds no more memory than its length.
        bytes.shrink_to_fit();
        Ok((bytes, end))
    }
}

/// How long a range is that is within a batch.
fn length(range: Range<u64>) -> usize {
    usize::try_from(range.end - range.start).unwrap_or(usize::MAX)
}

/// The bytes of these chunks of `blob`, one after the other.
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

/// Why a chunk is not there: it was collected, with all others or before them, or it is lost.
async fn missing(tx: &Transaction, tenant: TenantId, blob: &Blob) -> Result<Error> {
    let range = KeyRange::tuples(&CHUNKS.key(tx.root(), tenant, &blob.id));
    let first = KeySelector::first_greater_or_equal(range.begin.clone());
    let some_are_left = range.contains(&tx.engine().snapshot().get_key(&first).await?);
    let detached = tx.get::<DetachedBlob>(tenant, blob.id).await?.is_some();
    let deleted = tx.get::<Deletion>(Global, (tenant, Deleted::Tenant)).await?.is_some();
    if some_are_left && !detached && !deleted {
        return Ok(Error::new(ErrorKind::Corrupt, "a chunk of a blob is missing, or not its own"));
    }
    Ok(gone())
}
