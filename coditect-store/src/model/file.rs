//! A file or a directory: what is known of it, beside its content.

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
    keyspace::{KeyPart, Space},
    repository::blob::counted,
};

/// What is known of a file or a directory. Its content is a [blob](crate::Blob), which its
/// [`FileVersion`] of the same version holds; those before it are kept too, as many as the
/// [policy](FilePolicy) says.
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
    /// By session; not the files of a workspace, which outlives it.
    BY_SESSION ("files_by_session", session): Multi<SessionId> = |file| match &file.home {
        FileHome::Session(session) => Some(*session),
        FileHome::Workspace(_) => None,
    };
    /// The one at a path.
    BY_PATH ("files_by_path", session_or_workspace_path, path): Unique<(FileHome, String)> =
        |file| Some((file.home.clone(), file.path.clone()));
    /// Those of a directory, by name: not those further below. The top is the empty path.
    BY_DIRECTORY ("files_by_directory", session_or_workspace_path, directory, name): Unique<(FileHome, String, String)> =
        |file| {
            let (directory, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
            Some((file.home.clone(), directory.to_owned(), name.to_owned()))
        };
}

impl File {
    /// The values of [`BY_PATH`](Self::BY_PATH) of all that lies below `directory`, at any depth.
    /// Of all that lies in `home` it is `(home,)`.
    pub fn below(home: FileHome, directory: &str) -> Range<(FileHome, String)> {
        /// What follows `/`.
        const PAST_SLASH: char = '0';
        (home.clone(), format!("{directory}/"))..(home, format!("{directory}{PAST_SLASH}"))
    }

    /// The one at `path` in `home`. Two reads, one after the other.
    ///
    /// # Errors
    ///
    /// Those of [`Transaction::find`].
    pub async fn at(
        tx: &Transaction,
        tenant: TenantId,
        home: &FileHome,
        path: &str,
    ) -> Result<Option<Self>> {
        tx.find(&Self::BY_PATH, tenant, (home.clone(), path.to_owned())).await
    }

    /// Makes `blob`, which was uploaded, the content of the file at `path` in `home`, creates the file
    /// if there is none, and detaches the oldest contents beyond those that are kept. Returns the
    /// file as it is then. What the caller needs to know of the present file first, it reads
    /// [in the same transaction](Self::at). Eight rounds of reads at the most, one more in a session,
    /// and one for each content that is detached.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session, or the [blob](Transaction::attach) is not there;
    /// `AlreadyExists` if there is a directory; `QuotaExceeded` if the tenant has no room: see
    /// [`FilePolicy::bytes`].
    pub async fn put(
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileHome, &str),
        blob: Blob,
        policy: &FilePolicy,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        require_home(tx, tenant, home).await?;
        let before = Self::at(tx, tenant, home, path).await?;
        if before.as_ref().is_some_and(|file| file.kind == FileKind::Directory) {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is a directory of this name"));
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
        tx.create(&FileVersion { tenant_id: tenant, file_id: id, version, blob, saved_at: now })
            .await?;
        let freed = match version.checked_sub(policy.kept()) {
            None | Some(0) => 0,
            Some(last) => file.drop_versions(tx, ..=last, now).await?,
        };
        policy.require_room(tx, tenant, counted(blob.size), freed).await?;
        Ok(file)
    }

    /// Makes a directory at `path` in `home`. It counts as a file.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session, `UniqueViolation` if there is something at the path, `QuotaExceeded` if
    /// the tenant has no room for it.
    pub async fn create_directory(
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileHome, &str),
        policy: &FilePolicy,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        require_home(tx, tenant, home).await?;
        let directory = Self::new(tenant, home, path, FileKind::Directory, now);
        directory.create_counted(tx, policy).await?;
        Ok(directory)
    }

    /// Makes the directories that `path` in `home` lies in, those that are not there. One look-up where
    /// the nearest one is; another for each that is not.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if one of them is a file; those of [`create_directory`](Self::create_directory).
    pub async fn make_way(
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileHome, &str),
        policy: &FilePolicy,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let missing = Self::missing_directories(tx, tenant, home, path).await?;
        for directory in missing.into_iter().rev() {
            Self::create_directory(tx, tenant, (home, directory), policy, now).await?;
        }
        Ok(())
    }

    /// Returns the directories of `path` in `home` that do not exist, the deepest first. One look-up of
    /// the nearest one that exists, and one of each that does not.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if one of them is a file.
    pub async fn missing_directories<'a>(
        tx: &Transaction,
        tenant: TenantId,
        home: &FileHome,
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
                        "a file is where a directory must be",
                    ));
                }
            }
            rest = directory;
        }
        Ok(missing)
    }

    /// Moves it to `path` in its home, a directory with all entries below it, all or nothing, and
    /// returns the moved file. The [parent directories](Self::make_way) of `path` must exist, and
    /// nothing at `path`. Four rounds of reads for each hundred entries below it.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` if there is something at `path`, `Invalid` if `path` lies below it, or a path would be
    /// [too long](Self::PATH_BYTES) or [too deep](Self::PATH_DEPTH), `Limit` if more than
    /// [`MOST_MOVED`](Self::MOST_MOVED) files lie below it; those of [`Transaction::update`].
    pub async fn move_to(&self, tx: &Transaction, path: &str) -> Result<Self> {
        let below = format!("{}/", self.path);
        if path.starts_with(&below) {
            return Err(Error::new(ErrorKind::Invalid, "a directory cannot go below itself"));
        }
        let tree = match self.kind {
            FileKind::Directory => self.tree(tx, Self::MOST_MOVED).await?,
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
        // Moved to one of its own parents, an entry may take the path that another one leaves.
        let is_upwards = self.path.starts_with(&format!("{path}/"));
        let at_once = if is_upwards { 1 } else { MAX_CONCURRENT };
        map_bounded(at_once, moved_tree, |file| async move { tx.update(&file).await }).await?;
        Ok(moved)
    }

    /// Returns whether all paths are within [`PATH_BYTES`](Self::PATH_BYTES) and
    /// [`PATH_DEPTH`](Self::PATH_DEPTH) if it comes to `path`, with `below` it what is [there](Self::tree)
    /// now.
    pub fn fits(&self, below: &[Self], path: &str) -> bool {
        let depth = |path: &str| path.bytes().filter(|byte| *byte == b'/').count();
        below.iter().chain([self]).all(|file| {
            // Either nothing or what begins with a slash.
            let rest = file.path.get(self.path.len()..).unwrap_or_default();
            path.len() + rest.len() <= Self::PATH_BYTES
                && depth(path) + depth(rest) < Self::PATH_DEPTH
        })
    }

    /// Moves the content of this file over that of the file `target` in its home: all contents of
    /// `target` stay, as older versions, those of this file follow them, and this file is removed.
    /// Returns `target` as it is then. Of more than [`FilePolicy::VERSIONS_LIMIT`] contents the oldest are
    /// detached. Four rounds of reads, and one more if contents are detached.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if one of them is a directory; `NotFound` if this file does not exist any more; those of
    /// [`Transaction::update`].
    pub async fn move_over(
        &self,
        tx: &Transaction,
        target: &Self,
        now: DateTime<Utc>,
    ) -> Result<Self> {
        if [&self.kind, &target.kind].contains(&&FileKind::Directory) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "a directory is not moved over, nor over a file",
            ));
        }
        let tenant = self.tenant_id;
        let Some(moved) = tx.delete::<Self>(tenant, self.id).await? else {
            return Err(Error::new(ErrorKind::NotFound, "the file is not there any more"));
        };
        tx.release(tenant, Counter::FILES, 1)?;
        let contents = moved.contents(tx).await?;
        let version = target.version + contents.len() as u64;
        let renumber = |(version, content): (u64, FileVersion)| async move {
            // The blob stays attached, to the record that follows.
            let before = (content.file_id, content.version);
            let content = FileVersion { file_id: target.id, version, ..content };
            let delete = tx.delete_without_blobs::<FileVersion>(tenant, before);
            try_join(delete, tx.create(&content)).await
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

    /// The longest path, in bytes.
    pub const PATH_BYTES: usize = 4_096;
    /// The most names in a path.
    pub const PATH_DEPTH: usize = 64;

    /// All that lies below it, at any depth, directories before what is in them. One read of one range,
    /// and one round for all that is there.
    ///
    /// # Errors
    ///
    /// `Limit` if that are more than `at_most`.
    pub async fn tree(&self, tx: &Transaction, at_most: usize) -> Result<Vec<Self>> {
        let below = Self::below(self.home.clone(), &self.path);
        let page = tx.scan(&Self::BY_PATH, self.tenant_id, below).page(at_most, None).await?;
        if page.next.is_some() {
            return Err(Error::new(ErrorKind::Limit, "too much lies below the directory"));
        }
        Ok(page.items)
    }

    /// Removes entries below it, the deepest first, and then itself; returns whether that was all. It
    /// removes as many as `limit` allows, of [`MOST_REMOVED`](Self::MOST_REMOVED) at most: call it
    /// again, in another transaction, until it returns true. What is left in between is whole.
    ///
    /// # Errors
    ///
    /// Those of [`remove`](Self::remove).
    pub async fn remove_tree(
        &self,
        tx: &Transaction,
        limit: BatchLimit,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let below = Self::below(self.home.clone(), &self.path);
        let below = tx.scan(&Self::BY_PATH, self.tenant_id, below).newest_first();
        let page = below.page(limit.rows().min(Self::MOST_REMOVED), None).await?;
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

    /// Whether nothing lies below it. One read.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::page`](crate::Scan::page).
    pub async fn is_empty(&self, tx: &Transaction) -> Result<bool> {
        let in_it = (self.home.clone(), self.path.clone());
        let page = tx.scan(&Self::BY_DIRECTORY, self.tenant_id, in_it).page(1, None).await?;
        Ok(page.items.is_empty())
    }

    /// The most that are moved with a directory: what one transaction writes.
    pub const MOST_MOVED: usize = 1_000;

    /// The most that one transaction removes: each may have a hundred contents.
    pub const MOST_REMOVED: usize = 20;

    /// Files that are removed between two looks at the time.
    const REMOVED_AT_ONCE: usize = 5;

    /// Its content, or the older one of that number: `None` if there is none, or none any more. One
    /// read.
    ///
    /// # Errors
    ///
    /// Those of [`Transaction::get`].
    pub async fn content(&self, tx: &Transaction, version: u64) -> Result<Option<FileVersion>> {
        tx.get(self.tenant_id, (self.id, version)).await
    }

    /// All its contents that are kept, newest first. One read of one range.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::page`](crate::Scan::page).
    pub async fn contents(&self, tx: &Transaction) -> Result<Vec<FileVersion>> {
        let contents = tx.list_keys::<FileVersion>(self.tenant_id, (self.id,)).newest_first();
        contents.all(Self::MOST_CONTENTS).await
    }

    /// Removes it with all its contents. What lies below a directory stays.
    ///
    /// # Errors
    ///
    /// `NotFound` if it is not there any more; those of [`Transaction::delete`].
    pub async fn remove(&self, tx: &Transaction, now: DateTime<Utc>) -> Result<()> {
        Self::remove_all(tx, self.tenant_id, std::slice::from_ref(self), now).await.map(|_| ())
    }

    /// Removes `files` of `tenant` with all their contents, and returns the blobs that those held.
    /// Two rounds of reads, and one for each hundred contents.
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
            removed.ok_or_else(|| Error::new(ErrorKind::NotFound, "the file is not there any more"))
        };
        let ids: Vec<FileId> = files.iter().map(|file| file.id).collect();
        let removed = map_concurrent(ids, remove).await?;
        let count = i64::try_from(removed.len()).unwrap_or(i64::MAX);
        tx.release(tenant, Counter::FILES, count)?;
        // Contents that were written since `files` were read are removed too.
        let contents = |file: Self| async move { file.contents_up_to(tx, file.version).await };
        let contents = map_concurrent(removed, contents).await?.concat();
        drop_contents(tx, tenant, &contents, now).await?;
        Ok(contents.into_iter().map(|content| content.blob).collect())
    }

    fn new(
        tenant_id: TenantId,
        home: &FileHome,
        path: &str,
        kind: FileKind,
        now: DateTime<Utc>,
    ) -> Self {
        let (id, home, path) = (FileId::new(), home.clone(), path.to_owned());
        Self { id, tenant_id, home, path, kind, version: 0, created_at: now, modified_at: now }
    }

    async fn create_counted(&self, tx: &Transaction, policy: &FilePolicy) -> Result<()> {
        tx.create(self).await?;
        tx.charge(self.tenant_id, Counter::FILES, 1, policy.files).await
    }

    /// Those that the policy says, and the one that is about to be dropped.
    #[expect(clippy::cast_possible_truncation, reason = "it is a hundred")]
    pub(super) const MOST_CONTENTS: usize = FilePolicy::VERSIONS_LIMIT as usize + 1;

    /// Detaches the contents `versions`, and returns their size, in bytes. They stay counted until they
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

    /// Returns the contents up to the version `last`. One read of one range.
    async fn contents_up_to(&self, tx: &Transaction, last: u64) -> Result<Vec<FileVersion>> {
        let contents = tx.list_keys::<FileVersion>(self.tenant_id, (self.id, 0)..=(self.id, last));
        Ok(contents.page(Self::MOST_CONTENTS, None).await?.items)
    }
}

/// Removes `contents`, detaches their blobs, and returns how many bytes those have. One round of
/// reads for each hundred.
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

/// Refuses a session that is not there.
async fn require_home(tx: &Transaction, tenant: TenantId, home: &FileHome) -> Result<()> {
    match home {
        FileHome::Session(session) => tx.require::<Session>(tenant, session).await.map(|_| ()),
        FileHome::Workspace(_) => Ok(()),
    }
}

/// One element: the workspace's path, or the session's UUID.
impl KeyPart for FileHome {
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
