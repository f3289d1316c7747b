//! The one thread that commits: it drains what waits, decides each in order, syncs once, publishes,
//! answers.
//!
//! ```text
//! transactions ── bounded queue ──► sequencer ──► storage (one sync a batch)
//!       ▲                               │
//!       └── published (version, snapshot), one atomic swap ◄┘
//! ```
//!
//! What stays true: a version is published after its batch is on disk, and answered after it is
//! published, so that whoever begins then sees it. All of a batch shares one version; its members
//! are ordered within it. When the storage fails nothing is guessed: the batch may be committed,
//! and the engine is closed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::{
    super::{
        limits::{self, LIFETIME},
        versionstamp::{self, Versionstamp},
    },
    conflicts::{KeyRange, RecentWrites},
    storage::{Batch, Snapshot, Storage},
    watches::Watches,
    writes::{Mutation, next_key},
};
use crate::{Clock, Result, engine::AtomicOp};

/// The most commits in a batch: their order must fit a versionstamp's two bytes.
const BATCH_COMMITS: usize = 1_024;
/// No commit is added to a batch that is this large, in bytes.
const BATCH_BYTES: usize = 8 << 20;
/// Versions are microseconds; what is older than this need not be checked against any more.
const WINDOW: u64 = LIFETIME.as_secs() * 1_000_000;

/// What a transaction asks to have written.
#[derive(Debug)]
pub(super) struct Commit {
    /// What it read at, and since when; `None` if nothing it read can conflict.
    pub(super) read: Option<ReadAt>,
    pub(super) read_ranges: Vec<KeyRange>,
    pub(super) write_ranges: Vec<KeyRange>,
    pub(super) mutations: Vec<Mutation>,
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Result<Committed>>,
    /// Its share of the queue's memory.
    pub(super) permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ReadAt {
    pub(super) version: u64,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) enum Request {
    Commit(Commit),
    Stop(oneshot::Sender<()>),
}

/// A commit's stamp, and the state that it made.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) stamp: Versionstamp,
    pub(super) state: Arc<Published>,
}

/// A version and the state of the store at it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) version: u64,
    pub(super) snapshot: Snapshot,
    /// When a later one took its place.
    superseded: OnceLock<Instant>,
}

/// What the sequencer shows to transactions. `latest` is empty once the engine is closed.
#[derive(Debug, Default)]
pub(super) struct Board {
    latest: ArcSwapOption<Published>,
    /// States whose versions somebody was told, and may come back with. Others are let go with
    /// their last transaction, since the storage can't reuse what they hold.
    told: Mutex<VecDeque<Arc<Published>>>,
    pub(super) watches: Watches,
}

impl Board {
    /// The newest state; `Closed` if there will be none.
    pub(super) fn latest(&self) -> Result<Arc<Published>> {
        self.latest.load_full().ok_or_else(limits::closed)
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.latest.load().is_some() { Ok(()) } else { Err(limits::closed()) }
    }

    /// Keeps `state` for as long as a transaction may ask for its version.
    pub(super) fn tell(&self, state: &Arc<Published>) -> u64 {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|known| !known.is_too_old());
        if !told.iter().any(|known| known.version == state.version) {
            told.push_back(Arc::clone(state));
        }
        state.version
    }

    /// The state at `version`, which somebody was told, and since when its transactions age.
    pub(super) fn at(&self, version: u64) -> Result<(Arc<Published>, Instant)> {
        let latest = self.latest()?;
        if version > latest.version {
            return Err(limits::future_version());
        }
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let found = told.iter().find(|known| known.version == version && !known.is_too_old());
        let state = found.ok_or_else(limits::too_old)?;
        let since = state.superseded.get().copied().unwrap_or_else(Instant::now);
        Ok((Arc::clone(state), since))
    }

    fn publish(&self, version: u64, snapshot: Snapshot) -> Arc<Published> {
        let next = Arc::new(Published { version, snapshot, superseded: OnceLock::new() });
        if let Some(before) = self.latest.swap(Some(Arc::clone(&next))) {
            let _ = before.superseded.set(Instant::now());
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        while told.front().is_some_and(|known| known.is_too_old()) {
            told.pop_front();
        }
        next
    }

    fn close(&self) {
        self.latest.store(None);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.watches.close();
    }
}

impl Published {
    fn is_too_old(&self) -> bool {
        self.superseded.get().is_some_and(|since| since.elapsed() > LIFETIME)
    }
}

/// The sequencer's own state.
pub(super) struct Sequencer {
    storage: Storage,
    board: Arc<Board>,
    clock: Clock,
    recent: RecentWrites,
    last_version: u64,
}

/// Closes the board when the sequencer ends, by a panic too: nobody is to wait for it in vain.
struct CloseOnDrop(Arc<Board>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// What became of a member of a batch.
type Decided = (oneshot::Sender<Result<Committed>>, Result<Versionstamp>);

impl Sequencer {
    pub(super) fn new(storage: Storage, board: Arc<Board>, clock: Clock) -> Result<Self> {
        let last_version = storage.last_version();
        let snapshot = storage.snapshot()?;
        board.publish(last_version, snapshot);
        Ok(Self { storage, board, clock, recent: RecentWrites::new(last_version), last_version })
    }

    /// Commits until it is stopped, all handles are gone, or the storage fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let closing = CloseOnDrop(Arc::clone(&self.board));
        let mut stopped = None;
        while let Some(first) = queue.blocking_recv() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Stop(done) => {
                        stopped = Some(done);
                        break;
                    }
                    Request::Commit(commit) => {
                        bytes += commit.bytes;
                        batch.push(commit);
                    }
                }
                let room = batch.len() < BATCH_COMMITS && bytes < BATCH_BYTES;
                next = if room { queue.try_recv().ok() } else { None };
            }
            let healthy = batch.is_empty() || self.commit(batch);
            if stopped.is_some() || !healthy {
                break;
            }
        }
        queue.close();
        while let Ok(request) = queue.try_recv() {
            match request {
                Request::Commit(commit) => drop(commit.answer.send(Err(limits::closed()))),
                Request::Stop(done) => drop(done.send(())),
            }
        }
        drop(closing);
        drop(self);
        if let Some(done) = stopped {
            let _ = done.send(());
        }
    }

    /// Commits a batch and answers its members; false if the engine can't go on.
    fn commit(&mut self, batch: Vec<Commit>) -> bool {
        let version = self.next_version();
        let mut written = Vec::new();
        let mut accepted = Vec::new();
        let mut decided: Vec<Decided> = Vec::with_capacity(batch.len());
        let mut permits = Vec::with_capacity(batch.len());
        for (order, commit) in (0_u16..).zip(batch) {
            let verdict = self.check(&commit);
            permits.push(commit.permit);
            if let Err(error) = verdict {
                decided.push((commit.answer, Err(error)));
                continue;
            }
            let stamp = Versionstamp::new(version, order);
            let mutations: Vec<_> =
                commit.mutations.into_iter().map(|mutation| stamped(mutation, stamp)).collect();
            let stamped_keys =
                mutations.iter().filter_map(|(mutation, stamps_key)| match mutation {
                    Mutation::Set { key, .. } if *stamps_key => Some((key.clone(), next_key(key))),
                    _ => None,
                });
            let ranges: Vec<_> = commit.write_ranges.into_iter().chain(stamped_keys).collect();
            for range in &ranges {
                self.recent.note(version, range.clone());
            }
            written.extend(ranges);
            accepted.extend(mutations.into_iter().map(|(mutation, _)| mutation));
            decided.push((commit.answer, Ok(stamp)));
        }
        if decided.iter().all(|(_, verdict)| verdict.is_err()) {
            answer_all(decided, |_| Err(limits::conflict()));
            return true;
        }
        let state = match self.make_durable(version, &accepted) {
            Ok(state) => state,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a commit failed: the store is closed"
                );
                self.board.close();
                let error = Arc::new(error);
                answer_all(decided, |_| {
                    Err(limits::maybe_committed().because(Box::new(Arc::clone(&error))))
                });
                return false;
            }
        };
        answer_all(decided, |stamp| Ok(Committed { stamp, state: Arc::clone(&state) }));
        self.board.watches.changed(&written, &state.snapshot);
        self.recent.forget_before(version.saturating_sub(WINDOW));
        true
    }

    fn next_version(&self) -> u64 {
        let micros = u64::try_from(self.clock.now().timestamp_micros()).unwrap_or(0);
        micros.max(self.last_version + 1)
    }

    fn check(&self, commit: &Commit) -> Result<()> {
        let Some(read) = commit.read else { return Ok(()) };
        if self.recent.is_too_old(read.version) || read.since.elapsed() > LIFETIME {
            return Err(limits::too_old());
        }
        let conflicts = |range| self.recent.was_written_after(read.version, range);
        if commit.read_ranges.iter().any(conflicts) {
            return Err(limits::conflict());
        }
        Ok(())
    }

    /// Writes, syncs, publishes.
    fn make_durable(&mut self, version: u64, mutations: &[Mutation]) -> Result<Arc<Published>> {
        let started = Instant::now();
        self.storage.write(version, |batch| {
            mutations.iter().try_for_each(|mutation| apply(batch, mutation))
        })?;
        let snapshot = self.storage.snapshot()?;
        self.last_version = version;
        let state = self.board.publish(version, snapshot);
        if started.elapsed() > Duration::from_secs(1) {
            tracing::warn!(seconds = started.elapsed().as_secs_f64(), "a commit took long to sync");
        }
        Ok(state)
    }
}

/// Answers the members of a batch: those refused with why, the others with `outcome`.
fn answer_all(decided: Vec<Decided>, outcome: impl Fn(Versionstamp) -> Result<Committed>) {
    for (answer, verdict) in decided {
        // Whoever has gone doesn't want it.
        let _ = answer.send(verdict.and_then(&outcome));
    }
}

/// The mutation with its versionstamp filled in, and whether that made its key.
fn stamped(mutation: Mutation, stamp: Versionstamp) -> (Mutation, bool) {
    let Mutation::Atomic { op, key, operand } = mutation else { return (mutation, false) };
    // Templates were checked when they were written: one that doesn't fit never gets here.
    match op {
        AtomicOp::SetVersionstampedKey => {
            let key = versionstamp::fill(&key, stamp).unwrap_or(key);
            (Mutation::Set { key, value: operand }, true)
        }
        AtomicOp::SetVersionstampedValue => {
            let value = versionstamp::fill(&operand, stamp).unwrap_or(operand);
            (Mutation::Set { key, value }, false)
        }
        _ => (Mutation::Atomic { op, key, operand }, false),
    }
}

fn apply(batch: &mut Batch<'_>, mutation: &Mutation) -> Result<()> {
    match mutation {
        Mutation::Set { key, value } => batch.set(key, value),
        Mutation::ClearRange { begin, end } if *end == next_key(begin) => batch.clear(begin),
        Mutation::ClearRange { begin, end } => batch.clear_range(begin, end),
        Mutation::Atomic { op, key, operand } => {
            match op.apply(batch.value(key)?.as_deref(), operand) {
                Some(value) => batch.set(key, &value),
                None => batch.clear(key),
            }
        }
    }
}
