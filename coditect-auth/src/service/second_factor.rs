//! Second factor of a login: a TOTP code, or a recovery code.
//!
//! Required once its user has presented a first code. A code is consumed in the transaction that it
//! authorizes, so it is accepted once.

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

/// Time to confirm an enrollment.
const ENROLLMENT_TIMEOUT: TimeDelta = TimeDelta::minutes(15);

/// Reason for which a removal is refused.
pub(super) const NOT_ENABLED: &str = "two-factor authentication is not enabled";
/// Reason for which a confirmation is refused.
const NOT_PENDING: &str =
    "two-factor authentication has no pending setup, or it has timed out: start again";

/// Age up to which a login counts as [fresh](Auth::require_fresh_login).
pub const MAX_FRESH_LOGIN_AGE: TimeDelta = TimeDelta::minutes(10);

/// Enrollment of an authenticator app.
#[derive(Debug)]
pub struct NewFactor {
    /// Secret for the app.
    pub secret: FactorSecret,
    /// Account name for the app.
    pub account: String,
}

/// A confirmed second factor, required at logins.
pub(super) struct ConfirmedFactor(model::SecondFactor);

/// Second factor used with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecondFactorUsed {
    None,
    Totp,
    RecoveryCode,
}

impl SecondFactorUsed {
    /// Returns its name in the audit log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Totp => "totp",
            Self::RecoveryCode => "recovery_code",
        }
    }
}

impl ConfirmedFactor {
    /// Returns the confirmed second factor of `user`, if there is one. One read.
    pub(super) async fn read(tx: &Transaction, user: &User) -> Result<Option<Self>, Error> {
        let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
        Ok(factor.filter(|factor| factor.confirmed).map(Self))
    }

    /// Consumes a code. After [`MAX_FAILURES`] wrong ones only a recovery code is accepted, which
    /// resets the count.
    ///
    /// # Errors
    ///
    /// [`Error::FactorWrong`], [`Error::FactorLocked`]; the caller counts both with
    /// [`Auth::record_code_failure`].
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
            // Imported from another installation. Recovery codes remain valid.
            let (error, user_id): (&dyn std::error::Error, _) = (error, factor.user_id);
            tracing::error!(error, %user_id, "cannot decrypt second factor");
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
    /// Starts the enrollment of an authenticator app. Requires the password, since an access token
    /// alone must not change how its owner logs in (OWASP ASVS 5, 7.5.1). Replaces an unconfirmed
    /// enrollment. No code is required until
    /// [`confirm_second_factor`](Self::confirm_second_factor), within 15 minutes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`]; [`Error::FactorState`] if a second factor is enabled;
    /// [`Error::Forbidden`] for a personal access token; [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`].
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

    /// Enables the enrolled second factor: logins require a code from now on. `codes` are the new
    /// recovery codes, valid once each. A wrong code counts as a failed login attempt.
    ///
    /// # Errors
    ///
    /// [`Error::FactorWrong`]; [`Error::FactorState`] without a pending enrollment;
    /// [`Error::Forbidden`] for a personal access token; [`Error::Throttled`], [`Error::Busy`],
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

    /// Counts a wrong code, which is a failed login attempt as well.
    pub(super) async fn record_code_failure(
        &self,
        attempt: &LoginAttempt,
        user: &User,
        client: &ClientInfo,
    ) -> Result<(), Error> {
        self.record_failure(attempt, Some(user), client).await?;
        let now = self.clock.now();
        // An unknown outcome may count it twice, which is harmless.
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

    /// Requires that the caller logged in within [`MAX_FRESH_LOGIN_AGE`], or presents their
    /// password: for operations whose effect outlives a stolen access token (OWASP ASVS 5, 7.5.1).
    ///
    /// # Errors
    ///
    /// [`Error::ReauthenticationRequired`]; [`Error::InvalidCredentials`] for a wrong password;
    /// [`Error::Forbidden`] for a personal access token; [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`].
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

    /// Removes the second factor. Requires the password and, if it is confirmed, a code.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`], [`Error::FactorRequired`], [`Error::FactorWrong`];
    /// [`Error::FactorState`] if there is none; [`Error::Throttled`], [`Error::Busy`],
    /// [`Error::Store`].
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
                    let factor = factor.ok_or(Error::FactorState(NOT_ENABLED))?;
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
