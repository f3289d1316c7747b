//! A password's reset that was asked for.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{Expiring, GlobalMulti, GlobalUnique, Index, Multi, expiry_hour},
    ids, indexes,
    keyspace::Space,
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};

ids! {
    /// A [`PasswordReset`]'s id.
    PasswordResetId
}

/// A token that sets a user's password anew. A user has several, up to a limit; all end when the password
/// is set.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PasswordReset {
    /// Its id.
    pub id: PasswordResetId,
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// Who asked for it.
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

/// Who asked for a [`PasswordReset`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ResetOrigin {
    /// A client, which has shown nothing: the token was sent to the account's address.
    Client,
    /// An operator, who hands the token over.
    Operator,
}

impl Entity for PasswordReset {
    type Scope = TenantId;
    type Key = PasswordResetId;
    const SPACE: Space<TenantId> = Space::tenant("password_resets");
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
    /// A user's, oldest first.
    BY_USER ("password_resets_by_user", user): Multi<UserId> = |reset| Some(reset.user_id);
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
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
