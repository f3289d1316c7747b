//! Invitations into a tenant.
//!
//! An invitation is valid only as long as its inviter has the right to invite; acceptance reads
//! their current role. Removal and demotion also delete their invitations, a hundred in the same
//! transaction and the others after it; those left by a crash are void, are not listed, and expire.
//!
//! An invitation older than the last change of the invited user's membership is void too: it undoes
//! neither a removal nor a demotion. These also delete up to a hundred open invitations to that
//! member's address.

use chrono::TimeDelta;
use coditect_store::{
    Cursor, Page, Transaction,
    keyspace::Global,
    model::{Membership, MembershipId, Role, Tenant, TenantId, User, UserId, UserStatus},
};
use serde_json::json;

use super::{
    Auth, ClientInfo, Identity,
    audit::{Action, Entry},
    ide::{grant_by_invitation, has_operator_grant},
    mail_limits::Mail,
};
use crate::{
    Email, Error, OpaqueToken,
    model::{Grant, Invitation, InvitationId},
    tokens::opaque::Kind,
};

/// Time for which an invitation can be accepted.
pub const INVITATION_LIFETIME: TimeDelta = TimeDelta::days(7);

/// Maximum number of open invitations of a tenant.
const MAX_INVITATIONS: usize = 1_000;

/// Maximum number of tenants that a user is a member of.
const MAX_MEMBERSHIPS: usize = 1_000;

/// Maximum number of invitations deleted per transaction.
const BATCH: usize = 100;

/// A new invitation. Its token is drawn once, however often its transaction runs.
#[derive(Debug)]
pub struct NewInvitation {
    text: OpaqueToken,
    hash: [u8; 32],
    id: InvitationId,
    email: Email,
    role: Role,
    ide: Option<bool>,
}

impl NewInvitation {
    /// Creates an invitation for the owner of `email`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidEmail`]; [`Error::Internal`] if the system has no randomness.
    pub fn new(email: &str, role: Role) -> Result<Self, Error> {
        let email = Email::parse(email)?;
        let (text, hash) = Kind::Invitation.generate()?;
        Ok(Self { text, hash, id: InvitationId::new(), email, role, ide: None })
    }

    /// Sets whether it grants the use of the IDE; by default it does if the inviter has an
    /// operator's grant and invites into their primary tenant.
    #[must_use]
    pub fn with_ide(self, ide: Option<bool>) -> Self {
        Self { ide, ..self }
    }

    /// Returns the token of the invitation.
    pub fn text(&self) -> &OpaqueToken {
        &self.text
    }

    /// Returns the invited address.
    pub fn email(&self) -> &str {
        self.email.display()
    }
}

impl Auth {
    /// Invites an address into the active tenant. Its owner needs [`NewInvitation::text`], which
    /// [`send_invitation`](Self::send_invitation) can deliver.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] unless the caller is an admin of at least the invited role, if they may
    /// not grant the use of the IDE, and for a personal access token; [`Error::TooMany`];
    /// [`Error::Store`].
    pub async fn invite(
        &self,
        tx: &Transaction,
        identity: &Identity,
        new: &NewInvitation,
        client: &ClientInfo,
    ) -> Result<Invitation, Error> {
        identity.session()?;
        identity.require_role(Role::Admin)?;
        identity.require_not_above(new.role)?;
        let (tenant, now) = (identity.tenant_id, self.clock.now());
        let may_give_ide = has_operator_grant(tx, tenant, identity.user.id).await?;
        let ide = new.ide.unwrap_or(may_give_ide);
        if ide && !may_give_ide {
            let why = "only a user who has the right to use the IDE from an operator gives it, \
                       and only into their own tenant: invite without it, or have an operator \
                       give it";
            return Err(Error::Forbidden(why));
        }
        let all = tx.list::<Invitation>(tenant).page(MAX_INVITATIONS, None).await?.items;
        if all.len() >= MAX_INVITATIONS {
            // Expired invitations that were not purged yet make room.
            let mut expired = all;
            expired.retain(|invitation| now >= invitation.expires_at);
            expired.truncate(BATCH);
            if expired.is_empty() {
                return Err(Error::TooMany("invitations"));
            }
            for invitation in expired {
                tx.delete::<Invitation>(tenant, invitation.id).await?;
            }
        }
        let granted_by = match identity.membership {
            None => None,
            Some(_) => grant_of(tx, tenant, identity.user.id).await?.map(|(grant, _)| grant),
        };
        let invitation = Invitation {
            id: new.id,
            tenant_id: tenant,
            email: new.email.display().to_owned(),
            email_normalized: new.email.normalized().to_owned(),
            role: new.role,
            ide,
            hash: new.hash,
            invited_by: identity.user.id,
            granted_by,
            created_at: now,
            expires_at: now + INVITATION_LIFETIME,
        };
        tx.insert(&invitation).await?;
        let entry = Entry::new(Action::Invited, tenant, Some(identity.user.id), client);
        let entry = entry.target(invitation.id).details(json!({ "role": new.role }));
        entry.write(tx, now).await?;
        Ok(invitation)
    }

    /// Returns whether an invitation of `identity` may be sent to its address, and counts it if so.
    /// It may not if there is no mailer, if the inviter has had
    /// [`MAX_INVITATION_MAILS`](super::MAX_INVITATION_MAILS) sent in 24 hours, or if one was sent
    /// to the address lately, into any tenant: from the second on the time between two doubles,
    /// from a minute to four hours. Two reads.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn may_send_invitation(
        &self,
        tx: &Transaction,
        identity: &Identity,
        new: &NewInvitation,
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        Ok(self.mailer.is_some()
            && self.take_mail(tx, (Mail::Invitation, &new.email), now).await?
            && self.take_mail_of(tx, identity.user.id, now).await?)
    }

    /// Sends an invitation to its address if it [may be sent](Self::may_send_invitation). Call it
    /// after the commit.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the delivery failed.
    pub async fn send_invitation(&self, new: &NewInvitation, tenant: &Tenant) -> Result<(), Error> {
        let Some(mailer) = &self.mailer else { return Ok(()) };
        let sent = mailer.invitation(new.email(), &tenant.name, new.text(), INVITATION_LIFETIME);
        sent.await.map_err(Error::Internal)
    }

    /// Returns a page of the valid invitations into the active tenant, oldest first. A page may
    /// hold fewer than `limit` entries and still have a successor.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] unless the caller is an admin; [`Error::Store`] of kind `Invalid` if
    /// `after` belongs to another list.
    pub async fn invitations(
        &self,
        tx: &Transaction,
        identity: &Identity,
        (limit, after): (usize, Option<&Cursor>),
    ) -> Result<Page<Invitation>, Error> {
        identity.require_role(Role::Admin)?;
        let (tenant, now) = (identity.tenant_id, self.clock.now());
        let open = tx.list::<Invitation>(tenant).filter("open", |it| now < it.expires_at);
        let mut page = open.page(limit, after).await?;
        let mut inviters: Vec<UserId> = page.items.iter().map(|it| it.invited_by).collect();
        inviters.sort_unstable();
        inviters.dedup();
        for inviter in inviters {
            let right = right_of(tx, tenant, inviter).await?;
            page.items.retain(|it| it.invited_by != inviter || holds_by(it, right));
        }
        Ok(page)
    }

    /// Withdraws an invitation.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Forbidden`] unless the caller is an admin, and for a personal
    /// access token; [`Error::Store`].
    pub async fn withdraw_invitation(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: InvitationId,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        identity.session()?;
        identity.require_role(Role::Admin)?;
        let tenant = identity.tenant_id;
        tx.delete::<Invitation>(tenant, id).await?.ok_or(Error::NotFound)?;
        let entry = Entry::new(Action::InvitationWithdrawn, tenant, Some(identity.user.id), client);
        Ok(entry.target(id).write(tx, self.clock.now()).await?)
    }

    /// Deletes the void invitations of `inviter` into `tenant`, a hundred per transaction: after a
    /// removal or a demotion.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]. The remaining ones are void.
    pub async fn revoke_invitations(&self, tenant: TenantId, inviter: UserId) -> Result<(), Error> {
        let step = |tx: Transaction| async move { revoke_void(&tx, tenant, inviter).await };
        while self.store.run_idempotent(step).await? > 0 {}
        Ok(())
    }

    /// Makes the caller a member of the inviting tenant, and consumes the invitation. An existing
    /// member gets the role if it is higher.
    ///
    /// # Errors
    ///
    /// [`Error::InvitationInvalid`] if it is unknown, expired, for another address, for the
    /// caller's primary tenant, or their own; if its inviter may no longer grant the role; if the
    /// caller's membership has changed since; [`Error::Forbidden`] for a personal access token;
    /// [`Error::TooMany`]; [`Error::Store`].
    pub async fn accept_invitation(
        &self,
        tx: &Transaction,
        identity: &Identity,
        text: &str,
        client: &ClientInfo,
    ) -> Result<Membership, Error> {
        identity.session()?;
        self.join(tx, &identity.user, text, client).await
    }

    /// [Accepts](Self::accept_invitation) an invitation for `user`.
    pub(super) async fn join(
        &self,
        tx: &Transaction,
        user: &User,
        text: &str,
        client: &ClientInfo,
    ) -> Result<Membership, Error> {
        let hash = Kind::Invitation.hash_of(text).ok_or(Error::InvitationInvalid)?;
        let now = self.clock.now();
        let invitation = tx.find(&Invitation::BY_HASH, Global, hash).await?;
        let invitation = invitation
            .filter(|it| now < it.expires_at && it.email_normalized == user.email_normalized)
            .filter(|it| it.tenant_id != user.tenant_id && it.invited_by != user.id)
            .ok_or(Error::InvitationInvalid)?;
        let tenant = invitation.tenant_id;
        // Read, so that a concurrent deletion of the tenant conflicts.
        tx.get::<Tenant>(tenant, ()).await?.ok_or(Error::InvitationInvalid)?;
        if !holds_by(&invitation, right_of(tx, tenant, invitation.invited_by).await?) {
            return Err(Error::InvitationInvalid);
        }
        let before = tx.get::<Membership>(tenant, user.id).await?;
        if before.as_ref().is_some_and(|it| invitation.created_at < it.updated_at) {
            return Err(Error::InvitationInvalid);
        }
        tx.delete::<Invitation>(tenant, invitation.id).await?;
        let membership = if let Some(before) = before.filter(|before| !before.ended) {
            Membership { role: before.role.max(invitation.role), updated_at: now, ..before }
        } else {
            let known = tx.scan(&Membership::BY_USER, Global, user.id);
            if known.page(MAX_MEMBERSHIPS, None).await?.items.len() >= MAX_MEMBERSHIPS {
                return Err(Error::TooMany("memberships"));
            }
            Membership {
                // An invitation is accepted once, so its id is unique among memberships.
                id: MembershipId(invitation.id.0),
                tenant_id: tenant,
                user_id: user.id,
                primary_tenant: user.tenant_id,
                role: invitation.role,
                demotions: 0,
                invited_by: invitation.invited_by,
                created_at: now,
                updated_at: now,
                ended: false,
            }
        };
        tx.upsert(&membership).await?;
        grant_by_invitation(tx, user, &invitation, now).await?;
        let entry = Entry::new(Action::MemberJoined, tenant, Some(user.id), client);
        let entry = entry.target(user.id).details(json!({ "role": membership.role }));
        entry.write(tx, now).await?;
        Ok(membership)
    }
}

/// Current right of an inviter: the grant, if the tenant is not their primary one, and the role.
type Right = (Option<Grant>, Role);

/// Returns whether the inviter's current `right` is the one of the `invitation` and covers its
/// role.
fn holds_by(invitation: &Invitation, right: Option<Right>) -> bool {
    right.is_some_and(|(grant, role)| {
        grant == invitation.granted_by && role >= Role::Admin.max(invitation.role)
    })
}

/// Returns the right of `inviter` in `tenant`; `None` if they are not a member, or disabled.
async fn right_of(
    tx: &Transaction,
    tenant: TenantId,
    inviter: UserId,
) -> coditect_store::Result<Option<Right>> {
    let (primary_tenant, right) = match grant_of(tx, tenant, inviter).await? {
        Some((grant, membership)) => (membership.primary_tenant, (Some(grant), membership.role)),
        None => (tenant, (None, Role::Owner)),
    };
    let user = tx.get::<User>(primary_tenant, inviter).await?;
    Ok(user.filter(|user| user.status == UserStatus::Enabled).map(|_| right))
}

/// Returns the grant of a member of `tenant`, with their membership.
async fn grant_of(
    tx: &Transaction,
    tenant: TenantId,
    member: UserId,
) -> coditect_store::Result<Option<(Grant, Membership)>> {
    let membership = tx.get::<Membership>(tenant, member).await?;
    Ok(membership.filter(|membership| !membership.ended).map(|membership| {
        let grant = Grant { membership_id: membership.id, demotions: membership.demotions };
        (grant, membership)
    }))
}

/// Deletes up to a hundred invitations to the address of the member of `membership` into its
/// tenant, with a removal or a demotion.
pub(super) async fn delete_addressed(
    tx: &Transaction,
    membership: &Membership,
) -> coditect_store::Result<()> {
    let (tenant, primary_tenant) = (membership.tenant_id, membership.primary_tenant);
    let Some(member) = tx.get::<User>(primary_tenant, membership.user_id).await? else {
        return Ok(());
    };
    let all = tx.list::<Invitation>(tenant).page(MAX_INVITATIONS, None).await?.items;
    let addressed = all.iter().filter(|it| it.email_normalized == member.email_normalized);
    for invitation in addressed.take(BATCH) {
        tx.delete::<Invitation>(tenant, invitation.id).await?;
    }
    Ok(())
}

/// Deletes up to a hundred void invitations of `inviter` into `tenant`, and returns their number.
/// Void ones are the oldest.
pub(super) async fn revoke_void(
    tx: &Transaction,
    tenant: TenantId,
    inviter: UserId,
) -> coditect_store::Result<usize> {
    let oldest = tx.scan(&Invitation::BY_INVITER, tenant, inviter).page(BATCH, None).await?.items;
    if oldest.is_empty() {
        return Ok(0);
    }
    let right = right_of(tx, tenant, inviter).await?;
    let mut revoked = 0;
    for invitation in oldest {
        if !holds_by(&invitation, right) {
            tx.delete::<Invitation>(tenant, invitation.id).await?;
            revoked += 1;
        }
    }
    Ok(revoked)
}
