//! My devices: the logins that one has.

use coditect_store::{
    Transaction,
    model::{AuthSession, AuthSessionId, RevocationReason, User},
};

use super::{
    Auth, Device, Identity, MOST_SESSIONS,
    audit::{Action, Entry},
    signing_out::end,
};
use crate::Error;

/// The longest name of a login, in characters.
pub const DEVICE_NAME_CHARS: usize = 100;

impl Auth {
    /// The logins of whoever `identity` is that hold, newest first. As many reads as there are, at once.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] of a program; [`Error::Store`].
    pub async fn devices(
        &self,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<Vec<AuthSession>, Error> {
        identity.session()?;
        let mut devices = self.live_sessions(tx, &identity.user).await?;
        devices.reverse();
        Ok(devices)
    }

    /// Gives a login a name, or takes it away.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if it is none of theirs, or holds no more; [`Error::Forbidden`] of a program.
    pub async fn name_device(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: AuthSessionId,
        name: Option<String>,
    ) -> Result<AuthSession, Error> {
        let device = self.own_device(tx, identity, id).await?;
        let name = name.map(|name| name.chars().take(DEVICE_NAME_CHARS).collect());
        let named = AuthSession { name, ..device };
        tx.update(&named).await?;
        Ok(named)
    }

    /// Ends a login, the one that asks for it too.
    ///
    /// # Errors
    ///
    /// As for [`name_device`](Self::name_device).
    pub async fn revoke_device(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: AuthSessionId,
        from: &Device,
    ) -> Result<(), Error> {
        let device = self.own_device(tx, identity, id).await?;
        let now = self.clock.now();
        end(tx, &device, RevocationReason::Revoked, now).await?;
        let user = &identity.user;
        let entry = Entry::new(Action::SessionRevoked, user.tenant_id, Some(user.id), from);
        Ok(entry.target(id).write(tx, now).await?)
    }

    /// Ends all logins but the one that asks for it, and says how many.
    ///
    /// # Errors
    ///
    /// [`Error::Forbidden`] of a program; [`Error::Store`].
    pub async fn revoke_other_devices(
        &self,
        tx: &Transaction,
        identity: &Identity,
        from: &Device,
    ) -> Result<usize, Error> {
        let own = identity.session()?.id;
        let user = &identity.user;
        let ended = self.end_sessions(tx, user, RevocationReason::Revoked, Some(own)).await?;
        let entry = Entry::new(Action::SessionRevoked, user.tenant_id, Some(user.id), from);
        let entry = entry.details(serde_json::json!({ "others": ended }));
        entry.write(tx, self.clock.now()).await?;
        Ok(ended)
    }

    async fn own_device(
        &self,
        tx: &Transaction,
        identity: &Identity,
        id: AuthSessionId,
    ) -> Result<AuthSession, Error> {
        identity.session()?;
        let (user, now) = (&identity.user, self.clock.now());
        let device = tx.get::<AuthSession>(user.tenant_id, id).await?;
        device
            .filter(|device| device.user_id == user.id && device.holds_at(now))
            .ok_or(Error::NotFound)
    }

    /// Those of `user` that hold, oldest first.
    async fn live_sessions(
        &self,
        tx: &Transaction,
        user: &User,
    ) -> Result<Vec<AuthSession>, Error> {
        let now = self.clock.now();
        let live = tx
            .scan(&AuthSession::BY_USER, user.tenant_id, user.id)
            .filter("live", |session| session.holds_at(now));
        Ok(live.all(MOST_SESSIONS).await?)
    }

    /// Ends the sessions of `user`, but for one, and says how many.
    pub(super) async fn end_sessions(
        &self,
        tx: &Transaction,
        user: &User,
        reason: RevocationReason,
        but: Option<AuthSessionId>,
    ) -> Result<usize, Error> {
        let now = self.clock.now();
        let mut ended = 0;
        for session in self.live_sessions(tx, user).await? {
            if Some(session.id) != but {
                end(tx, &session, reason, now).await?;
                ended += 1;
            }
        }
        Ok(ended)
    }
}
