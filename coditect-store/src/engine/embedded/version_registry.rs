//! The version registry: the latest published version, and older versions that transactions may
//! still read.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    super::{
        limits::{self, LIFETIME},
        process::Owner,
        range::Order,
    },
    snapshot::{MergeIter, Snapshot},
    space::Space,
    sync::{ArcSwapOption, Instant, Mutex, MutexGuard},
    watches::Watches,
};
use crate::{Error, ErrorKind, Result};

/// A published version and its snapshot.
#[derive(Debug)]
pub(super) struct CommittedVersion {
    pub(super) version: u64,
    /// The snapshot. Removed once the version is too old to be read, since the B-tree file cannot
    /// reuse pages that a snapshot refers to. Replaced by an equivalent snapshot after a
    /// checkpoint.
    snapshot: ArcSwapOption<Snapshot>,
    /// The time at which a later version was published.
    superseded: OnceLock<Instant>,
}

/// The published versions of a store.
#[derive(Debug)]
pub(super) struct VersionRegistry {
    /// The latest version; `None` once the engine is closed.
    latest: ArcSwapOption<CommittedVersion>,
    /// The unrecoverable error that closed the engine, if any.
    fault: OnceLock<Arc<Error>>,
    history: Mutex<History>,
    pub(super) owner: Owner,
    /// Time of the next check of the owner, in milliseconds since `opened`.
    owner_check_due: AtomicU64,
    opened: Instant,
    pub(super) watches: Watches,
    pub(super) space: Space,
}

/// Superseded versions, oldest first.
#[derive(Debug, Default)]
struct History {
    /// Versions that a transaction may refer to, until they are too old to be read.
    referenced: VecDeque<Weak<CommittedVersion>>,
    /// Versions that were returned to callers, which may set them as read versions; may include the
    /// latest. Other versions are dropped with their last transaction.
    pinned: VecDeque<Arc<CommittedVersion>>,
    /// Whether the engine is closed.
    is_closed: bool,
}

impl VersionRegistry {
    /// Returns the registry of a store in `folder`.
    pub(super) fn new(folder: String) -> Self {
        Self {
            latest: ArcSwapOption::default(),
            fault: OnceLock::new(),
            history: Mutex::default(),
            owner: Owner::current(),
            owner_check_due: AtomicU64::new(0),
            opened: Instant::now(),
            watches: Watches::default(),
            space: Space::new(folder),
        }
    }

    /// Returns the latest version. Fails with `Closed` after shutdown.
    pub(super) fn latest(&self) -> Result<Arc<CommittedVersion>> {
        self.latest.load_full().ok_or_else(|| self.closed())
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.latest.load().is_some() { Ok(()) } else { Err(self.closed()) }
    }

    /// Fails in a fork of the process that opened the engine. The system call would slow reads
    /// down, so the check is made at most once per millisecond.
    pub(super) fn check_owner(&self, now: Instant) -> Result<()> {
        let millis = u64::try_from((now - self.opened).as_millis()).unwrap_or(u64::MAX);
        if millis < self.owner_check_due.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.owner.check()?;
        self.owner_check_due.store(millis + 1, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the error of a closed engine, with the cause.
    pub(super) fn closed(&self) -> Error {
        match self.fault.get() {
            Some(fault) => limits::closed().with_source(Arc::clone(fault)),
            None => limits::closed(),
        }
    }

    /// Replaces a read error that shutdown caused by [`closed`](Self::closed): the B-tree file is
    /// closed while transactions still read.
    pub(super) fn close_cause(&self, error: Error) -> Error {
        let is_closed = error.kind() == ErrorKind::Closed && self.latest.load().is_none();
        if is_closed { self.closed() } else { error }
    }

    /// Closes the engine after an unrecoverable error.
    pub(super) fn poison(&self, fault: Arc<Error>) {
        // Later errors are consequences of the first.
        let _ = self.fault.set(fault);
        self.close();
    }

    /// Keeps `state` readable until it is too old, and returns its version.
    pub(super) fn pin_version(&self, state: &Arc<CommittedVersion>) -> u64 {
        let mut history = self.history();
        if !history.pinned.iter().any(|known| known.version == state.version) {
            history.pinned.push_back(Arc::clone(state));
        }
        state.version
    }

    /// Returns a pinned version, and the time from which the lifetime of its transactions counts.
    ///
    /// # Errors
    ///
    /// `FutureVersion`; `TransactionTooOld` if the version is too old or was never pinned;
    /// `Closed`.
    pub(super) fn snapshot_at(&self, version: u64) -> Result<(Arc<CommittedVersion>, Instant)> {
        let latest = self.latest()?;
        if version > latest.version {
            return Err(limits::future_version());
        }
        let history = self.history();
        let found =
            history.pinned.iter().find(|known| known.version == version && !known.is_too_old());
        let state = found.ok_or_else(limits::too_old)?;
        let since = state.superseded.get().copied().unwrap_or_else(Instant::now);
        Ok((Arc::clone(state), since))
    }

    /// Publishes `next` as the latest version, unless the engine is closed.
    pub(super) fn publish(&self, next: Arc<CommittedVersion>) {
        let mut history = self.history();
        if history.is_closed {
            return;
        }
        let before = self.latest.swap(Some(next));
        if let Some(before) = before {
            let _ = before.superseded.set(Instant::now());
            history.referenced.push_back(Arc::downgrade(&before));
        }
        history.evict_expired();
    }

    /// Replaces the snapshot of `version`, if it is the latest, by an equivalent one.
    pub(super) fn replace_snapshot(&self, version: u64, snapshot: Snapshot) {
        if let Some(latest) = self.latest.load_full().filter(|latest| latest.version == version) {
            latest.snapshot.store(Some(Arc::new(snapshot)));
        }
    }

    /// Closes the engine after a panic of one of its threads.
    pub(super) fn close_by_panic(&self) {
        let message = "a thread of the engine panicked: restart the program";
        self.poison(Arc::new(Error::new(ErrorKind::Closed, message)));
    }

    /// Closes the engine: drops all versions and ends all watches.
    /// Closes the engine: drops all versions and ends all watches.
    pub(super) fn close(&self) {
        let mut history = self.history();
        *history = History { is_closed: true, ..History::default() };
        self.latest.store(None);
        drop(history);
        self.watches.close(|| self.closed());
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// Drops versions that are too old to be read.
    fn evict_expired(&mut self) {
        self.pinned.retain(|state| !state.is_too_old());
        while let Some(oldest) = self.referenced.front() {
            match oldest.upgrade() {
                Some(state) if !state.is_too_old() => break,
                Some(state) => state.snapshot.store(None),
                None => {}
            }
            self.referenced.pop_front();
        }
    }
}

impl CommittedVersion {
    pub(super) fn new(version: u64, snapshot: Snapshot) -> Arc<Self> {
        let snapshot = ArcSwapOption::from_pointee(snapshot);
        Arc::new(Self { version, snapshot, superseded: OnceLock::new() })
    }

    /// Returns the snapshot. Fails with `TransactionTooOld` if it was evicted.
    pub(super) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        self.snapshot.load_full().ok_or_else(limits::too_old)
    }

    /// Returns the value of `key`. Fails with `TransactionTooOld` if the snapshot was evicted.
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        // No reference count, on which concurrent readers would contend.
        self.snapshot.load().as_ref().ok_or_else(limits::too_old)?.value(key)
    }

    /// Returns the rows from `begin` (inclusive) to `end` (exclusive). Fails with
    /// `TransactionTooOld` if the snapshot was evicted.
    pub(super) fn rows(&self, begin: &[u8], end: &[u8], order: Order) -> Result<MergeIter> {
        self.snapshot.load().as_ref().ok_or_else(limits::too_old)?.rows(begin, end, order)
    }

    fn is_too_old(&self) -> bool {
        self.superseded.get().is_some_and(|since| since.elapsed() > LIFETIME)
    }
}
