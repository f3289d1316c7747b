//! Verification of access tokens in other services, by the public keys alone.
//!
//! The checks match this service, except for the session: after a logout a token is rejected here
//! from the next request on, but elsewhere only once it has expired. Services that need more call
//! `/auth/verify`.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{AccessSettings, AccessTokens};
use crate::{Claims, Error, VerifyingKey, keys::VerifyingKeys};

/// Verifies access tokens by the keys of a JWKS document (RFC 7517).
///
/// ```
/// # use coditect_auth::{AccessSettings, Error, JwksVerifier};
/// # fn example(document: &serde_json::Value, token: &str, now: chrono::DateTime<chrono::Utc>)
/// # -> Result<(), Error> {
/// // What GET /.well-known/jwks.json of the service gave, kept for some minutes.
/// let verifier = JwksVerifier::new(document, AccessSettings::default())?;
/// let claims = verifier.verify(token, now)?;
/// println!("{} of tenant {}", claims.sub, claims.tenant_id);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct JwksVerifier {
    tokens: AccessTokens,
    keys: VerifyingKeys,
}

impl JwksVerifier {
    /// Creates a verifier from the keys of `document`, for the issuer and the audience of
    /// `settings`. Keys of other uses are skipped (RFC 7517, section 5).
    ///
    /// # Errors
    ///
    /// [`Error::Jwks`] if the document is malformed, has a private key or a duplicate, or no usable
    /// key; [`Error::Setting`].
    pub fn new(document: &Value, settings: AccessSettings) -> Result<Self, Error> {
        Ok(Self { tokens: AccessTokens::new(settings)?, keys: keys_of(document)? })
    }

    /// Replaces the keys with the keys of `document`.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new); the keys are then unchanged.
    pub fn replace_keys(&mut self, document: &Value) -> Result<(), Error> {
        self.keys = keys_of(document)?;
        Ok(())
    }

    /// Verifies `token` and returns its claims.
    ///
    /// # Errors
    ///
    /// [`Error::TokenExpired`], [`Error::TokenInvalid`]. The source
    /// [`UnknownKey`](crate::TokenError::UnknownKey) indicates that the document may be outdated:
    /// fetch it again, with a limit on the rate, and retry.
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Claims, Error> {
        Ok(self.tokens.verify(&self.keys, token, now)?)
    }
}

fn keys_of(document: &Value) -> Result<VerifyingKeys, Error> {
    let list = document.get("keys").and_then(Value::as_array);
    let list = list.ok_or(Error::Jwks("it has no `keys` array"))?;
    let mut keys = Vec::new();
    for jwk in list {
        if let Some(key) = VerifyingKey::of_jwk(jwk)? {
            if keys.iter().any(|known: &VerifyingKey| known.kid() == key.kid()) {
                return Err(Error::Jwks("it has a duplicate key"));
            }
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Err(Error::Jwks("it has no key that verifies access tokens"));
    }
    Ok(VerifyingKeys::new(keys))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zeroize::Zeroizing;

    use super::*;
    use crate::{KeyRing, RootKey, SealedKey};

    fn document() -> Value {
        let root = RootKey::new(Zeroizing::new([1; 32]));
        let key = |active: bool| {
            let key = SealedKey::generate(&root, DateTime::UNIX_EPOCH).unwrap();
            if active { key.activate(DateTime::UNIX_EPOCH).unwrap() } else { key }
        };
        KeyRing::open(&[key(true), key(false)], &root).unwrap().jwks()
    }

    fn refused(document: &Value) -> &'static str {
        match JwksVerifier::new(document, AccessSettings::default()) {
            Err(Error::Jwks(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    fn with(change: impl FnOnce(&mut Value)) -> Value {
        let mut document = document();
        change(&mut document["keys"][0]);
        document
    }

    #[test]
    fn keys_of_other_uses_are_skipped() {
        let verifier = |document: &Value| JwksVerifier::new(document, AccessSettings::default());
        for (name, value) in [("kty", "RSA"), ("crv", "X25519"), ("use", "enc"), ("alg", "ES256")] {
            let mut document = with(|key| key[name] = json!(value));
            verifier(&document).unwrap();
            document["keys"].as_array_mut().unwrap().truncate(1);
            assert!(refused(&document).contains("no key"), "{name}");
        }
    }

    #[test]
    fn damaged_or_private_document_is_rejected() {
        for (document, why) in [
            (json!([]), "no `keys` array"),
            (json!({ "keys": {} }), "no `keys` array"),
            (json!({ "keys": [] }), "no key"),
            (with(|key| key["d"] = json!("AAAA")), "private"),
            (with(|key| drop(key.as_object_mut().unwrap().remove("kid"))), "without kid"),
            (with(|key| key["kid"] = json!("mine")), "damaged"),
            (with(|key| key["x"] = json!("AAAA")), "damaged"),
            (with(|key| drop(key.as_object_mut().unwrap().remove("x"))), "damaged"),
            // The identity: a point of small order.
            (with(|key| key["x"] = json!(format!("AQ{}", "A".repeat(41)))), "damaged"),
        ] {
            assert!(refused(&document).contains(why), "{document}");
        }
        let mut twice = document();
        twice["keys"][1] = twice["keys"][0].clone();
        assert!(refused(&twice).contains("duplicate"));
    }
}
