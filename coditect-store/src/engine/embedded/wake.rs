//! Replies to callers. A caller's waker, and the values dropped with it, run on the thread that
//! replies; a panic there must not stop the engine.

use std::panic::{self, AssertUnwindSafe};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Sends `answer`, unless the caller has stopped waiting.
pub(super) fn answer<T>(to: oneshot::Sender<T>, answer: T) {
    contain(|| drop(to.send(answer)));
}

/// A commit's share of the queue's memory. Dropping it wakes callers that wait for memory.
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
        tracing::error!("waker of a caller panicked");
    }
}
