//! Running a closure in a transaction until it is through.
//!
//! What is retried: `Conflict` and `TooOld`, from the closure's reads or from the commit, with a
//! back-off that grows from [`RetryPolicy::first_delay`] to [`RetryPolicy::longest_delay`], a random
//! part of it, within a budget of attempts and time. The last error is returned when the budget is
//! spent. Every other error is returned at once, and nothing of that attempt is written.
//!
//! `MaybeCommitted` is never answered by running the closure again blindly. With a
//! [marker](RetryPolicy::marker) each attempt also sets that key; after an unknown outcome the loop
//! looks whether it is there: if so that attempt did commit and its answer is returned, if not it
//! did not and is run again. Without a marker the error is returned, and stays `MaybeCommitted`.
//!
//! What the closure must heed: it may run several times, so what it does outside the transaction
//! happens several times, and ids are made outside of it.

use std::time::{Duration, Instant};

use crate::{
    ErrorKind, Result, RunError,
    engine::{Database, Transaction, maybe_committed},
};

/// How long, and how, a transaction is tried again.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// The most attempts.
    pub attempts: u32,
    /// No further attempt begins after this.
    pub time: Duration,
    /// The longest wait before the second attempt; each further one may be twice as long.
    pub first_delay: Duration,
    /// What waits don't grow beyond.
    pub longest_delay: Duration,
    /// A key that only this call sets: by it an attempt whose outcome is unknown is recognised.
    pub marker: Option<Vec<u8>>,
}

impl Default for RetryPolicy {
    /// 100 attempts within 30 s, waiting up to 2 ms at first and 500 ms at the most; no marker.
    fn default() -> Self {
        Self {
            attempts: 100,
            time: Duration::from_secs(30),
            first_delay: Duration::from_millis(2),
            longest_delay: Duration::from_millis(500),
            marker: None,
        }
    }
}

/// Runs `body` in transactions of `database` until one commits: see the [module](self).
pub async fn run<T, E, F, Fut>(database: &Database, policy: &RetryPolicy, body: F) -> Result<T, E>
where
    E: RunError,
    F: Fn(Transaction) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    run_with(database, policy, body, |tx| async move { tx.commit().await }).await
}

/// As [`run`], with the commit passed in, so that tests can lose its answer.
async fn run_with<T, E, F, Fut, C, CommitFut>(
    database: &Database,
    policy: &RetryPolicy,
    body: F,
    commit: C,
) -> Result<T, E>
where
    E: RunError,
    F: Fn(Transaction) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    C: Fn(Transaction) -> CommitFut,
    CommitFut: Future<Output = Result<()>>,
{
    let started = Instant::now();
    let mut unknown = Unknown(Vec::new());
    let mut number: u32 = 0;
    loop {
        number += 1;
        let tx = database.begin();
        let error: E = match unknown.recognise(&tx, policy).await {
            Ok(Some(answer)) => return Ok(answer),
            Err(error) => error.into(),
            Ok(None) => match body(tx.clone()).await {
                Err(error) => error,
                Ok(answer) => {
                    if let Some(marker) = &policy.marker {
                        tx.set(marker, &number.to_be_bytes());
                    }
                    match commit(tx).await {
                        Ok(()) => return Ok(answer),
                        Err(error) => {
                            if error.kind() == ErrorKind::MaybeCommitted {
                                unknown.0.push((number, answer));
                            }
                            error.into()
                        }
                    }
                }
            },
        };
        // An error of the closure's own is an answer: its transaction saw whether the marker is
        // there. One of the store's leaves open what was open before.
        let Some(cause) = error.store_error() else {
            return Err(error);
        };
        let again = match cause.kind() {
            ErrorKind::MaybeCommitted => policy.marker.is_some() && !unknown.0.is_empty(),
            _ => cause.is_retryable(),
        };
        if !again || number >= policy.attempts || started.elapsed() >= policy.time {
            let settled = unknown.0.is_empty() || cause.kind() == ErrorKind::MaybeCommitted;
            return Err(if settled { error } else { maybe_committed().into() });
        }
        tokio::time::sleep(delay(policy, number)).await;
    }
}

/// The attempts whose outcome is unknown, by number, with the answers they would have given.
struct Unknown<T>(Vec<(u32, T)>);

impl<T> Unknown<T> {
    /// The answer of the one that turns out to have been committed, if one has. That its marker is
    /// read makes `tx` conflict with a late arrival of it, so the question stays open until a
    /// transaction that saw no marker commits.
    async fn recognise(&mut self, tx: &Transaction, policy: &RetryPolicy) -> Result<Option<T>> {
        let Some(marker) = policy.marker.as_ref().filter(|_| !self.0.is_empty()) else {
            return Ok(None);
        };
        let Some(number) = tx.get(marker).await? else {
            return Ok(None);
        };
        let found = self.0.iter().position(|(attempt, _)| attempt.to_be_bytes() == *number);
        Ok(found.map(|at| self.0.swap_remove(at).1))
    }
}

/// How long to wait after attempt `number`: a random part of a bound that doubles.
fn delay(policy: &RetryPolicy, number: u32) -> Duration {
    let bound = policy
        .first_delay
        .saturating_mul(1_u32.checked_shl(number - 1).unwrap_or(u32::MAX))
        .min(policy.longest_delay);
    // Without randomness (which the system doesn't refuse once it has booted) all wait alike.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::engine::AtomicOp;

    fn quick(marker: Option<&[u8]>) -> RetryPolicy {
        RetryPolicy {
            attempts: 5,
            first_delay: Duration::from_micros(10),
            marker: marker.map(<[u8]>::to_vec),
            ..RetryPolicy::default()
        }
    }

    async fn add(tx: Transaction) -> Result<u32> {
        tx.atomic(AtomicOp::Add, b"n", &1_u32.to_le_bytes());
        Ok(7)
    }

    async fn sum(database: &Database) -> u32 {
        let value = database.begin().get(b"n").await.unwrap();
        value.map_or(0, |value| u32::from_le_bytes(value.try_into().unwrap()))
    }

    #[tokio::test]
    async fn an_unknown_outcome_without_a_marker_is_returned_and_not_tried_again() {
        let database = Database::memory().unwrap();
        let lose = |tx: Transaction| async move {
            tx.commit().await?;
            Err(maybe_committed())
        };
        let outcome = run_with(&database, &quick(None), add, lose).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::MaybeCommitted);
        assert_eq!(sum(&database).await, 1);
    }

    #[tokio::test]
    async fn an_attempt_that_did_commit_is_recognised_by_its_marker() {
        let database = Database::memory().unwrap();
        let commits = AtomicU32::new(0);
        let lose_the_answer = |tx: Transaction| {
            let first = commits.fetch_add(1, Ordering::Relaxed) == 0;
            async move {
                tx.commit().await?;
                if first { Err(maybe_committed()) } else { Ok(()) }
            }
        };
        let answer = run_with(&database, &quick(Some(b"marker")), add, lose_the_answer).await;
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(sum(&database).await, 1, "it was not added twice");
    }

    #[tokio::test]
    async fn an_attempt_that_did_not_commit_is_run_again() {
        let database = Database::memory().unwrap();
        let commits = AtomicU32::new(0);
        let lose_the_commit = |tx: Transaction| {
            let first = commits.fetch_add(1, Ordering::Relaxed) == 0;
            async move { if first { Err(maybe_committed()) } else { tx.commit().await } }
        };
        let answer = run_with(&database, &quick(Some(b"marker")), add, lose_the_commit).await;
        assert_eq!(answer.unwrap(), 7);
        assert_eq!(sum(&database).await, 1);
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_not_overwritten_by_a_later_conflict() {
        let database = Database::memory().unwrap();
        let commits = AtomicU32::new(0);
        let unknown_then_conflicts = |_| {
            let first = commits.fetch_add(1, Ordering::Relaxed) == 0;
            async move { Err(if first { maybe_committed() } else { crate::engine::conflict() }) }
        };
        let policy = quick(Some(b"marker"));
        let outcome = run_with(&database, &policy, add, unknown_then_conflicts).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::MaybeCommitted);
        assert_eq!(commits.into_inner(), policy.attempts);
    }

    #[tokio::test]
    async fn the_budget_of_attempts_is_kept() {
        let database = Database::memory().unwrap();
        let commits = AtomicU32::new(0);
        let conflicts = |_| {
            commits.fetch_add(1, Ordering::Relaxed);
            async { Err(crate::engine::conflict()) }
        };
        let outcome = run_with(&database, &quick(None), add, conflicts).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(commits.into_inner(), 5);
    }

    #[test]
    fn waits_grow_and_stay_bounded() {
        let policy = RetryPolicy::default();
        for number in [1, 2, 10, 40, u32::MAX] {
            assert!(delay(&policy, number) <= policy.longest_delay);
        }
        assert!(delay(&policy, 1) <= policy.first_delay);
    }
}
