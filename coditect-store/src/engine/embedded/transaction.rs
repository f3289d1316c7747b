//! A transaction of the embedded engine: reads, buffered writes, and the commit.

use std::{
    mem,
    sync::{Arc, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    super::{
        Isolation,
        atomic::AtomicOp,
        limits::{
            self, KEY_SIZE_LIMIT, MAX_KEY, OVERHEAD, TRANSACTION_SIZE_LIMIT, VALUE_SIZE_LIMIT,
        },
        range::{KeySelector, RangePage, RangeQuery},
        versionstamp::{self, Versionstamp},
        watch::Watch,
    },
    Shared,
    messages::{Commit, CommitReceipt, ReadAt},
    ranges::{KeyRange, RangeSet, is_key, next_key},
    reads,
    snapshot_cache::SnapshotCache,
    sync::{Mutex, MutexGuard},
    transaction_view::{ReadPoint, TransactionView},
    wake::{self, QueuePermit},
    watches::Watcher,
    write_map::WriteMap,
};
use crate::{Error, ErrorKind, Result};

/// A handle to a transaction; clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
}

/// Per-transaction state.
#[derive(Debug, Default)]
struct State {
    phase: Phase,
    point: ReadPoint,
    writes: WriteMap,
    read_conflicts: RangeSet,
    /// Explicit write conflict ranges; writes conflict without them.
    write_conflicts: RangeSet,
    /// The part of the snapshot that was read.
    cache: SnapshotCache,
    watchers: Vec<Watcher>,
    /// Size of the written keys and values, in bytes.
    written: usize,
    /// Upper bound of the size of their conflict ranges, in bytes.
    range_bytes: usize,
    /// Error of the first invalid write, returned by every later read and by the commit.
    rejected: Option<fn() -> Error>,
    /// Error of the first failed read, returned by the commit.
    failed: Option<Error>,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Open,
    Committing,
    /// With the receipt, if the transaction wrote anything.
    Committed(Option<CommitReceipt>),
    Cancelled,
}

impl Transaction {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, state: Arc::default() }
    }

    pub(crate) async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Vec<u8>>> {
        if !self.shared.disk.is_slow() {
            return self.get_now(key, isolation);
        }
        let (tx, key) = (self.clone(), key.to_vec());
        self.shared.spawn_blocking_read(move || tx.get_now(&key, isolation)).await
    }

    pub(crate) async fn get_key(
        &self,
        selector: &KeySelector,
        isolation: Isolation,
    ) -> Result<Vec<u8>> {
        if !self.shared.disk.is_slow() {
            return self.get_key_now(selector, isolation);
        }
        let (tx, selector) = (self.clone(), selector.clone());
        self.shared.spawn_blocking_read(move || tx.get_key_now(&selector, isolation)).await
    }

    pub(crate) async fn get_range(
        &self,
        query: &RangeQuery,
        isolation: Isolation,
    ) -> Result<RangePage> {
        if !self.shared.disk.is_slow() {
            return self.get_range_now(query, isolation);
        }
        let (tx, query) = (self.clone(), query.clone());
        self.shared.spawn_blocking_read(move || tx.get_range_now(&query, isolation)).await
    }

    fn get_now(&self, key: &[u8], isolation: Isolation) -> Result<Option<Vec<u8>>> {
        if key >= MAX_KEY {
            return Err(limits::key_outside_legal_range());
        }
        self.read(
            |view| {
                // Longer keys are never stored.
                let value = if key.len() > KEY_SIZE_LIMIT { None } else { view.value(key)? };
                Ok((value, key))
            },
            isolation,
        )
    }

    fn get_key_now(&self, selector: &KeySelector, isolation: Isolation) -> Result<Vec<u8>> {
        self.read(
            |view| {
                let (key, begin, end) = view.key(selector)?;
                Ok((key, (begin, end)))
            },
            isolation,
        )
    }

    fn get_range_now(&self, query: &RangeQuery, isolation: Isolation) -> Result<RangePage> {
        self.read(
            |view| {
                let read = view.range(query)?;
                Ok((read.page, read.depends_on))
            },
            isolation,
        )
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        self.write(key, value, |state| {
            state.writes.set(key, value);
            state.note_written(key);
        });
    }

    pub(crate) fn clear(&self, key: &[u8]) {
        self.clear_range(key, &next_key(key));
    }

    pub(crate) fn clear_range(&self, begin: &[u8], end: &[u8]) {
        let mut state = self.lock();
        if begin > MAX_KEY
            || end > MAX_KEY && !is_key(begin, end)
            || begin == MAX_KEY && begin < end
        {
            state.reject(limits::key_outside_legal_range);
        } else if begin > end {
            state.reject(limits::inverted_range);
        } else if begin < end {
            let (begin, end) = (truncate(begin), truncate(end));
            state.written += begin.len() + end.len() + OVERHEAD;
            state.writes.clear_range(begin, end);
            state.range_bytes += begin.len() + end.len() + OVERHEAD;
        }
    }

    pub(crate) fn atomic(&self, op: AtomicOp, key: &[u8], operand: &[u8]) {
        self.write(key, operand, |state| match op {
            // The write conflict is the final key, which is known at commit time.
            AtomicOp::SetVersionstampedKey => {
                let Some((_, offset)) = versionstamp::split_template(key) else {
                    return state.reject(limits::invalid_versionstamp_offset);
                };
                let read_at = state.point.pinned.as_ref().map_or(0, |(point, _)| point.version);
                let (begin, end) = stamped_range(key, offset, read_at);
                state.writes.make_unreadable(&begin, &end);
                state.writes.apply(op, key, operand);
            }
            AtomicOp::SetVersionstampedValue if versionstamp::split_template(operand).is_none() => {
                state.reject(limits::invalid_versionstamp_offset);
            }
            _ => {
                state.writes.apply(op, key, operand);
                state.note_written(key);
            }
        });
    }

    pub(crate) fn add_read_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        self.add_conflict_range(begin, end, |state| {
            let State { writes, read_conflicts, .. } = state;
            reads::note_read(writes, read_conflicts, KeyRange::new(truncate(begin), truncate(end)));
        })
    }

    pub(crate) fn add_write_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        self.add_conflict_range(begin, end, |state| {
            state.write_conflicts.insert(KeyRange::new(truncate(begin), truncate(end)));
        })
    }

    pub(crate) fn read_version(&self) -> Result<u64> {
        let mut state = self.lock();
        state.check_open()?;
        let registry = &self.shared.registry;
        let version = state.point.get(registry).map(|point| registry.pin_version(point));
        state.remember_failure(version)
    }

    pub(crate) fn set_read_version(&self, version: u64) {
        self.lock().point.requested = Some(version);
    }

    pub(crate) async fn watch(&self, key: &[u8]) -> Result<Watch> {
        // A serializable read, as in FoundationDB's client.
        let expected = self.get(key, Isolation::Serializable).await?;
        let mut state = self.lock();
        if state.watchers.len() >= limits::WATCH_LIMIT || !self.shared.registry.watches.have_room()
        {
            return Err(limits::too_many_watches());
        }
        let (fire, watch) = Watch::new();
        state.watchers.push(Watcher::new(key, expected.as_deref(), fire));
        Ok(watch)
    }

    pub(crate) async fn commit(&self) -> Result<()> {
        let taken = {
            self.shared.registry.owner.check()?;
            let mut state = self.lock();
            state.check_open()?;
            if let Some(error) = state.rejected {
                return Err(error());
            }
            if let Some(error) = &state.failed {
                return Err(error.clone_without_source());
            }
            if state.is_too_large() {
                return Err(limits::transaction_too_large());
            }
            mem::replace(&mut *state, State { phase: Phase::Committing, ..State::default() })
        };
        let State { point, writes, read_conflicts, write_conflicts, watchers, written, .. } = taken;
        let outcome = if writes.is_empty() && write_conflicts.is_empty() {
            Ok(None)
        } else {
            let bytes = written + read_conflicts.bytes() + write_conflicts.bytes();
            let read = self.read_at(point, &read_conflicts);
            match read {
                Err(error) => Err(error),
                Ok(read) => self
                    .submit(bytes, |reply, permit| Commit {
                        read,
                        read_ranges: read_conflicts.into_ranges(),
                        write_ranges: write_conflicts.into_ranges(),
                        mutations: writes.into_mutations(),
                        bytes,
                        reply,
                        permit,
                    })
                    .await
                    .map(Some),
            }
        };
        let committed = match outcome {
            Ok(committed) => committed,
            Err(error) => {
                for watcher in watchers {
                    wake::answer(watcher.fire, Err(error.clone_without_source()));
                }
                return Err(error);
            }
        };
        let mut state = self.lock();
        if matches!(state.phase, Phase::Committing) {
            state.phase = Phase::Committed(committed);
        }
        drop(state);
        let registry = &self.shared.registry;
        for watcher in watchers {
            let value = |key: &[u8]| registry.latest()?.value(key);
            registry
                .watches
                .add(watcher, |key| value(key).map_err(|error| registry.close_cause(error)));
        }
        Ok(())
    }

    pub(crate) fn versionstamp(&self) -> Option<Versionstamp> {
        match &self.lock().phase {
            Phase::Committed(Some(committed)) => Some(committed.stamp),
            _ => None,
        }
    }

    pub(crate) fn committed_version(&self) -> Option<u64> {
        match &self.lock().phase {
            Phase::Committed(Some(committed)) => {
                Some(self.shared.registry.pin_version(&committed.state))
            }
            _ => None,
        }
    }

    pub(crate) fn cancel(&self) {
        let mut state = self.lock();
        *state = State { phase: Phase::Cancelled, ..State::default() };
    }

    pub(crate) fn approximate_size(&self) -> usize {
        self.lock().size()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a read, and adds the range that its result depends on to the read conflicts.
    fn read<T, R: Into<KeyRange>>(
        &self,
        read: impl FnOnce(&mut TransactionView<'_>) -> Result<(T, R)>,
        isolation: Isolation,
    ) -> Result<T> {
        let mut state = self.lock();
        state.check_open()?;
        if let Some(error) = state.rejected {
            return Err(error());
        }
        let State { point, writes, read_conflicts, cache, .. } = &mut *state;
        let registry = &self.shared.registry;
        let answer = read(&mut TransactionView { writes, point, registry, cache });
        let answer = answer.map_err(|error| registry.close_cause(error));
        let answer = answer.map(|(answer, depends_on)| {
            if isolation == Isolation::Serializable {
                reads::note_read(writes, read_conflicts, depends_on.into());
            }
            answer
        });
        state.remember_failure(answer)
    }

    /// Validates and applies a write of one key, and adds it to the size.
    fn write(&self, key: &[u8], value: &[u8], write: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        if key >= MAX_KEY {
            state.reject(limits::key_outside_legal_range);
        } else if key.len() > KEY_SIZE_LIMIT {
            state.reject(limits::key_too_large);
        } else if value.len() > VALUE_SIZE_LIMIT {
            state.reject(limits::value_too_large);
        } else {
            write(&mut state);
            state.written += key.len() + value.len() + OVERHEAD;
        }
    }

    fn add_conflict_range(
        &self,
        begin: &[u8],
        end: &[u8],
        add: impl FnOnce(&mut State),
    ) -> Result<()> {
        if begin > end {
            return Err(limits::inverted_range());
        }
        let mut state = self.lock();
        if begin > MAX_KEY || end > MAX_KEY {
            state.reject(limits::key_outside_legal_range);
        } else {
            add(&mut state);
        }
        Ok(())
    }

    /// Returns the version that a commit with writes is checked against; `None` if the transaction
    /// never had one. Fails if it is too old, even without a read that could conflict:
    /// FoundationDB's client adds a conflict range of its own to each transaction whose writes meet
    /// no read.
    fn read_at(&self, mut point: ReadPoint, conflicts: &RangeSet) -> Result<Option<ReadAt>> {
        if conflicts.is_empty() && point.is_unset() {
            return Ok(None);
        }
        point.get(&self.shared.registry)?;
        Ok(point.pinned.map(|(published, since)| ReadAt { version: published.version, since }))
    }

    async fn submit(
        &self,
        bytes: usize,
        commit: impl FnOnce(oneshot::Sender<Result<CommitReceipt>>, QueuePermit) -> Commit,
    ) -> Result<CommitReceipt> {
        let permit = self.shared.acquire_queue_permit(bytes).await?;
        let (answer, answered) = oneshot::channel();
        let _committing = self.shared.commit(commit(answer, permit))?;
        // The pipeline answers every commit unless it panicked.
        let panicked = || limits::maybe_committed().with_source(self.shared.registry.closed());
        answered.await.unwrap_or_else(|_| Err(panicked()))
    }
}

impl State {
    fn check_open(&self) -> Result<()> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Committing | Phase::Committed(_) => Err(limits::used_during_commit()),
            Phase::Cancelled => Err(limits::cancelled()),
        }
    }

    fn reject(&mut self, error: fn() -> Error) {
        self.rejected.get_or_insert(error);
    }

    fn note_written(&mut self, key: &[u8]) {
        self.range_bytes += 2 * key.len() + 1 + OVERHEAD;
    }

    /// Returns whether the transaction exceeds the size limit. Overlapping ranges count once.
    fn is_too_large(&mut self) -> bool {
        if self.size() <= TRANSACTION_SIZE_LIMIT {
            return false;
        }
        self.read_conflicts.merge();
        let mut written = self.write_conflicts.clone();
        self.writes.ranges().for_each(|range| written.insert(range));
        written.merge();
        let ranges = self.read_conflicts.len() + written.len();
        let bytes = self.read_conflicts.bytes() + written.bytes();
        self.written + bytes + ranges * OVERHEAD > TRANSACTION_SIZE_LIMIT
    }

    /// Returns the approximate size, in bytes; overlapping ranges may count several times.
    fn size(&self) -> usize {
        let ranges = self.read_conflicts.len() + self.write_conflicts.len();
        self.written
            + self.range_bytes
            + self.read_conflicts.bytes()
            + self.write_conflicts.bytes()
            + ranges * OVERHEAD
    }

    /// Records the error of a failed read, so that the commit fails too. Invalid arguments do not
    /// count.
    fn remember_failure<T>(&mut self, answer: Result<T>) -> Result<T> {
        if let Err(error) = &answer {
            let unreadable = error.code() == Some(1036);
            if self.failed.is_none() && (unreadable || error.kind() != ErrorKind::Invalid) {
                self.failed = Some(error.clone_without_source());
            }
        }
        answer
    }
}

/// Returns the range of keys that a versionstamped key may become if it commits after `read_at`.
fn stamped_range(template: &[u8], offset: usize, read_at: u64) -> (Vec<u8>, Vec<u8>) {
    let (bytes, place) = (&template[..template.len() - 4], offset..offset + Versionstamp::LEN);
    let mut begin = bytes.to_vec();
    begin[place.clone()].copy_from_slice(Versionstamp::new(read_at, 0).as_bytes());
    let mut end = next_key(bytes);
    end[place].fill(0xff);
    (begin, end.min(MAX_KEY.to_vec()))
}

/// Truncates a bound to one byte more than the longest key, which covers the same keys.
fn truncate(bound: &[u8]) -> &[u8] {
    &bound[..bound.len().min(KEY_SIZE_LIMIT + 1)]
}
