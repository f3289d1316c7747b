//! Running a closure in a transaction until it is through.
//!
//! What is retried: what [passes by itself](Error::is_retryable), that is `Conflict`, `TooOld` and what a
//! cluster answers that is busy with itself, from the closure's reads or from the commit, with a back-off
//! that grows from [`RetryPolicy::first_delay`] to [`RetryPolicy::longest_delay`], a random part of it,
//! within a budget of attempts and time. The last error is returned when the budget is spent. Every
//! other error is returned at once, and nothing of that attempt is written.
//!
//! `MaybeCommitted` is never answered by running the closure again blindly: see [`Unknown`]. Once an
//! attempt's outcome is unknown, nothing that a later attempt finds is believed until it is certain
//! that the first cannot come in late, and an error that leaves that open is `MaybeCommitted`.
//!
//! What the closure must heed: it may run several times, so what it does outside the transaction
//! happens several times, and ids are made outside of it.

use std::time::{Duration, Instant};

use crate::{
    Error, ErrorKind, Result, RunError,
    engine::{Database, Transaction, conflict, may_be_in_flight, maybe_committed},
    telemetry::{self, RunOutcome},
};

/// How long, and how, a transaction is tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The most attempts.
    pub attempts: u32,
    /// No further attempt begins after this.
    pub time: Duration,
    /// The longest wait before the second attempt; each further one may be twice as long.
    pub first_delay: Duration,
    /// What waits don't grow beyond.
    pub longest_delay: Duration,
    /// What to do about an attempt whose outcome is unknown.
    pub unknown: Unknown,
}

impl RetryPolicy {
    /// Sets `attempts`.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Sets `time`.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Sets `first_delay`.
    #[must_use]
    pub fn first_delay(mut self, first_delay: Duration) -> Self {
        self.first_delay = first_delay;
        self
    }

    /// Sets `longest_delay`.
    #[must_use]
    pub fn longest_delay(mut self, longest_delay: Duration) -> Self {
        self.longest_delay = longest_delay;
        self
    }

    /// Sets `unknown`.
    #[must_use]
    pub fn unknown(mut self, unknown: Unknown) -> Self {
        self.unknown = unknown;
        self
    }
}

/// What to do about an attempt whose outcome is unknown: `MaybeCommitted`.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Unknown {
    /// Return the error: the caller decides.
    #[default]
    Return,
    /// Run the closure again: it is right to do it twice, or it recognises its own work. An attempt that
    /// may come in even later, over what others do meanwhile, is returned as an error all the same (a
    /// commit that a cluster did not answer in time: 1031).
    RunAgain,
    /// Look whether it was committed: each attempt sets this key, which no other call ever uses, to
    /// its number; of two that are under way one comes in. One that was gives its answer, one that was not is run again. The key stays
    /// behind, for the caller to clear some day.
    Recognise(Vec<u8>),
}

impl RetryPolicy {
    /// The default, for what is right to do twice: an unknown outcome is run again.
    pub fn idempotent() -> Self {
        Self { unknown: Unknown::RunAgain, ..Self::default() }
    }
}

impl Default for RetryPolicy {
    /// 100 attempts within 30 s, waiting up to 2 ms at first and 500 ms at the most; an unknown
    /// outcome is returned.
    fn default() -> Self {
        Self {
            attempts: 100,
            time: Duration::from_secs(30),
            first_delay: Duration::from_millis(2),
            longest_delay: Duration::from_millis(500),
            unknown: Unknown::Return,
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
    let (started, mut attempts) = (Instant::now(), 0);
    let outcome = attempt(database, policy, body, &mut attempts).await;
    let told = match &outcome {
        Ok(_) => RunOutcome::Committed,
        Err(error) => match error.store_error() {
            Some(failure) if !is_answer(error) => RunOutcome::Failed(failure.kind()),
            _ => RunOutcome::Refused,
        },
    };
    telemetry::ran(told, attempts, started.elapsed());
    outcome
}

/// Makes attempts, counted by `number`, until one commits or there shall be no more.
async fn attempt<T, E, F, Fut>(
    database: &Database,
    policy: &RetryPolicy,
    body: F,
    number: &mut u32,
) -> Result<T, E>
where
    E: RunError,
    F: Fn(Transaction) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut open = Open { policy, attempts: Vec::new() };
    loop {
        *number += 1;
        let number = *number;
        let tx = database.begin();
        let error: E = match open.recognise(&tx).await {
            Ok(Some(answer)) => return Ok(answer),
            Err(error) => error.into(),
            Ok(None) => match body(tx.clone()).await {
                Ok(answer) => {
                    let committed = match open.mark(&tx, number).await {
                        Ok(()) => tx.commit().await,
                        Err(error) => Err(error),
                    };
                    match committed {
                        Ok(()) => return Ok(answer),
                        Err(error) => {
                            if error.kind() == ErrorKind::MaybeCommitted {
                                open.attempts.push((number, answer));
                            }
                            error.into()
                        }
                    }
                }
                Err(error) if !is_answer(&error) => error,
                // It holds once it is sure that no earlier attempt comes in late: when a commit
                // that saw no marker has set one.
                Err(error) => match open.settle(database, number).await {
                    Ok(()) => return Err(error),
                    Err(unsettled) => unsettled.into(),
                },
            },
        };
        let wait = delay(policy, number);
        let may_go_on = number < policy.attempts && started.elapsed() + wait < policy.time;
        let reason = error.store_error().map(Error::kind);
        match reason {
            _ if may_go_on && error.store_error().is_some_and(Error::is_retryable) => {}
            Some(ErrorKind::MaybeCommitted) if may_go_on && open.may_run_again(&error) => {}
            Some(ErrorKind::MaybeCommitted) => return Err(error),
            _ if open.attempts.is_empty() => return Err(error),
            _ => return Err(maybe_committed().into()),
        }
        tracing::debug!(attempt = number, ?reason, ?wait, "a transaction is run again");
        telemetry::retried(reason);
        tokio::time::sleep(wait).await;
    }
}

/// Whether it is the closure's answer, rather than the transaction's failure.
fn is_answer<E: RunError>(error: &E) -> bool {
    error.store_error().is_none_or(|error| {
        matches!(
            error.kind(),
            ErrorKind::Exists
                | ErrorKind::NotFound
                | ErrorKind::Stale
                | ErrorKind::Unique(_)
                | ErrorKind::Quota(_)
                | ErrorKind::Invalid
        )
    })
}

/// The attempts whose outcome is unknown, by number, with the answers they would have given.
struct Open<'a, T> {
    policy: &'a RetryPolicy,
    attempts: Vec<(u32, T)>,
}

impl<T> Open<'_, T> {
    fn marker(&self) -> Option<&[u8]> {
        match &self.policy.unknown {
            Unknown::Recognise(marker) => Some(marker),
            Unknown::Return | Unknown::RunAgain => None,
        }
    }

    /// Whether an unknown outcome may be met by another attempt. Where the first may come in after that
    /// one, what is right to do twice may still be wrong to do late: over what others did meanwhile.
    fn may_run_again<E: RunError>(&self, error: &E) -> bool {
        match self.policy.unknown {
            Unknown::Return => false,
            Unknown::RunAgain => {
                !error.store_error().and_then(Error::code).is_some_and(may_be_in_flight)
            }
            Unknown::Recognise(_) => true,
        }
    }

    /// Has `tx` set the marker, and conflict with any other attempt that sets it first: of two that are
    /// under way, one comes in. It is checked from now on: one that has read nothing would be checked from
    /// when it comes in, which may be after the other.
    async fn mark(&self, tx: &Transaction, number: u32) -> Result<()> {
        let Some(marker) = self.marker() else { return Ok(()) };
        tx.read_version().await?;
        tx.add_read_conflict_range(marker, &[marker, &[0]].concat())?;
        tx.set(marker, &number.to_be_bytes());
        Ok(())
    }

    /// The answer of the one that turns out to have been committed, if one has. That its marker is
    /// read makes `tx` conflict with a late arrival of it.
    async fn recognise(&mut self, tx: &Transaction) -> Result<Option<T>> {
        if self.attempts.is_empty() {
            return Ok(None);
        }
        let Some(marker) = self.marker() else { return Ok(None) };
        let Some(number) = tx.get(marker).await? else { return Ok(None) };
        let found = self.attempts.iter().position(|(at, _)| at.to_be_bytes() == *number);
        Ok(found.map(|at| self.attempts.swap_remove(at).1))
    }

    /// Makes sure that none of them comes in any more.
    async fn settle(&self, database: &Database, number: u32) -> Result<()> {
        let Some(marker) = self.marker().filter(|_| !self.attempts.is_empty()) else {
            return Ok(());
        };
        let tx = database.begin();
        if tx.get(marker).await?.is_some() {
            // One did come in: the next attempt recognises it.
            return Err(conflict());
        }
        self.mark(&tx, number).await?;
        tx.commit().await
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
    use super::*;

    #[test]
    fn waits_grow_and_stay_bounded() {
        let policy = RetryPolicy::default();
        for number in [1, 2, 10, 40, u32::MAX] {
            assert!(delay(&policy, number) <= policy.longest_delay);
        }
        assert!(delay(&policy, 1) <= policy.first_delay);
    }
}
