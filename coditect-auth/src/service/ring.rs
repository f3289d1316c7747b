//! The keys of an installation: the root key and the key ring.
//!
//! Servers over one store share the keys: the first one creates them, and of concurrent rotations
//! one takes effect. A server reloads the ring every minute, and for an unknown key. Tokens of a
//! newly active key verify at once, since a key is published one rotation before it signs. A server
//! that could not reload the ring does so before it signs or verifies again, as its signing key may
//! have been destroyed.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use coditect_store::{Clock, Store, Transaction, keyspace::Global};
use tokio::time::sleep;

use super::Auth;
use crate::{
    Error, KeyError, KeyId, KeyRing, KeyState, MasterKey, RootKey, SealedKey, WrappedRootKey, keys,
    keys::master,
};

/// Minimum interval between reloads for unknown keys; earlier callers wait.
const RING_RELOAD_INTERVAL: Duration = Duration::from_millis(250);

/// Maximum age of a ring that signs or verifies. Less than [`RETIRED_KEY_MARGIN`], for clocks that
/// differ.
const MAX_RING_AGE: TimeDelta = TimeDelta::minutes(5);

/// Time for which a retired key is kept after its last token, since another server may have signed
/// with it until its next reload.
const RETIRED_KEY_MARGIN: TimeDelta = TimeDelta::minutes(10);

/// Maximum number of key records; each rotation leaves one.
const MAX_KEYS: usize = 10_000;

/// A ring with its read time.
#[derive(Debug)]
pub(super) struct CachedKeyRing {
    ring: Arc<KeyRing>,
    read_at: DateTime<Utc>,
}

impl CachedKeyRing {
    /// Wraps a ring read at `read_at` or later.
    pub(super) fn new(ring: KeyRing, read_at: DateTime<Utc>) -> Self {
        Self { ring: Arc::new(ring), read_at }
    }
}

impl Auth {
    /// Returns the public keys as a JWKS document (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        self.ring().jwks()
    }

    /// Returns the key records, oldest first; their private parts are sealed.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn signing_keys(&self) -> Result<Vec<SealedKey>, Error> {
        self.store.run(|tx| async move { all_keys(&tx).await }).await
    }

    /// Rotates the signing keys, unless another server has rotated the key that this one signs
    /// with. Tokens of the retired key stay valid. Destroys no key, as token lifetimes are settings
    /// of the servers, and this may run beside them.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn rotate_keys(&self) -> Result<(), Error> {
        let present = self.ring().signing().kid();
        self.rotate_if(|kid, _, _| kid == present, TimeDelta::MAX).await
    }

    /// Rotates the signing keys if the active one is [due](super::Settings::key_rotation), destroys
    /// retired keys whose tokens have expired, and reloads the ring. Servers call this every
    /// minute.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; [`Error::Key`] if a key record is damaged.
    pub async fn rotate_due_keys(&self) -> Result<(), Error> {
        let rotation = self.key_rotation;
        let is_due = |_, since, now: DateTime<Utc>| now.signed_duration_since(since) >= rotation;
        self.rotate_if(is_due, self.token_life() + RETIRED_KEY_MARGIN).await
    }

    /// Waits until this server's signing key is rotated, by any process. Call
    /// [`rotate_due_keys`](Self::rotate_due_keys) then, to reload the ring.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn wait_for_key_rotation(&self) -> Result<(), Error> {
        let kid = self.ring().signing().kid();
        let watch = |tx: Transaction| async move {
            let key = tx.get::<SealedKey>(Global, kid).await?;
            let is_active = key.is_some_and(|key| matches!(key.state, KeyState::Active { .. }));
            Ok::<_, Error>((is_active, tx.watch::<SealedKey>(Global, kid).await?))
        };
        let (is_active, watch) = self.store.run(watch).await?;
        if is_active {
            watch.await?;
        } else {
            // Rotated before. The pause bounds the rate of reads if the ring cannot be read.
            sleep(RING_RELOAD_INTERVAL).await;
        }
        Ok(())
    }

    /// Rotates if `is_due` for the active key, its time of activation and now; destroys keys
    /// retired `retention` ago; reloads the ring.
    async fn rotate_if(
        &self,
        is_due: impl Fn(KeyId, DateTime<Utc>, DateTime<Utc>) -> bool + Send + Sync,
        retention: TimeDelta,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let keep = |tx: Transaction| {
            let is_due = &is_due;
            async move {
                let known = all_keys(&tx).await?;
                let due = active(&known).is_some_and(|(kid, since)| is_due(kid, since, now));
                let changed = if due {
                    keys::rotate(&known, now, retention, || SealedKey::generate(&self.root, now))?
                } else {
                    known.iter().filter_map(|key| key.destroy(now, retention).ok()).collect()
                };
                for key in &changed {
                    if known.iter().any(|before| before.kid == key.kid) {
                        tx.update(key).await?;
                    } else {
                        tx.insert(key).await?;
                    }
                }
                Ok::<_, Error>(())
            }
        };
        self.store.run(keep).await?;
        self.read_ring(&mut *self.reloaded_at.lock().await).await
    }

    pub(super) fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner).ring)
    }

    /// Returns the ring for signing and verifying, reloaded if it is too old, or from the future
    /// after the clock was set back.
    pub(super) async fn recent_ring(&self) -> Result<Arc<KeyRing>, Error> {
        let read_at = self.ring.read().unwrap_or_else(PoisonError::into_inner).read_at;
        let age = self.clock.now().signed_duration_since(read_at);
        if age < TimeDelta::zero() || age > MAX_RING_AGE {
            self.reload_ring().await?;
        }
        Ok(self.ring())
    }

    /// Reloads the ring, or waits for a reload that starts after this call. Reloads are serialized
    /// and limited in rate, since anyone can invent a key id; callers that wait share the next
    /// reload, so a new key is found whatever other requests ask for.
    pub(super) async fn reload_ring(&self) -> Result<(), Error> {
        let asked_at = Instant::now();
        let mut reloaded_at = self.reloaded_at.lock().await;
        if let Some(at) = *reloaded_at {
            if at >= asked_at {
                return Ok(());
            }
            sleep(RING_RELOAD_INTERVAL.saturating_sub(at.elapsed())).await;
        }
        self.read_ring(&mut reloaded_at).await
    }

    /// Reads the ring. The caller holds the lock of `reloaded_at`, so that no older ring replaces a
    /// newer one.
    async fn read_ring(&self, reloaded_at: &mut Option<Instant>) -> Result<(), Error> {
        let (begun_at, read_at) = (Instant::now(), self.clock.now());
        let records = self.signing_keys().await?;
        let held = CachedKeyRing::new(KeyRing::open(&records, &self.root)?, read_at);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = held;
        *reloaded_at = Some(begun_at);
        Ok(())
    }

    /// Returns the maximum time for which a token is accepted after it was signed.
    fn token_life(&self) -> TimeDelta {
        self.access.max_lifetime()
    }
}

/// Loads the root key and the key records, and creates them in the same transaction if there are
/// none.
pub(super) async fn load_keys(
    store: &Store,
    master: &MasterKey,
    clock: &Clock,
    token_life: TimeDelta,
) -> Result<(RootKey, Vec<SealedKey>), Error> {
    let fresh = &RootKey::generate()?;
    store
        .run_idempotent(|tx| async move {
            let (now, known) = (clock.now(), all_keys(&tx).await?);
            let sealed = tx.get::<WrappedRootKey>(Global, ()).await?;
            let root = if let Some(sealed) = sealed {
                sealed.open(master)?
            } else {
                let root = if known.is_empty() {
                    fresh.clone()
                } else {
                    RootKey::of_first_installations(master)
                };
                // Checked before any write: a wrong master key wraps nothing.
                KeyRing::open_any(&known, &root)?;
                tx.insert(&WrappedRootKey::seal(&root, master, now)?).await?;
                root
            };
            if !known.is_empty() {
                return Ok((root, known));
            }
            let made = keys::rotate(&[], now, token_life, || SealedKey::generate(&root, now))?;
            for key in &made {
                tx.insert(key).await?;
            }
            Ok::<_, Error>((root, made))
        })
        .await
}

/// Returns the active key with its time of activation.
fn active(keys: &[SealedKey]) -> Option<(KeyId, DateTime<Utc>)> {
    keys.iter().find_map(|key| match key.state {
        KeyState::Active { activated_at } => Some((key.kid, activated_at)),
        _ => None,
    })
}

async fn all_keys(tx: &Transaction) -> Result<Vec<SealedKey>, Error> {
    Ok(tx.list::<SealedKey>(Global).all(MAX_KEYS).await?)
}

/// Loads the master key from the file at `path`, and creates it for a store without keys. Completes
/// an interrupted [replacement](replace_master_key_file).
///
/// # Errors
///
/// [`Error::Key`] if the file is invalid, or missing while the store has keys; [`Error::Store`].
pub async fn load_master_key(path: &Path, store: &Store) -> Result<MasterKey, Error> {
    end_replacement(path, store).await?;
    let missing = !path.try_exists().map_err(Error::internal)?;
    if missing && has_keys(store).await? {
        return Err(KeyError::MasterKeyMissing { path: path.to_owned() }.into());
    }
    MasterKey::load_or_create(path)
}

/// Rewraps the root key with `next` in one transaction. Tokens stay valid and running servers
/// continue; servers that start need the new key.
///
/// # Errors
///
/// [`Error::Key`] if `present` is not the master key; [`Error::Store`].
pub async fn replace_master_key(
    store: &Store,
    clock: &Clock,
    present: &MasterKey,
    next: &MasterKey,
) -> Result<(), Error> {
    let fresh = &RootKey::generate()?;
    let replace = |tx: Transaction| async move {
        let before = tx.get::<WrappedRootKey>(Global, ()).await?;
        let root = match &before {
            // An attempt with an unknown outcome committed.
            Some(sealed) if sealed.open(next).is_ok() => return Ok(()),
            Some(sealed) => sealed.open(present)?,
            None => {
                let known = all_keys(&tx).await?;
                let root = if known.is_empty() {
                    fresh.clone()
                } else {
                    RootKey::of_first_installations(present)
                };
                KeyRing::open_any(&known, &root)?;
                root
            }
        };
        let sealed = WrappedRootKey::seal(&root, next, clock.now())?;
        Ok::<_, Error>(tx.upsert(&sealed).await?)
    };
    store.run_idempotent(replace).await
}

/// Replaces the master key in the file at `path`. The new key is durable beside it before the store
/// needs it, and renamed afterwards: an interruption loses no key, and the next
/// [start](load_master_key) completes it.
///
/// # Errors
///
/// As for [`replace_master_key`]; [`Error::Key`] if a file cannot be written.
pub async fn replace_master_key_file(
    path: &Path,
    store: &Store,
    clock: &Clock,
) -> Result<(), Error> {
    let present = load_master_key(path, store).await?;
    let next = MasterKey::load_or_create(&master::replacement_path(path))?;
    replace_master_key(store, clock, &present, &next).await?;
    master::install_replacement(path)
}

/// Completes an interrupted replacement: the new key replaces the file if the store needs it.
/// Otherwise it is kept for the next attempt.
async fn end_replacement(path: &Path, store: &Store) -> Result<(), Error> {
    let successor = master::replacement_path(path);
    if !successor.try_exists().map_err(Error::internal)? {
        return Ok(());
    }
    let next = MasterKey::load_or_create(&successor)?;
    let sealed = store.run(|tx| async move { tx.get::<WrappedRootKey>(Global, ()).await }).await?;
    if sealed.is_some_and(|sealed| sealed.open(&next).is_ok()) {
        return master::install_replacement(path);
    }
    Ok(())
}

/// Returns whether the store has keys: a wrapped root key or, in a store from before there was one,
/// signing keys.
async fn has_keys(store: &Store) -> Result<bool, Error> {
    store
        .run(|tx| async move {
            Ok(tx.get::<WrappedRootKey>(Global, ()).await?.is_some()
                || !all_keys(&tx).await?.is_empty())
        })
        .await
}
