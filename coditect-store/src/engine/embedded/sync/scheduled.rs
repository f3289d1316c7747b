//! Synchronization primitives under a schedule that shuttle chooses: the subset that the engine
//! uses.
//!
//! Primitives that shuttle lacks yield to other threads before each operation. Random numbers come
//! from shuttle, so that a replayed schedule is the same.

use std::{
    cell::Cell,
    ops::{Add, AddAssign, Sub},
    sync::{Arc, PoisonError},
    time::Duration,
};

use shuttle::rand::{Rng as _, thread_rng};
pub(crate) use shuttle::{
    sync::{Mutex, MutexGuard, atomic},
    thread,
};

/// Lets shuttle switch to another thread.
pub(crate) fn yield_point() {
    atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}

/// Decides at random whether a client may commit inline.
pub(crate) fn has_other_threads() -> bool {
    thread_rng().gen_ratio(1, 2)
}

shuttle::thread_local! {
    static IS_ENGINE: Cell<bool> = Cell::new(false);
}

pub(crate) fn mark_engine_thread() {
    IS_ENGINE.with(|is_engine| is_engine.set(true));
}

pub(crate) fn is_engine_thread() -> bool {
    IS_ENGINE.with(Cell::get)
}

/// A clock that stands still: operations take no time, and nothing expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        // Leaves room for subtractions.
        Self(Duration::from_secs(1 << 20))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now() - self
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, time: Duration) {
        self.0 += time;
    }
}

/// A condition variable whose waiters yield once and then time out.
#[derive(Debug, Default)]
pub(crate) struct Condvar;

impl Condvar {
    #[expect(clippy::unused_self, reason = "the signature of the real one")]
    pub(crate) fn notify_all(&self) {}

    #[expect(clippy::unused_self, reason = "the signature of the real one")]
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _time: Duration,
        mut should_wait: impl FnMut(&mut T) -> bool,
    ) -> Option<MutexGuard<'a, T>> {
        if !should_wait(&mut guard) {
            return Some(guard);
        }
        drop(guard);
        thread::yield_now();
        None
    }
}

pub(crate) mod mpsc {
    use std::time::Duration;

    pub(crate) use mpsc::Sender;
    use shuttle::{
        rand::{Rng as _, thread_rng},
        sync::mpsc,
    };
    pub(crate) use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(mpsc::Receiver<T>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (sender, Receiver(receiver))
    }

    pub(crate) fn sync_channel<T>(room: usize) -> (mpsc::SyncSender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::sync_channel(room);
        (sender, Receiver(receiver))
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            self.0.recv()
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            self.0.try_recv()
        }

        /// Decides at random whether to time out if the channel is empty.
        pub(crate) fn recv_timeout(&self, _time: Duration) -> Result<T, RecvTimeoutError> {
            if thread_rng().gen_ratio(1, 2) {
                return Ok(self.0.recv()?);
            }
            self.0.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        }
    }
}

pub(crate) mod queue {
    use shuttle::future::block_on;
    use tokio::sync::mpsc::{self, error};

    use super::yield_point;

    #[derive(Debug)]
    pub(crate) struct UnboundedSender<T>(mpsc::UnboundedSender<T>);

    pub(crate) struct UnboundedReceiver<T>(mpsc::UnboundedReceiver<T>);

    pub(crate) fn unbounded_channel<T>() -> (UnboundedSender<T>, UnboundedReceiver<T>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (UnboundedSender(sender), UnboundedReceiver(receiver))
    }

    impl<T> Clone for UnboundedSender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> UnboundedSender<T> {
        pub(crate) fn send(&self, one: T) -> Result<(), error::SendError<T>> {
            yield_point();
            self.0.send(one)
        }
    }

    impl<T> UnboundedReceiver<T> {
        pub(crate) fn blocking_recv(&mut self) -> Option<T> {
            yield_point();
            block_on(self.0.recv())
        }

        pub(crate) fn try_recv(&mut self) -> Result<T, error::TryRecvError> {
            yield_point();
            self.0.try_recv()
        }

        pub(crate) fn len(&self) -> usize {
            self.0.len()
        }

        pub(crate) fn close(&mut self) {
            yield_point();
            self.0.close();
        }
    }
}

/// A pointer that is loaded and swapped atomically.
#[derive(Debug, Default)]
pub(crate) struct Swap<T>(std::sync::Mutex<T>);

pub(crate) type ArcSwap<T> = Swap<Arc<T>>;
pub(crate) type ArcSwapOption<T> = Swap<Option<Arc<T>>>;

impl<T> Swap<Arc<T>> {
    pub(crate) fn from_pointee(one: T) -> Self {
        Self(Arc::new(one).into())
    }
}

impl<T> Swap<Option<Arc<T>>> {
    pub(crate) fn from_pointee(one: T) -> Self {
        Self(Some(Arc::new(one)).into())
    }
}

impl<T: Clone> Swap<T> {
    pub(crate) fn load(&self) -> T {
        yield_point();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn load_full(&self) -> T {
        self.load()
    }

    pub(crate) fn swap(&self, next: T) -> T {
        yield_point();
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, next)
    }

    pub(crate) fn store(&self, next: T) {
        drop(self.swap(next));
    }
}
