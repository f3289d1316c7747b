//! The right to use the IDE.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::Multi,
    indexes,
    keyspace::Space,
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};

/// The right of a user to use the IDE: given by an operator, or by an invitation into the tenant of a
/// user who has it from an operator. The latter holds while both the membership and the inviter's own
/// grant do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdeGrant {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// The tenant by whose invitation it was given; the user's own if an operator gave it.
    pub granted_by: TenantId,
    /// The user who gave it by an invitation; `None` if an operator did.
    pub invited_by: Option<UserId>,
    /// Time of the grant.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
}

impl Entity for IdeGrant {
    type Scope = TenantId;
    type Key = (UserId, TenantId);
    const SPACE: Space<TenantId> = Space::tenant("ide_grants").keyed(&["user", "granting_tenant"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (UserId, TenantId) {
        (self.user_id, self.granted_by)
    }
}

indexes! { IdeGrant =>
    /// A user's.
    BY_USER ("ide_grants_by_user", user): Multi<UserId> = |grant| Some(grant.user_id);
}
