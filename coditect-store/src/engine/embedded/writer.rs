//! Makes batches durable, one after the other, and then shows and answers them.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    super::{limits, versionstamp::Versionstamp},
    messages::{Checkpoint, CommitReceipt, PendingReply, PreparedBatch, Request},
    sync::{
        Instant, Mutex,
        mpsc::{Receiver, Sender},
        queue::UnboundedSender,
        thread,
    },
    version_registry::VersionRegistry,
    wake,
    wal::PendingFrame,
};
use crate::{Error, ErrorKind, Result, telemetry};

/// Whoever has it writes.
#[derive(Debug)]
pub(super) struct Writer {
    registry: Arc<VersionRegistry>,
    checkpoints: Sender<Checkpoint>,
}

impl Writer {
    pub(super) fn new(registry: Arc<VersionRegistry>, checkpoints: Sender<Checkpoint>) -> Self {
        Self { registry, checkpoints }
    }

    /// Writes, shows, answers; false if nothing can be written any more.
    pub(super) fn write(&mut self, prepared: PreparedBatch) -> bool {
        let PreparedBatch { frame, replies, permits, mutations, state, checkpoint, replacement } =
            prepared;
        // Dropped before those are who would hear of a panic by it.
        let _closing = CloseOnPanic(&self.registry);
        if self.registry.check_open().is_err() {
            let may_be_there = frame.is_some_and(|frame| frame.has_begun());
            let closed = || self.registry.closed();
            let unknown = || limits::maybe_committed().with_source(closed());
            complete_all(replies, |_| Err(if may_be_there { unknown() } else { closed() }));
            return false;
        }
        if let Some(checkpoint) = checkpoint {
            // Everything in it is on disk, since all before this batch is.
            let _ = self.checkpoints.send(checkpoint);
        }
        if let Some((version, snapshot)) = replacement {
            self.registry.replace_snapshot(version, snapshot);
        }
        if let Some(frame) = frame
            && let Err(error) = write(frame)
        {
            tracing::error!(error = &error as &dyn std::error::Error, "the log cannot be written");
            let error = Arc::new(error);
            self.registry.poison(Arc::clone(&error));
            let cause = || Box::new(Arc::clone(&error));
            complete_all(replies, |_| Err(limits::maybe_committed().with_source(cause())));
            return false;
        }
        let Some(state) = state else {
            // They were all refused.
            complete_all(replies, |_| Err(limits::conflict()));
            return true;
        };
        self.registry.publish(Arc::clone(&state));
        complete_all(replies, |stamp| Ok(CommitReceipt { stamp, state: Arc::clone(&state) }));
        drop(permits);
        if !mutations.is_empty()
            && let Ok(snapshot) = state.snapshot()
        {
            self.registry.watches.changed(&mutations, &snapshot);
        }
        true
    }
}

/// Closes the registry when it is dropped by a panic.
struct CloseOnPanic<'a>(&'a VersionRegistry);

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
    batches: &Receiver<PreparedBatch>,
    pipeline: &UnboundedSender<Request>,
) {
    while let Ok(prepared) = batches.recv() {
        let healthy = writer.lock().unwrap_or_else(PoisonError::into_inner).write(prepared);
        // Who is not there any more has no need to know.
        let _ = pipeline.send(if healthy { Request::BatchWritten } else { Request::Failed });
    }
}

fn write(frame: PendingFrame) -> Result<()> {
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
pub(super) fn complete_all(
    replies: Vec<PendingReply>,
    outcome: impl Fn(Versionstamp) -> Result<CommitReceipt>,
) {
    for (answer, verdict) in replies {
        wake::answer(answer, verdict.and_then(&outcome));
    }
}
