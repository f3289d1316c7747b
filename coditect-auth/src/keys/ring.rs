//! The keys a running server holds: one that signs, and all that verify.
//!
//! A ring is made from the records at once and never changed: when the records change, a new ring takes
//! its place. It refuses records of which none or several are active, and ones that do not open, so a
//! wrong root key is told at the start and not at the first login.

use serde_json::{Value, json};

use super::{KeyState, SealedKey, SigningKey, VerifyingKey};
use crate::{KeyError, KeyId, RootKey};

/// The signing keys, opened. Of the keys that only verify, the private parts are not kept.
#[derive(Debug)]
pub struct KeyRing {
    signing: SigningKey,
    verifying: VerifyingKeys,
}

/// Keys that verify, by their ids.
#[derive(Clone, Debug)]
pub struct VerifyingKeys(Vec<VerifyingKey>);

impl VerifyingKeys {
    /// These, of which no two have one id, in the order in which they were made.
    pub(crate) fn new(mut keys: Vec<VerifyingKey>) -> Self {
        keys.sort_by_key(VerifyingKey::kid);
        Self(keys)
    }

    /// The key whose id stands in a token's header; compared as text, and looked for nowhere else.
    pub(crate) fn named(&self, kid: &str) -> Option<&VerifyingKey> {
        self.0.iter().find(|key| key.is_named(kid))
    }

    /// Whether that key is among them.
    pub(crate) fn has(&self, key: &VerifyingKey) -> bool {
        self.0.contains(key)
    }
}

impl KeyRing {
    /// Opens the keys; those that are gone are passed over.
    ///
    /// # Errors
    ///
    /// [`KeyError::DoesNotOpen`] names the first that another root key sealed; the others tell of
    /// records that contradict each other.
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

    /// Refuses a root key under which these were not sealed.
    pub(crate) fn open_any<'a>(
        keys: impl IntoIterator<Item = &'a SealedKey>,
        root: &RootKey,
    ) -> Result<(), KeyError> {
        let sealed = keys.into_iter().find(|key| key.sealed.is_some());
        sealed
            .map_or(Ok(()), |key| key.open(root).map(|_| ()))
            .map_err(|_| KeyError::WrongMasterKey)
    }

    /// The key that signs.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// All keys that verify.
    pub fn verifying(&self) -> &VerifyingKeys {
        &self.verifying
    }

    /// The ids of all its keys, in the order in which the keys were made.
    pub fn kids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.verifying.0.iter().map(VerifyingKey::kid)
    }

    /// The JWKS document (RFC 7517): the public parts of all its keys.
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
    fn the_active_key_signs_and_all_but_the_gone_verify() {
        let keys = [retired(), active(), next(), gone()];
        let ring = KeyRing::open(&keys, &root(1)).unwrap();
        assert_eq!(ring.signing().kid(), keys[1].kid);
        for (key, verifies) in keys.iter().zip([true, true, true, false]) {
            assert_eq!(ring.verifying().named(&key.kid.to_string()).is_some(), verifies);
        }
    }

    #[test]
    fn a_wrong_root_key_is_told_when_the_ring_is_opened() {
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
    fn a_key_is_in_the_ring_once() {
        let key = active();
        assert!(matches!(
            KeyRing::open(&[key.clone(), key], &root(1)),
            Err(KeyError::Duplicate { .. })
        ));
    }

    #[test]
    fn the_jwks_has_the_public_parts_and_nothing_private() {
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
    fn the_jwks_is_what_jsonwebtoken_reads() {
        let ring = KeyRing::open(&[active()], &root(1)).unwrap();
        let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(ring.jwks()).unwrap();
        let kid = ring.signing().kid().to_string();
        let key = set.find(&kid).unwrap();
        assert!(jsonwebtoken::DecodingKey::from_jwk(key).is_ok());
    }
}
