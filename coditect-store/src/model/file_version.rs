//! Versions of a file's content.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{FileId, TenantId};
use crate::{Blob, Entity, indexes, keyspace::Subspace};

/// One version of the content of a [`File`](super::File). Immutable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileVersion {
    /// Tenant of the file.
    pub tenant_id: TenantId,
    /// File.
    pub file_id: FileId,
    /// Version, consecutive per file from 1.
    pub version: u64,
    /// Content.
    pub blob: Blob,
    /// Time of the save.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
}

impl Entity for FileVersion {
    type Scope = TenantId;
    type Key = (FileId, u64);
    const SPACE: Subspace<TenantId> = Subspace::tenant("file_versions").keyed(&["file", "version"]);
    const VERSION: u8 = 1;
    const BLOBS: Option<fn(&Self) -> Vec<Blob>> = Some(|version| vec![version.blob]);

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (FileId, u64) {
        (self.file_id, self.version)
    }
}

indexes! { FileVersion => }
