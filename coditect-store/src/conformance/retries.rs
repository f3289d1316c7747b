//! The retry loop: its attempts, and that an unknown outcome is never applied twice.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{AtomicOp, Database, Error, ErrorKind, Fault, Faults, Result, RunError, value, write};
use crate::retry::{OnUnknownOutcome, RetryPolicy, run};

const ATTEMPTS: u32 = 5;
/// Longer than the delay of a commit that is applied after its reply.
const LATE: Duration = Duration::from_millis(25);

fn policy(on_unknown_outcome: OnUnknownOutcome) -> RetryPolicy {
    let initial_delay = Duration::from_micros(10);
    RetryPolicy {
        max_attempts: ATTEMPTS,
        initial_delay,
        on_unknown_outcome,
        ..RetryPolicy::default()
    }
}

fn recognising() -> RetryPolicy {
    policy(OnUnknownOutcome::CheckMarker(b"marker".to_vec()))
}

pub(super) async fn run_tries_again_until_it_does_not_conflict(database: Database) {
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

/// An error of the caller, which may contain an error of the store.
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

pub(super) async fn an_error_of_the_closure_writes_nothing_and_is_returned_at_once(
    database: Database,
) {
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

pub(super) async fn there_are_as_many_attempts_as_the_budgets_allow(database: Database) {
    let in_no_time = RetryPolicy { timeout: Duration::ZERO, ..policy(OnUnknownOutcome::Fail) };
    for (policy, expected) in [(policy(OnUnknownOutcome::Fail), ATTEMPTS), (in_no_time, 1)] {
        let attempts = AtomicU32::new(0);
        let outcome = run(&database, &policy, |tx| {
            let (database, attempts) = (&database, &attempts);
            async move {
                attempts.fetch_add(1, Ordering::Relaxed);
                tx.get(b"a").await?;
                write(database, &[("a", "in the way")]).await;
                tx.set(b"b", b"");
                Ok::<_, Error>(())
            }
        });
        assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(attempts.into_inner(), expected);
    }
    assert_eq!(value(&database, "b").await, None);
}

async fn until_there(database: &Database, key: &str) {
    while database.begin().get(key.as_bytes()).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Adds 1 to a number while a commit's reply is `fault`. Returns the result, the number of
/// attempts, and the number.
async fn added(
    database: &Database,
    fault: Fault,
    policy: &RetryPolicy,
) -> (Result<u32, (ErrorKind, Option<i32>)>, u32, u32) {
    let faults = Faults::default();
    let failing = database.with_faults(faults.clone());
    // The marker is set only after reading the version that it is checked at, which is a step.
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
    assert!(faults.has_come());
    if fault == Fault::Late {
        until_there(database, "n").await;
        // If another attempt was first, wait for the late one.
        tokio::time::sleep(LATE).await;
    }
    let sum = database.begin().get(b"n").await.unwrap();
    let sum = sum.map_or(0, |sum| u32::from_le_bytes(sum.try_into().unwrap()));
    (outcome, attempts.into_inner(), sum)
}

const UNKNOWN: Result<u32, (ErrorKind, Option<i32>)> = Err((ErrorKind::MaybeCommitted, Some(1021)));
const IN_FLIGHT: Result<u32, (ErrorKind, Option<i32>)> =
    Err((ErrorKind::MaybeCommitted, Some(1031)));

pub(super) async fn an_unknown_outcome_is_returned_and_nothing_is_run_again(database: Database) {
    let policy = policy(OnUnknownOutcome::Fail);
    assert_eq!(added(&database, Fault::LostCommit, &policy).await, (UNKNOWN, 1, 0));
    assert_eq!(added(&database, Fault::LostAnswer, &policy).await, (UNKNOWN, 1, 1));
}

/// An addition that is retried blindly counts twice.
pub(super) async fn an_attempt_that_did_commit_is_recognised_and_counts_once(database: Database) {
    let lost = added(&database, Fault::LostAnswer, &recognising()).await;
    assert_eq!(lost, (Ok(7), 1, 1));
}

pub(super) async fn an_attempt_that_did_not_commit_is_run_again(database: Database) {
    let lost = added(&database, Fault::LostCommit, &recognising()).await;
    assert_eq!(lost, (Ok(7), 2, 1));
}

pub(super) async fn what_is_right_to_do_twice_is_run_again(database: Database) {
    let lost = added(&database, Fault::LostAnswer, &policy(OnUnknownOutcome::Retry)).await;
    assert_eq!(lost, (Ok(7), 2, 2), "to add is not, and was said to be");
}

pub(super) async fn a_commit_that_may_still_come_in_is_not_run_again_blindly(database: Database) {
    let late = added(&database, Fault::Late, &policy(OnUnknownOutcome::Retry)).await;
    assert_eq!(late, (IN_FLIGHT, 1, 1));
}

pub(super) async fn a_commit_that_comes_in_late_counts_once(database: Database) {
    let (outcome, _, sum) = added(&database, Fault::Late, &recognising()).await;
    assert_eq!((outcome, sum), (Ok(7), 1));
}

pub(super) async fn an_unknown_outcome_is_not_overwritten_by_a_later_conflict(database: Database) {
    let faults = Faults::default();
    let failing = database.with_faults(faults.clone());
    let attempts = AtomicU32::new(0);
    let policy = recognising();
    let outcome = run(&failing, &policy, |tx| {
        let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        let (database, faults) = (&database, &faults);
        async move {
            tx.get(b"a").await?;
            tx.set(b"b", b"");
            if is_first {
                faults.plan(1, Fault::LostCommit);
            } else {
                write(database, &[("a", "in the way")]).await;
            }
            Ok::<_, Error>(())
        }
    });
    assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::MaybeCommitted);
    assert_eq!(attempts.into_inner(), ATTEMPTS);
    assert_eq!(value(&database, "b").await, None);
}

/// Two attempts: the first may be applied after its reply; the second fails, if it `waits` after it
/// has seen the first one's effect.
async fn refused_by_the_second(database: &Database, waits: bool) -> Result<u32> {
    let faults = Faults::default();
    let failing = database.with_faults(faults.clone());
    faults.plan(1, Fault::Late);
    let attempts = AtomicU32::new(0);
    let policy = recognising();
    let outcome = run(&failing, &policy, |tx| {
        let is_second = attempts.fetch_add(1, Ordering::Relaxed) == 1;
        async move {
            if !is_second {
                tx.set(b"a", b"mine");
                return Ok(7);
            }
            assert_eq!(tx.get(b"a").await?, None);
            if waits {
                until_there(database, "a").await;
            }
            Err(Error::new(ErrorKind::AlreadyExists, "it is refused for what it has read"))
        }
    });
    outcome.await
}

/// The state that the second attempt finds may be the first one's effect.
pub(super) async fn a_later_answer_is_not_believed_while_an_earlier_attempt_may_come_in(
    database: Database,
) {
    let outcome = refused_by_the_second(&database, true).await;
    assert_eq!(outcome.unwrap(), 7, "the first attempt's answer");
}

pub(super) async fn after_a_later_answer_no_earlier_attempt_comes_in(database: Database) {
    let outcome = refused_by_the_second(&database, false).await;
    tokio::time::sleep(LATE).await;
    // If the first was applied before that reply, it has returned its own result.
    assert_eq!(value(&database, "a").await.is_some(), outcome.is_ok());
}
