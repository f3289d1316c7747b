//! The engine in this process: one folder, or memory; no server.
//!
//! Transactions read on their caller's thread, from the state that was published last when they
//! first read. A commit goes through three threads, the first two of which a client that is alone
//! does without (see [`commit_pipeline::try_commit_inline`]):
//!
//! ```text
//! pipeline   decides in which order what is done, and does it to the newest state   (pipeline/)
//! writer      makes it durable in the log, a batch at a time; shows it; answers      (writer.rs, log/)
//! checkpointer     moves it from the log to the B-tree, in the background                 (checkpointer.rs)
//! ```
//!
//! What is in the log and not in the B-tree is in memory too, in memtables over the B-tree, which
//! reads look through ([`snapshot`]). After a crash the log is replayed into such a memtable, or
//! slice by slice into the B-tree if it is long ([`recovery`]).

mod backend;
mod btree_file;
mod checkpointer;
mod commit_pipeline;
mod conflict_set;
mod database_reads;
mod memtable;
mod messages;
pub(crate) mod names;
mod pinned_snapshot;
mod ranges;
mod read_pool;
mod read_your_writes;
mod reads;
mod recovery;
mod reserve;
mod segments;
mod snapshot;
mod snapshot_cache;
mod space;
mod sync;
mod transaction;
mod transaction_view;
mod version_registry;
mod vfs;
mod wake;
mod wal;
mod watches;
mod write_map;
mod writer;

#[cfg(test)]
mod endurance;
#[cfg(test)]
mod faulty;
#[cfg(test)]
mod full_disk;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
#[cfg(test)]
mod outages;
#[cfg(test)]
#[cfg(feature = "schedules")]
mod schedules;
#[cfg(test)]
mod tests;

use std::{
    fmt, mem,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Arc, PoisonError},
};

use tokio::sync::{Semaphore, oneshot};

use self::{
    btree_file::{BTreeFile, Written},
    checkpointer::{Checkpointer, Progress},
    commit_pipeline::{CommitPipeline, PipelineParts, SharedPipeline},
    memtable::Memtable,
    messages::{Checkpoint, Commit, Request},
    read_pool::ReadPool,
    reserve::Reserve,
    snapshot::{Snapshot, SnapshotBase},
    space::Space,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        has_other_threads, is_engine_thread, mark_engine_thread, mpsc,
        queue::{self, UnboundedSender},
        thread::{self, JoinHandle},
    },
    version_registry::{CommittedVersion, VersionRegistry},
    vfs::{Directory, Memory, Vfs},
    wake::QueuePermit,
    wal::Log,
    writer::Writer,
};
pub(super) use self::{pinned_snapshot::PinnedSnapshot, transaction::Transaction};
use crate::{Clock, Error, ErrorKind, Result};

/// Options of the embedded engine.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How much memory caches the file, in bytes; 256 MiB by default.
    pub cache_bytes: usize,
    /// How much memory holds what the log has and the file has not, in bytes, at the most; 256 MiB
    /// by default. From half of it on commits are slowed down, so that the file keeps up. When a
    /// long log is replayed it is half of it, but 16 MiB at the least.
    pub memtable_bytes: usize,
    /// Where versions come from: each is at least the hour in microseconds.
    pub clock: Clock,
    /// Whether reads take turns as those of a cluster do: each yields once before it is answered,
    /// so that concurrent reads overlap, and a [view](super::View) reads each page at a version of
    /// its own. For tests that count [rounds](super::Statistics::rounds); false by default.
    pub round_trips: bool,
}

impl Options {
    /// Sets `cache_bytes`.
    #[must_use]
    pub fn cache_bytes(mut self, cache_bytes: usize) -> Self {
        self.cache_bytes = cache_bytes;
        self
    }

    /// Sets `memtable_bytes`.
    #[must_use]
    pub fn memtable_bytes(mut self, memtable_bytes: usize) -> Self {
        self.memtable_bytes = memtable_bytes;
        self
    }

    /// Sets `clock`.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets `round_trips`.
    #[must_use]
    pub fn simulate_round_trips(mut self, round_trips: bool) -> Self {
        self.round_trips = round_trips;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            memtable_bytes: 256 << 20,
            clock: Clock::system(),
            round_trips: false,
        }
    }
}

/// Memory of the commits that wait or are being written, in KiB, at the most.
const QUEUE_KIB: u32 = 64 << 10;
/// The memory that caches the file while it is only looked at, and that holds what is replayed of
/// the log.
const REPAIR_BYTES: usize = 64 << 20;

/// The memory that holds what is replayed of the log at the least: it is read the more often the
/// less that is.
const LEAST_BYTES: usize = 16 << 20;

/// A handle, cheap to clone. The engine stops when it is closed or the last handle, transactions
/// included, is dropped.
#[derive(Clone, Debug)]
pub(super) struct Embedded(Arc<Shared>);

/// What handles and transactions share.
struct Shared {
    name: &'static str,
    round_trips: bool,
    disk: Arc<dyn Vfs>,
    registry: Arc<VersionRegistry>,
    queue_permits: Arc<Semaphore>,
    queue: UnboundedSender<Request>,
    /// How many transactions are being committed.
    committing: AtomicUsize,
    pipeline: Arc<SharedPipeline>,
    reads: ReadPool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A transaction that is being committed.
#[derive(Debug)]
struct Committing<'a>(&'a Shared);

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.0.committing.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Embedded {
    pub(super) fn open(folder: &Path, options: &Options) -> Result<Self> {
        let disk = Directory::make(folder).map_err(|error| {
            let message = format!("the data folder {} cannot be made", folder.display());
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        Self::start("embedded", Arc::new(disk), options)
    }

    pub(super) fn memory(options: &Options) -> Result<Self> {
        Self::start("memory", Arc::new(Memory::default()), options)
    }

    fn start(name: &'static str, disk: Arc<dyn Vfs>, options: &Options) -> Result<Self> {
        let mut btree = BTreeFile::open(&*disk, options.cache_bytes)?;
        let bytes = (options.memtable_bytes / 2).max(LEAST_BYTES);
        let registry = Arc::new(VersionRegistry::new(disk.folder()));
        let (replayed, memtable) =
            recovery::recover(&*disk, &mut btree, &registry.space, bytes, false)?;
        replayed.make_durable()?;
        registry.space.keep(Reserve::new(Arc::clone(&disk)));
        let mut log_end = replayed.log_end;
        let store = btree.recorded().store;
        let mut log = Log::new(Arc::clone(&disk), store, replayed, options.memtable_bytes);
        let unrequired = recovery::require_log(&mut btree, &mut log, &registry.space)?;

        let progress = Arc::new(Progress::default());
        let (queue, requests) = queue::unbounded_channel();
        let (checkpoints, turned) = mpsc::channel();
        let (batches, prepared) = mpsc::channel();
        let tree = btree.snapshot()?;
        let is_all = btree.applied().version == log_end.version;
        if is_all {
            log_end = btree.applied();
        }
        let base = Arc::new(SnapshotBase::new((!is_all).then(|| memtable.clone()), tree));
        if !is_all {
            progress.begin(memtable.bytes());
            // It is there until the end.
            let base = Arc::clone(&base);
            let _ = checkpoints.send(Checkpoint { memtable, log_end, base, is_last: false });
        }
        let snapshot = Snapshot { mutable: Memtable::default(), base };
        registry.publish(CommittedVersion::new(log_end.version, snapshot.clone()));
        let writer = Arc::new(Mutex::new(Writer::new(Arc::clone(&registry), checkpoints)));

        let applier = Checkpointer {
            btree,
            registry: Arc::clone(&registry),
            progress: Arc::clone(&progress),
            pipeline: queue.clone(),
            failed: None,
            unrequired,
        };
        let alarm = PanicGuard::new(&registry, &queue);
        let applying = move || alarm.watch(|| applier.run(&turned));
        let applier = spawn("coditect-apply", applying)?;
        let (to_write, answers) = (Arc::clone(&writer), queue.clone());
        let alarm = PanicGuard::new(&registry, &queue);
        let writing = move || alarm.watch(|| writer::run(&to_write, &prepared, &answers));
        let writing = spawn("coditect-write", writing)?;
        let pipeline = CommitPipeline::new(PipelineParts {
            snapshot,
            log_end,
            log,
            clock: options.clock.clone(),
            registry: Arc::clone(&registry),
            progress,
            writer,
            batches,
            memtable_bytes: options.memtable_bytes,
        });
        let finish = || {
            // Each ends when the one before it has: an error means that it did so by a panic.
            let _ = writing.join();
            let _ = applier.join();
        };
        let pipeline = Arc::new(Mutex::new(Some(pipeline)));
        let (place, shown) = (Arc::clone(&pipeline), Arc::clone(&registry));
        let thread = move || commit_pipeline::run(&place, shown, requests, finish);
        let thread = spawn("coditect-commit", thread)?;
        Ok(Self(Arc::new(Shared {
            name,
            round_trips: options.round_trips,
            disk,
            registry,
            queue_permits: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
            queue,
            committing: AtomicUsize::new(0),
            pipeline,
            reads: ReadPool::default(),
            thread: Mutex::new(Some(thread)),
        })))
    }

    pub(super) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(super) fn simulates_round_trips(&self) -> bool {
        self.0.round_trips
    }

    pub(super) fn begin(&self) -> Transaction {
        Transaction::new(Arc::clone(&self.0))
    }

    /// Compares the file in `folder` with its own sums, and replays its log: see
    /// [`BTreeFile::check`].
    pub(super) fn check(folder: &Path) -> Result<bool> {
        Self::check_on(&Directory::at(folder))
    }

    fn check_on(disk: &dyn Vfs) -> Result<bool> {
        let is_sound = BTreeFile::check(disk)?;
        let btree = BTreeFile::open(disk, REPAIR_BYTES)?;
        recovery::check(disk, &btree)?;
        Ok(is_sound)
    }

    /// Gives up the commits that follow a gap in the log in `folder`, and returns a description of
    /// them: those before it are moved to the B-tree, and the log's files are kept under other
    /// names.
    pub(super) fn truncate_damaged_log(folder: &Path) -> Result<Option<String>> {
        let disk = Directory::at(folder);
        if !BTreeFile::is_on(&disk)? {
            btree_file::refuse_orphaned_log(&disk)?;
            let message = format!("there is no store in {}", folder.display());
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let mut btree = BTreeFile::open(&disk, REPAIR_BYTES)?;
        let space = Space::new(disk.folder());
        let (replayed, memtable) =
            recovery::recover(&disk, &mut btree, &space, REPAIR_BYTES, true)?;
        if replayed.lost.is_some() {
            // Before the files are renamed: what they have would be gone with a crash in between.
            if btree.apply(&memtable, replayed.log_end, true)? == Written::NoSpace {
                return Err(space.error());
            }
            replayed.quarantine(&disk)?;
        }
        Ok(replayed.lost.map(|lost| lost.to_string()))
    }

    /// Returns whether there is a store in `folder`. Fails if only its log is there.
    pub(super) fn is_in(folder: &Path) -> Result<bool> {
        let disk = Directory::at(folder);
        let is_there = BTreeFile::is_on(&disk)?;
        if !is_there && folder.exists() {
            btree_file::refuse_orphaned_log(&disk)?;
        }
        Ok(is_there)
    }

    pub(super) fn view(&self) -> Result<PinnedSnapshot> {
        PinnedSnapshot::new(Arc::clone(&self.0))
    }

    pub(super) async fn advance(&self, version: u64) -> Result<()> {
        self.0.registry.owner.check()?;
        let (done, advanced) = oneshot::channel();
        self.0.send(Request::AdvanceVersion(version, done))?;
        advanced.await.map_err(|_| self.0.registry.closed())
    }

    /// Fails if it is closed, or the disk is full.
    pub(super) fn check_open(&self) -> Result<()> {
        let registry = &self.0.registry;
        registry.owner.check()?;
        registry.check_open()?;
        if registry.space.is_left() { Ok(()) } else { Err(registry.space.error()) }
    }

    pub(super) async fn close(&self) {
        let (done, stopped) = oneshot::channel();
        if self.0.registry.owner.is_current() && self.0.send(Request::Stop(Some(done))).is_ok() {
            // An error means that it has stopped already.
            let _ = stopped.await;
        }
    }
}

impl Shared {
    /// A share of the queue's memory for a commit of `bytes`.
    async fn room_for(&self, bytes: usize) -> Result<QueuePermit> {
        let kib = u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX).min(QUEUE_KIB);
        let queue_permits = Arc::clone(&self.queue_permits).acquire_many_owned(kib).await;
        queue_permits.map(QueuePermit::from).map_err(|_| self.registry.closed())
    }

    /// Has `commit` done; it gets its answer by itself. Ends with what it gives.
    fn commit(&self, commit: Commit) -> Result<Committing<'_>> {
        let is_alone = self.committing.fetch_add(1, Ordering::Relaxed) == 0;
        let committing = Committing(self);
        let left = if is_alone && has_other_threads() && !self.disk.is_slow() {
            let failed = || drop(self.queue.send(Request::Failed));
            commit_pipeline::try_commit_inline(&self.pipeline, commit, failed)
        } else {
            Some(commit)
        };
        left.map_or(Ok(()), |commit| self.send(Request::Commit(commit)))?;
        Ok(committing)
    }

    /// Reads on a thread of the engine's, for when reads were slow lately.
    async fn spawn_blocking_read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.registry.owner.check()?;
        let (done, answer) = oneshot::channel();
        self.reads.run(move || wake::answer(done, read()));
        // No answer comes of a read that panicked.
        answer.await.unwrap_or_else(|_| Err(self.registry.closed()))
    }

    fn send(&self, request: Request) -> Result<()> {
        self.queue.send(request).map_err(|_| self.registry.closed())
    }
}

impl Drop for Shared {
    /// Waits for the commits that are under way, so that the folder is free afterwards. A thread of
    /// an engine, on which a waker may drop the last handle, does not wait: the commits may need
    /// it. In a fork of the process that opened it, nothing is done at all.
    fn drop(&mut self) {
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if !self.registry.owner.is_current() {
            mem::forget(thread);
            return;
        }
        let _ = self.queue.send(Request::Stop(None));
        if let Some(thread) = thread.filter(|_| !is_engine_thread()) {
            let _ = thread.join();
        }
    }
}

/// Closes the engine when a thread of it panics, so that nobody waits for it in vain.
struct PanicGuard {
    registry: Arc<VersionRegistry>,
    pipeline: UnboundedSender<Request>,
}

impl PanicGuard {
    fn new(registry: &Arc<VersionRegistry>, pipeline: &UnboundedSender<Request>) -> Self {
        Self { registry: Arc::clone(registry), pipeline: pipeline.clone() }
    }

    fn watch(self, work: impl FnOnce()) {
        if panic::catch_unwind(AssertUnwindSafe(work)).is_err() {
            self.registry.close_by_panic();
            // An error means that it has ended already.
            let _ = self.pipeline.send(Request::Failed);
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let work = move || {
        mark_engine_thread();
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "no thread for the commits").with_source(error)
    })
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}
