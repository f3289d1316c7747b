//! The second factor: a code of an authenticator app, or one of the recovery codes.
//!
//! It is asked for from the moment on that its user has shown a first code. What a code was taken for is
//! committed with the code being used up: none is taken twice.

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{Transaction, model::User};

use super::{
    Auth, ClientInfo, Identity,
    audit::{Action, Entry},
    rate_limit::LoginAttempt,
};
use crate::{
    Email, Error, Notice, model,
    seal::Sealed,
    second_factor::{FactorSecret, MAX_FAILURES, RecoveryCodes, find_recovery_code},
};

/// Time within which a second factor that was begun is confirmed.
const ENROLLMENT_TIMEOUT: TimeDelta = TimeDelta::minutes(15);

/// Reason for which a confirmation is refused.
const NOT_PENDING: &str =
    "two-factor authentication has no pending setup, or it has timed out: start again";

/// Age up to which a login counts as [fresh](Auth::require_fresh_login).
pub const MAX_FRESH_LOGIN_AGE: TimeDelta = TimeDelta::minutes(10);

/// What a user puts into their authenticator app.
#[derive(Debug)]
pub struct NewFactor {
    /// The secret, for the app.
    pub secret: FactorSecret,
    /// Whose it is, as the app shows it.
    pub account: String,
}

/// A factor that is asked for.
pub(super) struct ConfirmedFactor(model::SecondFactor);

/// What was shown beside a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecondFactorUsed {
    None,
    Totp,
    RecoveryCode,
}

impl SecondFactorUsed {
    /// Its name in the audit log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Totp => "totp",
            Self::RecoveryCode => "recovery_code",
        }
    }
}

impl ConfirmedFactor {
    /// The factor that `user` must show, if they must. One read.
    pub(super) async fn read(tx: &Transaction, user: &User) -> Result<Option<Self>, Error> {
        let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
        Ok(factor.filter(|factor| factor.confirmed).map(Self))
    }

    /// Takes a code, which is used up then. After [`MAX_FAILURES`] wrong ones only a recovery code is
    /// accepted, which lets codes of the app be accepted again.
    ///
    /// # Errors
    ///
    /// [`Error::FactorWrong`], [`Error::FactorLocked`]: [`Auth::record_code_failure`] counts both.
    pub(super) async fn consume(
        self,
        auth: &Auth,
        tx: &Transaction,
        code: &str,
        now: DateTime<Utc>,
    ) -> Result<SecondFactorUsed, Error> {
        let Self(mut factor) = self;
        let is_locked = factor.failures >= MAX_FAILURES;
        let secret = auth.open_factor(&factor);
        if let Err(error) = &secret {
            // That of a tenant that came from another installation. Recovery codes are good anywhere.
            let (error, user_id): (&dyn std::error::Error, _) = (error, factor.user_id);
            tracing::error!(error, %user_id, "a second factor does not open");
        }
        let secret = secret.ok().filter(|_| !is_locked);
        let step = secret.and_then(|secret| secret.check(code, now, factor.last_step));
        let shown = if let Some(step) = step {
            factor.last_step = step;
            SecondFactorUsed::Totp
        } else if let Some(at) = find_recovery_code(&factor.recovery_hashes, code) {
            factor.recovery_hashes.remove(at);
            SecondFactorUsed::RecoveryCode
        } else {
            return Err(if is_locked { Error::FactorLocked } else { Error::FactorWrong });
        };
        factor.failures = 0;
        tx.update(&factor).await?;
        Ok(shown)
    }
}

impl Auth {
    /// Creates a secret for the authenticator app of the caller, who shows their password: an access
    /// token alone must not decide what its owner signs in with (OWASP ASVS 5, 7.5.1). It replaces one
    /// that is not confirmed. Until [`confirm_second_factor`](Self::confirm_second_factor), within 15
    /// minutes, no code is asked for.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`]; [`Error::FactorState`] if one is confirmed; [`Error::Forbidden`] to
    /// a personal token; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    pub async fn enroll_second_factor(
        &self,
        identity: &Identity,
        password: &str,
        secret: FactorSecret,
        client: &ClientInfo,
    ) -> Result<NewFactor, Error> {
        identity.session()?;
        let proof = self.verify_password(&identity.user, password, client).await?;
        let now = self.clock.now();
        let begun = self.store.run(|tx| {
            let (proof, secret) = (&proof, &secret);
            async move {
                let user = proof.recheck(&tx).await?;
                let before = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
                if before.is_some_and(|factor| factor.confirmed) {
                    return Err(Error::FactorState("two-factor authentication is already enabled"));
                }
                let factor = model::SecondFactor {
                    tenant_id: user.tenant_id,
                    user_id: user.id,
                    secret: self.seal_factor(&user, secret)?,
                    confirmed: false,
                    last_step: 0,
                    recovery_hashes: Vec::new(),
                    failures: 0,
                    created_at: now,
                };
                tx.upsert(&factor).await?;
                proof.attempt.record_success(&tx, now).await?;
                Ok(user.email)
            }
        });
        let account = begun.await?;
        Ok(NewFactor { secret, account })
    }

    /// Enables the factor that was begun: from now on a code is asked for beside the password. `codes`,
    /// just created, are for when the app is lost; each is good once. A wrong code counts as a failed
    /// attempt at the account.
    ///
    /// # Errors
    ///
    /// [`Error::FactorWrong`]; [`Error::FactorState`] if there is none to confirm, or it was begun too
    /// long ago; [`Error::Forbidden`] to a personal token; [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`].
    pub async fn confirm_second_factor(
        &self,
        identity: &Identity,
        code: &str,
        codes: &RecoveryCodes,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        identity.session()?;
        let user = &identity.user;
        let email = Email::parse(&user.email).map_err(Error::internal)?;
        let attempt = self.acquire_attempt(&email, client).await?;
        let now = self.clock.now();
        let confirm = self.store.run(|tx| async move {
            let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
            let is_pending = |factor: &model::SecondFactor| {
                let age = now.signed_duration_since(factor.created_at);
                !factor.confirmed && age < ENROLLMENT_TIMEOUT
            };
            let factor = factor.filter(is_pending).ok_or(Error::FactorState(NOT_PENDING))?;
            let secret = self.open_factor(&factor)?;
            let last_step = secret.check(code, now, factor.last_step).ok_or(Error::FactorWrong)?;
            let recovery_hashes = codes.hashes();
            let confirmed = true;
            tx.update(&model::SecondFactor { confirmed, last_step, recovery_hashes, ..factor })
                .await?;
            let entry = Entry::new(Action::FactorConfirmed, user.tenant_id, Some(user.id), client);
            Ok(entry.write(&tx, now).await?)
        });
        match confirm.await {
            Ok(()) => self.notify(user, Notice::SecondFactorEnabled),
            Err(Error::FactorWrong) => {
                self.record_failure(&attempt, Some(user), client).await?;
                return Err(Error::FactorWrong);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Counts a wrong code, which is a failed attempt at the account as well.
    pub(super) async fn record_code_failure(
        &self,
        attempt: &LoginAttempt,
        user: &User,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        self.record_failure(attempt, Some(user), client).await?;
        let now = self.clock.now();
        // Counting one twice, when an outcome was unknown, is not worth a marker.
        let counted = self.store.run_idempotent(|tx| async move {
            let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
            let Some(factor) = factor.filter(|factor| factor.failures < MAX_FAILURES) else {
                return Ok(false);
            };
            let failures = factor.failures + 1;
            tx.update(&model::SecondFactor { failures, ..factor }).await?;
            if failures == MAX_FAILURES {
                Entry::new(Action::FactorLocked, user.tenant_id, None, client)
                    .target(user.id)
                    .write(&tx, now)
                    .await?;
            }
            Ok::<_, coditect_store::Error>(failures == MAX_FAILURES)
        });
        if counted.await? {
            tracing::warn!(user_id = %user.id, "second factor locked after too many wrong codes");
            self.notify(user, Notice::SecondFactorLocked);
        }
        Ok(())
    }

    /// Requires that the caller has signed in within [`MAX_FRESH_LOGIN_AGE`], or shows their password: for what
    /// outlives an access token that may be stolen (OWASP ASVS 5, 7.5.1).
    ///
    /// # Errors
    ///
    /// [`Error::ReauthenticationRequired`]; [`Error::InvalidCredentials`] for another password;
    /// [`Error::Forbidden`] to a personal token; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    pub async fn require_fresh_login(
        &self,
        identity: &Identity,
        password: Option<&str>,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        let session = identity.session()?;
        let Some(password) = password else {
            let age = self.clock.now().signed_duration_since(session.created_at);
            let is_fresh = age.abs() < MAX_FRESH_LOGIN_AGE;
            return if is_fresh { Ok(()) } else { Err(Error::ReauthenticationRequired) };
        };
        let proof = self.verify_password(&identity.user, password, client).await?;
        let now = self.clock.now();
        let forget = self.store.run(|tx| {
            let attempt = &proof.attempt;
            async move { attempt.record_success(&tx, now).await }
        });
        Ok(forget.await?)
    }

    /// Asks for no code any more. Whoever wants that shows their password again, and a code.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`], [`Error::FactorRequired`], [`Error::FactorWrong`];
    /// [`Error::FactorState`] if there is none; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    pub async fn remove_second_factor(
        &self,
        identity: &Identity,
        password: &str,
        code: Option<&str>,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        identity.session()?;
        let now = self.clock.now();
        let proof = self.verify_password(&identity.user, password, client).await?;
        let removed = self
            .store
            .run(|tx| {
                let proof = &proof;
                async move {
                    let user = proof.recheck(&tx).await?;
                    let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
                    let factor = factor
                        .ok_or(Error::FactorState("two-factor authentication is not enabled"))?;
                    if factor.confirmed {
                        let code = code.ok_or(Error::FactorRequired)?;
                        ConfirmedFactor(factor).consume(self, &tx, code, now).await?;
                    }
                    tx.delete::<model::SecondFactor>(user.tenant_id, user.id).await?;
                    proof.attempt.record_success(&tx, now).await?;
                    let entry =
                        Entry::new(Action::FactorRemoved, user.tenant_id, Some(user.id), client);
                    Ok(entry.write(&tx, now).await?)
                }
            })
            .await;
        match &removed {
            Ok(()) => self.notify(&identity.user, Notice::SecondFactorRemoved),
            Err(Error::FactorWrong | Error::FactorLocked) => {
                self.record_code_failure(&proof.attempt, &identity.user, client).await?;
            }
            Err(_) => {}
        }
        removed
    }

    fn seal_factor(&self, user: &User, secret: &FactorSecret) -> Result<Sealed, Error> {
        Sealed::seal(&self.factor_key, secret.expose(), user.id.0.as_bytes())
    }

    fn open_factor(&self, factor: &model::SecondFactor) -> Result<FactorSecret, Error> {
        let opened = factor.secret.open(&self.factor_key, factor.user_id.0.as_bytes())?;
        FactorSecret::from_bytes(&opened)
    }
}
