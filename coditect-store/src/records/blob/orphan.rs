//! Blobs without a record: not attached yet, or detached.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use crate::{
    Entity,
    entity::{BlobId, GlobalMulti},
    indexes,
    keyspace::{Subspace, TenantId},
};

/// A [blob](crate::Blob) without a record. Exists from before the first chunk is written until a
/// record attaches the blob, and again from when that record is deleted until the last chunk is
/// removed, so that the chunks of every interrupted upload and removal are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrphanBlob {
    /// Id of the blob.
    pub id: BlobId,
    /// Tenant of the blob.
    pub tenant_id: TenantId,
    /// Whether a record may attach it.
    pub state: BlobState,
    /// Time from which its chunks may be removed.
    #[serde(with = "ts_microseconds")]
    pub collect_after: DateTime<Utc>,
    /// Its share of the tenant's [`BYTES`](crate::Counter::BYTES) counter, in bytes: the written or
    /// reserved size of an upload, the whole size of a detached blob.
    pub counted_bytes: u64,
}

/// The state of an [`OrphanBlob`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobState {
    /// Being written, or waiting to be attached.
    Uploading,
    /// No longer attachable; readable until it is collected.
    Released,
}

impl Entity for OrphanBlob {
    type Scope = TenantId;
    type Key = BlobId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("orphan_blobs").keyed(&["blob"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> BlobId {
        self.id
    }
}

indexes! { OrphanBlob =>
    /// By the second from which they are collected, since 1970.
    BY_DUE ("orphan_blobs_by_due", second): GlobalMulti<i64> =
        |blob| Some(blob.collect_after.timestamp());
}
