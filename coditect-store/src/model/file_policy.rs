//! The quota of files, and its checks.

use super::{File, FileHome, FileKind, TenantId};
use crate::{Counter, Error, ErrorKind, Result, Transaction, repository::blob::counted};

/// The quota of a tenant's files, and the number of contents that are kept of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilePolicy {
    /// The number of contents of a file that are kept, the present one included: between 1 and
    /// [`VERSIONS_LIMIT`](Self::VERSIONS_LIMIT); a number outside of that is replaced by the nearer one.
    pub versions: u64,
    /// The most files of a tenant.
    pub files: i64,
    /// The most bytes of content of a tenant, in all versions that are kept and all drafts. Uploads
    /// under way, and deleted contents until they are collected, take of it too; an upload may exceed it
    /// while it is under way, up to the limit of its [`Reservation`](crate::Reservation).
    pub bytes: i64,
}

impl FilePolicy {
    /// 10 contents of each of a million files, and 10 GiB in all.
    pub const DEFAULT: Self = Self { versions: 10, files: 1_000_000, bytes: 10 << 30 };

    /// Sets `versions`.
    #[must_use]
    pub const fn versions(mut self, versions: u64) -> Self {
        self.versions = versions;
        self
    }

    /// Sets `files`.
    #[must_use]
    pub const fn files(mut self, files: i64) -> Self {
        self.files = files;
        self
    }

    /// Sets `bytes`.
    #[must_use]
    pub const fn bytes(mut self, bytes: i64) -> Self {
        self.bytes = bytes;
        self
    }
}

impl FilePolicy {
    /// The most contents of a file that can be kept.
    pub const VERSIONS_LIMIT: u64 = 100;

    /// Fails unless a content of `size` bytes can be written to `path` in `home`, where `before` is the
    /// present file: for a request that is to be refused before its content is read. [`File::put`] checks again. A read of each counter it needs, and one
    /// of each directory that does not exist; one more if only a content that is dropped makes room.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a directory of the path is a file, `QuotaExceeded` if there is no room.
    pub async fn check_put(
        &self,
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileHome, &str),
        before: Option<&File>,
        size: u64,
    ) -> Result<()> {
        if before.is_none() {
            let files = 1 + File::missing_directories(tx, tenant, home, path).await?.len();
            self.check_files(tx, tenant, files).await?;
        }
        let size = counted(size);
        let used = tx.counter(tenant, Counter::BYTES).await?;
        if used.saturating_add(size) <= self.bytes {
            return Ok(());
        }
        let dropped = match before {
            Some(file) => self.dropped_bytes(tx, file).await?,
            None => 0,
        };
        if size <= dropped || used.saturating_add(size) - dropped <= self.bytes {
            return Ok(());
        }
        Err(no_room(Counter::BYTES, self.bytes))
    }

    /// Fails unless `files` more files can be created. One read.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if there is no room.
    pub async fn check_files(
        &self,
        tx: &Transaction,
        tenant: TenantId,
        files: usize,
    ) -> Result<()> {
        let files = i64::try_from(files).unwrap_or(i64::MAX);
        match tx.counter(tenant, Counter::FILES).await?.saturating_add(files) {
            within if within <= self.files => Ok(()),
            _ => Err(no_room(Counter::FILES, self.files)),
        }
    }

    /// Fails if the tenant exceeds its bytes with `size` bytes that this transaction attaches, and
    /// without `freed` bytes that it detaches. What does not grow never fails. One read.
    ///
    /// No conflict is needed: a content is counted from before its upload until after its collection.
    /// Of several transactions that attach at the same time, the one with the newest read version sees
    /// the contents of all others in the counter, so the sum of what is held stays within the limit.
    pub(super) async fn require_room(
        &self,
        tx: &Transaction,
        tenant: TenantId,
        size: i64,
        freed: i64,
    ) -> Result<()> {
        let used = tx.counter(tenant, Counter::BYTES);
        if size <= freed || used.await? - freed <= self.bytes {
            return Ok(());
        }
        Err(no_room(Counter::BYTES, self.bytes))
    }

    /// Returns the number of contents that are kept.
    pub(super) fn kept(&self) -> u64 {
        self.versions.clamp(1, Self::VERSIONS_LIMIT)
    }

    /// Returns the size of the contents of `file` that its next content replaces.
    async fn dropped_bytes(&self, tx: &Transaction, file: &File) -> Result<i64> {
        if file.kind == FileKind::Directory {
            return Ok(0);
        }
        let last = (file.version + 1).saturating_sub(self.kept());
        let contents = file.contents(tx).await?;
        let dropped = contents.iter().filter(|content| content.version <= last);
        Ok(dropped.fold(0, |sum, content| sum.saturating_add(counted(content.blob.size))))
    }
}

impl Default for FilePolicy {
    /// Returns [`FilePolicy::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn no_room(counter: Counter, limit: i64) -> Error {
    let message = format!("counter {} would exceed {limit}", counter.name());
    Error::new(ErrorKind::QuotaExceeded(counter.name()), message)
}
