//! A personal access token: lets a program act for a user.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{GlobalUnique, Multi},
    ids, indexes,
    keyspace::Subspace,
    model::{MembershipRef, TenantId, UserId},
};
use serde::{Deserialize, Serialize};

use crate::Scopes;

ids! {
    /// A [`PersonalToken`]'s id.
    PersonalTokenId
}

/// A token that lets a program act for its user until it expires or is revoked. Revocation deletes
/// the record.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PersonalToken {
    /// Id.
    pub id: PersonalTokenId,
    /// Primary tenant of the user.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// Membership in its active tenant; `None` in the primary one. The token ends with the
    /// membership.
    pub active_membership: Option<MembershipRef>,
    /// Name.
    pub name: String,
    /// Scopes.
    pub scopes: Scopes,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last use, with a resolution of one hour; initially the time of creation.
    #[serde(with = "ts_microseconds")]
    pub last_used_at: DateTime<Utc>,
    /// Expiry.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for PersonalToken {
    type Scope = TenantId;
    type Key = PersonalTokenId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("personal_tokens");
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["hash"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> PersonalTokenId {
        self.id
    }
}

impl PersonalToken {
    /// Returns the active tenant.
    pub fn active_tenant(&self) -> TenantId {
        self.active_membership.map_or(self.tenant_id, |membership| membership.tenant_id)
    }
}

indexes! { PersonalToken =>
    /// By user, oldest first.
    BY_USER ("personal_tokens_by_user", user): Multi<UserId> = |token| Some(token.user_id);
    /// By hash of the token.
    BY_HASH ("personal_tokens_by_hash", hash): GlobalUnique<[u8; 32]> = |token| Some(token.hash);
}

impl fmt::Debug for PersonalToken {
    /// Omits the hash, to keep it out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersonalToken")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .field("active_membership", &self.active_membership)
            .field("scopes", &self.scopes)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
