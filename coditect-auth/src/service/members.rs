//! Members of a tenant: listing, roles, and the end of a membership.
//!
//! A membership that has ended stays ended: a user who joins again gets a new one, and credentials
//! issued for the first (access tokens, sessions active in the tenant, personal tokens,
//! invitations) stay void.

use coditect_store::{
    Cursor, Page, Transaction,
    model::{Membership, Role, Setting, SettingScope, TenantId, User, UserId},
    records::Stopped,
};
use futures_util::future::try_join_all;
use serde_json::json;

use super::{
    Auth, ClientInfo, Identity,
    audit::{Action, Entry},
    invitations::{delete_addressed, revoke_void},
    tokens::revoke_tokens_of,
};
use crate::Error;

/// A member of a tenant.
#[derive(Clone, Debug)]
pub struct Member {
    /// The user.
    pub user: User,
    /// Role.
    pub role: Role,
    /// Membership; `None` in the user's primary tenant.
    pub membership: Option<Membership>,
}

impl Auth {
    /// Returns a page of the members of the active tenant, starting with its own users. A page may
    /// hold fewer than `limit` entries and still have a successor.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] of kind `Invalid` if `after` belongs to another list.
    pub async fn members(
        &self,
        tx: &Transaction,
        identity: &Identity,
        (limit, after): (usize, Option<&Cursor>),
    ) -> Result<Page<Member>, Error> {
        let tenant = identity.tenant_id;
        let own = tx.list::<User>(tenant);
        let joined = tx.list::<Membership>(tenant).filter("open", |membership| !membership.ended);
        let mut members = Vec::new();
        let mut after = after.cloned();
        if !after.as_ref().is_some_and(|after| joined.is_of(after)) {
            let page = own.page(limit, after.as_ref()).await?;
            members.extend(page.items.into_iter().map(Member::of_own));
            if page.next.is_some() || members.len() == limit {
                let next = page.next.unwrap_or_else(|| joined.start());
                return Ok(Page { items: members, next: Some(next), stopped: Stopped::Rows });
            }
            after = None;
        }
        let page = joined.page(limit - members.len(), after.as_ref()).await?;
        let users = page.items.iter().map(|it| tx.get::<User>(it.primary_tenant, it.user_id));
        let users = try_join_all(users).await?;
        let joined = users.into_iter().zip(page.items).filter_map(|(user, membership)| {
            Some(Member { user: user?, role: membership.role, membership: Some(membership) })
        });
        members.extend(joined);
        Ok(Page { items: members, next: page.next, stopped: page.stopped })
    }

    /// Changes the role of a member. A demotion voids their invitations; the first hundred are
    /// deleted with it, the others by [`revoke_invitations`](Self::revoke_invitations). It also
    /// deletes the open invitations to their address, which could raise the role again; these are
    /// void after any change.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such member; [`Error::Forbidden`] unless the caller is an
    /// owner, and for a personal access token; [`Error::Store`].
    pub async fn change_role(
        &self,
        tx: &Transaction,
        identity: &Identity,
        member: UserId,
        role: Role,
        client: &ClientInfo,
    ) -> Result<Membership, Error> {
        identity.session()?;
        identity.require_role(Role::Owner)?;
        let (tenant, now) = (identity.tenant_id, self.clock.now());
        let membership = open_membership(tx, tenant, member).await?;
        let demotions = membership.demotions.saturating_add(u32::from(role < membership.role));
        let changed = Membership { role, demotions, updated_at: now, ..membership };
        tx.update(&changed).await?;
        if role < membership.role {
            delete_addressed(tx, &membership).await?;
        }
        revoke_void(tx, tenant, member).await?;
        let entry = Entry::new(Action::MemberChanged, tenant, Some(identity.user.id), client);
        let entry = entry.target(member).details(json!({ "role": role }));
        entry.write(tx, now).await?;
        Ok(changed)
    }

    /// Ends a membership, possibly the caller's own, revokes the credentials issued for it, and
    /// deletes the member's settings in the tenant. Their sessions and conversations stay with the
    /// tenant, for its admins to take over or delete. Their invitations are void; the first hundred
    /// are deleted with it, the others by [`revoke_invitations`](Self::revoke_invitations). The
    /// open invitations to their address are deleted.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such member; [`Error::Forbidden`] for the membership of
    /// another user unless the caller is an admin of at least their role, and for a personal access
    /// token; [`Error::Store`].
    pub async fn remove_member(
        &self,
        tx: &Transaction,
        identity: &Identity,
        member: UserId,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        identity.session()?;
        let (tenant, now) = (identity.tenant_id, self.clock.now());
        let membership = open_membership(tx, tenant, member).await?;
        if member != identity.user.id {
            identity.require_role(Role::Admin)?;
            identity.require_not_above(membership.role)?;
        }
        tx.update(&Membership { ended: true, updated_at: now, ..membership }).await?;
        let tokens = revoke_tokens_of(tx, &membership).await?;
        delete_addressed(tx, &membership).await?;
        revoke_void(tx, tenant, member).await?;
        Setting::delete_all(tx, tenant, SettingScope::User(member));
        let entry = Entry::new(Action::MemberRemoved, tenant, Some(identity.user.id), client);
        let entry = entry.target(member).details(json!({ "tokens": tokens }));
        Ok(entry.write(tx, now).await?)
    }

    /// Returns whether `tenant` is the primary tenant of `user`, or they are a member of it.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn is_member(
        &self,
        tx: &Transaction,
        tenant: TenantId,
        user: UserId,
    ) -> Result<bool, Error> {
        let membership = tx.get::<Membership>(tenant, user).await?;
        let primary_tenant = match membership {
            Some(membership) if membership.ended => return Ok(false),
            Some(membership) => membership.primary_tenant,
            None => tenant,
        };
        Ok(tx.get::<User>(primary_tenant, user).await?.is_some())
    }
}

impl Member {
    fn of_own(user: User) -> Self {
        Self { user, role: Role::Owner, membership: None }
    }
}

async fn open_membership(
    tx: &Transaction,
    tenant: TenantId,
    user: UserId,
) -> Result<Membership, Error> {
    let membership = tx.get::<Membership>(tenant, user).await?;
    membership.filter(|membership| !membership.ended).ok_or(Error::NotFound)
}
