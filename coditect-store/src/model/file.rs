//! A file or a directory: what is known of it, beside its content.

use std::ops::Range;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{FileId, SessionId, TenantId};
use crate::{
    Entity, Result,
    entity::{Multi, Unique},
    indexes,
    keyspace::{KeyPart, Space},
};

/// What is known of a file or a directory. Its content lies elsewhere, under its id and version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Its id, which it keeps when it is moved.
    pub id: FileId,
    /// The tenant whose it is.
    pub tenant_id: TenantId,
    /// What its path starts from.
    pub home: FileHome,
    /// Where it is in there: names with `/` between them, none at either end.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Counts its contents, from 1 on; 0 for a directory, and for a file before its first.
    pub version: u64,
    /// When it was made.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When its content was last changed.
    #[serde(with = "ts_microseconds")]
    pub modified_at: DateTime<Utc>,
}

/// What the path of a [`File`] starts from. Persisted: add at the end, never reorder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileHome {
    /// A workspace that its sessions share, by its path.
    Workspace(String),
    /// A session that has no workspace.
    Session(SessionId),
}

/// What a [`File`] is. Persisted: add at the end, never reorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A file.
    File {
        /// How long its content is, in bytes.
        size: u64,
        /// The hash of its content.
        sha256: [u8; 32],
    },
    /// A directory.
    Directory,
}

impl Entity for File {
    type Scope = TenantId;
    type Key = FileId;
    const SPACE: Space<TenantId> = Space::tenant("files").keyed(&["file"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> FileId {
        self.id
    }
}

indexes! { File =>
    /// Those that go with a session: not those of a workspace, which outlives it.
    BY_SESSION ("files_by_session", session): Multi<SessionId> = |file| match &file.home {
        FileHome::Session(session) => Some(*session),
        FileHome::Workspace(_) => None,
    };
    /// The one at a path.
    BY_PATH ("files_by_path", session_or_workspace_path, path): Unique<(FileHome, String)> =
        |file| Some((file.home.clone(), file.path.clone()));
}

impl File {
    /// The values of [`BY_PATH`](Self::BY_PATH) of all that lies below `directory`, at any depth.
    /// Of all that lies in `home` it is `(home,)`.
    pub fn below(home: FileHome, directory: &str) -> Range<(FileHome, String)> {
        /// What follows `/`.
        const PAST_SLASH: char = '0';
        (home.clone(), format!("{directory}/"))..(home, format!("{directory}{PAST_SLASH}"))
    }
}

/// One element: the workspace's path, or the session's UUID.
impl KeyPart for FileHome {
    const ELEMENTS: usize = 1;

    fn pack(&self, key: &mut Vec<u8>) {
        match self {
            Self::Workspace(path) => path.pack(key),
            Self::Session(session) => session.pack(key),
        }
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        let mut uuid = *rest;
        if let Ok(session) = SessionId::unpack(&mut uuid) {
            *rest = uuid;
            return Ok(Self::Session(session));
        }
        String::unpack(rest).map(Self::Workspace)
    }
}
