//! The engine: ordered bytes with FoundationDB's transactions.
//!
//! This file is the contract. Two engines implement it: the embedded one, and, with the feature
//! `fdb`, FoundationDB itself. Neither knows an entity, and nothing above this file depends on
//! which of the two it uses.
//!
//! # Invariants
//!
//! - Transactions are strictly serializable. All reads of a transaction see one version; it commits
//!   only if nothing that it read was written since (snapshot reads excepted).
//! - A transaction sees its own writes, also in ranges, through clears and atomic operations.
//! - Visible state is durable: a commit is published after it was synced.
//! - Sizes and misuse are refused as FoundationDB refuses them, with its error codes, at the same
//!   call: an invalid write is reported at the next read or at the commit, not at the write.

mod atomic;
mod cluster;
mod codes;
mod embedded;
mod faults;
#[cfg(feature = "fdb")]
mod foundationdb;
mod key_range;
pub(crate) mod limits;
#[cfg(any(feature = "fdb", test))]
mod prefix;
mod process;
mod range;
mod statistics;
pub(crate) mod timer;
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
pub(crate) use embedded::names;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use embedded::testing::fuzzing::{database_file, log_segment};
pub use faults::{Fault, Faults};
pub use key_range::KeyRange;
pub use limits::{KEY_SIZE_LIMIT, LIFETIME, TRANSACTION_SIZE_LIMIT, VALUE_SIZE_LIMIT, WATCH_LIMIT};
pub(crate) use limits::{conflict, maybe_committed};
pub use range::{
    CheckedRow, KeySelector, KeyValue, Order, RangePage, RangeQuery, RangeStream, Stopped, ViewPage,
};
pub use statistics::Statistics;
pub use versionstamp::Versionstamp;
pub use view::{Consistency, FileState, View, ViewStream};
pub use watch::Watch;

use self::statistics::{Counts, Read};
use crate::{Result, telemetry};

/// A database: a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    engine: Engine,
    /// Tag of transactions at batch priority; `None` at the default priority.
    #[cfg_attr(
        not(feature = "fdb"),
        expect(dead_code, reason = "the embedded engine has no priorities")
    )]
    background: Option<&'static str>,
    faults: Option<Faults>,
}

#[derive(Clone, Debug)]
enum Engine {
    Embedded(embedded::Embedded),
    #[cfg(feature = "fdb")]
    Cluster(foundationdb::Cluster),
}

/// One attempt at an atomic unit of reads and writes. A handle that is cheap to clone; its clones
/// are the same transaction, and its reads may run concurrently. Dropping the last one without a
/// [commit](Self::commit) has no effect.
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

/// Dispatches a call to either engine: `on!(self, tx => …)`.
macro_rules! on {
    ($transaction:expr, $tx:ident => $call:expr) => {
        match &$transaction.attempt {
            Attempt::Embedded($tx) => $call,
            #[cfg(feature = "fdb")]
            Attempt::Cluster($tx) => $call,
        }
    };
}

/// A view of a transaction whose reads do not conflict with later writes: see
/// [`Transaction::snapshot`].
#[derive(Clone, Copy, Debug)]
pub struct Snapshot<'a>(&'a Transaction);

/// Whether a read is checked for conflicts at the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    Serializable,
    Snapshot,
}

impl Database {
    /// Opens the embedded engine in the folder `path`, which is created if necessary.
    ///
    /// # Errors
    ///
    /// Returns `Unavailable` if another process has the store open or the folder cannot be used,
    /// `Corrupt` if the file is damaged or not a store, `NewerFormat` if a newer version of this
    /// program wrote it. None of these changes a file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, &Options::default())
    }

    /// Opens it as [`open`](Self::open) does, with options.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Self> {
        embedded::Embedded::open(path.as_ref(), options).map(Engine::Embedded).map(Self::of)
    }

    /// Opens an embedded engine in memory, whose content is dropped with the last handle.
    pub fn memory() -> Result<Self> {
        Self::memory_with(&Options::default())
    }

    /// Opens it as [`memory`](Self::memory) does, with options.
    pub fn memory_with(options: &Options) -> Result<Self> {
        embedded::Embedded::memory(options).map(Engine::Embedded).map(Self::of)
    }

    fn of(engine: Engine) -> Self {
        Self { engine, background: None, faults: None }
    }

    /// Returns the same database with transactions at batch priority: a cluster runs them when it
    /// has capacity, and its operators can throttle them by `tag` (at most 16 bytes). The embedded
    /// engine runs all transactions in order of arrival.
    #[must_use]
    pub fn with_batch_priority(&self, tag: &'static str) -> Self {
        Self { background: Some(tag), ..self.clone() }
    }

    /// Returns the engine's name: `embedded`, `memory` or `foundationdb`.
    pub fn engine(&self) -> &'static str {
        match &self.engine {
            Engine::Embedded(engine) => engine.name(),
            #[cfg(feature = "fdb")]
            Engine::Cluster(_) => "foundationdb",
        }
    }

    /// Begins a transaction. Its reads see the state at its first read, or at
    /// [`read_version`](Transaction::read_version) if that is called before.
    pub fn begin(&self) -> Transaction {
        let (attempt, simulates_round_trips) = match &self.engine {
            Engine::Embedded(engine) => {
                (Attempt::Embedded(engine.begin()), engine.simulates_round_trips())
            }
            #[cfg(feature = "fdb")]
            Engine::Cluster(cluster) => (Attempt::Cluster(cluster.begin(self.background)), false),
        };
        let counts = Arc::new(Counts::new(simulates_round_trips));
        Transaction { attempt, counts, faults: self.faults.clone() }
    }

    /// Returns whether the engine can commit.
    ///
    /// # Errors
    ///
    /// Returns `Closed`, with its cause, if the engine has stopped after a failure or was closed:
    /// it must be opened again. Returns `Unavailable` if the disk is full: reads and commits that
    /// free more than they write succeed, and the others again once there is space. Sends no
    /// request to a cluster.
    pub fn check_open(&self) -> Result<()> {
        match &self.engine {
            Engine::Embedded(engine) => engine.check_open(),
            #[cfg(feature = "fdb")]
            Engine::Cluster(_) => Ok(()),
        }
    }

    /// Stops the engine: queued commits complete, and every later call returns `Closed`, also on
    /// transactions that have begun. The folder is free for another process then.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Embedded(engine) => engine.close().await,
            #[cfg(feature = "fdb")]
            Engine::Cluster(cluster) => cluster.close(),
        }
    }
}

impl Transaction {
    /// Returns the value of `key`.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.read(key, Isolation::Serializable).await
    }

    /// Returns the key that `selector` resolves to: `b""` before the first, `b"\xff"` after the
    /// last.
    pub async fn get_key(&self, selector: &KeySelector) -> Result<Vec<u8>> {
        self.read_key(selector, Isolation::Serializable).await
    }

    /// Returns one page of a range. `limit` and `target_bytes` apply after this transaction's own
    /// writes are merged in. Only the range that was read can conflict.
    pub async fn get_range(&self, query: &RangeQuery) -> Result<RangePage> {
        self.read_range(query, Isolation::Serializable).await
    }

    /// Returns the whole range, page by page.
    pub fn stream(&self, query: RangeQuery) -> RangeStream {
        RangeStream::new(self.clone(), query, Isolation::Serializable)
    }

    /// Returns the same transaction with reads that do not conflict with later writes. They see
    /// this transaction's own writes.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot(self)
    }

    /// Sets `key` to `value`.
    pub fn set(&self, key: &[u8], value: &[u8]) {
        self.counts.wrote(key.len() + value.len());
        on!(self, tx => tx.set(key, value));
    }

    /// Clears `key`.
    pub fn clear(&self, key: &[u8]) {
        self.counts.wrote(key.len());
        on!(self, tx => tx.clear(key));
    }

    /// Clears the keys from `begin` (inclusive) to `end` (exclusive). `begin` after `end` is
    /// `Invalid`.
    pub fn clear_range(&self, begin: &[u8], end: &[u8]) {
        self.counts.wrote(begin.len() + end.len());
        on!(self, tx => tx.clear_range(begin, end));
    }

    /// Applies an atomic operation. It reads nothing, so it does not conflict with other
    /// operations.
    pub fn atomic(&self, op: AtomicOp, key: &[u8], operand: &[u8]) {
        self.counts.wrote(key.len() + operand.len());
        on!(self, tx => tx.atomic(op, key, operand));
    }

    /// Sets the key `prefix` ‖ versionstamp ‖ `suffix` to `value`: such keys sort in commit order.
    /// Reading where the key may be is `Invalid` (1036) until the commit.
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

    /// Adds a read conflict range: the commit fails if a key from `begin` (inclusive) to `end`
    /// (exclusive) is written in between.
    pub fn add_read_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        on!(self, tx => tx.add_read_conflict_range(begin, end))
    }

    /// Adds a write conflict range: transactions that have read a key from `begin` (inclusive) to
    /// `end` (exclusive) fail.
    pub fn add_write_conflict_range(&self, begin: &[u8], end: &[u8]) -> Result<()> {
        on!(self, tx => tx.add_write_conflict_range(begin, end))
    }

    /// Returns the version that all reads see.
    #[cfg_attr(
        not(feature = "fdb"),
        expect(clippy::unused_async, reason = "asynchronous on a cluster")
    )]
    pub async fn read_version(&self) -> Result<u64> {
        self.inject_fault(faults::Step::Read)?;
        match &self.attempt {
            Attempt::Embedded(tx) => tx.read_version(),
            #[cfg(feature = "fdb")]
            Attempt::Cluster(tx) => tx.read_version().await,
        }
    }

    /// Sets the read version, one that [`read_version`](Self::read_version) or
    /// [`committed_version`](Self::committed_version) returned within the last five seconds. An
    /// older one is `TransactionTooOld`, a future one `Unavailable` (1009); both are reported at
    /// the first read. Has no effect once the transaction has read.
    pub fn set_read_version(&self, version: u64) {
        on!(self, tx => tx.set_read_version(version));
    }

    /// Watches `key` for a change after this transaction's commit: the watch is active from the
    /// commit on, and compares with the value that this transaction read or wrote. Dropping it
    /// cancels it.
    ///
    /// # Errors
    ///
    /// Returns `Limit` (1032) if [`WATCH_LIMIT`] watches are active.
    pub async fn watch(&self, key: &[u8]) -> Result<Watch> {
        self.inject_fault(faults::Step::Read)?;
        match &self.attempt {
            Attempt::Embedded(tx) => tx.watch(key).await,
            #[cfg(feature = "fdb")]
            Attempt::Cluster(tx) => tx.watch(key).await,
        }
    }

    /// Commits atomically. When it returns `Ok`, the writes are durable and visible to every
    /// transaction that begins later. A transaction without writes always succeeds, unless a read
    /// failed.
    ///
    /// If the future is dropped, the outcome is unknown.
    ///
    /// # Errors
    ///
    /// Returns `Conflict`, `TransactionTooOld`, `MaybeCommitted`, `Limit`, `Invalid` (also for a
    /// second commit of the same transaction: 2017), `Unavailable` or `Closed`.
    pub async fn commit(&self) -> Result<()> {
        let started = Instant::now();
        let outcome = match &self.faults {
            Some(faults) => faults.commit(self).await,
            None => self.commit_now().await,
        };
        let Statistics { reads, rounds, .. } = self.statistics();
        telemetry::committed(&outcome, started.elapsed(), (reads, rounds));
        outcome
    }

    async fn commit_now(&self) -> Result<()> {
        on!(self, tx => tx.commit().await)
    }

    /// Returns the reads and writes so far.
    pub fn statistics(&self) -> Statistics {
        self.counts.snapshot()
    }

    /// Returns the version of the commit; `None` before, and for a transaction without writes.
    /// Versions increase, with gaps.
    pub fn committed_version(&self) -> Option<u64> {
        on!(self, tx => tx.committed_version())
    }

    /// Returns the versionstamp of the commit; `None` before, and for a transaction without writes.
    pub fn versionstamp(&self) -> Option<Versionstamp> {
        on!(self, tx => tx.versionstamp())
    }

    /// Cancels the transaction: its watches and all later calls return `Closed` (1025).
    pub fn cancel(&self) {
        on!(self, tx => tx.cancel());
    }

    /// Returns the size so far, in bytes, as [`TRANSACTION_SIZE_LIMIT`] counts it: written keys and
    /// values, and conflict ranges, of which overlapping ones may count separately. Values read do
    /// not count.
    #[cfg_attr(
        not(feature = "fdb"),
        expect(clippy::unused_async, reason = "asynchronous on a cluster")
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
        self.inject_fault(faults::Step::Read)?;
        let value = on!(self, tx => tx.get(key, isolation).await)?;
        if let Some(value) = &value {
            read.found(1, key.len() + value.len());
        }
        Ok(value)
    }

    async fn read_key(&self, selector: &KeySelector, isolation: Isolation) -> Result<Vec<u8>> {
        let _read = self.begin_read().await;
        self.inject_fault(faults::Step::Read)?;
        on!(self, tx => tx.get_key(selector, isolation).await)
    }

    async fn read_range(&self, query: &RangeQuery, isolation: Isolation) -> Result<RangePage> {
        let read = self.begin_read().await;
        self.inject_fault(faults::Step::Read)?;
        let page = on!(self, tx => tx.get_range(query, isolation).await)?;
        let bytes = page.rows.iter().map(|row| row.key.len() + row.value.len()).sum();
        read.found(page.rows.len(), bytes);
        Ok(page)
    }

    async fn begin_read(&self) -> Read<'_> {
        let read = self.counts.begin_read();
        if self.counts.simulates_round_trips() {
            tokio::task::yield_now().await;
        } else {
            consume_read_budget().await;
        }
        read
    }

    /// Fails if a fault is planned for this step.
    fn inject_fault(&self, step: faults::Step) -> Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults.at(step))
    }
}

impl Snapshot<'_> {
    /// Reads as [`Transaction::get`] does.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.0.read(key, Isolation::Snapshot).await
    }

    /// Reads as [`Transaction::get_key`] does.
    pub async fn get_key(&self, selector: &KeySelector) -> Result<Vec<u8>> {
        self.0.read_key(selector, Isolation::Snapshot).await
    }

    /// Reads as [`Transaction::get_range`] does.
    pub async fn get_range(&self, query: &RangeQuery) -> Result<RangePage> {
        self.0.read_range(query, Isolation::Snapshot).await
    }

    /// Reads as [`Transaction::stream`] does.
    pub fn stream(&self, query: RangeQuery) -> RangeStream {
        RangeStream::new(self.0.clone(), query, Isolation::Snapshot)
    }
}

/// Yields to other tasks from time to time: reads of the embedded engine never wait, and a long
/// scan must not occupy a thread of the runtime.
///
/// tokio's budget is 128 steps, and a task switch costs as much as several reads, so several reads
/// count as one step.
async fn consume_read_budget() {
    const READS_PER_STEP: u8 = 4;
    thread_local!(static READS: Cell<u8> = const { Cell::new(0) });
    let reads = READS.get() + 1;
    READS.set(reads % READS_PER_STEP);
    if reads == READS_PER_STEP {
        tokio::task::coop::consume_budget().await;
    }
}
