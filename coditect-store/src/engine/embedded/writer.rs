//! The writer: makes batches durable in order, publishes their versions, and answers their commits.

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

/// Serializes WAL writes: the lock holder is the only writer.
#[derive(Debug)]
pub(super) struct Writer {
    registry: Arc<VersionRegistry>,
    checkpoints: Sender<Checkpoint>,
}

impl Writer {
    pub(super) fn new(registry: Arc<VersionRegistry>, checkpoints: Sender<Checkpoint>) -> Self {
        Self { registry, checkpoints }
    }

    /// Writes a batch, publishes its version and answers its commits. Returns false after an
    /// unrecoverable error.
    pub(super) fn write(&mut self, prepared: PreparedBatch) -> bool {
        let PreparedBatch { frame, replies, permits, mutations, state, checkpoint, replacement } =
            prepared;
        // Dropped before the reply channels, so that the engine is closed when callers observe a
        // panic.
        let _closing = CloseOnPanic(&self.registry);
        if self.registry.check_open().is_err() {
            let may_be_written = frame.is_some_and(|frame| frame.has_begun());
            let closed = || self.registry.closed();
            let unknown = || limits::maybe_committed().with_source(closed());
            complete_all(replies, |_| Err(if may_be_written { unknown() } else { closed() }));
            return false;
        }
        if let Some(checkpoint) = checkpoint {
            // All commits of the checkpoint are durable, since all batches before this one are.
            let _ = self.checkpoints.send(checkpoint);
        }
        if let Some((version, snapshot)) = replacement {
            self.registry.replace_snapshot(version, snapshot);
        }
        if let Some(frame) = frame
            && let Err(error) = write(frame)
        {
            tracing::error!(error = &error as &dyn std::error::Error, "WAL write failed");
            let error = Arc::new(error);
            self.registry.poison(Arc::clone(&error));
            let cause = || Box::new(Arc::clone(&error));
            complete_all(replies, |_| Err(limits::maybe_committed().with_source(cause())));
            return false;
        }
        let Some(state) = state else {
            // All commits of the batch conflicted.
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

/// Writes batches until the channel closes.
pub(super) fn run(
    writer: &Mutex<Writer>,
    batches: &Receiver<PreparedBatch>,
    pipeline: &UnboundedSender<Request>,
) {
    while let Ok(prepared) = batches.recv() {
        let healthy = writer.lock().unwrap_or_else(PoisonError::into_inner).write(prepared);
        // An error means that the pipeline has stopped.
        let _ = pipeline.send(if healthy { Request::BatchWritten } else { Request::Failed });
    }
}

fn write(frame: PendingFrame) -> Result<()> {
    let started = Instant::now();
    frame.write().map_err(|error| {
        Error::new(ErrorKind::Unavailable, "cannot write the WAL").with_source(error)
    })?;
    let took = started.elapsed();
    telemetry::synced(took);
    if took > Duration::from_secs(1) {
        tracing::warn!(seconds = took.as_secs_f64(), "slow WAL sync");
    }
    Ok(())
}

/// Answers the commits of a batch: rejected ones with their error, the others with `outcome`.
pub(super) fn complete_all(
    replies: Vec<PendingReply>,
    outcome: impl Fn(Versionstamp) -> Result<CommitReceipt>,
) {
    for (reply, verdict) in replies {
        wake::answer(reply, verdict.and_then(&outcome));
    }
}
