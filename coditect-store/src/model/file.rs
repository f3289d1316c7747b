//! Files and directories: metadata.

use std::ops::{Range, RangeToInclusive};

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{FileId, FilePolicy, FileVersion, Session, SessionId, TenantId};
use crate::{
    BatchLimit, Blob, Counter, Entity, Error, ErrorKind, Result, Transaction,
    batch::{MAX_CONCURRENT, map_bounded, map_concurrent},
    entity::{Multi, Unique},
    indexes,
    keyspace::{KeyPart, Subspace},
    records::blob::counted,
};

/// The metadata of a file or directory. The content is a [blob](crate::Blob) of the [`FileVersion`]
/// with the same version; earlier versions are kept according to the [policy](FilePolicy).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    /// Id, which does not change when the file is moved.
    pub id: FileId,
    /// Tenant.
    pub tenant_id: TenantId,
    /// Root that the path is relative to.
    pub home: FileRoot,
    /// Path below the root: names separated by `/`, without a leading or trailing one.
    pub path: String,
    /// Kind, with size and hash of a file.
    pub kind: FileKind,
    /// Version of the content, from 1; 0 for a directory.
    pub version: u64,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change of the content.
    #[serde(with = "ts_microseconds")]
    pub modified_at: DateTime<Utc>,
}

/// The root of a [`File`]'s path. Persisted: add at the end, never reorder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileRoot {
    /// A workspace, shared by its sessions, by path.
    Workspace(String),
    /// A session without a workspace.
    Session(SessionId),
}

/// The kind of a [`File`]. Persisted: add at the end, never reorder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A file.
    File {
        /// Size of the content, in bytes.
        size: u64,
        /// SHA-256 of the content.
        sha256: [u8; 32],
    },
    /// A directory.
    Directory,
}

impl Entity for File {
    type Scope = TenantId;
    type Key = FileId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("files").keyed(&["file"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> FileId {
        self.id
    }
}

indexes! { File =>
    /// Files of a session, without the files of its workspace, which outlives it.
    BY_SESSION ("files_by_session", session): Multi<SessionId> = |file| match &file.home {
        FileRoot::Session(session) => Some(*session),
        FileRoot::Workspace(_) => None,
    };
    /// By path.
    BY_PATH ("files_by_path", session_or_workspace_path, path): Unique<(FileRoot, String)> =
        |file| Some((file.home.clone(), file.path.clone()));
    /// Entries of a directory, by name, without deeper ones. The top has the empty path.
    BY_DIRECTORY ("files_by_directory", session_or_workspace_path, directory, name):
        Unique<(FileRoot, String, String)> =
        |file| {
            let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            Some((file.home.clone(), directory.to_owned(), name.to_owned()))
        };
}

impl File {
    /// Returns the values of [`BY_PATH`](Self::BY_PATH) of all entries below `directory`, at any
    /// depth. For all entries of `home` use `(home,)`.
    pub fn below(home: FileRoot, directory: &str) -> Range<(FileRoot, String)> {
        /// The character after `/`.
        const PAST_SLASH: char = '0';
        (home.clone(), format!("{directory}/"))..(home, format!("{directory}{PAST_SLASH}"))
    }

    /// Returns the entry at `path` in `home`. Two sequential reads.
    ///
    /// # Errors
    ///
    /// Errors of [`Transaction::find`].
    pub async fn at(
        tx: &Transaction,
        tenant: TenantId,
        home: &FileRoot,
        path: &str,
    ) -> Result<Option<Self>> {
        tx.find(&Self::BY_PATH, tenant, (home.clone(), path.to_owned())).await
    }

    /// Sets the uploaded `blob` as the content of the file at `path` in `home`, creates the file if
    /// it does not exist, and detaches the oldest versions beyond the policy. Returns the file. A
    /// caller with preconditions on the current file reads it [in the same transaction](Self::at).
    /// At most eight rounds of reads, one more in a session, and one for each detached version.
    ///
    /// # Errors
    ///
    /// `NotFound` if the session or the [blob](Transaction::attach) does not exist; `AlreadyExists`
    /// if a directory is at the path; `QuotaExceeded` if the tenant would exceed its quota: see
    /// [`FilePolicy::bytes`].
    pub async fn put(
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileRoot, &str),
        blob: Blob,
        policy: &FilePolicy,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        require_home(tx, tenant, home).await?;
        let before = Self::at(tx, tenant, home, path).await?;
        if before.as_ref().is_some_and(|file| file.kind == FileKind::Directory) {
            return Err(Error::new(ErrorKind::AlreadyExists, "a directory exists at this path"));
        }
        tx.attach(tenant, &blob).await?;
        let kind = FileKind::File { size: blob.size, sha256: blob.sha256 };
        let file = if let Some(before) = before {
            let version = before.version + 1;
            let file = Self { kind, version, modified_at: now, ..before };
            tx.update(&file).await?;
            file
        } else {
            let file = Self { version: 1, ..Self::new(tenant, home, path, kind, now) };
            file.create_counted(tx, policy).await?;
            file
        };
        let Self { id, version, .. } = file;
        tx.insert(&FileVersion { tenant_id: tenant, file_id: id, version, blob, saved_at: now })
            .await?;
        let freed = match version.checked_sub(policy.kept()) {
            None | Some(0) => 0,
            Some(last) => file.drop_versions(tx, ..=last, now).await?,
        };
        policy.require_room(tx, tenant, counted(blob.size), freed).await?;
        Ok(file)
    }

    /// Creates a directory at `path` in `home`. It counts as a file.
    ///
    /// # Errors
    ///
    /// `NotFound` if the session does not exist, `UniqueViolation` if an entry exists at the path,
    /// `QuotaExceeded` if the tenant would exceed its quota.
    pub async fn create_directory(
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileRoot, &str),
        policy: &FilePolicy,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        require_home(tx, tenant, home).await?;
        let directory = Self::new(tenant, home, path, FileKind::Directory, now);
        directory.create_counted(tx, policy).await?;
        Ok(directory)
    }

    /// Creates the missing parent directories of `path` in `home`. One lookup if the parent exists,
    /// and one for each missing directory.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if one of them is a file; errors of
    /// [`create_directory`](Self::create_directory).
    pub async fn create_parent_dirs(
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileRoot, &str),
        policy: &FilePolicy,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let missing = Self::missing_directories(tx, tenant, home, path).await?;
        for directory in missing.into_iter().rev() {
            Self::create_directory(tx, tenant, (home, directory), policy, now).await?;
        }
        Ok(())
    }

    /// Returns the missing parent directories of `path` in `home`, deepest first. One lookup of the
    /// nearest one that exists, and one of each missing one.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if one of them is a file.
    pub async fn missing_directories<'a>(
        tx: &Transaction,
        tenant: TenantId,
        home: &FileRoot,
        path: &'a str,
    ) -> Result<Vec<&'a str>> {
        let mut missing = Vec::new();
        let mut rest = path;
        while let Some((directory, _)) = rest.rsplit_once('/') {
            match Self::at(tx, tenant, home, directory).await? {
                None => missing.push(directory),
                Some(found) if found.kind == FileKind::Directory => break,
                Some(_) => {
                    return Err(Error::new(
                        ErrorKind::AlreadyExists,
                        "a file exists at the path of a parent directory",
                    ));
                }
            }
            rest = directory;
        }
        Ok(missing)
    }

    /// Moves the entry to `path` in its root, a directory with all entries below it, atomically,
    /// and returns the moved entry. The [parent directories](Self::create_parent_dirs) of `path`
    /// must exist, and no entry at `path`. Four rounds of reads per hundred entries.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` if an entry exists at `path`, `Invalid` if `path` is below the entry, or a
    /// path would be [too long](Self::PATH_BYTES) or [too deep](Self::PATH_DEPTH), `Limit` if the
    /// directory has more than [`MAX_MOVED`](Self::MAX_MOVED) entries; errors of
    /// [`Transaction::update`].
    pub async fn move_to(&self, tx: &Transaction, path: &str) -> Result<Self> {
        let below = format!("{}/", self.path);
        if path.starts_with(&below) {
            return Err(Error::new(ErrorKind::Invalid, "cannot move a directory below itself"));
        }
        let tree = match self.kind {
            FileKind::Directory => self.tree(tx, Self::MAX_MOVED).await?,
            FileKind::File { .. } => Vec::new(),
        };
        if !self.fits(&tree, path) {
            return Err(Error::new(ErrorKind::Invalid, "a path would be too long or too deep"));
        }
        let moved = Self { path: path.to_owned(), ..self.clone() };
        tx.update(&moved).await?;
        let moved_tree = tree.into_iter().map(|file| {
            let path = format!("{path}/{}", &file.path[below.len()..]);
            Self { path, ..file }
        });
        // An entry that moves to a parent's path may take the path of another one that moves.
        let is_upwards = self.path.starts_with(&format!("{path}/"));
        let at_once = if is_upwards { 1 } else { MAX_CONCURRENT };
        map_bounded(at_once, moved_tree, |file| async move { tx.update(&file).await }).await?;
        Ok(moved)
    }

    /// Returns whether all paths stay within [`PATH_BYTES`](Self::PATH_BYTES) and
    /// [`PATH_DEPTH`](Self::PATH_DEPTH) if the entry is moved to `path`, with the entries `below`
    /// it (see [`tree`](Self::tree)).
    pub fn fits(&self, below: &[Self], path: &str) -> bool {
        let depth = |path: &str| path.bytes().filter(|byte| *byte == b'/').count();
        below.iter().chain([self]).all(|file| {
            // Empty, or starts with a slash.
            let rest = file.path.get(self.path.len()..).unwrap_or_default();
            path.len() + rest.len() <= Self::PATH_BYTES
                && depth(path) + depth(rest) < Self::PATH_DEPTH
        })
    }

    /// Moves the content of this file over that of the file `target` in its root: the versions of
    /// `target` are kept as older ones, the versions of this file follow them, and this file is
    /// removed. Returns the changed target. The oldest versions beyond
    /// [`FilePolicy::VERSIONS_LIMIT`] are detached. Four rounds of reads, and one more if versions
    /// are detached.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if one of them is a directory; `NotFound` if this file does not exist;
    /// errors of [`Transaction::update`].
    pub async fn move_over(
        &self,
        tx: &Transaction,
        target: &Self,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        if [&self.kind, &target.kind].contains(&&FileKind::Directory) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "cannot move a directory over a file, or a file over a directory",
            ));
        }
        let tenant = self.tenant_id;
        let Some(moved) = tx.delete::<Self>(tenant, self.id).await? else {
            return Err(Error::new(ErrorKind::NotFound, "the file does not exist"));
        };
        tx.release(tenant, Counter::FILES, 1)?;
        let contents = moved.contents(tx).await?;
        let version = target.version + contents.len() as u64;
        let renumber = |(version, content): (u64, FileVersion)| async move {
            // The blob stays attached: the new record has it.
            let before = (content.file_id, content.version);
            let content = FileVersion { file_id: target.id, version, ..content };
            let delete = tx.delete_without_blobs::<FileVersion>(tenant, before);
            try_join(delete, tx.insert(&content)).await
        };
        let renumbered = (target.version + 1..).zip(contents.into_iter().rev());
        map_concurrent(renumbered.collect::<Vec<_>>(), renumber).await?;
        let Self { kind, modified_at, .. } = moved;
        let target = Self { kind, version, modified_at, ..target.clone() };
        tx.update(&target).await?;
        if let Some(last @ 1..) = version.checked_sub(FilePolicy::VERSIONS_LIMIT) {
            target.drop_versions(tx, ..=last, now).await?;
        }
        Ok(target)
    }

    /// Maximum length of a path, in bytes.
    pub const PATH_BYTES: usize = 4_096;
    /// Maximum number of names in a path.
    pub const PATH_DEPTH: usize = 64;

    /// Returns all entries below a directory, at any depth, directories before their entries. One
    /// range read, and one round for all records.
    ///
    /// # Errors
    ///
    /// `Limit` if there are more than `at_most`.
    pub async fn tree(&self, tx: &Transaction, at_most: usize) -> Result<Vec<Self>> {
        let below = Self::below(self.home.clone(), &self.path);
        let page = tx.scan(&Self::BY_PATH, self.tenant_id, below).page(at_most, None).await?;
        if page.next.is_some() {
            return Err(Error::new(ErrorKind::Limit, "the directory has too many entries"));
        }
        Ok(page.items)
    }

    /// Removes entries below a directory, deepest first, and then the directory itself; returns
    /// whether it is removed. Removes as many as `limit` allows, at most
    /// [`MAX_REMOVED`](Self::MAX_REMOVED): call it again, in another transaction, until it returns
    /// `true`. The tree is consistent in between.
    ///
    /// # Errors
    ///
    /// Errors of [`remove`](Self::remove).
    pub async fn remove_tree(
        &self,
        tx: &Transaction,
        limit: BatchLimit,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let below = Self::below(self.home.clone(), &self.path);
        let below = tx.scan(&Self::BY_PATH, self.tenant_id, below).rev();
        let page = below.page(limit.rows().min(Self::MAX_REMOVED), None).await?;
        let mut groups = page.items.chunks(Self::REMOVED_AT_ONCE);
        for group in groups.by_ref() {
            Self::remove_all(tx, self.tenant_id, group, now).await?;
            if limit.is_spent() {
                break;
            }
        }
        let is_all = page.next.is_none() && groups.next().is_none();
        if is_all {
            self.remove(tx, now).await?;
        }
        Ok(is_all)
    }

    /// Returns whether the directory is empty. One read.
    ///
    /// # Errors
    ///
    /// Errors of [`Scan::page`](crate::Scan::page).
    pub async fn is_empty(&self, tx: &Transaction) -> Result<bool> {
        let in_it = (self.home.clone(), self.path.clone());
        let page = tx.scan(&Self::BY_DIRECTORY, self.tenant_id, in_it).page(1, None).await?;
        Ok(page.items.is_empty())
    }

    /// Maximum number of entries moved with a directory, in one transaction.
    pub const MAX_MOVED: usize = 1_000;

    /// Maximum number of entries removed by one transaction: each may have a hundred versions.
    pub const MAX_REMOVED: usize = 20;

    /// Number of entries removed between two checks of the time.
    const REMOVED_AT_ONCE: usize = 5;

    /// Returns the version `version` of the content; `None` if it does not exist, or is no longer
    /// kept. One read.
    ///
    /// # Errors
    ///
    /// Errors of [`Transaction::get`].
    pub async fn content(&self, tx: &Transaction, version: u64) -> Result<Option<FileVersion>> {
        tx.get(self.tenant_id, (self.id, version)).await
    }

    /// Returns all kept versions, newest first. One range read.
    ///
    /// # Errors
    ///
    /// Errors of [`Scan::page`](crate::Scan::page).
    pub async fn contents(&self, tx: &Transaction) -> Result<Vec<FileVersion>> {
        let contents = tx.list_keys::<FileVersion>(self.tenant_id, (self.id,)).rev();
        contents.all(Self::MAX_CONTENTS).await
    }

    /// Removes the entry with all versions of its content. Entries below a directory remain.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; errors of [`Transaction::delete`].
    pub async fn remove(&self, tx: &Transaction, now: DateTime<Utc>) -> Result<()> {
        Self::remove_all(tx, self.tenant_id, std::slice::from_ref(self), now).await.map(|_| ())
    }

    /// Removes `files` of `tenant` with all versions, and returns their blobs. Two rounds of reads,
    /// and one per hundred versions.
    ///
    /// # Errors
    ///
    /// As [`remove`](Self::remove).
    pub(crate) async fn remove_all(
        tx: &Transaction,
        tenant: TenantId,
        files: &[Self],
        now: DateTime<Utc>,
    ) -> Result<Vec<Blob>> {
        let remove = |id: FileId| async move {
            let removed = tx.delete::<Self>(tenant, id).await?;
            removed.ok_or_else(|| Error::new(ErrorKind::NotFound, "the file does not exist"))
        };
        let ids: Vec<FileId> = files.iter().map(|file| file.id).collect();
        let removed = map_concurrent(ids, remove).await?;
        let count = i64::try_from(removed.len()).unwrap_or(i64::MAX);
        tx.release(tenant, Counter::FILES, count)?;
        // Versions written since `files` were read are removed, too.
        let contents = |file: Self| async move { file.contents_up_to(tx, file.version).await };
        let contents = map_concurrent(removed, contents).await?.concat();
        drop_contents(tx, tenant, &contents, now).await?;
        Ok(contents.into_iter().map(|content| content.blob).collect())
    }

    fn new(
        tenant_id: TenantId,
        home: &FileRoot,
        path: &str,
        kind: FileKind,
        now: DateTime<Utc>,
    ) -> Self {
        let (id, home, path) = (FileId::new(), home.clone(), path.to_owned());
        Self { id, tenant_id, home, path, kind, version: 0, created_at: now, modified_at: now }
    }

    async fn create_counted(&self, tx: &Transaction, policy: &FilePolicy) -> Result<()> {
        tx.insert(self).await?;
        tx.charge(self.tenant_id, Counter::FILES, 1, policy.files).await
    }

    /// The versions kept by the policy, and the one about to be detached.
    #[expect(clippy::cast_possible_truncation, reason = "the limit is a hundred")]
    pub(super) const MAX_CONTENTS: usize = FilePolicy::VERSIONS_LIMIT as usize + 1;

    /// Detaches `versions` of the content, and returns their size, in bytes. They count until they
    /// are collected.
    async fn drop_versions(
        &self,
        tx: &Transaction,
        versions: RangeToInclusive<u64>,
        now: DateTime<Utc>,
    ) -> Result<i64> {
        let contents = self.contents_up_to(tx, versions.end).await?;
        drop_contents(tx, self.tenant_id, &contents, now).await
    }

    /// Returns the versions up to `last`. One range read.
    async fn contents_up_to(&self, tx: &Transaction, last: u64) -> Result<Vec<FileVersion>> {
        let contents = tx.list_keys::<FileVersion>(self.tenant_id, (self.id, 0)..=(self.id, last));
        Ok(contents.page(Self::MAX_CONTENTS, None).await?.items)
    }
}

/// Removes `contents`, detaches their blobs, and returns their size, in bytes. One round of reads
/// per hundred.
async fn drop_contents(
    tx: &Transaction,
    tenant: TenantId,
    contents: &[FileVersion],
    now: DateTime<Utc>,
) -> Result<i64> {
    let remove = |(file, version, blob): (FileId, u64, Blob)| async move {
        let delete = tx.delete_without_blobs::<FileVersion>(tenant, (file, version));
        try_join(delete, tx.detach(tenant, &blob, now)).await?;
        Ok(counted(blob.size))
    };
    let contents = contents.iter().map(|content| (content.file_id, content.version, content.blob));
    let freed = map_concurrent(contents.collect::<Vec<_>>(), remove).await?.into_iter();
    Ok(freed.fold(0, i64::saturating_add))
}

/// Fails with `NotFound` if the session does not exist.
async fn require_home(tx: &Transaction, tenant: TenantId, home: &FileRoot) -> Result<()> {
    match home {
        FileRoot::Session(session) => tx.get_required::<Session>(tenant, session).await.map(|_| ()),
        FileRoot::Workspace(_) => Ok(()),
    }
}

/// One element: the workspace's path, or the session's UUID.
impl KeyPart for FileRoot {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        vec!["string or uuid".to_owned()]
    }

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
