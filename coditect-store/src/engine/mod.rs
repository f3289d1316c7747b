//! The engine: ordered bytes under transactions that mean exactly what FoundationDB's mean.
//!
//! This file is the contract. Two engines stand behind it: the embedded one, and, with the feature
//! `fdb`, FoundationDB itself. Neither knows an entity, and nobody above this file can tell which of
//! the two it works on.
//!
//! What stays true:
//!
//! - Transactions are strictly serializable. All reads of one see one version; it commits only if
//!   nothing that it read was written since (snapshot reads excepted).
//! - A transaction sees its own writes, in ranges, through clears and atomic operations too.
//! - What is visible is durable: a commit is published after it was synced.
//! - Sizes and misuse are refused as FoundationDB refuses them, with its error codes, at the call
//!   where it does: a bad write shows at the next read or at the commit, not at the write.

mod atomic;
mod cluster;
mod codes;
#[cfg(feature = "conformance")]
pub mod conformance;
mod embedded;
mod faults;
#[cfg(feature = "fdb")]
mod foundationdb;
pub(crate) mod limits;
#[cfg(any(feature = "fdb", test))]
mod prefix;
mod range;
mod statistics;
mod versionstamp;
mod view;
mod watch;

#[cfg(test)]
mod tests;

use std::{cell::Cell, path::Path, sync::Arc, time::Instant};

pub use atomic::AtomicOp;
pub use cluster::{CLUSTER_FILE_VARIABLE, ClusterOptions, cluster_file};
pub(crate) use codes::{is_passing, may_be_in_flight};
pub use embedded::Options;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use embedded::fuzzing::{database_file, log_segment};
pub(crate) use embedded::names;
pub use faults::{Fault, Faults};
pub use limits::{KEY_SIZE_LIMIT, LIFETIME, TRANSACTION_SIZE_LIMIT, VALUE_SIZE_LIMIT, WATCH_LIMIT};
pub(crate) use limits::{conflict, maybe_committed};
pub use range::{KeySelector, KeyValue, Order, RangePage, RangeQuery, RangeStream, Stopped};
pub use statistics::Statistics;
pub use versionstamp::Versionstamp;
pub use view::{CheckedRow, Consistency, FileState, View, ViewPage, ViewStream};
pub use watch::Watch;

use self::statistics::{Counts, Read};
use crate::{Result, telemetry};

/// A database: a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    engine: Engine,
    /// What its work is called, if that can wait.
    #[cfg_attr(not(feature = "fdb"), expect(dead_code, reason = "the other engine has no queue"))]
    background: Option<&'static str>,
    faults: Option<Faults>,
}

#[derive(Clone, Debug)]
enum Engine {
    Embedded(embedded::Embedded),
    #[cfg(feature = "fdb")]
    Cluster(foundationdb::Cluster),
}

/// One attempt at reading and writing all or nothing. A handle that is cheap to clone; all its
/// clones are the same transaction, and its reads may run together. Dropping the last one without
/// a [commit](Self::commit) leaves no trace.
#[derive(Clone, Debug)]
pub struct Transaction {
    attempt: Attempt,
    counts: Arc<Counts>,
    faults: Option<Faults>,
}

#[derive(Clone, Debug)]
enum Attempt {
    Embedded(embedded::Transaction),
    #[cfg(feature = "fdb")]
    Cluster(foundationdb::Transaction),
}

/// What is the same on whichever engine: `on!(self, tx => …)`.
macro_rules! on {
    ($transaction:expr, $tx:ident => $asked:expr) => {
        match &$transaction.attempt {
            Attempt::Embedded($tx) => $asked,
            #[cfg(feature = "fdb")]
            Attempt::Cluster($tx) => $asked,
        }
    };
}

/// A view of a transaction whose reads don't conflict with what others write: see
/// [`Transaction::snapshot`].
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a>(&'a Transaction);

/// Whether a read is checked at the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    Serializable,
    Snapshot,
}

impl Database {
    /// Opens the embedded engine in the folder `path`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// `Unavailable` if another process has it open or the folder cannot be used, `Corrupt` if the
    /// file there is damaged or not ours, `NewerFormat` if a newer version of this program wrote
    /// it. Nothing is overwritten then.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Options::default())
    }

    /// As [`open`](Self::open), with options.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        embedded::Embedded::open(path.as_ref(), options).map(Engine::Embedded).map(Self::of)
    }

    /// An embedded engine that keeps all in memory and forgets it when the last handle goes.
    pub fn memory() -> Result<Self> {
        Self::memory_with(&Options::default())
    }

    /// As [`memory`](Self::memory), with options.
    pub fn memory_with(options: &Options) -> Result<Self> {
        embedded::Embedded::memory(options).map(Engine::Embedded).map(Self::of)
    }

    fn of(engine: Engine) -> Self {
        Self { engine, background: None, faults: None }
    }

    /// The same database, whose transactions are work that can wait: a cluster does it when it has
    /// nothing else to do, and its operators know it, and may slow it down, by `tag` (at most 16 bytes).
    /// The embedded engine does all in the order of arrival.
    #[must_use]
    pub fn in_background(&self, tag: &'static str) -> Self {
        Self { background: Some(tag), ..self.clone() }
    }

    /// The engine's name: `embedded`, or `memory` if it keeps nothing; `foundationdb`.
    pub fn engine(&self) -> &'static str {
        match &self.engine {
            Engine::Embedded(engine) => engine.name(),
            #[cfg(feature = "fdb")]
            Engine::Cluster(_) => "foundationdb",
        }
    }

    /// Begins a transaction. Its reads see the state at its first read, or at
    /// [`read_version`](Transaction::read_version) if that is asked for before.
    pub fn begin(&self) -> Transaction {
        let (attempt, has_round_trips) = match &self.engine {
            Engine::Embedded(engine) => {
                (Attempt::Embedded(engine.begin()), engine.has_round_trips())
            }
            #[cfg(feature = "fdb")]
            Engine::Cluster(cluster) => (Attempt::Cluster(cluster.begin(self.background)), false),
        };
        let counts = Arc::new(Counts::new(has_round_trips));
        Transaction { attempt, counts, faults: self.faults.clone() }
    }

    /// Returns whether the engine can commit.
    ///
    /// # Errors
    ///
    /// `Closed`, with its cause, if it has stopped after a failure or been closed: it has to be opened
    /// again. `Unavailable` if the disk is full: reads are answered, and commits that free more than they
    /// write; the others are again once there is space. A cluster is not asked.
    pub fn check_open(&self) -> Result<()> {
        match &self.engine {
            Engine::Embedded(engine) => engine.check_open(),
            #[cfg(feature = "fdb")]
            Engine::Cluster(_) => Ok(()),
        }
    }

    /// Stops the engine: what waits is committed, and everything asked of it from then on answers
    /// `Closed`, transactions that have begun included. The folder is free for another process then.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Embedded(engine) => engine.close().await,
            #[cfg(feature = "fdb")]
            Engine::Cluster(cluster) => cluster.close(),
        }
    }
}

impl Transaction {
    /// The value of `key`, or `None`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read(key, Isolation::Serializable).await
    }

    /// The key that `selector` means: `b""` before the first, `b"\xff"` after the last.
    pub async fn get_key(&self, selector: &KeySelector) -> Result<Vec<u8>> {
        self.read_key(selector, Isolation::Serializable).await
    }

    /// One page of a range. `limit` and `target_bytes` count what is left after this transaction's
    /// own writes are merged in. What was really read is what conflicts.
    pub async fn get_range(&self, query: &RangeQuery) -> Result<RangePage> {
        self.read_range(query, Isolation::Serializable).await
    }

    /// The whole of a range, page by page.
    pub fn stream(&self, query: RangeQuery) -> RangeStream {
        RangeStream::new(self.clone(), query, Isolation::Serializable)
    }

    /// The same transaction with reads that don't conflict with what others write. They see this
    /// transaction's own writes as other reads do.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot(self)
    }

    /// Sets `key` to `value`.
    pub fn set(&self, key: &[u8], value: &[u8]) {
        self.counts.wrote(key.len() + value.len());
        on!(self, tx => tx.set(key, value));
    }

    /// Removes `key`, if it is there.
    pub fn clear(&self, key: &[u8]) {
        self.counts.wrote(key.len());
        on!(self, tx => tx.clear(key));
    }

    /// Removes all keys from `begin` up to, and without, `end`. `begin` past `end` is `Invalid`.
    pub fn clear_range(&self, begin: &[u8], end: &[u8]) {
        self.counts.wrote(begin.len() + end.len());
        on!(self, tx => tx.clear_range(begin, end));
    }

    /// Applies an atomic operation: no read, so no conflict with others that do the same.
    pub fn atomic(&self, op: AtomicOp, key: &[u8], operand: &[u8]) {
        self.counts.wrote(key.len() + operand.len());
        on!(self, tx => tx.atomic(op, key, operand));
    }

    /// Sets the key `prefix` ‖ versionstamp ‖ `suffix` to `value`: keys so made sort in commit
    /// order. Reading where it may come to lie is `Invalid` (1036) until the commit.
    pub fn set_versionstamped_key(&self, prefix: &[u8], suffix: &[u8], value: &[u8]) {
        let key = versionstamp::template(prefix, suffix);
        self.atomic(AtomicOp::SetVersionstampedKey, &key, value);
    }

    /// Sets `key` to `prefix` ‖ versionstamp ‖ `suffix`. Reading it is `Invalid` (1036) until the
    /// commit.
    pub fn set_versionstamped_value(&self, key: &[u8], prefix: &[u8], suffix: &[u8]) {
        let value = versionstamp::template(prefix, suffix);
        self.atomic(AtomicOp::SetVersionstampedValue, key, &value);
    }

    /// Makes the commit fail if a key from `begin` up to, and without, `end` is written meanwhile,
    /// as if it had been read.
    pub fn add_read_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        on!(self, tx => tx.add_read_conflict_range(begin, end))
    }

    /// Makes others fail that have read a key from `begin` up to, and without, `end`, as if it had
    /// been written.
    pub fn add_write_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        on!(self, tx => tx.add_write_conflict_range(begin, end))
    }

    /// The version that all reads see.
    #[cfg_attr(
        not(feature = "fdb"),
        expect(clippy::unused_async, reason = "this engine answers at once; a cluster does not")
    )]
    pub async fn read_version(&self) -> Result<u64> {
        self.may_fail(faults::Step::Read)?;
        match &self.attempt {
            Attempt::Embedded(tx) => tx.read_version(),
            #[cfg(feature = "fdb")]
            Attempt::Cluster(tx) => tx.read_version().await,
        }
    }

    /// Reads at `version`, one that [`read_version`](Self::read_version) or
    /// [`committed_version`](Self::committed_version) gave within the last five seconds. Older is
    /// `TransactionTooOld`, a future one is refused (1009) with `Unavailable`; both show at the first read.
    /// Has no effect once the transaction has read.
    pub fn set_read_version(&self, version: u64) {
        on!(self, tx => tx.set_read_version(version));
    }

    /// Waits for `key` to change after this transaction's commit: the watch becomes live with the
    /// commit and compares with what this transaction saw, or wrote. Dropping it cancels it.
    ///
    /// # Errors
    ///
    /// `Limit` (1032) if [`WATCH_LIMIT`] of them are live.
    pub async fn watch(&self, key: &[u8]) -> Result<Watch> {
        self.may_fail(faults::Step::Read)?;
        match &self.attempt {
            Attempt::Embedded(tx) => tx.watch(key).await,
            #[cfg(feature = "fdb")]
            Attempt::Cluster(tx) => tx.watch(key).await,
        }
    }

    /// Writes all or nothing; when it returns `Ok`, it is on disk and visible to all that begin
    /// from then on. A transaction that has written nothing always succeeds, unless a read failed.
    ///
    /// If the future is dropped the outcome is unknown.
    ///
    /// # Errors
    ///
    /// `Conflict`, `TransactionTooOld`, `MaybeCommitted`, `Limit`, `Invalid` (also a second time on the same
    /// transaction: 2017), `Unavailable`, `Closed`.
    pub async fn commit(&self) -> Result<()> {
        let started = Instant::now();
        let outcome = match &self.faults {
            Some(faults) => faults.commit(self).await,
            None => self.commit_now().await,
        };
        telemetry::committed(&outcome, started.elapsed(), self.statistics());
        outcome
    }

    async fn commit_now(&self) -> Result<()> {
        on!(self, tx => tx.commit().await)
    }

    /// What it has read and written so far.
    pub fn statistics(&self) -> Statistics {
        self.counts.so_far()
    }

    /// The version at which it was committed; `None` before, and for one that wrote nothing.
    /// Versions grow, with gaps.
    pub fn committed_version(&self) -> Option<u64> {
        on!(self, tx => tx.committed_version())
    }

    /// The versionstamp that its commit got; `None` before, and for one that wrote nothing.
    pub fn versionstamp(&self) -> Option<Versionstamp> {
        on!(self, tx => tx.versionstamp())
    }

    /// Gives it up: watches made by it and everything it is asked from now on answer `Closed`
    /// (1025).
    pub fn cancel(&self) {
        on!(self, tx => tx.cancel());
    }

    /// Its size so far, in bytes, as [`TRANSACTION_SIZE_LIMIT`] counts it: keys and values written
    /// and conflict ranges, of which those that overlap may count for each. Values read don't count.
    #[cfg_attr(
        not(feature = "fdb"),
        expect(clippy::unused_async, reason = "this engine answers at once; a cluster does not")
    )]
    pub async fn approximate_size(&self) -> Result<usize> {
        match &self.attempt {
            Attempt::Embedded(tx) => Ok(tx.approximate_size()),
            #[cfg(feature = "fdb")]
            Attempt::Cluster(tx) => tx.approximate_size().await,
        }
    }

    async fn read(&self, key: &[u8], isolation: Isolation) -> Result<Option<Vec<u8>>> {
        let read = self.begin_read().await;
        self.may_fail(faults::Step::Read)?;
        let value = on!(self, tx => tx.get(key, isolation).await)?;
        if let Some(value) = &value {
            read.found(1, key.len() + value.len());
        }
        Ok(value)
    }

    async fn read_key(&self, selector: &KeySelector, isolation: Isolation) -> Result<Vec<u8>> {
        let _read = self.begin_read().await;
        self.may_fail(faults::Step::Read)?;
        on!(self, tx => tx.get_key(selector, isolation).await)
    }

    async fn read_range(&self, query: &RangeQuery, isolation: Isolation) -> Result<RangePage> {
        let read = self.begin_read().await;
        self.may_fail(faults::Step::Read)?;
        let page = on!(self, tx => tx.get_range(query, isolation).await)?;
        let bytes = page.rows.iter().map(|row| row.key.len() + row.value.len()).sum();
        read.found(page.rows.len(), bytes);
        Ok(page)
    }

    async fn begin_read(&self) -> Read<'_> {
        let read = self.counts.begin_read();
        if self.counts.has_round_trips() {
            tokio::task::yield_now().await;
        } else {
            give_way().await;
        }
        read
    }

    /// Fails where it was asked to.
    fn may_fail(&self, step: faults::Step) -> Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.at(step))
    }
}

impl Snapshot<'_> {
    /// As [`Transaction::get`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.read(key, Isolation::Snapshot).await
    }

    /// As [`Transaction::get_key`].
    pub async fn get_key(&self, selector: &KeySelector) -> Result<Vec<u8>> {
        self.0.read_key(selector, Isolation::Snapshot).await
    }

    /// As [`Transaction::get_range`].
    pub async fn get_range(&self, query: &RangeQuery) -> Result<RangePage> {
        self.0.read_range(query, Isolation::Snapshot).await
    }

    /// As [`Transaction::stream`].
    pub fn stream(&self, query: RangeQuery) -> RangeStream {
        RangeStream::new(self.0.clone(), query, Isolation::Snapshot)
    }
}

/// Lets others run now and then: the embedded engine never waits by itself, and a long scan must
/// not keep a thread of the runtime to itself.
///
/// The runtime gives a task 128 steps before others have their turn, and a turn costs as much as
/// some reads: so a few reads are a step.
async fn give_way() {
    const READS_A_STEP: u8 = 4;
    thread_local!(static READS: Cell<u8> = const { Cell::new(0) });
    let reads = READS.get() + 1;
    READS.set(reads % READS_A_STEP);
    if reads == READS_A_STEP {
        tokio::task::coop::consume_budget().await;
    }
}
