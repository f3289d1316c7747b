//! The retry loop: number of attempts, and unknown outcomes, which are never applied twice.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{AtomicOp, Database, Error, ErrorKind, Fault, Faults, Result, RunError, value, write};
use crate::retry::{OnUnknownOutcome, RetryPolicy, run};

const ATTEMPTS: u32 = 5;
/// Time after which a late commit has been applied.
const LATE_COMMIT_WAIT: Duration = Duration::from_millis(25);

fn policy(on_unknown_outcome: OnUnknownOutcome) -> RetryPolicy {
    let initial_delay = Duration::from_micros(10);
    RetryPolicy {
        max_attempts: ATTEMPTS,
        initial_delay,
        on_unknown_outcome,
        ..RetryPolicy::default()
    }
}

fn check_marker() -> RetryPolicy {
    policy(OnUnknownOutcome::CheckMarker(b"marker".to_vec()))
}

pub(super) async fn run_retries_conflicts(database: Database) {
    let attempts = AtomicU32::new(0);
    let answer = database.run(|tx| {
        let (database, attempts) = (&database, &attempts);
        async move {
            let attempt = attempts.fetch_add(1, Ordering::Relaxed);
            tx.get(b"a").await?;
            if attempt < 3 {
                write(database, &[("a", "again")]).await;
            }
            tx.set(b"b", attempt.to_string().as_bytes());
            Ok::<_, Error>(attempt)
        }
    });
    assert_eq!(answer.await.unwrap(), 3);
    assert_eq!(value(&database, "b").await.unwrap(), "3");
}

/// An error of the caller, which may wrap an error of the store.
#[derive(Debug)]
struct Refused(Option<Error>);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self(Some(error))
    }
}

impl RunError for Refused {
    fn store_error(&self) -> Option<&Error> {
        self.0.as_ref()
    }
}

pub(super) async fn closure_error_is_returned_without_a_commit(database: Database) {
    let attempts = AtomicU32::new(0);
    let outcome = database.run(|tx| {
        attempts.fetch_add(1, Ordering::Relaxed);
        async move {
            tx.set(b"a", b"1");
            Err::<(), _>(Refused(None))
        }
    });
    assert!(outcome.await.unwrap_err().0.is_none());
    assert_eq!(value(&database, "a").await, None);
    assert_eq!(attempts.into_inner(), 1);
}

pub(super) async fn attempts_are_bounded_by_the_budgets(database: Database) {
    let without_time = RetryPolicy { timeout: Duration::ZERO, ..policy(OnUnknownOutcome::Fail) };
    for (policy, expected) in [(policy(OnUnknownOutcome::Fail), ATTEMPTS), (without_time, 1)] {
        let attempts = AtomicU32::new(0);
        let outcome = run(&database, &policy, |tx| {
            let (database, attempts) = (&database, &attempts);
            async move {
                attempts.fetch_add(1, Ordering::Relaxed);
                tx.get(b"a").await?;
                write(database, &[("a", "conflict")]).await;
                tx.set(b"b", b"");
                Ok::<_, Error>(())
            }
        });
        assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(attempts.into_inner(), expected);
    }
    assert_eq!(value(&database, "b").await, None);
}

async fn wait_for_key(database: &Database, key: &str) {
    while database.begin().get(key.as_bytes()).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Adds 1 to a counter while the commit fails with `fault`. Returns the result, the number of
/// attempts, and the counter.
async fn added(
    database: &Database,
    fault: Fault,
    policy: &RetryPolicy,
) -> (Result<u32, (ErrorKind, Option<i32>)>, u32, u32) {
    let faults = Faults::default();
    let failing = database.with_faults(faults.clone());
    // With a marker, the first step reads the version at which the marker is checked.
    let is_marked = matches!(policy.on_unknown_outcome, OnUnknownOutcome::CheckMarker(_));
    faults.plan(u64::from(is_marked), fault);
    let attempts = AtomicU32::new(0);
    let outcome = run(&failing, policy, |tx| {
        attempts.fetch_add(1, Ordering::Relaxed);
        async move {
            tx.atomic(AtomicOp::Add, b"n", &1_u32.to_le_bytes());
            Ok::<_, Error>(7)
        }
    });
    let outcome = outcome.await.map_err(|error| (error.kind(), error.code()));
    assert!(faults.has_occurred());
    if fault == Fault::Late {
        wait_for_key(database, "n").await;
        // The late commit may follow a successful retry.
        tokio::time::sleep(LATE_COMMIT_WAIT).await;
    }
    let sum = database.begin().get(b"n").await.unwrap();
    let sum = sum.map_or(0, |sum| u32::from_le_bytes(sum.try_into().unwrap()));
    (outcome, attempts.into_inner(), sum)
}

const UNKNOWN: Result<u32, (ErrorKind, Option<i32>)> = Err((ErrorKind::MaybeCommitted, Some(1021)));
const IN_FLIGHT: Result<u32, (ErrorKind, Option<i32>)> =
    Err((ErrorKind::MaybeCommitted, Some(1031)));

pub(super) async fn unknown_outcome_is_returned_by_default(database: Database) {
    let policy = policy(OnUnknownOutcome::Fail);
    assert_eq!(added(&database, Fault::LostCommit, &policy).await, (UNKNOWN, 1, 0));
    assert_eq!(added(&database, Fault::LostAnswer, &policy).await, (UNKNOWN, 1, 1));
}

/// An addition that is retried blindly counts twice.
pub(super) async fn committed_attempt_is_recognized(database: Database) {
    let lost = added(&database, Fault::LostAnswer, &check_marker()).await;
    assert_eq!(lost, (Ok(7), 1, 1));
}

pub(super) async fn uncommitted_attempt_is_retried(database: Database) {
    let lost = added(&database, Fault::LostCommit, &check_marker()).await;
    assert_eq!(lost, (Ok(7), 2, 1));
}

pub(super) async fn idempotent_closure_is_retried(database: Database) {
    let lost = added(&database, Fault::LostAnswer, &policy(OnUnknownOutcome::Retry)).await;
    assert_eq!(lost, (Ok(7), 2, 2), "addition is not idempotent, but was declared so");
}

pub(super) async fn commit_in_flight_is_not_retried_blindly(database: Database) {
    let late = added(&database, Fault::Late, &policy(OnUnknownOutcome::Retry)).await;
    assert_eq!(late, (IN_FLIGHT, 1, 1));
}

pub(super) async fn late_commit_is_applied_once(database: Database) {
    let (outcome, _, sum) = added(&database, Fault::Late, &check_marker()).await;
    assert_eq!((outcome, sum), (Ok(7), 1));
}

pub(super) async fn later_conflict_does_not_hide_an_unknown_outcome(database: Database) {
    let faults = Faults::default();
    let failing = database.with_faults(faults.clone());
    let attempts = AtomicU32::new(0);
    let policy = check_marker();
    let outcome = run(&failing, &policy, |tx| {
        let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        let (database, faults) = (&database, &faults);
        async move {
            tx.get(b"a").await?;
            tx.set(b"b", b"");
            if is_first {
                faults.plan(1, Fault::LostCommit);
            } else {
                write(database, &[("a", "conflict")]).await;
            }
            Ok::<_, Error>(())
        }
    });
    assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::MaybeCommitted);
    assert_eq!(attempts.into_inner(), ATTEMPTS);
    assert_eq!(value(&database, "b").await, None);
}

/// Runs two attempts: the first is applied after its reply; the second returns an error, after the
/// first one was applied if it `waits`.
async fn second_attempt_fails(database: &Database, waits: bool) -> Result<u32> {
    let faults = Faults::default();
    let failing = database.with_faults(faults.clone());
    faults.plan(1, Fault::Late);
    let attempts = AtomicU32::new(0);
    let policy = check_marker();
    let outcome = run(&failing, &policy, |tx| {
        let is_second = attempts.fetch_add(1, Ordering::Relaxed) == 1;
        async move {
            if !is_second {
                tx.set(b"a", b"mine");
                return Ok(7);
            }
            assert_eq!(tx.get(b"a").await?, None);
            if waits {
                wait_for_key(database, "a").await;
            }
            Err(Error::new(ErrorKind::AlreadyExists, "rejected by the closure"))
        }
    });
    outcome.await
}

/// The second attempt may fail because of the effect of the first one.
pub(super) async fn later_error_is_not_returned_while_an_attempt_is_in_flight(database: Database) {
    let outcome = second_attempt_fails(&database, true).await;
    assert_eq!(outcome.unwrap(), 7, "the result of the first attempt");
}

pub(super) async fn no_attempt_is_applied_after_the_result(database: Database) {
    let outcome = second_attempt_fails(&database, false).await;
    tokio::time::sleep(LATE_COMMIT_WAIT).await;
    // The first attempt was applied if and only if its result was returned.
    assert_eq!(value(&database, "a").await.is_some(), outcome.is_ok());
}
