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
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
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
    storage::{Batch, Snapshot, Storage, WriteError},
    watches::Watches,
    writes::{Mutation, next_key},
};
use crate::{Clock, ErrorKind, Result, engine::AtomicOp, telemetry};

/// The most commits in a batch: their order must fit a versionstamp's two bytes.
const BATCH_COMMITS: usize = 1_024;
/// No commit is added to a batch that is this large, in bytes.
const BATCH_BYTES: usize = 8 << 20;

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
    /// Makes all later versions greater than this one.
    Advance(u64, oneshot::Sender<()>),
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
    /// Taken out when no transaction may read it any more, however long its handle is kept: the
    /// storage can't reuse what a snapshot holds.
    snapshot: ArcSwapOption<Snapshot>,
    /// When a later one took its place.
    superseded: OnceLock<Instant>,
}

/// What the sequencer shows to transactions. `latest` is empty once the engine is closed.
#[derive(Debug, Default)]
pub(super) struct Board {
    latest: ArcSwapOption<Published>,
    past: Mutex<Past>,
    pub(super) watches: Watches,
}

/// States that are not the latest any more, oldest first.
#[derive(Debug, Default)]
struct Past {
    /// Those that may still be held by a transaction, until they are too old to be read.
    held: VecDeque<Weak<Published>>,
    /// Those whose versions somebody was told, and may come back with; the latest may be among
    /// them. Others are let go with their last transaction.
    told: VecDeque<Arc<Published>>,
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
        let mut past = self.past();
        if !past.told.iter().any(|known| known.version == state.version) {
            past.told.push_back(Arc::clone(state));
        }
        state.version
    }

    /// The state at `version`, which somebody was told, and since when its transactions age.
    pub(super) fn at(&self, version: u64) -> Result<(Arc<Published>, Instant)> {
        let latest = self.latest()?;
        if version > latest.version {
            return Err(limits::future_version());
        }
        let past = self.past();
        let found = past.told.iter().find(|known| known.version == version && !known.is_too_old());
        let state = found.ok_or_else(limits::too_old)?;
        let since = state.superseded.get().copied().unwrap_or_else(Instant::now);
        Ok((Arc::clone(state), since))
    }

    fn publish(&self, version: u64, snapshot: Snapshot) -> Arc<Published> {
        let next = Arc::new(Published {
            version,
            snapshot: ArcSwapOption::from_pointee(snapshot),
            superseded: OnceLock::new(),
        });
        let before = self.latest.swap(Some(Arc::clone(&next)));
        let mut past = self.past();
        if let Some(before) = before {
            let _ = before.superseded.set(Instant::now());
            past.held.push_back(Arc::downgrade(&before));
        }
        past.let_go();
        next
    }

    fn close(&self) {
        self.latest.store(None);
        *self.past() = Past::default();
        self.watches.close();
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Past {
    /// Lets go of what is too old to be read.
    fn let_go(&mut self) {
        self.told.retain(|state| !state.is_too_old());
        while let Some(oldest) = self.held.front() {
            match oldest.upgrade() {
                Some(state) if !state.is_too_old() => break,
                Some(state) => state.snapshot.store(None),
                None => {}
            }
            self.held.pop_front();
        }
    }
}

impl Published {
    /// The state itself; `TooOld` if it may not be read any more.
    pub(super) fn snapshot(&self) -> Result<Arc<Snapshot>> {
        self.snapshot.load_full().ok_or_else(limits::too_old)
    }

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
    /// Versions and when they were given, about one a second: how old a version is cannot be told
    /// from its number, since a clock that was set back makes them grow slowly.
    ages: VecDeque<(u64, Instant)>,
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
        let recent = RecentWrites::new(last_version);
        Ok(Self { storage, board, clock, recent, last_version, ages: VecDeque::new() })
    }

    /// Commits until it is stopped, all handles are gone, or the storage fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let closing = CloseOnDrop(Arc::clone(&self.board));
        let stopped = self.serve(&mut queue);
        queue.close();
        // Also those who are just coming in.
        while let Some(request) = queue.blocking_recv() {
            match request {
                Request::Commit(commit) => drop(commit.answer.send(Err(limits::closed()))),
                // Who asked finds nobody to answer.
                Request::Advance(..) => {}
                Request::Stop(done) => drop(done.send(())),
            }
        }
        drop(closing);
        drop(self);
        if let Some(done) = stopped {
            let _ = done.send(());
        }
    }

    /// Commits until there is an end to it; gives whom to tell, if somebody asked for the end.
    fn serve(&mut self, queue: &mut mpsc::Receiver<Request>) -> Option<oneshot::Sender<()>> {
        while let Some(first) = queue.blocking_recv() {
            let mut stopped = None;
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                match request {
                    Request::Stop(done) => {
                        stopped = Some(done);
                        break;
                    }
                    Request::Advance(version, done) => {
                        self.last_version = self.last_version.max(version);
                        let _ = done.send(());
                    }
                    Request::Commit(commit) => {
                        bytes += commit.bytes;
                        batch.push(commit);
                    }
                }
                let room = batch.len() < BATCH_COMMITS && bytes < BATCH_BYTES;
                next = if room { queue.try_recv().ok() } else { None };
            }
            telemetry::batched(batch.len(), queue.len());
            let healthy = batch.is_empty() || self.commit(batch);
            if stopped.is_some() || !healthy {
                return stopped;
            }
        }
        None
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
            Err(error) => return self.fail(version, error, decided),
        };
        answer_all(decided, |stamp| Ok(Committed { stamp, state: Arc::clone(&state) }));
        if let Ok(snapshot) = state.snapshot() {
            self.board.watches.changed(&written, &snapshot);
        }
        self.forget(Instant::now());
        true
    }

    /// Answers the members of a batch that failed; false if the engine can't go on.
    fn fail(&mut self, version: u64, error: WriteError, decided: Vec<Decided>) -> bool {
        let (error, unknown) = match error {
            WriteError::NotWritten(error) => (error, false),
            WriteError::Unknown(error) => (error, true),
        };
        tracing::error!(error = &error as &dyn std::error::Error, unknown, "a commit failed");
        let error = Arc::new(error);
        let cause = || Box::new(Arc::clone(&error));
        if unknown {
            self.board.close();
            answer_all(decided, |_| Err(limits::maybe_committed().because(cause())));
            return false;
        }
        // Nothing was written, so the state is as it was. Its version is not, since the batch's
        // writes are noted as of this one.
        let snapshot = self.storage.snapshot().ok().filter(|_| error.kind() != ErrorKind::Corrupt);
        let goes_on = snapshot.map(|snapshot| {
            self.last_version = version;
            self.board.publish(version, snapshot);
        });
        answer_all(decided, |_| Err(error.same().because(cause())));
        goes_on.is_some()
    }

    /// Forgets the writes that no transaction is old enough to conflict with.
    fn forget(&mut self, now: Instant) {
        if self.ages.back().is_none_or(|(_, at)| now - *at >= Duration::from_secs(1)) {
            self.ages.push_back((self.last_version, now));
        }
        while let [(_, _), (_, next), ..] = self.ages.make_contiguous()
            && now - *next > LIFETIME
        {
            self.ages.pop_front();
        }
        if let Some((version, _)) = self.ages.front().filter(|(_, at)| now - *at > LIFETIME) {
            self.recent.forget_before(*version);
        }
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
    fn make_durable(
        &mut self,
        version: u64,
        mutations: &[Mutation],
    ) -> Result<Arc<Published>, WriteError> {
        let started = Instant::now();
        self.storage.write(version, |batch| {
            mutations.iter().try_for_each(|mutation| apply(batch, mutation))
        })?;
        // It is written; without a snapshot it just can't be shown.
        let snapshot = self.storage.snapshot().map_err(WriteError::Unknown)?;
        self.last_version = version;
        let state = self.board.publish(version, snapshot);
        let took = started.elapsed();
        telemetry::synced(took);
        if took > Duration::from_secs(1) {
            tracing::warn!(seconds = took.as_secs_f64(), "a commit took long to sync");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_forgotten_by_their_age_though_a_clock_set_back_makes_versions_crawl() {
        let storage = Storage::memory().unwrap();
        let mut sequencer =
            Sequencer::new(storage, Arc::new(Board::default()), Clock::system()).unwrap();
        let started = Instant::now();
        for second in 0..20 {
            for _ in 0..1_000 {
                sequencer.last_version += 1;
                let key = sequencer.last_version.to_be_bytes().to_vec();
                let range = (key.clone(), next_key(&key));
                sequencer.recent.note(sequencer.last_version, range);
            }
            sequencer.forget(started + Duration::from_secs(second));
        }
        let (kept, last) = (sequencer.recent.len(), sequencer.last_version);
        assert!(
            kept < 2 * 2 * 7_000,
            "{kept} steps for the writes of seven seconds, at twice that"
        );
        assert!(!sequencer.recent.is_too_old(last - 4_000));
        assert!(sequencer.recent.is_too_old(last - 19_000));
    }
}
