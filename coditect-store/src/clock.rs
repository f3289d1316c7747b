//! Injected time: code reads a [`Clock`], which tests can advance.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// A source of wall-clock time. A cheap handle; clones share the source.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// The system's clock, set ahead.
    Shifted(TimeDelta),
    Manual(Arc<Mutex<DateTime<Utc>>>),
}

/// A clock that stands still until it is advanced, for tests.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<DateTime<Utc>>>);

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns the system's clock set ahead by `offset`, or back if that is negative; for tests of
    /// how a program copes with a wrong clock.
    pub fn system_ahead_by(offset: TimeDelta) -> Self {
        Self(Source::Shifted(offset))
    }

    /// Returns the current time in UTC, truncated to microseconds, the precision of records: a
    /// stored time equals the one read back. It may go backwards when the system's clock is set.
    pub fn now(&self) -> DateTime<Utc> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that reads the system's clock"
        )]
        let system = Utc::now;
        let now = match &self.0 {
            Source::System => system(),
            Source::Shifted(offset) => {
                system().checked_add_signed(*offset).unwrap_or(DateTime::<Utc>::MAX_UTC)
            }
            Source::Manual(at) => *at.lock().unwrap_or_else(PoisonError::into_inner),
        };
        now.trunc_subsecs(6)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl From<&ManualClock> for Clock {
    fn from(clock: &ManualClock) -> Self {
        Self(Source::Manual(Arc::clone(&clock.0)))
    }
}

impl ManualClock {
    /// Returns a clock set to `at`.
    pub fn new(at: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Advances the clock by `by`, which may be negative.
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}
