//! The keys of an installation, kept in the store: the root key, and the ring of those that sign.
//!
//! Several servers over one store have the same: who starts first makes them, and of those that would
//! rotate at once one does and the others find it done. A server looks at the ring again every minute,
//! and for a key that it doesn't know; what another one's new key has signed is verified from the
//! beginning, since a key is published one rotation before it signs. One that was kept from looking
//! looks before it signs or verifies again: others may have forgotten the key that it would sign with.

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

/// For a key that is not in the ring, it is read again at most this often; who asks sooner waits.
const RING_RELOAD_INTERVAL: Duration = Duration::from_millis(250);

/// No server signs or verifies by a ring that is older. Less than [`RETIRED_KEY_MARGIN`], for clocks that
/// differ.
const MAX_RING_AGE: TimeDelta = TimeDelta::minutes(5);

/// How much longer than its last token a retired key is kept: another server may have signed with it
/// until it looked at the ring again.
const RETIRED_KEY_MARGIN: TimeDelta = TimeDelta::minutes(10);

/// More keys than any ring has: each rotation leaves one behind.
const MAX_KEYS: usize = 10_000;

/// A ring, and as of when it is.
#[derive(Debug)]
pub(super) struct CachedKeyRing {
    ring: Arc<KeyRing>,
    read_at: DateTime<Utc>,
}

impl CachedKeyRing {
    /// As it was read at `read_at`, or later.
    pub(super) fn new(ring: KeyRing, read_at: DateTime<Utc>) -> Self {
        Self { ring: Arc::new(ring), read_at }
    }
}

impl Auth {
    /// The public keys, for others to verify access tokens with (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        self.ring().jwks()
    }

    /// The signing keys as they are stored, oldest first: their private parts are sealed.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn signing_keys(&self) -> Result<Vec<SealedKey>, Error> {
        self.store.run(|tx| async move { all_keys(&tx).await }).await
    }

    /// Has the next key sign from now on, in the place of the one that this server signs with; where
    /// another server has done so meanwhile, it is done. What the key before has signed holds until its
    /// time. No key is forgotten: how long tokens hold is for the servers to know, and this may be asked
    /// for beside them.
    ///
    /// # Errors
    ///
    /// [`Error::Store`].
    pub async fn rotate_keys(&self) -> Result<(), Error> {
        let present = self.ring().signing().kid();
        self.rotate_if(|kid, _, _| kid == present, TimeDelta::MAX).await
    }

    /// What a server does every minute or so: has the next key sign if the present one has for
    /// [long enough](super::Settings::key_rotation), forgets keys of which no token holds any more, and
    /// reads the ring again.
    ///
    /// # Errors
    ///
    /// [`Error::Store`]; [`Error::Key`] if a key was damaged.
    pub async fn rotate_due_keys(&self) -> Result<(), Error> {
        let rotation = self.key_rotation;
        let is_due = |_, since, now: DateTime<Utc>| now.signed_duration_since(since) >= rotation;
        self.rotate_if(is_due, self.token_life() + RETIRED_KEY_MARGIN).await
    }

    /// Waits until the key that this server signs with is rotated, by this process or another. Then
    /// [`rotate_due_keys`](Self::rotate_due_keys) reads the ring again.
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
            // It was rotated before. A ring that cannot be read is not asked for all the time.
            sleep(RING_RELOAD_INTERVAL).await;
        }
        Ok(())
    }

    /// Rotates if that is due for the key that signs, which has since then, as of now; forgets keys that
    /// were retired `retention` ago; and reads the ring again.
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
                        tx.create(key).await?;
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

    /// The ring to sign and to verify by: read again if it is too old, or of a time to come, as it is
    /// when the clock was set back.
    pub(super) async fn recent_ring(&self) -> Result<Arc<KeyRing>, Error> {
        let read_at = self.ring.read().unwrap_or_else(PoisonError::into_inner).read_at;
        let age = self.clock.now().signed_duration_since(read_at);
        if age < TimeDelta::zero() || age > MAX_RING_AGE {
            self.reload_ring().await?;
        }
        Ok(self.ring())
    }

    /// Has the ring as it is now, or was after this was called. It is read by one at a time and not too
    /// often, since anybody can make up a key's name; who is too early waits, and shares what is read
    /// then: a key that another server has just made is found, whatever others ask for.
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

    /// Reads the ring; who does it holds `reloaded_at`, so that none takes the place of a newer one.
    async fn read_ring(&self, reloaded_at: &mut Option<Instant>) -> Result<(), Error> {
        let (begun_at, read_at) = (Instant::now(), self.clock.now());
        let records = self.signing_keys().await?;
        let held = CachedKeyRing::new(KeyRing::open(&records, &self.root)?, read_at);
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = held;
        *reloaded_at = Some(begun_at);
        Ok(())
    }

    /// How long a token may hold after it was signed.
    fn token_life(&self) -> TimeDelta {
        self.access.max_lifetime()
    }
}

/// The root key and all keys of the ring, made in the same transaction if there are none.
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
                // Before anything is written: a wrong master key is told, and seals nothing.
                KeyRing::open_any(&known, &root)?;
                tx.create(&WrappedRootKey::seal(&root, master, now)?).await?;
                root
            };
            if !known.is_empty() {
                return Ok((root, known));
            }
            let made = keys::rotate(&[], now, token_life, || SealedKey::generate(&root, now))?;
            for key in &made {
                tx.create(key).await?;
            }
            Ok::<_, Error>((root, made))
        })
        .await
}

/// The key that signs, and since when.
fn active(keys: &[SealedKey]) -> Option<(KeyId, DateTime<Utc>)> {
    keys.iter().find_map(|key| match key.state {
        KeyState::Active { activated_at } => Some((key.kid, activated_at)),
        _ => None,
    })
}

async fn all_keys(tx: &Transaction) -> Result<Vec<SealedKey>, Error> {
    Ok(tx.list::<SealedKey>(Global).all(MAX_KEYS).await?)
}

/// The master key of an installation: of the file `path`, which is made, for a store that has no
/// keys yet. A [replacement](replace_master_key_file) that was broken off is ended.
///
/// # Errors
///
/// [`Error::Key`] if the file is not one, or is missing where the store's keys were sealed with it;
/// [`Error::Store`].
pub async fn load_master_key(path: &Path, store: &Store) -> Result<MasterKey, Error> {
    end_replacement(path, store).await?;
    let missing = !path.try_exists().map_err(Error::internal)?;
    if missing && has_keys(store).await? {
        return Err(KeyError::MasterKeyMissing { path: path.to_owned() }.into());
    }
    MasterKey::load_or_create(path)
}

/// Seals the root key with `next`, which `present` opens, in one transaction. Nothing that was signed or
/// handed out ends; servers that run go on, and those that start need the next one.
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
            // An attempt whose outcome was unknown came through.
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

/// Replaces the master key in the file `path` by a new one. The new one is on disk, beside it, before the
/// store needs it, and takes the file's place after that: broken off anywhere, no key is lost, and the
/// next [start](load_master_key) ends what is left to do.
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

/// Ends a replacement of the master key that was broken off: the new key takes the place of the one
/// before if the store needs it. Otherwise it stays, for the replacement that is asked for again.
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

/// Whether there is anything that a master key has sealed: the root key, or in a store of before there
/// was one, those that sign.
async fn has_keys(store: &Store) -> Result<bool, Error> {
    store
        .run(|tx| async move {
            Ok(tx.get::<WrappedRootKey>(Global, ()).await?.is_some()
                || !all_keys(&tx).await?.is_empty())
        })
        .await
}
