//! Registering, signing in, staying signed in, signing out: the only folder with transactions.
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

mod accounts;
mod authentication;
mod refreshing;
mod ring;
mod signing_out;

use std::{
    path::Path,
    sync::{Arc, RwLock},
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{
    Clock, Store, StoreOptions,
    model::{AuthSession, User},
};
use tokio::sync::Mutex;

use self::ring::{all_keys, load_keys};
use crate::{
    AccessSettings, AccessToken, AccessTokens, Error, HashParams, Hasher, KeyError, KeyRing,
    Lifetimes, MasterKey, RefreshKeys, RefreshText, RefreshToken, SealedKey, TokenId,
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
}
