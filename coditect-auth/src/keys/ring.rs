//! The opened key ring of a running server: one key signs, all verify.
//!
//! A ring is immutable: when the records change, a new ring replaces it. Opening fails unless
//! exactly one key is active and all decrypt, so that a wrong root key is detected at the start.

use serde_json::{Value, json};

use super::{KeyState, SealedKey, SigningKey, VerifyingKey};
use crate::{KeyError, KeyId, RootKey};

/// The opened signing keys. Private parts are dropped except for the active key.
#[derive(Debug)]
pub struct KeyRing {
    signing: SigningKey,
    verifying: VerifyingKeys,
}

/// Verifying keys by id.
#[derive(Clone, Debug)]
pub struct VerifyingKeys(Vec<VerifyingKey>);

impl VerifyingKeys {
    /// Creates the set from keys of distinct ids, in order of creation.
    pub(crate) fn new(mut keys: Vec<VerifyingKey>) -> Self {
        keys.sort_by_key(VerifyingKey::kid);
        Self(keys)
    }

    /// Returns the key with the id of a token's header, compared as text.
    pub(crate) fn named(&self, kid: &str) -> Option<&VerifyingKey> {
        self.0.iter().find(|key| key.is_named(kid))
    }

    /// Returns whether the set contains `key`.
    pub(crate) fn has(&self, key: &VerifyingKey) -> bool {
        self.0.contains(key)
    }
}

impl KeyRing {
    /// Opens the keys, skipping destroyed ones.
    ///
    /// # Errors
    ///
    /// [`KeyError::DoesNotOpen`] for the first key that another root key sealed; other variants for
    /// inconsistent records.
    pub fn open<'a>(
        keys: impl IntoIterator<Item = &'a SealedKey>,
        root: &RootKey,
    ) -> Result<Self, KeyError> {
        let mut signing: Option<SigningKey> = None;
        let mut verifying: Vec<VerifyingKey> = Vec::new();
        for sealed in keys {
            if matches!(sealed.state, KeyState::Destroyed { .. }) {
                continue;
            }
            let key = sealed.open(root)?;
            let kid = key.kid();
            if verifying.iter().any(|known| known.kid() == kid) {
                return Err(KeyError::Duplicate { kid });
            }
            verifying.push(key.verifying_key());
            if matches!(sealed.state, KeyState::Active { .. })
                && let Some(first) = signing.replace(key)
            {
                return Err(KeyError::SeveralActive { first: first.kid(), second: kid });
            }
        }
        let signing = signing.ok_or(KeyError::NoneActive)?;
        Ok(Self { signing, verifying: VerifyingKeys::new(verifying) })
    }

    /// Fails unless the keys were sealed under `root`, by opening one of them.
    pub(crate) fn open_any<'a>(
        keys: impl IntoIterator<Item = &'a SealedKey>,
        root: &RootKey,
    ) -> Result<(), KeyError> {
        let sealed = keys.into_iter().find(|key| key.sealed.is_some());
        sealed
            .map_or(Ok(()), |key| key.open(root).map(|_| ()))
            .map_err(|_| KeyError::WrongMasterKey)
    }

    /// Returns the active key.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// Returns all keys that verify.
    pub fn verifying(&self) -> &VerifyingKeys {
        &self.verifying
    }

    /// Returns the ids of all keys, in order of creation.
    pub fn kids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.verifying.0.iter().map(VerifyingKey::kid)
    }

    /// Returns the JWKS document (RFC 7517) with all public keys.
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.verifying.0.iter().map(VerifyingKey::to_jwk).collect();
        json!({ "keys": keys })
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use zeroize::Zeroizing;

    use super::*;

    fn root(byte: u8) -> RootKey {
        RootKey::new(Zeroizing::new([byte; 32]))
    }

    fn next() -> SealedKey {
        SealedKey::generate(&root(1), DateTime::UNIX_EPOCH).unwrap()
    }

    fn active() -> SealedKey {
        next().activate(DateTime::UNIX_EPOCH).unwrap()
    }

    fn retired() -> SealedKey {
        active().retire(DateTime::UNIX_EPOCH).unwrap()
    }

    fn gone() -> SealedKey {
        retired().destroy(DateTime::<Utc>::UNIX_EPOCH, TimeDelta::zero()).unwrap()
    }

    #[test]
    fn active_key_signs_and_all_but_destroyed_ones_verify() {
        let keys = [retired(), active(), next(), gone()];
        let ring = KeyRing::open(&keys, &root(1)).unwrap();
        assert_eq!(ring.signing().kid(), keys[1].kid);
        for (key, verifies) in keys.iter().zip([true, true, true, false]) {
            assert_eq!(ring.verifying().named(&key.kid.to_string()).is_some(), verifies);
        }
    }

    #[test]
    fn opening_the_ring_with_a_wrong_root_key_fails() {
        assert!(matches!(KeyRing::open(&[active()], &root(2)), Err(KeyError::DoesNotOpen { .. })));
    }

    #[test]
    fn exactly_one_key_is_active() {
        assert!(matches!(KeyRing::open(&[next(), retired()], &root(1)), Err(KeyError::NoneActive)));
        assert!(matches!(
            KeyRing::open(&[active(), active()], &root(1)),
            Err(KeyError::SeveralActive { .. })
        ));
    }

    #[test]
    fn duplicate_key_is_rejected() {
        let key = active();
        assert!(matches!(
            KeyRing::open(&[key.clone(), key], &root(1)),
            Err(KeyError::Duplicate { .. })
        ));
    }

    #[test]
    fn jwks_has_public_parts_only() {
        let ring = KeyRing::open(&[active(), next()], &root(1)).unwrap();
        let jwks = ring.jwks();
        let keys = jwks["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 2);
        for (key, kid) in keys.iter().zip(ring.kids()) {
            assert_eq!(key["kid"], kid.to_string());
            assert_eq!(key["kty"], "OKP");
            assert_eq!(key["crv"], "Ed25519");
            assert_eq!(key["alg"], "EdDSA");
            assert_eq!(key["use"], "sig");
            assert_eq!(key["x"].as_str().unwrap().len(), 43);
            assert!(key.get("d").is_none());
        }
    }

    #[test]
    fn jsonwebtoken_reads_the_jwks() {
        let ring = KeyRing::open(&[active()], &root(1)).unwrap();
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(ring.jwks()).unwrap();
        let kid = ring.signing().kid().to_string();
        let key = set.find(&kid).unwrap();
        assert!(jsonwebtoken::DecodingKey::from_jwk(key).is_ok());
    }
}
