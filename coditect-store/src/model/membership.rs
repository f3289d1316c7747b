//! Memberships: users of one tenant who work in another.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{MembershipId, TenantId, UserId};
use crate::{Entity, entity::GlobalMulti, indexes, keyspace::Subspace};

/// The right of a user of another tenant to work in this one. In their own tenant users are owners,
/// without a membership.
///
/// Not deleted when it ends: the user's records remain in the tenant, and refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Id, another one each time the user joins, so that tokens of an ended membership stay revoked
    /// when the user is invited again.
    pub id: MembershipId,
    /// Tenant in which the user may work.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// Tenant of the user's record.
    pub primary_tenant: TenantId,
    /// Role in this tenant.
    pub role: Role,
    /// Number of times that the role was lowered: earlier invitations by this member are void.
    pub demotions: u32,
    /// User who invited the member.
    pub invited_by: UserId,
    /// Time of joining.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change of this record.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
    /// Whether it has ended.
    pub ended: bool,
}

/// The membership that a login or token acts by, in another tenant than the user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MembershipRef {
    /// Tenant.
    pub tenant_id: TenantId,
    /// Membership.
    pub membership_id: MembershipId,
}

impl Membership {
    /// Returns the reference that logins and tokens store.
    pub fn reference(&self) -> MembershipRef {
        MembershipRef { tenant_id: self.tenant_id, membership_id: self.id }
    }
}

/// The role of a member; each includes the rights of the ones before. Persisted: add at the end,
/// never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Works in the tenant.
    Member,
    /// Invites and removes members.
    Admin,
    /// All rights, including other members' roles and the deletion of the tenant.
    Owner,
}

impl Entity for Membership {
    type Scope = TenantId;
    type Key = UserId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("members").keyed(&["user"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> UserId {
        self.user_id
    }
}

indexes! { Membership =>
    /// Memberships of a user.
    BY_USER ("memberships_by_user", user): GlobalMulti<UserId> =
        |membership| (!membership.ended).then_some(membership.user_id);
}
