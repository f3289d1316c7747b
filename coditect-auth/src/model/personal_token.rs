//! A personal access token: lets a program act for a user.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{GlobalUnique, Multi},
    ids, indexes,
    keyspace::Space,
    model::{MembershipRef, TenantId, UserId},
};
use serde::{Deserialize, Serialize};

use crate::Scopes;

ids! {
    /// A [`PersonalToken`]'s id.
    PersonalTokenId
}

/// A token that a user made for a program of theirs. It holds until its time, or until it is revoked,
/// which is its deletion.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PersonalToken {
    /// Its id.
    pub id: PersonalTokenId,
    /// The user's own tenant.
    pub tenant_id: TenantId,
    /// For whom it acts.
    pub user_id: UserId,
    /// The membership by which it acts in another tenant than the user's own. It ends with that.
    pub active_membership: Option<MembershipRef>,
    /// What its user calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// When it was made.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the hour; at first, when it was made.
    #[serde(with = "ts_microseconds")]
    pub last_used_at: DateTime<Utc>,
    /// When it ends.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for PersonalToken {
    type Scope = TenantId;
    type Key = PersonalTokenId;
    const SPACE: Space<TenantId> = Space::tenant("personal_tokens");
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
    /// Returns the tenant that it acts in.
    pub fn active_tenant(&self) -> TenantId {
        self.active_membership.map_or(self.tenant_id, |membership| membership.tenant_id)
    }
}

indexes! { PersonalToken =>
    /// A user's, oldest first.
    BY_USER ("personal_tokens_by_user", user): Multi<UserId> = |token| Some(token.user_id);
    /// The one that a program holds.
    BY_HASH ("personal_tokens_by_hash", hash): GlobalUnique<[u8; 32]> = |token| Some(token.hash);
}

impl fmt::Debug for PersonalToken {
    /// Leaves the hash out, so that it is in no log.
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
