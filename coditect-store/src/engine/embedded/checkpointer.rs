//! Moves what was committed from the log into the B-tree, in large sorted batches, while others
//! commit.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    btree_file::{self, BTreeFile, Written},
    memtable::Memtable,
    messages::{Checkpoint, Request},
    snapshot::SnapshotBase,
    space::RETRY_INTERVAL,
    sync::{
        Condvar, Instant, Mutex, MutexGuard,
        mpsc::{Receiver, RecvTimeoutError},
        queue::UnboundedSender,
    },
    version_registry::VersionRegistry,
    wal::LogPosition,
};
use crate::{Error, Result, telemetry};

/// How long what was committed waits for more before it is moved.
const IDLE: Duration = Duration::from_secs(5);
/// Pages that are written at once when there is little space, in bytes: less than the reserve.
const SLICE_BYTES: u64 = 256 << 10;
/// Space that is left to what clears, in bytes.
const KEPT_BYTES: u64 = 5 << 20;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first segment of the log that the B-tree file requires.
    segment: u64,
    /// What is on its way, in bytes of memory.
    in_flight_bytes: Option<usize>,
    /// How long the B-tree took for a byte lately, in seconds.
    seconds_per_byte: f64,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes are on their way; false if others still are.
    pub(super) fn begin(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let is_idle = state.in_flight_bytes.is_none();
        if is_idle {
            state.in_flight_bytes = Some(bytes);
        }
        is_idle
    }

    /// What was on its way has come back: see [`Request::CheckpointFailed`].
    pub(super) fn give_up(&self) {
        self.state().in_flight_bytes = None;
        self.moved.notify_all();
    }

    fn end(&self, segment: u64, took: Duration) {
        let mut state = self.state();
        state.segment = segment;
        if let Some(bytes) =
            state.in_flight_bytes.take().and_then(|bytes| u32::try_from(bytes).ok())
        {
            state.seconds_per_byte = took.as_secs_f64() / f64::from(bytes.max(1));
        }
        drop(state);
        self.moved.notify_all();
    }

    /// Returns the number of the first segment of the log that the B-tree file requires.
    pub(super) fn first_segment(&self) -> u64 {
        self.state().segment
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state().in_flight_bytes.is_some()
    }

    pub(super) fn in_flight_bytes(&self) -> usize {
        self.state().in_flight_bytes.unwrap_or(0)
    }

    /// How long the B-tree takes for so many bytes, about.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(bytes * self.state().seconds_per_byte).unwrap_or_default()
    }

    /// Waits until what is on its way has arrived, and no longer than `time`.
    pub(super) fn wait(&self, time: Duration) {
        let state = self.state();
        let wait = |state: &mut State| state.in_flight_bytes.is_some();
        drop(self.moved.wait_timeout_while(state, time, wait));
    }
}

/// The one who writes to the B-tree.
pub(super) struct Checkpointer {
    pub(super) btree: BTreeFile,
    pub(super) registry: Arc<VersionRegistry>,
    pub(super) progress: Arc<Progress>,
    pub(super) pipeline: UnboundedSender<Request>,
    /// How far the last attempt would have come, if it found no space.
    pub(super) failed: Option<LogPosition>,
    /// The segment that the B-tree file has to require before anything is committed, until it does.
    pub(super) unrequired: Option<u64>,
}

impl Checkpointer {
    /// Moves what comes until there is nobody left who could commit, or it fails.
    pub(super) fn run(mut self, checkpoints: &Receiver<Checkpoint>) {
        btree_file::sync_often();
        loop {
            let space = &self.registry.space;
            let idle = if space.is_left() { IDLE } else { RETRY_INTERVAL };
            let checkpoint = match checkpoints.recv_timeout(idle) {
                Ok(checkpoint) => checkpoint,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.require_log() {
                        return self.fail(error);
                    }
                    let _ = self.pipeline.send(Request::Checkpoint);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let written = match self.apply(checkpoint) {
                Ok(written) => written,
                Err(error) => return self.fail(error),
            };
            self.registry.space.set_tree_full(written == Written::NoSpace);
            if written == Written::NoSpace {
                let _ = self.pipeline.send(Request::CheckpointFailed(self.btree.applied()));
            }
        }
    }

    /// Closes the engine: the log has everything, but the B-tree file cannot be written.
    fn fail(&self, error: Error) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the B-tree file cannot be written"
        );
        self.registry.poison(Arc::new(error));
        let _ = self.pipeline.send(Request::Failed);
    }

    /// Has the B-tree file require the log, if it does not yet and there is space for that now:
    /// commits are admitted then.
    fn require_log(&mut self) -> Result<()> {
        let Some(segment) = self.unrequired else { return Ok(()) };
        // A checkpoint since then has recorded the log, maybe from a later segment on.
        let is_required = !self.btree.recorded().is_clean;
        if is_required || self.btree.require_log(segment)? == Written::Durably {
            self.unrequired = None;
            self.registry.space.set_log_unrequired(false);
        }
        Ok(())
    }

    fn apply(&mut self, checkpoint: Checkpoint) -> Result<Written> {
        let Checkpoint { memtable, log_end, base, is_last } = checkpoint;
        let started = Instant::now();
        let written = if self.btree.has_space(&memtable, KEPT_BYTES) {
            self.btree.apply(&memtable, log_end, is_last)?
        } else {
            self.apply_in_slices(&memtable, log_end, &base, is_last)?
        };
        self.registry.space.restore_reserve();
        self.failed = (written == Written::NoSpace).then_some(log_end);
        if written == Written::NoSpace {
            return Ok(written);
        }
        base.install_checkpoint(self.btree.snapshot()?);
        let took = started.elapsed();
        telemetry::applied(memtable.bytes(), took);
        self.progress.end(log_end.segment, took);
        Ok(written)
    }

    /// Writes so little at once that the reserve is enough for it, whatever pages it needs: first
    /// what clears, which makes room for the rest in the file. What does not clear leaves a part of
    /// the reserve.
    fn apply_in_slices(
        &mut self,
        memtable: &Memtable,
        log_end: LogPosition,
        base: &SnapshotBase,
        is_last: bool,
    ) -> Result<Written> {
        let space = &self.registry.space;
        // Nothing came in since that frees anything.
        if self.failed == Some(log_end) && !space.restore_reserve() {
            return Ok(Written::NoSpace);
        }
        for (slice, clears) in memtable.slices(SLICE_BYTES, btree_file::page_bytes) {
            space.release_reserve();
            let kept = if clears { 0 } else { KEPT_BYTES };
            if !self.btree.has_space(&slice, kept)
                || self.btree.apply_ahead(&slice, log_end.version)? == Written::NoSpace
            {
                return Ok(Written::NoSpace);
            }
            // The pages that were freed can be used again once nothing reads the state before.
            base.rebase(self.btree.snapshot()?);
        }
        space.release_reserve();
        self.btree.apply(&Memtable::default(), log_end, is_last)
    }
}
