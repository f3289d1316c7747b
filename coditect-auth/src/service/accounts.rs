//! Registration, and login with a password.

use chrono::{DateTime, Utc};
use coditect_store::{
    ErrorKind, Transaction,
    keyspace::Global,
    model::{
        AuthSession, AuthSessionId, Tenant, TenantId, TokenFamilyId, User, UserId, UserStatus,
    },
};
use serde_json::json;

use super::{
    Auth, ClientInfo, Registration, SignIn, SignedIn,
    audit::{Action, Entry},
    authentication::membership_in,
    login_records::audit_tenant_entry,
    password_check::PasswordCheck,
    rate_limit::LoginAttempt,
    second_factor::{ConfirmedFactor, SecondFactorUsed},
};
use crate::{
    Email, Error, Notice, Password, RefreshSecret, RefreshToken, text::require_plain,
    tokens::refresh,
};

/// Maximum number of times that a login reads a password hash that is being replaced.
const MAX_HASH_READS: usize = 3;

/// Maximum length of a stored `User-Agent`, in characters.
const MAX_USER_AGENT_CHARS: usize = 256;

impl Auth {
    /// Creates a tenant, its user and a first session in any registration mode. A service for
    /// clients calls [`sign_up`](Self::sign_up).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidEmail`], [`Error::WeakPassword`], [`Error::EmailTaken`], [`Error::Busy`],
    /// [`Error::Store`].
    pub async fn register(
        &self,
        registration: Registration<'_>,
        client: &ClientInfo,
    ) -> Result<SignedIn, Error> {
        self.register_with(registration, None, client).await
    }

    /// Returns a new user and their tenant, neither of them stored.
    pub(super) async fn new_user(
        &self,
        registration: Registration<'_>,
    ) -> Result<(Tenant, User), Error> {
        let email = Email::parse(registration.email)?;
        for name in [&registration.first_name, &registration.last_name].into_iter().flatten() {
            require_plain(name)?;
        }
        let password = Password::choose(registration.password, &email)?;
        let password_hash = self.hasher.hash(&password).await?;
        let now = self.clock.now();
        let tenant = Tenant {
            id: TenantId::new(),
            name: email.display().to_owned(),
            created_at: now,
            updated_at: now,
        };
        let user = User {
            id: UserId::new(),
            tenant_id: tenant.id,
            email: email.display().to_owned(),
            email_normalized: email.normalized().to_owned(),
            password_hash,
            first_name: registration.first_name,
            last_name: registration.last_name,
            status: UserStatus::Enabled,
            login_epoch: 0,
            created_at: now,
            updated_at: now,
        };
        Ok((tenant, user))
    }

    /// Creates a session for a user who presents their password, and a code if they have a second
    /// factor. An unknown address, a wrong password and a disabled user give the same error after
    /// the same time.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`]; [`Error::FactorRequired`], [`Error::FactorWrong`] and
    /// [`Error::FactorLocked`], to a client that presents the right password; [`Error::NotAMember`]
    /// of the chosen tenant; [`Error::Throttled`], [`Error::Busy`], [`Error::Store`].
    ///
    /// # Cost
    ///
    /// Three transactions: the failures of the account; these again, with the user, after the
    /// attempts before it; and the session.
    pub async fn login(&self, sign_in: SignIn<'_>, client: &ClientInfo) -> Result<SignedIn, Error> {
        let now = self.clock.now();
        self.check_address(client, now)?;
        let refused = || {
            self.record_address_failure(client, now);
            Error::InvalidCredentials
        };
        let password = Password::presented(sign_in.password).map_err(|_| refused())?;
        let Ok(email) = Email::parse(sign_in.email) else {
            self.hasher.verify_dummy(&password).await?;
            return Err(refused());
        };
        let (attempt, mut found) = self.acquire_login(&email, client).await?;
        // Repeats only if the stored hash was replaced since it was read, as by a concurrent login
        // that rehashes it with the current parameters.
        for _ in 0..MAX_HASH_READS {
            let (known, needs_rehash) = match self.password_holds(found, &password).await? {
                PasswordCheck::Yes(known, needs_rehash) => (known, needs_rehash),
                PasswordCheck::No(known) => {
                    self.record_failure(&attempt, known.as_deref(), client).await?;
                    return Err(Error::InvalidCredentials);
                }
            };
            let new_hash =
                if needs_rehash { Some(self.hasher.hash(&password).await?) } else { None };
            let now = self.clock.now();
            let (session, token) = self.new_session(&known, client, now)?;
            let signed_in = self.store.run(|tx| {
                let signing = SigningIn {
                    known: &known,
                    session: &session,
                    tenant: sign_in.tenant,
                    new_hash: new_hash.as_deref(),
                    attempt: &attempt,
                    client,
                    code: sign_in.code,
                    now,
                };
                async move { self.sign_in(&tx, signing).await }
            });
            match signed_in.await {
                Ok(Some(SessionCreated { user, session, by })) => {
                    if by == SecondFactorUsed::RecoveryCode {
                        self.notify(&user, Notice::RecoveryCodeUsed);
                    }
                    let tokens = self.tokens(&session, &user, &token, now).await?;
                    return Ok(SignedIn { user, tokens });
                }
                Ok(None) => found = self.user_by_email(&email).await?,
                Err(Error::InvalidCredentials) => {
                    self.record_failure(&attempt, Some(&known), client).await?;
                    return Err(Error::InvalidCredentials);
                }
                Err(error @ (Error::FactorWrong | Error::FactorLocked)) => {
                    self.record_code_failure(&attempt, &known, client).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::InvalidCredentials)
    }

    /// Creates the session. Returns `None` if the password hash was replaced since it was verified.
    async fn sign_in(
        &self,
        tx: &Transaction,
        signing: SigningIn<'_>,
    ) -> Result<Option<SessionCreated>, Error> {
        let SigningIn { known, session, tenant, new_hash, attempt, client, code, now } = signing;
        let user = tx.get::<User>(known.tenant_id, known.id).await?;
        let user = user
            .filter(|user| user.status == UserStatus::Enabled)
            .ok_or(Error::InvalidCredentials)?;
        if user.password_hash != known.password_hash {
            return Ok(None);
        }
        let factor = ConfirmedFactor::read(tx, &user).await?;
        let by = match factor {
            Some(factor) => {
                let code = code.ok_or(Error::FactorRequired)?;
                factor.consume(self, tx, code, now).await?
            }
            None => SecondFactorUsed::None,
        };
        let active_membership = match tenant {
            Some(tenant) => membership_in(tx, &user, tenant).await?,
            None => None,
        };
        let session =
            AuthSession { login_epoch: user.login_epoch, active_membership, ..session.clone() };
        self.make_room(tx, &user, (client, now)).await?;
        tx.insert(&session).await?;
        attempt.record_success(tx, now).await?;
        let entry = Entry::new(Action::Login, user.tenant_id, Some(user.id), client);
        entry
            .target(session.id)
            .details(json!({ "second_factor": by.name(), "user_agent": session.user_agent }))
            .write(tx, now)
            .await?;
        audit_tenant_entry(tx, &session, (client, now)).await?;
        if by == SecondFactorUsed::RecoveryCode {
            Entry::new(Action::RecoveryCodeUsed, user.tenant_id, Some(user.id), client)
                .write(tx, now)
                .await?;
        }
        let Some(new_hash) = new_hash else {
            return Ok(Some(SessionCreated { user, session, by }));
        };
        let user = User { password_hash: new_hash.to_owned(), updated_at: now, ..user };
        tx.update(&user).await?;
        Ok(Some(SessionCreated { user, session, by }))
    }

    pub(super) async fn user_by_email(&self, email: &Email) -> Result<Option<User>, Error> {
        let found = self.store.run(|tx| async move {
            tx.find(&User::BY_EMAIL, Global, email.normalized().to_owned()).await
        });
        found.await.map_err(Error::Store)
    }

    pub(super) fn new_session(
        &self,
        user: &User,
        client: &ClientInfo,
        now: DateTime<Utc>,
    ) -> Result<(AuthSession, RefreshToken), Error> {
        let secret = RefreshSecret::generate()?;
        let after = |life| now.checked_add_signed(life).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let session = AuthSession {
            id: AuthSessionId::new(),
            tenant_id: user.tenant_id,
            user_id: user.id,
            login_epoch: user.login_epoch,
            token_family: TokenFamilyId::new(),
            generation: 0,
            secret_hash: secret.hash(),
            previous_secret_hash: None,
            salt: refresh::fresh_salt()?,
            rotated_at: now,
            created_at: now,
            last_used_at: now,
            idle_expires_at: after(self.lifetimes.idle),
            absolute_expires_at: after(self.lifetimes.absolute),
            revocation: None,
            user_agent: client
                .user_agent
                .as_ref()
                .map(|agent| agent.chars().take(MAX_USER_AGENT_CHARS).collect()),
            ip: client.ip.map(|ip| ip.to_string()),
            name: None,
            active_membership: None,
            confirmed_at: None,
        };
        let family = session.token_family;
        let token = RefreshToken { family, generation: session.generation, secret };
        Ok((session, token))
    }
}

/// A login as written.
struct SessionCreated {
    user: User,
    session: AuthSession,
    /// The second factor used.
    by: SecondFactorUsed,
}

/// Parameters of the transaction of a login.
#[derive(Clone, Copy)]
struct SigningIn<'a> {
    /// The user as read when the password was verified.
    known: &'a User,
    session: &'a AuthSession,
    tenant: Option<TenantId>,
    new_hash: Option<&'a str>,
    attempt: &'a LoginAttempt,
    client: &'a ClientInfo,
    code: Option<&'a str>,
    now: DateTime<Utc>,
}

/// Creates a user and their tenant.
pub(super) async fn create_user(
    tx: &Transaction,
    tenant: &Tenant,
    user: &User,
    actor: Option<UserId>,
    client: &ClientInfo,
) -> coditect_store::Result<()> {
    tx.insert(tenant).await?;
    tx.insert(user).await?;
    let entry = Entry::new(Action::Register, tenant.id, actor, client).target(user.id);
    entry.write(tx, user.created_at).await
}

pub(super) async fn user_in(tx: &Transaction, email: &Email) -> Result<User, Error> {
    let user = tx.find(&User::BY_EMAIL, Global, email.normalized().to_owned()).await?;
    user.ok_or(Error::NotFound)
}

/// Maps a unique violation on the e-mail index to [`Error::EmailTaken`].
pub(super) fn email_taken(error: coditect_store::Error) -> Error {
    match error.kind() {
        ErrorKind::UniqueViolation(index) if index == User::BY_EMAIL.name() => Error::EmailTaken,
        _ => Error::Store(error),
    }
}
