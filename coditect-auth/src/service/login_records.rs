//! Reads and writes of login sessions, shared by the transactions above.

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    entity::Covered,
    keyspace::Global,
    model::{AuthSession, AuthSessionId, RevocationReason, TenantId, TokenFamilyId, User, UserId},
    records::MAX_PAGE_RECORDS,
};

use super::{
    ClientInfo,
    audit::{Action, Entry},
};
use crate::{Decision, Error, tokens::family};

/// Index entry of a login.
pub(super) type Login = Covered<TenantId, AuthSessionId, (UserId, u64, i64), i64>;

/// Returns the session of a token family and its user.
pub(super) async fn session_and_user(
    tx: &Transaction,
    family: TokenFamilyId,
) -> Result<Option<(AuthSession, User)>, Error> {
    let session = tx.find(&AuthSession::BY_FAMILY, Global, family).await?;
    let Some(session) = session else { return Ok(None) };
    let user = tx.get::<User>(session.tenant_id, session.user_id).await?;
    Ok(user.map(|user| (session, user)))
}

/// Revokes a session, unless it was revoked before.
pub(super) async fn end_session(
    tx: &Transaction,
    session: &AuthSession,
    reason: RevocationReason,
    now: DateTime<Utc>,
) -> coditect_store::Result<()> {
    match session.revocation {
        Some(_) => Ok(()),
        None => tx.update(&family::revoked(session, reason, now)).await,
    }
}

/// Revokes all logins of `user` except `kept`, and returns the user as written.
pub(super) async fn revoke_logins_but(
    tx: &Transaction,
    user: &User,
    kept: &AuthSession,
    now: DateTime<Utc>,
) -> coditect_store::Result<User> {
    let user = tx.revoke_logins(user.clone(), now).await?;
    tx.update(&AuthSession { login_epoch: user.login_epoch, ..kept.clone() }).await?;
    Ok(user)
}

/// Returns the logins of `user` that are valid at `now`, up to one page, the longest idle first. A
/// snapshot read, for counting: it adds no read conflict.
pub(super) async fn live_logins(
    tx: &Transaction,
    user: &User,
    now: DateTime<Utc>,
) -> coditect_store::Result<Vec<Login>> {
    let mut live = logins(tx, user).await?;
    live.retain(|login| expires_after(login, now));
    Ok(live)
}

pub(super) async fn logins(tx: &Transaction, user: &User) -> coditect_store::Result<Vec<Login>> {
    let of_epoch = (user.id, user.login_epoch);
    let logins = tx.scan_index_only(&AuthSession::BY_USER, user.tenant_id, of_epoch).snapshot();
    Ok(logins.page(MAX_PAGE_RECORDS, None).await?.items)
}

pub(super) fn expires_after(login: &Login, now: DateTime<Utc>) -> bool {
    login.fields > now.timestamp_micros()
}

/// Writes an audit entry in the active tenant of `session` that its user entered it.
pub(super) async fn audit_tenant_entry(
    tx: &Transaction,
    session: &AuthSession,
    (client, now): (&ClientInfo, DateTime<Utc>),
) -> coditect_store::Result<()> {
    let Some(membership) = session.active_membership else { return Ok(()) };
    let (tenant, actor) = (membership.tenant_id, Some(session.user_id));
    let entry = Entry::new(Action::TenantEntered, tenant, actor, client).target(session.id);
    entry.write(tx, now).await
}

/// Carries out the decision on a rejected refresh token, and returns the client's error.
pub(super) async fn apply_refusal(
    tx: &Transaction,
    session: &AuthSession,
    decision: Decision,
    (client, now): (&ClientInfo, DateTime<Utc>),
) -> Result<Error, Error> {
    let (session_id, user_id) = (session.id, session.user_id);
    let entry = |action| Entry::new(action, session.tenant_id, None, client).target(session_id);
    Ok(match decision {
        Decision::Reused => {
            end_session(tx, session, RevocationReason::Reuse, now).await?;
            entry(Action::RefreshReused).write(tx, now).await?;
            tracing::warn!(%session_id, %user_id, "refresh token reused: session revoked");
            Error::RefreshReused
        }
        Decision::Expired => Error::SessionExpired,
        Decision::Revoked => Error::SessionRevoked,
        Decision::TokenAheadOfStore
        | Decision::StoreDiverged
        | Decision::Rotate
        | Decision::ReplayWithinGrace => {
            entry(Action::RefreshTokenAheadOfStore).write(tx, now).await?;
            let hint = "was the store restored from an older copy?";
            tracing::error!(%session_id, %user_id, ?decision, hint, "refresh token ahead of store");
            Error::RefreshInvalid
        }
    })
}
