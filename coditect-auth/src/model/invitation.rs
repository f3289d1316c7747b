//! An invitation into a tenant.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::{Expiring, GlobalMulti, GlobalUnique, Index, Multi, expiry_hour},
    ids, indexes,
    keyspace::Space,
    model::{MembershipId, Role, TenantId, UserId},
};
use serde::{Deserialize, Serialize};

ids! {
    /// An [`Invitation`]'s id.
    InvitationId
}

/// That whoever has an address, and the token that was sent there, may become a member. It goes with
/// its acceptance.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// The tenant.
    pub tenant_id: TenantId,
    /// The address that was invited, as it was written.
    pub email: String,
    /// As it is compared.
    pub email_normalized: String,
    /// What they may do there.
    pub role: Role,
    /// Whether it gives the right to use the IDE.
    pub ide: bool,
    /// SHA-256 of what they were sent.
    pub hash: [u8; 32],
    /// Who invited them.
    pub invited_by: UserId,
    /// The right by which they did, where it is not their own tenant.
    pub granted_by: Option<Grant>,
    /// When.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Until when it can be accepted.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

/// The right of a member to invite, as of when they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Their membership.
    pub membership_id: MembershipId,
    /// The number of times that their role had been lowered.
    pub demotions: u32,
}

impl Entity for Invitation {
    type Scope = TenantId;
    type Key = InvitationId;
    const SPACE: Space<TenantId> = Space::tenant("invitations");
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
    /// The one that somebody was sent.
    BY_HASH ("invitations_by_hash", hash): GlobalUnique<[u8; 32]> = |invitation| Some(invitation.hash);
    /// Those that a user has made, oldest first.
    BY_INVITER ("invitations_by_inviter", user): Multi<UserId> = |invitation| Some(invitation.invited_by);
    /// By the hour in which they end, for the sweep.
    BY_EXPIRY ("invitations_by_expiry", hour): GlobalMulti<i64> =
        |invitation| Some(expiry_hour(invitation.expires_at));
}

impl Expiring for Invitation {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for Invitation {
    /// Leaves the hash and the address out, so that they are in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("role", &self.role)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
