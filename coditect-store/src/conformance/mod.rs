//! The conformance suite: a case for each clause of the contract, and for each fault that other
//! engines had. It runs on every engine and in every mode, without exemptions.
//!
//! It is available with the feature `conformance`, for tests. A crate that opens or wraps a
//! database in its own way runs each case as a test:
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
//! A case has its own empty database and uses nothing but the contract. It does not depend on
//! speed, as long as a transaction ends within five seconds, and fails if the statement in its name
//! does not hold. The cases are listed in [`conformance_suite!`].
//!
//! [`conformance_suite!`]: crate::conformance_suite
//!
//! # The contract, clause by clause
//!
//! | what is promised | cases |
//! |---|---|
//! | ordered byte keys | `keys_are_ordered_as_bytes` |
//! | `get`, `set`, `clear`, `clear_range` | `a_value_is_there_from_its_set_to_its_clear`, `a_cleared_range_has_its_begin_and_not_its_end` |
//! | `get_range`: selectors | `a_selector_names_a_key_by_its_place`, `a_range_goes_from_one_selector_up_to_another` |
//! | … limit, reverse, byte target; a page says why it stopped | `a_page_says_why_it_stopped`, `a_descending_range_stays_so_with_own_writes` |
//! | … streaming | `a_stream_gives_every_key_once_in_both_orders`, `a_stream_merges_own_writes_on_each_page` |
//! | strict serializability | `a_transaction_sees_all_that_was_committed_before_it_began`, `reading_what_was_written_since_conflicts`, `no_update_is_lost_among_many_threads`, and Hermitage's below |
//! | … reads at one read version | `all_reads_see_one_version`, `what_is_written_together_is_never_seen_apart` |
//! | … read conflicts of what was really read | `each_kind_of_read_conflicts_with_each_kind_of_write`, `what_a_page_did_not_come_to_does_not_conflict`, `who_only_reads_always_commits` |
//! | … write conflicts | `each_kind_of_read_conflicts_with_each_kind_of_write`, `a_versionstamped_key_conflicts_with_a_read_of_where_it_comes_to_lie` |
//! | read your writes | `own_writes_are_seen_at_once_and_by_others_after_the_commit`, `reads_of_own_writes_do_not_conflict` |
//! | … in ranges, through clears, through atomic operations | `ranges_and_selectors_see_own_sets_and_clears`, `atomic_operations_are_seen_over_what_was_there`, `a_read_of_an_own_atomic_operation_conflicts` |
//! | snapshot reads | `snapshot_reads_do_not_conflict`, `snapshot_reads_see_the_same_version_and_own_writes` |
//! | explicit conflict ranges | `explicit_ranges_conflict_as_given` |
//! | atomic operations | `each_operation_makes_of_a_value_what_it_says`, `what_does_not_fit_is_not_appended`, `a_versionstamp_is_filled_into_a_key_or_a_value` |
//! | … never conflict with each other | `atomic_operations_on_one_key_do_not_conflict`, `no_atomic_operation_conflicts_with_any_other` |
//! | versionstamps: ten bytes, commit order | `versionstamps_sort_in_commit_order`, `stamps_of_commits_that_run_together_are_in_the_order_of_their_effects` |
//! | the read version can be had and set | `a_read_version_can_be_had_and_set`, `a_committed_version_can_be_read_at`, `a_read_version_of_the_future_is_refused` |
//! | `watch` resolves after a commit that changed the key | `a_watch_fires_after_a_commit_that_changed_its_key`, `a_watch_does_not_fire_while_its_key_is_as_it_was`, `a_watch_fires_if_its_key_changed_before_it_was_live`, `a_watch_is_of_what_its_own_transaction_wrote` |
//! | … bounded | `watches_are_bounded_and_dropped_ones_make_room` |
//! | … cancelled cleanly | `a_watch_ends_with_its_transaction`, `a_watch_ends_with_its_database`, `a_watch_of_a_refused_commit_gives_its_error` |
//! | limits: key, value, transaction | `a_key_of_more_than_10_000_bytes_is_refused`, `a_value_of_more_than_100_000_bytes_is_refused`, `a_transaction_of_more_than_10_000_000_bytes_is_refused`, `the_size_counts_keys_values_and_conflict_ranges` |
//! | … five seconds | `after_five_seconds_a_transaction_is_too_old_and_a_new_one_is_not` |
//! | errors: `Conflict` | `reading_what_was_written_since_conflicts` |
//! | … `TransactionTooOld` | `after_five_seconds_a_transaction_is_too_old_and_a_new_one_is_not` |
//! | … `MaybeCommitted` | `an_unknown_outcome_is_returned_and_nothing_is_run_again` |
//! | … `Unavailable` | `a_read_version_of_the_future_is_refused` |
//! | … `Limit` | the limits', and `a_refused_write_shows_at_the_next_read_and_at_the_commit` |
//! | … `Invalid` | `a_read_that_makes_no_sense_is_invalid`, `a_write_that_makes_no_sense_is_invalid_at_the_commit`, `a_versionstamp_cannot_be_read_before_its_commit`, `a_transaction_is_committed_once` |
//! | … `Closed` | `a_cancelled_transaction_answers_that_it_is`, `a_closed_database_answers_that_it_is` |
//! | `run`: the retry loop, its budgets | `run_tries_again_until_it_does_not_conflict`, `an_error_of_the_closure_writes_nothing_and_is_returned_at_once`, `there_are_as_many_attempts_as_the_budgets_allow` |
//! | … an unknown outcome is never applied twice | `an_attempt_that_did_commit_is_recognised_and_counts_once`, `an_attempt_that_did_not_commit_is_run_again`, `what_is_right_to_do_twice_is_run_again` |
//! | one type, whose clones are one; futures are `Send` | `many_handles_share_one_database`, `clones_of_a_transaction_are_one_and_may_read_together`, `futures_go_from_thread_to_thread` |
//! | dropping a transaction cancels it | `a_dropped_transaction_leaves_no_trace` |
//!
//! # Faults of other engines
//!
//! | what | cases |
//! |---|---|
//! | a version assigned before its commit is visible | `no_update_is_lost_among_many_threads`, `a_version_and_what_is_seen_at_it_belong_together` |
//! | a fresh snapshot for each read | `all_reads_see_one_version`, `snapshot_reads_see_the_same_version_and_own_writes` |
//! | a snapshot and a version fetched apart; a torn one | `a_version_and_what_is_seen_at_it_belong_together`, `what_is_written_together_is_never_seen_apart` |
//! | a limit applied before own clears and sets are merged | `a_limit_counts_what_is_left_after_own_writes_are_merged` |
//! | the reverse order lost once there are own writes | `a_descending_range_stays_so_with_own_writes`, `a_stream_merges_own_writes_on_each_page` |
//! | a range continued past child keys, or with the other order's selector | `a_range_goes_on_right_behind_its_last_key_in_both_orders`, `a_stream_gives_every_key_once_in_both_orders` |
//! | a symmetric conflict test | `blind_writes_never_conflict`, `writing_over_what_another_has_read_does_not_conflict` |
//! | `MaybeCommitted` overwritten by a later `Conflict` | `an_unknown_outcome_is_not_overwritten_by_a_later_conflict`, `a_later_answer_is_not_believed_while_an_earlier_attempt_may_come_in` |
//! | a commit that may be in flight, retried blindly | `a_commit_that_may_still_come_in_is_not_run_again_blindly`, `a_commit_that_comes_in_late_counts_once`, `after_a_later_answer_no_earlier_attempt_comes_in` |
//! | an atomic addition replayed | `an_attempt_that_did_commit_is_recognised_and_counts_once` |
//! | versions taken for contiguous | `versions_grow_and_have_gaps` |
//! | a member of a batch that leaves its first half | `who_is_refused_among_many_leaves_nothing_of_its_own` |
//! | engines that differ | the suite itself, and the recordings of a real cluster |
//! | a stale tail behind a shorter rewrite | `a_shorter_value_leaves_nothing_of_the_longer_one` |
//! | a cached read version | `a_transaction_sees_all_that_was_committed_before_it_began` |
//!
//! # Hermitage
//!
//! | anomaly | cases |
//! |---|---|
//! | G0, dirty write | `g0_writes_are_not_mixed` |
//! | G1a, aborted read | `g1a_nothing_is_read_that_is_given_up` |
//! | G1b, intermediate read | `g1b_nothing_is_read_that_is_written_over_before_the_commit` |
//! | G1c, circular information flow | `g1c_information_does_not_flow_in_a_circle` |
//! | OTV, observed transaction vanishes | `otv_a_transaction_that_was_seen_does_not_vanish` |
//! | PMP, predicate-many-preceders | `pmp_what_a_predicate_was_read_of_does_not_change`, `pmp_nothing_is_written_by_a_predicate_that_holds_no_more` |
//! | P4, lost update | `p4_no_update_is_lost` |
//! | G-single, read skew | `g_single_one_state_is_read`, `g_single_one_state_is_read_by_predicates`, `g_single_nothing_is_written_by_what_was_read_before_another_commit` |
//! | G2-item, write skew | `g2_item_of_two_that_each_write_what_the_other_read_one_is_refused` |
//! | G2, anti-dependency cycle | `g2_of_two_that_each_add_to_what_the_other_looked_for_one_is_refused`, `g2_of_three_in_a_circle_one_is_refused` |
//!
//! # Beyond the contract
//!
//! `Corrupt`, and an error's `source()`, require a failing disk, and are tested below the embedded
//! engine; so are versions while the clock goes back, and versions from before a restart. Backoff
//! is tested at the retry loop. Keys of exactly 10,000 bytes do not fit under a prefix: the
//! recordings contain them.

#![expect(clippy::unwrap_used, reason = "what fails is the test that runs the case")]

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

/// Defines a module in which each case is a test.
///
/// The first argument is its name; the second a function that is called for each case and returns
/// an empty [`Database`](crate::engine::Database), or a
/// [`Subject`](crate::conformance::Subject). The rest is passed to `tokio::test`, which the
/// crate must have, with the feature `macros`.
#[macro_export]
macro_rules! conformance_suite {
    (@list $($then:tt)*) => {
        $crate::conformance_suite! { $($then)*
            keys: [
                keys_are_ordered_as_bytes
                a_value_is_there_from_its_set_to_its_clear
                a_shorter_value_leaves_nothing_of_the_longer_one
                a_cleared_range_has_its_begin_and_not_its_end
                a_selector_names_a_key_by_its_place
                a_range_goes_from_one_selector_up_to_another
            ]
            ranges: [
                a_limit_counts_what_is_left_after_own_writes_are_merged
                a_descending_range_stays_so_with_own_writes
                a_page_says_why_it_stopped
                a_range_goes_on_right_behind_its_last_key_in_both_orders
                a_stream_gives_every_key_once_in_both_orders
                a_stream_merges_own_writes_on_each_page
            ]
            conflicts: [
                all_reads_see_one_version
                a_transaction_sees_all_that_was_committed_before_it_began
                reading_what_was_written_since_conflicts
                each_kind_of_read_conflicts_with_each_kind_of_write
                a_versionstamped_key_conflicts_with_a_read_of_where_it_comes_to_lie
                what_a_page_did_not_come_to_does_not_conflict
                blind_writes_never_conflict
                writing_over_what_another_has_read_does_not_conflict
                who_only_reads_always_commits
                who_is_refused_among_many_leaves_nothing_of_its_own
            ]
            own_writes: [
                own_writes_are_seen_at_once_and_by_others_after_the_commit
                ranges_and_selectors_see_own_sets_and_clears
                atomic_operations_are_seen_over_what_was_there
                reads_of_own_writes_do_not_conflict
                a_read_of_an_own_atomic_operation_conflicts
                snapshot_reads_do_not_conflict
                snapshot_reads_see_the_same_version_and_own_writes
                explicit_ranges_conflict_as_given
            ]
            atomics: [
                each_operation_makes_of_a_value_what_it_says
                what_does_not_fit_is_not_appended
                a_versionstamp_is_filled_into_a_key_or_a_value
                atomic_operations_on_one_key_do_not_conflict
                no_atomic_operation_conflicts_with_any_other
            ]
            versions: [
                versionstamps_sort_in_commit_order
                stamps_of_commits_that_run_together_are_in_the_order_of_their_effects
                versions_grow_and_have_gaps
                a_read_version_can_be_had_and_set
                a_committed_version_can_be_read_at
                a_read_version_of_the_future_is_refused
            ]
            watches: [
                a_watch_fires_after_a_commit_that_changed_its_key
                a_watch_does_not_fire_while_its_key_is_as_it_was
                a_watch_fires_if_its_key_changed_before_it_was_live
                a_watch_is_of_what_its_own_transaction_wrote
                a_watch_ends_with_its_transaction
                a_watch_ends_with_its_database
                a_watch_of_a_refused_commit_gives_its_error
                watches_are_bounded_and_dropped_ones_make_room
            ]
            limits: [
                a_key_of_more_than_10_000_bytes_is_refused
                a_value_of_more_than_100_000_bytes_is_refused
                a_transaction_of_more_than_10_000_000_bytes_is_refused
                a_refused_write_shows_at_the_next_read_and_at_the_commit
                the_size_counts_keys_values_and_conflict_ranges
                after_five_seconds_a_transaction_is_too_old_and_a_new_one_is_not
            ]
            errors: [
                a_read_that_makes_no_sense_is_invalid
                a_write_that_makes_no_sense_is_invalid_at_the_commit
                a_versionstamp_cannot_be_read_before_its_commit
                a_transaction_is_committed_once
                a_cancelled_transaction_answers_that_it_is
                a_closed_database_answers_that_it_is
            ]
            retries: [
                run_tries_again_until_it_does_not_conflict
                an_error_of_the_closure_writes_nothing_and_is_returned_at_once
                there_are_as_many_attempts_as_the_budgets_allow
                an_unknown_outcome_is_returned_and_nothing_is_run_again
                an_attempt_that_did_commit_is_recognised_and_counts_once
                an_attempt_that_did_not_commit_is_run_again
                what_is_right_to_do_twice_is_run_again
                a_commit_that_may_still_come_in_is_not_run_again_blindly
                a_commit_that_comes_in_late_counts_once
                an_unknown_outcome_is_not_overwritten_by_a_later_conflict
                a_later_answer_is_not_believed_while_an_earlier_attempt_may_come_in
                after_a_later_answer_no_earlier_attempt_comes_in
            ]
            handles: [
                a_dropped_transaction_leaves_no_trace
                many_handles_share_one_database
                clones_of_a_transaction_are_one_and_may_read_together
                futures_go_from_thread_to_thread
            ]
            threads: [
                no_update_is_lost_among_many_threads
                a_version_and_what_is_seen_at_it_belong_together
                what_is_written_together_is_never_seen_apart
            ]
            anomalies: [
                g0_writes_are_not_mixed
                g1a_nothing_is_read_that_is_given_up
                g1b_nothing_is_read_that_is_written_over_before_the_commit
                g1c_information_does_not_flow_in_a_circle
                otv_a_transaction_that_was_seen_does_not_vanish
                pmp_what_a_predicate_was_read_of_does_not_change
                pmp_nothing_is_written_by_a_predicate_that_holds_no_more
                p4_no_update_is_lost
                g_single_one_state_is_read
                g_single_one_state_is_read_by_predicates
                g_single_nothing_is_written_by_what_was_read_before_another_commit
                g2_item_of_two_that_each_write_what_the_other_read_one_is_refused
                g2_of_two_that_each_add_to_what_the_other_looked_for_one_is_refused
                g2_of_three_in_a_circle_one_is_refused
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

/// The database of a case: empty and without other writers, or none.
pub struct Subject(Result<(Database, Box<dyn Any>), String>);

impl Subject {
    /// A database, and a guard that lives as long, such as its folder.
    pub fn keeping(database: Database, kept: impl Any) -> Self {
        Self(Ok((database, Box::new(kept))))
    }

    /// None: the case is skipped, with the reason.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self(Err(why.into()))
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
#[expect(clippy::print_stdout, reason = "says what is left out")]
pub async fn run<F: Future<Output = ()>>(subject: Subject, case: impl FnOnce(Database) -> F) {
    match subject.0 {
        Ok((database, kept)) => {
            case(database).await;
            drop(kept);
        }
        Err(why) => println!("skipped: {why}"),
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
