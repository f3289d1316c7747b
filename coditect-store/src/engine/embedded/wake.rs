//! Answers to callers. Whatever a caller's waker does, and whatever is dropped with it, runs on the
//! thread that answers: a panic of it must not stop the engine.

use std::panic::{self, AssertUnwindSafe};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Sends `answer`, unless the caller has stopped waiting.
pub(super) fn answer<T>(to: oneshot::Sender<T>, answer: T) {
    contain(|| drop(to.send(answer)));
}

/// A commit's share of the queue's memory. Dropping it wakes callers that wait for room.
#[derive(Debug)]
pub(super) struct QueuePermit(Option<OwnedSemaphorePermit>);

impl From<OwnedSemaphorePermit> for QueuePermit {
    fn from(permit: OwnedSemaphorePermit) -> Self {
        Self(Some(permit))
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let permit = self.0.take();
        contain(|| drop(permit));
    }
}

fn contain(wake: impl FnOnce()) {
    if panic::catch_unwind(AssertUnwindSafe(wake)).is_err() {
        tracing::error!("the waker of a caller panicked");
    }
}
