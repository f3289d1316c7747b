//! The conformance suite: a case for each clause of the contract, and for each known fault of other
//! engines. It runs on every engine and in every mode, without exemptions.
//!
//! The suite is available with the feature `conformance`. A crate that opens or wraps a database in
//! its own way runs each case as a test:
//!
//! ```
//! use coditect_store::{
//!     conformance_suite,
//!     engine::{Database, Faults},
//! };
//!
//! fn behind_faults() -> Database {
//!     Database::memory().unwrap().with_faults(Faults::default())
//! }
//! conformance_suite!(faults, behind_faults);
//! conformance_suite!(faults_on_threads, behind_faults, flavor = "multi_thread");
//! # fn main() {}
//! ```
//!
//! Each case gets an empty database of its own, and uses only the contract. Cases do not depend on
//! timing as long as a transaction ends within five seconds. [`conformance_suite!`] lists the
//! cases.
//!
//! [`conformance_suite!`]: crate::conformance_suite
//!
//! # The contract, clause by clause
//!
//! | clause | cases |
//! |---|---|
//! | ordered byte keys | `keys_sort_in_byte_order` |
//! | `get`, `set`, `clear`, `clear_range` | `get_returns_the_last_value_until_it_is_cleared`, `clear_range_excludes_its_end` |
//! | `get_range`: selectors | `get_key_resolves_selectors`, `get_range_resolves_both_selectors` |
//! | … limit, reverse, byte target, the reason for the end of a page | `page_reports_why_it_stopped`, `descending_range_merges_own_writes_in_order` |
//! | … streaming | `stream_returns_every_key_once`, `stream_merges_own_writes_on_each_page` |
//! | strict serializability | `transaction_reads_all_earlier_commits`, `later_write_of_a_read_key_conflicts`, `concurrent_updates_are_not_lost`, and Hermitage's below |
//! | … reads at one read version | `reads_see_one_version`, `commits_become_visible_atomically` |
//! | … read conflict ranges end where the read ended | `every_read_conflicts_with_every_write`, `unread_rest_of_a_page_does_not_conflict`, `read_only_transaction_always_commits` |
//! | … write conflicts | `every_read_conflicts_with_every_write`, `versionstamped_key_conflicts_with_reads_of_its_range` |
//! | read your writes | `own_writes_are_visible_before_the_commit`, `reads_of_own_writes_do_not_conflict` |
//! | … in ranges, through clears, through atomic operations | `ranges_and_selectors_read_own_writes`, `reads_include_own_atomic_operations`, `read_of_an_own_atomic_operation_conflicts` |
//! | snapshot reads | `snapshot_reads_do_not_conflict`, `snapshot_reads_see_one_version_and_own_writes` |
//! | explicit conflict ranges | `explicit_conflict_ranges_conflict` |
//! | atomic operations | `atomic_operations_return_documented_results`, `append_beyond_the_value_limit_is_ignored`, `versionstamp_is_filled_into_keys_and_values` |
//! | … never conflict with each other | `atomic_operations_on_one_key_do_not_conflict`, `different_atomic_operations_do_not_conflict` |
//! | versionstamps: ten bytes, commit order | `versionstamps_sort_in_commit_order`, `versionstamps_of_concurrent_commits_match_their_order` |
//! | read versions | `read_version_can_be_set`, `committed_version_can_be_read`, `future_read_version_is_refused` |
//! | `watch` resolves after a commit that changes the key | `watch_fires_after_its_key_changes`, `watch_ignores_writes_of_the_same_value`, `watch_fires_if_its_key_changed_before_the_commit`, `watch_compares_with_own_writes` |
//! | … bounded | `watches_are_limited_and_dropped_ones_do_not_count` |
//! | … cancellation | `cancelled_transaction_ends_its_watches`, `closed_database_ends_its_watches`, `watch_of_a_failed_commit_returns_its_error` |
//! | limits: key, value, transaction | `key_above_10_000_bytes_is_refused`, `value_above_100_000_bytes_is_refused`, `transaction_above_10_000_000_bytes_is_refused`, `size_includes_keys_values_and_conflict_ranges` |
//! | … five seconds | `transaction_is_too_old_after_five_seconds` |
//! | errors: `Conflict` | `later_write_of_a_read_key_conflicts` |
//! | … `TransactionTooOld` | `transaction_is_too_old_after_five_seconds` |
//! | … `MaybeCommitted` | `unknown_outcome_is_returned_by_default` |
//! | … `Unavailable` | `future_read_version_is_refused` |
//! | … `Limit` | the cases of limits, and `invalid_write_fails_the_next_read_and_the_commit` |
//! | … `Invalid` | `illegal_read_is_invalid`, `illegal_write_is_invalid_at_the_commit`, `versionstamp_is_unreadable_before_the_commit`, `transaction_commits_once` |
//! | … `Closed` | `cancelled_transaction_returns_closed`, `closed_database_returns_closed` |
//! | `run`: the retry loop, its budgets | `run_retries_conflicts`, `closure_error_is_returned_without_a_commit`, `attempts_are_bounded_by_the_budgets` |
//! | … an unknown outcome is never applied twice | `committed_attempt_is_recognized`, `uncommitted_attempt_is_retried`, `idempotent_closure_is_retried` |
//! | clones share a handle; futures are `Send` | `handles_share_one_database`, `clones_share_a_transaction`, `futures_are_send` |
//! | dropping a transaction cancels it | `dropped_transaction_has_no_effect` |
//!
//! # Faults of other engines
//!
//! | fault | cases |
//! |---|---|
//! | a version assigned before its commit is visible | `concurrent_updates_are_not_lost`, `version_and_snapshot_match` |
//! | a fresh snapshot for each read | `reads_see_one_version`, `snapshot_reads_see_one_version_and_own_writes` |
//! | a snapshot and a version fetched separately; a torn snapshot | `version_and_snapshot_match`, `commits_become_visible_atomically` |
//! | a limit applied before own clears and sets are merged | `limit_applies_after_own_writes_are_merged` |
//! | reverse order lost after merging own writes | `descending_range_merges_own_writes_in_order`, `stream_merges_own_writes_on_each_page` |
//! | continuation that skips child keys, or uses the selector of the other order | `range_continues_after_its_last_key`, `stream_returns_every_key_once` |
//! | a symmetric conflict test | `blind_writes_never_conflict`, `overwriting_a_key_read_by_another_does_not_conflict` |
//! | `MaybeCommitted` overwritten by a later `Conflict` | `later_conflict_does_not_hide_an_unknown_outcome`, `later_error_is_not_returned_while_an_attempt_is_in_flight` |
//! | blind retry of a commit in flight | `commit_in_flight_is_not_retried_blindly`, `late_commit_is_applied_once`, `no_attempt_is_applied_after_the_result` |
//! | an atomic addition replayed | `committed_attempt_is_recognized` |
//! | versions assumed to be contiguous | `versions_increase_with_gaps` |
//! | a rejected commit of a batch that leaves its first half | `rejected_commit_of_a_batch_leaves_no_writes` |
//! | differences between engines | the suite itself, and the recordings of a real cluster |
//! | a stale tail behind a shorter rewrite | `shorter_value_replaces_a_longer_one` |
//! | a cached read version | `transaction_reads_all_earlier_commits` |
//!
//! # Hermitage
//!
//! | anomaly | cases |
//! |---|---|
//! | G0, dirty write | `g0_no_dirty_write` |
//! | G1a, aborted read | `g1a_no_aborted_read` |
//! | G1b, intermediate read | `g1b_no_intermediate_read` |
//! | G1c, circular information flow | `g1c_no_circular_information_flow` |
//! | OTV, observed transaction vanishes | `otv_observed_transaction_does_not_vanish` |
//! | PMP, predicate-many-preceders | `pmp_predicate_read_is_repeatable`, `pmp_stale_predicate_write_conflicts` |
//! | P4, lost update | `p4_no_lost_update` |
//! | G-single, read skew | `g_single_no_read_skew`, `g_single_no_read_skew_of_predicates`, `g_single_stale_write_conflicts` |
//! | G2-item, write skew | `g2_item_no_write_skew` |
//! | G2, anti-dependency cycle | `g2_no_write_skew_of_predicates`, `g2_no_cycle_of_three` |
//!
//! # Beyond the contract
//!
//! Tests of the embedded engine cover `Corrupt` and the `source()` of errors, which need a failing
//! disk, and versions across clock changes and restarts. Tests of the retry loop cover backoff.
//! Keys of exactly 10,000 bytes do not fit under a prefix; the recordings contain them.

#![expect(clippy::unwrap_used, reason = "a case fails by panicking")]

mod anomalies;
mod atomics;
mod conflicts;
mod errors;
mod handles;
mod keys;
mod limits;
mod own_writes;
mod ranges;
mod retries;
mod threads;
mod versions;
mod watches;

use std::{any::Any, fmt};

use crate::{
    Error, ErrorKind, Result, RunError,
    engine::{
        AtomicOp, Database, Fault, Faults, KEY_SIZE_LIMIT, KeySelector, KeyValue, LIFETIME, Order,
        RangeQuery, RangeStream, Stopped, TRANSACTION_SIZE_LIMIT, Transaction, VALUE_SIZE_LIMIT,
        Versionstamp, WATCH_LIMIT, Watch,
    },
};

/// Defines a module with a test for each case.
///
/// The first argument is the name of the module; the second a function that returns, for each case,
/// an empty [`Database`](crate::engine::Database), or a
/// [`Subject`](crate::conformance::Subject). The rest is passed to `tokio::test`, which the
/// crate must have, with the feature `macros`.
#[macro_export]
macro_rules! conformance_suite {
    (@list $($then:tt)*) => {
        $crate::conformance_suite! { $($then)*
            keys: [
                keys_sort_in_byte_order
                get_returns_the_last_value_until_it_is_cleared
                shorter_value_replaces_a_longer_one
                clear_range_excludes_its_end
                get_key_resolves_selectors
                get_range_resolves_both_selectors
            ]
            ranges: [
                limit_applies_after_own_writes_are_merged
                descending_range_merges_own_writes_in_order
                page_reports_why_it_stopped
                range_continues_after_its_last_key
                stream_returns_every_key_once
                stream_merges_own_writes_on_each_page
            ]
            conflicts: [
                reads_see_one_version
                transaction_reads_all_earlier_commits
                later_write_of_a_read_key_conflicts
                every_read_conflicts_with_every_write
                versionstamped_key_conflicts_with_reads_of_its_range
                unread_rest_of_a_page_does_not_conflict
                blind_writes_never_conflict
                overwriting_a_key_read_by_another_does_not_conflict
                read_only_transaction_always_commits
                rejected_commit_of_a_batch_leaves_no_writes
            ]
            own_writes: [
                own_writes_are_visible_before_the_commit
                ranges_and_selectors_read_own_writes
                reads_include_own_atomic_operations
                reads_of_own_writes_do_not_conflict
                read_of_an_own_atomic_operation_conflicts
                snapshot_reads_do_not_conflict
                snapshot_reads_see_one_version_and_own_writes
                explicit_conflict_ranges_conflict
            ]
            atomics: [
                atomic_operations_return_documented_results
                append_beyond_the_value_limit_is_ignored
                versionstamp_is_filled_into_keys_and_values
                atomic_operations_on_one_key_do_not_conflict
                different_atomic_operations_do_not_conflict
            ]
            versions: [
                versionstamps_sort_in_commit_order
                versionstamps_of_concurrent_commits_match_their_order
                versions_increase_with_gaps
                read_version_can_be_set
                committed_version_can_be_read
                future_read_version_is_refused
            ]
            watches: [
                watch_fires_after_its_key_changes
                watch_ignores_writes_of_the_same_value
                watch_fires_if_its_key_changed_before_the_commit
                watch_compares_with_own_writes
                cancelled_transaction_ends_its_watches
                closed_database_ends_its_watches
                watch_of_a_failed_commit_returns_its_error
                watches_are_limited_and_dropped_ones_do_not_count
            ]
            limits: [
                key_above_10_000_bytes_is_refused
                value_above_100_000_bytes_is_refused
                transaction_above_10_000_000_bytes_is_refused
                invalid_write_fails_the_next_read_and_the_commit
                size_includes_keys_values_and_conflict_ranges
                transaction_is_too_old_after_five_seconds
            ]
            errors: [
                illegal_read_is_invalid
                illegal_write_is_invalid_at_the_commit
                versionstamp_is_unreadable_before_the_commit
                transaction_commits_once
                cancelled_transaction_returns_closed
                closed_database_returns_closed
            ]
            retries: [
                run_retries_conflicts
                closure_error_is_returned_without_a_commit
                attempts_are_bounded_by_the_budgets
                unknown_outcome_is_returned_by_default
                committed_attempt_is_recognized
                uncommitted_attempt_is_retried
                idempotent_closure_is_retried
                commit_in_flight_is_not_retried_blindly
                late_commit_is_applied_once
                later_conflict_does_not_hide_an_unknown_outcome
                later_error_is_not_returned_while_an_attempt_is_in_flight
                no_attempt_is_applied_after_the_result
            ]
            handles: [
                dropped_transaction_has_no_effect
                handles_share_one_database
                clones_share_a_transaction
                futures_are_send
            ]
            threads: [
                concurrent_updates_are_not_lost
                version_and_snapshot_match
                commits_become_visible_atomically
            ]
            anomalies: [
                g0_no_dirty_write
                g1a_no_aborted_read
                g1b_no_intermediate_read
                g1c_no_circular_information_flow
                otv_observed_transaction_does_not_vanish
                pmp_predicate_read_is_repeatable
                pmp_stale_predicate_write_conflicts
                p4_no_lost_update
                g_single_no_read_skew
                g_single_no_read_skew_of_predicates
                g_single_stale_write_conflicts
                g2_item_no_write_skew
                g2_no_write_skew_of_predicates
                g2_no_cycle_of_three
            ]
        }
    };
    // The cases of this crate. A case that is not listed causes a warning.
    (@cases $($group:ident: [$($case:ident)*])*) => {
        #[doc(hidden)]
        pub mod cases {
            $(pub mod $group {
                use super::super::{Database, $group};
                $(pub fn $case(database: Database) -> impl Future<Output = ()> + Send {
                    $group::$case(database)
                })*
            })*
        }

        /// Returns the names of all cases.
        pub const CASES: &[&str] = &[$($(stringify!($case)),*),*];
    };
    (@tests $module:ident $subject:expr, $runtime:tt $($group:ident: [$($case:ident)*])*) => {
        mod $module {
            #[allow(unused_imports, reason = "the function may be named by a path")]
            use super::*;

            fn subject() -> $crate::conformance::Subject {
                ($subject)().into()
            }

            $(mod $group {
                $(#[::tokio::test $runtime]
                async fn $case() {
                    use $crate::conformance::{cases, run};
                    run(super::subject(), cases::$group::$case).await;
                })*
            })*
        }
    };
    ($module:ident, $subject:expr $(, $($runtime:tt)*)?) => {
        $crate::conformance_suite! { @list @tests $module $subject, ($($($runtime)*)?) }
    };
}

crate::conformance_suite! { @list @cases }

/// The database of a case, empty and without other writers; or the reason to skip the case.
pub struct Subject(Result<(Database, Box<dyn Any>), String>);

impl Subject {
    /// Returns a subject with a guard, such as the temporary folder, that is dropped after the
    /// case.
    pub fn keeping(database: Database, guard: impl Any) -> Self {
        Self(Ok((database, Box::new(guard))))
    }

    /// Returns a subject whose cases are skipped, with the reason.
    pub fn skipped(reason: impl Into<String>) -> Self {
        Self(Err(reason.into()))
    }
}

impl From<Database> for Subject {
    fn from(database: Database) -> Self {
        Self::keeping(database, ())
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.0.as_ref().map(|(database, _)| database);
        f.debug_tuple("Subject").field(&database).finish()
    }
}

/// Runs `case`, which panics if it fails, or reports that it is skipped.
#[expect(clippy::print_stdout, reason = "reports skipped cases")]
pub async fn run<F: Future<Output = ()>>(subject: Subject, case: impl FnOnce(Database) -> F) {
    match subject.0 {
        Ok((database, guard)) => {
            case(database).await;
            drop(guard);
        }
        Err(reason) => println!("skipped: {reason}"),
    }
}

pub(super) async fn write(database: &Database, rows: &[(&str, &str)]) {
    let tx = database.begin();
    for (key, value) in rows {
        tx.set(key.as_bytes(), value.as_bytes());
    }
    tx.commit().await.unwrap();
}

pub(super) async fn value(database: &Database, key: &str) -> Option<String> {
    let value = database.begin().get(key.as_bytes()).await.unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

async fn keys(tx: &Transaction, query: &RangeQuery) -> Vec<String> {
    let page = tx.get_range(query).await.unwrap();
    page.rows.into_iter().map(|row| String::from_utf8(row.key).unwrap()).collect()
}

pub(super) fn kind<T: fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}
