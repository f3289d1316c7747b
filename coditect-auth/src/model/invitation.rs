//! An invitation into a tenant.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{Expiring, GlobalMulti, GlobalUnique, Index, Multi, expiry_hour},
    ids, indexes,
    keyspace::Subspace,
    model::{MembershipId, Role, TenantId, UserId},
};
use serde::{Deserialize, Serialize};

ids! {
    /// An [`Invitation`]'s id.
    InvitationId
}

/// An invitation of an e-mail address into a tenant. Deleted when accepted.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Invitation {
    /// Id.
    pub id: InvitationId,
    /// Tenant.
    pub tenant_id: TenantId,
    /// Invited address, as entered.
    pub email: String,
    /// Normalized address.
    pub email_normalized: String,
    /// Role to grant.
    pub role: Role,
    /// Whether it grants the use of the IDE.
    pub ide: bool,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Inviter.
    pub invited_by: UserId,
    /// Right of the inviter, if the tenant is not their primary one.
    pub granted_by: Option<Grant>,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Expiry.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

/// Right of a member to invite, as of the invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Membership of the inviter.
    pub membership_id: MembershipId,
    /// Number of demotions of the inviter.
    pub demotions: u32,
}

impl Entity for Invitation {
    type Scope = TenantId;
    type Key = InvitationId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("invitations");
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["hash"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> InvitationId {
        self.id
    }
}

indexes! { Invitation =>
    /// By hash of the token.
    BY_HASH ("invitations_by_hash", hash): GlobalUnique<[u8; 32]> =
        |invitation| Some(invitation.hash);
    /// By inviter, oldest first.
    BY_INVITER ("invitations_by_inviter", user): Multi<UserId> =
        |invitation| Some(invitation.invited_by);
    /// By hour of expiry, for the purge.
    BY_EXPIRY ("invitations_by_expiry", hour): GlobalMulti<i64> =
        |invitation| Some(expiry_hour(invitation.expires_at));
}

impl Expiring for Invitation {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for Invitation {
    /// Omits the hash and the address, to keep them out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("role", &self.role)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
