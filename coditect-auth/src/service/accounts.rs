//! Registering, and signing in with a password.

use chrono::{DateTime, Utc};
use coditect_store::{
    ErrorKind, Transaction,
    keyspace::Global,
    model::{
        AuthSession, AuthSessionId, Tenant, TenantId, TokenFamilyId, User, UserId, UserStatus,
    },
};

use super::{Auth, Device, Registration, SignedIn};
use crate::{Email, Error, Password, RefreshSecret, RefreshToken, Verdict, refresh};

impl Auth {
    /// Makes a tenant, its user, and a first session.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidEmail`], [`Error::WeakPassword`], [`Error::EmailTaken`], [`Error::Busy`],
    /// [`Error::Store`].
    pub async fn register(
        &self,
        registration: Registration<'_>,
        device: &Device,
    ) -> Result<SignedIn, Error> {
        let email = Email::parse(registration.email)?;
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
            created_at: now,
            updated_at: now,
        };
        let (session, token) = self.new_session(&user, device, now)?;
        let made = self.store.run(|tx| {
            let (tenant, user, session) = (&tenant, &user, &session);
            async move {
                tx.create(tenant).await?;
                tx.create(user).await?;
                tx.create(session).await?;
                Ok::<_, coditect_store::Error>(())
            }
        });
        made.await.map_err(|error| match error.kind() {
            ErrorKind::Unique(index) if index == User::BY_EMAIL.name() => Error::EmailTaken,
            _ => Error::Store(error),
        })?;
        let tokens = self.tokens(&session, &user, &token, now)?;
        Ok(SignedIn { user, tokens })
    }

    /// Makes a session for somebody who knows their password. Unknown address, wrong password and
    /// disabled user are one error, and take the same time.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidCredentials`], [`Error::Busy`], [`Error::Store`].
    pub async fn login(
        &self,
        email: &str,
        password: &str,
        device: &Device,
    ) -> Result<SignedIn, Error> {
        let password = Password::presented(password).map_err(|_| Error::InvalidCredentials)?;
        let Ok(email) = Email::parse(email) else {
            self.hasher.verify_absent(&password).await?;
            return Err(Error::InvalidCredentials);
        };
        // More than once only if the password's hash was replaced between the looks at it, as a
        // sign-in at the same time does that makes it anew by today's parameters.
        for _ in 0..LOOKS_AT_A_HASH {
            let Some(known) = self.user_by_email(&email).await? else {
                self.hasher.verify_absent(&password).await?;
                return Err(Error::InvalidCredentials);
            };
            let verdict = self.hasher.verify(&password, &known.password_hash).await?;
            let Verdict::Matches { needs_rehash } = verdict else {
                return Err(Error::InvalidCredentials);
            };
            let new_hash =
                if needs_rehash { Some(self.hasher.hash(&password).await?) } else { None };
            let now = self.clock.now();
            let (session, token) = self.new_session(&known, device, now)?;
            let signed_in = self.store.run(|tx| {
                let (known, session, new_hash) = (&known, &session, &new_hash);
                async move { sign_in(&tx, known, session, new_hash.as_deref(), now).await }
            });
            if let Some(user) = signed_in.await? {
                let tokens = self.tokens(&session, &user, &token, now)?;
                return Ok(SignedIn { user, tokens });
            }
        }
        Err(Error::InvalidCredentials)
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
        device: &Device,
        now: DateTime<Utc>,
    ) -> Result<(AuthSession, RefreshToken), Error> {
        let secret = RefreshSecret::generate()?;
        let after = |life| now.checked_add_signed(life).unwrap_or(DateTime::<Utc>::MAX_UTC);
        let session = AuthSession {
            id: AuthSessionId::new(),
            tenant_id: user.tenant_id,
            user_id: user.id,
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
            user_agent: device
                .user_agent
                .as_ref()
                .map(|agent| agent.chars().take(USER_AGENT_CHARS).collect()),
            ip: device.ip.clone(),
        };
        let family = session.token_family;
        let token = RefreshToken { family, generation: session.generation, secret };
        Ok((session, token))
    }
}

/// How often a sign-in looks again at a hash that is being replaced.
const LOOKS_AT_A_HASH: usize = 3;

/// The longest `User-Agent` that is kept, in characters.
const USER_AGENT_CHARS: usize = 256;

/// Makes the session, if the user is still the one whose password was verified; none if their hash
/// was replaced meanwhile.
pub(super) async fn sign_in(
    tx: &Transaction,
    known: &User,
    session: &AuthSession,
    new_hash: Option<&str>,
    now: DateTime<Utc>,
) -> Result<Option<User>, Error> {
    let user = tx.get::<User>(known.tenant_id, known.id).await?;
    let user =
        user.filter(|user| user.status == UserStatus::Enabled).ok_or(Error::InvalidCredentials)?;
    if user.password_hash != known.password_hash {
        return Ok(None);
    }
    tx.create(session).await?;
    let Some(new_hash) = new_hash else { return Ok(Some(user)) };
    let user = User { password_hash: new_hash.to_owned(), updated_at: now, ..user };
    tx.update(&user).await?;
    Ok(Some(user))
}
