//! Changing a password, and setting it anew by a token that was sent.

use chrono::TimeDelta;
use coditect_store::{
    Transaction,
    keyspace::Global,
    model::{RevocationReason, User, UserStatus},
};

use super::{
    Auth, Device, Identity,
    audit::{Action, Entry},
    tokens::revoke_all_tokens,
};
use crate::{Email, Error, OpaqueText, Password, model::PasswordReset, opaque::Kind};

/// How long a reset token is good.
pub const RESET_LIFE: TimeDelta = TimeDelta::minutes(30);

/// How long the next one is waited for.
const RESET_EVERY: TimeDelta = TimeDelta::minutes(1);

impl Auth {
    /// Gives whoever `identity` is another password, and ends their other sessions.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if the present password is another; [`Error::WeakPassword`];
    /// [`Error::Forbidden`] of a program; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    pub async fn change_password(
        &self,
        identity: &Identity,
        present: &str,
        next: &str,
        device: &Device,
    ) -> Result<(), Error> {
        let session = identity.session()?.id;
        let user = &identity.user;
        let email = Email::parse(&user.email).map_err(Error::internal)?;
        let next = Password::choose(next, &email)?;
        let proof = self.prove(user, present, device).await?;
        let next_hash = self.hasher.hash(&next).await?;
        let now = self.clock.now();
        self.store
            .run(|tx| {
                let (proof, next_hash) = (&proof, &next_hash);
                async move {
                    let user = proof.still_holds(&tx).await?;
                    self.set_password(&tx, &user, next_hash).await?;
                    self.end_sessions(&tx, &user, RevocationReason::PasswordChange, Some(session))
                        .await?;
                    proof.attempt.succeeded(&tx, now).await?;
                    let entry =
                        Entry::new(Action::PasswordChanged, user.tenant_id, Some(user.id), device);
                    Ok(entry.write(&tx, now).await?)
                }
            })
            .await
    }

    /// Lets a request for a reset through, which counts as a failed attempt of its address.
    ///
    /// # Errors
    ///
    /// [`Error::Throttled`].
    pub fn admit_reset(&self, device: &Device) -> Result<(), Error> {
        let now = self.clock.now();
        self.admit_address(device, now)?;
        self.address_failed(device, now);
        Ok(())
    }

    /// Makes a token that resets the password of the account of `email`, and sends it there; nothing if
    /// there is no such account, or one was sent within the last minute. Whoever asks is not told which,
    /// so it is not waited for where they could notice.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; [`Error::Internal`] if it could not be sent.
    pub async fn request_reset(&self, email: &str, device: &Device) -> Result<(), Error> {
        let Ok(email) = Email::parse(email) else { return Ok(()) };
        let Some(user) = self.user_by_email(&email).await? else { return Ok(()) };
        let Some(text) = self.new_reset(&user, device, RESET_EVERY).await? else { return Ok(()) };
        self.courier.password_reset(&user.email, &text, RESET_LIFE).await.map_err(Error::Internal)
    }

    /// Makes a token that resets the password of `user`; none if they may not sign in, or have got one
    /// within `every`.
    pub(super) async fn new_reset(
        &self,
        user: &User,
        device: &Device,
        every: TimeDelta,
    ) -> Result<Option<OpaqueText>, Error> {
        let (text, hash) = Kind::Reset.generate()?;
        let now = self.clock.now();
        let reset = &PasswordReset {
            tenant_id: user.tenant_id,
            user_id: user.id,
            hash,
            created_at: now,
            expires_at: now + RESET_LIFE,
        };
        let made = self.store.run_idempotent(|tx| async move {
            let user = tx.get::<User>(reset.tenant_id, reset.user_id).await?;
            if user.is_none_or(|user| user.status != UserStatus::Enabled) {
                return Ok(false);
            }
            let before = tx.get::<PasswordReset>(reset.tenant_id, reset.user_id).await?;
            match before {
                // An attempt whose outcome was unknown came through.
                Some(before) if before.hash == reset.hash => return Ok(true),
                Some(before) if now.signed_duration_since(before.created_at) < every => {
                    return Ok(false);
                }
                _ => tx.upsert(reset).await?,
            }
            Entry::new(Action::PasswordResetRequested, reset.tenant_id, None, device)
                .target(reset.user_id)
                .write(&tx, now)
                .await?;
            Ok::<_, coditect_store::Error>(true)
        });
        Ok(made.await?.then_some(text))
    }

    /// Sets the password anew of whoever has been sent `token`, which is used up then, and ends all their
    /// sessions and personal tokens. A second factor stays.
    ///
    /// # Errors
    ///
    /// [`Error::ResetInvalid`], [`Error::WeakPassword`], [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`].
    pub async fn reset_password(
        &self,
        token: &str,
        next: &str,
        device: &Device,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        self.admit_address(device, now)?;
        let refused = || {
            self.address_failed(device, now);
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
                self.set_password(&tx, &user, next_hash).await?;
                self.end_sessions(&tx, &user, RevocationReason::PasswordReset, None).await?;
                revoke_all_tokens(&tx, &user).await?;
                self.forget_failures(&tx, email).await?;
                let entry =
                    Entry::new(Action::PasswordReset, user.tenant_id, Some(user.id), device);
                Ok(entry.write(&tx, now).await?)
            })
            .await
    }

    /// Whose password a token of that hash sets anew.
    async fn of_reset(&self, tx: &Transaction, hash: [u8; 32]) -> Result<User, Error> {
        let now = self.clock.now();
        let reset = tx.find(&PasswordReset::BY_HASH, Global, hash).await?;
        let reset = reset.filter(|reset| now < reset.expires_at).ok_or(Error::ResetInvalid)?;
        let user = tx.get::<User>(reset.tenant_id, reset.user_id).await?;
        let user = user.filter(|user| user.status == UserStatus::Enabled);
        user.ok_or(Error::ResetInvalid)
    }

    /// Gives `user` another password. A reset that was asked for is of no use any more.
    async fn set_password(
        &self,
        tx: &Transaction,
        user: &User,
        password_hash: &str,
    ) -> Result<(), Error> {
        let updated_at = self.clock.now();
        let password_hash = password_hash.to_owned();
        tx.delete::<PasswordReset>(user.tenant_id, user.id).await?;
        Ok(tx.update(&User { password_hash, updated_at, ..user.clone() }).await?)
    }
}
