//! Views: consistent reads of a whole database for longer than the lifetime of a transaction, for
//! exports and checks; and maintenance of the embedded engine's files.
//!
//! A [`View`] conflicts with nothing. On the embedded engine it reads one version for as long as it
//! is pinned. A cluster keeps no version for longer than [`LIFETIME`](super::LIFETIME), so there a
//! view reads each page at a version of its own: see [`View::consistency`].

use std::path::Path;

use super::{
    Database, Engine, KeyRange, RangeQuery, Transaction, embedded,
    range::{CheckedRow, ViewPage},
};
use crate::{
    BatchSize, Error, ErrorKind, Result,
    batch::{MAX_CONCURRENT, map_concurrent},
};

/// A view of the whole database; cheap to clone.
///
/// While a view is held, the file of the embedded engine keeps overwritten values; their space is
/// reused afterwards. Reads return `Closed` once the database is closed.
#[derive(Clone, Debug)]
pub struct View(Source);

#[derive(Clone, Debug)]
enum Source {
    Embedded(embedded::PinnedSnapshot),
    /// Reads each page in a transaction of its own; `version` is the version at which the view
    /// began.
    Pages {
        database: Database,
        version: u64,
    },
    /// Reads the snapshot of one transaction, for its lifetime.
    Transaction {
        tx: Transaction,
        version: u64,
    },
}

/// The consistency of the reads of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// All reads see one version.
    OneVersion,
    /// Each page is read at its own version.
    EachPage,
}

/// Returns the values of `keys`, read concurrently.
async fn get_together(tx: &Transaction, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
    let get = |key: &Vec<u8>| {
        let (tx, key) = (tx.clone(), key.clone());
        async move { tx.snapshot().get(&key).await }
    };
    map_concurrent(keys, get).await
}

/// A range of a view, page by page, in bounded memory: see [`View::stream`].
#[derive(Debug)]
pub struct ViewStream {
    view: View,
    /// The rest of the range; `None` after the last page.
    rest: Option<KeyRange>,
    target_bytes: usize,
}

impl ViewStream {
    /// Returns the next rows; `None` after the last. No page is empty. After an error, the next
    /// call reads the same page again.
    ///
    /// # Errors
    ///
    /// Fails as [`View::page`] does.
    pub async fn next_page(&mut self) -> Result<Option<Vec<CheckedRow>>> {
        let Some(KeyRange { begin, end }) = &self.rest else { return Ok(None) };
        let page = self.view.page(begin, end, self.target_bytes).await?;
        let last = page.rows.last().map(|row| row.key.clone());
        self.rest =
            self.rest.take().zip(last.filter(|_| page.more)).map(|(rest, last)| rest.after(last));
        Ok((!page.rows.is_empty()).then_some(page.rows))
    }
}

/// The result of [`Database::check_file`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// The file is intact.
    Sound,
    /// The file was damaged, and was repaired without losing a commit.
    Repaired,
}

impl View {
    /// Returns a view of the snapshot of `tx`, which is too old after five seconds.
    pub(crate) async fn within(tx: Transaction) -> Result<Self> {
        let version = tx.read_version().await?;
        Ok(Self(Source::Transaction { tx, version }))
    }

    /// Returns the version that is read; with [`Consistency::EachPage`], the version at which the
    /// view began.
    pub fn version(&self) -> u64 {
        match &self.0 {
            Source::Embedded(pinned) => pinned.version(),
            Source::Pages { version, .. } | Source::Transaction { version, .. } => *version,
        }
    }

    /// Returns the consistency of the reads.
    pub fn consistency(&self) -> Consistency {
        match &self.0 {
            Source::Embedded(_) | Source::Transaction { .. } => Consistency::OneVersion,
            Source::Pages { .. } => Consistency::EachPage,
        }
    }

    /// Returns the value of `key`.
    ///
    /// # Errors
    ///
    /// Returns `Corrupt` if the value is damaged, `Closed`, or an error of the engine.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        super::consume_read_budget().await;
        match &self.0 {
            Source::Embedded(pinned) => pinned.get(key).await,
            Source::Transaction { tx, .. } => tx.snapshot().get(key).await,
            Source::Pages { database, .. } => {
                database.run(|tx| async move { tx.snapshot().get(key).await }).await
            }
        }
    }

    /// Returns the values of `keys`, in their order: `None` for a missing key, an empty value for a
    /// damaged one. On a cluster they are read concurrently.
    ///
    /// # Errors
    ///
    /// Returns `Closed`, or an error of the engine.
    pub(crate) async fn get_all(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
        match &self.0 {
            Source::Embedded(_) => {
                let mut values = Vec::with_capacity(keys.len());
                for key in keys {
                    let page = self.page(key, &[key, &[0][..]].concat(), 1).await?;
                    let row = page.rows.into_iter().next();
                    values.push(row.map(|row| row.value.unwrap_or_default()));
                }
                Ok(values)
            }
            Source::Transaction { tx, .. } => get_together(tx, keys).await,
            Source::Pages { database, .. } => {
                let (size, mut values) = (&BatchSize::new(MAX_CONCURRENT), Vec::new());
                while values.len() < keys.len() {
                    let rest = &keys[values.len()..];
                    let read = |tx: Transaction| async move {
                        get_together(&tx, &rest[..rest.len().min(size.attempt().rows())]).await
                    };
                    values.extend(database.run(read).await?);
                    size.committed();
                }
                Ok(values)
            }
        }
    }

    /// Returns the rows from `begin` (inclusive) to `end` (exclusive), up to the row at which keys
    /// and values reach `target_bytes`. A damaged value does not end the page.
    ///
    /// # Errors
    ///
    /// Returns `Corrupt` if the structure of the file is damaged, `Closed`, or an error of the
    /// engine.
    pub async fn page(&self, begin: &[u8], end: &[u8], target_bytes: usize) -> Result<ViewPage> {
        super::consume_read_budget().await;
        match &self.0 {
            Source::Embedded(pinned) => pinned.page(begin, end, target_bytes.max(1)).await,
            Source::Pages { database, .. } => {
                let size = &BatchSize::new(target_bytes);
                let read = |tx: Transaction| async move {
                    let query = RangeQuery::new(begin, end).target_bytes(size.attempt().rows());
                    tx.snapshot().get_range(&query).await
                };
                database.run(read).await.map(ViewPage::from)
            }
            Source::Transaction { tx, .. } => {
                let query = RangeQuery::new(begin, end).target_bytes(target_bytes.max(1));
                tx.snapshot().get_range(&query).await.map(ViewPage::from)
            }
        }
    }
}

impl View {
    /// Returns the rows of `range` in pages of about `target_bytes`.
    pub fn stream(&self, range: KeyRange, target_bytes: usize) -> ViewStream {
        ViewStream { view: self.clone(), rest: Some(range), target_bytes }
    }
}

impl Database {
    /// Returns a view of the current content.
    ///
    /// # Errors
    ///
    /// Returns `Closed`, or an error of the engine.
    pub async fn view(&self) -> Result<View> {
        let pins_versions = match &self.engine {
            Engine::Embedded(engine) => (!engine.simulates_round_trips()).then_some(engine),
            #[cfg(feature = "fdb")]
            Engine::Cluster(_) => None,
        };
        if let Some(engine) = pins_versions {
            return engine.view().map(Source::Embedded).map(View);
        }
        let version = self.run(|tx| async move { tx.read_version().await }).await?;
        Ok(View(Source::Pages { database: self.clone(), version }))
    }

    /// Makes all future versions greater than `version`, so that new versionstamps sort after those
    /// restored from another database. Durable with the next commit. Equivalent to `advanceversion`
    /// of `fdbcli`.
    ///
    /// # Errors
    ///
    /// Returns `Invalid` if `version` exceeds `u64::MAX / 2`, which no database reaches; `Closed`.
    pub async fn advance_version(&self, version: u64) -> Result<()> {
        if version > u64::MAX / 2 {
            let message = format!("{version} is not a version of a database");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        match &self.engine {
            Engine::Embedded(engine) => engine.advance(version).await,
            #[cfg(feature = "fdb")]
            Engine::Cluster(cluster) => cluster.advance(version).await,
        }
    }

    /// Returns whether the folder `path` contains a store of the embedded engine.
    ///
    /// # Errors
    ///
    /// Returns `Unavailable` if the folder cannot be read, `Corrupt` if it contains only a WAL.
    pub fn exists(path: impl AsRef<Path>) -> Result<bool> {
        embedded::Embedded::exists(path.as_ref())
    }

    /// Verifies the checksums of every page and every WAL frame of the store in the folder `path`.
    /// Reads both files completely and blocks the thread.
    ///
    /// # Errors
    ///
    /// Returns `Corrupt` if the store is damaged beyond repair. Otherwise fails as
    /// [`open`](Self::open) does.
    pub fn check_file(path: impl AsRef<Path>) -> Result<FileState> {
        let sound = embedded::Embedded::check(path.as_ref())?;
        Ok(if sound { FileState::Sound } else { FileState::Repaired })
    }

    /// Truncates the WAL of the store in the folder `path` at its first gap, so that the store can
    /// be opened. Keeps the commits before the gap, and renames the segments instead of deleting
    /// them. Returns a description of the lost commits; `None` if there is no gap.
    ///
    /// # Errors
    ///
    /// Fails as [`open`](Self::open) does, except for a damaged WAL; returns `Unavailable` if there
    /// is no store.
    pub fn truncate_damaged_log(path: impl AsRef<Path>) -> Result<Option<String>> {
        embedded::Embedded::truncate_damaged_log(path.as_ref())
    }
}
