//! Tenants that have several users: who they are, who is invited, and in which one acts.

use chrono::TimeDelta;
use coditect_store::{
    Transaction,
    keyspace::Global,
    model::{Membership, RevocationReason, Role, Tenant, TenantId, User, UserId},
};
use serde_json::json;

use super::{
    Auth, Device, Identity, Pass,
    audit::{Action, Entry},
};
use crate::{
    Email, Error, OpaqueText,
    model::{Invitation, InvitationId},
    opaque::Kind,
};

/// How long an invitation can be accepted.
pub const INVITATION_LIFE: TimeDelta = TimeDelta::days(7);

/// The most members, and the most open invitations, of a tenant.
const MOST: usize = 1_000;

/// The most tenants that somebody is a member of.
const MOST_MEMBERSHIPS: usize = 1_000;

/// An invitation that is to be made. Its text is drawn once, whatever its transaction does.
#[derive(Debug)]
pub struct NewInvitation {
    text: OpaqueText,
    hash: [u8; 32],
    id: InvitationId,
    email: Email,
    role: Role,
}

/// Somebody who may work in a tenant.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who.
    pub user: User,
    /// What they may do.
    pub role: Role,
    /// How they came in; none of whose own tenant it is.
    pub membership: Option<Membership>,
}

impl NewInvitation {
    /// One for whoever has that address.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidEmail`]; [`Error::Internal`] if the system has no randomness.
    pub fn new(email: &str, role: Role) -> Result<Self, Error> {
        let email = Email::parse(email)?;
        let (text, hash) = Kind::Invitation.generate()?;
        Ok(Self { text, hash, id: InvitationId::new(), email, role })
    }

    /// What whoever is invited gets.
    pub fn text(&self) -> &OpaqueText {
        &self.text
    }

    /// Where it is to be sent.
    pub fn email(&self) -> &str {
        self.email.display()
    }
}

impl Auth {
    /// The tenants that whoever `identity` is may act in, their own first.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn tenants_of(
        &self,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<Vec<(Tenant, Role)>, Error> {
        let user = &identity.user;
        let memberships = tx.scan(&Membership::BY_USER, Global, user.id);
        let memberships = memberships.all(MOST_MEMBERSHIPS).await?;
        let all = std::iter::once((user.tenant_id, Role::Owner))
            .chain(memberships.iter().map(|it| (it.tenant_id, it.role)));
        let mut tenants = Vec::new();
        for (id, role) in all {
            // One that is being deleted is gone.
            if let Some(tenant) = tx.get::<Tenant>(id, ()).await? {
                tenants.push((tenant, role));
            }
        }
        Ok(tenants)
    }

    /// Who may work in the tenant that `identity` acts in: those whose own it is, then those who came.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn members(
        &self,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<Vec<Member>, Error> {
        let tenant = identity.tenant_id;
        let own = tx.list::<User>(tenant).all(MOST).await?.into_iter();
        let mut members: Vec<Member> =
            own.map(|user| Member { user, role: Role::Owner, membership: None }).collect();
        for membership in tx.list::<Membership>(tenant).all(MOST).await? {
            let user = tx.get::<User>(membership.home, membership.user_id).await?;
            if let Some(user) = user.filter(|_| !membership.ended) {
                members.push(Member { user, role: membership.role, membership: Some(membership) });
            }
        }
        Ok(members)
    }

    /// Invites somebody into the tenant that `identity` acts in. What they get is
    /// [`NewInvitation::text`], by whatever way; [`send_invitation`](Self::send_invitation) is one.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] if they are no admin, or want to give a role above their own, and of a
    /// program; [`Error::TooMany`]; [`Error::Store`].
    pub async fn invite(
        &self,
        tx: &Transaction,
        identity: &Identity,
        new: &NewInvitation,
        device: &Device,
    ) -> Result<Invitation, Error> {
        identity.session()?;
        identity.require_role(Role::Admin)?;
        require_not_above(identity, new.role)?;
        let (tenant, now) = (identity.tenant_id, self.clock.now());
        if tx.list::<Invitation>(tenant).all(MOST).await?.len() >= MOST {
            return Err(Error::TooMany("invitations"));
        }
        let invitation = Invitation {
            id: new.id,
            tenant_id: tenant,
            email: new.email.display().to_owned(),
            email_normalized: new.email.normalized().to_owned(),
            role: new.role,
            hash: new.hash,
            invited_by: identity.user.id,
            created_at: now,
            expires_at: now + INVITATION_LIFE,
        };
        tx.create(&invitation).await?;
        let entry = Entry::new(Action::Invited, tenant, Some(identity.user.id), device);
        let entry = entry.target(invitation.id).details(json!({ "role": new.role }));
        entry.write(tx, now).await?;
        Ok(invitation)
    }

    /// Sends an invitation to its address, once it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if it could not be sent.
    pub async fn send_invitation(&self, new: &NewInvitation, tenant: &Tenant) -> Result<(), Error> {
        let Some(courier) = &self.courier else { return Ok(()) };
        let sent = courier.invitation(new.email(), &tenant.name, new.text(), INVITATION_LIFE);
        sent.await.map_err(Error::Internal)
    }

    /// The invitations into the tenant that `identity` acts in that can still be accepted, oldest first.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] if they are no admin; [`Error::Store`].
    pub async fn invitations(
        &self,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<Vec<Invitation>, Error> {
        identity.require_role(Role::Admin)?;
        let now = self.clock.now();
        let mut all = tx.list::<Invitation>(identity.tenant_id).all(MOST).await?;
        all.retain(|invitation| now < invitation.expires_at);
        Ok(all)
    }

    /// Takes an invitation back.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Forbidden`] if they are no admin, and of a program; [`Error::Store`].
    pub async fn withdraw_invitation(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: InvitationId,
        device: &Device,
    ) -> Result<(), Error> {
        identity.session()?;
        identity.require_role(Role::Admin)?;
        let tenant = identity.tenant_id;
        tx.delete::<Invitation>(tenant, id).await?.ok_or(Error::NotFound)?;
        let entry = Entry::new(Action::InvitationWithdrawn, tenant, Some(identity.user.id), device);
        Ok(entry.target(id).write(tx, self.clock.now()).await?)
    }

    /// Makes whoever `identity` is a member of the tenant that they were invited into, and uses the
    /// invitation up. Somebody who was one gets the new role, if it is more.
    ///
    /// # Errors
    ///
    /// [`Error::InvitationInvalid`] if it is none, or is over, or was for another address, or is for
    /// their own tenant; [`Error::Forbidden`] of a program; [`Error::TooMany`]; [`Error::Store`].
    pub async fn accept_invitation(
        &self,
        tx: &Transaction,
        identity: &Identity,
        text: &str,
        device: &Device,
    ) -> Result<Membership, Error> {
        identity.session()?;
        let hash = Kind::Invitation.hash_of(text).ok_or(Error::InvitationInvalid)?;
        let (user, now) = (&identity.user, self.clock.now());
        let invitation = tx.find(&Invitation::BY_HASH, Global, hash).await?;
        let invitation = invitation
            .filter(|it| now < it.expires_at && it.email_normalized == user.email_normalized)
            .filter(|it| it.tenant_id != user.tenant_id)
            .ok_or(Error::InvitationInvalid)?;
        let tenant = invitation.tenant_id;
        // It cannot be deleted meanwhile, and leave the membership behind.
        tx.get::<Tenant>(tenant, ()).await?.ok_or(Error::InvitationInvalid)?;
        tx.delete::<Invitation>(tenant, invitation.id).await?;
        let before = tx.get::<Membership>(tenant, user.id).await?;
        let known = tx.scan(&Membership::BY_USER, Global, user.id).all(MOST_MEMBERSHIPS).await?;
        if known.len() >= MOST_MEMBERSHIPS {
            return Err(Error::TooMany("memberships"));
        }
        let role = match &before {
            Some(before) if !before.ended => before.role.max(invitation.role),
            _ => invitation.role,
        };
        let membership = Membership {
            tenant_id: tenant,
            user_id: user.id,
            home: user.tenant_id,
            role,
            invited_by: invitation.invited_by,
            created_at: now,
            updated_at: now,
            ended: false,
        };
        tx.upsert(&membership).await?;
        let entry = Entry::new(Action::MemberJoined, tenant, Some(user.id), device);
        let entry = entry.target(user.id).details(json!({ "role": role }));
        entry.write(tx, now).await?;
        Ok(membership)
    }

    /// Gives a member another role.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such member; [`Error::Forbidden`] unless it is an owner who
    /// asks, and of a program; [`Error::Store`].
    pub async fn change_role(
        &self,
        tx: &Transaction,
        identity: &Identity,
        member: UserId,
        role: Role,
        device: &Device,
    ) -> Result<Membership, Error> {
        identity.session()?;
        identity.require_role(Role::Owner)?;
        let (tenant, now) = (identity.tenant_id, self.clock.now());
        let membership = open_membership(tx, tenant, member).await?;
        let changed = Membership { role, updated_at: now, ..membership };
        tx.update(&changed).await?;
        let entry = Entry::new(Action::MemberChanged, tenant, Some(identity.user.id), device);
        let entry = entry.target(member).details(json!({ "role": role }));
        entry.write(tx, now).await?;
        Ok(changed)
    }

    /// Ends a membership: at once, for all their tokens. A member may end their own; what they made
    /// stays the tenant's.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such member; [`Error::Forbidden`] if it is another's, and they
    /// are no admin, or that one's role is above their own, and of a program; [`Error::Store`].
    pub async fn remove_member(
        &self,
        tx: &Transaction,
        identity: &Identity,
        member: UserId,
        device: &Device,
    ) -> Result<(), Error> {
        identity.session()?;
        let (tenant, now) = (identity.tenant_id, self.clock.now());
        let membership = open_membership(tx, tenant, member).await?;
        if member != identity.user.id {
            identity.require_role(Role::Admin)?;
            require_not_above(identity, membership.role)?;
        }
        tx.update(&Membership { ended: true, updated_at: now, ..membership }).await?;
        let entry = Entry::new(Action::MemberRemoved, tenant, Some(identity.user.id), device);
        Ok(entry.target(member).write(tx, now).await?)
    }

    /// Deletes the tenant that whoever shows `pass` acts in, for an owner of it who shows their password
    /// too. It is gone with this, and the logins of whoever asks if it was their own; the rest is a
    /// deletion to [complete](coditect_store::Store::complete). What was written down of it goes with it:
    /// an owner from elsewhere finds an entry in their own tenant.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if the password is another; [`Error::Forbidden`] if they are no owner,
    /// and of a program; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`]; those of
    /// [`authenticate`](Self::authenticate).
    pub async fn delete_tenant(
        &self,
        pass: &Pass,
        password: &str,
        device: &Device,
    ) -> Result<(), Error> {
        let owner = |tx: Transaction| async move {
            let identity = self.authenticate(&tx, pass).await?;
            identity.session()?;
            if identity.role < Role::Owner {
                return Err(Error::Forbidden("this is for the tenant's owners"));
            }
            Ok(identity)
        };
        let identity = self.store.run(owner).await?;
        let proof = self.prove(&identity.user, password, device).await?;
        let now = self.clock.now();
        self.store
            .run(|tx| {
                let (owner, proof) = (&owner, &proof);
                async move {
                    let identity = owner(tx.clone()).await?;
                    let user = proof.still_holds(&tx).await?;
                    proof.attempt.succeeded(&tx, now).await?;
                    let tenant = identity.tenant_id;
                    tx.delete_tenant(tenant, now).await?.ok_or(Error::NotFound)?;
                    if user.tenant_id == tenant {
                        self.end_sessions(&tx, &user, RevocationReason::Revoked, None).await?;
                        return Ok(());
                    }
                    let entry =
                        Entry::new(Action::TenantDeleted, user.tenant_id, Some(user.id), device);
                    Ok(entry.target(tenant.0).write(&tx, now).await?)
                }
            })
            .await
    }
}

fn require_not_above(identity: &Identity, role: Role) -> Result<(), Error> {
    if role > identity.role {
        return Err(Error::Forbidden("this role is above the caller's own"));
    }
    Ok(())
}

async fn open_membership(
    tx: &Transaction,
    tenant: TenantId,
    user: UserId,
) -> Result<Membership, Error> {
    let membership = tx.get::<Membership>(tenant, user).await?;
    membership.filter(|membership| !membership.ended).ok_or(Error::NotFound)
}
