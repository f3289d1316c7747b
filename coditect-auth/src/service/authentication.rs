//! Authentication of requests.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Transaction,
    engine::Watch,
    keyspace::Global,
    model::{
        AuthSession, AuthSessionId, Membership, MembershipId, MembershipRef, Role, Tenant,
        TenantId, User, UserId, UserStatus,
    },
};
use futures_util::future::{try_join, try_join3};

use super::Auth;
use crate::{
    Claims, Error, Scope, TokenError,
    model::PersonalToken,
    tokens::{family, opaque::Kind},
};

/// Resolution of a personal token's last use.
const LAST_USED_INTERVAL: TimeDelta = TimeDelta::hours(1);

/// A credential whose own validity was verified. [`Auth::authenticate`] checks the session, the
/// user and the membership behind it in the request's transaction.
#[derive(Clone, Debug)]
pub enum VerifiedCredential {
    /// An access token with a valid signature that has not expired.
    Access(Box<Claims>),
    /// The hash of a well-formed personal access token.
    Personal(PersonalHash),
    /// A consumed ticket, which represents the session that created it.
    Session {
        /// Primary tenant of the user.
        primary_tenant: TenantId,
        /// Session.
        id: AuthSessionId,
        /// User.
        user: UserId,
        /// Membership that the ticket was created for; `None` in the user's primary tenant. It
        /// stays the same if the session changes its active tenant.
        active_membership: Option<MembershipRef>,
    },
}

/// SHA-256 of a personal access token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PersonalHash([u8; 32]);

impl std::fmt::Debug for PersonalHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersonalHash(redacted)")
    }
}

/// The authenticated caller of a request, as of the transaction that authenticated it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// User.
    pub user: User,
    /// Active tenant.
    pub tenant_id: TenantId,
    /// Role in the active tenant.
    pub role: Role,
    /// Membership in the active tenant; `None` if it is the primary tenant.
    pub membership: Option<MembershipRef>,
    /// How the caller authenticated.
    pub method: AuthMethod,
}

/// How a caller authenticated.
#[derive(Clone, Debug)]
pub enum AuthMethod {
    /// A login session.
    Session(AuthSession),
    /// A personal access token.
    Personal(PersonalToken),
}

impl Identity {
    /// Returns the login session. Operations that a personal access token must not perform call
    /// this.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] for a personal access token.
    pub fn session(&self) -> Result<&AuthSession, Error> {
        match &self.method {
            AuthMethod::Session(session) => Ok(session),
            AuthMethod::Personal(_) => {
                Err(Error::Forbidden("a personal access token may not do this"))
            }
        }
    }

    /// Returns the expiry of the credential.
    pub fn expires_at(&self) -> DateTime<Utc> {
        match &self.method {
            AuthMethod::Session(session) => session.expires_at(),
            AuthMethod::Personal(token) => token.expires_at,
        }
    }

    /// Fails if the caller's personal access token lacks `scope`.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`].
    pub fn require_scope(&self, scope: Scope) -> Result<(), Error> {
        match &self.method {
            AuthMethod::Personal(token) if !token.scopes.allow(scope) => {
                Err(Error::Forbidden("the token's scopes don't cover this"))
            }
            _ => Ok(()),
        }
    }

    /// Fails if the caller's role in the active tenant is below `role`.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`].
    pub fn require_role(&self, role: Role) -> Result<(), Error> {
        if self.role < role {
            return Err(Error::Forbidden("this is for the tenant's owners and admins"));
        }
        Ok(())
    }

    /// Fails if `role` is above the caller's own: it can be neither granted nor revoked.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`].
    pub(super) fn require_not_above(&self, role: Role) -> Result<(), Error> {
        if role > self.role {
            return Err(Error::Forbidden("this role is above the caller's own"));
        }
        Ok(())
    }
}

impl Auth {
    /// Verifies the bearer token of an `Authorization` header: the signature and times of an access
    /// token, or the form of a personal access token. Call [`authenticate`](Self::authenticate) to
    /// check revocation too.
    ///
    /// # Errors
    ///
    /// As for [`verify`](Self::verify).
    pub async fn verify_credential(&self, token: &str) -> Result<VerifiedCredential, Error> {
        match Kind::Personal.hash_of(token) {
            Some(hash) => Ok(VerifiedCredential::Personal(PersonalHash(hash))),
            None => {
                self.verify(token).await.map(|claims| VerifiedCredential::Access(Box::new(claims)))
            }
        }
    }

    /// Verifies the signature and the times of an access token. Call
    /// [`authenticate`](Self::authenticate) to check revocation too.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`], [`Error::TokenExpired`]; [`Error::Store`] if its key is unknown and
    /// the ring could not be reloaded.
    pub async fn verify(&self, token: &str) -> Result<Claims, Error> {
        let now = self.clock.now();
        match self.access.verify(self.recent_ring().await?.verifying(), token, now) {
            // Another server may have rotated the keys.
            Err(TokenError::UnknownKey) => {
                self.reload_ring().await?;
                Ok(self.access.verify(self.ring().verifying(), token, now)?)
            }
            verified => Ok(verified?),
        }
    }

    /// Authenticates the caller of a request with `credential`, as of `tx`.
    ///
    /// The first use of an access token after a refresh also confirms the
    /// [rotation](crate::tokens::family), in a short transaction of its own, so that it is
    /// confirmed even if `tx` is read-only or never commits. If `tx` writes, it conflicts with that
    /// transaction and is retried, once in the life of a refresh token.
    ///
    /// # Cost
    ///
    /// For an access token, two reads by key in one round, or four if the active tenant is not the
    /// primary one; for a personal access token, two more rounds.
    ///
    /// # Errors
    ///
    /// [`Error::SessionRevoked`], [`Error::SessionExpired`]; [`Error::NotAMember`] if the
    /// membership of the credential has ended or its tenant was deleted; [`Error::Store`].
    pub async fn authenticate(
        &self,
        tx: &Transaction,
        credential: &VerifiedCredential,
    ) -> Result<Identity, Error> {
        match credential {
            VerifiedCredential::Access(claims) => {
                let (primary_tenant, user, tenant) =
                    (claims.primary_tenant(), claims.sub, claims.tenant_id);
                let (session, user, membership) = try_join3(
                    tx.get::<AuthSession>(primary_tenant, claims.session_id),
                    tx.get::<User>(primary_tenant, user),
                    foreign_membership(tx, primary_tenant, tenant, user),
                )
                .await?;
                let session = session.filter(|it| it.token_family == claims.token_family);
                let membership = only(membership, claims.membership_id);
                let identity = self.session_identity(session, user, (tenant, membership))?;
                self.confirm_rotation(&identity, claims.token_generation).await;
                Ok(identity)
            }
            VerifiedCredential::Session {
                primary_tenant,
                id,
                user: id_of_user,
                active_membership,
            } => {
                let tenant = active_membership.map_or(*primary_tenant, |it| it.tenant_id);
                let (session, user, membership) = try_join3(
                    tx.get::<AuthSession>(*primary_tenant, id),
                    tx.get::<User>(*primary_tenant, id_of_user),
                    foreign_membership(tx, *primary_tenant, tenant, *id_of_user),
                )
                .await?;
                let membership = only(membership, active_membership.map(|it| it.membership_id));
                self.session_identity(session, user, (tenant, membership))
            }
            VerifiedCredential::Personal(PersonalHash(hash)) => {
                self.personal_identity(tx, hash).await
            }
        }
    }

    /// Confirms the newest rotation of the session's refresh token, if the token is of `generation`
    /// and unconfirmed. A failure is logged and left to the next request, so that reads succeed
    /// while the store rejects writes.
    async fn confirm_rotation(&self, identity: &Identity, generation: u32) {
        let AuthMethod::Session(session) = &identity.method else { return };
        let now = self.clock.now();
        if family::confirmed(session, generation, now).is_none() {
            return;
        }
        let (tenant, id) = (session.tenant_id, session.id);
        let confirm = self.store.run_idempotent(|tx| async move {
            let session = tx.get::<AuthSession>(tenant, id).await?;
            let confirmed = session.filter(|session| session.revocation.is_none());
            match confirmed.and_then(|session| family::confirmed(&session, generation, now)) {
                Some(confirmed) => tx.update(&confirmed).await,
                None => Ok(()),
            }
        });
        if let Err(error) = Box::pin(confirm).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, session_id = %id, "refresh token rotation not confirmed");
        }
    }

    /// Returns watches on the records that `identity` depends on, as read by `tx`: at most three.
    /// When one fires, [`authenticate`](Self::authenticate) may reject the credential.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn watch(&self, tx: &Transaction, identity: &Identity) -> Result<Vec<Watch>, Error> {
        let user = &identity.user;
        let mut watches = vec![tx.watch::<User>(user.tenant_id, user.id).await?];
        watches.push(match &identity.method {
            AuthMethod::Session(login) => {
                tx.watch::<AuthSession>(login.tenant_id, login.id).await?
            }
            AuthMethod::Personal(token) => {
                tx.watch::<PersonalToken>(token.tenant_id, token.id).await?
            }
        });
        if let Some(membership) = identity.membership {
            watches.push(tx.watch::<Membership>(membership.tenant_id, user.id).await?);
        }
        Ok(watches)
    }

    fn session_identity(
        &self,
        session: Option<AuthSession>,
        user: Option<User>,
        (tenant_id, membership): (TenantId, Option<Membership>),
    ) -> Result<Identity, Error> {
        let (Some(session), Some(user)) = (session, user) else {
            return Err(Error::SessionRevoked);
        };
        let is_open = session.user_id == user.id && !session.is_revoked(&user);
        if !is_open || user.status != UserStatus::Enabled {
            return Err(Error::SessionRevoked);
        }
        if !session.holds_at(self.clock.now()) {
            return Err(Error::SessionExpired);
        }
        Identity::new(user, tenant_id, membership, AuthMethod::Session(session))
    }

    async fn personal_identity(
        &self,
        tx: &Transaction,
        hash: &[u8; 32],
    ) -> Result<Identity, Error> {
        let now = self.clock.now();
        let token = tx.find(&PersonalToken::BY_HASH, Global, *hash).await?;
        let token = token.ok_or(Error::SessionRevoked)?;
        let tenant = token.active_tenant();
        let (user, membership) = try_join(
            tx.get::<User>(token.tenant_id, token.user_id),
            foreign_membership(tx, token.tenant_id, tenant, token.user_id),
        )
        .await?;
        let user = user.filter(|user| user.status == UserStatus::Enabled);
        let user = user.ok_or(Error::SessionRevoked)?;
        if now >= token.expires_at {
            return Err(Error::SessionExpired);
        }
        let membership = only(membership, token.active_membership.map(|it| it.membership_id));
        let identity =
            Identity::new(user, tenant, membership, AuthMethod::Personal(token.clone()))?;
        if now.signed_duration_since(token.last_used_at) >= LAST_USED_INTERVAL {
            tx.update(&PersonalToken { last_used_at: now, ..token }).await?;
        }
        Ok(identity)
    }
}

impl Identity {
    /// # Errors
    ///
    /// [`Error::NotAMember`] without a membership in a tenant that is not the primary one.
    fn new(
        user: User,
        tenant_id: TenantId,
        membership: Option<Membership>,
        method: AuthMethod,
    ) -> Result<Self, Error> {
        let is_primary = tenant_id == user.tenant_id;
        let role =
            if is_primary { Some(Role::Owner) } else { membership.as_ref().map(|it| it.role) };
        let role = role.ok_or(Error::NotAMember)?;
        let membership = membership.map(|it| it.reference());
        Ok(Self { user, tenant_id, role, membership, method })
    }
}

/// Returns the membership if its id is that of the token, not of an earlier or later membership of
/// the same user.
fn only(membership: Option<Membership>, id: Option<MembershipId>) -> Option<Membership> {
    membership.filter(|membership| Some(membership.id) == id)
}

/// Returns the membership of `user` in `tenant`; `None` in their primary tenant.
///
/// # Errors
///
/// [`Error::NotAMember`] if there is none, or no such tenant.
pub(super) async fn membership_in(
    tx: &Transaction,
    user: &User,
    tenant: TenantId,
) -> Result<Option<MembershipRef>, Error> {
    if tenant == user.tenant_id {
        return Ok(None);
    }
    let membership = foreign_membership(tx, user.tenant_id, tenant, user.id).await?;
    membership.map(|it| Some(it.reference())).ok_or(Error::NotAMember)
}

/// Returns the open membership of a user of `primary_tenant` in another tenant, unless that tenant
/// was deleted.
async fn foreign_membership(
    tx: &Transaction,
    primary_tenant: TenantId,
    tenant: TenantId,
    user: UserId,
) -> coditect_store::Result<Option<Membership>> {
    if tenant == primary_tenant {
        return Ok(None);
    }
    let (membership, tenant) =
        try_join(tx.get::<Membership>(tenant, user), tx.get::<Tenant>(tenant, ())).await?;
    Ok(membership.filter(|it| !it.ended && it.primary_tenant == primary_tenant && tenant.is_some()))
}
