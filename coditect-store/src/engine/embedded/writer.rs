//! Makes batches durable, one after the other, and then shows and answers them.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    super::{limits, versionstamp::Versionstamp},
    applier::Turn,
    board::{Board, Published},
    log::{Changes, Placed},
    sequencer::Request,
    snapshot::Snapshot,
    sync::{
        Instant, Mutex,
        mpsc::{Receiver, Sender},
        queue::UnboundedSender,
        thread,
    },
};
use crate::{Error, ErrorKind, Result, telemetry};

/// A commit's stamp, and the state that it made.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) stamp: Versionstamp,
    pub(super) state: Arc<Published>,
}

/// Who is answered, and what was decided.
pub(super) type Decided = (oneshot::Sender<Result<Committed>>, Result<Versionstamp>);

/// A batch that only has to be written.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// What is to be on disk before anybody hears of it.
    pub(super) frame: Option<Placed>,
    pub(super) decided: Vec<Decided>,
    /// Its members' shares of the queue's memory.
    pub(super) permits: Vec<OwnedSemaphorePermit>,
    /// What those that were accepted have done.
    pub(super) done: Vec<Changes>,
    /// What is shown then.
    pub(super) state: Option<Arc<Published>>,
    /// What was committed before it, and goes on to the B-tree.
    pub(super) turn: Option<Turn>,
    /// A version, and its state put in another way.
    pub(super) same: Option<(u64, Snapshot)>,
}

/// Whoever has it writes.
#[derive(Debug)]
pub(super) struct Writer {
    board: Arc<Board>,
    turns: Sender<Turn>,
}

impl Writer {
    pub(super) fn new(board: Arc<Board>, turns: Sender<Turn>) -> Self {
        Self { board, turns }
    }

    /// Writes, shows, answers; false if nothing can be written any more.
    pub(super) fn write(&mut self, prepared: Prepared) -> bool {
        let Prepared { frame, decided, permits, done, state, turn, same } = prepared;
        // Dropped before those are who would hear of a panic by it.
        let _closing = CloseOnPanic(&self.board);
        if self.board.check_open().is_err() {
            let may_be_there = frame.is_some_and(|frame| frame.has_begun());
            let closed = || self.board.closed();
            let unknown = || limits::maybe_committed().with_source(closed());
            answer_all(decided, |_| Err(if may_be_there { unknown() } else { closed() }));
            return false;
        }
        if let Some(turn) = turn {
            // Everything in it is on disk, since all before this batch is.
            let _ = self.turns.send(turn);
        }
        if let Some((version, snapshot)) = same {
            self.board.put_in_another_way(version, snapshot);
        }
        if let Some(frame) = frame
            && let Err(error) = write(frame)
        {
            tracing::error!(error = &error as &dyn std::error::Error, "the log cannot be written");
            let error = Arc::new(error);
            self.board.fail(Arc::clone(&error));
            let cause = || Box::new(Arc::clone(&error));
            answer_all(decided, |_| Err(limits::maybe_committed().with_source(cause())));
            return false;
        }
        let Some(state) = state else {
            // They were all refused.
            answer_all(decided, |_| Err(limits::conflict()));
            return true;
        };
        self.board.publish(Arc::clone(&state));
        answer_all(decided, |stamp| Ok(Committed { stamp, state: Arc::clone(&state) }));
        drop(permits);
        if !done.is_empty()
            && let Ok(snapshot) = state.snapshot()
        {
            self.board.watches.changed(&done, &snapshot);
        }
        true
    }
}

/// Closes the board when it is dropped by a panic.
struct CloseOnPanic<'a>(&'a Board);

impl Drop for CloseOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.close_by_panic();
        }
    }
}

/// Writes batches as they come.
pub(super) fn run(
    writer: &Mutex<Writer>,
    batches: &Receiver<Prepared>,
    sequencer: &UnboundedSender<Request>,
) {
    while let Ok(prepared) = batches.recv() {
        let healthy = writer.lock().unwrap_or_else(PoisonError::into_inner).write(prepared);
        // Who is not there any more has no need to know.
        let _ = sequencer.send(if healthy { Request::Written } else { Request::Failed });
    }
}

fn write(frame: Placed) -> Result<()> {
    let started = Instant::now();
    frame.write().map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the log cannot be written").with_source(error)
    })?;
    let took = started.elapsed();
    telemetry::synced(took);
    if took > Duration::from_secs(1) {
        tracing::warn!(seconds = took.as_secs_f64(), "a commit took long to sync");
    }
    Ok(())
}

/// Answers the members of a batch: those refused with why, the others with `outcome`.
pub(super) fn answer_all(
    decided: Vec<Decided>,
    outcome: impl Fn(Versionstamp) -> Result<Committed>,
) {
    for (answer, verdict) in decided {
        // Whoever has gone doesn't want it.
        let _ = answer.send(verdict.and_then(&outcome));
    }
}
