//! The ring of signing keys, read from the store.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use coditect_store::{Clock, Store, Transaction, keyspace::Global};

use super::Auth;
use crate::{Error, KeyRing, MasterKey, SealedKey, keys};

impl Auth {
    /// The public keys, for others to verify access tokens with (RFC 7517).
    pub fn jwks(&self) -> serde_json::Value {
        self.ring().jwks()
    }

    pub(super) fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the ring again, one at a time and not too often: anybody can make up a key's name.
    pub(super) async fn reload_ring(&self) -> Result<(), Error> {
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

/// For a key that is not in the ring, it is read again at most this often.
const RING_RELOADED_EVERY: Duration = Duration::from_secs(2);

/// More keys than any ring has: each rotation leaves one behind.
const MOST_KEYS: usize = 10_000;

/// All keys of the ring, made in the same transaction if there are none.
pub(super) async fn load_keys(
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

pub(super) async fn all_keys(tx: &Transaction) -> Result<Vec<SealedKey>, Error> {
    Ok(tx.list::<SealedKey>(Global).all(MOST_KEYS).await?)
}
