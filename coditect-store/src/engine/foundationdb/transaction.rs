//! One transaction on a cluster.

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

/// What the cluster counts beside keys and values where it is told how many bytes to give: some of
/// it for each row, so that a page of tiny rows may take a second call.
const SLACK: usize = 4_096;

/// How many rows are asked for at once where no fewer are wanted: an exact answer takes a number.
const MOST_ROWS: usize = 1_000_000;

/// A handle; its clones are the same transaction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction(Arc<Inner>);

struct Inner {
    /// Goes before the database that it is of.
    state: Mutex<State>,
    shared: Arc<Shared>,
}

struct State {
    phase: Phase,
    has_read: bool,
    /// A read that failed: the commit says so.
    failed: Option<Error>,
}

enum Phase {
    Open(foundationdb::Transaction),
    /// It could not be begun.
    Refused(Error),
    Committing,
    /// With its version and stamp, if it wrote anything.
    Committed(Option<(u64, Versionstamp)>),
    Cancelled,
}

impl Transaction {
    pub(super) fn new(shared: Arc<Shared>, background: Option<&str>) -> Self {
        let phase = shared.create(background).map_or_else(Phase::Refused, Phase::Open);
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
        let key = self.read(|tx| tx.get_key(&place(&selector), is_snapshot(isolation))).await?;
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
        // What is cut off a page was not read: so the conflicts of one that may be cut are told
        // apart.
        let is_cut = query.target_bytes.is_some() && begin.offset == 1 && end.offset == 1;
        let noted = if is_cut { Isolation::Snapshot } else { isolation };
        let mut page = RangePage { rows: Vec::new(), stopped: Stopped::End };
        let (mut rest, mut bytes) = ((begin.clone(), end.clone()), 0);
        loop {
            let left = query.limit.map(|limit| limit - page.rows.len());
            let more_bytes = query.target_bytes.map_or(0, |target| {
                let left = target.saturating_sub(bytes).max(1);
                if is_cut { left.saturating_add(left / 4).saturating_add(SLACK) } else { left }
            });
            let option = RangeOption {
                begin: place(&rest.0),
                end: place(&rest.1),
                limit: Some(left.map_or(MOST_ROWS, |left| left.min(MOST_ROWS))),
                target_bytes: more_bytes,
                // All in one answer, however many servers have it.
                mode: StreamingMode::Exact,
                reverse: query.order == Order::Descending,
                ..RangeOption::default()
            };
            let found = self.read(|tx| tx.get_range(&option, 1, is_snapshot(noted))).await?;
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
            self.note_read(&begin, &end, query.order, &page)?;
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
            // Zero is none; the first one is too old, as zero would be.
            tx.set_read_version(i64::try_from(version).unwrap_or(i64::MAX).max(1));
            state.has_read = true;
        }
    }

    pub(crate) async fn watch(&self, key: &[u8]) -> Result<Watch> {
        if key >= MAX_KEY {
            return Err(limits::key_outside_legal_range());
        }
        // What it compares with is to be as of now, not of when the cluster gets to it.
        self.read_version().await?;
        let shared = &self.0.shared;
        let watching = Watching::new(shared).ok_or_else(limits::too_many_watches)?;
        let key = shared.prefix.key(key);
        let changed = self.ask(|tx| tx.watch(&key))?;
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
        let committed = match timer::timeout(shared.options.patience, tx.commit()).await? {
            None => return Err(shared.silence(During::Commit)),
            Some(Ok(committed)) => committed,
            Some(Err(refused)) => {
                let error = shared.error(*refused, During::Commit);
                if shared.options.report_conflicts && error.kind() == ErrorKind::Conflict {
                    return Err(error.with_source(self.conflicting(&refused).await));
                }
                return Err(error);
            }
        };
        let version = committed.committed_version();
        let version = version.map_err(|error| shared.error(error, During::Read));
        let made = match version.map(u64::try_from) {
            // Minus one says that there was nothing to write.
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
        self.made().map(|(version, _)| version)
    }

    pub(crate) fn versionstamp(&self) -> Option<Versionstamp> {
        self.made().map(|(_, stamp)| stamp)
    }

    pub(crate) fn cancel(&self) {
        let before = mem::replace(&mut self.lock().phase, Phase::Cancelled);
        if let Phase::Open(tx) = before {
            drop(tx.cancel());
        }
    }

    pub(crate) async fn approximate_size(&self) -> Result<usize> {
        let asked = self.ask(foundationdb::Transaction::get_approximate_size)?;
        let size = self.0.shared.answer(asked, During::Read).await?;
        Ok(usize::try_from(size).unwrap_or(0))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library's transaction, while there is one to be used.
    fn open<'a>(&self, state: &'a State) -> Result<&'a foundationdb::Transaction> {
        self.0.shared.check_open()?;
        match &state.phase {
            Phase::Open(tx) => Ok(tx),
            Phase::Refused(error) => Err(error.clone_without_source()),
            Phase::Committing | Phase::Committed(_) => Err(limits::used_during_commit()),
            Phase::Cancelled => Err(limits::cancelled()),
        }
    }

    fn made(&self) -> Option<(u64, Versionstamp)> {
        match &self.lock().phase {
            Phase::Committed(made) => *made,
            _ => None,
        }
    }

    /// Begins something that is waited for without holding the lock.
    fn ask<F>(&self, ask: impl FnOnce(&foundationdb::Transaction) -> F) -> Result<F> {
        let mut state = self.lock();
        let asked = ask(self.open(&state)?);
        state.has_read = true;
        Ok(asked)
    }

    async fn read<T, F>(&self, ask: impl FnOnce(&foundationdb::Transaction) -> F) -> Result<T>
    where
        F: Future<Output = FdbResult<T>>,
    {
        let asked = self.ask(ask)?;
        let answer = self.0.shared.answer(asked, During::Read).await;
        if let Err(error) = &answer {
            // A read that made no sense is no read, but for one of what is not known before the
            // commit.
            let counts = error.kind() != ErrorKind::Invalid || error.code() == Some(1036);
            if counts {
                self.lock().failed.get_or_insert(error.clone_without_source());
            }
        }
        answer
    }

    /// Writes; what is wrong with that shows at the next read or at the commit. Nothing is written
    /// any more once there is no transaction, as the commit will say.
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

    /// `selector`, or, where it may lead out of the prefix, the place within that it leads to.
    async fn resolved(&self, selector: &KeySelector, isolation: Isolation) -> Result<KeySelector> {
        let prefix = &self.0.shared.prefix;
        if prefix.keeps(selector) {
            return Ok(prefix.selector(selector));
        }
        let key = self.get_key(selector, isolation).await?;
        Ok(prefix.selector(&KeySelector::first_greater_or_equal(key)))
    }

    /// Has what a page is made of conflict with what others write.
    fn note_read(
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
        let noted = self.open(&state)?.add_conflict_range(&from, &to, ConflictRangeType::Read);
        noted.map_err(|error| self.0.shared.error(error, During::Read))
    }

    /// What a commit conflicted about.
    async fn conflicting(
        &self,
        refused: &foundationdb::TransactionCommitError,
    ) -> Box<dyn std::error::Error + Send + Sync> {
        match timer::timeout(self.0.shared.options.patience, refused.conflicting_keys()).await {
            Ok(Some(Ok(ranges))) => {
                let own = |key: &[u8]| self.0.shared.prefix.own(key);
                let ranges = ranges.iter().map(|range| (own(range.begin()), own(range.end())));
                Box::new(Conflicting(ranges.collect()))
            }
            Ok(Some(Err(error))) => Box::new(error),
            Ok(None) => Box::new(self.0.shared.silence(During::Read)),
            Err(error) => Box::new(error),
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// The ranges of keys that others wrote to meanwhile.
#[derive(Debug)]
struct Conflicting(Vec<(Vec<u8>, Vec<u8>)>);

impl fmt::Display for Conflicting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("others wrote to")?;
        for (at, (begin, end)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma} {}..{}", begin.escape_ascii(), end.escape_ascii())?;
        }
        Ok(())
    }
}

impl std::error::Error for Conflicting {}

/// The library would answer from its own key space, which begins with two bytes of 0xff.
fn require_legal(selector: &KeySelector) -> Result<()> {
    if selector.key.as_slice() > MAX_KEY { Err(limits::key_outside_legal_range()) } else { Ok(()) }
}

fn is_snapshot(isolation: Isolation) -> bool {
    isolation == Isolation::Snapshot
}

fn place(selector: &KeySelector) -> foundationdb::KeySelector<'_> {
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
