//! Cache of verified signatures, so that a client's next request costs a hash instead of an Ed25519
//! verification.
//!
//! An entry holds the verifying key and the claims, both immutable facts. The token's times and the
//! key's presence in the ring are checked on each use; the session is always read from the store.
//! Tokens are keyed by SHA-256 and inserted only after every check has passed, so forged tokens do
//! not fill the cache.

use std::{fmt, sync::Arc};

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::{Claims, VerifyingKey};

/// Claims of tokens with verified signatures.
#[derive(Clone)]
pub(super) struct SignatureCache(Option<Arc<Cache<TokenHash, Arc<Entry>>>>);

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

/// A verified token.
struct Entry {
    key: VerifyingKey,
    claims: Claims,
}

impl SignatureCache {
    /// Returns a cache of at most `entries` tokens; zero disables it.
    pub(super) fn new(entries: usize) -> Self {
        Self((entries > 0).then(|| Arc::new(Cache::new(entries))))
    }

    /// Returns the cache key of `token`, or `None` if the cache is disabled.
    pub(super) fn hash_of(&self, token: &str) -> Option<TokenHash> {
        self.0.as_ref().map(|_| Sha256::digest(token.as_bytes()).into())
    }

    /// Returns the claims if the key that verified them still `is_known`.
    pub(super) fn claims(
        &self,
        hash: Option<&TokenHash>,
        is_known: impl FnOnce(&VerifyingKey) -> bool,
    ) -> Option<Claims> {
        let (cache, hash) = (self.0.as_ref()?, hash?);
        let entry = cache.get(hash)?;
        if is_known(&entry.key) {
            return Some(entry.claims.clone());
        }
        cache.remove(hash);
        None
    }

    /// Records that `key` signed the token.
    pub(super) fn keep(&self, hash: Option<TokenHash>, key: &VerifyingKey, claims: &Claims) {
        if let (Some(cache), Some(hash)) = (&self.0, hash) {
            cache.insert(hash, Arc::new(Entry { key: key.clone(), claims: claims.clone() }));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |cache| cache.len())
    }
}

impl fmt::Debug for SignatureCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.as_ref().map_or(0, |cache| cache.len());
        f.debug_struct("SignatureCache").field("entries", &entries).finish()
    }
}
