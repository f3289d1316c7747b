//! The right to use the IDE, checked on each request for which a reverse proxy asks.
//!
//! An operator grants it explicitly. A user with an operator's grant extends it by invitations into
//! their own tenant; an extended right cannot be extended further. It is valid in every tenant of
//! the user.
//!
//! # Invariants
//!
//! - Each right depends on an operator's grant, directly or through one invitation.
//! - An extended right ends with the membership in the inviter's tenant, and with the inviter's own
//!   grant. It is suspended while the inviter is disabled.

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    model::{Membership, TenantId, User, UserId, UserStatus},
};
use futures_util::future::try_join;

use super::{
    Auth, AuthMethod, ClientInfo, Identity,
    accounts::user_in,
    audit::{Action, Entry},
};
use crate::{
    Email, Error,
    model::{IdeGrant, Invitation},
};

/// Maximum number of grants read per user, one per tenant that invited them.
const MAX_GRANTS: usize = 1_000;

/// Scope of personal access tokens for the IDE.
pub const IDE_SCOPE: &str = "ide:use";

impl Auth {
    /// Fails unless the caller may use the IDE. A personal access token needs [`IDE_SCOPE`] as
    /// well.
    ///
    /// # Cost
    ///
    /// A range read of the user's grants, normally one, and three reads by key for each extended
    /// grant.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`], [`Error::Store`].
    pub async fn require_ide_access(
        &self,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<(), Error> {
        if let AuthMethod::Personal(token) = &identity.method
            && !token.scopes.names().iter().any(|name| name == IDE_SCOPE)
        {
            return Err(Error::Forbidden("the token's scopes don't cover the IDE"));
        }
        if has_any_ide_grant(tx, &identity.user).await? {
            return Ok(());
        }
        Err(Error::Forbidden("the account has no right to use the IDE"))
    }

    /// Returns whether a user may use the IDE.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn has_ide_access(&self, email: &str) -> Result<bool, Error> {
        let email = &Email::parse(email)?;
        let read = |tx: Transaction| async move {
            let user = user_in(&tx, email).await?;
            Ok(has_any_ide_grant(&tx, &user).await?)
        };
        self.store.run(read).await
    }

    /// Grants a user the right to use the IDE, or revokes all their grants. A revocation also ends
    /// the rights that they extended.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn set_ide_access(&self, email: &str, granted: bool) -> Result<User, Error> {
        let email = &Email::parse(email)?;
        let now = self.clock.now();
        let set = |tx: Transaction| async move {
            let user = user_in(&tx, email).await?;
            let action = if granted {
                tx.upsert(&operator_grant(&user, now)).await?;
                Action::IdeGranted
            } else {
                for grant in grants_of(&tx, &user).await? {
                    tx.delete::<IdeGrant>(user.tenant_id, (user.id, grant.granted_by)).await?;
                }
                Action::IdeRevoked
            };
            Entry::new(action, user.tenant_id, None, &ClientInfo::default())
                .target(user.id)
                .write(&tx, now)
                .await?;
            Ok(user)
        };
        self.store.run(set).await
    }
}

/// Returns an operator's grant for `user`.
pub(super) fn operator_grant(user: &User, now: DateTime<Utc>) -> IdeGrant {
    let (tenant_id, user_id) = (user.tenant_id, user.id);
    IdeGrant { tenant_id, user_id, granted_by: tenant_id, invited_by: None, created_at: now }
}

/// Returns whether `user` of `primary_tenant` has an operator's grant.
pub(super) async fn has_operator_grant(
    tx: &Transaction,
    primary_tenant: TenantId,
    user: UserId,
) -> coditect_store::Result<bool> {
    Ok(tx.get::<IdeGrant>(primary_tenant, (user, primary_tenant)).await?.is_some())
}

/// Returns whether `inviter` may lend the right by invitations into `tenant`, their own: they have
/// it from an operator, and are enabled.
async fn may_lend(
    tx: &Transaction,
    tenant: TenantId,
    inviter: UserId,
) -> coditect_store::Result<bool> {
    let user = tx.get::<User>(tenant, inviter);
    let (user, holds) = try_join(user, has_operator_grant(tx, tenant, inviter)).await?;
    Ok(holds && user.is_some_and(|user| user.status == UserStatus::Enabled))
}

/// Returns whether `user` has an operator's grant, or one by an invitation whose membership is open
/// and whose inviter is enabled and has an operator's grant.
pub(super) async fn has_any_ide_grant(
    tx: &Transaction,
    user: &User,
) -> coditect_store::Result<bool> {
    for grant in grants_of(tx, user).await? {
        if grant.granted_by == user.tenant_id {
            return Ok(true);
        }
        let (tenant, Some(inviter)) = (grant.granted_by, grant.invited_by) else { continue };
        let membership = tx.get::<Membership>(tenant, user.id).await?;
        if membership.is_some_and(|it| !it.ended && it.primary_tenant == user.tenant_id)
            && may_lend(tx, tenant, inviter).await?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Grants `user` the right for a membership that was just written, if the invitation includes it
/// and the inviter, whose primary tenant it is, still has an operator's grant. A new membership
/// without it revokes a grant by an earlier one.
pub(super) async fn grant_by_invitation(
    tx: &Transaction,
    user: &User,
    invitation: &Invitation,
    now: DateTime<Utc>,
) -> coditect_store::Result<()> {
    let (tenant, inviter) = (invitation.tenant_id, invitation.invited_by);
    let holds = invitation.ide && may_lend(tx, tenant, inviter).await?;
    let (tenant_id, user_id, granted_by) = (user.tenant_id, user.id, tenant);
    let own = tx.get::<Membership>(tenant, user.id).await?;
    let is_new = own.is_some_and(|it| it.created_at == it.updated_at);
    if holds {
        let invited_by = Some(inviter);
        let grant = IdeGrant { tenant_id, user_id, granted_by, invited_by, created_at: now };
        tx.upsert(&grant).await?;
    } else if is_new {
        tx.delete::<IdeGrant>(tenant_id, (user_id, granted_by)).await?;
    }
    Ok(())
}

async fn grants_of(tx: &Transaction, user: &User) -> coditect_store::Result<Vec<IdeGrant>> {
    let grants = tx.scan(&IdeGrant::BY_USER, user.tenant_id, user.id);
    Ok(grants.page(MAX_GRANTS, None).await?.items)
}
