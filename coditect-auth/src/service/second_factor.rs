//! The second factor: a code of an authenticator app, or one of the recovery codes.
//!
//! It is asked for from the moment on that its user has shown a first code. What a code was taken for is
//! committed with the code being used up: none is taken twice.

use chrono::{DateTime, Utc};
use coditect_store::{Transaction, model::User};

use super::{
    Auth, Device, Identity,
    accounts::Proven,
    audit::{Action, Entry},
};
use crate::{
    Email, Error, Password, model,
    seal::Sealed,
    second_factor::{FactorSecret, RecoveryCodes, find_recovery_code},
};

/// What a user puts into their authenticator app.
#[derive(Debug)]
pub struct NewFactor {
    /// The secret, for the app.
    pub secret: FactorSecret,
    /// Whose it is, as the app shows it.
    pub account: String,
}

/// A factor that is asked for.
pub(super) struct Factor(model::SecondFactor);

/// What was shown beside a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Code,
    RecoveryCode,
}

impl Shown {
    /// Its name in the audit log.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Code => "totp",
            Self::RecoveryCode => "recovery_code",
        }
    }
}

impl Factor {
    /// The factor that `user` must show, if they must. One read.
    pub(super) async fn read(tx: &Transaction, user: &User) -> Result<Option<Self>, Error> {
        let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
        Ok(factor.filter(|factor| factor.confirmed).map(Self))
    }

    /// Takes a code, which is used up then.
    pub(super) async fn take(
        self,
        auth: &Auth,
        tx: &Transaction,
        code: &str,
        now: DateTime<Utc>,
    ) -> Result<Shown, Error> {
        let Self(mut factor) = self;
        let secret = auth.open_factor(&factor);
        if let Err(error) = &secret {
            // That of a tenant that came from another installation. Recovery codes are good anywhere.
            let (error, user_id): (&dyn std::error::Error, _) = (error, factor.user_id);
            tracing::error!(error, %user_id, "a second factor does not open");
        }
        let step = secret.ok().and_then(|secret| secret.check(code, now, factor.last_step));
        let shown = if let Some(step) = step {
            factor.last_step = step;
            Shown::Code
        } else if let Some(at) = find_recovery_code(&factor.recovery_hashes, code) {
            factor.recovery_hashes.remove(at);
            Shown::RecoveryCode
        } else {
            return Err(Error::FactorWrong);
        };
        tx.update(&factor).await?;
        Ok(shown)
    }
}

impl Auth {
    /// A new secret for the authenticator app of whoever `identity` is, which takes the place of one
    /// that was not confirmed. Until [`confirm_factor`](Self::confirm_factor) nothing is asked for. It
    /// is written in `tx`.
    ///
    /// # Errors
    ///
    /// [`Error::FactorState`] if there is one that is confirmed; [`Error::Forbidden`] of a program.
    pub async fn begin_factor(
        &self,
        tx: &Transaction,
        identity: &Identity,
        secret: FactorSecret,
    ) -> Result<NewFactor, Error> {
        identity.session()?;
        let user = &identity.user;
        let before = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
        if before.is_some_and(|factor| factor.confirmed) {
            return Err(Error::FactorState);
        }
        let factor = model::SecondFactor {
            tenant_id: user.tenant_id,
            user_id: user.id,
            secret: self.seal_factor(user, &secret)?,
            confirmed: false,
            last_step: 0,
            recovery_hashes: Vec::new(),
            created_at: self.clock.now(),
        };
        tx.upsert(&factor).await?;
        Ok(NewFactor { secret, account: user.email.clone() })
    }

    /// From now on a code is asked for beside the password. `codes`, which were just made, are for when
    /// the app is lost; each is good once. It is written in `tx`.
    ///
    /// # Errors
    ///
    /// [`Error::FactorWrong`]; [`Error::FactorState`] if there is none to confirm; [`Error::Forbidden`]
    /// of a program.
    pub async fn confirm_factor(
        &self,
        tx: &Transaction,
        identity: &Identity,
        code: &str,
        codes: &RecoveryCodes,
        device: &Device,
    ) -> Result<(), Error> {
        identity.session()?;
        let (user, now) = (&identity.user, self.clock.now());
        let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
        let factor = factor.filter(|factor| !factor.confirmed).ok_or(Error::FactorState)?;
        let secret = self.open_factor(&factor)?;
        let last_step = secret.check(code, now, factor.last_step).ok_or(Error::FactorWrong)?;
        let recovery_hashes = codes.hashes();
        let confirmed = true;
        tx.update(&model::SecondFactor { confirmed, last_step, recovery_hashes, ..factor }).await?;
        let entry = Entry::new(Action::FactorConfirmed, user.tenant_id, Some(user.id), device);
        Ok(entry.write(tx, now).await?)
    }

    /// Asks for no code any more. Whoever wants that shows their password again, and a code.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`], [`Error::FactorRequired`], [`Error::FactorWrong`];
    /// [`Error::FactorState`] if there is none; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    pub async fn remove_factor(
        &self,
        identity: &Identity,
        password: &str,
        code: Option<&str>,
        device: &Device,
    ) -> Result<(), Error> {
        identity.session()?;
        let now = self.clock.now();
        let proof = self.prove(&identity.user, password, device).await?;
        let removed = self
            .store
            .run(|tx| {
                let proof = &proof;
                async move {
                    let user = proof.still_holds(&tx).await?;
                    let factor = tx.get::<model::SecondFactor>(user.tenant_id, user.id).await?;
                    let factor = factor.ok_or(Error::FactorState)?;
                    if factor.confirmed {
                        let code = code.ok_or(Error::FactorRequired)?;
                        Factor(factor).take(self, &tx, code, now).await?;
                    }
                    tx.delete::<model::SecondFactor>(user.tenant_id, user.id).await?;
                    proof.attempt.succeeded(&tx, now).await?;
                    let entry =
                        Entry::new(Action::FactorRemoved, user.tenant_id, Some(user.id), device);
                    Ok(entry.write(&tx, now).await?)
                }
            })
            .await;
        if matches!(removed, Err(Error::FactorWrong)) {
            self.failed(&proof.attempt, Some(&identity.user), device).await?;
        }
        removed
    }

    /// That whoever is signed in as `user` knows their password, too. It counts as an attempt at the
    /// account.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`], [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    pub(super) async fn prove(
        &self,
        user: &User,
        password: &str,
        device: &Device,
    ) -> Result<Proof, Error> {
        let email = Email::parse(&user.email).map_err(Error::internal)?;
        let attempt = self.admit(&email, device).await?;
        let holds = match Password::presented(password) {
            Ok(password) => self.password_holds(Some(user.clone()), &password).await?,
            Err(_) => Proven::No(None),
        };
        match holds {
            Proven::Yes(user, _) => Ok(Proof { user: *user, attempt }),
            Proven::No(_) => {
                self.failed(&attempt, Some(user), device).await?;
                Err(Error::InvalidCredentials)
            }
        }
    }

    fn seal_factor(&self, user: &User, secret: &FactorSecret) -> Result<Sealed, Error> {
        Sealed::seal(&self.factor_key, secret.expose(), user.id.0.as_bytes())
    }

    fn open_factor(&self, factor: &model::SecondFactor) -> Result<FactorSecret, Error> {
        let opened = factor.secret.open(&self.factor_key, factor.user_id.0.as_bytes())?;
        FactorSecret::from_bytes(&opened)
    }
}

/// That a user's password was shown, as it was then.
pub(super) struct Proof {
    user: User,
    pub(super) attempt: super::throttling::Attempt,
}

impl Proof {
    /// The user as they are in `tx`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if they have another password now, or may not sign in.
    pub(super) async fn still_holds(&self, tx: &Transaction) -> Result<User, Error> {
        let user = tx.get::<User>(self.user.tenant_id, self.user.id).await?;
        user.filter(|user| {
            user.password_hash == self.user.password_hash && user.status == self.user.status
        })
        .ok_or(Error::InvalidCredentials)
    }
}
