//! Password change and password reset.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Transaction,
    keyspace::Global,
    model::{AuthSession, TenantId, User, UserId, UserStatus},
};

use super::{
    Auth, ClientInfo, Identity,
    audit::{Action, Entry},
    login_records::revoke_logins_but,
    mail_limits::Mail,
    tokens::revoke_all_tokens,
};
use crate::{
    Email, Error, Notice, OpaqueToken, Password,
    model::{PasswordReset, PasswordResetId, ResetOrigin},
    tokens::opaque::Kind,
};

/// Validity of a reset token.
pub const RESET_TOKEN_LIFETIME: TimeDelta = TimeDelta::minutes(30);

/// Maximum number of open reset tokens per user.
pub const MAX_RESETS: usize = 5;

impl Auth {
    /// Changes the caller's password, and revokes their other sessions.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if the current password is wrong; [`Error::WeakPassword`];
    /// [`Error::Forbidden`] for a personal access token; [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`].
    pub async fn change_password(
        &self,
        identity: &Identity,
        present: &str,
        next: &str,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let session = identity.session()?.id;
        let user = &identity.user;
        let email = Email::parse(&user.email).map_err(Error::internal)?;
        let next = Password::choose(next, &email)?;
        let proof = self.verify_password(user, present, client).await?;
        let next_hash = self.hasher.hash(&next).await?;
        let now = self.clock.now();
        self.store
            .run(|tx| {
                let (proof, next_hash) = (&proof, &next_hash);
                async move {
                    let user = proof.recheck(&tx).await?;
                    let own = tx.get::<AuthSession>(user.tenant_id, session).await?;
                    let own = own.filter(|own| !own.is_revoked(&user));
                    let own = own.ok_or(Error::SessionRevoked)?;
                    let user = self.set_password(&tx, &user, next_hash).await?;
                    revoke_logins_but(&tx, &user, &own, now).await?;
                    proof.attempt.record_success(&tx, now).await?;
                    let entry =
                        Entry::new(Action::PasswordChanged, user.tenant_id, Some(user.id), client);
                    Ok::<_, Error>(entry.write(&tx, now).await?)
                }
            })
            .await?;
        self.notify(user, Notice::PasswordChanged);
        Ok(())
    }

    /// Counts a reset request as a failed attempt of its address.
    ///
    /// # Errors
    ///
    /// [`Error::Throttled`].
    pub fn count_reset_request(&self, client: &ClientInfo) -> Result<(), Error> {
        let now = self.clock.now();
        self.check_address(client, now)?;
        self.record_address_failure(client, now);
        Ok(())
    }

    /// Sends a reset token to the address of an account. Does nothing without a mailer, without
    /// such an account, or if a token was sent lately: from the second on the interval doubles,
    /// from a minute to the [lifetime](RESET_TOKEN_LIFETIME) of one. Do not await it in a request:
    /// its duration would reveal whether the account exists.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; [`Error::Internal`] if the delivery failed.
    pub async fn request_reset(&self, email: &str, client: &ClientInfo) -> Result<(), Error> {
        let Some(mailer) = &self.mailer else { return Ok(()) };
        let Ok(email) = Email::parse(email) else { return Ok(()) };
        let Some(user) = self.user_by_email(&email).await? else { return Ok(()) };
        let text = self.new_reset(&user, ResetOrigin::Client, client).await?;
        let Some(text) = text else { return Ok(()) };
        mailer
            .password_reset(&user.email, &text, RESET_TOKEN_LIFETIME)
            .await
            .map_err(Error::Internal)
    }

    /// Creates a password-reset token for `user`. Returns `None` for a disabled user; to a client
    /// also if [too many](super::mail_limits) were sent lately, or if all open ones are the
    /// operator's. A token beyond [`MAX_RESETS`] replaces the oldest one that a client requested
    /// or, for an operator, the oldest.
    pub(super) async fn new_reset(
        &self,
        user: &User,
        origin: ResetOrigin,
        client: &ClientInfo,
    ) -> Result<Option<OpaqueToken>, Error> {
        let (text, hash) = Kind::Reset.generate()?;
        let email = &Email::parse(&user.email).map_err(Error::internal)?;
        let now = self.clock.now();
        let reset = &PasswordReset {
            id: PasswordResetId::new(),
            tenant_id: user.tenant_id,
            user_id: user.id,
            origin,
            hash,
            created_at: now,
            expires_at: now + RESET_TOKEN_LIFETIME,
        };
        let made = self.store.run_idempotent(|tx| async move {
            let user = tx.get::<User>(reset.tenant_id, reset.user_id).await?;
            if user.is_none_or(|user| user.status != UserStatus::Enabled) {
                return Ok(false);
            }
            let open = resets_of(&tx, reset.tenant_id, reset.user_id).await?;
            // An attempt with an unknown outcome committed.
            if open.iter().any(|it| it.id == reset.id) {
                return Ok(true);
            }
            let Some(evicted) = place_for(reset, &open, now) else { return Ok(false) };
            let mail = (Mail::PasswordReset, email);
            if origin == ResetOrigin::Client && !self.take_mail(&tx, mail, now).await? {
                return Ok(false);
            }
            for id in evicted {
                tx.delete::<PasswordReset>(reset.tenant_id, id).await?;
            }
            tx.insert(reset).await?;
            Entry::new(Action::PasswordResetRequested, reset.tenant_id, None, client)
                .target(reset.user_id)
                .write(&tx, now)
                .await?;
            Ok::<_, coditect_store::Error>(true)
        });
        Ok(made.await?.then_some(text))
    }

    /// Sets the password of the user of `token`, consumes the token, and revokes all their sessions
    /// and personal tokens. A second factor stays.
    ///
    /// # Errors
    ///
    /// [`Error::ResetInvalid`], [`Error::WeakPassword`], [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`].
    pub async fn reset_password(
        &self,
        token: &str,
        next: &str,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        self.check_address(client, now)?;
        let refused = || {
            self.record_address_failure(client, now);
            Error::ResetInvalid
        };
        let hash = Kind::Reset.hash_of(token).ok_or_else(refused)?;
        let known = self.store.run(|tx| async move { self.of_reset(&tx, hash).await }).await;
        let user = known.map_err(|error| match error {
            Error::ResetInvalid => refused(),
            error => error,
        })?;
        let email = Email::parse(&user.email).map_err(Error::internal)?;
        let next = Password::choose(next, &email)?;
        let (email, next_hash) = (&email, &self.hasher.hash(&next).await?);
        self.store
            .run(|tx| async move {
                let user = self.of_reset(&tx, hash).await?;
                let user = self.set_password(&tx, &user, next_hash).await?;
                let user = tx.revoke_logins(user, now).await?;
                revoke_all_tokens(&tx, &user).await?;
                self.clear_failures(&tx, email).await?;
                self.forget_mails(&tx, (Mail::PasswordReset, email)).await?;
                let entry =
                    Entry::new(Action::PasswordReset, user.tenant_id, Some(user.id), client);
                Ok::<_, Error>(entry.write(&tx, now).await?)
            })
            .await?;
        self.notify(&user, Notice::PasswordChanged);
        Ok(())
    }

    /// Returns the user of the reset token with that hash.
    async fn of_reset(&self, tx: &Transaction, hash: [u8; 32]) -> Result<User, Error> {
        let now = self.clock.now();
        let reset = tx.find(&PasswordReset::BY_HASH, Global, hash).await?;
        let reset = reset.filter(|reset| now < reset.expires_at).ok_or(Error::ResetInvalid)?;
        let user = tx.get::<User>(reset.tenant_id, reset.user_id).await?;
        let user = user.filter(|user| user.status == UserStatus::Enabled);
        user.ok_or(Error::ResetInvalid)
    }

    /// Sets the password of `user`, deletes all open reset tokens, and returns the user as written.
    async fn set_password(
        &self,
        tx: &Transaction,
        user: &User,
        password_hash: &str,
    ) -> Result<User, Error> {
        let updated_at = self.clock.now();
        let password_hash = password_hash.to_owned();
        for reset in resets_of(tx, user.tenant_id, user.id).await? {
            tx.delete::<PasswordReset>(user.tenant_id, reset.id).await?;
        }
        let user = User { password_hash, updated_at, ..user.clone() };
        tx.update(&user).await?;
        Ok(user)
    }
}

/// Returns the stored reset tokens of a user, oldest first.
async fn resets_of(
    tx: &Transaction,
    tenant: TenantId,
    user: UserId,
) -> coditect_store::Result<Vec<PasswordReset>> {
    tx.scan(&PasswordReset::BY_USER, tenant, user).all(MAX_RESETS).await
}

/// Returns the `stored` tokens that `new` replaces, or `None` if it is rejected: see
/// [`Auth::new_reset`].
fn place_for(
    new: &PasswordReset,
    stored: &[PasswordReset],
    now: DateTime<Utc>,
) -> Option<Vec<PasswordResetId>> {
    let (over, open): (Vec<_>, Vec<_>) = stored.iter().partition(|it| now >= it.expires_at);
    let mut evicted: Vec<_> = over.iter().map(|it| it.id).collect();
    if open.len() >= MAX_RESETS {
        let of_client = open.iter().find(|it| it.origin == ResetOrigin::Client);
        let oldest = open.first().filter(|_| new.origin == ResetOrigin::Operator);
        evicted.push(of_client.or(oldest)?.id);
    }
    Some(evicted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reset(origin: ResetOrigin, minute: i64) -> PasswordReset {
        let created_at = DateTime::from_timestamp(60 * minute, 0).unwrap();
        PasswordReset {
            id: PasswordResetId::new(),
            tenant_id: TenantId::new(),
            user_id: UserId::new(),
            origin,
            hash: [0; 32],
            created_at,
            expires_at: created_at + RESET_TOKEN_LIFETIME,
        }
    }

    #[test]
    fn client_takes_no_place_of_an_operator() {
        let mut stored: Vec<_> =
            (0..5).map(|minute| reset(ResetOrigin::Operator, minute)).collect();
        let (client, operator) = (reset(ResetOrigin::Client, 9), reset(ResetOrigin::Operator, 9));
        let now = client.created_at;
        assert_eq!(place_for(&client, &stored, now), None);
        assert_eq!(place_for(&operator, &stored, now), Some(vec![stored[0].id]));
        stored[3] = reset(ResetOrigin::Client, 3);
        for new in [&client, &operator] {
            assert_eq!(place_for(new, &stored, now), Some(vec![stored[3].id]));
        }
        let later = now + RESET_TOKEN_LIFETIME;
        let all: Vec<_> = stored.iter().map(|it| it.id).collect();
        assert_eq!(place_for(&client, &stored, later), Some(all));
    }
}
