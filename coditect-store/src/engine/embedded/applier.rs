//! Moves what was committed from the log into the B-tree, in large sorted batches, while others commit.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    board::Board,
    layer::Layer,
    log::Applied,
    sequencer::Request,
    snapshot::Ground,
    space::RETRY_INTERVAL,
    storage::{self, Storage, Written},
    sync::{
        Condvar, Instant, Mutex, MutexGuard,
        mpsc::{Receiver, RecvTimeoutError},
        queue::UnboundedSender,
    },
};
use crate::{Error, Result, telemetry};

/// How long what was committed waits for more before it is moved.
const IDLE: Duration = Duration::from_secs(5);
/// Pages that are written at once when there is little space, in bytes: less than the reserve.
const SLICE_BYTES: u64 = 256 << 10;
/// Space that is left to what clears, in bytes.
const KEPT_BYTES: u64 = 5 << 20;

/// What is to be moved: everything committed up to `reached` that was not moved before.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) layer: Layer,
    pub(super) reached: Applied,
    /// Where it lies meanwhile.
    pub(super) ground: Arc<Ground>,
    /// Whether nothing is committed after it: a clean shutdown.
    pub(super) is_last: bool,
}

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
    on_its_way: Option<usize>,
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
        let is_idle = state.on_its_way.is_none();
        if is_idle {
            state.on_its_way = Some(bytes);
        }
        is_idle
    }

    /// What was on its way has come back: see [`Request::CheckpointFailed`].
    pub(super) fn give_up(&self) {
        self.state().on_its_way = None;
        self.moved.notify_all();
    }

    fn end(&self, segment: u64, took: Duration) {
        let mut state = self.state();
        state.segment = segment;
        if let Some(bytes) = state.on_its_way.take().and_then(|bytes| u32::try_from(bytes).ok()) {
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
        self.state().on_its_way.is_some()
    }

    pub(super) fn on_its_way(&self) -> usize {
        self.state().on_its_way.unwrap_or(0)
    }

    /// How long the B-tree takes for so many bytes, about.
    pub(super) fn time_for(&self, bytes: usize) -> Duration {
        let bytes = f64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        Duration::try_from_secs_f64(bytes * self.state().seconds_per_byte).unwrap_or_default()
    }

    /// Waits until what is on its way has arrived, and no longer than `time`.
    pub(super) fn wait(&self, time: Duration) {
        let state = self.state();
        let wait = |state: &mut State| state.on_its_way.is_some();
        drop(self.moved.wait_timeout_while(state, time, wait));
    }
}

/// The one who writes to the B-tree.
pub(super) struct Applier {
    pub(super) storage: Storage,
    pub(super) board: Arc<Board>,
    pub(super) progress: Arc<Progress>,
    pub(super) sequencer: UnboundedSender<Request>,
    /// How far the last attempt would have come, if it found no space.
    pub(super) failed: Option<Applied>,
    /// The segment that the B-tree file has to require before anything is committed, until it does.
    pub(super) unrequired: Option<u64>,
}

impl Applier {
    /// Moves what comes until there is nobody left who could commit, or it fails.
    pub(super) fn run(mut self, turns: &Receiver<Turn>) {
        storage::sync_often();
        loop {
            let space = &self.board.space;
            let idle = if space.is_left() { IDLE } else { RETRY_INTERVAL };
            let turn = match turns.recv_timeout(idle) {
                Ok(turn) => turn,
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.require_log() {
                        return self.fail(error);
                    }
                    let _ = self.sequencer.send(Request::Turn);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let written = match self.apply(turn) {
                Ok(written) => written,
                Err(error) => return self.fail(error),
            };
            self.board.space.set_tree_full(written == Written::NoSpace);
            if written == Written::NoSpace {
                let _ = self.sequencer.send(Request::CheckpointFailed(self.storage.applied()));
            }
        }
    }

    /// Closes the engine: the log has everything, but the B-tree file cannot be written.
    fn fail(&self, error: Error) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the B-tree file cannot be written"
        );
        self.board.fail(Arc::new(error));
        let _ = self.sequencer.send(Request::Failed);
    }

    /// Has the B-tree file require the log, if it does not yet and there is space for that now: commits
    /// are admitted then.
    fn require_log(&mut self) -> Result<()> {
        let Some(segment) = self.unrequired else { return Ok(()) };
        // A checkpoint since then has recorded the log, maybe from a later segment on.
        let is_required = !self.storage.recorded().is_clean;
        if is_required || self.storage.require_log(segment)? == Written::Durably {
            self.unrequired = None;
            self.board.space.set_log_unrequired(false);
        }
        Ok(())
    }

    fn apply(&mut self, turn: Turn) -> Result<Written> {
        let Turn { layer, reached, ground, is_last } = turn;
        let started = Instant::now();
        let written = if self.storage.has_space(&layer, KEPT_BYTES) {
            self.storage.apply(&layer, reached, is_last)?
        } else {
            self.apply_in_slices(&layer, reached, &ground, is_last)?
        };
        self.board.space.restore_reserve();
        self.failed = (written == Written::NoSpace).then_some(reached);
        if written == Written::NoSpace {
            return Ok(written);
        }
        ground.settle(self.storage.snapshot()?);
        let took = started.elapsed();
        telemetry::applied(layer.bytes(), took);
        self.progress.end(reached.segment, took);
        Ok(written)
    }

    /// Writes so little at once that the reserve is enough for it, whatever pages it needs: first what
    /// clears, which makes room for the rest in the file. What does not clear leaves a part of the reserve.
    fn apply_in_slices(
        &mut self,
        layer: &Layer,
        reached: Applied,
        ground: &Ground,
        is_last: bool,
    ) -> Result<Written> {
        let space = &self.board.space;
        // Nothing came in since that frees anything.
        if self.failed == Some(reached) && !space.restore_reserve() {
            return Ok(Written::NoSpace);
        }
        for (slice, clears) in layer.slices(SLICE_BYTES, storage::page_bytes) {
            space.release_reserve();
            let kept = if clears { 0 } else { KEPT_BYTES };
            if !self.storage.has_space(&slice, kept)
                || self.storage.apply_ahead(&slice, reached.version)? == Written::NoSpace
            {
                return Ok(Written::NoSpace);
            }
            // The pages that were freed can be used again once nothing reads the state before.
            ground.rebase(self.storage.snapshot()?);
        }
        space.release_reserve();
        self.storage.apply(&Layer::default(), reached, is_last)
    }
}
