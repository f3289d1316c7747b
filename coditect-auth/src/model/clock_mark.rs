//! The newest clock reading that the purge trusts.

use chrono::{
    DateTime, TimeDelta, Utc,
    serde::{ts_microseconds, ts_microseconds_option},
};
use coditect_store::{
    Entity, indexes,
    keyspace::{Global, Space},
};
use serde::{Deserialize, Serialize};

/// Time for which a clock that has jumped ahead must run on before the purge trusts it.
pub const CLOCK_SETTLE_TIME: TimeDelta = TimeDelta::hours(24);

/// The newest clock reading that the purge trusts, so that a start with a clock years ahead removes nothing.
/// There is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockMark {
    /// The trusted reading.
    #[serde(with = "ts_microseconds")]
    pub trusted_at: DateTime<Utc>,
    /// First reading of a clock that is ahead of it by more than a step.
    #[serde(with = "ts_microseconds_option")]
    pub ahead_since: Option<DateTime<Utc>>,
    /// Last reading of that clock.
    #[serde(with = "ts_microseconds_option")]
    pub ahead_at: Option<DateTime<Utc>>,
}

impl ClockMark {
    /// Returns a mark that trusts `now`.
    pub fn trusting(now: DateTime<Utc>) -> Self {
        Self { trusted_at: now, ahead_since: None, ahead_at: None }
    }

    /// Returns the mark after a reading of `now`; it trusts the reading if its
    /// [`trusted_at`](Self::trusted_at) is that.
    ///
    /// A reading is trusted if it is at most `step` ahead of the last trusted one, or if the clock has run
    /// on from where it jumped to, in steps of at most `step`, for [`CLOCK_SETTLE_TIME`]. One behind is
    /// always trusted: it removes nothing that an earlier one has not.
    #[must_use]
    pub fn after(&self, now: DateTime<Utc>, step: TimeDelta) -> Self {
        let is_within = |from: DateTime<Utc>| now.signed_duration_since(from) <= step;
        if is_within(self.trusted_at) {
            return Self::trusting(now);
        }
        let runs_on = self.ahead_at.is_some_and(|last| now >= last && is_within(last));
        let since = self.ahead_since.filter(|_| runs_on).unwrap_or(now);
        if now.signed_duration_since(since) >= CLOCK_SETTLE_TIME {
            return Self::trusting(now);
        }
        Self { ahead_since: Some(since), ahead_at: Some(now), ..*self }
    }
}

impl Entity for ClockMark {
    type Scope = Global;
    type Key = ();
    const SPACE: Space<Global> = Space::global("clock_mark").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) {}
}

indexes! { ClockMark => }

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEP: TimeDelta = TimeDelta::minutes(90);

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + minutes * 60, 0).unwrap()
    }

    /// The readings that are trusted, of a clock that is read at these minutes.
    fn trusted(readings: impl IntoIterator<Item = i64>) -> Vec<i64> {
        let mut mark = ClockMark::trusting(at(0));
        let mut trusted = Vec::new();
        for minutes in readings {
            mark = mark.after(at(minutes), STEP);
            if mark.trusted_at == at(minutes) {
                trusted.push(minutes);
            }
        }
        trusted
    }

    #[test]
    fn clock_that_runs_on_is_trusted() {
        assert_eq!(trusted([10, 20, 110, 200]), [10, 20, 110, 200]);
        assert_eq!(trusted([10, 5, -100_000, 0]), [10, 5, -100_000], "a correction backwards, too");
    }

    #[test]
    fn clock_that_jumped_is_trusted_after_a_day_of_running_on() {
        let years = 5_000_000;
        assert_eq!(trusted([10, years, years + 10, 20, 30]), [10, 20, 30]);
        let day = (0..=144).map(|n| years + n * 10);
        assert_eq!(trusted(day), [years + 1_440]);
        // Starts that are days apart are no running on.
        assert_eq!(trusted((0..100).map(|n| years + n * 2_000)), [0_i64; 0]);
    }

    proptest! {
        /// Nothing is trusted that is further ahead of real time than a step, while the clock is ahead for
        /// less than a day.
        #[test]
        fn clock_that_is_ahead_for_less_than_a_day_is_never_trusted(
            before in prop::collection::vec(1..90_i64, 0..20),
            ahead in 91..10_000_000_i64,
            during in prop::collection::vec(1..90_i64, 0..16),
        ) {
            let mut minutes = 0;
            let real: Vec<i64> = before.iter().map(|by| { minutes += by; minutes }).collect();
            let mut wrong = minutes + ahead;
            let jumped: Vec<i64> = during.iter().map(|by| { wrong += by; wrong }).collect();
            let last = [minutes + 1];
            let readings = real.iter().chain(&jumped).chain(&last).copied();
            let expected: Vec<i64> = real.iter().chain(&last).copied().collect();
            prop_assert_eq!(trusted(readings), expected);
        }
    }
}
