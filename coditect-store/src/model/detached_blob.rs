//! Blobs that no record holds: not yet, or not any more.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{BlobId, TenantId};
use crate::{
    Entity,
    entity::{Expiring, GlobalMulti, Index, expiry_hour},
    indexes,
    keyspace::Space,
};

/// A [blob](crate::Blob) that no record holds. It is there from before the first chunk until a
/// record holds the blob, and again from when that lets go of it until the last chunk is gone: so
/// whatever is broken off, its chunks are found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetachedBlob {
    /// The blob's id.
    pub id: BlobId,
    /// The tenant whose it is.
    pub tenant_id: TenantId,
    /// What becomes of it.
    pub state: BlobState,
    /// Its chunks may be collected from then on.
    #[serde(with = "ts_microseconds")]
    pub collect_after: DateTime<Utc>,
}

/// What becomes of a [`DetachedBlob`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobState {
    /// It is being written, or waits for a record to hold it.
    Uploading,
    /// No record will hold it any more.
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
    /// By the hour from whose end on they are collected.
    BY_EXPIRY ("detached_blobs_by_expiry", hour): GlobalMulti<i64> =
        |blob| Some(expiry_hour(blob.collect_after));
}

impl Expiring for DetachedBlob {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}
