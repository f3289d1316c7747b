//! The embedded engine: runs in the caller's process, on one folder or in memory.
//!
//! Transactions read on their caller's thread, from the version that was the latest at their first
//! read. A commit passes through three threads; a client that is alone commits inline and skips the
//! first two (see [`commit_pipeline::try_commit_inline`]):
//!
//! ```text
//! commit pipeline   checks conflicts, orders commits, applies them to the head   commit_pipeline/
//! writer            syncs a batch to the WAL, publishes it, answers its commits   writer.rs, wal/
//! checkpointer      writes memtables to the B-tree in the background              checkpointer.rs
//! ```
//!
//! Commits that are in the WAL and not yet in the B-tree are also in memtables over the B-tree
//! ([`snapshot`]). After a crash the WAL is replayed into such a memtable, or, if it is long, into
//! the B-tree one key range at a time ([`recovery`]).
//!
//! | part | file |
//! |---|---|
//! | WAL | `wal/` |
//! | memtable | `memtable.rs` |
//! | B-tree file | `btree_file/`, `backend.rs` |
//! | checkpoints | `checkpointer.rs` |
//! | conflict set | `conflict_set.rs` |
//! | commit pipeline | `commit_pipeline/`, its messages in `messages.rs` |
//! | published versions | `version_registry.rs`, `snapshot.rs` |
//! | read-your-writes | `write_map.rs`, `transaction_view.rs`, `reads.rs`, `read_your_writes.rs` |
//! | files and folders | `vfs.rs`, `names.rs` |
//! | full disks | `space.rs`, `reserve.rs`, `commit_pipeline/space.rs` |
//! | test harness | `testing/` |

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

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod testing;

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
    /// Cache of the B-tree file, in bytes; 256 MiB by default.
    pub cache_bytes: usize,
    /// Maximum memory of the memtables, in bytes; 256 MiB by default. Above half of it, commits are
    /// delayed so that checkpoints keep up. Recovery uses half of it to replay the WAL, and at
    /// least 16 MiB.
    pub memtable_bytes: usize,
    /// Clock that versions are taken from: each version is at least the time in microseconds.
    pub clock: Clock,
    /// Whether to simulate the round trips of a cluster, for tests that count
    /// [rounds](super::Statistics::rounds): each read yields once before it is answered, so that
    /// concurrent reads overlap, and a [view](super::View) reads each page at a version of its own.
    /// False by default.
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

/// Maximum memory of commits that are queued or being written, in KiB.
const MAX_QUEUE_KIB: u32 = 64 << 10;
/// Cache and replay memory of a check or a repair, in bytes.
const REPAIR_BYTES: usize = 64 << 20;

/// Minimum memory of a replay, in bytes. A long WAL is read once for each such part.
const MIN_REPLAY_BYTES: usize = 16 << 20;

/// A handle to the engine; cheap to clone. The engine stops when it is closed, or when the last
/// handle and transaction is dropped.
#[derive(Clone, Debug)]
pub(super) struct Embedded(Arc<Shared>);

/// State shared by handles and transactions.
struct Shared {
    name: &'static str,
    round_trips: bool,
    disk: Arc<dyn Vfs>,
    registry: Arc<VersionRegistry>,
    queue_permits: Arc<Semaphore>,
    queue: UnboundedSender<Request>,
    /// Number of transactions that are being committed.
    committing: AtomicUsize,
    pipeline: Arc<SharedPipeline>,
    reads: ReadPool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Counts a transaction as being committed until it is dropped.
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
            let message = format!("cannot create the data folder {}", folder.display());
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        Self::start("embedded", Arc::new(disk), options)
    }

    pub(super) fn memory(options: &Options) -> Result<Self> {
        Self::start("memory", Arc::new(Memory::default()), options)
    }

    fn start(name: &'static str, disk: Arc<dyn Vfs>, options: &Options) -> Result<Self> {
        let mut btree = BTreeFile::open(&*disk, options.cache_bytes)?;
        let bytes = (options.memtable_bytes / 2).max(MIN_REPLAY_BYTES);
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
        let (checkpoints, checkpoint_queue) = mpsc::channel();
        let (batches, batch_queue) = mpsc::channel();
        let tree = btree.snapshot()?;
        let is_checkpointed = btree.applied().version == log_end.version;
        if is_checkpointed {
            log_end = btree.applied();
        }
        let base = Arc::new(SnapshotBase::new((!is_checkpointed).then(|| memtable.clone()), tree));
        if !is_checkpointed {
            progress.begin(memtable.bytes());
            // The receiver outlives this function.
            let base = Arc::clone(&base);
            let _ = checkpoints.send(Checkpoint { memtable, log_end, base, is_last: false });
        }
        let snapshot = Snapshot { mutable: Memtable::default(), base };
        registry.publish(CommittedVersion::new(log_end.version, snapshot.clone()));
        let writer = Arc::new(Mutex::new(Writer::new(Arc::clone(&registry), checkpoints)));

        let checkpointer = Checkpointer {
            btree,
            registry: Arc::clone(&registry),
            progress: Arc::clone(&progress),
            pipeline: queue.clone(),
            failed: None,
            unrequired,
        };
        let guard = PanicGuard::new(&registry, &queue);
        let run_checkpointer = move || guard.watch(|| checkpointer.run(&checkpoint_queue));
        let checkpointer = spawn("coditect-ckpt", run_checkpointer)?;
        let (batch_writer, requests_to_pipeline) = (Arc::clone(&writer), queue.clone());
        let guard = PanicGuard::new(&registry, &queue);
        let run_writer =
            move || guard.watch(|| writer::run(&batch_writer, &batch_queue, &requests_to_pipeline));
        let writer_thread = spawn("coditect-write", run_writer)?;
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
            // Each thread ends after the one before it. An error is a panic, which closed the
            // engine.
            let _ = writer_thread.join();
            let _ = checkpointer.join();
        };
        let pipeline = Arc::new(Mutex::new(Some(pipeline)));
        let (shared, versions) = (Arc::clone(&pipeline), Arc::clone(&registry));
        let thread = move || commit_pipeline::run(&shared, versions, requests, finish);
        let thread = spawn("coditect-commit", thread)?;
        Ok(Self(Arc::new(Shared {
            name,
            round_trips: options.round_trips,
            disk,
            registry,
            queue_permits: Arc::new(Semaphore::new(MAX_QUEUE_KIB as usize)),
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

    /// Verifies all checksums of the B-tree file and the WAL in `folder`, and repairs the file if
    /// necessary. Returns whether it was intact.
    pub(super) fn check(folder: &Path) -> Result<bool> {
        Self::check_on(&Directory::at(folder))
    }

    fn check_on(disk: &dyn Vfs) -> Result<bool> {
        let is_sound = BTreeFile::check(disk)?;
        let btree = BTreeFile::open(disk, REPAIR_BYTES)?;
        recovery::check(disk, &btree)?;
        Ok(is_sound)
    }

    /// Truncates the WAL in `folder` at its first gap: writes the commits before the gap to the
    /// B-tree, and renames the segments. Returns a description of the lost commits, or `None` if
    /// there is no gap.
    pub(super) fn truncate_damaged_log(folder: &Path) -> Result<Option<String>> {
        let disk = Directory::at(folder);
        if !BTreeFile::is_on(&disk)? {
            btree_file::refuse_orphaned_log(&disk)?;
            let message = format!("no store found in {}", folder.display());
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let mut btree = BTreeFile::open(&disk, REPAIR_BYTES)?;
        let space = Space::new(disk.folder());
        let (replayed, memtable) =
            recovery::recover(&disk, &mut btree, &space, REPAIR_BYTES, true)?;
        if replayed.lost.is_some() {
            // Before the segments are renamed, so that a crash in between loses nothing.
            if btree.apply(&memtable, replayed.log_end, true)? == Written::NoSpace {
                return Err(space.error());
            }
            replayed.quarantine(&disk)?;
        }
        Ok(replayed.lost.map(|lost| lost.to_string()))
    }

    /// Returns whether there is a store in `folder`. Fails if there is only a WAL.
    pub(super) fn exists(folder: &Path) -> Result<bool> {
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

    /// Fails if the engine is closed or the disk is full.
    pub(super) fn check_open(&self) -> Result<()> {
        let registry = &self.0.registry;
        registry.owner.check()?;
        registry.check_open()?;
        if registry.space.is_left() { Ok(()) } else { Err(registry.space.error()) }
    }

    pub(super) async fn close(&self) {
        let (done, stopped) = oneshot::channel();
        if self.0.registry.owner.is_current() && self.0.send(Request::Stop(Some(done))).is_ok() {
            // An error means that the pipeline has stopped already.
            let _ = stopped.await;
        }
    }
}

impl Shared {
    /// Waits for a share of the queue's memory for a commit of `bytes`.
    async fn acquire_queue_permit(&self, bytes: usize) -> Result<QueuePermit> {
        let kib = u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX).min(MAX_QUEUE_KIB);
        let queue_permits = Arc::clone(&self.queue_permits).acquire_many_owned(kib).await;
        queue_permits.map(QueuePermit::from).map_err(|_| self.registry.closed())
    }

    /// Commits inline or through the queue. The reply is sent to the commit's own channel. Returns
    /// a guard to hold until then.
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

    /// Runs `read` on a thread of the engine. Used while reads are slow.
    async fn spawn_blocking_read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.registry.owner.check()?;
        let (done, answer) = oneshot::channel();
        self.reads.run(move || wake::answer(done, read()));
        // The channel closes without an answer if the read panics.
        answer.await.unwrap_or_else(|_| Err(self.registry.closed()))
    }

    fn send(&self, request: Request) -> Result<()> {
        self.queue.send(request).map_err(|_| self.registry.closed())
    }
}

impl Drop for Shared {
    /// Waits until running commits are complete, so that the folder is unlocked afterwards. A
    /// thread of an engine does not wait, since the commits may need it: a waker may drop the last
    /// handle there. Does nothing in a fork of the process that opened the engine.
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

/// Closes the engine when one of its threads panics, so that no caller waits forever.
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
            // An error means that the pipeline has stopped already.
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
        Error::new(ErrorKind::Unavailable, "cannot start a thread of the engine").with_source(error)
    })
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}
