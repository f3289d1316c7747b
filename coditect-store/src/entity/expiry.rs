//! Records with an expiry time.
//!
//! An index orders them by the hour in which they expire, so that all expired records are one range
//! of it: [`Store::purge_expired`](crate::Store::purge_expired) removes them. The index has hours
//! rather than instants so that a record whose expiry moves within the hour, such as a lease that
//! is renewed, keeps its entry.

use std::ops::RangeTo;

use chrono::{DateTime, Utc};

use super::{Entity, GlobalMulti, Index};

/// An entity whose records expire.
///
/// ```
/// # use chrono::{DateTime, Utc, serde::ts_microseconds};
/// # use coditect_store::{Entity, indexes, keyspace::Subspace, model::TenantId};
/// use coditect_store::entity::{Expiring, GlobalMulti, Index, expiry_hour};
/// # use serde::{Deserialize, Serialize};
///
/// # #[derive(Serialize, Deserialize)]
/// struct Invitation {
///     # tenant: TenantId, number: u64,
///     // …
///     #[serde(with = "ts_microseconds")]
///     ends_at: DateTime<Utc>,
/// }
/// # impl Entity for Invitation {
/// #     type Scope = TenantId;
/// #     type Key = u64;
/// #     const SPACE: Subspace<TenantId> = Subspace::tenant("invitations").keyed(&["number"]);
/// #     const VERSION: u8 = 1;
/// #     fn scope(&self) -> TenantId { self.tenant }
/// #     fn key(&self) -> u64 { self.number }
/// # }
///
/// indexes! { Invitation =>
///     /// By hour of expiry, for the purge.
///     BY_EXPIRY ("invitations_by_expiry", hour): GlobalMulti<i64> =
///         |invitation| Some(expiry_hour(invitation.ends_at));
/// }
///
/// impl Expiring for Invitation {
///     const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
/// }
/// ```
pub trait Expiring: Entity {
    /// The index by [hour of expiry](expiry_hour).
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>>;
}

/// Returns the number of hours between 1970-01-01T00:00Z and the start of the hour of `at`.
pub fn expiry_hour(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(3_600)
}

/// Returns the hours that have ended at `now`. The current hour is excluded, so a record is removed
/// up to one hour after it has expired.
pub fn hours_over(now: DateTime<Utc>) -> RangeTo<i64> {
    ..expiry_hour(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn an_hour_ends_when_the_next_begins() {
        assert!(!hours_over(at(7_199)).contains(&expiry_hour(at(3_600))));
        assert!(hours_over(at(7_200)).contains(&expiry_hour(at(7_199))));
    }

    #[test]
    fn hours_before_1970_round_down() {
        assert_eq!(expiry_hour(at(-1)), -1);
        assert_eq!(expiry_hour(at(-3_600)), -1);
        assert_eq!(expiry_hour(at(-3_601)), -2);
    }
}
