//! Blobs: bytes of any length, written and read in bounded memory.
//!
//! ```text
//! (T, "blob_chunks", blob, n)  → bytes      CHUNK_BYTES of them, fewer in the last chunk; n from 0
//! (T, "detached_blobs", blob)  → DetachedBlob   while no record holds it
//! ```
//!
//! A blob is [uploaded](BlobUpload) by as many transactions as it needs, and nobody sees it. Then one
//! transaction makes it a record's: it [attaches](Transaction::attach) the blob and writes the record
//! that has it as a field. One that takes it from its record [detaches](Transaction::detach) it.
//!
//! What stays true:
//!
//! - A blob never changes: another content is another blob. So it is read in as many transactions as
//!   that takes, and all of them see the same bytes.
//! - From before its first chunk to after its last, a blob is either detached or held by one record,
//!   whatever is broken off and where: no chunk is ever lost sight of.
//! - Who uploads renews a lease: what is finished is kept for an hour. What is detached is collected
//!   within an hour after that is over, and never
//!   while it can still be attached: collecting begins by making that impossible.
//! - Length and hash are the record's, so what was attached is what was uploaded, to the byte.

mod check;
mod collect;
mod reader;
mod upload;

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

pub(crate) use check::check;
pub use check::{BlobFault, BlobFinding};
pub(super) use collect::remove;
pub use reader::BlobReader;
pub use upload::BlobUpload;

use super::{TenantTransaction, Transaction};
use crate::{
    Error, ErrorKind, Result,
    keyspace::{KeyPart as _, Root, Space},
    model::{BlobId, BlobState, DetachedBlob, TenantId},
};

/// How long a chunk is, in bytes; the last one of a blob may be shorter. Persisted. FoundationDB's
/// manual, "Large values", has them at 10 kB.
pub const CHUNK_BYTES: usize = 10_000;

/// Where chunks lie.
pub(crate) const CHUNKS: Space<TenantId> = Space::tenant("blob_chunks").keyed(&["blob", "n"]);

/// How long a blob may be detached and not be written to before it may be collected. For one that was
/// let go of, it is how long who reads it may go on.
const LEASE: TimeDelta = TimeDelta::hours(1);

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
    /// Makes `blob`, which was uploaded, that of a record which this transaction writes. Two reads of
    /// one key, which conflict with who collects the blob.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not detached: it was attached before, or was left for so long that it was
    /// collected. Nothing of this call is written then, and the transaction can go on.
    pub async fn attach(&self, tenant: TenantId, blob: &Blob) -> Result<()> {
        let detached = self.get::<DetachedBlob>(tenant, blob.id).await?;
        if detached.is_none_or(|detached| detached.state != BlobState::Uploading) {
            return Err(gone());
        }
        self.delete::<DetachedBlob>(tenant, blob.id).await?;
        Ok(())
    }

    /// Lets go of `blob`, which this transaction takes from its record. Who reads it may go on for
    /// an hour; then its chunks are [collected](crate::Store::collect_blobs). One read.
    ///
    /// # Errors
    ///
    /// `Exists` if it is detached already.
    pub async fn detach(&self, tenant: TenantId, blob: &Blob, now: DateTime<Utc>) -> Result<()> {
        self.create(&DetachedBlob {
            id: blob.id,
            tenant_id: tenant,
            state: BlobState::Released,
            collect_after: now + LEASE,
        })
        .await
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

fn gone() -> Error {
    Error::new(ErrorKind::NotFound, "the blob is not there, or not any more")
}
