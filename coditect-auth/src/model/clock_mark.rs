//! The newest clock reading that the purge trusts.

use chrono::{
    DateTime, TimeDelta, Utc,
    serde::{ts_microseconds, ts_microseconds_option},
};
use coditect_store::{
    Entity, indexes,
    keyspace::{Global, Subspace},
};
use serde::{Deserialize, Serialize};

/// Time for which a clock that has jumped ahead must run before the purge trusts it.
pub const CLOCK_SETTLE_TIME: TimeDelta = TimeDelta::hours(24);

/// Longest time without a reading after which the purge trusts the clock at once.
pub const MAX_DOWNTIME: TimeDelta = TimeDelta::days(30);

/// The newest clock reading that the purge trusts, so that a start with a clock years ahead removes
/// nothing. There is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockMark {
    /// The trusted reading.
    #[serde(with = "ts_microseconds")]
    pub trusted_at: DateTime<Utc>,
    /// Latest reading of a clock that is too far ahead of it.
    #[serde(with = "ts_microseconds_option")]
    pub ahead_at: Option<DateTime<Utc>>,
    /// Time for which that clock was seen running, in microseconds.
    pub ahead_micros: i64,
}

impl ClockMark {
    /// Returns a mark that trusts `now`.
    pub fn trusting(now: DateTime<Utc>) -> Self {
        Self { trusted_at: now, ahead_at: None, ahead_micros: 0 }
    }

    /// Returns the mark after a reading of `now`; it trusts the reading if its
    /// [`trusted_at`](Self::trusted_at) is that.
    ///
    /// A reading is trusted if it is at most [`MAX_DOWNTIME`] ahead of the last trusted one, or if
    /// the clock has run for [`CLOCK_SETTLE_TIME`] since it jumped. Readings at most `step` apart
    /// count as running. A longer stop counts as nothing, and starts the count again only if it is
    /// longer than [`MAX_DOWNTIME`] or the clock was set back meanwhile. A reading behind the
    /// trusted one is always trusted: it removes nothing that an earlier one has not.
    #[must_use]
    pub fn after(&self, now: DateTime<Utc>, step: TimeDelta) -> Self {
        if now.signed_duration_since(self.trusted_at) <= MAX_DOWNTIME.max(step) {
            return Self::trusting(now);
        }
        let started = Self { ahead_at: Some(now), ahead_micros: 0, ..*self };
        let Some(last) = self.ahead_at else { return started };
        let ran = now.signed_duration_since(last);
        if ran < -step || ran > MAX_DOWNTIME.max(step) {
            return started;
        }
        // Several servers read clocks that differ a little: no time is counted twice.
        let counted = if ran > step { TimeDelta::zero() } else { ran.max(TimeDelta::zero()) };
        let counted_micros = counted.num_microseconds().unwrap_or_default();
        let ahead_micros = self.ahead_micros.saturating_add(counted_micros);
        if TimeDelta::microseconds(ahead_micros) >= CLOCK_SETTLE_TIME {
            return Self::trusting(now);
        }
        Self { ahead_at: Some(last.max(now)), ahead_micros, ..*self }
    }
}

impl Entity for ClockMark {
    type Scope = Global;
    type Key = ();
    const SPACE: Subspace<Global> = Subspace::global("clock_mark").keyed(&[]);
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
        // Starts that are days apart are not time that it runs.
        assert_eq!(trusted((0..100).map(|n| years + n * 2_000)), [0_i64; 0]);
    }

    #[test]
    fn server_that_is_stopped_every_night_trusts_its_clock() {
        let days = (0..30).flat_map(|day| (0..8).map(move |hour| day * 1_440 + hour * 60));
        let days: Vec<i64> = days.collect();
        assert_eq!(trusted(days.clone()), days);
        let weeks = 28 * 1_440;
        assert_eq!(trusted([weeks, 2 * weeks]), [weeks, 2 * weeks]);
        assert_eq!(trusted([31 * 1_440]), [0_i64; 0]);
    }

    #[test]
    fn running_time_of_a_clock_that_jumped_adds_up_over_stops() {
        let years = 5_000_000;
        // Seven hours a day, from the first reading of a day to its last.
        let days = (0..5).flat_map(|day| (0..8).map(move |hour| years + day * 1_440 + hour * 60));
        assert_eq!(trusted(days).first(), Some(&(years + 3 * 1_440 + 3 * 60)));
        // Another jump, ahead or back, starts again.
        let hours = |from: i64, count: i64| (0..count).map(move |hour| from + hour * 60);
        let jumps = hours(years, 20).chain(hours(2 * years, 20)).chain(hours(years, 20));
        assert_eq!(trusted(jumps), [0_i64; 0]);
    }

    #[test]
    fn clocks_of_two_servers_that_differ_a_little_settle_together() {
        let years = 5_000_000;
        let both = (0..200).flat_map(|n| [years + n * 10, years + n * 10 - 1]);
        assert_eq!(trusted(both).first(), Some(&(years + 1_440)));
    }

    proptest! {
        /// No reading is trusted that is further ahead of real time than a plausible stop, while
        /// the clock is ahead for less than a day.
        #[test]
        fn clock_that_is_ahead_for_less_than_a_day_is_never_trusted(
            before in prop::collection::vec(1..90_i64, 0..20),
            ahead in 43_201..10_000_000_i64,
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
