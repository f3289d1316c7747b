//! Synchronization primitives of the engine's threads: locks, channels, threads and time.
//!
//! With the feature `schedules`, this crate's unit tests use `sync/scheduled.rs`
//! instead, where shuttle chooses the next thread at every step. The engine therefore
//! takes everything that a thread waits for, or that several threads change, from this module.
//!
//! Exceptions: tokio's oneshot channels and the queue's semaphore, which only wakers wait for; and
//! the locks of in-memory files and of the B-tree, within which no thread yields.

#[cfg(not(all(test, feature = "schedules")))]
pub(super) use self::real::*;
#[cfg(all(test, feature = "schedules"))]
pub(super) use self::scheduled::*;

#[cfg(not(all(test, feature = "schedules")))]
mod real {
    use std::cell::Cell;
    pub(crate) use std::{
        sync::{Condvar, Mutex, MutexGuard, atomic, mpsc},
        thread,
        time::Instant,
    };

    pub(crate) use arc_swap::{ArcSwap, ArcSwapOption};
    use tokio::runtime::{Handle, RuntimeFlavor};
    /// A channel whose sender never waits, and whose receiver is a thread.
    pub(crate) use tokio::sync::mpsc as queue;

    /// Returns whether the current runtime has other threads that run tasks while this one blocks.
    pub(crate) fn has_other_threads() -> bool {
        Handle::try_current().is_ok_and(|runtime| {
            runtime.runtime_flavor() == RuntimeFlavor::MultiThread
                && runtime.metrics().num_workers() > 1
        })
    }

    thread_local!(static IS_ENGINE: Cell<bool> = const { Cell::new(false) });

    /// Marks this thread as a thread of an engine.
    pub(crate) fn mark_engine_thread() {
        IS_ENGINE.set(true);
    }

    /// Returns whether this is a thread of an engine, which must not wait for another one.
    pub(crate) fn is_engine_thread() -> bool {
        IS_ENGINE.get()
    }
}

#[cfg(all(test, feature = "schedules"))]
mod scheduled;
