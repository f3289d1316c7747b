//! A password's reset that was asked for.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{Expiring, GlobalMulti, GlobalUnique, Index, expiry_hour},
    indexes,
    keyspace::Space,
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};

/// That whoever has the token may set a user's password anew. There is one a user: the next takes its
/// place. It goes with its use.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PasswordReset {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// Whose password.
    pub user_id: UserId,
    /// SHA-256 of what they were sent.
    pub hash: [u8; 32],
    /// When it was asked for.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Until when it can be used.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for PasswordReset {
    type Scope = TenantId;
    type Key = UserId;
    const SPACE: Space<TenantId> = Space::tenant("password_resets").keyed(&["user"]);
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["hash"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> UserId {
        self.user_id
    }
}

indexes! { PasswordReset =>
    /// The one that somebody was sent.
    BY_HASH ("password_resets_by_hash", hash): GlobalUnique<[u8; 32]> = |reset| Some(reset.hash);
    /// By the hour in which they end, for the sweep.
    BY_EXPIRY ("password_resets_by_expiry", hour): GlobalMulti<i64> =
        |reset| Some(expiry_hour(reset.expires_at));
}

impl Expiring for PasswordReset {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for PasswordReset {
    /// Leaves the hash out, so that it is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordReset")
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
