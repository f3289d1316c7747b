//! The quota of files, and its enforcement.

use super::{File, FileKind, FileRoot, TenantId};
use crate::{Counter, Error, ErrorKind, Result, Transaction, records::blob::counted};

/// The quota of a tenant's files, and the number of versions kept per file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilePolicy {
    /// Number of versions kept per file, including the current one. Clamped to 1 to
    /// [`VERSIONS_LIMIT`](Self::VERSIONS_LIMIT).
    pub versions: u64,
    /// Maximum number of files of a tenant.
    pub files: i64,
    /// Maximum bytes of content of a tenant, in all kept versions and drafts. Uploads in progress
    /// and deleted content count until they complete or are collected; an upload may exceed the
    /// limit meanwhile, up to the limit of its [`Reservation`](crate::Reservation).
    pub bytes: i64,
}

impl FilePolicy {
    /// 10 versions per file, a million files, 10 GiB.
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
    /// Maximum number of versions kept per file.
    pub const VERSIONS_LIMIT: u64 = 100;

    /// Fails unless content of `size` bytes can be written to `path` in `home`, where `before` is
    /// the current file: for requests to be rejected before their content is read. [`File::put`]
    /// checks again. One read of each counter it needs, one of each missing directory, and one more
    /// if the content fits only without a version that is detached.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a parent directory is a file, `QuotaExceeded` if the content does not
    /// fit.
    pub async fn check_put(
        &self,
        tx: &Transaction,
        tenant: TenantId,
        (home, path): (&FileRoot, &str),
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
    /// `QuotaExceeded` if they do not fit.
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

    /// Fails if the tenant exceeds its bytes after this transaction, which attaches `size` bytes
    /// and detaches `freed` bytes. Never fails if the size does not grow. One read.
    ///
    /// The read needs no conflict: content counts from before its upload until after its
    /// collection. Of several concurrent transactions that attach content, the one with the newest
    /// read version sees the content of all others in the counter, so the sum stays within the
    /// limit.
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

    /// Returns the number of versions kept.
    pub(super) fn kept(&self) -> u64 {
        self.versions.clamp(1, Self::VERSIONS_LIMIT)
    }

    /// Returns the size of the versions of `file` that its next version replaces.
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
