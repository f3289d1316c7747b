//! What stands in for all of it when shuttle chooses the schedule. It has what the engine uses, and
//! no more.
//!
//! What shuttle has, it has; the rest gives way to other threads before it does anything. Chance is
//! shuttle's too, so that a schedule that is done again is the same.

use std::{
    cell::Cell,
    ops::{Add, AddAssign, Sub},
    sync::{Arc, PoisonError},
    time::Duration,
};

use shuttle::rand::{Rng as _, thread_rng};
pub(in super::super) use shuttle::{
    sync::{Mutex, MutexGuard, atomic},
    thread,
};

/// Here another may come in.
pub(in super::super) fn give_way() {
    atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}

/// Chance decides whether a client may lead.
pub(in super::super) fn has_other_threads() -> bool {
    thread_rng().gen_ratio(1, 2)
}

shuttle::thread_local! {
    static IS_ENGINE: Cell<bool> = Cell::new(false);
}

pub(in super::super) fn mark_engine_thread() {
    IS_ENGINE.with(|is_engine| is_engine.set(true));
}

pub(in super::super) fn is_engine_thread() -> bool {
    IS_ENGINE.with(Cell::get)
}

/// Time stands still: what takes a moment takes none, and nothing is ever too old.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Instant(Duration);

impl Instant {
    pub(in super::super) fn now() -> Self {
        // Some time before it can be had, too.
        Self(Duration::from_secs(1 << 20))
    }

    pub(in super::super) fn elapsed(self) -> Duration {
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

/// Whoever waits gives way once, and then finds that the time is over.
#[derive(Debug, Default)]
pub(in super::super) struct Condvar;

impl Condvar {
    #[expect(clippy::unused_self, reason = "as the real one has it")]
    pub(in super::super) fn notify_all(&self) {}

    #[expect(clippy::unused_self, reason = "as the real one has it")]
    pub(in super::super) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        _time: Duration,
        mut is_to_wait: impl FnMut(&mut T) -> bool,
    ) -> Option<MutexGuard<'a, T>> {
        if !is_to_wait(&mut guard) {
            return Some(guard);
        }
        drop(guard);
        thread::yield_now();
        None
    }
}

pub(in super::super) mod mpsc {
    use std::time::Duration;

    pub(in super::super::super) use mpsc::Sender;
    use shuttle::{
        rand::{Rng as _, thread_rng},
        sync::mpsc,
    };
    pub(in super::super::super) use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};

    #[derive(Debug)]
    pub(in super::super::super) struct Receiver<T>(mpsc::Receiver<T>);

    pub(in super::super::super) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (sender, Receiver(receiver))
    }

    pub(in super::super::super) fn sync_channel<T>(
        room: usize,
    ) -> (mpsc::SyncSender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::sync_channel(room);
        (sender, Receiver(receiver))
    }

    impl<T> Receiver<T> {
        pub(in super::super::super) fn recv(&self) -> Result<T, RecvError> {
            self.0.recv()
        }

        pub(in super::super::super) fn try_recv(&self) -> Result<T, TryRecvError> {
            self.0.try_recv()
        }

        /// Chance decides whether the time is over before something comes.
        pub(in super::super::super) fn recv_timeout(
            &self,
            _time: Duration,
        ) -> Result<T, RecvTimeoutError> {
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

pub(in super::super) mod queue {
    use shuttle::future::block_on;
    use tokio::sync::mpsc::{self, error};

    use super::give_way;

    #[derive(Debug)]
    pub(in super::super::super) struct UnboundedSender<T>(mpsc::UnboundedSender<T>);

    pub(in super::super::super) struct UnboundedReceiver<T>(mpsc::UnboundedReceiver<T>);

    pub(in super::super::super) fn unbounded_channel<T>()
    -> (UnboundedSender<T>, UnboundedReceiver<T>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (UnboundedSender(sender), UnboundedReceiver(receiver))
    }

    impl<T> Clone for UnboundedSender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> UnboundedSender<T> {
        pub(in super::super::super) fn send(&self, one: T) -> Result<(), error::SendError<T>> {
            give_way();
            self.0.send(one)
        }
    }

    impl<T> UnboundedReceiver<T> {
        pub(in super::super::super) fn blocking_recv(&mut self) -> Option<T> {
            give_way();
            block_on(self.0.recv())
        }

        pub(in super::super::super) fn try_recv(&mut self) -> Result<T, error::TryRecvError> {
            give_way();
            self.0.try_recv()
        }

        pub(in super::super::super) fn len(&self) -> usize {
            self.0.len()
        }

        pub(in super::super::super) fn close(&mut self) {
            give_way();
            self.0.close();
        }
    }
}

/// A pointer that is swapped as a whole.
#[derive(Debug, Default)]
pub(in super::super) struct Swap<T>(std::sync::Mutex<T>);

pub(in super::super) type ArcSwap<T> = Swap<Arc<T>>;
pub(in super::super) type ArcSwapOption<T> = Swap<Option<Arc<T>>>;

impl<T> Swap<Arc<T>> {
    pub(in super::super) fn from_pointee(one: T) -> Self {
        Self(Arc::new(one).into())
    }
}

impl<T> Swap<Option<Arc<T>>> {
    pub(in super::super) fn from_pointee(one: T) -> Self {
        Self(Some(Arc::new(one)).into())
    }
}

impl<T: Clone> Swap<T> {
    pub(in super::super) fn load(&self) -> T {
        give_way();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(in super::super) fn load_full(&self) -> T {
        self.load()
    }

    pub(in super::super) fn swap(&self, next: T) -> T {
        give_way();
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *now, next)
    }

    pub(in super::super) fn store(&self, next: T) {
        drop(self.swap(next));
    }
}
