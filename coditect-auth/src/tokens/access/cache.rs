//! Signatures that were verified lately, so that a client's next request costs a hash and not a curve.
//!
//! What is kept of a token is that the key signed it, and what it says: both are true for good. Its times
//! are looked at each time, and so is whether the key is still one that verifies. Whether the session
//! behind it holds is in the store, and never here. A token is known by its SHA-256, and only one that
//! has passed every check is kept: nobody fills the cache with made-up ones.

use std::{fmt, sync::Arc};

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::{Claims, VerifyingKey};

/// Tokens whose signatures hold.
#[derive(Clone)]
pub(super) struct SignatureCache(Option<Arc<Cache<TokenHash, Arc<Entry>>>>);

/// SHA-256 of a token.
pub(super) type TokenHash = [u8; 32];

/// What is known of a token.
struct Entry {
    key: VerifyingKey,
    claims: Claims,
}

impl SignatureCache {
    /// As many as `entries`; zero keeps none.
    pub(super) fn new(entries: usize) -> Self {
        Self((entries > 0).then(|| Arc::new(Cache::new(entries))))
    }

    /// By what `token` is known; none if nothing is kept.
    pub(super) fn hash_of(&self, token: &str) -> Option<TokenHash> {
        self.0.as_ref().map(|_| Sha256::digest(token.as_bytes()).into())
    }

    /// What it says, if it was verified by a key that `is_known` now.
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

    /// Keeps that `key` has signed it.
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
