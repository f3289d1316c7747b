//! Registering, signing in, staying signed in, signing out: the only folder with transactions.
//!
//! What stays true:
//!
//! - A user, their tenant, their first session and the e-mail's index entry are made together or not
//!   at all. Of any number of registrations of one address at once, one succeeds.
//! - A request is authenticated by its token's signature *and* by its session and user as they are in
//!   the request's own transaction: what was ended holds for the next request.
//! - All logins of a user are revoked by one write, whatever their number: a session of another login
//!   epoch than its user's is revoked wherever it is looked at.
//! - A refresh is one transaction. What it found out about a stolen token is committed before the
//!   client hears of it.
//! - Hashing, signing and randomness are outside of transactions, ids and salts are drawn once a
//!   request: a transaction that runs again does the same again.

mod accounts;
mod admin;
mod audit;
mod authentication;
mod ide;
mod invitations;
mod login_records;
mod logout;
mod members;
mod password_check;
mod passwords;
mod purging;
mod rate_limit;
mod refresh;
mod registration;
mod ring;
mod second_factor;
mod sessions;
mod tenants;
mod tokens;

use std::{
    net::IpAddr,
    sync::{Arc, RwLock},
    time::Instant,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Clock, Store, StoreOptions,
    model::{AuthSession, AuthSessionId, TenantId, TokenFamilyId, User},
    repository::PAGE_LIMIT,
};
use tokio::sync::Mutex;

pub use self::{
    audit::Action,
    authentication::{AuthMethod, Identity, PersonalHash, VerifiedCredential},
    ide::IDE_SCOPE,
    invitations::{INVITATION_LIFETIME, NewInvitation},
    members::Member,
    passwords::{MAX_RESETS, RESET_TOKEN_LIFETIME},
    purging::Purge,
    registration::{AddressProof, RegistrationMode, SignUp, VERIFICATION_LIFETIME},
    ring::{load_master_key, replace_master_key, replace_master_key_file},
    second_factor::{MAX_FRESH_LOGIN_AGE, NewFactor},
    sessions::MAX_SESSION_NAME_CHARS,
    tokens::{
        MAX_PERSONAL_TOKEN_LIFETIME, MAX_TOKEN_NAME_CHARS, NewPersonalToken, NewTicket,
        TICKET_LIFETIME,
    },
};
use self::{
    rate_limit::LoginQueues,
    ring::{CachedKeyRing, load_keys},
};
use crate::{
    AccessSettings, AccessToken, AccessTokens, EncodedRefreshToken, Error, HashParams, Hasher,
    KeyRing, Lifetimes, Mailer, MasterKey, Notice, Peppers, RefreshKeys, RefreshToken, RootKey,
    SealedKey, TokenId, WrappedRootKey,
    model::{
        ClockMark, IdeGrant, Invitation, LoginFailures, PasswordReset, PersonalToken, SecondFactor,
    },
    secret::Subkey,
    subkey::{Purpose, mac},
    throttle::AddressLimiter,
};

/// What an operator may set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Issuer, audience and life of access tokens.
    pub access: AccessSettings,
    /// How dear a password's hash is.
    pub hash: HashParams,
    /// What goes into it beside the password; none, if there are none.
    pub peppers: Peppers,
    /// How long sessions live, and the grace of refreshes.
    pub lifetimes: Lifetimes,
    /// How tokens get to the addresses that they are for; none, and they don't.
    pub mailer: Option<Arc<dyn Mailer>>,
    /// Who may register.
    pub registration: RegistrationMode,
    /// How long a key signs before the next does.
    pub key_rotation: TimeDelta,
    /// Maximum number of live logins of a user; 1 to 1,000. A login beyond it ends the longest idle one.
    pub max_logins: usize,
}

impl Settings {
    /// Sets `access`.
    #[must_use]
    pub fn access(mut self, access: AccessSettings) -> Self {
        self.access = access;
        self
    }

    /// Sets `hash`.
    #[must_use]
    pub fn hash(mut self, hash: HashParams) -> Self {
        self.hash = hash;
        self
    }

    /// Sets `peppers`.
    #[must_use]
    pub fn peppers(mut self, peppers: Peppers) -> Self {
        self.peppers = peppers;
        self
    }

    /// Sets `lifetimes`.
    #[must_use]
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Sets `mailer`.
    #[must_use]
    pub fn mailer(mut self, mailer: Option<Arc<dyn Mailer>>) -> Self {
        self.mailer = mailer;
        self
    }

    /// Sets `registration`.
    #[must_use]
    pub fn registration(mut self, registration: RegistrationMode) -> Self {
        self.registration = registration;
        self
    }

    /// Sets `key_rotation`.
    #[must_use]
    pub fn key_rotation(mut self, key_rotation: TimeDelta) -> Self {
        self.key_rotation = key_rotation;
        self
    }

    /// Sets `max_logins`.
    #[must_use]
    pub fn max_logins(mut self, max_logins: usize) -> Self {
        self.max_logins = max_logins;
        self
    }
}

impl Default for Settings {
    /// No mailer, a new key every 30 days, and 100 logins of a user.
    fn default() -> Self {
        Self {
            access: AccessSettings::default(),
            hash: HashParams::default(),
            peppers: Peppers::default(),
            lifetimes: Lifetimes::default(),
            mailer: None,
            registration: RegistrationMode::default(),
            key_rotation: TimeDelta::days(30),
            max_logins: 100,
        }
    }
}

/// Registrations from an address that are not throttled; two a minute are forgotten.
const MAX_FREE_REGISTRATIONS: u32 = 50;

/// Largest setting of `max_logins`: as many as one page holds.
pub const MAX_LOGINS: usize = PAGE_LIMIT;

/// Identity over a store. One a process; shared by reference.
#[derive(Debug)]
pub struct Auth {
    store: Store,
    clock: Clock,
    root: RootKey,
    access: AccessTokens,
    refresh: RefreshKeys,
    hasher: Hasher,
    lifetimes: Lifetimes,
    ring: RwLock<CachedKeyRing>,
    /// When the ring was last begun to be read again.
    reloaded_at: Mutex<Option<Instant>>,
    throttle_key: Subkey,
    factor_key: Subkey,
    csrf_key: Subkey,
    login_queues: LoginQueues,
    addresses: AddressLimiter,
    registrations: AddressLimiter,
    registration: RegistrationMode,
    verification_key: Subkey,
    mailer: Option<Arc<dyn Mailer>>,
    key_rotation: TimeDelta,
    max_logins: usize,
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

/// Who wants to sign in.
#[derive(Clone, Copy, Debug)]
pub struct SignIn<'a> {
    /// Their e-mail address, as they wrote it.
    pub email: &'a str,
    /// Their password.
    pub password: &'a str,
    /// A code of their authenticator app, or a recovery code, if they have a second factor.
    pub code: Option<&'a str>,
    /// The tenant that their tokens shall be for, if it is not their own.
    pub tenant: Option<TenantId>,
}

/// Where a request comes from, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// The `User-Agent` header; cut to 256 characters.
    pub user_agent: Option<String>,
    /// The client's address, if it is known.
    pub ip: Option<IpAddr>,
    /// The nearest known proxy before a client whose address is not known. Failed attempts and
    /// registrations of all such clients are counted together, against this address.
    pub nearest_hop: Option<IpAddr>,
}

impl ClientInfo {
    /// Returns the address that failed attempts and registrations are counted against.
    pub(crate) fn throttled_ip(&self) -> Option<IpAddr> {
        self.ip.or(self.nearest_hop)
    }
}

/// An access token and the refresh token that goes with it.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// For `Authorization`.
    pub access: AccessToken,
    /// For the next refresh.
    pub refresh: EncodedRefreshToken,
    /// How long the access token holds from now on, in whole seconds.
    pub expires_in: TimeDelta,
    /// The session that they are of.
    pub session_id: AuthSessionId,
    /// Its token family.
    pub token_family: TokenFamilyId,
    /// The tenant that they are for.
    pub tenant_id: TenantId,
}

/// Somebody who has just signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// Who.
    pub user: User,
    /// Their tokens.
    pub tokens: Tokens,
}

/// A token that somebody signs out with.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Credential<'a> {
    /// An access token that still holds.
    Access(&'a str),
    /// A refresh token, of any generation.
    Refresh(&'a str),
}

/// The entities of this crate, for the [`StoreOptions`] of a store that [`Auth`] works on.
#[must_use]
pub fn entities(options: StoreOptions) -> StoreOptions {
    options
        .entity::<WrappedRootKey>()
        .entity::<SealedKey>()
        .entity::<ClockMark>()
        .entity::<IdeGrant>()
        .entity::<Invitation>()
        .entity::<LoginFailures>()
        .entity::<PasswordReset>()
        .entity::<PersonalToken>()
        .entity::<SecondFactor>()
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
        if !(1..=MAX_LOGINS).contains(&settings.max_logins) {
            return Err(Error::Setting("the logins of a user are limited to 1 to 1000"));
        }
        let read_at = clock.now();
        let (root, records) = load_keys(&store, &master, &clock, access.max_lifetime()).await?;
        let ring = KeyRing::open(&records, &root)?;
        Ok(Self {
            access,
            refresh: RefreshKeys::derive(&root),
            hasher: Hasher::new(settings.hash)?.with_peppers(settings.peppers),
            lifetimes: settings.lifetimes,
            ring: RwLock::new(CachedKeyRing::new(ring, read_at)),
            reloaded_at: Mutex::new(None),
            throttle_key: root.subkey(Purpose::Throttle),
            factor_key: root.subkey(Purpose::SealFactors),
            csrf_key: root.subkey(Purpose::Csrf),
            login_queues: LoginQueues::default(),
            addresses: AddressLimiter::default(),
            registrations: AddressLimiter::with_free(MAX_FREE_REGISTRATIONS),
            registration: settings.registration,
            verification_key: root.subkey(Purpose::Verification),
            mailer: settings.mailer,
            key_rotation: settings.key_rotation,
            max_logins: settings.max_logins,
            store,
            clock,
            root,
        })
    }

    /// Removes what is over at the clock's time, of the records that are this crate's own.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]. The others are done all the same.
    pub async fn purge_expired(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let failures = self.store.sweep_expired::<LoginFailures>(now).await;
        let resets = self.store.sweep_expired::<PasswordReset>(now).await;
        let invitations = self.store.sweep_expired::<Invitation>(now).await;
        Ok(failures? + resets? + invitations?)
    }

    /// What a page that has the cookies of a login must show beside them, so that no other page can have
    /// a browser send them: an HMAC of the login's token family.
    pub fn csrf_token(&self, family: TokenFamilyId) -> String {
        BASE64_URL_SAFE_NO_PAD
            .encode(mac(self.csrf_key.expose(), &[family.0.as_bytes()]).as_slice())
    }

    /// Notifies `user` of a change of their account, if there is a mailer. It is not waited for: a change
    /// that is committed does not fail because of its notice.
    fn notify(&self, user: &User, notice: Notice) {
        let Some(mailer) = self.mailer.clone() else { return };
        let (email, user_id) = (user.email.clone(), user.id);
        tokio::spawn(async move {
            if let Err(error) = mailer.notice(&email, notice).await {
                tracing::warn!(error, %user_id, ?notice, "security notice not sent");
            }
        });
    }

    /// The family of a refresh token that was made here. Whether it holds is not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::RefreshInvalid`].
    pub fn family_of(&self, refresh_token: &str) -> Result<TokenFamilyId, Error> {
        self.refresh.parse(refresh_token).map(|token| token.family)
    }

    async fn tokens(
        &self,
        session: &AuthSession,
        user: &User,
        refresh: &RefreshToken,
        now: DateTime<Utc>,
    ) -> Result<Tokens, Error> {
        let minted = self.access.mint(
            &*self.recent_ring().await?,
            session,
            &user.email,
            TokenId::new(),
            now,
        )?;
        Ok(Tokens {
            access: minted.token,
            refresh: self.refresh.encode(refresh),
            expires_in: minted.expires_at.signed_duration_since(minted.issued_at),
            session_id: session.id,
            token_family: session.token_family,
            tenant_id: session.active_tenant(),
        })
    }
}
