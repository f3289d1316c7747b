//! References to blobs, which records have as fields.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Size of a chunk, in bytes; the last one of a blob may be shorter. Persisted. FoundationDB's
/// manual recommends 10 kB ("Large values").
pub const CHUNK_BYTES: usize = 10_000;

crate::ids! {
    /// Id of a [`Blob`].
    BlobId
}

/// A reference to an uploaded byte string, with its size and hash: a field of the record that has
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Blob {
    /// Id of the blob.
    pub id: BlobId,
    /// Size, in bytes.
    pub size: u64,
    /// SHA-256 of the bytes.
    pub sha256: [u8; 32],
}

impl Blob {
    /// Returns the number of chunks.
    pub fn chunks(&self) -> u64 {
        self.size.div_ceil(CHUNK_BYTES as u64)
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({}, {} bytes)", self.id.0, self.size)
    }
}
