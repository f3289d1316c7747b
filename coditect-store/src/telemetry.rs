//! Metrics of the store, through the `metrics` facade: nearly free until the program installs a
//! recorder. No label or value contains a key, an id or user data.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `coditect_store_commits_total` | `outcome` | commits: `committed`, or the error, such as `conflict`, `too_old` or `maybe_committed` |
//! | `coditect_store_commit_duration_seconds` | | time from a commit's request until it is durable |
//! | `coditect_store_transactions_total` | `outcome` | transactions of retried closures: `committed`, `refused` by the closure's own error, or the error returned |
//! | `coditect_store_transaction_duration_seconds` | | time of a transaction, with all attempts and delays |
//! | `coditect_store_transaction_attempts` | | attempts of a transaction |
//! | `coditect_store_retries_total` | `reason` | repeated attempts |
//! | `coditect_store_transaction_reads`, `…_rounds` | | reads of a committed transaction, and [rounds](crate::engine::Statistics::rounds) |
//! | `coditect_store_read_bytes_total`, `…_read_records_total` | `entity` | records read, by entity |
//! | `coditect_store_written_bytes_total`, `…_written_records_total` | `entity` | records written, by entity |
//! | `coditect_store_batch_transactions` | | transactions made durable by one sync of the embedded engine |
//! | `coditect_store_sync_duration_seconds` | | time of that sync |
//! | `coditect_store_checkpoint_duration_seconds` | | time of a checkpoint of the embedded engine, from its log to its file |
//! | `coditect_store_checkpoint_bytes_total` | | memory of the checkpointed commits, including overwritten values |
//! | `coditect_store_queued_commits` | | commits left for the next batch of the embedded engine |
//! | `coditect_store_watches` | | pending watches, including recently dropped ones |
//!
//! Durations are in seconds, sizes in bytes of encoded records.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{ErrorKind, Result};

const COMMITS: &str = "coditect_store_commits_total";
const COMMIT_DURATION: &str = "coditect_store_commit_duration_seconds";
const TRANSACTIONS: &str = "coditect_store_transactions_total";
const TRANSACTION_DURATION: &str = "coditect_store_transaction_duration_seconds";
const TRANSACTION_ATTEMPTS: &str = "coditect_store_transaction_attempts";
const RETRIES: &str = "coditect_store_retries_total";
const TRANSACTION_READS: &str = "coditect_store_transaction_reads";
const TRANSACTION_ROUNDS: &str = "coditect_store_transaction_rounds";
const READ_BYTES: &str = "coditect_store_read_bytes_total";
const READ_RECORDS: &str = "coditect_store_read_records_total";
const WRITTEN_BYTES: &str = "coditect_store_written_bytes_total";
const WRITTEN_RECORDS: &str = "coditect_store_written_records_total";
const BATCH: &str = "coditect_store_batch_transactions";
const SYNC_DURATION: &str = "coditect_store_sync_duration_seconds";
const CHECKPOINT_DURATION: &str = "coditect_store_checkpoint_duration_seconds";
const CHECKPOINTED_BYTES: &str = "coditect_store_checkpoint_bytes_total";
const QUEUED: &str = "coditect_store_queued_commits";
const WATCHES: &str = "coditect_store_watches";

/// Describes each metric, with its unit, to the installed recorder. Call it once, after the
/// recorder is installed.
pub fn describe() {
    describe_counter!(COMMITS, Unit::Count, "Commits, by outcome");
    describe_histogram!(COMMIT_DURATION, Unit::Seconds, "Time until a commit is durable");
    describe_counter!(TRANSACTIONS, Unit::Count, "Transactions of retried closures, by outcome");
    describe_histogram!(
        TRANSACTION_DURATION,
        Unit::Seconds,
        "Time of a transaction with all attempts"
    );
    describe_histogram!(TRANSACTION_ATTEMPTS, Unit::Count, "Attempts of a transaction");
    describe_counter!(RETRIES, Unit::Count, "Repeated attempts, by reason");
    describe_histogram!(TRANSACTION_READS, Unit::Count, "Reads of a committed transaction");
    describe_histogram!(
        TRANSACTION_ROUNDS,
        Unit::Count,
        "Rounds of reads of a committed transaction"
    );
    describe_counter!(READ_BYTES, Unit::Bytes, "Encoded records read, by entity");
    describe_counter!(READ_RECORDS, Unit::Count, "Records read, by entity");
    describe_counter!(WRITTEN_BYTES, Unit::Bytes, "Encoded records written, by entity");
    describe_counter!(WRITTEN_RECORDS, Unit::Count, "Records written, by entity");
    describe_histogram!(BATCH, Unit::Count, "Transactions made durable by one sync");
    describe_histogram!(SYNC_DURATION, Unit::Seconds, "Time to make a batch durable");
    describe_histogram!(CHECKPOINT_DURATION, Unit::Seconds, "Time of a checkpoint");
    describe_counter!(CHECKPOINTED_BYTES, Unit::Bytes, "Memory of checkpointed commits");
    describe_gauge!(QUEUED, Unit::Count, "Commits waiting for their batch");
    describe_gauge!(WATCHES, Unit::Count, "Pending watches");
}

/// Records a commit of a transaction with `reads` in `rounds`.
pub(crate) fn committed(outcome: &Result<()>, took: Duration, (reads, rounds): (u64, u64)) {
    counter!(COMMITS, "outcome" => label(outcome.as_ref().err().map(crate::Error::kind)))
        .increment(1);
    if outcome.is_ok() {
        histogram!(COMMIT_DURATION).record(took);
        histogram!(TRANSACTION_READS).record(lossy(reads));
        histogram!(TRANSACTION_ROUNDS).record(lossy(rounds));
    }
}

pub(crate) fn retried(reason: Option<ErrorKind>) {
    counter!(RETRIES, "reason" => label(reason)).increment(1);
}

/// Records the end of a transaction of a retried closure.
pub(crate) fn ran(outcome: RunOutcome, attempts: u32, took: Duration) {
    let outcome = match outcome {
        RunOutcome::Committed => label(None),
        RunOutcome::Refused => "refused",
        RunOutcome::Failed(kind) => label(Some(kind)),
    };
    counter!(TRANSACTIONS, "outcome" => outcome).increment(1);
    histogram!(TRANSACTION_DURATION).record(took);
    histogram!(TRANSACTION_ATTEMPTS).record(attempts);
}

/// The outcome of a transaction; `Refused` is the closure's own error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RunOutcome {
    Committed,
    Refused,
    Failed(ErrorKind),
}

pub(crate) fn read(entity: &'static str, bytes: usize) {
    counter!(READ_RECORDS, "entity" => entity).increment(1);
    counter!(READ_BYTES, "entity" => entity).increment(bytes as u64);
}

pub(crate) fn written(entity: &'static str, bytes: usize) {
    counter!(WRITTEN_RECORDS, "entity" => entity).increment(1);
    counter!(WRITTEN_BYTES, "entity" => entity).increment(bytes as u64);
}

pub(crate) fn synced(took: Duration) {
    histogram!(SYNC_DURATION).record(took);
}

/// Records a checkpoint of commits that take `bytes` of memory.
pub(crate) fn applied(bytes: usize, took: Duration) {
    counter!(CHECKPOINTED_BYTES).increment(bytes as u64);
    histogram!(CHECKPOINT_DURATION).record(took);
}

/// Records a batch, with the number of commits left for the next one.
pub(crate) fn batched(transactions: usize, left: usize) {
    histogram!(BATCH).record(lossy(transactions as u64));
    gauge!(QUEUED).set(lossy(left as u64));
}

pub(crate) fn watching(count: usize) {
    gauge!(WATCHES).set(lossy(count as u64));
}

/// Converts a count to a metric's type.
#[expect(clippy::cast_precision_loss, reason = "counts are below 2 to the 53rd")]
fn lossy(count: u64) -> f64 {
    count as f64
}

/// Returns the label of an outcome. Labels are a public interface: never rename them.
fn label(failure: Option<ErrorKind>) -> &'static str {
    match failure {
        None => "committed",
        Some(ErrorKind::Conflict) => "conflict",
        Some(ErrorKind::TransactionTooOld) => "too_old",
        Some(ErrorKind::MaybeCommitted) => "maybe_committed",
        Some(ErrorKind::Unavailable) => "unavailable",
        Some(ErrorKind::Limit) => "limit",
        Some(ErrorKind::Invalid) => "invalid",
        Some(ErrorKind::Corrupt) => "corrupt",
        Some(ErrorKind::Closed) => "closed",
        Some(_) => "other",
    }
}
