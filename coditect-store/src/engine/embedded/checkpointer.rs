//! The checkpointer: writes immutable memtables to the B-tree file in the background.
//!
//! Each checkpoint is one large sorted write and one sync. While it runs, commits go to the mutable
//! memtable. Without space for all of it, a checkpoint is written in slices that fit the
//! [reserve](super::reserve), clears first.

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

/// Time after the last checkpoint at which the rest of the WAL is checkpointed.
const CHECKPOINT_IDLE_INTERVAL: Duration = Duration::from_secs(5);
/// Size of a slice when space is scarce, in bytes of pages; smaller than the reserve.
const SLICE_BYTES: u64 = 256 << 10;
/// Space that is left for slices that clear, in bytes.
const CLEAR_RESERVE_BYTES: u64 = 5 << 20;

/// The progress of the running checkpoint, shared with the commit pipeline.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    completed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Number of the first WAL segment that the B-tree file requires.
    segment: u64,
    /// Memory of the memtable being checkpointed, in bytes; `None` if no checkpoint is running.
    in_flight_bytes: Option<usize>,
    /// Duration of the last checkpoint per byte, in seconds.
    seconds_per_byte: f64,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a checkpoint of `bytes` bytes. Returns false if another one is running.
    pub(super) fn begin(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let is_idle = state.in_flight_bytes.is_none();
        if is_idle {
            state.in_flight_bytes = Some(bytes);
        }
        is_idle
    }

    /// Ends a failed checkpoint: see [`Request::CheckpointFailed`].
    pub(super) fn abort(&self) {
        self.state().in_flight_bytes = None;
        self.completed.notify_all();
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
        self.completed.notify_all();
    }

    /// Returns the number of the first WAL segment that the B-tree file requires.
    pub(super) fn first_segment(&self) -> u64 {
        self.state().segment
    }

    pub(super) fn is_busy(&self) -> bool {
        self.state().in_flight_bytes.is_some()
    }

    pub(super) fn in_flight_bytes(&self) -> usize {
        self.state().in_flight_bytes.unwrap_or(0)
    }

    /// Returns the estimated duration of a checkpoint of `bytes` bytes.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(bytes * self.state().seconds_per_byte).unwrap_or_default()
    }

    /// Waits until the running checkpoint is complete, at most for `time`.
    pub(super) fn wait(&self, time: Duration) {
        let state = self.state();
        let wait = |state: &mut State| state.in_flight_bytes.is_some();
        drop(self.completed.wait_timeout_while(state, time, wait));
    }
}

/// The only writer of the B-tree file.
pub(super) struct Checkpointer {
    pub(super) btree: BTreeFile,
    pub(super) registry: Arc<VersionRegistry>,
    pub(super) progress: Arc<Progress>,
    pub(super) pipeline: UnboundedSender<Request>,
    /// Log position of the last checkpoint if it found no space.
    pub(super) failed: Option<LogPosition>,
    /// WAL segment that the B-tree file must require before commits are admitted.
    pub(super) unrequired: Option<u64>,
}

impl Checkpointer {
    /// Writes checkpoints until the pipeline has stopped or a write fails.
    pub(super) fn run(mut self, checkpoints: &Receiver<Checkpoint>) {
        btree_file::sync_often();
        loop {
            let space = &self.registry.space;
            let idle = if space.is_left() { CHECKPOINT_IDLE_INTERVAL } else { RETRY_INTERVAL };
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

    /// Closes the engine after a failed write of the B-tree file. The WAL has all commits.
    fn fail(&self, error: Error) {
        tracing::error!(error = &error as &dyn std::error::Error, "checkpoint failed");
        self.registry.poison(Arc::new(error));
        let _ = self.pipeline.send(Request::Failed);
    }

    /// Makes the B-tree file require the WAL if it does not yet and there is space for the record.
    /// Commits are admitted afterwards.
    fn require_log(&mut self) -> Result<()> {
        let Some(segment) = self.unrequired else { return Ok(()) };
        // A checkpoint may have recorded a later segment since.
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
        let written = if self.btree.has_space(&memtable, CLEAR_RESERVE_BYTES) {
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

    /// Writes a checkpoint in slices that fit the reserve. Clears come first, since they free pages
    /// for the rest; slices that set values leave a part of the reserve.
    fn apply_in_slices(
        &mut self,
        memtable: &Memtable,
        log_end: LogPosition,
        base: &SnapshotBase,
        is_last: bool,
    ) -> Result<Written> {
        let space = &self.registry.space;
        // Nothing was freed since the last attempt.
        if self.failed == Some(log_end) && !space.restore_reserve() {
            return Ok(Written::NoSpace);
        }
        for (slice, clears) in memtable.slices(SLICE_BYTES, btree_file::page_bytes) {
            space.release_reserve();
            let reserved = if clears { 0 } else { CLEAR_RESERVE_BYTES };
            if !self.btree.has_space(&slice, reserved)
                || self.btree.apply_partial(&slice, log_end.version)? == Written::NoSpace
            {
                return Ok(Written::NoSpace);
            }
            // Freed pages are reused once no snapshot refers to them.
            base.rebase(self.btree.snapshot()?);
        }
        space.release_reserve();
        self.btree.apply(&Memtable::default(), log_end, is_last)
    }
}
