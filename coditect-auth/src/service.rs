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

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Clock, ErrorKind, Store, StoreOptions, Transaction,
    keyspace::Global,
    model::{
        AuthSession, AuthSessionId, RevocationReason, Tenant, TenantId, TokenFamilyId, User,
        UserId, UserStatus,
    },
    transaction::{RetryPolicy, Unknown},
};

use tokio::sync::Mutex;

use crate::{
    AccessSettings, AccessToken, AccessTokens, Claims, Decision, Email, Error, HashParams, Hasher,
    KeyError, KeyRing, Lifetimes, MasterKey, Password, Presented, RefreshKeys, RefreshSecret,
    RefreshText, RefreshToken, SealedKey, Stored, TokenError, TokenId, Verdict, family, keys,
    refresh,
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
    /// When the ring was last read again.
    reloaded_at: Mutex<Option<Instant>>,
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
    /// How long the access token holds from now on, in whole seconds.
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

/// For a key that is not in the ring, it is read again at most this often.
const RING_RELOADED_EVERY: Duration = Duration::from_secs(2);

/// How often a sign-in looks again at a hash that is being replaced.
const LOOKS_AT_A_HASH: usize = 3;

/// More sessions that hold than a user has, and as many as one transaction can end.
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

/// The master key of an installation: of the file `path`, which is made, for a store that has no
/// keys yet.
///
/// # Errors
///
/// [`Error::Key`] if the file is not one, or is missing where the store's keys were sealed with it;
/// [`Error::Store`].
pub async fn master_key_at(path: &Path, store: &Store) -> Result<MasterKey, Error> {
    let missing = !path.try_exists().map_err(Error::internal)?;
    if missing && !store.run(|tx| async move { all_keys(&tx).await }).await?.is_empty() {
        return Err(KeyError::MasterKeyMissing { path: path.to_owned() }.into());
    }
    MasterKey::load_or_create(path)
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
            reloaded_at: Mutex::new(None),
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

    /// Replaces a refresh token: see [`family`] for what one that comes in means.
    ///
    /// # Errors
    ///
    /// [`Error::RefreshInvalid`], [`Error::SessionRevoked`], [`Error::SessionExpired`],
    /// [`Error::RefreshReused`], [`Error::Store`].
    pub async fn refresh(&self, token: &str) -> Result<Tokens, Error> {
        let token = self.refresh.parse(token)?;
        let presented = Presented::new(&token, refresh::fresh_salt()?);
        let now = self.clock.now();
        // A rotation whose commit's outcome is unknown recognises itself by its salt.
        let again = RetryPolicy { unknown: Unknown::RunAgain, ..RetryPolicy::default() };
        let outcome = self.store.run_with(&again, |tx| {
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
        let Some((session, user)) = session_and_user(tx, token.family).await? else {
            return Ok(Err(Error::SessionRevoked));
        };
        Ok(match self.decide(&session, &user, presented, now) {
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
            refused => Err(refuse(tx, &session, refused, now).await?),
        })
    }

    fn decide(
        &self,
        session: &AuthSession,
        user: &User,
        presented: &Presented,
        now: DateTime<Utc>,
    ) -> Decision {
        let stored = Stored { session, user: user.status };
        family::decide(Some(stored), presented, now, self.lifetimes.grace)
    }

    /// Ends the session of a token. Doing it again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TokenInvalid`], [`Error::TokenExpired`], [`Error::RefreshInvalid`],
    /// [`Error::Store`].
    pub async fn logout(&self, credential: Credential<'_>) -> Result<(), Error> {
        let session = match credential {
            Credential::Access(token) => {
                let claims = self.verify(token).await?;
                SessionOf::Id(claims.tenant_id, claims.session_id)
            }
            Credential::Refresh(token) => SessionOf::Family(self.refresh.parse(token)?.family),
        };
        let now = self.clock.now();
        let ended = self.store.run(|tx| async move {
            match session.find(&tx).await? {
                Some(session) => end(&tx, &session, RevocationReason::Logout, now).await,
                None => Ok(()),
            }
        });
        ended.await.map_err(Error::Store)
    }

    /// Ends all sessions of a token's user, in one transaction. Unlike [`logout`](Self::logout) it
    /// asks for a token that still holds: one that was lost long ago ends nothing but itself. Doing
    /// it again with the same token changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`verify`](Self::verify) and [`authenticate`](Self::authenticate), or for
    /// [`refresh`](Self::refresh), of which a replay ends its family; [`Error::Store`], with
    /// `Limit` if there are more sessions than one transaction can end.
    pub async fn logout_everywhere(&self, credential: Credential<'_>) -> Result<(), Error> {
        let now = self.clock.now();
        let proof = match credential {
            Credential::Access(token) => Proof::Claims(Box::new(self.verify(token).await?)),
            Credential::Refresh(token) => {
                let token = self.refresh.parse(token)?;
                Proof::Refresh(token.family, Presented::new(&token, refresh::fresh_salt()?))
            }
        };
        let session = match &proof {
            Proof::Claims(claims) => SessionOf::Id(claims.tenant_id, claims.session_id),
            Proof::Refresh(family, _) => SessionOf::Family(*family),
        };
        let again = RetryPolicy { unknown: Unknown::RunAgain, ..RetryPolicy::default() };
        let outcome = self.store.run_with(&again, |tx| {
            let proof = &proof;
            async move {
                let known = session.find(&tx).await?;
                let before = known.and_then(|session| session.revocation);
                if before.is_some_and(|it| it.reason == RevocationReason::LogoutEverywhere) {
                    return Ok(Ok(()));
                }
                let session = match self.proven(&tx, proof, now).await? {
                    Ok(session) => session,
                    // What a replay has ended is committed before it is refused.
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let live = tx
                    .scan(&AuthSession::BY_USER, session.tenant_id, session.user_id)
                    .filter("live", |session| session.holds_at(now));
                for session in live.all(MOST_SESSIONS).await? {
                    end(&tx, &session, RevocationReason::LogoutEverywhere, now).await?;
                }
                Ok::<_, Error>(Ok(()))
            }
        });
        outcome.await?
    }

    /// The session that `proof` proves to hold, or why it doesn't.
    async fn proven(
        &self,
        tx: &Transaction,
        proof: &Proof,
        now: DateTime<Utc>,
    ) -> Result<Result<AuthSession, Error>, Error> {
        match proof {
            Proof::Claims(claims) => Ok(Ok(self.authenticate(tx, claims).await?.session)),
            Proof::Refresh(family, presented) => {
                let Some((session, user)) = session_and_user(tx, *family).await? else {
                    return Ok(Err(Error::SessionRevoked));
                };
                Ok(match self.decide(&session, &user, presented, now) {
                    Decision::Rotate | Decision::Repeat => Ok(session),
                    refused => Err(refuse(tx, &session, refused, now).await?),
                })
            }
        }
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
            Err(TokenError::UnknownKey) => {
                self.reload_ring().await?;
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
        if !session.holds_at(self.clock.now()) {
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
            expires_in: minted.expires_at.signed_duration_since(minted.issued_at),
        })
    }

    /// The public keys, for others to verify access tokens with (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        self.ring().jwks()
    }

    fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the ring again, one at a time and not too often: anybody can make up a key's name.
    async fn reload_ring(&self) -> Result<(), Error> {
        let mut reloaded_at = self.reloaded_at.lock().await;
        if reloaded_at.is_some_and(|at| at.elapsed() < RING_RELOADED_EVERY) {
            return Ok(());
        }
        let records = self.store.run(|tx| async move { all_keys(&tx).await }).await?;
        let ring = KeyRing::open(&records, &self.master)?;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        *reloaded_at = Some(Instant::now());
        Ok(())
    }
}

/// What shows that a session holds.
enum Proof {
    Claims(Box<Claims>),
    Refresh(TokenFamilyId, Presented),
}

/// Makes the session, if the user is still the one whose password was verified; none if their hash
/// was replaced meanwhile.
async fn sign_in(
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

/// The session of a token family, with its user.
async fn session_and_user(
    tx: &Transaction,
    family: TokenFamilyId,
) -> Result<Option<(AuthSession, User)>, Error> {
    let session = tx.find(&AuthSession::BY_FAMILY, Global, family).await?;
    let Some(session) = session else { return Ok(None) };
    let user = tx.get::<User>(session.tenant_id, session.user_id).await?;
    Ok(user.map(|user| (session, user)))
}

/// Does what a refused refresh token asks for, and says what the client gets.
async fn refuse(
    tx: &Transaction,
    session: &AuthSession,
    decision: Decision,
    now: DateTime<Utc>,
) -> Result<Error, Error> {
    let (session_id, user_id) = (session.id, session.user_id);
    Ok(match decision {
        Decision::Reused => {
            end(tx, session, RevocationReason::Reuse, now).await?;
            tracing::warn!(%session_id, %user_id, "a refresh token was used again: its family is ended");
            Error::RefreshReused
        }
        Decision::Expired => Error::SessionExpired,
        Decision::Revoked => Error::SessionRevoked,
        Decision::Ahead | Decision::Diverged | Decision::Rotate | Decision::Repeat => {
            tracing::error!(%session_id, %user_id, ?decision, "a refresh token is not the store's: was it set back?");
            Error::RefreshInvalid
        }
    })
}

/// Ends a session that was not ended before.
async fn end(
    tx: &Transaction,
    session: &AuthSession,
    reason: RevocationReason,
    now: DateTime<Utc>,
) -> coditect_store::Result<()> {
    match session.revocation {
        Some(_) => Ok(()),
        None => tx.update(&family::revoked(session, reason, now)).await,
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
