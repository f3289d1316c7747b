//! What the engine's threads share, wait for and tell the time with: what everybody has.
//!
//! In this crate's own unit tests, with the feature `schedules`, it is what stands in
//! `sync/scheduled.rs` instead, and shuttle says at every step whose turn it is. Nothing else in
//! the engine knows of that; so whatever a thread of it waits for, or changes while another may
//! look at it, is taken from here.
//!
//! What isn't: tokio's channels for one answer and the queue's room, in which nobody waits but by a
//! waker; and the files in memory and the B-tree, within which no thread gives way to another.

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
    /// Its sender never waits, its receiver is a thread.
    pub(crate) use tokio::sync::mpsc as queue;

    /// Whether tasks of this one's runtime are done while its thread is busy for a moment.
    pub(crate) fn has_other_threads() -> bool {
        Handle::try_current().is_ok_and(|runtime| {
            runtime.runtime_flavor() == RuntimeFlavor::MultiThread
                && runtime.metrics().num_workers() > 1
        })
    }

    thread_local!(static IS_ENGINE: Cell<bool> = const { Cell::new(false) });

    /// Notes that this thread is one of an engine's.
    pub(crate) fn mark_engine_thread() {
        IS_ENGINE.set(true);
    }

    /// Returns whether this thread is one of an engine's: it must not wait for another one.
    pub(crate) fn is_engine_thread() -> bool {
        IS_ENGINE.get()
    }
}

#[cfg(all(test, feature = "schedules"))]
mod scheduled;
