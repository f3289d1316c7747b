//! What is shown to transactions: the newest state, and those that may still be read.

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

/// A version and the state of the store at it.
#[derive(Debug)]
pub(super) struct CommittedVersion {
    pub(super) version: u64,
    /// Taken out when no transaction may read it any more, however long its handle is kept: the
    /// storage can't reuse what a snapshot holds. Put in another way when that is the same.
    snapshot: ArcSwapOption<Snapshot>,
    /// When a later one took its place.
    superseded: OnceLock<Instant>,
}

/// What the pipeline shows to transactions. `latest` is empty once the engine is closed.
#[derive(Debug)]
pub(super) struct VersionRegistry {
    latest: ArcSwapOption<CommittedVersion>,
    /// Why it is closed, if that is a fault.
    fault: OnceLock<Arc<Error>>,
    history: Mutex<History>,
    pub(super) owner: Owner,
    /// When reads check the owner next, in milliseconds since `opened`.
    owner_check_due: AtomicU64,
    opened: Instant,
    pub(super) watches: Watches,
    pub(super) space: Space,
}

/// States that are not the latest any more, oldest first.
#[derive(Debug, Default)]
struct History {
    /// Those that may still be held by a transaction, until they are too old to be read.
    referenced: VecDeque<Weak<CommittedVersion>>,
    /// Those whose versions somebody was told, and may come back with; the latest may be among
    /// them. Others are let go with their last transaction.
    pinned: VecDeque<Arc<CommittedVersion>>,
    /// There will be no later one.
    is_closed: bool,
}

impl VersionRegistry {
    /// A registry of a store in `folder`.
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

    /// The newest state; `Closed` if there will be none.
    pub(super) fn latest(&self) -> Result<Arc<CommittedVersion>> {
        self.latest.load_full().ok_or_else(|| self.closed())
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.latest.load().is_some() { Ok(()) } else { Err(self.closed()) }
    }

    /// Fails a read that begins `now` in a fork of the process that opened the engine. A system
    /// call takes as long as a part of a read, so that is found out once in a millisecond.
    pub(super) fn check_owner(&self, now: Instant) -> Result<()> {
        let millis = u64::try_from((now - self.opened).as_millis()).unwrap_or(u64::MAX);
        if millis < self.owner_check_due.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.owner.check()?;
        self.owner_check_due.store(millis + 1, Ordering::Relaxed);
        Ok(())
    }

    /// That it is closed, and why.
    pub(super) fn closed(&self) -> Error {
        match self.fault.get() {
            Some(fault) => limits::closed().with_source(Arc::clone(fault)),
            None => limits::closed(),
        }
    }

    /// What `error` of a read comes of: the storage is closed after the engine, under who still
    /// reads.
    pub(super) fn close_cause(&self, error: Error) -> Error {
        let is_closed = error.kind() == ErrorKind::Closed && self.latest.load().is_none();
        if is_closed { self.closed() } else { error }
    }

    /// Closes it since something failed that nothing can be done after.
    pub(super) fn poison(&self, fault: Arc<Error>) {
        // The first one is what the others came of.
        let _ = self.fault.set(fault);
        self.close();
    }

    /// Keeps `state` for as long as a transaction may ask for its version.
    pub(super) fn pin_version(&self, state: &Arc<CommittedVersion>) -> u64 {
        let mut history = self.history();
        if !history.pinned.iter().any(|known| known.version == state.version) {
            history.pinned.push_back(Arc::clone(state));
        }
        state.version
    }

    /// The state at `version`, which somebody was told, and since when its transactions age.
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

    /// Shows `next` from now on, unless it is closed.
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

    /// Shows the same version as `snapshot`, which is the same put in another way.
    pub(super) fn replace_snapshot(&self, version: u64, snapshot: Snapshot) {
        if let Some(latest) = self.latest.load_full().filter(|latest| latest.version == version) {
            latest.snapshot.store(Some(Arc::new(snapshot)));
        }
    }

    /// Closes it after a thread of the engine has panicked.
    pub(super) fn close_by_panic(&self) {
        let message = "a thread of the engine panicked: restart the program";
        self.poison(Arc::new(Error::new(ErrorKind::Closed, message)));
    }

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
    /// Lets go of what is too old to be read.
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

    /// The state itself; `TransactionTooOld` if it may not be read any more.
    pub(super) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        self.snapshot.load_full().ok_or_else(limits::too_old)
    }

    /// What it has under `key`; `TransactionTooOld` if it may not be read any more.
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        // Not counted: those who read it at once would get into each other's way.
        self.snapshot.load().as_ref().ok_or_else(limits::too_old)?.value(key)
    }

    /// The rows from `begin` up to, and without, `end`; `TransactionTooOld` if it may not be read
    /// any more.
    pub(super) fn rows(&self, begin: &[u8], end: &[u8], order: Order) -> Result<MergeIter> {
        self.snapshot.load().as_ref().ok_or_else(limits::too_old)?.rows(begin, end, order)
    }

    fn is_too_old(&self) -> bool {
        self.superseded.get().is_some_and(|since| since.elapsed() > LIFETIME)
    }
}
