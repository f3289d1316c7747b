//! One content of a file, the present one or an older one.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{FileId, TenantId};
use crate::{Blob, Entity, indexes, keyspace::Space};

/// One content of a [`File`](super::File). It is never changed; another content is another version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileVersion {
    /// The file's tenant.
    pub tenant_id: TenantId,
    /// The file.
    pub file_id: FileId,
    /// Counts the file's contents, from 1 on without gaps.
    pub version: u64,
    /// The content.
    pub blob: Blob,
    /// When it became the file's content.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
}

impl Entity for FileVersion {
    type Scope = TenantId;
    type Key = (FileId, u64);
    const SPACE: Space<TenantId> = Space::tenant("file_versions").keyed(&["file", "version"]);
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
