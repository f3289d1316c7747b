//! The engine in this process: one folder, or memory; no server.
//!
//! Transactions read on their caller's thread, from the state that was published last when they
//! first read. Commits go through one [`sequencer`] thread. Nothing here waits for a network, so
//! reads are short, but a cold page comes from the disk.

mod conflicts;
mod reads;
mod sequencer;
mod storage;
mod transaction;
mod view;
mod watches;
mod writes;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::{
    sequencer::{Board, Request, Sequencer},
    storage::Storage,
};
pub(super) use self::{transaction::Transaction, view::Held};
use super::limits;
use crate::{Clock, Error, ErrorKind, Result};

/// Options of the embedded engine.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much memory caches the file, in bytes; 256 MiB by default.
    pub cache_bytes: usize,
    /// Where versions come from: each is at least the hour in microseconds.
    pub clock: Clock,
    /// Whether each read gives way once before it is answered, as one of a cluster does for longer, so
    /// that reads which run together overlap: for tests that count
    /// [rounds](super::Statistics::rounds). Not so by default.
    pub round_trips: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_bytes: 256 << 20, clock: Clock::system(), round_trips: false }
    }
}

/// Commits that wait in the queue, at the most.
const QUEUE_COMMITS: usize = 4_096;
/// Memory of the commits that wait, in KiB, at the most.
const QUEUE_KIB: u32 = 64 << 10;

/// A handle, cheap to clone. The engine stops when it is closed or the last handle, transactions
/// included, is dropped.
#[derive(Clone, Debug)]
pub(super) struct Embedded(Arc<Shared>);

/// What handles and transactions share.
struct Shared {
    name: &'static str,
    round_trips: bool,
    board: Arc<Board>,
    room: Arc<Semaphore>,
    queue: Mutex<Option<mpsc::Sender<Request>>>,
    sequencer: Mutex<Option<JoinHandle<()>>>,
}

impl Embedded {
    pub(super) fn open(folder: &Path, options: &Options) -> Result<Self> {
        Self::start("embedded", Storage::open(folder, options.cache_bytes)?, options)
    }

    pub(super) fn memory(options: &Options) -> Result<Self> {
        Self::start("memory", Storage::memory()?, options)
    }

    fn start(name: &'static str, storage: Storage, options: &Options) -> Result<Self> {
        let board = Arc::new(Board::default());
        let sequencer = Sequencer::new(storage, Arc::clone(&board), options.clock.clone())?;
        let (queue, requests) = mpsc::channel(QUEUE_COMMITS);
        let thread = thread::Builder::new()
            .name("coditect-commit".to_owned())
            .spawn(move || sequencer.run(requests))
            .map_err(|error| {
                Error::new(ErrorKind::Unavailable, "no thread for the commits").because(error)
            })?;
        Ok(Self(Arc::new(Shared {
            name,
            round_trips: options.round_trips,
            board,
            room: Arc::new(Semaphore::new(QUEUE_KIB as usize)),
            queue: Mutex::new(Some(queue)),
            sequencer: Mutex::new(Some(thread)),
        })))
    }

    pub(super) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(super) fn has_round_trips(&self) -> bool {
        self.0.round_trips
    }

    pub(super) fn begin(&self) -> Transaction {
        Transaction::new(Arc::clone(&self.0))
    }

    /// Compares the file in `folder` with its own sums: see [`Storage::check`].
    pub(super) fn check(folder: &Path) -> Result<bool> {
        Storage::check(folder)
    }

    pub(super) fn is_in(folder: &Path) -> Result<bool> {
        Storage::is_in(folder)
    }

    pub(super) fn view(&self) -> Result<Held> {
        Held::new(Arc::clone(&self.0))
    }

    pub(super) async fn advance(&self, version: u64) -> Result<()> {
        let (done, advanced) = oneshot::channel();
        self.0.send(Request::Advance(version, done)).await?;
        advanced.await.map_err(|_| limits::closed())
    }

    pub(super) async fn close(&self) {
        let (done, stopped) = oneshot::channel();
        if self.0.send(Request::Stop(done)).await.is_ok() {
            // An error means that it has stopped already.
            let _ = stopped.await;
        }
    }
}

impl Shared {
    /// A share of the queue's memory for a commit of `bytes`.
    async fn room_for(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        let kib = u32::try_from((bytes >> 10) + 1).unwrap_or(u32::MAX).min(QUEUE_KIB);
        let room = Arc::clone(&self.room).acquire_many_owned(kib).await;
        room.map_err(|_| limits::closed())
    }

    async fn send(&self, request: Request) -> Result<()> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queue = queue.ok_or_else(limits::closed)?;
        queue.send(request).await.map_err(|_| limits::closed())
    }
}

impl Drop for Shared {
    /// Waits for the commits that are under way, so that the folder is free afterwards.
    fn drop(&mut self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.sequencer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).finish_non_exhaustive()
    }
}
