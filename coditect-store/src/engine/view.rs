//! Views: what is stored, to be read for longer than a transaction lives; and what a restored
//! database needs beside.
//!
//! A [`View`] is for who goes through everything: an export, a check. It reads, conflicts with
//! nothing, and outlives the five seconds of a transaction. On the embedded engine it is one
//! version for as long as it is held. A cluster keeps no version for longer than a transaction
//! lives, so there a view reads each page at the version of its time; [`View::consistency`] says
//! which of the two it is, so that nobody takes the one for the other.

use std::path::Path;

use super::{
    Database, Engine, KeyRange, RangeQuery, Transaction, embedded,
    range::{CheckedRow, ViewPage},
};
use crate::{
    BatchSize, Error, ErrorKind, Result,
    batch::{MAX_CONCURRENT, map_concurrent},
};

/// What is stored, at one version if [`consistency`](Self::consistency) says so. A handle that is
/// cheap to clone.
///
/// While it is held the engine keeps what has been overwritten since: the file of the embedded
/// engine grows by that, and reuses it afterwards. Like a transaction's reads, a view's answer
/// `Closed` once the database is closed, and the folder is free when the view is dropped too.
#[derive(Clone, Debug)]
pub struct View(Source);

#[derive(Clone, Debug)]
enum Source {
    Embedded(embedded::PinnedSnapshot),
    /// What lets no version be held: each page is read by a transaction of its own.
    Pages {
        database: Database,
        version: u64,
    },
    /// The snapshot of one transaction, for as long as that lives.
    Transaction {
        tx: Transaction,
        version: u64,
    },
}

/// Whether what is read belongs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// All of it is as it was at one version.
    OneVersion,
    /// Each page is as it was when it was read.
    EachPage,
}

/// Returns the values of `keys`, which are read together.
async fn get_together(tx: &Transaction, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>> {
    let get = |key: &Vec<u8>| {
        let (tx, key) = (tx.clone(), key.clone());
        async move { tx.snapshot().get(&key).await }
    };
    map_concurrent(keys, get).await
}

/// A range of a view, page by page, in bounded memory: made by [`View::stream`].
#[derive(Debug)]
pub struct ViewStream {
    view: View,
    /// What is left; `None` after the last page.
    rest: Option<KeyRange>,
    target_bytes: usize,
}

impl ViewStream {
    /// The next rows; `None` after the last. No page is empty. After an error it can be asked
    /// again.
    ///
    /// # Errors
    ///
    /// As [`View::page`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<CheckedRow>>> {
        let Some(KeyRange { begin, end }) = &self.rest else { return Ok(None) };
        let page = self.view.page(begin, end, self.target_bytes).await?;
        let last = page.rows.last().map(|row| row.key.clone());
        self.rest =
            self.rest.take().zip(last.filter(|_| page.more)).map(|(rest, last)| rest.after(last));
        Ok((!page.rows.is_empty()).then_some(page.rows))
    }
}

/// How the file of a database was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileState {
    /// As it was written.
    Sound,
    /// Damaged, and put right without loss of a commit.
    Repaired,
}

impl View {
    /// The snapshot of `tx`: of one version, and too old after five seconds.
    pub(crate) async fn within(tx: Transaction) -> Result<Self> {
        let version = tx.read_version().await?;
        Ok(Self(Source::Transaction { tx, version }))
    }

    /// The version that it shows; if it is not of one version, the version at which it began.
    pub fn version(&self) -> u64 {
        match &self.0 {
            Source::Embedded(held) => held.version(),
            Source::Pages { version, .. } | Source::Transaction { version, .. } => *version,
        }
    }

    /// Whether all that is read belongs together.
    pub fn consistency(&self) -> Consistency {
        match &self.0 {
            Source::Embedded(_) | Source::Transaction { .. } => Consistency::OneVersion,
            Source::Pages { .. } => Consistency::EachPage,
        }
    }

    /// The value of `key`, or `None`.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is damaged; `Closed`; those of the engine.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        super::give_way().await;
        match &self.0 {
            Source::Embedded(held) => held.get(key).await,
            Source::Transaction { tx, .. } => tx.snapshot().get(key).await,
            Source::Pages { database, .. } => {
                database.run(|tx| async move { tx.snapshot().get(key).await }).await
            }
        }
    }

    /// The values of `keys`, in their order: `None` for a key that is not there, an empty value for
    /// one that is damaged. They are read together, on a cluster by one transaction.
    ///
    /// # Errors
    ///
    /// `Closed`; those of the engine.
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

    /// The rows from `begin` up to, and without, `end`, ending with the one at which keys and
    /// values come to `target_bytes`. A value that is damaged does not keep the others from being
    /// read.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the rows themselves cannot be told from each other any more; `Closed`; those of
    /// the engine.
    pub async fn page(&self, begin: &[u8], end: &[u8], target_bytes: usize) -> Result<ViewPage> {
        super::give_way().await;
        match &self.0 {
            Source::Embedded(held) => held.page(begin, end, target_bytes.max(1)).await,
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
    /// The rows of `range`, in pages that end with the row at which keys and values come to
    /// `target_bytes`.
    pub fn stream(&self, range: KeyRange, target_bytes: usize) -> ViewStream {
        ViewStream { view: self.clone(), rest: Some(range), target_bytes }
    }
}

impl Database {
    /// What is stored now, for as long as it is held.
    ///
    /// # Errors
    ///
    /// `Closed`; those of the engine.
    pub async fn view(&self) -> Result<View> {
        let holds_versions = match &self.engine {
            Engine::Embedded(engine) => (!engine.simulates_round_trips()).then_some(engine),
            #[cfg(feature = "fdb")]
            Engine::Cluster(_) => None,
        };
        if let Some(engine) = holds_versions {
            return engine.view().map(Source::Embedded).map(View);
        }
        let version = self.run(|tx| async move { tx.read_version().await }).await?;
        Ok(View(Source::Pages { database: self.clone(), version }))
    }

    /// Makes all versions that are given from now on greater than `version`: rows with
    /// versionstamps that another database gave lie before those that this one gives. It holds for
    /// good with the next commit. (On a cluster that is what `advanceversion` of its command line
    /// does.)
    ///
    /// # Errors
    ///
    /// `Invalid` if `version` is in the upper half of all numbers: no clock gives such a one.
    /// `Closed`.
    pub async fn advance_version(&self, version: u64) -> Result<()> {
        if version > u64::MAX / 2 {
            let message = format!("{version} is no version that was ever given");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        match &self.engine {
            Engine::Embedded(engine) => engine.advance(version).await,
            #[cfg(feature = "fdb")]
            Engine::Cluster(cluster) => cluster.advance(version).await,
        }
    }

    /// Whether the embedded engine has a file in the folder `path`.
    ///
    /// # Errors
    ///
    /// `Unavailable` if that cannot be seen.
    pub fn is_in(path: impl AsRef<Path>) -> Result<bool> {
        embedded::Embedded::is_in(path.as_ref())
    }

    /// Compares every page of the embedded engine's file in the folder `path` with its checksum,
    /// and every frame of its log. It takes as long as reading them, and keeps its thread busy
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is damaged beyond repair; otherwise as [`open`](Self::open), `Unavailable`
    /// also if there is no file.
    pub fn check_file(path: impl AsRef<Path>) -> Result<FileState> {
        let sound = embedded::Embedded::check(path.as_ref())?;
        Ok(if sound { FileState::Sound } else { FileState::Repaired })
    }

    /// Gives up what was committed after something that is missing from the embedded engine's log
    /// in the folder `path`, without which it can't be opened; says what that was, or `None` if
    /// nothing is missing. All up to there is kept, and the log's files are, under other names.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), but for a damaged log; `Unavailable` also if there is no file.
    pub fn truncate_damaged_log(path: impl AsRef<Path>) -> Result<Option<String>> {
        embedded::Embedded::truncate_damaged_log(path.as_ref())
    }
}
