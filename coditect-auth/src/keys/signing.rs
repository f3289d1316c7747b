//! Opened keys: signing and verifying.
//!
//! Signatures are verified strictly: keys and points of small order, with which one signature is
//! valid for many messages, and non-canonical encodings are rejected.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::{Signature, Signer as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{Error, KeyId};

/// Signature algorithm. Persisted: append only, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Algorithm {
    /// Ed25519, named `EdDSA` in tokens (RFC 8037).
    EdDsa,
}

/// A signing key. Its private part is zeroized on drop.
pub struct SigningKey {
    kid: KeyId,
    key: ed25519_dalek::SigningKey,
}

/// A verifying key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    kid: KeyId,
    /// Id in text form: ids are compared as text, so that no second spelling is accepted.
    kid_text: String,
    key: ed25519_dalek::VerifyingKey,
}

impl Algorithm {
    /// Returns the algorithm as a `jsonwebtoken` type.
    pub(crate) fn in_header(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
        }
    }

    /// Returns its name in headers and in the JWKS.
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
        }
    }
}

impl SigningKey {
    /// Derives the Ed25519 key from a seed.
    pub(crate) fn from_seed(kid: KeyId, seed: &Zeroizing<[u8; 32]>) -> Self {
        Self { kid, key: ed25519_dalek::SigningKey::from_bytes(seed) }
    }

    /// Returns the id.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    /// Returns the verifying key.
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey {
            kid: self.kid,
            kid_text: self.kid.to_string(),
            key: self.key.verifying_key(),
        }
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl VerifyingKey {
    /// Returns the id.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::EdDsa
    }

    /// Returns whether `kid`, from a token's header, is this key's id.
    pub(crate) fn is_named(&self, kid: &str) -> bool {
        self.kid_text == kid
    }

    /// Returns whether `signature` is this key's signature of `message`.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
    }

    /// Reads a JSON Web Key. Returns `None` if the key is for another use.
    ///
    /// # Errors
    ///
    /// [`Error::Jwks`] if the key is private, or malformed.
    pub(crate) fn of_jwk(jwk: &Value) -> Result<Option<Self>, Error> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let is_or_absent = |name, value| jwk.get(name).is_none() || text(name) == Some(value);
        let is_ours = text("kty") == Some("OKP")
            && text("crv") == Some("Ed25519")
            && is_or_absent("use", "sig")
            && is_or_absent("alg", Algorithm::EdDsa.name());
        if jwk.get("d").is_some() || jwk.get("k").is_some() {
            return Err(Error::Jwks("it has a private key"));
        }
        if !is_ours {
            return Ok(None);
        }
        let damaged = Error::Jwks("it has a damaged key");
        let kid_text = text("kid").ok_or(Error::Jwks("it has a key without kid"))?.to_owned();
        let Ok(kid) = kid_text.parse().map(KeyId) else { return Err(damaged) };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text("x").unwrap_or_default()).ok();
        let key = bytes
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .and_then(|bytes| ed25519_dalek::VerifyingKey::from_bytes(&bytes).ok())
            .filter(|key| !key.is_weak());
        key.map_or(Err(damaged), |key| Ok(Some(Self { kid, kid_text, key })))
    }

    /// Returns the key as a JSON Web Key (RFC 8037).
    pub fn to_jwk(&self) -> Value {
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "use": "sig",
            "alg": self.algorithm().name(),
            "kid": self.kid_text,
            "x": BASE64_URL_SAFE_NO_PAD.encode(self.key.as_bytes()),
        })
    }
}

impl fmt::Debug for SigningKey {
    /// Omits the private part.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn key() -> SigningKey {
        SigningKey::from_seed(KeyId(Uuid::nil()), &Zeroizing::new([0xab; 32]))
    }

    #[test]
    fn signature_verifies_for_its_message_and_key_only() {
        let signature = key().sign(b"message");
        let public = key().verifying_key();
        assert!(public.verify(b"message", &signature));
        assert!(!public.verify(b"massage", &signature));

        let other = SigningKey::from_seed(KeyId::new(), &Zeroizing::new([1; 32]));
        assert!(!other.verifying_key().verify(b"message", &signature));
    }

    #[test]
    fn signature_of_wrong_length_is_rejected() {
        let signature = key().sign(b"message");
        let public = key().verifying_key();
        assert!(!public.verify(b"message", &signature[..63]));
        assert!(!public.verify(b"message", &[&signature[..], &[0]].concat()));
        assert!(!public.verify(b"message", &[]));
    }

    #[test]
    fn point_of_small_order_is_rejected() {
        // The identity as key and as R, with s = 0: a lax check takes it for any message.
        let mut identity = [0; 32];
        identity[0] = 1;
        let weak = VerifyingKey {
            key: ed25519_dalek::VerifyingKey::from_bytes(&identity).unwrap(),
            ..key().verifying_key()
        };
        let signature = [identity, [0; 32]].concat();
        assert!(!weak.verify(b"any message", &signature));
    }

    #[test]
    fn debug_omits_the_private_part() {
        let shown = format!("{:?}", key());
        assert!(!shown.contains("171") && !shown.contains("abab"), "{shown}");
    }

    #[test]
    fn key_ids_are_compared_as_text() {
        let public = key().verifying_key();
        assert!(public.is_named("00000000-0000-0000-0000-000000000000"));
        assert!(!public.is_named("{00000000-0000-0000-0000-000000000000}"));
        assert!(!public.is_named("00000000000000000000000000000000"));
        assert!(!public.is_named(""));
    }
}
