//! Records that end by themselves.
//!
//! They are found by the hour in which they end, so that what is over is one range of one index: see
//! [`Store::sweep_expired`](crate::Store::sweep_expired), which removes them. An hour, not an
//! instant: a record whose end moves within it, as a lease that is renewed does, keeps its entry.

use std::ops::RangeTo;

use chrono::{DateTime, Utc};

use super::{Entity, GlobalMulti, Index};

/// A kind of record that ends by itself.
///
/// ```
/// # use chrono::{DateTime, Utc, serde::ts_microseconds};
/// # use coditect_store::{Entity, indexes, keyspace::Space, model::TenantId};
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
/// #     const SPACE: Space<TenantId> = Space::tenant("invitations").keyed(&["number"]);
/// #     const VERSION: u8 = 1;
/// #     fn scope(&self) -> TenantId { self.tenant }
/// #     fn key(&self) -> u64 { self.number }
/// # }
///
/// indexes! { Invitation =>
///     /// By the hour in which they end, for the sweep.
///     BY_EXPIRY ("invitations_by_expiry", hour): GlobalMulti<i64> =
///         |invitation| Some(expiry_hour(invitation.ends_at));
/// }
///
/// impl Expiring for Invitation {
///     const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
/// }
/// ```
pub trait Expiring: Entity {
    /// The index by the [hour](expiry_hour) in which they end.
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>>;
}

/// The hours between the beginning of 1970 and the one that `at` is in.
pub fn expiry_hour(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(3_600)
}

/// The hours that are over at `now`. What ends in the present hour is not among them, even if it
/// has ended: it is an hour late at the most.
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
    fn an_hour_is_over_when_the_next_one_begins() {
        assert!(!hours_over(at(7_199)).contains(&expiry_hour(at(3_600))));
        assert!(hours_over(at(7_200)).contains(&expiry_hour(at(7_199))));
    }

    #[test]
    fn hours_before_1970_are_not_rounded_into_it() {
        assert_eq!(expiry_hour(at(-1)), -1);
        assert_eq!(expiry_hour(at(-3_600)), -1);
        assert_eq!(expiry_hour(at(-3_601)), -2);
    }
}
