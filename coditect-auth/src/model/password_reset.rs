//! A requested password reset.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{Expiring, GlobalMulti, GlobalUnique, Index, Multi, expiry_hour},
    ids, indexes,
    keyspace::Subspace,
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};

ids! {
    /// A [`PasswordReset`]'s id.
    PasswordResetId
}

/// A password-reset token. A user has up to [`MAX_RESETS`](crate::MAX_RESETS) of them; all are
/// deleted when the password is set.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PasswordReset {
    /// Id.
    pub id: PasswordResetId,
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// Origin of the request.
    pub origin: ResetOrigin,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Time of the request.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// End of its validity.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

/// Origin of a [`PasswordReset`]. Persisted: append only, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ResetOrigin {
    /// An unauthenticated client: the token is sent to the account's address.
    Client,
    /// An operator, who passes the token on.
    Operator,
}

impl Entity for PasswordReset {
    type Scope = TenantId;
    type Key = PasswordResetId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("password_resets");
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["hash"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> PasswordResetId {
        self.id
    }
}

indexes! { PasswordReset =>
    /// By user, oldest first.
    BY_USER ("password_resets_by_user", user): Multi<UserId> = |reset| Some(reset.user_id);
    /// By hash of the token.
    BY_HASH ("password_resets_by_hash", hash): GlobalUnique<[u8; 32]> = |reset| Some(reset.hash);
    /// By hour of expiry, for the purge.
    BY_EXPIRY ("password_resets_by_expiry", hour): GlobalMulti<i64> =
        |reset| Some(expiry_hour(reset.expires_at));
}

impl Expiring for PasswordReset {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for PasswordReset {
    /// Omits the hash, to keep it out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordReset")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
