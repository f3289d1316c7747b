//! Threads for reads that wait for the device, so that the caller's thread serves other tasks
//! meanwhile.
//!
//! The pool belongs to the engine, since all blocking threads of a runtime may wait for such reads.
//! `testing/schedules.rs` does not cover them: an in-memory disk is never slow.

use std::{
    collections::VecDeque,
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Maximum number of threads, and so of reads that wait for the device at once.
const MAX_THREADS: usize = 64;
/// Time after which a thread without work ends.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A pool of threads, started on demand. Each ends after its read once the pool is dropped.
#[derive(Default)]
pub(super) struct ReadPool(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

impl ReadPool {
    /// Runs `job` on a thread of the pool, or on this one if no thread can be started.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.state();
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle {
            drop(state);
            self.0.changed.notify_one();
            return;
        }
        if state.threads >= MAX_THREADS {
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.0);
        if super::spawn("coditect-read", move || shared.work()).is_ok() {
            return;
        }
        let mut state = self.0.state();
        state.threads -= 1;
        let left = if state.threads == 0 { state.jobs.pop_front() } else { None };
        drop(state);
        if let Some(job) = left {
            job();
        }
    }
}

impl Drop for ReadPool {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // After a panic the caller observes the dropped reply channel.
                drop(panic::catch_unwind(AssertUnwindSafe(job)));
                state = self.state();
                continue;
            }
            if state.is_closed {
                break;
            }
            state.idle += 1;
            let (woken, timeout) = self
                .changed
                .wait_timeout(state, IDLE_TIMEOUT)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl fmt::Debug for ReadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadPool")
    }
}
