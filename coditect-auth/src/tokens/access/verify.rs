//! Verification of access tokens: each check in order, with its own error.
//!
//! Size, segments, header; the key, looked up by its id in the ring only; the key's own algorithm;
//! critical extensions; the signature. Only then are claims read: type, issuer, audience, times,
//! ids. URLs and keys in the header are ignored.
//!
//! Clients get one response for all failures except expiry.

use std::{fmt, str::FromStr};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::{Header, dangerous::insecure_decode_claims, decode_header};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{AccessTokens, MAX_TOKEN_BYTES, TYPE};
use crate::{Claims, TokenError, TokenId, VerifyingKey, keys::VerifyingKeys};

impl AccessTokens {
    /// Verifies a token and returns its claims. Costs the parsing of at most 8 KiB and one
    /// signature check; for a cached token, one hash.
    ///
    /// # Errors
    ///
    /// The first check that failed. A token of a key that another server has just activated gives
    /// [`TokenError::UnknownKey`]: reload the ring and retry once.
    pub fn verify(
        &self,
        keys: &VerifyingKeys,
        token: &str,
        now: DateTime<Utc>,
    ) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let hash = self.verified.hash_of(token);
        if let Some(claims) = self.verified.claims(hash.as_ref(), |key| keys.has(key)) {
            self.check_times(claims.exp, claims.iat, now)?;
            return Ok(claims);
        }
        let (message, signature) = split(token).ok_or(TokenError::Segments)?;
        let header = decode_header(token).map_err(TokenError::Header)?;
        let key = key_of(&header, keys)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        check_signature(key, message, signature)?;
        if header.typ.as_deref() != Some(TYPE) {
            return Err(TokenError::Type);
        }
        // Named insecure since it checks no signature; it is checked above.
        let object: Object = insecure_decode_claims(token).map_err(TokenError::Claims)?;
        let claims = self.check_claims(&object, now)?;
        // Tokens issued here have no `nbf`; one that does is not cached, as its `nbf` would not be
        // checked again.
        if !object.0.contains_key("nbf") {
            self.verified.keep(hash, key, &claims);
        }
        Ok(claims)
    }

    fn check_times(&self, exp: i64, iat: i64, now: DateTime<Utc>) -> Result<(), TokenError> {
        let (now, leeway) = (now.timestamp(), self.settings.leeway.num_seconds());
        if now >= exp.saturating_add(leeway) {
            return Err(TokenError::Expired);
        }
        if iat > now.saturating_add(leeway) {
            return Err(TokenError::IssuedAhead);
        }
        Ok(())
    }

    fn check_claims(&self, claims: &Object, now: DateTime<Utc>) -> Result<Claims, TokenError> {
        let iss = claims.text("iss")?;
        if iss != self.settings.issuer {
            return Err(TokenError::Issuer);
        }
        let aud = claims.text("aud")?;
        if aud != self.settings.audience {
            return Err(TokenError::Audience);
        }
        let (exp, iat) = (claims.seconds("exp")?, claims.seconds("iat")?);
        self.check_times(exp, iat, now)?;
        let latest_start = now.timestamp().saturating_add(self.settings.leeway.num_seconds());
        if claims.0.contains_key("nbf") && claims.seconds("nbf")? > latest_start {
            return Err(TokenError::NotYet);
        }
        Ok(Claims {
            sub: claims.id("sub")?,
            session_id: claims.id("session_id")?,
            tenant_id: claims.id("tenant_id")?,
            primary_tenant_id: claims.optional_id("primary_tenant_id")?,
            membership_id: claims.optional_id("membership_id")?,
            token_family: claims.id("token_family")?,
            token_generation: claims.number("token_generation")?,
            email: claims.text("email")?.to_owned(),
            jti: TokenId(claims.id::<Uuid>("jti")?),
            iss: iss.to_owned(),
            aud: aud.to_owned(),
            iat,
            exp,
        })
    }
}

/// Returns the signed message and the signature, or `None` unless there are three segments.
fn split(token: &str) -> Option<(&str, &str)> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let all_there = [header, claims, signature].iter().all(|part| !part.is_empty());
    (all_there && !claims.contains('.')).then_some((message, signature))
}

/// Returns the key named in the header. The algorithm is that of the key, and the header must
/// agree.
fn key_of<'a>(header: &Header, keys: &'a VerifyingKeys) -> Result<&'a VerifyingKey, TokenError> {
    let kid = header.kid.as_deref().ok_or(TokenError::UnknownKey)?;
    let key = keys.named(kid).ok_or(TokenError::UnknownKey)?;
    if header.alg != key.algorithm().in_header() {
        return Err(TokenError::Algorithm);
    }
    Ok(key)
}

fn check_signature(key: &VerifyingKey, message: &str, signature: &str) -> Result<(), TokenError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Signature)?;
    if key.verify(message.as_bytes(), &bytes) { Ok(()) } else { Err(TokenError::Signature) }
}

/// A JSON object with unique names. Parsers disagree on the value of a duplicate.
#[derive(Debug)]
struct Object(Map<String, Value>);

impl Object {
    fn text(&self, name: &'static str) -> Result<&str, TokenError> {
        let value = self.0.get(name).and_then(Value::as_str);
        value.ok_or(TokenError::Claim(name))
    }

    fn id<T: FromStr>(&self, name: &'static str) -> Result<T, TokenError> {
        let parsed = self.text(name)?.parse();
        parsed.map_err(|_| TokenError::Claim(name))
    }

    fn optional_id<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, TokenError> {
        if self.0.contains_key(name) { self.id(name).map(Some) } else { Ok(None) }
    }

    fn number(&self, name: &'static str) -> Result<u32, TokenError> {
        let value = self.0.get(name).and_then(Value::as_u64);
        value.and_then(|value| value.try_into().ok()).ok_or(TokenError::Claim(name))
    }

    /// Returns whole seconds; a fraction is rejected.
    fn seconds(&self, name: &'static str) -> Result<i64, TokenError> {
        let value = self.0.get(name).and_then(Value::as_i64);
        value.ok_or(TokenError::Claim(name))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object in which no name stands twice")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Object, A::Error> {
                let mut map = Map::new();
                while let Some((name, value)) = access.next_entry()? {
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands there twice"));
                    }
                }
                Ok(Object(map))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

#[cfg(test)]
mod tests;
