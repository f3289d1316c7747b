//! Refresh: replaces a refresh token.

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    model::{AuthSession, MembershipRef, TenantId, User},
};

use super::{
    Auth, ClientInfo, Tokens,
    authentication::membership_in,
    login_records::{apply_refusal, audit_tenant_entry, session_and_user},
};
use crate::{
    Decision, Error, PresentedToken, RefreshToken, Stored,
    tokens::{family, refresh},
};

impl Auth {
    /// Replaces a refresh token; [`family`] decides on the presented one.
    /// The new tokens are for `tenant` if one is given, else for the session's active tenant, or
    /// for the primary tenant if that membership has ended.
    ///
    /// # Errors
    ///
    /// [`Error::RefreshInvalid`], [`Error::SessionRevoked`], [`Error::SessionExpired`],
    /// [`Error::RefreshReused`], [`Error::NotAMember`] of `tenant`, [`Error::Store`].
    pub async fn refresh(
        &self,
        token: &str,
        tenant: Option<TenantId>,
        client: &ClientInfo,
    ) -> Result<Tokens, Error> {
        let token = self.refresh.parse(token)?;
        let presented = PresentedToken::new(&token, refresh::fresh_salt()?);
        let now = self.clock.now();
        // A rotation with an unknown commit outcome recognizes itself by its salt.
        let outcome = self.store.run_idempotent(|tx| {
            let (token, presented) = (&token, &presented);
            async move { self.refresh_in(&tx, token, presented, (tenant, client, now)).await }
        });
        let (session, user, successor) = outcome.await??;
        self.tokens(&session, &user, &successor, now).await
    }

    /// The transaction of a refresh. A rejection is `Ok(Err(…))`, so that its writes commit.
    async fn refresh_in(
        &self,
        tx: &Transaction,
        token: &RefreshToken,
        presented: &PresentedToken,
        (tenant, client, now): (Option<TenantId>, &ClientInfo, DateTime<Utc>),
    ) -> Result<Result<(AuthSession, User, RefreshToken), Error>, Error> {
        let Some((session, user)) = session_and_user(tx, token.family).await? else {
            return Ok(Err(Error::SessionRevoked));
        };
        Ok(match self.decide(&session, &user, presented, now) {
            Decision::Rotate => {
                let Some(next) = self.refresh.successor(token, &presented.salt) else {
                    return Ok(Err(Error::SessionExpired));
                };
                let hash = next.secret.hash();
                let idle = self.lifetimes.idle;
                let active_membership = active_membership(tx, &session, &user, tenant).await?;
                let session = family::rotated(&session, presented.salt, hash, now, idle);
                let before = session.active_membership;
                let session = AuthSession { active_membership, ..session };
                tx.update(&session).await?;
                if before != active_membership {
                    audit_tenant_entry(tx, &session, (client, now)).await?;
                }
                Ok((session, user, next))
            }
            Decision::ReplayWithinGrace => match self.refresh.successor(token, &session.salt) {
                Some(next) => {
                    let active_membership = active_membership(tx, &session, &user, tenant).await?;
                    let before = session.active_membership;
                    let session = AuthSession { active_membership, ..session };
                    // The session is not written, but the access token is valid in that tenant
                    // nevertheless.
                    if before != active_membership {
                        audit_tenant_entry(tx, &session, (client, now)).await?;
                    }
                    Ok((session, user, next))
                }
                None => Err(Error::SessionExpired),
            },
            refused => Err(apply_refusal(tx, &session, refused, (client, now)).await?),
        })
    }

    pub(super) fn decide(
        &self,
        session: &AuthSession,
        user: &User,
        presented: &PresentedToken,
        now: DateTime<Utc>,
    ) -> Decision {
        let stored = Stored { session, user: user.status, login_epoch: user.login_epoch };
        family::decide(Some(stored), presented, now, self.lifetimes.grace)
    }
}

/// Returns the membership of the session's next tokens: in the chosen tenant, or the current one.
/// `None` in the primary tenant, and once the current membership has ended.
async fn active_membership(
    tx: &Transaction,
    session: &AuthSession,
    user: &User,
    chosen: Option<TenantId>,
) -> Result<Option<MembershipRef>, Error> {
    match (chosen, session.active_membership) {
        (Some(tenant), _) => membership_in(tx, user, tenant).await,
        (None, None) => Ok(None),
        (None, Some(before)) => match membership_in(tx, user, before.tenant_id).await {
            Ok(membership) => Ok(membership.filter(|membership| *membership == before)),
            Err(Error::NotAMember) => Ok(None),
            Err(error) => Err(error),
        },
    }
}
