//! The transactions of identity: registration, login, refresh, logout, authentication and
//! administration. No other module reads or writes the store.
//!
//! # Invariants
//!
//! - A user, their tenant, their first session and the e-mail's index entry are created together or
//!   not at all. Of concurrent registrations of one address, exactly one succeeds.
//! - A request is authenticated by its token's signature *and* by its session and user as read in
//!   the request's own transaction: a revocation takes effect with the next request.
//! - All logins of a user are revoked by one write: a session whose login epoch differs from its
//!   user's is revoked.
//! - A refresh is one transaction. If it detects reuse, the revocation commits before the response.
//! - Hashing, signing and randomness happen outside of transactions, and ids and salts are drawn
//!   once per request, so a retried transaction repeats the same writes.

mod accounts;
mod admin;
mod audit;
mod authentication;
mod ide;
mod invitations;
mod login_records;
mod logout;
mod mail_limits;
mod members;
mod password_check;
mod passwords;
mod purging;
mod rate_limit;
mod refresh;
mod registration;
mod retention;
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
    Clock, Cursor, Store, StoreOptions,
    model::{AuthSession, AuthSessionId, TenantId, TokenFamilyId, User},
    records::MAX_PAGE_RECORDS,
};
use tokio::sync::Mutex;

pub use self::{
    audit::Action,
    authentication::{AuthMethod, Identity, PersonalHash, VerifiedCredential},
    ide::IDE_SCOPE,
    invitations::{INVITATION_LIFETIME, NewInvitation},
    mail_limits::MAX_INVITATION_MAILS,
    members::Member,
    passwords::{MAX_RESETS, RESET_TOKEN_LIFETIME},
    purging::Purge,
    registration::{AddressProof, RegistrationMode, SignUp, VERIFICATION_LIFETIME},
    retention::AuditRetention,
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
        AuditExtent, ClockMark, IdeGrant, Invitation, LoginFailures, PasswordReset, PersonalToken,
        SecondFactor,
    },
    secret::Subkey,
    subkey::{Purpose, mac},
    throttle::AddressLimiter,
};

/// Settings of an [`Auth`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Issuer, audience and lifetime of access tokens.
    pub access: AccessSettings,
    /// Argon2id cost parameters.
    pub hash: HashParams,
    /// Secret keys mixed into password hashes; none by default.
    pub peppers: Peppers,
    /// Lifetimes of sessions, and the grace for replaced refresh tokens.
    pub lifetimes: Lifetimes,
    /// Delivers reset, invitation and verification tokens; `None` sends nothing.
    pub mailer: Option<Arc<dyn Mailer>>,
    /// Access to registration.
    pub registration: RegistrationMode,
    /// Rotation period of signing keys.
    pub key_rotation: TimeDelta,
    /// Maximum number of live logins per user, 1 to 1,000. A login beyond it deletes the longest
    /// idle one.
    pub max_logins: usize,
    /// Retention of audit logs.
    pub audit_retention: AuditRetention,
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

    /// Sets `audit_retention`.
    #[must_use]
    pub fn audit_retention(mut self, audit_retention: AuditRetention) -> Self {
        self.audit_retention = audit_retention;
        self
    }
}

impl Default for Settings {
    /// No mailer, key rotation every 30 days, and 100 logins per user.
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
            audit_retention: AuditRetention::default(),
        }
    }
}

/// Registrations per address before throttling starts; two per minute are forgotten.
const MAX_FREE_REGISTRATIONS: u32 = 50;

/// Upper bound of [`Settings::max_logins`], the rows of one page.
pub const MAX_LOGINS: usize = MAX_PAGE_RECORDS;

/// The authentication service over a store. Create one per process and share it by reference.
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
    /// Start of the last reload of the key ring.
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
    audit_retention: AuditRetention,
    /// The last user whose tenant's audit log was trimmed; `None` before the first.
    trimmed_to: Mutex<Option<Cursor>>,
}

/// A new account.
#[derive(Clone, Debug)]
pub struct Registration<'a> {
    /// E-mail address, as entered.
    pub email: &'a str,
    /// Password.
    pub password: &'a str,
    /// Given name.
    pub first_name: Option<String>,
    /// Family name.
    pub last_name: Option<String>,
}

/// Credentials of a login.
#[derive(Clone, Copy, Debug)]
pub struct SignIn<'a> {
    /// E-mail address, as entered.
    pub email: &'a str,
    /// Password.
    pub password: &'a str,
    /// TOTP code or recovery code, if the user has a second factor.
    pub code: Option<&'a str>,
    /// Active tenant of the session, if not the user's primary tenant.
    pub tenant: Option<TenantId>,
}

/// Origin of a request, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// `User-Agent` header, truncated to 256 characters.
    pub user_agent: Option<String>,
    /// Client address, if known.
    pub ip: Option<IpAddr>,
    /// Address of the nearest known proxy, if the client address is unknown. Failed attempts and
    /// registrations of all such clients count against this address.
    pub nearest_hop: Option<IpAddr>,
}

impl ClientInfo {
    /// Returns the address that failed attempts and registrations are counted against.
    pub(crate) fn throttled_ip(&self) -> Option<IpAddr> {
        self.ip.or(self.nearest_hop)
    }
}

/// An access token with its refresh token.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Access token, for the `Authorization` header.
    pub access: AccessToken,
    /// Refresh token, for the next refresh.
    pub refresh: EncodedRefreshToken,
    /// Validity of the access token from now, in whole seconds.
    pub expires_in: TimeDelta,
    /// Session of the tokens.
    pub session_id: AuthSessionId,
    /// Token family of the session.
    pub token_family: TokenFamilyId,
    /// Active tenant.
    pub tenant_id: TenantId,
}

/// Result of a login.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// User.
    pub user: User,
    /// Tokens of the new session.
    pub tokens: Tokens,
}

/// A token presented to a logout.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Credential<'a> {
    /// An access token that has not expired.
    Access(&'a str),
    /// A refresh token, of any generation.
    Refresh(&'a str),
}

/// Adds the entities of this crate to the [`StoreOptions`] of a store.
#[must_use]
pub fn entities(options: StoreOptions) -> StoreOptions {
    options
        .schema(coditect_store::model::schema())
        .entity::<WrappedRootKey>()
        .entity::<SealedKey>()
        .entity::<AuditExtent>()
        .entity::<ClockMark>()
        .entity::<IdeGrant>()
        .entity::<Invitation>()
        .entity::<LoginFailures>()
        .entity::<PasswordReset>()
        .entity::<PersonalToken>()
        .entity::<SecondFactor>()
}

impl Auth {
    /// Opens the key ring, and creates its first keys if there are none.
    ///
    /// # Errors
    ///
    /// [`Error::Key`] if the master key does not open the key ring, [`Error::Setting`] for a
    /// setting out of bounds, [`Error::Store`].
    pub async fn open(
        store: Store,
        master: MasterKey,
        clock: Clock,
        settings: Settings,
    ) -> Result<Self, Error> {
        let access = AccessTokens::new(settings.access)?;
        if !(1..=MAX_LOGINS).contains(&settings.max_logins) {
            return Err(Error::Setting("the maximum number of logins must be 1 to 1000"));
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
            audit_retention: settings.audit_retention,
            trimmed_to: Mutex::new(None),
            store,
            clock,
            root,
        })
    }

    /// Deletes the expired records of this crate and returns their number.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]. Records of other types are deleted nevertheless.
    pub async fn purge_expired(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let failures = self.store.purge_expired::<LoginFailures>(now).await;
        let resets = self.store.purge_expired::<PasswordReset>(now).await;
        let invitations = self.store.purge_expired::<Invitation>(now).await;
        Ok(failures? + resets? + invitations?)
    }

    /// Returns the CSRF token that a page must send besides its login cookies: an HMAC of the
    /// login's token family.
    pub fn csrf_token(&self, family: TokenFamilyId) -> String {
        BASE64_URL_SAFE_NO_PAD
            .encode(mac(self.csrf_key.expose(), &[family.0.as_bytes()]).as_slice())
    }

    /// Notifies `user` of a change of their account, if there is a mailer. Runs in the background:
    /// a committed change does not fail because of its notice.
    fn notify(&self, user: &User, notice: Notice) {
        let Some(mailer) = self.mailer.clone() else { return };
        let (email, user_id) = (user.email.clone(), user.id);
        tokio::spawn(async move {
            if let Err(error) = mailer.notice(&email, notice).await {
                tracing::warn!(error, %user_id, ?notice, "security notice not sent");
            }
        });
    }

    /// Returns the family of a refresh token that this installation issued. Does not check that it
    /// is still valid.
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
