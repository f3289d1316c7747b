//! Runs a closure in transactions until one commits.
//!
//! # Retries
//!
//! An attempt that fails with a [retryable](Error::is_retryable) error, from a read or from the
//! commit, is made again: `Conflict`, `TransactionTooOld`, or a passing condition of a cluster. The
//! delay is random, below a bound that doubles from [`RetryPolicy::initial_delay`] to
//! [`RetryPolicy::max_delay`]. When the attempts or the time are used up, the last error is
//! returned. Every other error is returned at once, and nothing of its attempt is written.
//!
//! # Unknown outcomes
//!
//! After `MaybeCommitted` the policy decides: see [`OnUnknownOutcome`]. The attempt may still
//! commit later, so a later attempt's result is returned only once the earlier one can no longer
//! commit; otherwise the error is `MaybeCommitted`.
//!
//! # The closure
//!
//! The closure may run several times, and so do its effects outside of the transaction. Generate
//! ids before the call, not in the closure.

use std::time::{Duration, Instant};

use crate::{
    Error, ErrorKind, Result, RunError,
    engine::{Database, Transaction, conflict, may_be_in_flight, maybe_committed, timer},
    telemetry::{self, RunOutcome},
};

/// The retry budget of a transaction, and its response to an unknown outcome.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Time after which no further attempt begins.
    pub timeout: Duration,
    /// Upper bound of the delay before the second attempt; it doubles with each further attempt.
    pub initial_delay: Duration,
    /// Maximum of that upper bound.
    pub max_delay: Duration,
    /// Response to an attempt whose outcome is unknown.
    pub on_unknown_outcome: OnUnknownOutcome,
}

impl RetryPolicy {
    /// Sets `max_attempts`.
    #[must_use]
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Sets `timeout`.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets `initial_delay`.
    #[must_use]
    pub fn initial_delay(mut self, initial_delay: Duration) -> Self {
        self.initial_delay = initial_delay;
        self
    }

    /// Sets `max_delay`.
    #[must_use]
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// Sets `on_unknown_outcome`.
    #[must_use]
    pub fn on_unknown_outcome(mut self, on_unknown_outcome: OnUnknownOutcome) -> Self {
        self.on_unknown_outcome = on_unknown_outcome;
        self
    }
}

/// Response to an attempt whose outcome is unknown (`MaybeCommitted`).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum OnUnknownOutcome {
    /// Returns the error.
    #[default]
    Fail,
    /// Runs the closure again. For closures that are idempotent. An attempt that may still commit
    /// after a later one (1031, a commit that timed out on a cluster) is returned as an error,
    /// because it could overwrite writes of other transactions.
    Retry,
    /// Sets this key to the attempt's number in each attempt, and reads it after an unknown
    /// outcome: if that attempt committed, its result is returned; otherwise the closure runs
    /// again. At most one attempt commits. Each call needs a key of its own, and deletes it when it
    /// is no longer needed.
    CheckMarker(Vec<u8>),
}

impl RetryPolicy {
    /// Returns the default policy for an idempotent closure, which runs again after an unknown
    /// outcome.
    pub fn idempotent() -> Self {
        Self { on_unknown_outcome: OnUnknownOutcome::Retry, ..Self::default() }
    }
}

impl Default for RetryPolicy {
    /// Returns a policy of 100 attempts within 30 s, with delays of up to 2 ms at first and 500 ms
    /// at most, that fails on an unknown outcome.
    fn default() -> Self {
        Self {
            max_attempts: 100,
            timeout: Duration::from_secs(30),
            initial_delay: Duration::from_millis(2),
            max_delay: Duration::from_millis(500),
            on_unknown_outcome: OnUnknownOutcome::Fail,
        }
    }
}

impl Database {
    /// Runs `body` in transactions until one commits, with the default [`RetryPolicy`]. `body` may
    /// run several times: see [`retry`](self).
    ///
    /// `body` is a closure that returns a future rather than an async closure, because the compiler
    /// cannot prove yet that futures of async closures are [`Send`].
    pub async fn run<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        E: RunError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        run(self, &RetryPolicy::default(), body).await
    }
}

/// Runs `body` in transactions of `database` until one commits: see the [module](self).
pub async fn run<T, E, F, Fut>(database: &Database, policy: &RetryPolicy, body: F) -> Result<T, E>
where
    E: RunError,
    F: Fn(Transaction) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let mut attempts = Attempts::new(database, policy);
    loop {
        let tx = attempts.begin();
        let ended = match attempts.committed_earlier(&tx).await {
            Ok(None) => {
                let outcome = body(tx.clone()).await;
                attempts.end(&tx, outcome).await
            }
            Ok(Some(result)) => Some(attempts.report(Ok(result))),
            Err(error) => attempts.retry(error.into()).await,
        };
        if let Some(result) = ended {
            return result;
        }
    }
}

/// Runs a block in transactions of a [`Store`](crate::Store) until one commits, as
/// [`Store::run`](crate::Store::run) does. The block is part of the calling function, so it borrows
/// local variables, mutably too. It may run several times.
///
/// ```
/// # use coditect_store::{Error, Store, model::{Tenant, TenantId}, transact};
/// # async fn example(store: Store, tenant: TenantId, name: String) -> Result<(), Error> {
/// let before = transact!(store, |tx| {
///     let mut record = tx.get_required::<Tenant>(tenant, ()).await?;
///     let before = std::mem::replace(&mut record.name, name.clone());
///     tx.update(&record).await?;
///     Ok(before)
/// })?;
/// # let _ = before; Ok(()) }
/// ```
///
/// `?` and `return` end the attempt. The result is a [`Result`](crate::Result), or the type given
/// as `|tx| -> Result<T, E> { … }`, whose error is a [`RunError`]. A second argument, `transact!(
/// store, &policy, |tx| { … })`, is a [`RetryPolicy`].
#[macro_export]
macro_rules! transact {
    ($store:expr, |$tx:ident| $body:block) => {
        $crate::transact!($store, |$tx| -> $crate::Result<_> $body)
    };
    ($store:expr, |$tx:ident| -> $result:ty $body:block) => {
        $crate::transact!($store, &$crate::retry::RetryPolicy::default(), |$tx| -> $result $body)
    };
    ($store:expr, $policy:expr, |$tx:ident| $body:block) => {
        $crate::transact!($store, $policy, |$tx| -> $crate::Result<_> $body)
    };
    ($store:expr, $policy:expr, |$tx:ident| -> $result:ty $body:block) => {{
        let store: &$crate::Store = &$store;
        let policy: &$crate::retry::RetryPolicy = $policy;
        let mut attempts = $crate::retry::Attempts::new(store.database(), policy);
        loop {
            let attempt = attempts.begin();
            let ended: ::core::option::Option<$result> =
                match attempts.committed_earlier(&attempt).await {
                    ::core::result::Result::Ok(::core::option::Option::None) => {
                        let $tx = store.typed(attempt.clone());
                        let outcome = async {
                            let outcome: $result = $body;
                            outcome
                        };
                        let outcome = outcome.await;
                        attempts.end(&attempt, outcome).await
                    }
                    ::core::result::Result::Ok(::core::option::Option::Some(result)) => {
                        let result = ::core::result::Result::Ok(result);
                        ::core::option::Option::Some(attempts.report(result))
                    }
                    ::core::result::Result::Err(error) => {
                        attempts.retry(::core::convert::From::from(error)).await
                    }
                };
            if let ::core::option::Option::Some(result) = ended {
                break result;
            }
        }
    }};
}

/// The attempts of one run, for [`transact!`](crate::transact) and [`run`].
#[doc(hidden)]
pub struct Attempts<'a, T> {
    database: &'a Database,
    undecided: Undecided<'a, T>,
    started: Instant,
    number: u32,
}

impl<'a, T> Attempts<'a, T> {
    pub fn new(database: &'a Database, policy: &'a RetryPolicy) -> Self {
        let undecided = Undecided { policy, attempts: Vec::new() };
        Self { database, undecided, started: Instant::now(), number: 0 }
    }

    /// Begins the next attempt.
    pub fn begin(&mut self) -> Transaction {
        self.number += 1;
        self.database.begin()
    }

    /// Returns the result of an earlier attempt that turns out to have committed. Otherwise the
    /// body runs in `tx`.
    ///
    /// # Errors
    ///
    /// Errors of the engine, for [`retry`](Self::retry).
    pub async fn committed_earlier(&mut self, tx: &Transaction) -> Result<Option<T>> {
        self.undecided.take_committed(tx).await
    }

    /// Commits `tx` if the body succeeded. Returns the result of the run, or `None` if there is
    /// another attempt.
    pub async fn end<E: RunError>(
        &mut self,
        tx: &Transaction,
        outcome: Result<T, E>,
    ) -> Option<Result<T, E>> {
        let number = self.number;
        let error = match outcome {
            Ok(result) => {
                let committed = match self.undecided.set_marker(tx, number).await {
                    Ok(()) => tx.commit().await,
                    Err(error) => Err(error),
                };
                match committed {
                    Ok(()) => return Some(self.report(Ok(result))),
                    Err(error) => {
                        if error.kind() == ErrorKind::MaybeCommitted {
                            self.undecided.attempts.push((number, result));
                        }
                        error.into()
                    }
                }
            }
            Err(error) if !is_result_of_body(&error) => error,
            // The body's error is final only if no earlier attempt can still commit.
            Err(error) => match self.undecided.fence(self.database, number).await {
                Ok(()) => return Some(self.report(Err(error))),
                Err(failure) => failure.into(),
            },
        };
        self.retry(error).await
    }

    /// Waits for the delay after the failure `error` of an attempt. Returns the result of the run
    /// if there is no other attempt.
    pub async fn retry<E: RunError>(&mut self, error: E) -> Option<Result<T, E>> {
        let policy = self.undecided.policy;
        let delay = delay(policy, self.number);
        let has_budget =
            self.number < policy.max_attempts && self.started.elapsed() + delay < policy.timeout;
        let reason = error.store_error().map(Error::kind);
        let last = match reason {
            _ if has_budget && error.store_error().is_some_and(Error::is_retryable) => None,
            Some(ErrorKind::MaybeCommitted) if has_budget && self.undecided.may_retry(&error) => {
                None
            }
            Some(ErrorKind::MaybeCommitted) => Some(error),
            _ if self.undecided.attempts.is_empty() => Some(error),
            _ => Some(maybe_committed().into()),
        };
        if let Some(last) = last {
            return Some(self.report(Err(last)));
        }
        tracing::debug!(attempt = self.number, ?reason, ?delay, "transaction retried");
        telemetry::retried(reason);
        match timer::sleep(delay).await {
            Ok(()) => None,
            Err(error) => Some(self.report(Err(error.into()))),
        }
    }

    /// Returns the result of the run, after recording it.
    pub fn report<E: RunError>(&self, result: Result<T, E>) -> Result<T, E> {
        let outcome = match &result {
            Ok(_) => RunOutcome::Committed,
            Err(error) => match error.store_error() {
                Some(failure) if !is_result_of_body(error) => RunOutcome::Failed(failure.kind()),
                _ => RunOutcome::Refused,
            },
        };
        telemetry::ran(outcome, self.number, self.started.elapsed());
        result
    }
}

/// Returns whether `error` is the body's result, rather than a failure of the transaction.
fn is_result_of_body<E: RunError>(error: &E) -> bool {
    error.store_error().is_none_or(|error| {
        matches!(
            error.kind(),
            ErrorKind::AlreadyExists
                | ErrorKind::NotFound
                | ErrorKind::RevisionMismatch
                | ErrorKind::UniqueViolation(_)
                | ErrorKind::QuotaExceeded(_)
                | ErrorKind::Invalid
        )
    })
}

/// The attempts whose outcome is unknown, by number, with the results of their closures.
struct Undecided<'a, T> {
    policy: &'a RetryPolicy,
    attempts: Vec<(u32, T)>,
}

impl<T> Undecided<'_, T> {
    fn marker(&self) -> Option<&[u8]> {
        match &self.policy.on_unknown_outcome {
            OnUnknownOutcome::CheckMarker(marker) => Some(marker),
            OnUnknownOutcome::Fail | OnUnknownOutcome::Retry => None,
        }
    }

    /// Returns whether to make another attempt after the unknown outcome `error`. Without a marker,
    /// not while the attempt may still commit: an idempotent write that commits late overwrites
    /// writes of other transactions.
    fn may_retry<E: RunError>(&self, error: &E) -> bool {
        match self.policy.on_unknown_outcome {
            OnUnknownOutcome::Fail => false,
            OnUnknownOutcome::Retry => {
                !error.store_error().and_then(Error::code).is_some_and(may_be_in_flight)
            }
            OnUnknownOutcome::CheckMarker(_) => true,
        }
    }

    /// Sets the marker in `tx`, and adds it to the read conflicts, so that one of several attempts
    /// commits. The read version is requested first: a transaction without one is checked against
    /// the writes since its commit began, which may be later than the other attempt.
    async fn set_marker(&self, tx: &Transaction, number: u32) -> Result<()> {
        let Some(marker) = self.marker() else { return Ok(()) };
        tx.read_version().await?;
        tx.add_read_conflict_range(marker, &[marker, &[0]].concat())?;
        tx.set(marker, &number.to_be_bytes());
        Ok(())
    }

    /// Returns the result of the attempt that has committed, according to the marker. Reading the
    /// marker makes `tx` conflict with an attempt that commits later.
    async fn take_committed(&mut self, tx: &Transaction) -> Result<Option<T>> {
        if self.attempts.is_empty() {
            return Ok(None);
        }
        let Some(marker) = self.marker() else { return Ok(None) };
        let Some(number) = tx.get(marker).await? else { return Ok(None) };
        let found = self.attempts.iter().position(|(at, _)| at.to_be_bytes() == *number);
        Ok(found.map(|at| self.attempts.swap_remove(at).1))
    }

    /// Commits a write of the marker, after which none of the attempts can commit. Fails with
    /// `Conflict` if one has committed, so that the next attempt returns its result.
    async fn fence(&self, database: &Database, number: u32) -> Result<()> {
        let Some(marker) = self.marker().filter(|_| !self.attempts.is_empty()) else {
            return Ok(());
        };
        let tx = database.begin();
        if tx.get(marker).await?.is_some() {
            return Err(conflict());
        }
        self.set_marker(&tx, number).await?;
        tx.commit().await
    }
}

/// Returns the delay after attempt `number`: a random fraction of a bound that doubles.
fn delay(policy: &RetryPolicy, number: u32) -> Duration {
    let bound = policy
        .initial_delay
        .saturating_mul(1_u32.checked_shl(number - 1).unwrap_or(u32::MAX))
        .min(policy.max_delay);
    // Without randomness, which the system provides once it has booted, the delay is the bound.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    bound.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_bounded() {
        let policy = RetryPolicy::default();
        for number in [1, 2, 10, 40, u32::MAX] {
            assert!(delay(&policy, number) <= policy.max_delay);
        }
        assert!(delay(&policy, 1) <= policy.initial_delay);
    }
}
