//! Registering, signing in, staying signed in, signing out: the only file with transactions.
//!
//! What stays true:
//!
//! - A user, their tenant, their first session and the e-mail's index entry are made together or not
//!   at all. Of any number of registrations of one address at once, one succeeds.
//! - A request is authenticated by its token's signature *and* by its session and user as they are in
//!   the request's own transaction: what was ended holds for the next request.
//! - A refresh is one transaction. What it found out about a stolen token is committed before the
//!   client hears of it.
//! - Hashing, signing and randomness are outside of transactions, ids and salts are drawn once a
//!   request: a transaction that runs again does the same again.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Clock, ErrorKind, Store, StoreOptions, Transaction,
    keyspace::Global,
    model::{
        AuthSession, AuthSessionId, RevocationReason, Tenant, TenantId, TokenFamilyId, User,
        UserId, UserStatus,
    },
};

use crate::{
    AccessSettings, AccessToken, AccessTokens, Claims, Decision, Email, Error, HashParams, Hasher,
    KeyRing, Lifetimes, MasterKey, Password, Presented, RefreshKeys, RefreshSecret, RefreshText,
    RefreshToken, SealedKey, Stored, TokenError, TokenId, Verdict, family, keys, refresh,
};

/// What an operator may set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Issuer, audience and life of access tokens.
    pub access: AccessSettings,
    /// How dear a password's hash is.
    pub hash: HashParams,
    /// How long sessions live, and the grace of refreshes.
    pub lifetimes: Lifetimes,
}

/// Identity over a store. One a process; shared by reference.
#[derive(Debug)]
pub struct Auth {
    store: Store,
    clock: Clock,
    master: MasterKey,
    access: AccessTokens,
    refresh: RefreshKeys,
    hasher: Hasher,
    lifetimes: Lifetimes,
    ring: RwLock<Arc<KeyRing>>,
}

/// Somebody who wants an account.
#[derive(Clone, Debug)]
pub struct Registration<'a> {
    /// Their e-mail address, as they wrote it.
    pub email: &'a str,
    /// The password they chose.
    pub password: &'a str,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
}

/// Where somebody signs in from, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// The `User-Agent` header; cut to 256 characters.
    pub user_agent: Option<String>,
    /// The client's address.
    pub ip: Option<String>,
}

/// An access token and the refresh token that goes with it.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For `Authorization`.
    pub access: AccessToken,
    /// For the next refresh.
    pub refresh: RefreshText,
    /// How long the access token holds from now on.
    pub expires_in: TimeDelta,
}

/// Somebody who has just signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// Their tokens.
    pub tokens: Tokens,
}

/// Who makes a request: their session holds, and they may sign in, in the transaction that said so.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The user.
    pub user: User,
    /// The session of the token.
    pub session: AuthSession,
}

/// A token that somebody signs out with.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// An access token that still holds.
    Access(&'a str),
    /// A refresh token, of any generation.
    Refresh(&'a str),
}

/// What signing out ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The session of the token.
    ThisSession,
    /// All sessions of its user.
    Everywhere,
}

/// More sessions than a user has whose expired ones are swept.
const MOST_SESSIONS: usize = 10_000;

/// More keys than any ring has: each rotation leaves one behind.
const MOST_KEYS: usize = 10_000;

/// The longest `User-Agent` that is kept, in characters.
const USER_AGENT_CHARS: usize = 256;

/// The entities of this crate, for the [`StoreOptions`] of a store that [`Auth`] works on.
#[must_use]
pub fn entities(options: StoreOptions) -> StoreOptions {
    options.entity::<SealedKey>()
}

impl Auth {
    /// Opens the key ring, making its first keys if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if the master key is not the one that the ring was sealed with,
    /// [`Error::Setting`] for a setting out of bounds, [`Error::Store`].
    pub async fn open(
        store: Store,
        master: MasterKey,
        clock: Clock,
        settings: Settings,
    ) -> Result<Self, Error> {
        let access = AccessTokens::new(settings.access)?;
        let records = load_keys(&store, &master, &clock, access.longest_life()).await?;
        let ring = KeyRing::open(&records, &master)?;
        Ok(Self {
            access,
            refresh: RefreshKeys::derive(&master),
            hasher: Hasher::new(settings.hash)?,
            lifetimes: settings.lifetimes,
            ring: RwLock::new(Arc::new(ring)),
            store,
            clock,
            master,
        })
    }

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
        let known = match Email::parse(email) {
            Ok(email) => self.user_by_email(&email).await?,
            Err(_) => None,
        };
        let Some(known) = known else {
            self.hasher.verify_absent(&password).await?;
            return Err(Error::InvalidCredentials);
        };
        let verdict = self.hasher.verify(&password, &known.password_hash).await?;
        let Verdict::Matches { needs_rehash } = verdict else {
            return Err(Error::InvalidCredentials);
        };
        let new_hash = if needs_rehash { Some(self.hasher.hash(&password).await?) } else { None };
        let now = self.clock.now();
        let (session, token) = self.new_session(&known, device, now)?;
        let user = self
            .store
            .run(|tx| {
                let (known, session, new_hash) = (&known, &session, &new_hash);
                async move {
                    let user = tx.get::<User>(known.tenant_id, known.id).await?;
                    // What was verified must still be so.
                    let user = user
                        .filter(|user| user.status == UserStatus::Enabled)
                        .filter(|user| user.password_hash == known.password_hash)
                        .ok_or(Error::InvalidCredentials)?;
                    tx.create(session).await?;
                    let Some(password_hash) = new_hash.clone() else { return Ok(user) };
                    let user = User { password_hash, updated_at: now, ..user };
                    tx.update(&user).await?;
                    Ok::<_, Error>(user)
                }
            })
            .await?;
        let tokens = self.tokens(&session, &user, &token, now)?;
        Ok(SignedIn { user, tokens })
    }

    /// Replaces a refresh token: see [`family`](crate::family) for what one that comes in means.
    ///
    /// # Errors
    ///
    /// [`Error::RefreshInvalid`], [`Error::SessionRevoked`], [`Error::SessionExpired`],
    /// [`Error::RefreshReused`], [`Error::Store`].
    pub async fn refresh(&self, token: &str) -> Result<Tokens, Error> {
        let token = self.refresh.parse(token)?;
        let presented = Presented::new(&token, refresh::fresh_salt()?);
        let now = self.clock.now();
        let outcome = self.store.run(|tx| {
            let (token, presented) = (&token, &presented);
            async move { self.refresh_in(&tx, token, presented, now).await }
        });
        let (session, user, successor) = outcome.await??;
        self.tokens(&session, &user, &successor, now)
    }

    /// What a refresh does in its transaction. A refusal is `Ok(Err(…))`, so that what it has
    /// written is committed.
    async fn refresh_in(
        &self,
        tx: &Transaction,
        token: &RefreshToken,
        presented: &Presented,
        now: DateTime<Utc>,
    ) -> Result<Result<(AuthSession, User, RefreshToken), Error>, Error> {
        let session = tx.find(&AuthSession::BY_FAMILY, Global, token.family).await?;
        let Some(session) = session else { return Ok(Err(Error::SessionRevoked)) };
        let Some(user) = tx.get::<User>(session.tenant_id, session.user_id).await? else {
            return Ok(Err(Error::SessionRevoked));
        };
        let stored = Stored { session: &session, user: user.status };
        let grace = self.lifetimes.grace;
        Ok(match family::decide(Some(stored), presented, now, grace) {
            Decision::Rotate => {
                let Some(next) = self.refresh.successor(token, &presented.salt) else {
                    return Ok(Err(Error::SessionExpired));
                };
                let hash = next.secret.hash();
                let idle = self.lifetimes.idle;
                let session = family::rotated(&session, presented.salt, hash, now, idle);
                tx.update(&session).await?;
                Ok((session, user, next))
            }
            Decision::Repeat => match self.refresh.successor(token, &session.salt) {
                Some(next) => Ok((session, user, next)),
                None => Err(Error::SessionExpired),
            },
            Decision::Reused => {
                tx.update(&family::revoked(&session, RevocationReason::Reuse, now)).await?;
                tracing::warn!(session = %session.id, user = %user.id, "a refresh token was used again: its family is ended");
                Err(Error::RefreshReused)
            }
            refused @ (Decision::Ahead | Decision::Diverged) => {
                tracing::error!(session = %session.id, ?refused, "a refresh token is not the store's: was it set back?");
                Err(Error::RefreshInvalid)
            }
            Decision::Expired => Err(Error::SessionExpired),
            Decision::Revoked => Err(Error::SessionRevoked),
        })
    }

    /// Ends the session of a token, or all of its user's, which a session that is over cannot. Doing
    /// it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`], [`Error::TokenExpired`], [`Error::RefreshInvalid`],
    /// [`Error::Store`].
    pub async fn logout(&self, credential: Credential<'_>, extent: Extent) -> Result<(), Error> {
        let session = match credential {
            Credential::Access(token) => {
                let claims = self.verify(token).await?;
                SessionOf::Id(claims.tenant_id, claims.session_id)
            }
            Credential::Refresh(token) => SessionOf::Family(self.refresh.parse(token)?.family),
        };
        let now = self.clock.now();
        self.store
            .run(|tx| async move {
                let Some(session) = session.find(&tx).await? else { return Ok(()) };
                let end = async |session: AuthSession| match session.revocation {
                    Some(_) => Ok(()),
                    None => {
                        tx.update(&family::revoked(&session, RevocationReason::Logout, now)).await
                    }
                };
                // A token of a session that is over says nothing about the others any more.
                let is_over = session.revocation.is_some() || now >= session.expires_at();
                if extent == Extent::ThisSession || is_over {
                    return end(session).await;
                }
                let sessions = tx.scan(&AuthSession::BY_USER, session.tenant_id, session.user_id);
                for session in sessions.all(MOST_SESSIONS).await? {
                    end(session).await?;
                }
                Ok(())
            })
            .await
            .map_err(Error::Store)
    }

    /// What an access token says, if it was signed here and is of the time. That is half an answer:
    /// [`authenticate`](Self::authenticate) is the other.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`], [`Error::TokenExpired`]; [`Error::Store`] if its key is not known
    /// yet and the ring could not be read again.
    pub async fn verify(&self, token: &str) -> Result<Claims, Error> {
        let now = self.clock.now();
        match self.access.verify(&self.ring(), token, now) {
            // Another server may have rotated the keys.
            Err(TokenError::UnknownKey) if self.reload_ring().await? => {
                Ok(self.access.verify(&self.ring(), token, now)?)
            }
            verified => Ok(verified?),
        }
    }

    /// Who makes a request with a token that says `claims`, as of `tx`: two reads by key, at once.
    ///
    /// # Errors
    ///
    /// [`Error::SessionRevoked`], [`Error::SessionExpired`], [`Error::Store`].
    pub async fn authenticate(&self, tx: &Transaction, claims: &Claims) -> Result<Identity, Error> {
        let (session, user) = tokio::try_join!(
            tx.get::<AuthSession>(claims.tenant_id, claims.session_id),
            tx.get::<User>(claims.tenant_id, claims.sub),
        )?;
        let (Some(session), Some(user)) = (session, user) else {
            return Err(Error::SessionRevoked);
        };
        let is_theirs = session.user_id == user.id && session.token_family == claims.token_family;
        if !is_theirs || session.revocation.is_some() || user.status != UserStatus::Enabled {
            return Err(Error::SessionRevoked);
        }
        if self.clock.now() >= session.expires_at() {
            return Err(Error::SessionExpired);
        }
        Ok(Identity { user, session })
    }

    async fn user_by_email(&self, email: &Email) -> Result<Option<User>, Error> {
        let found = self.store.run(|tx| async move {
            tx.find(&User::BY_EMAIL, Global, email.normalized().to_owned()).await
        });
        found.await.map_err(Error::Store)
    }

    fn new_session(
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

    fn tokens(
        &self,
        session: &AuthSession,
        user: &User,
        refresh: &RefreshToken,
        now: DateTime<Utc>,
    ) -> Result<Tokens, Error> {
        let minted = self.access.mint(&self.ring(), session, &user.email, TokenId::new(), now)?;
        Ok(Tokens {
            access: minted.token,
            refresh: self.refresh.encode(refresh),
            expires_in: minted.expires_at.signed_duration_since(now).max(TimeDelta::zero()),
        })
    }

    /// The public keys, for others to verify access tokens with (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        self.ring().jwks()
    }

    fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the ring again; whether it has changed.
    async fn reload_ring(&self) -> Result<bool, Error> {
        let records = self.store.run(|tx| async move { all_keys(&tx).await }).await?;
        let ring = KeyRing::open(&records, &self.master)?;
        let changed = !ring.kids().eq(self.ring().kids());
        if changed {
            *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        }
        Ok(changed)
    }
}

/// How a session is found by what somebody signs out with.
#[derive(Clone, Copy)]
enum SessionOf {
    Id(TenantId, AuthSessionId),
    Family(TokenFamilyId),
}

impl SessionOf {
    async fn find(self, tx: &Transaction) -> coditect_store::Result<Option<AuthSession>> {
        match self {
            Self::Id(tenant, id) => tx.get::<AuthSession>(tenant, id).await,
            Self::Family(family) => tx.find(&AuthSession::BY_FAMILY, Global, family).await,
        }
    }
}

/// All keys of the ring, made in the same transaction if there are none.
async fn load_keys(
    store: &Store,
    master: &MasterKey,
    clock: &Clock,
    token_life: TimeDelta,
) -> Result<Vec<SealedKey>, Error> {
    store
        .run(|tx| async move {
            let known = all_keys(&tx).await?;
            if !known.is_empty() {
                return Ok(known);
            }
            let now = clock.now();
            let made = keys::rotate(&[], now, token_life, || SealedKey::generate(master, now))?;
            for key in &made {
                tx.create(key).await?;
            }
            Ok::<_, Error>(made)
        })
        .await
}

async fn all_keys(tx: &Transaction) -> Result<Vec<SealedKey>, Error> {
    Ok(tx.list::<SealedKey>(Global).all(MOST_KEYS).await?)
}
