//! A membership: somebody of another tenant who works in this one too.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{MembershipId, TenantId, UserId};
use crate::{Entity, entity::GlobalMulti, indexes, keyspace::Space};

/// That a user whose record lies in another tenant, their home, may work in this one. In their home
/// they are the owner, and have no membership.
///
/// It is not deleted when it ends: what they made stays the tenant's, and says whose it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its id: another one each time the user joins, so that tokens of an ended membership stay
    /// revoked when the user is invited again.
    pub id: MembershipId,
    /// The tenant that they may work in.
    pub tenant_id: TenantId,
    /// Who.
    pub user_id: UserId,
    /// The tenant in which their record lies.
    pub primary_tenant: TenantId,
    /// What they may do here.
    pub role: Role,
    /// The number of times that their role was lowered: an invitation of theirs from before such a
    /// change is void.
    pub demotions: u32,
    /// Who let them in.
    pub invited_by: UserId,
    /// Since when.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When the record was last changed.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
    /// Whether it has ended.
    pub ended: bool,
}

/// The membership that a login or a token of a user acts by in another tenant than their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MembershipRef {
    /// The tenant.
    pub tenant_id: TenantId,
    /// The membership.
    pub membership_id: MembershipId,
}

impl Membership {
    /// Returns the reference to it that logins and tokens store.
    pub fn reference(&self) -> MembershipRef {
        MembershipRef { tenant_id: self.tenant_id, membership_id: self.id }
    }
}

/// What somebody may do in a tenant; each may do all that those before it may. Persisted: add at the
/// end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Work in it.
    Member,
    /// Invite members, and end their membership.
    Admin,
    /// All, the roles of others and the tenant's end included.
    Owner,
}

impl Entity for Membership {
    type Scope = TenantId;
    type Key = UserId;
    const SPACE: Space<TenantId> = Space::tenant("members").keyed(&["user"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> UserId {
        self.user_id
    }
}

indexes! { Membership =>
    /// Where somebody is a member.
    BY_USER ("memberships_by_user", user): GlobalMulti<UserId> =
        |membership| (!membership.ended).then_some(membership.user_id);
}
