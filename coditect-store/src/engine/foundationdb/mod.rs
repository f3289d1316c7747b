//! The engine on a cluster, through FoundationDB's own client library.
//!
//! That library merges, counts and remembers what conflicts by itself, as the embedded engine does
//! after its model. What is added here: prefixes; pages that end where they were asked to; an end
//! to waiting; and errors that say what to do.
//!
//! Nothing here relies on where in the cluster a key lies.

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

/// Where versions are advanced to (manual: "Special keys", management module).
const MIN_VERSION: &[u8] = b"\xff\xff/management/min_required_commit_version";

/// Maximum time for a cluster to recover with other versions, and to answer reads again: the first
/// one after a jump waits until the storage servers have come to the new version.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// The connections of this process, by their cluster files: all that open one cluster share one.
/// They stay for as long as the process does: to make one takes long.
static CONNECTIONS: LazyLock<Mutex<HashMap<PathBuf, Arc<Database>>>> =
    LazyLock::new(Mutex::default);

/// As many watches as the library allows on one connection: each database refuses one too many of
/// its own where it is asked for.
const MOST_WATCHES: i32 = 1_000_000;

/// A handle, cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Cluster(Arc<Shared>);

/// What handles, transactions and watches share.
struct Shared {
    database: Arc<Database>,
    file: PathBuf,
    prefix: Prefix,
    options: ClusterOptions,
    closed: watch::Sender<bool>,
    watches: AtomicUsize,
    owner: Owner,
    /// Whether all keys go with the last handle.
    is_scratch: bool,
}

impl Cluster {
    pub(super) fn open(file: &Path, options: &ClusterOptions) -> Result<Self> {
        Self::connect(file, options, false)
    }

    /// An empty part of a cluster, which is emptied again when its last handle goes.
    pub(super) fn temporary(file: &Path) -> Result<Self> {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let prefix = [b"coditect-scratch/", id.as_bytes(), b"/"].concat();
        let options = ClusterOptions { prefix, ..ClusterOptions::default() };
        Self::connect(file, &options, true)
    }

    fn connect(file: &Path, options: &ClusterOptions, is_scratch: bool) -> Result<Self> {
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
            is_scratch,
        })))
    }

    /// Begins a transaction; one in the background, if that has a name.
    pub(super) fn begin(&self, background: Option<&str>) -> Transaction {
        Transaction::new(Arc::clone(&self.0), background)
    }

    pub(super) fn close(&self) {
        self.0.closed.send_replace(true);
    }

    /// Makes the cluster give greater versions than `version`, as `advanceversion` of `fdbcli`
    /// does. It recovers meanwhile, and answers no client for a moment. Returns once a read is
    /// answered again.
    pub(super) async fn advance(&self, version: u64) -> Result<()> {
        let until = Instant::now() + RECOVERY_TIMEOUT;
        loop {
            match self.0.advance_once(version, until).await {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() > until => return Err(self.0.silence(During::Read)),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::Closed || Instant::now() > until => {
                    return Err(error);
                }
                Err(error) => tracing::debug!(%error, "the cluster's version is advanced again"),
            }
            timer::sleep(Duration::from_millis(100)).await?;
        }
    }
}

impl Shared {
    /// Fails if it is closed, or in a fork of the process that opened it, where the library does
    /// not work.
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

    /// Waits for what was asked of the cluster, as long as that makes sense.
    async fn answer<T>(
        &self,
        asked: impl Future<Output = FdbResult<T>>,
        during: During,
    ) -> Result<T> {
        self.answer_until(Instant::now() + self.options.patience, asked, during).await
    }

    /// As [`answer`](Self::answer), waiting until the given time.
    async fn answer_until<T>(
        &self,
        until: Instant,
        asked: impl Future<Output = FdbResult<T>>,
        during: During,
    ) -> Result<T> {
        let left = until.saturating_duration_since(Instant::now());
        match timer::timeout(left, asked).await? {
            Some(answer) => answer.map_err(|error| self.error(error, during)),
            None => Err(self.silence(during)),
        }
    }

    /// That it did not answer.
    fn silence(&self, during: During) -> Error {
        match during {
            During::Read => {
                let file = self.file.display();
                let message = format!("the cluster that {file} names does not answer");
                Error::new(ErrorKind::Unavailable, message)
            }
            During::Commit => {
                let message = "the cluster does not answer, and may commit the transaction later";
                Error::coded(ErrorKind::MaybeCommitted, 1031, message)
            }
        }
    }

    /// An error of the library's, which stays its source.
    fn error(&self, error: FdbError, during: During) -> Error {
        let kind = codes::kind(error.code(), during);
        let told = match kind {
            ErrorKind::Unavailable => {
                let (file, what) = (self.file.display(), error.message());
                let message = format!("the cluster that {file} names cannot do this: {what}");
                Error::new(kind, message).with_code(error.code())
            }
            _ => Error::coded(kind, error.code(), error.message()),
        };
        told.with_source(error)
    }

    /// Returns whether versions are past `version`, and reads at them are answered; asks for it if
    /// not.
    async fn advance_once(&self, version: u64, until: Instant) -> Result<bool> {
        let tx = self.create(None)?;
        let present = self.answer(tx.get_read_version(), During::Read).await?;
        if u64::try_from(present).is_ok_and(|present| present > version) {
            // A version is given before the storage servers have come to it.
            let read = tx.get(&self.prefix.key(b""), true);
            return self.answer_until(until, read, During::Read).await.map(|_| true);
        }
        tx.set_option(TransactionOption::SpecialKeySpaceEnableWrites)
            .map_err(|error| self.error(error, During::Read))?;
        tx.set(MIN_VERSION, version.to_string().as_bytes());
        self.commit(tx).await.map(|()| false)
    }

    /// Removes all keys under the prefix.
    async fn empty(&self) -> Result<()> {
        let Some((begin, end)) = self.prefix.range() else { return Ok(()) };
        let mut left = 5;
        loop {
            let tx = self.database.create_trx().map_err(|error| self.error(error, During::Read))?;
            tx.clear_range(begin, end);
            left -= 1;
            match self.commit(tx).await {
                // What is removed twice is removed.
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

/// The connection to the cluster that `file` names.
fn connection(file: &Path) -> Result<Arc<Database>> {
    let unusable = |why: &str| {
        let message = format!("the cluster file {} {why}", file.display());
        Error::new(ErrorKind::Invalid, message)
    };
    // The library would say no more than that there is none.
    let full = file.canonicalize().and_then(|full| File::open(&full).map(|_| full));
    let full = full.map_err(|error| unusable("cannot be read").with_source(error))?;
    let path = full.to_str().ok_or_else(|| unusable("has a name that is no text"))?;
    let mut connections = CONNECTIONS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(open) = connections.get(&full) {
        return Ok(Arc::clone(open));
    }
    let database = Database::from_path(path)
        .map_err(|error| unusable("names no cluster").with_source(error))?;
    database
        .set_option(DatabaseOption::MaxWatches(MOST_WATCHES))
        .map_err(|error| unusable("cannot be used").with_source(error))?;
    let database = Arc::new(database);
    connections.insert(full, Arc::clone(&database));
    Ok(database)
}

/// A watch that counts as long as it is there.
struct Watching(Arc<Shared>);

impl Watching {
    /// `None` if there are too many.
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
        if !self.is_scratch || !self.owner.is_current() {
            return;
        }
        // A thread of its own: where this one may be, nothing can be waited for.
        let shared = &*self;
        let emptied = thread::scope(|scope| {
            let empty = || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.map_err(|error| error.to_string()).and_then(|runtime| {
                    runtime.block_on(shared.empty()).map_err(|error| error.to_string())
                })
            };
            scope.spawn(empty).join()
        });
        if let Ok(Err(error)) = emptied {
            tracing::warn!(%error, "what a scratch database had is still in its cluster");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("file", &self.file).finish_non_exhaustive()
    }
}
