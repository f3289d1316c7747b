//! User administration by an operator.

use coditect_store::{
    Page, Transaction,
    keyspace::Global,
    model::{Tenant, User, UserStatus},
};

use super::{
    Auth, ClientInfo, Registration,
    accounts::{create_user, email_taken, user_in},
    audit::{Action, Entry},
    ide::operator_grant,
    login_records::live_logins,
    second_factor::NOT_ENABLED,
    tokens::revoke_all_tokens,
};
use crate::{
    Email, Error, Notice, OpaqueToken,
    model::{ResetOrigin, SecondFactor},
};

impl Auth {
    /// Creates a user and their tenant in any [registration mode](super::RegistrationMode), with
    /// the right to use the IDE if `ide`.
    ///
    /// # Errors
    ///
    /// As for [`register`](Self::register).
    pub async fn create_user(
        &self,
        registration: Registration<'_>,
        ide: bool,
    ) -> Result<User, Error> {
        let (tenant, user) = self.new_user(registration).await?;
        let made = self.store.run(|tx| {
            let (tenant, user): (&Tenant, &User) = (&tenant, &user);
            async move {
                create_user(&tx, tenant, user, None, &ClientInfo::default()).await?;
                if ide {
                    tx.insert(&operator_grant(user, user.created_at)).await?;
                }
                Ok(())
            }
        });
        made.await.map_err(email_taken)?;
        Ok(user)
    }

    /// Returns the user with that address.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn user(&self, email: &str) -> Result<User, Error> {
        let email = Email::parse(email)?;
        self.user_by_email(&email).await?.ok_or(Error::NotFound)
    }

    /// Returns a page of users, ordered by address.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn users(
        &self,
        limit: usize,
        after: Option<&coditect_store::Cursor>,
    ) -> Result<Page<User>, Error> {
        let page = self
            .store
            .run(|tx| async move { tx.scan(&User::BY_EMAIL, Global, ..).page(limit, after).await });
        Ok(page.await?)
    }

    /// Enables a user, or disables them and revokes their logins.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], also while their tenant is being deleted; [`Error::Store`].
    pub async fn set_status(&self, email: &str, status: UserStatus) -> Result<User, Error> {
        let email = &Email::parse(email)?;
        let set = |tx: Transaction| async move {
            let user = user_in(&tx, email).await?;
            if user.status == status {
                return Ok(user);
            }
            tx.get::<Tenant>(user.tenant_id, ()).await?.ok_or(Error::NotFound)?;
            let now = self.clock.now();
            let user = User { status, updated_at: now, ..user };
            let (user, action) = match status {
                UserStatus::Enabled => {
                    tx.update(&user).await?;
                    (user, Action::UserEnabled)
                }
                UserStatus::Disabled => (tx.revoke_logins(user, now).await?, Action::UserDisabled),
            };
            Entry::new(action, user.tenant_id, None, &ClientInfo::default())
                .target(user.id)
                .write(&tx, now)
                .await?;
            Ok(user)
        };
        self.store.run(set).await
    }

    /// Returns a password-reset token, for the operator to pass on.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Forbidden`] for a disabled user; [`Error::Store`].
    pub async fn reset_token(&self, email: &str) -> Result<OpaqueToken, Error> {
        let user = self.user(email).await?;
        let text = self.new_reset(&user, ResetOrigin::Operator, &ClientInfo::default()).await?;
        text.ok_or(Error::Forbidden("the user is disabled: enable the user first"))
    }

    /// Revokes all logins and personal tokens of a user, and returns the number of live logins.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn revoke_user_sessions(&self, email: &str) -> Result<usize, Error> {
        let email = &Email::parse(email)?;
        let sign_out = |tx: Transaction| async move {
            let user = user_in(&tx, email).await?;
            let now = self.clock.now();
            let ended = live_logins(&tx, &user, now).await?.len();
            let user = tx.revoke_logins(user, now).await?;
            revoke_all_tokens(&tx, &user).await?;
            Entry::new(Action::SessionRevoked, user.tenant_id, None, &ClientInfo::default())
                .target(user.id)
                .write(&tx, now)
                .await?;
            Ok(ended)
        };
        self.store.run(sign_out).await
    }

    /// Removes a user's lost second factor.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::FactorState`] if there is none; [`Error::Store`].
    pub async fn reset_second_factor(&self, email: &str) -> Result<(), Error> {
        let email = &Email::parse(email)?;
        let take = |tx: Transaction| async move {
            let user = user_in(&tx, email).await?;
            let factor = tx.delete::<SecondFactor>(user.tenant_id, user.id).await?;
            factor.ok_or(Error::FactorState(NOT_ENABLED))?;
            Entry::new(Action::FactorRemoved, user.tenant_id, None, &ClientInfo::default())
                .target(user.id)
                .write(&tx, self.clock.now())
                .await?;
            Ok::<_, Error>(user)
        };
        let user = self.store.run(take).await?;
        self.notify(&user, Notice::SecondFactorRemoved);
        Ok(())
    }
}
