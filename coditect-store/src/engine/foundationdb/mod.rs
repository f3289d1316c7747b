//! The engine on a FoundationDB cluster, through FoundationDB's client library (`libfdb_c`).
//!
//! The library merges reads with own writes, enforces limits and tracks conflict ranges; the
//! embedded engine does the same by itself. This module adds key prefixes, exact page limits,
//! timeouts, and errors that state what the caller can do.
//!
//! Nothing here depends on the location of a key in the cluster.

mod network;
mod transaction;

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use foundationdb::{
    Database, FdbError, FdbResult,
    options::{DatabaseOption, TransactionOption},
};
use tokio::sync::watch;

pub(super) use self::transaction::Transaction;
use super::{
    ClusterOptions,
    codes::{self, During},
    limits::{self, WATCH_LIMIT},
    prefix::Prefix,
    process::Owner,
    timer,
};
use crate::{Error, ErrorKind, Result, telemetry};

/// Special key that advances versions (manual: "Special keys", management module).
const MIN_VERSION: &[u8] = b"\xff\xff/management/min_required_commit_version";

/// Maximum duration of a recovery after an advance of versions, until the first read: storage
/// servers answer once they have reached the new version.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// The connections of this process by cluster file. They are shared, and stay open until the
/// process exits, since connecting is slow.
static CONNECTIONS: LazyLock<Mutex<HashMap<PathBuf, Arc<Database>>>> =
    LazyLock::new(Mutex::default);

/// Maximum number of watches of a connection, which several databases share; the limit of a
/// database is [`WATCH_LIMIT`].
const MAX_CONNECTION_WATCHES: i32 = 1_000_000;

/// A handle to a cluster; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Cluster(Arc<Shared>);

/// State shared by handles, transactions and watches.
struct Shared {
    database: Arc<Database>,
    file: PathBuf,
    prefix: Prefix,
    options: ClusterOptions,
    closed: watch::Sender<bool>,
    watches: AtomicUsize,
    owner: Owner,
    /// Whether all keys are removed with the last handle.
    is_temporary: bool,
}

impl Cluster {
    pub(super) fn open(file: &Path, options: &ClusterOptions) -> Result<Self> {
        Self::connect(file, options, false)
    }

    /// Opens an empty part of a cluster, which is cleared when its last handle is dropped.
    pub(super) fn temporary(file: &Path) -> Result<Self> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let prefix = [b"coditect-scratch/", id.as_bytes(), b"/"].concat();
        let options = ClusterOptions { prefix, ..ClusterOptions::default() };
        Self::connect(file, &options, true)
    }

    fn connect(file: &Path, options: &ClusterOptions, is_temporary: bool) -> Result<Self> {
        let prefix = Prefix::new(&options.prefix)?;
        network::start(options.trace_folder.as_deref())?;
        let database = connection(file)?;
        Ok(Self(Arc::new(Shared {
            database,
            file: file.to_owned(),
            prefix,
            options: options.clone(),
            closed: watch::Sender::new(false),
            watches: AtomicUsize::new(0),
            owner: Owner::current(),
            is_temporary,
        })))
    }

    /// Begins a transaction; at batch priority, with the tag `background`, if there is one.
    pub(super) fn begin(&self, background: Option<&str>) -> Transaction {
        Transaction::new(Arc::clone(&self.0), background)
    }

    pub(super) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Advances the versions of the cluster past `version`, as `advanceversion` of `fdbcli` does.
    /// The cluster recovers and is unavailable for a moment. Returns once a read succeeds again.
    pub(super) async fn advance(&self, version: u64) -> Result<()> {
        let until = Instant::now() + RECOVERY_TIMEOUT;
        loop {
            match self.0.advance_once(version, until).await {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() > until => return Err(self.0.timed_out(During::Read)),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Closed || Instant::now() > until => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(%error, "retrying to advance the version of the cluster");
                }
            }
            timer::sleep(Duration::from_millis(100)).await?;
        }
    }
}

impl Shared {
    /// Fails if the database is closed, or in a fork, where the library does not work.
    fn check_open(&self) -> Result<()> {
        self.owner.check()?;
        if *self.closed.borrow() { Err(limits::closed()) } else { Ok(()) }
    }

    fn create(&self, background: Option<&str>) -> Result<foundationdb::Transaction> {
        self.check_open()?;
        let create = || {
            let tx = self.database.create_trx()?;
            if let Some(tag) = background {
                tx.set_option(TransactionOption::PriorityBatch)?;
                tx.set_option(TransactionOption::AutoThrottleTag(tag.to_owned()))?;
            }
            if self.options.report_conflicts {
                tx.set_option(TransactionOption::ReportConflictingKeys)?;
            }
            if self.options.trace_folder.is_some() {
                let id = uuid::Uuid::now_v7().simple().to_string();
                tx.set_option(TransactionOption::DebugTransactionIdentifier(id))?;
                tx.set_option(TransactionOption::LogTransaction)?;
            }
            Ok(tx)
        };
        create().map_err(|error| self.error(error, During::Read))
    }

    /// Waits for a reply of the cluster, at most for the timeout of the options.
    async fn answer<T>(
        &self,
        reply: impl Future<Output = FdbResult<T>>,
        during: During,
    ) -> Result<T> {
        self.answer_until(Instant::now() + self.options.timeout, reply, during).await
    }

    /// Waits for a reply of the cluster, at most until the given time.
    async fn answer_until<T>(
        &self,
        until: Instant,
        reply: impl Future<Output = FdbResult<T>>,
        during: During,
    ) -> Result<T> {
        let left = until.saturating_duration_since(Instant::now());
        match timer::timeout(left, reply).await? {
            Some(answer) => answer.map_err(|error| self.error(error, during)),
            None => Err(self.timed_out(during)),
        }
    }

    /// Returns the error of a timeout.
    fn timed_out(&self, during: During) -> Error {
        match during {
            During::Read => {
                let file = self.file.display();
                let message = format!("no response from the cluster of {file}");
                Error::new(ErrorKind::Unavailable, message)
            }
            During::Commit => {
                let message =
                    "no response from the cluster, which may still commit the transaction";
                Error::coded(ErrorKind::MaybeCommitted, 1031, message)
            }
        }
    }

    /// Converts an error of the library, and keeps it as the source.
    fn error(&self, error: FdbError, during: During) -> Error {
        let kind = codes::kind(error.code(), during);
        let converted = match kind {
            ErrorKind::Unavailable => {
                let (file, what) = (self.file.display(), error.message());
                let message = format!("cluster of {file}: {what}");
                Error::new(kind, message).with_code(error.code())
            }
            _ => Error::coded(kind, error.code(), error.message()),
        };
        converted.with_source(error)
    }

    /// Returns whether versions are past `version` and readable. If not, requests the advance.
    async fn advance_once(&self, version: u64, until: Instant) -> Result<bool> {
        let tx = self.create(None)?;
        let present = self.answer(tx.get_read_version(), During::Read).await?;
        if u64::try_from(present).is_ok_and(|present| present > version) {
            // Storage servers may lag behind the read version.
            let read = tx.get(&self.prefix.key(b""), true);
            return self.answer_until(until, read, During::Read).await.map(|_| true);
        }
        tx.set_option(TransactionOption::SpecialKeySpaceEnableWrites)
            .map_err(|error| self.error(error, During::Read))?;
        tx.set(MIN_VERSION, version.to_string().as_bytes());
        self.commit(tx).await.map(|()| false)
    }

    /// Clears all keys with the prefix.
    async fn clear(&self) -> Result<()> {
        let Some((begin, end)) = self.prefix.range() else { return Ok(()) };
        let mut left = 5;
        loop {
            let tx = self.database.create_trx().map_err(|error| self.error(error, During::Read))?;
            tx.clear_range(begin, end);
            left -= 1;
            match self.commit(tx).await {
                // Clearing twice does no harm.
                Err(error) if left > 0 && error.kind() != ErrorKind::Closed => {
                    timer::sleep(Duration::from_millis(100)).await?;
                }
                outcome => return outcome,
            }
        }
    }

    async fn commit(&self, tx: foundationdb::Transaction) -> Result<()> {
        let committed = async { tx.commit().await.map_err(FdbError::from) };
        self.answer(committed, During::Commit).await.map(|_| ())
    }
}

/// Returns the connection to the cluster of `file`.
fn connection(file: &Path) -> Result<Arc<Database>> {
    let unusable = |why: &str| {
        let message = format!("cluster file {} {why}", file.display());
        Error::new(ErrorKind::Invalid, message)
    };
    // The library's own error would not name the cause.
    let full = file.canonicalize().and_then(|full| File::open(&full).map(|_| full));
    let full = full.map_err(|error| unusable("cannot be read").with_source(error))?;
    let path = full.to_str().ok_or_else(|| unusable("has a path that is not UTF-8"))?;
    let mut connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = connections.get(&full) {
        return Ok(Arc::clone(open));
    }
    let database =
        Database::from_path(path).map_err(|error| unusable("is invalid").with_source(error))?;
    database
        .set_option(DatabaseOption::MaxWatches(MAX_CONNECTION_WATCHES))
        .map_err(|error| unusable("cannot be used").with_source(error))?;
    let database = Arc::new(database);
    connections.insert(full, Arc::clone(&database));
    Ok(database)
}

/// Counts an active watch until it is dropped.
struct Watching(Arc<Shared>);

impl Watching {
    /// Returns `None` if there are too many watches.
    fn new(shared: &Arc<Shared>) -> Option<Self> {
        let watching = Self(Arc::clone(shared));
        let before = shared.watches.fetch_add(1, Ordering::Relaxed);
        telemetry::watching(before + 1);
        (before < WATCH_LIMIT).then_some(watching)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let before = self.0.watches.fetch_sub(1, Ordering::Relaxed);
        telemetry::watching(before - 1);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.is_temporary || !self.owner.is_current() {
            return;
        }
        // Blocks on a new thread, since this one may run an async runtime.
        let shared = &*self;
        let cleared = thread::scope(|scope| {
            let clear = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.map_err(|error| error.to_string()).and_then(|runtime| {
                    runtime.block_on(shared.clear()).map_err(|error| error.to_string())
                })
            };
            scope.spawn(clear).join()
        });
        if let Ok(Err(error)) = cleared {
            tracing::warn!(%error, "temporary database was not cleared from its cluster");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("file", &self.file).finish_non_exhaustive()
    }
}
