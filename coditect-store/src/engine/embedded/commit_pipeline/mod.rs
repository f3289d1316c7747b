//! The one thread that decides: it takes what waits and checks each commit in order, does what it
//! asks for to the newest state, and hands what came of it to the [`writer`](super::writer), batch
//! by batch.
//!
//! ```text
//! transactions ── bounded queue ──► pipeline ──► writer (one sync a batch) ──► checkpointer (the B-tree)
//!       ▲                                             │
//!       └─────── published (version, snapshot) ◄──────┘
//! ```
//!
//! A batch stays open while the writer is busy with the one before it, so that it is as large as
//! the disk is slow; when the writer has nothing to do a batch goes to it at once. For a client
//! that is alone even that is too long a way, half as long as a sync: it [leads](lead) the pipeline
//! itself, on its own thread, while the disk is quick.
//!
//! What stays true: a version is published after its batch is on disk, and answered after it is
//! published, so that whoever begins then sees it; so is a refusal, so that whoever tries again
//! reads what it was refused for. All of a batch shares one version; its members are ordered within
//! it. The newest state is ahead of the published one by what is being written: if that fails,
//! nobody has seen it, and the engine is closed.

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

/// The longest that a batch is held back at once.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// When writing a commit takes longer than this, callers' threads are not used for it.
const LONGEST_LEAD: Duration = Duration::from_millis(1);

/// The pipeline's own state.
pub(super) struct CommitPipeline {
    /// What is decided and not handed over.
    open: Option<Batch>,
    /// The newest state, which may not be published yet.
    head: Snapshot,
    last_version: u64,
    /// The last frame of the log.
    log_end: LogPosition,
    /// The version of the last state that the writer was given to show.
    published_version: u64,
    log: Log,
    conflicts: ConflictSet,
    clock: Clock,
    registry: Arc<VersionRegistry>,
    progress: Arc<Progress>,
    /// Used from here when it has nothing else to do; `None` once it is to stop.
    writer: Option<Arc<Mutex<Writer>>>,
    batches: Option<Sender<PreparedBatch>>,
    /// Batches that the writer has not said to be done with.
    in_flight: usize,
    /// The most memory that may wait for the B-tree, in bytes.
    memtable_bytes: usize,
    /// How long it took lately to write a commit here.
    write_latency: Duration,
    /// A state that nobody needs any more, to be freed while the disk is busy: it shares nearly all
    /// it has with later ones, and to find out takes time.
    deferred_drop: Option<Snapshot>,
    /// The last frame of the log that is on its way to the B-tree, or in it.
    checkpoint_requested: LogPosition,
    /// Whether what is in the log has waited for long enough to go to the B-tree.
    is_checkpoint_due: bool,
}

/// Where it is: nowhere once it has ended. Its thread has it while it works, or a client that is
/// [alone](lead).
pub(super) type SharedPipeline = Mutex<Option<CommitPipeline>>;

/// Closes the registry when the pipeline ends, by a panic too: nobody is to wait for it in vain.
struct CloseOnDrop(Arc<VersionRegistry>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close_by_panic();
        }
        self.0.close();
    }
}

/// What comes after a request.
enum Next {
    /// The next one, which may not come soon.
    Block,
    /// What is there already, or else the batch is closed.
    Poll,
    /// Nothing; whom to tell, if somebody asked for the end.
    Stop(Option<oneshot::Sender<()>>),
}

/// What a pipeline begins with.
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

/// Commits until it is stopped or something fails; `finish` waits for the other threads.
pub(super) fn run(
    place: &SharedPipeline,
    registry: Arc<VersionRegistry>,
    mut queue: UnboundedReceiver<Request>,
    finish: impl FnOnce(),
) {
    let closing = CloseOnDrop(registry);
    let serving = AssertUnwindSafe(|| serve(place, &mut queue));
    let stopped = panic::catch_unwind(serving).unwrap_or_else(|_| {
        closing.0.close_by_panic();
        None
    });
    let pipeline = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    queue.close();
    // Also those who are just coming in.
    while let Some(request) = queue.blocking_recv() {
        match request {
            Request::Commit(commit) => answer(commit.reply, Err(closing.0.closed())),
            Request::Stop(Some(done)) => answer(done, ()),
            // Who asked to advance finds nobody to answer.
            _ => {}
        }
    }
    if let Some(mut pipeline) = pipeline {
        // With it goes the log: nobody writes to that any more when the folder is free.
        pipeline.finish();
    }
    finish();
    drop(closing);
    if let Some(done) = stopped {
        answer(done, ());
    }
}

/// Commits until there is an end to it; gives whom to tell, if somebody asked for the end.
fn serve(
    place: &SharedPipeline,
    queue: &mut UnboundedReceiver<Request>,
) -> Option<oneshot::Sender<()>> {
    let mut is_hurried = false;
    loop {
        let next = if is_hurried { queue.try_recv().ok() } else { Some(queue.blocking_recv()?) };
        let mut pipeline = place.lock().unwrap_or_else(PoisonError::into_inner);
        match pipeline.as_mut()?.step(next, queue.len()) {
            Next::Block => is_hurried = false,
            Next::Poll => is_hurried = true,
            Next::Stop(done) => return done,
        }
    }
}

/// Commits on this thread, if the pipeline and the writer have nothing to do and the disk was quick
/// lately: a client that is alone then waits for its sync and for no other thread. Gives the commit
/// back if it is not to be done so. `failed` is called if nothing can be committed any more.
pub(super) fn try_commit_inline(
    place: &SharedPipeline,
    commit: Commit,
    failed: impl FnOnce(),
) -> Option<Commit> {
    let Ok(mut place) = place.try_lock() else { return Some(commit) };
    let Some(pipeline) = place.as_mut().filter(|pipeline| pipeline.can_commit_inline()) else {
        return Some(commit);
    };
    let commit = AssertUnwindSafe(|| pipeline.commit(commit, 0) && pipeline.close_open(0));
    let is_healthy = panic::catch_unwind(commit).unwrap_or_else(|_| {
        // It ends here, as it would on its own thread; the client is not to.
        if let Some(pipeline) = place.take() {
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

    /// Does what is asked for; nothing, if nothing is there.
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
                self.close_open(left) && self.take_back(applied)
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

    /// Adds a commit to the open batch, and closes that if it is full.
    fn commit(&mut self, commit: Commit, left: usize) -> bool {
        if !self.registry.space.is_left() {
            self.look_for_space();
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

    /// Whether a commit would be all there is to do, and likely to be done soon.
    fn can_commit_inline(&self) -> bool {
        let is_idle = self.open.is_none() && self.in_flight == 0 && self.writer.is_some();
        is_idle
            && self.write_latency < LONGEST_LEAD
            && self.unflushed_bytes() <= self.memtable_bytes / 2
    }

    /// Ends it: what is in the log is moved to the B-tree, which records a clean shutdown.
    fn finish(&mut self) {
        let may_end = |registry: &VersionRegistry| {
            registry.check_open().is_ok() && !registry.space.tree_is_full()
        };
        while self.progress.is_busy() && may_end(&self.registry) {
            self.progress.wait(LONGEST_WAIT);
        }
        let checkpoint = self.checkpoint(true);
        self.hand_over(PreparedBatch { checkpoint, ..PreparedBatch::default() });
        (self.writer, self.batches) = (None, None);
    }

    /// Hands a batch to the writer; false if nothing can be done any more.
    fn close_batch(&mut self, mut batch: Batch, left: usize) -> bool {
        telemetry::batched(batch.prepared.replies.len(), left);
        if batch.accepted > 0 {
            let may_use_reserve = !self.registry.space.is_left();
            let draft = FrameBuilder::of(&batch.prepared.mutations);
            match self.log.append(draft, batch.version, may_use_reserve) {
                Ok((mut placed, log_end)) => {
                    self.log_end = log_end;
                    self.published_version = batch.version;
                    if self.is_to_write(&batch.prepared) && self.registry.check_open().is_ok() {
                        // What follows is done while the disk is busy with it.
                        placed.begin();
                    }
                    self.apply(&mut batch);
                    self.record(&mut batch);
                    batch.prepared.frame = Some(placed);
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
        let healthy = self.hand_over(prepared);
        self.deferred_drop = Some(before);
        self.apply_backpressure(bytes);
        healthy
    }

    /// Refuses a batch whole: nothing of it is written. False if nothing can be done any more.
    fn abort_batch(&mut self, batch: Batch, error: Error) -> bool {
        let Batch { version, mut prepared, before, .. } = batch;
        tracing::error!(error = &error as &dyn std::error::Error, "a batch of commits is refused");
        self.head = before;
        let error = Arc::new(error);
        for (_, verdict) in &mut prepared.replies {
            if verdict.is_ok() {
                *verdict =
                    Err(error.clone_without_source().with_source(Box::new(Arc::clone(&error))));
            }
        }
        // The state is as it was. Its version is not, since the batch's writes are noted as of this
        // one: who tries again must not read before it.
        prepared.mutations.clear();
        prepared.state = Some(CommittedVersion::new(version, self.head.clone()));
        self.published_version = version;
        self.hand_over(prepared) && error.kind() != ErrorKind::Corrupt
    }

    /// Whether the batch is to be written here, as neither the writer has anything else to do.
    fn is_to_write(&self, prepared: &PreparedBatch) -> bool {
        self.writer.is_some() && self.in_flight == 0 && prepared.replies.len() <= 1
    }

    /// Gives a batch to the writer, or [writes it here](Self::is_to_write).
    fn hand_over(&mut self, prepared: PreparedBatch) -> bool {
        match (&self.writer, &self.batches) {
            (Some(writer), _) if self.is_to_write(&prepared) => {
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

    /// Begins a new active memtable, unless there is nothing in this one or the one before it is
    /// still on its way.
    fn begin_checkpoint(&mut self) -> Option<Checkpoint> {
        if self.log_end == self.checkpoint_requested { None } else { self.checkpoint(false) }
    }

    /// Begins a new active memtable, unless the one before it is still on its way. After the last
    /// one nothing is committed.
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

    /// A turn while nothing is committed.
    fn checkpoint_inline(&mut self) -> bool {
        self.deferred_drop = None;
        self.look_for_space();
        self.log.release(self.progress.first_segment());
        let Some(checkpoint) = self.begin_checkpoint() else { return true };
        let replacement = Some((self.published_version, self.head.clone()));
        self.hand_over(PreparedBatch {
            checkpoint: Some(checkpoint),
            replacement,
            ..PreparedBatch::default()
        })
    }

    /// Slows down while much waits for the B-tree, more and more, so that it never is too much and
    /// nobody waits for long: at half of what may wait not at all, at the end twice as long as the
    /// B-tree takes for as much.
    fn apply_backpressure(&self, bytes: usize) {
        let soft = self.memtable_bytes / 2;
        let waiting = self.unflushed_bytes();
        if waiting <= soft {
            return;
        }
        let fullness = lossy(waiting - soft) / lossy(self.memtable_bytes - soft).max(1.0);
        let wait = self.progress.time_for(bytes).mul_f64(2.0 * fullness.min(1.0));
        self.progress.wait(wait.min(LONGEST_WAIT));
        // What is above the limit can't be, however long it takes.
        while self.unflushed_bytes() > self.memtable_bytes
            && self.progress.is_busy()
            && self.registry.check_open().is_ok()
            && !self.registry.space.tree_is_full()
        {
            self.progress.wait(LONGEST_WAIT);
        }
    }

    /// The memory of what waits for the B-tree, in bytes.
    fn unflushed_bytes(&self) -> usize {
        self.head.mutable.bytes() + self.progress.in_flight_bytes()
    }
}

/// A count of bytes for a ratio.
#[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than a float's digits")]
fn lossy(bytes: usize) -> f64 {
    bytes as f64
}
