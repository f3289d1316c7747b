//! Logout.

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    keyspace::Global,
    model::{AuthSession, AuthSessionId, RevocationReason, TenantId, TokenFamilyId, User},
};
use serde_json::json;

use super::{
    Auth, ClientInfo, Credential, VerifiedCredential,
    audit::{Action, Entry},
    login_records::{apply_refusal, end_session, live_logins, session_and_user},
};
use crate::{Claims, Decision, Error, PresentedToken, tokens::refresh};

impl Auth {
    /// Revokes the session of a token. Idempotent.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`], [`Error::TokenExpired`], [`Error::RefreshInvalid`],
    /// [`Error::Store`].
    pub async fn logout(
        &self,
        credential: Credential<'_>,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let session = match credential {
            Credential::Access(token) => {
                let claims = self.verify(token).await?;
                SessionOf::Id(claims.primary_tenant(), claims.session_id)
            }
            Credential::Refresh(token) => SessionOf::Family(self.refresh.parse(token)?.family),
        };
        let now = self.clock.now();
        let ended = self.store.run(|tx| async move {
            match live(&tx, session).await? {
                Some((session, _)) => {
                    end_session(&tx, &session, RevocationReason::Logout, now).await?;
                    let (tenant, user) = (session.tenant_id, Some(session.user_id));
                    let entry = Entry::new(Action::Logout, tenant, user, client);
                    entry.target(session.id).write(&tx, now).await
                }
                None => Ok(()),
            }
        });
        ended.await.map_err(Error::Store)
    }

    /// Revokes all sessions of a token's user in one write, by their login epoch. Unlike
    /// [`logout`](Self::logout) it requires a valid token: one that was leaked long ago revokes
    /// only its own session. Idempotent with the same token.
    ///
    /// # Errors
    ///
    /// As for [`verify`](Self::verify) and [`authenticate`](Self::authenticate), or for
    /// [`refresh`](Self::refresh), where a replay revokes its family; [`Error::Store`].
    pub async fn logout_everywhere(
        &self,
        credential: Credential<'_>,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let proof = match credential {
            Credential::Access(token) => SessionProof::Access(Box::new(self.verify(token).await?)),
            Credential::Refresh(token) => {
                let token = self.refresh.parse(token)?;
                SessionProof::Refresh(
                    token.family,
                    PresentedToken::new(&token, refresh::fresh_salt()?),
                )
            }
        };
        let session = match &proof {
            SessionProof::Access(claims) => {
                SessionOf::Id(claims.primary_tenant(), claims.session_id)
            }
            SessionProof::Refresh(family, _) => SessionOf::Family(*family),
        };
        let outcome = self.store.run_idempotent(|tx| {
            let proof = &proof;
            async move {
                let known = session.find(&tx).await?;
                let before = known.and_then(|session| session.revocation);
                if before.is_some_and(|it| it.reason == RevocationReason::LogoutEverywhere) {
                    return Ok(Ok(()));
                }
                let (session, user) = match self.check_proof(&tx, proof, (client, now)).await? {
                    Ok(proven) => proven,
                    // The revocation after a replay commits before the rejection is returned.
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let ended = live_logins(&tx, &user, now).await?.len();
                // Names the reason, so that a retry recognizes its own write.
                end_session(&tx, &session, RevocationReason::LogoutEverywhere, now).await?;
                let user = tx.revoke_logins(user, now).await?;
                let (tenant, actor) = (user.tenant_id, Some(user.id));
                let entry = Entry::new(Action::LogoutEverywhere, tenant, actor, client);
                entry.details(json!({ "sessions": ended })).write(&tx, now).await?;
                Ok::<_, Error>(Ok(()))
            }
        });
        outcome.await?
    }

    /// Returns the session and user that `proof` belongs to, or the reason for its rejection.
    async fn check_proof(
        &self,
        tx: &Transaction,
        proof: &SessionProof,
        (client, now): (&ClientInfo, DateTime<Utc>),
    ) -> Result<Result<(AuthSession, User), Error>, Error> {
        match proof {
            SessionProof::Access(claims) => {
                let identity =
                    self.authenticate(tx, &VerifiedCredential::Access(claims.clone())).await?;
                Ok(Ok((identity.session()?.clone(), identity.user)))
            }
            SessionProof::Refresh(family, presented) => {
                let Some((session, user)) = session_and_user(tx, *family).await? else {
                    return Ok(Err(Error::SessionRevoked));
                };
                Ok(match self.decide(&session, &user, presented, now) {
                    Decision::Rotate | Decision::ReplayWithinGrace => Ok((session, user)),
                    refused => Err(apply_refusal(tx, &session, refused, (client, now)).await?),
                })
            }
        }
    }
}

/// Evidence of a valid session.
enum SessionProof {
    Access(Box<Claims>),
    Refresh(TokenFamilyId, PresentedToken),
}

/// Returns the session and its user, unless it was revoked.
async fn live(
    tx: &Transaction,
    session: SessionOf,
) -> coditect_store::Result<Option<(AuthSession, User)>> {
    let Some(session) = session.find(tx).await? else { return Ok(None) };
    let user = tx.get::<User>(session.tenant_id, session.user_id).await?;
    Ok(user.filter(|user| !session.is_revoked(user)).map(|user| (session, user)))
}

/// Key of the session of a presented token.
#[derive(Clone, Copy)]
enum SessionOf {
    Id(TenantId, AuthSessionId),
    Family(TokenFamilyId),
}

impl SessionOf {
    async fn find(self, tx: &Transaction) -> coditect_store::Result<Option<AuthSession>> {
        match self {
            Self::Id(tenant, id) => tx.get::<AuthSession>(tenant, id).await,
            Self::Family(family) => tx.find(&AuthSession::BY_FAMILY, Global, family).await,
        }
    }
}
