//! Counts of failed logins and of mails, persisted across restarts.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{Expiring, GlobalMulti, Index, expiry_hour},
    indexes,
    keyspace::{Global, Subspace},
};
use serde::{Deserialize, Serialize};

/// Recent failed logins of an account, from anywhere or from one known address; or recent mails of
/// a kind to an address, or of an inviter. The account may not exist.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoginFailures {
    /// HMAC of the account's address, or of that and the client's: see
    /// [`throttle`](crate::throttle); or of an address or a user and the kind of mail.
    pub key: [u8; 32],
    /// Number of failures or mails.
    pub count: u32,
    /// Time of the last failure or mail; for a known address without failures, of the last login.
    #[serde(with = "ts_microseconds")]
    pub last_at: DateTime<Utc>,
    /// Time from which they are ignored.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for LoginFailures {
    type Scope = Global;
    type Key = [u8; 32];
    const SPACE: Subspace<Global> = Subspace::global("login_failures").keyed(&["hmac"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> [u8; 32] {
        self.key
    }
}

indexes! { LoginFailures =>
    /// By hour of expiry, for the purge.
    BY_EXPIRY ("login_failures_by_expiry", hour): GlobalMulti<i64> =
        |failures| Some(expiry_hour(failures.expires_at));
}

impl Expiring for LoginFailures {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}
