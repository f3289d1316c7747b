//! Blobs that no record holds: not yet, or not any more.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{BlobId, TenantId};
use crate::{Entity, entity::GlobalMulti, indexes, keyspace::Space};

/// A [blob](crate::Blob) that no record holds. It exists from before the first chunk is written until
/// a record holds the blob, and again from when that record is deleted until the last chunk is
/// removed, so the chunks of every interrupted upload and removal are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetachedBlob {
    /// The blob's id.
    pub id: BlobId,
    /// The tenant whose it is.
    pub tenant_id: TenantId,
    /// Whether a record may still attach it.
    pub state: BlobState,
    /// The time from which its chunks may be removed.
    #[serde(with = "ts_microseconds")]
    pub collect_after: DateTime<Utc>,
    /// Its share of the tenant's [`BYTES`](crate::Counter::BYTES) counter, in bytes: what is written or
    /// reserved for an upload, and the whole size of a blob that was detached.
    pub counted_bytes: u64,
}

/// The state of a [`DetachedBlob`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobState {
    /// Being written, or waiting for a record to attach it.
    Uploading,
    /// No longer attachable; readers may still read it until it is collected.
    Released,
}

impl Entity for DetachedBlob {
    type Scope = TenantId;
    type Key = BlobId;
    const SPACE: Space<TenantId> = Space::tenant("detached_blobs").keyed(&["blob"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> BlobId {
        self.id
    }
}

indexes! { DetachedBlob =>
    /// By the second after which they are collected, counted from the beginning of 1970.
    BY_DUE ("detached_blobs_by_due", second): GlobalMulti<i64> =
        |blob| Some(blob.collect_after.timestamp());
}
