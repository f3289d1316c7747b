//! A transaction on a cluster.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foundationdb::{
    FdbResult, RangeOption,
    options::{ConflictRangeType, MutationType, StreamingMode},
};
use futures_util::future::{Either, select};

use super::{Shared, Watching};
use crate::{
    Error, ErrorKind, Result,
    engine::{
        Isolation,
        atomic::AtomicOp,
        codes::During,
        limits::{self, MAX_KEY},
        range::{KeySelector, KeyValue, Order, RangePage, RangeQuery, Stopped},
        timer,
        versionstamp::Versionstamp,
        watch::Watch,
    },
};

/// Bytes added to a byte limit for the overhead that the cluster counts per row. A page of tiny
/// rows may still need a second request.
const ROW_OVERHEAD_SLACK: usize = 4_096;

/// Row limit of a request without a limit, which exact mode requires.
const MAX_ROWS: usize = 1_000_000;

/// A handle to a transaction; clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct Transaction(Arc<Inner>);

struct Inner {
    /// Dropped before the database.
    state: Mutex<State>,
    shared: Arc<Shared>,
}

struct State {
    phase: Phase,
    has_read: bool,
    /// Error of the first failed read, returned by the commit.
    failed: Option<Error>,
}

enum Phase {
    Open(foundationdb::Transaction),
    /// The transaction could not be created.
    Failed(Error),
    Committing,
    /// With the version and stamp, if the transaction wrote anything.
    Committed(Option<(u64, Versionstamp)>),
    Cancelled,
}

impl Transaction {
    pub(super) fn new(shared: Arc<Shared>, background: Option<&str>) -> Self {
        let phase = shared.create(background).map_or_else(Phase::Failed, Phase::Open);
        let state = Mutex::new(State { phase, has_read: false, failed: None });
        Self(Arc::new(Inner { state, shared }))
    }

    pub(crate) async fn get(&self, key: &[u8], isolation: Isolation) -> Result<Option<Vec<u8>>> {
        if key >= MAX_KEY {
            return Err(limits::key_outside_legal_range());
        }
        let key = self.0.shared.prefix.key(key);
        let value = self.read(|tx| tx.get(&key, is_snapshot(isolation))).await?;
        Ok(value.map(|value| value.to_vec()))
    }

    pub(crate) async fn get_key(
        &self,
        selector: &KeySelector,
        isolation: Isolation,
    ) -> Result<Vec<u8>> {
        require_legal(selector)?;
        let prefix = &self.0.shared.prefix;
        let selector = prefix.selector(selector);
        let key =
            self.read(|tx| tx.get_key(&to_fdb_selector(&selector), is_snapshot(isolation))).await?;
        Ok(prefix.own(&key))
    }

    pub(crate) async fn get_range(
        &self,
        query: &RangeQuery,
        isolation: Isolation,
    ) -> Result<RangePage> {
        require_legal(&query.begin)?;
        require_legal(&query.end)?;
        if query.limit == Some(0) {
            return Ok(RangePage { rows: Vec::new(), stopped: Stopped::Rows });
        }
        let begin = self.resolved(&query.begin, isolation).await?;
        let end = self.resolved(&query.end, isolation).await?;
        // Rows that are cut off the page must not conflict, so such pages are read at snapshot
        // isolation, and their conflict range is added explicitly.
        let is_cut = query.target_bytes.is_some() && begin.offset == 1 && end.offset == 1;
        let read_isolation = if is_cut { Isolation::Snapshot } else { isolation };
        let mut page = RangePage { rows: Vec::new(), stopped: Stopped::End };
        let (mut rest, mut bytes) = ((begin.clone(), end.clone()), 0);
        loop {
            let left = query.limit.map(|limit| limit - page.rows.len());
            let more_bytes = query.target_bytes.map_or(0, |target| {
                let left = target.saturating_sub(bytes).max(1);
                if is_cut {
                    left.saturating_add(left / 4).saturating_add(ROW_OVERHEAD_SLACK)
                } else {
                    left
                }
            });
            let option = RangeOption {
                begin: to_fdb_selector(&rest.0),
                end: to_fdb_selector(&rest.1),
                limit: Some(left.map_or(MAX_ROWS, |left| left.min(MAX_ROWS))),
                target_bytes: more_bytes,
                // One reply, even if several servers store the range.
                mode: StreamingMode::Exact,
                reverse: query.order == Order::Descending,
                ..RangeOption::default()
            };
            let found =
                self.read(|tx| tx.get_range(&option, 1, is_snapshot(read_isolation))).await?;
            for row in &found {
                let (key, value) = (self.0.shared.prefix.own(row.key()), row.value().to_vec());
                bytes += key.len() + value.len();
                page.rows.push(KeyValue { key, value });
                if query.limit.is_some_and(|limit| page.rows.len() >= limit) {
                    page.stopped = Stopped::Rows;
                } else if query.target_bytes.is_some_and(|target| bytes >= target) {
                    page.stopped = Stopped::Bytes;
                }
                if page.stopped != Stopped::End {
                    break;
                }
            }
            if page.stopped != Stopped::End || !found.more() {
                break;
            }
            let Some(last) = found.last().map(foundationdb::future::FdbKeyValue::key) else {
                break;
            };
            match query.order {
                Order::Ascending => rest.0 = KeySelector::first_greater_than(last),
                Order::Descending => rest.1 = KeySelector::first_greater_or_equal(last),
            }
        }
        if is_cut && isolation == Isolation::Serializable {
            self.add_page_conflict(&begin, &end, query.order, &page)?;
        }
        Ok(page)
    }

    pub(crate) fn set(&self, key: &[u8], value: &[u8]) {
        self.write(|tx| tx.set(&self.0.shared.prefix.key(key), value));
    }

    pub(crate) fn clear(&self, key: &[u8]) {
        self.write(|tx| tx.clear(&self.0.shared.prefix.key(key)));
    }

    pub(crate) fn clear_range(&self, begin: &[u8], end: &[u8]) {
        let prefix = &self.0.shared.prefix;
        self.write(|tx| tx.clear_range(&prefix.bound(begin), &prefix.bound(end)));
    }

    pub(crate) fn atomic(&self, op: AtomicOp, key: &[u8], operand: &[u8]) {
        let prefix = &self.0.shared.prefix;
        let key = match op {
            AtomicOp::SetVersionstampedKey => prefix.template(key),
            _ => prefix.key(key),
        };
        self.write(|tx| tx.atomic_op(&key, operand, mutation(op)));
    }

    pub(crate) fn add_read_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        self.add_conflict_range(begin, end, ConflictRangeType::Read)
    }

    pub(crate) fn add_write_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        self.add_conflict_range(begin, end, ConflictRangeType::Write)
    }

    pub(crate) async fn read_version(&self) -> Result<u64> {
        let version = self.read(foundationdb::Transaction::get_read_version).await?;
        Ok(u64::try_from(version).unwrap_or(0))
    }

    pub(crate) fn set_read_version(&self, version: u64) {
        let mut state = self.lock();
        if let State { phase: Phase::Open(tx), has_read: false, .. } = &*state {
            // The library ignores zero; one is too old, as zero would be.
            tx.set_read_version(i64::try_from(version).unwrap_or(i64::MAX).max(1));
            state.has_read = true;
        }
    }

    pub(crate) async fn watch(&self, key: &[u8]) -> Result<Watch> {
        if key >= MAX_KEY {
            return Err(limits::key_outside_legal_range());
        }
        // Fixes the version that the watch compares with.
        self.read_version().await?;
        let shared = &self.0.shared;
        let watching = Watching::new(shared).ok_or_else(limits::too_many_watches)?;
        let key = shared.prefix.key(key);
        let changed = self.request(|tx| tx.watch(&key))?;
        let mut closed = shared.closed.subscribe();
        Ok(Watch::from_future(async move {
            let closed =
                Box::pin(async move { closed.wait_for(|is_closed| *is_closed).await.is_ok() });
            match select(changed, closed).await {
                Either::Left((answer, _)) => {
                    answer.map_err(|error| watching.0.error(error, During::Commit))
                }
                Either::Right(_) => Err(limits::closed()),
            }
        }))
    }

    pub(crate) async fn commit(&self) -> Result<()> {
        let shared = &self.0.shared;
        let tx = {
            let mut state = self.lock();
            if let Some(error) = &state.failed {
                return Err(error.clone_without_source());
            }
            self.open(&state)?;
            match mem::replace(&mut state.phase, Phase::Committing) {
                Phase::Open(tx) => tx,
                _ => return Err(limits::used_during_commit()),
            }
        };
        let stamp = tx.get_versionstamp();
        let committed = match timer::timeout(shared.options.timeout, tx.commit()).await? {
            None => return Err(shared.timed_out(During::Commit)),
            Some(Ok(committed)) => committed,
            Some(Err(refused)) => {
                let error = shared.error(*refused, During::Commit);
                if shared.options.report_conflicts && error.kind() == ErrorKind::Conflict {
                    return Err(error.with_source(self.conflicting_keys(&refused).await));
                }
                return Err(error);
            }
        };
        let version = committed.committed_version();
        let version = version.map_err(|error| shared.error(error, During::Read));
        let made = match version.map(u64::try_from) {
            // -1 for a transaction without writes.
            Err(_) | Ok(Err(_)) => None,
            Ok(Ok(version)) => {
                let stamp = shared.answer(stamp, During::Read).await;
                let stamp =
                    stamp.ok().and_then(|stamp| <[u8; Versionstamp::LEN]>::try_from(&*stamp).ok());
                stamp.map(|stamp| (version, Versionstamp::from(stamp)))
            }
        };
        let mut state = self.lock();
        if matches!(state.phase, Phase::Committing) {
            state.phase = Phase::Committed(made);
        }
        Ok(())
    }

    pub(crate) fn committed_version(&self) -> Option<u64> {
        self.receipt().map(|(version, _)| version)
    }

    pub(crate) fn versionstamp(&self) -> Option<Versionstamp> {
        self.receipt().map(|(_, stamp)| stamp)
    }

    pub(crate) fn cancel(&self) {
        let before = mem::replace(&mut self.lock().phase, Phase::Cancelled);
        if let Phase::Open(tx) = before {
            drop(tx.cancel());
        }
    }

    pub(crate) async fn approximate_size(&self) -> Result<usize> {
        let reply = self.request(foundationdb::Transaction::get_approximate_size)?;
        let size = self.0.shared.answer(reply, During::Read).await?;
        Ok(usize::try_from(size).unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the library's transaction while it is open.
    fn open<'a>(&self, state: &'a State) -> Result<&'a foundationdb::Transaction> {
        self.0.shared.check_open()?;
        match &state.phase {
            Phase::Open(tx) => Ok(tx),
            Phase::Failed(error) => Err(error.clone_without_source()),
            Phase::Committing | Phase::Committed(_) => Err(limits::used_during_commit()),
            Phase::Cancelled => Err(limits::cancelled()),
        }
    }

    fn receipt(&self) -> Option<(u64, Versionstamp)> {
        match &self.lock().phase {
            Phase::Committed(made) => *made,
            _ => None,
        }
    }

    /// Starts a request. The returned future is awaited without the lock.
    fn request<F>(&self, request: impl FnOnce(&foundationdb::Transaction) -> F) -> Result<F> {
        let mut state = self.lock();
        let reply = request(self.open(&state)?);
        state.has_read = true;
        Ok(reply)
    }

    async fn read<T, F>(&self, request: impl FnOnce(&foundationdb::Transaction) -> F) -> Result<T>
    where
        F: Future<Output = FdbResult<T>>,
    {
        let reply = self.request(request)?;
        let answer = self.0.shared.answer(reply, During::Read).await;
        if let Err(error) = &answer {
            // Invalid reads do not fail the commit, except reads of unreadable keys (1036).
            let counts = error.kind() != ErrorKind::Invalid || error.code() == Some(1036);
            if counts {
                self.lock().failed.get_or_insert(error.clone_without_source());
            }
        }
        answer
    }

    /// Buffers a write. Errors are reported by the next read or the commit. Ignored unless the
    /// transaction is open, which the commit reports.
    fn write(&self, write: impl FnOnce(&foundationdb::Transaction)) {
        if let Ok(tx) = self.open(&self.lock()) {
            write(tx);
        }
    }

    fn add_conflict_range(&self, begin: &[u8], end: &[u8], kind: ConflictRangeType) -> Result<()> {
        let (shared, state) = (&self.0.shared, self.lock());
        let (begin, end) = (shared.prefix.bound(begin), shared.prefix.bound(end));
        match &state.phase {
            Phase::Open(tx) => tx
                .add_conflict_range(&begin, &end, kind)
                .map_err(|error| shared.error(error, During::Read)),
            _ if begin > end => Err(limits::inverted_range()),
            _ => Ok(()),
        }
    }

    /// Returns `selector` with the prefix, resolved if it could leave the prefix.
    async fn resolved(&self, selector: &KeySelector, isolation: Isolation) -> Result<KeySelector> {
        let prefix = &self.0.shared.prefix;
        if prefix.can_bound(selector) {
            return Ok(prefix.selector(selector));
        }
        let key = self.get_key(selector, isolation).await?;
        Ok(prefix.selector(&KeySelector::first_greater_or_equal(key)))
    }

    /// Adds the conflict range of a page, as far as it was read.
    fn add_page_conflict(
        &self,
        begin: &KeySelector,
        end: &KeySelector,
        order: Order,
        page: &RangePage,
    ) -> Result<()> {
        let prefix = &self.0.shared.prefix;
        let last = page.rows.last().filter(|_| page.stopped != Stopped::End);
        let last = last.map(|row| prefix.key(&row.key).into_owned());
        let (mut from, mut to) = (begin.without_or_equal().key, end.without_or_equal().key);
        match (order, last) {
            (_, None) => {}
            (Order::Ascending, Some(last)) => to = [&last, &[0][..]].concat(),
            (Order::Descending, Some(last)) => from = last,
        }
        if from >= to {
            return Ok(());
        }
        let state = self.lock();
        let added = self.open(&state)?.add_conflict_range(&from, &to, ConflictRangeType::Read);
        added.map_err(|error| self.0.shared.error(error, During::Read))
    }

    /// Returns the conflicting key ranges of a failed commit, as an error source.
    async fn conflicting_keys(
        &self,
        refused: &foundationdb::TransactionCommitError,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        match timer::timeout(self.0.shared.options.timeout, refused.conflicting_keys()).await {
            Ok(Some(Ok(ranges))) => {
                let own = |key: &[u8]| self.0.shared.prefix.own(key);
                let ranges = ranges.iter().map(|range| (own(range.begin()), own(range.end())));
                Box::new(ConflictingKeys(ranges.collect()))
            }
            Ok(Some(Err(error))) => Box::new(error),
            Ok(None) => Box::new(self.0.shared.timed_out(During::Read)),
            Err(error) => Box::new(error),
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// The key ranges that conflicted with other transactions.
#[derive(Debug)]
struct ConflictingKeys(Vec<(Vec<u8>, Vec<u8>)>);

impl fmt::Display for ConflictingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("conflicting keys:")?;
        for (at, (begin, end)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {}..{}", begin.escape_ascii(), end.escape_ascii())?;
        }
        Ok(())
    }
}

impl std::error::Error for ConflictingKeys {}

/// Fails if the selector is in the system keyspace, which the library would read.
fn require_legal(selector: &KeySelector) -> Result<()> {
    if selector.key.as_slice() > MAX_KEY { Err(limits::key_outside_legal_range()) } else { Ok(()) }
}

fn is_snapshot(isolation: Isolation) -> bool {
    isolation == Isolation::Snapshot
}

fn to_fdb_selector(selector: &KeySelector) -> foundationdb::KeySelector<'_> {
    let KeySelector { key, or_equal, offset } = selector;
    foundationdb::KeySelector::new(key.into(), *or_equal, *offset)
}

fn mutation(op: AtomicOp) -> MutationType {
    match op {
        AtomicOp::Add => MutationType::Add,
        AtomicOp::Max => MutationType::Max,
        AtomicOp::Min => MutationType::Min,
        AtomicOp::BitAnd => MutationType::BitAnd,
        AtomicOp::BitOr => MutationType::BitOr,
        AtomicOp::BitXor => MutationType::BitXor,
        AtomicOp::ByteMax => MutationType::ByteMax,
        AtomicOp::ByteMin => MutationType::ByteMin,
        AtomicOp::AppendIfFits => MutationType::AppendIfFits,
        AtomicOp::CompareAndClear => MutationType::CompareAndClear,
        AtomicOp::SetVersionstampedKey => MutationType::SetVersionstampedKey,
        AtomicOp::SetVersionstampedValue => MutationType::SetVersionstampedValue,
    }
}
