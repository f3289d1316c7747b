//! Login sessions of a user: listing, naming, revoking, and their limit.
//!
//! A user's logins are revoked at once by their [login epoch](User::login_epoch), in one write.
//! Logins of the current epoch are at most [`Settings::max_logins`](super::Settings::max_logins): a
//! new one deletes the longest idle one.

use chrono::{DateTime, Utc};
use coditect_store::{
    Cursor, Page, Transaction,
    model::{AuthSession, AuthSessionId, RevocationReason, User},
};
use serde_json::json;

use super::{
    Auth, ClientInfo, Identity,
    audit::{Action, Entry},
    login_records::{end_session, expires_after, live_logins, logins, revoke_logins_but},
};
use crate::{Error, text::require_plain};

/// Maximum length of a session's name, in characters.
pub const MAX_SESSION_NAME_CHARS: usize = 100;

impl Auth {
    /// Returns a page of the caller's live sessions, most recently used first.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] for a personal access token; [`Error::Store`] of kind `Invalid` if
    /// `after` belongs to another list.
    pub async fn sessions(
        &self,
        tx: &Transaction,
        identity: &Identity,
        (limit, after): (usize, Option<&Cursor>),
    ) -> Result<Page<AuthSession>, Error> {
        identity.session()?;
        let (user, now) = (&identity.user, self.clock.now());
        let logins = tx.scan(&AuthSession::BY_USER, user.tenant_id, (user.id, user.login_epoch));
        let live = logins.rev().filter("live", |session| session.holds_at(now));
        Ok(live.page(limit, after).await?)
    }

    /// Sets or clears the name of a session.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] unless it is a live session of the caller; [`Error::Forbidden`] for a
    /// personal access token.
    pub async fn rename_session(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: AuthSessionId,
        name: Option<String>,
    ) -> Result<AuthSession, Error> {
        name.as_deref().map_or(Ok(()), require_plain)?;
        let device = self.own_session(tx, identity, id).await?;
        let name = name.map(|name| name.chars().take(MAX_SESSION_NAME_CHARS).collect());
        let named = AuthSession { name, ..device };
        tx.update(&named).await?;
        Ok(named)
    }

    /// Revokes a session, possibly the caller's own.
    ///
    /// # Errors
    ///
    /// As for [`rename_session`](Self::rename_session).
    pub async fn revoke_session(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: AuthSessionId,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let device = self.own_session(tx, identity, id).await?;
        let now = self.clock.now();
        end_session(tx, &device, RevocationReason::Revoked, now).await?;
        let user = &identity.user;
        let entry = Entry::new(Action::SessionRevoked, user.tenant_id, Some(user.id), client);
        Ok(entry.target(id).write(tx, now).await?)
    }

    /// Revokes all sessions except the caller's own, and returns the number of live ones.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] for a personal access token; [`Error::Store`].
    pub async fn revoke_other_sessions(
        &self,
        tx: &Transaction,
        identity: &Identity,
        client: &ClientInfo,
    ) -> Result<usize, Error> {
        let own = identity.session()?;
        let (user, now) = (&identity.user, self.clock.now());
        let live = live_logins(tx, user, now).await?;
        let others = live.iter().filter(|login| login.key != own.id).count();
        revoke_logins_but(tx, user, own, now).await?;
        let entry = Entry::new(Action::SessionRevoked, user.tenant_id, Some(user.id), client);
        entry.details(json!({ "others": others })).write(tx, now).await?;
        Ok(others)
    }

    async fn own_session(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: AuthSessionId,
    ) -> Result<AuthSession, Error> {
        identity.session()?;
        let (user, now) = (&identity.user, self.clock.now());
        let device = tx.get::<AuthSession>(user.tenant_id, id).await?;
        device
            .filter(|device| device.user_id == user.id && !device.is_revoked(user))
            .filter(|device| device.holds_at(now))
            .ok_or(Error::NotFound)
    }

    /// Makes room for one more login of `user`: deletes expired ones, then the longest idle, until
    /// they are below the limit. One range read, and normally at most one deletion.
    ///
    /// Concurrent logins of one user are serialized, so the limit is exact. They conflict with a
    /// refresh only if they delete its session.
    pub(super) async fn make_room(
        &self,
        tx: &Transaction,
        user: &User,
        (client, now): (&ClientInfo, DateTime<Utc>),
    ) -> coditect_store::Result<()> {
        tx.serialize_on::<User>(user.tenant_id, user.id)?;
        let (live, expired): (Vec<_>, Vec<_>) =
            logins(tx, user).await?.into_iter().partition(|login| expires_after(login, now));
        let surplus = (live.len() + expired.len() + 1).saturating_sub(self.max_logins);
        for login in expired.iter().take(surplus) {
            tx.delete::<AuthSession>(user.tenant_id, login.key).await?;
        }
        for login in live.iter().take(surplus.saturating_sub(expired.len())) {
            tx.delete::<AuthSession>(user.tenant_id, login.key).await?;
            let entry = Entry::new(Action::SessionRevoked, user.tenant_id, Some(user.id), client);
            let entry = entry.target(login.key).details(json!({ "reason": "too_many_logins" }));
            entry.write(tx, now).await?;
        }
        Ok(())
    }
}
