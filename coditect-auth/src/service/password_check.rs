//! Checking a password, with the cost and the rate limit of each check.

use coditect_store::{Transaction, model::User};

use super::{Auth, ClientInfo, rate_limit::LoginAttempt};
use crate::{Email, Error, Password, Verdict};

impl Auth {
    /// Checks `password` against `user`. Costs the same if there is no user.
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

    /// Verifies that a signed-in user knows their password. Counts as a login attempt at the
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

/// Outcome of a password check.
pub(super) enum PasswordCheck {
    /// The password is right; and whether its hash must be recomputed.
    Yes(Box<User>, bool),
    /// The password is wrong, or there is no user.
    No(Option<Box<User>>),
}

/// Proof that a user presented their password, as of the check.
pub(super) struct PasswordProof {
    user: User,
    pub(super) attempt: LoginAttempt,
}

impl PasswordProof {
    /// Returns the user as read by `tx`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`] if the password or the status has changed.
    pub(super) async fn recheck(&self, tx: &Transaction) -> Result<User, Error> {
        let user = tx.get::<User>(self.user.tenant_id, self.user.id).await?;
        user.filter(|user| {
            user.password_hash == self.user.password_hash && user.status == self.user.status
        })
        .ok_or(Error::InvalidCredentials)
    }
}
