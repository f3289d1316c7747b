//! The commit pipeline: checks queued commits for conflicts in order, applies them to the head
//! snapshot, and hands them to the [`writer`](super::writer) in batches.
//!
//! ```text
//! transactions ── bounded queue ──► pipeline ──► writer (one sync per batch) ──► checkpointer
//!       ▲                                             │
//!       └─────── published (version, snapshot) ◄──────┘
//! ```
//!
//! A batch stays open while the writer is busy with the previous one, so batches grow with the
//! latency of the disk. When the writer is idle, a batch is submitted at once. For a single client
//! even the hand-over between threads costs half as much as a sync, so such a client
//! [commits inline](try_commit_inline), on its own thread, while the disk is fast.
//!
//! # Invariants
//!
//! - A version is published after its batch is durable, and its commits are answered after it is
//!   published: a transaction that begins after a reply reads the commit. Conflicts are answered
//!   likewise, so that a retry reads the conflicting write.
//! - The commits of a batch share a version, and are ordered within it.
//! - The head snapshot is ahead of the published one by the batches in flight. If one of them
//!   fails, nothing of it was visible, and the engine closes.

mod batch;
mod space;

use std::{
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use self::batch::Batch;
use super::{
    checkpointer::Progress,
    conflict_set::ConflictSet,
    messages::{Checkpoint, Commit, PreparedBatch, Request},
    snapshot::Snapshot,
    sync::{Instant, Mutex, mpsc::Sender, queue::UnboundedReceiver},
    version_registry::{CommittedVersion, VersionRegistry},
    wake::answer,
    wal::{FrameBuilder, Log, LogPosition},
    writer::{Writer, complete_all},
};
use crate::{Clock, Error, ErrorKind, telemetry};

/// Maximum duration of one backpressure wait.
const MAX_BACKPRESSURE_WAIT: Duration = Duration::from_millis(50);
/// Maximum mean write latency at which clients commit inline.
const MAX_INLINE_LATENCY: Duration = Duration::from_millis(1);

/// The state of the commit pipeline.
pub(super) struct CommitPipeline {
    /// The batch that commits are added to.
    open: Option<Batch>,
    /// The latest snapshot, which may not be published yet.
    head: Snapshot,
    last_version: u64,
    /// Position of the last WAL frame.
    log_end: LogPosition,
    /// The last version that was submitted to the writer for publication.
    published_version: u64,
    log: Log,
    conflicts: ConflictSet,
    clock: Clock,
    registry: Arc<VersionRegistry>,
    progress: Arc<Progress>,
    /// Also used inline while its thread is idle; `None` during shutdown.
    writer: Option<Arc<Mutex<Writer>>>,
    batches: Option<Sender<PreparedBatch>>,
    /// Number of batches that the writer thread has not completed.
    in_flight: usize,
    /// Maximum memory of the memtables, in bytes.
    memtable_bytes: usize,
    /// Moving average of the latency of inline writes.
    write_latency: Duration,
    /// A superseded snapshot, dropped while the disk is busy: it shares most of its nodes with
    /// later snapshots, and dropping it takes time.
    deferred_drop: Option<Snapshot>,
    /// Position up to which the WAL is in the B-tree or in a running checkpoint.
    checkpoint_requested: LogPosition,
    /// Whether the next batch starts a checkpoint.
    is_checkpoint_due: bool,
}

/// The pipeline, or `None` after shutdown. Locked by its thread or by a client that
/// [commits inline](try_commit_inline).
pub(super) type SharedPipeline = Mutex<Option<CommitPipeline>>;

/// Closes the registry when the pipeline ends, even by a panic, so that no caller waits forever.
struct CloseOnDrop(Arc<VersionRegistry>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close_by_panic();
        }
        self.0.close();
    }
}

/// The next action after a request.
enum Next {
    /// Wait for the next request.
    Block,
    /// Take the next request if there is one, or else close the batch.
    Poll,
    /// Shut down, and signal completion if there is a sender.
    Stop(Option<oneshot::Sender<()>>),
}

/// The components of a new pipeline.
pub(super) struct PipelineParts {
    pub(super) snapshot: Snapshot,
    pub(super) log_end: LogPosition,
    pub(super) log: Log,
    pub(super) clock: Clock,
    pub(super) registry: Arc<VersionRegistry>,
    pub(super) progress: Arc<Progress>,
    pub(super) writer: Arc<Mutex<Writer>>,
    pub(super) batches: Sender<PreparedBatch>,
    pub(super) memtable_bytes: usize,
}

/// Runs the pipeline until it is stopped or fails; `finish` joins the other threads.
pub(super) fn run(
    shared: &SharedPipeline,
    registry: Arc<VersionRegistry>,
    mut queue: UnboundedReceiver<Request>,
    finish: impl FnOnce(),
) {
    let closing = CloseOnDrop(registry);
    let serving = AssertUnwindSafe(|| serve(shared, &mut queue));
    let stopped = panic::catch_unwind(serving).unwrap_or_else(|_| {
        closing.0.close_by_panic();
        None
    });
    let pipeline = shared.lock().unwrap_or_else(PoisonError::into_inner).take();
    queue.close();
    // Requests that were sent during shutdown.
    while let Some(request) = queue.blocking_recv() {
        match request {
            Request::Commit(commit) => answer(commit.reply, Err(closing.0.closed())),
            Request::Stop(Some(done)) => answer(done, ()),
            // The caller of an advance observes the dropped sender.
            _ => {}
        }
    }
    if let Some(mut pipeline) = pipeline {
        // Dropping the pipeline closes the WAL before the folder is unlocked.
        pipeline.finish();
    }
    finish();
    drop(closing);
    if let Some(done) = stopped {
        answer(done, ());
    }
}

/// Serves requests until the pipeline stops. Returns the sender of the stop request, if any.
fn serve(
    shared: &SharedPipeline,
    queue: &mut UnboundedReceiver<Request>,
) -> Option<oneshot::Sender<()>> {
    let mut should_poll = false;
    loop {
        let next = if should_poll { queue.try_recv().ok() } else { Some(queue.blocking_recv()?) };
        let mut pipeline = shared.lock().unwrap_or_else(PoisonError::into_inner);
        match pipeline.as_mut()?.step(next, queue.len()) {
            Next::Block => should_poll = false,
            Next::Poll => should_poll = true,
            Next::Stop(done) => return done,
        }
    }
}

/// Commits on the caller's thread if the pipeline and the writer are idle and the disk was fast
/// recently, so that a single client waits for no other thread. Returns the commit if it has to go
/// through the queue. Calls `failed` after an unrecoverable error.
pub(super) fn try_commit_inline(
    shared: &SharedPipeline,
    commit: Commit,
    failed: impl FnOnce(),
) -> Option<Commit> {
    let Ok(mut shared) = shared.try_lock() else { return Some(commit) };
    let Some(pipeline) = shared.as_mut().filter(|pipeline| pipeline.can_commit_inline()) else {
        return Some(commit);
    };
    let commit = AssertUnwindSafe(|| pipeline.commit(commit, 0) && pipeline.close_open(0));
    let is_healthy = panic::catch_unwind(commit).unwrap_or_else(|_| {
        // The pipeline ends as it would on its own thread; the client's thread continues.
        if let Some(pipeline) = shared.take() {
            pipeline.registry.close_by_panic();
        }
        false
    });
    if !is_healthy {
        failed();
    }
    None
}

impl CommitPipeline {
    pub(super) fn new(start: PipelineParts) -> Self {
        let PipelineParts {
            snapshot,
            log_end,
            log,
            clock,
            registry,
            progress,
            writer,
            batches,
            ..
        } = start;
        Self {
            open: None,
            head: snapshot,
            last_version: log_end.version,
            log_end,
            published_version: log_end.version,
            log,
            conflicts: ConflictSet::new(log_end.version),
            clock,
            registry,
            progress,
            writer: Some(writer),
            batches: Some(batches),
            in_flight: 0,
            memtable_bytes: start.memtable_bytes,
            write_latency: Duration::ZERO,
            deferred_drop: None,
            checkpoint_requested: log_end,
            is_checkpoint_due: false,
        }
    }

    /// Handles a request; without one, closes the open batch.
    fn step(&mut self, request: Option<Request>, left: usize) -> Next {
        let healthy = match request {
            Some(Request::Commit(commit)) => self.commit(commit, left),
            None => self.close_open(left),
            Some(Request::AdvanceVersion(version, done)) => {
                // The open batch has a version already, which later commits would share.
                let healthy = self.close_open(left);
                self.last_version = self.last_version.max(version);
                answer(done, ());
                healthy
            }
            Some(Request::BatchWritten) => {
                self.in_flight -= 1;
                true
            }
            Some(Request::Checkpoint) if self.open.is_none() => self.checkpoint_inline(),
            Some(Request::Checkpoint) => {
                self.is_checkpoint_due = true;
                true
            }
            Some(Request::CheckpointFailed(applied)) => {
                self.close_open(left) && self.thaw_failed_checkpoint(applied)
            }
            Some(Request::Failed) => false,
            Some(Request::Stop(done)) => {
                self.close_open(left);
                return Next::Stop(done);
            }
        };
        if !healthy {
            if let Some(batch) = self.open.take() {
                complete_all(batch.prepared.replies, |_| Err(self.registry.closed()));
            }
            return Next::Stop(None);
        }
        if self.open.is_some() && self.in_flight == 0 { Next::Poll } else { Next::Block }
    }

    /// Adds a commit to the open batch, and closes the batch if it is full. Returns false after an
    /// unrecoverable error.
    fn commit(&mut self, commit: Commit, left: usize) -> bool {
        if !self.registry.space.is_left() {
            self.retry_space();
            let space = &self.registry.space;
            let is_admitted = !space.log_is_unrequired() && self.is_admitted_without_space(&commit);
            if !space.is_left() && !is_admitted {
                answer(commit.reply, Err(self.registry.space.error()));
                return true;
            }
            if self.registry.space.log_is_full() {
                self.registry.space.release_reserve();
            }
        }
        let mut batch = self.open.take().unwrap_or_else(|| self.open());
        match self.admit(&mut batch, commit) {
            Ok(()) if batch.has_room() => {
                self.open = Some(batch);
                true
            }
            Ok(()) => self.close_batch(batch, left),
            Err(error) => self.abort_batch(batch, error),
        }
    }

    fn close_open(&mut self, left: usize) -> bool {
        self.open.take().is_none_or(|batch| self.close_batch(batch, left))
    }

    /// Returns whether the pipeline is idle and the disk fast.
    fn can_commit_inline(&self) -> bool {
        let is_idle = self.open.is_none() && self.in_flight == 0 && self.writer.is_some();
        is_idle
            && self.write_latency < MAX_INLINE_LATENCY
            && self.unflushed_bytes() <= self.memtable_bytes / 2
    }

    /// Shuts down: checkpoints the rest of the WAL, and records a clean shutdown.
    fn finish(&mut self) {
        let may_end = |registry: &VersionRegistry| {
            registry.check_open().is_ok() && !registry.space.tree_is_full()
        };
        while self.progress.is_busy() && may_end(&self.registry) {
            self.progress.wait(MAX_BACKPRESSURE_WAIT);
        }
        let checkpoint = self.checkpoint(true);
        self.submit(PreparedBatch { checkpoint, ..PreparedBatch::default() });
        (self.writer, self.batches) = (None, None);
    }

    /// Appends a batch to the WAL and submits it to the writer. Returns false after an
    /// unrecoverable error.
    fn close_batch(&mut self, mut batch: Batch, left: usize) -> bool {
        telemetry::batched(batch.prepared.replies.len(), left);
        if batch.accepted > 0 {
            let may_use_reserve = !self.registry.space.is_left();
            let frame = FrameBuilder::of(&batch.prepared.mutations);
            match self.log.append(frame, batch.version, may_use_reserve) {
                Ok((mut pending, log_end)) => {
                    self.log_end = log_end;
                    self.published_version = batch.version;
                    if self.should_write_inline(&batch.prepared)
                        && self.registry.check_open().is_ok()
                    {
                        // The disk works while the batch is applied.
                        pending.begin();
                    }
                    self.apply(&mut batch);
                    self.record(&mut batch);
                    batch.prepared.frame = Some(pending);
                    batch.prepared.state =
                        Some(CommittedVersion::new(batch.version, self.head.clone()));
                }
                Err(error) => {
                    let error = self.close_cause(error);
                    return self.abort_batch(batch, error);
                }
            }
        }
        let Batch { prepared, bytes, before, .. } = batch;
        self.conflicts.evict_expired(Instant::now());
        self.log.release(self.progress.first_segment());
        self.deferred_drop = None;
        let healthy = self.submit(prepared);
        self.deferred_drop = Some(before);
        self.apply_backpressure(bytes);
        healthy
    }

    /// Fails all commits of a batch, of which nothing was written. Returns false after an
    /// unrecoverable error.
    fn abort_batch(&mut self, batch: Batch, error: Error) -> bool {
        let Batch { version, mut prepared, before, .. } = batch;
        tracing::error!(error = &error as &dyn std::error::Error, "batch aborted");
        self.head = before;
        let error = Arc::new(error);
        for (_, verdict) in &mut prepared.replies {
            if verdict.is_ok() {
                *verdict =
                    Err(error.clone_without_source().with_source(Box::new(Arc::clone(&error))));
            }
        }
        // The snapshot is unchanged, but its version is new: the conflict set has the writes of the
        // batch at this version, and a retry must not read before it.
        prepared.mutations.clear();
        prepared.state = Some(CommittedVersion::new(version, self.head.clone()));
        self.published_version = version;
        self.submit(prepared) && error.kind() != ErrorKind::Corrupt
    }

    /// Returns whether to write this batch inline because the writer is idle.
    fn should_write_inline(&self, prepared: &PreparedBatch) -> bool {
        self.writer.is_some() && self.in_flight == 0 && prepared.replies.len() <= 1
    }

    /// Writes a batch [inline](Self::should_write_inline), or submits it to the writer thread.
    fn submit(&mut self, prepared: PreparedBatch) -> bool {
        match (&self.writer, &self.batches) {
            (Some(writer), _) if self.should_write_inline(&prepared) => {
                let began = Instant::now();
                let healthy = writer.lock().unwrap_or_else(PoisonError::into_inner).write(prepared);
                self.write_latency = (self.write_latency * 7 + began.elapsed()) / 8;
                healthy
            }
            (_, Some(batches)) => {
                self.in_flight += 1;
                batches.send(prepared).is_ok()
            }
            _ => false,
        }
    }

    /// Freezes the mutable memtable for a checkpoint, unless it is empty or a checkpoint is
    /// running.
    fn begin_checkpoint(&mut self) -> Option<Checkpoint> {
        if self.log_end == self.checkpoint_requested { None } else { self.checkpoint(false) }
    }

    /// Freezes the mutable memtable for a checkpoint, unless a checkpoint is running. `is_last`
    /// records a clean shutdown: nothing may be committed after it.
    fn checkpoint(&mut self, is_last: bool) -> Option<Checkpoint> {
        if !self.progress.begin(self.head.mutable.bytes()) {
            return None;
        }
        (self.checkpoint_requested, self.is_checkpoint_due) = (self.log_end, false);
        let memtable = mem::take(&mut self.head.mutable);
        self.head.base = Arc::new(self.head.base.freeze(memtable.clone()));
        Some(Checkpoint {
            memtable,
            log_end: self.log_end,
            base: Arc::clone(&self.head.base),
            is_last,
        })
    }

    /// Starts a checkpoint while no batch is open.
    fn checkpoint_inline(&mut self) -> bool {
        self.deferred_drop = None;
        self.retry_space();
        self.log.release(self.progress.first_segment());
        let Some(checkpoint) = self.begin_checkpoint() else { return true };
        let replacement = Some((self.published_version, self.head.clone()));
        self.submit(PreparedBatch {
            checkpoint: Some(checkpoint),
            replacement,
            ..PreparedBatch::default()
        })
    }

    /// Delays the pipeline while the memtables use more than half of their budget. The delay grows
    /// from zero to twice the time that a checkpoint of the batch takes. At the budget, waits until
    /// the running checkpoint is complete.
    fn apply_backpressure(&self, bytes: usize) {
        let soft = self.memtable_bytes / 2;
        let waiting = self.unflushed_bytes();
        if waiting <= soft {
            return;
        }
        let fullness = lossy(waiting - soft) / lossy(self.memtable_bytes - soft).max(1.0);
        let wait = self.progress.time_for(bytes).mul_f64(2.0 * fullness.min(1.0));
        self.progress.wait(wait.min(MAX_BACKPRESSURE_WAIT));
        // The budget is a hard limit.
        while self.unflushed_bytes() > self.memtable_bytes
            && self.progress.is_busy()
            && self.registry.check_open().is_ok()
            && !self.registry.space.tree_is_full()
        {
            self.progress.wait(MAX_BACKPRESSURE_WAIT);
        }
    }

    /// Returns the memory of commits that the B-tree lacks, in bytes.
    fn unflushed_bytes(&self) -> usize {
        self.head.mutable.bytes() + self.progress.in_flight_bytes()
    }
}

/// Converts a number of bytes for a ratio.
#[expect(clippy::cast_precision_loss, reason = "the precision suffices for a ratio")]
fn lossy(bytes: usize) -> f64 {
    bytes as f64
}
