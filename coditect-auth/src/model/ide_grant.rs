//! The right to use the IDE.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity,
    entity::Multi,
    indexes,
    keyspace::Subspace,
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};

/// Right of a user to use the IDE, granted by an operator, or by an invitation into the tenant of a
/// user with an operator's grant. The latter is valid as long as both the membership and the
/// inviter's own grant are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdeGrant {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// The user.
    pub user_id: UserId,
    /// Tenant of the invitation; the user's primary tenant for a grant by an operator.
    pub granted_by: TenantId,
    /// Inviter; `None` for a grant by an operator.
    pub invited_by: Option<UserId>,
    /// Time of the grant.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
}

impl Entity for IdeGrant {
    type Scope = TenantId;
    type Key = (UserId, TenantId);
    const SPACE: Subspace<TenantId> =
        Subspace::tenant("ide_grants").keyed(&["user", "granting_tenant"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (UserId, TenantId) {
        (self.user_id, self.granted_by)
    }
}

indexes! { IdeGrant =>
    /// By user.
    BY_USER ("ide_grants_by_user", user): Multi<UserId> = |grant| Some(grant.user_id);
}
