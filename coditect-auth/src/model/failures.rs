//! Failed sign-ins, so that a restart does not forget them.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{Expiring, GlobalMulti, Index, expiry_hour},
    indexes,
    keyspace::{Global, Space},
};
use serde::{Deserialize, Serialize};

/// How often one has failed to sign in lately: to an account, from anywhere or from one address. An
/// account that there is not has them too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoginFailures {
    /// An HMAC of the account's address, or of that and the client's: see
    /// [`throttle`](crate::throttle).
    pub key: [u8; 32],
    /// How many.
    pub count: u32,
    /// When the last was; for an address that has not failed, when it signed in.
    #[serde(with = "ts_microseconds")]
    pub last_at: DateTime<Utc>,
    /// When they are forgotten.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for LoginFailures {
    type Scope = Global;
    type Key = [u8; 32];
    const SPACE: Space<Global> = Space::global("login_failures").keyed(&["hmac"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> [u8; 32] {
        self.key
    }
}

indexes! { LoginFailures =>
    /// By the hour in which they are forgotten, for the sweep.
    BY_EXPIRY ("login_failures_by_expiry", hour): GlobalMulti<i64> =
        |failures| Some(expiry_hour(failures.expires_at));
}

impl Expiring for LoginFailures {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}
