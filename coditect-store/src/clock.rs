//! Time, passed in: whoever needs the hour asks a [`Clock`], so that a test can move it.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// A source of wall-clock time, cheap to clone and shared by all who must agree on the hour.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// The system's clock, set ahead.
    Shifted(TimeDelta),
    Manual(Arc<Mutex<DateTime<Utc>>>),
}

/// A clock that stands still until it is moved, for tests.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<DateTime<Utc>>>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns the system's clock set ahead by `offset`, or back if that is negative; for tests of
    /// how a program copes with a wrong clock.
    pub fn system_ahead_by(offset: TimeDelta) -> Self {
        Self(Source::Shifted(offset))
    }

    /// The present time, UTC, to the microsecond, as records keep it: one that was stored equals
    /// itself when it is read. It may go backwards when the operator sets the system's clock.
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
    /// A clock that shows `at`.
    pub fn new(at: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Moves the clock; a negative `by` moves it back.
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}
