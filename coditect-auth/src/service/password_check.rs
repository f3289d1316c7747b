//! Checking a password, with the cost and the rate limit of each check.

use coditect_store::{Transaction, model::User};

use super::{Auth, ClientInfo, rate_limit::LoginAttempt};
use crate::{Email, Error, Password, Verdict};

impl Auth {
    /// Whether `password` is that of `user`. Where there is no user it costs the same.
    pub(super) async fn password_holds(
        &self,
        user: Option<User>,
        password: &Password,
    ) -> Result<PasswordCheck, Error> {
        let Some(user) = user else {
            self.hasher.verify_dummy(password).await?;
            return Ok(PasswordCheck::No(None));
        };
        let user = Box::new(user);
        Ok(match self.hasher.verify(password, &user.password_hash).await? {
            Verdict::Matches { needs_rehash } => PasswordCheck::Yes(user, needs_rehash),
            Verdict::Differs => PasswordCheck::No(Some(user)),
        })
    }

    /// That whoever is signed in as `user` knows their password, too. It counts as an attempt at the
    /// account.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`], [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    pub(super) async fn verify_password(
        &self,
        user: &User,
        password: &str,
        client: &ClientInfo,
    ) -> Result<PasswordProof, Error> {
        let email = Email::parse(&user.email).map_err(Error::internal)?;
        let attempt = self.acquire_attempt(&email, client).await?;
        let holds = match Password::presented(password) {
            Ok(password) => self.password_holds(Some(user.clone()), &password).await?,
            Err(_) => PasswordCheck::No(None),
        };
        match holds {
            PasswordCheck::Yes(user, _) => Ok(PasswordProof { user: *user, attempt }),
            PasswordCheck::No(_) => {
                self.record_failure(&attempt, Some(user), client).await?;
                Err(Error::InvalidCredentials)
            }
        }
    }
}

/// Whether a password is the one.
pub(super) enum PasswordCheck {
    /// It is; and whether its hash is to be made anew.
    Yes(Box<User>, bool),
    /// It is not, or there is no such user.
    No(Option<Box<User>>),
}

/// That a user's password was shown, as it was then.
pub(super) struct PasswordProof {
    user: User,
    pub(super) attempt: LoginAttempt,
}

impl PasswordProof {
    /// The user as they are in `tx`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if they have another password now, or may not sign in.
    pub(super) async fn recheck(&self, tx: &Transaction) -> Result<User, Error> {
        let user = tx.get::<User>(self.user.tenant_id, self.user.id).await?;
        user.filter(|user| {
            user.password_hash == self.user.password_hash && user.status == self.user.status
        })
        .ok_or(Error::InvalidCredentials)
    }
}
