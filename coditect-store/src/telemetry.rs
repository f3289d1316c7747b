//! What the store tells of itself to whoever listens, by the `metrics` facade: it costs next to
//! nothing until the program installs a recorder. No metric holds a key, an id or a value of anybody's.
//!
//! | metric | labels | |
//! |---|---|---|
//! | `coditect_store_commits_total` | `outcome` | commits: `committed`, `conflict`, `too_old`, `maybe_committed`, or why else not |
//! | `coditect_store_commit_duration_seconds` | | how long a commit took, until it was durable |
//! | `coditect_store_transactions_total` | `outcome` | runs of closures: `committed`, `refused` by the closure's own answer, or the error that was returned |
//! | `coditect_store_transaction_duration_seconds` | | how long a run took, with all its attempts and waits |
//! | `coditect_store_transaction_attempts` | | how many attempts it took |
//! | `coditect_store_retries_total` | `reason` | attempts that were made again |
//! | `coditect_store_transaction_reads`, `…_rounds` | | reads of a transaction that was committed, and [rounds](crate::engine::Statistics::rounds) |
//! | `coditect_store_read_bytes_total`, `…_read_records_total` | `entity` | records that were read, of each space |
//! | `coditect_store_written_bytes_total`, `…_written_records_total` | `entity` | records that were written, of each space |
//! | `coditect_store_batch_transactions` | | transactions that the embedded engine made durable by one sync |
//! | `coditect_store_sync_duration_seconds` | | how long that took |
//! | `coditect_store_checkpoint_duration_seconds` | | how long the embedded engine took to move what was committed from its log to its file |
//! | `coditect_store_checkpoint_bytes_total` | | how much that was in memory at the most, with what was written over |
//! | `coditect_store_queued_commits` | | commits that were left for the next batch when the embedded engine took its last |
//! | `coditect_store_watches` | | watches that wait, those that were abandoned lately among them |
//!
//! Durations are in seconds, sizes in bytes of encoded records.

use std::time::Duration;

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{ErrorKind, Result, engine::Statistics};

const COMMITS: &str = "coditect_store_commits_total";
const COMMIT_DURATION: &str = "coditect_store_commit_duration_seconds";
const RUNS: &str = "coditect_store_transactions_total";
const RUN_DURATION: &str = "coditect_store_transaction_duration_seconds";
const RUN_ATTEMPTS: &str = "coditect_store_transaction_attempts";
const RETRIES: &str = "coditect_store_retries_total";
const TRANSACTION_READS: &str = "coditect_store_transaction_reads";
const TRANSACTION_ROUNDS: &str = "coditect_store_transaction_rounds";
const READ_BYTES: &str = "coditect_store_read_bytes_total";
const READ_RECORDS: &str = "coditect_store_read_records_total";
const WRITTEN_BYTES: &str = "coditect_store_written_bytes_total";
const WRITTEN_RECORDS: &str = "coditect_store_written_records_total";
const BATCH: &str = "coditect_store_batch_transactions";
const SYNC_DURATION: &str = "coditect_store_sync_duration_seconds";
const APPLY_DURATION: &str = "coditect_store_checkpoint_duration_seconds";
const APPLIED_BYTES: &str = "coditect_store_checkpoint_bytes_total";
const QUEUED: &str = "coditect_store_queued_commits";
const WATCHES: &str = "coditect_store_watches";

/// Tells the installed recorder what each metric is, and in which unit. To be called once, after it
/// was installed.
pub fn describe() {
    describe_counter!(COMMITS, Unit::Count, "Commits, by their outcome");
    describe_histogram!(COMMIT_DURATION, Unit::Seconds, "Time from asking to the durable commit");
    describe_counter!(RUNS, Unit::Count, "Runs of closures, by what they came to");
    describe_histogram!(RUN_DURATION, Unit::Seconds, "Time of a run with all its attempts");
    describe_histogram!(RUN_ATTEMPTS, Unit::Count, "Attempts of a run");
    describe_counter!(RETRIES, Unit::Count, "Attempts that were made again, by the reason");
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
    describe_histogram!(
        APPLY_DURATION,
        Unit::Seconds,
        "Time to move commits from the log to the file"
    );
    describe_counter!(
        APPLIED_BYTES,
        Unit::Bytes,
        "Commits moved from the log to the file, in memory"
    );
    describe_gauge!(QUEUED, Unit::Count, "Commits that wait for their batch");
    describe_gauge!(WATCHES, Unit::Count, "Watches that wait for their keys to change");
}

pub(crate) fn committed(outcome: &Result<()>, took: Duration, statistics: Statistics) {
    counter!(COMMITS, "outcome" => label(outcome.as_ref().err().map(crate::Error::kind)))
        .increment(1);
    if outcome.is_ok() {
        histogram!(COMMIT_DURATION).record(took);
        histogram!(TRANSACTION_READS).record(lossy(statistics.reads));
        histogram!(TRANSACTION_ROUNDS).record(lossy(statistics.rounds));
    }
}

pub(crate) fn retried(reason: Option<ErrorKind>) {
    counter!(RETRIES, "reason" => label(reason)).increment(1);
}

/// A run came to its end.
pub(crate) fn ran(outcome: RunOutcome, attempts: u32, took: Duration) {
    let outcome = match outcome {
        RunOutcome::Committed => label(None),
        RunOutcome::Refused => "refused",
        RunOutcome::Failed(kind) => label(Some(kind)),
    };
    counter!(RUNS, "outcome" => outcome).increment(1);
    histogram!(RUN_DURATION).record(took);
    histogram!(RUN_ATTEMPTS).record(attempts);
}

/// What a run came to; `Refused` is the closure's own answer.
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

/// What takes so many bytes of memory was moved from the log to the file.
pub(crate) fn applied(bytes: usize, took: Duration) {
    counter!(APPLIED_BYTES).increment(bytes as u64);
    histogram!(APPLY_DURATION).record(took);
}

/// A batch was taken, and so many commits are left for the next.
pub(crate) fn batched(transactions: usize, left: usize) {
    histogram!(BATCH).record(lossy(transactions as u64));
    gauge!(QUEUED).set(lossy(left as u64));
}

pub(crate) fn watching(count: usize) {
    gauge!(WATCHES).set(lossy(count as u64));
}

/// A count as metrics have it.
#[expect(clippy::cast_precision_loss, reason = "no count here is near 2 to the 53rd")]
fn lossy(count: u64) -> f64 {
    count as f64
}

/// The label of an outcome. Part of the metrics' interface: never renamed.
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
