//! Fuzz targets for arbitrary bytes: forged tokens and genuine ones. The module of the same name in
//! the store describes the harness.

#![expect(clippy::unwrap_used, reason = "a fuzz target reports by panicking")]

#[cfg(test)]
#[path = "../../.ci/fuzz/stable.rs"]
mod stable;

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    AccessSettings, AccessTokens, Claims, Error, JwksVerifier, KeyId, RefreshKeys, RootKey,
    SigningKey, TokenError,
    keys::VerifyingKeys,
    subkey::{Purpose, mac},
    tokens::opaque::Kind,
};

/// Length of a refresh token without its tag, in bytes.
const UNTAGGED: usize = 53;

/// Checks that a text is either rejected, or the only encoding of a refresh token of this
/// installation.
///
/// The first byte selects the meaning of the rest: a text; a token's bytes, to be tagged; or the
/// same, with characters of the text to change.
pub fn refresh_token(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let (ours, others) = (root(1), root(2));
    let (keys, other_keys) = (RefreshKeys::derive(&ours), RefreshKeys::derive(&others));
    if mode % 3 == 0 {
        let text = String::from_utf8_lossy(rest);
        is_the_only_text(&keys, &text);
        is_opaque_or_refused(&text);
        return;
    }
    let mut token = [1; UNTAGGED];
    let given = rest.len().min(UNTAGGED);
    token[..given].copy_from_slice(&rest[..given]);
    let tag = mac(ours.subkey(Purpose::RefreshTag).expose(), &[&token]);
    let encoded = BASE64_URL_SAFE_NO_PAD.encode([token.as_slice(), &tag[..16]].concat());
    let text = format!("crt_{encoded}");
    if mode % 3 == 1 {
        assert_eq!(is_the_only_text(&keys, &text), token[0] == 1);
        assert!(other_keys.parse(&text).is_err());
        return;
    }
    let mut changed = text.clone().into_bytes();
    for pair in rest[given..].chunks_exact(2) {
        let at = usize::from(pair[0]) % changed.len();
        changed[at] = pair[1];
    }
    let changed = String::from_utf8_lossy(&changed);
    if changed != text {
        assert!(!is_the_only_text(&keys, &changed), "{changed}");
    }
}

/// Returns whether the text is a refresh token, and checks that it is the only encoding.
fn is_the_only_text(keys: &RefreshKeys, text: &str) -> bool {
    let token = match keys.parse(text) {
        Ok(token) => token,
        Err(error) => {
            assert!(matches!(error, Error::RefreshInvalid), "{error:?}");
            return false;
        }
    };
    assert_eq!(keys.encode(&token).expose(), text);
    match keys.successor(&token, &[7; 32]) {
        Some(next) => {
            assert_eq!((next.family, next.generation), (token.family, token.generation + 1));
            assert!(next.secret != token.secret);
            assert!(keys.parse(keys.encode(&next).expose()).unwrap() == next);
        }
        None => assert_eq!(token.generation, u32::MAX),
    }
    true
}

/// Checks that an opaque token has one encoding and one kind.
fn is_opaque_or_refused(text: &str) {
    let kinds = [
        (Kind::Personal, "cpt_"),
        (Kind::Reset, "cpr_"),
        (Kind::Invitation, "cin_"),
        (Kind::Ticket, "ctk_"),
    ];
    for (kind, prefix) in kinds {
        if kind.hash_of(text).is_some() {
            let secret = BASE64_URL_SAFE_NO_PAD.decode(&text[4..]).unwrap();
            assert_eq!(format!("{prefix}{}", BASE64_URL_SAFE_NO_PAD.encode(&secret)), text);
            assert_eq!(secret.len(), 32);
        }
    }
}

const NOW: i64 = 1_800_000_000;
const LEEWAY: i64 = 5;

/// The active key, and all verifying keys.
static KEYS: LazyLock<(SigningKey, VerifyingKeys)> = LazyLock::new(|| {
    let key =
        |id, seed| SigningKey::from_seed(KeyId(Uuid::from_u128(id)), &Zeroizing::new([seed; 32]));
    let all = vec![key(7, 9).verifying_key(), key(8, 10).verifying_key()];
    (key(7, 9), VerifyingKeys::new(all))
});

static TOKENS: LazyLock<AccessTokens> = LazyLock::new(|| AccessTokens::new(settings(16)).unwrap());

/// Checks that an accepted access token is exactly a text that the key signed, with valid claims.
///
/// The first byte selects the meaning of the rest: a token; a header and claims, separated by a
/// line feed, to be signed; or a JWKS document.
pub fn access_token(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    match mode % 3 {
        0 => {
            let text = String::from_utf8_lossy(rest);
            if verified(&text).is_ok() {
                let (message, _) = text.rsplit_once('.').unwrap();
                assert_eq!(signed(message), text);
            }
        }
        1 => {
            let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            says_what_is_right(&rest[..at], rest.get(at + 1..).unwrap_or_default());
        }
        _ => is_of_the_keys(rest),
    }
}

fn signed(message: &str) -> String {
    let signature = KEYS.0.sign(message.as_bytes());
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn of_parts(header: &[u8], claims: &[u8]) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    signed(&format!("{header}.{claims}"))
}

/// Verifies with and without the signature cache, which must agree.
fn verified(token: &str) -> Result<Claims, TokenError> {
    let forgetful = AccessTokens::new(settings(0)).unwrap();
    let first = TOKENS.verify(&KEYS.1, token, at(NOW));
    let others =
        [forgetful.verify(&KEYS.1, token, at(NOW)), TOKENS.verify(&KEYS.1, token, at(NOW))];
    for other in others {
        match (&first, other) {
            (Ok(first), Ok(other)) => assert!(*first == other),
            (Err(first), Err(other)) => assert_eq!(first.to_string(), other.to_string()),
            (first, other) => panic!("{first:?} and {other:?}"),
        }
    }
    first
}

fn says_what_is_right(header: &[u8], claims: &[u8]) {
    let token = of_parts(header, claims);
    let Ok(accepted) = verified(&token) else { return };
    let header: Value = serde_json::from_slice(header).unwrap();
    let said: Value = serde_json::from_slice(claims).unwrap();
    assert_eq!((&header["typ"], &header["alg"]), (&"at+jwt".into(), &"EdDSA".into()));
    assert_eq!(header["kid"], KEYS.0.kid().to_string());
    assert!(header.get("crit").is_none_or(Value::is_null));
    let number = |name: &str| said[name].as_i64().unwrap();
    assert!(number("exp").saturating_add(LEEWAY) > NOW && number("iat") <= NOW + LEEWAY);
    assert!(said.get("nbf").is_none_or(|nbf| nbf.as_i64().unwrap() <= NOW + LEEWAY));
    assert_eq!((accepted.exp, accepted.iat), (number("exp"), number("iat")));
    let texts = [("iss", "coditect"), ("aud", "coditect"), ("email", &*accepted.email)];
    assert!(texts.iter().all(|(name, text)| said[name] == *text));
    assert_eq!(said["token_generation"].as_u64(), Some(accepted.token_generation.into()));
    let ids = [
        ("sub", accepted.sub.0),
        ("tenant_id", accepted.tenant_id.0),
        ("session_id", accepted.session_id.0),
        ("token_family", accepted.token_family.0),
        ("jti", accepted.jti.0),
    ];
    for (name, id) in ids {
        assert_eq!(said[name].as_str().unwrap().parse(), Ok(id));
    }
    assert_eq!(said.get("primary_tenant_id").is_some(), accepted.primary_tenant_id.is_some());
    // It expires in the cache too, and no other key verifies it.
    if let Some(end) =
        accepted.exp.checked_add(LEEWAY).and_then(|end| DateTime::from_timestamp(end, 0))
    {
        let late = TOKENS.verify(&KEYS.1, &token, end);
        assert!(matches!(late, Err(TokenError::Expired)), "{late:?}");
    }
    let others = VerifyingKeys::new(Vec::new());
    assert!(matches!(TOKENS.verify(&others, &token, at(NOW)), Err(TokenError::UnknownKey)));
}

/// Checks that a JWKS document verifies a token only if it has the signing key.
fn is_of_the_keys(document: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    let verifier = match JwksVerifier::new(&document, settings(0)) {
        Ok(verifier) => verifier,
        Err(error) => return assert!(matches!(error, Error::Jwks(_)), "{error:?}"),
    };
    let kid = KEYS.0.kid().to_string();
    let header = format!(r#"{{"typ":"at+jwt","alg":"EdDSA","kid":"{kid}"}}"#);
    let id = Uuid::nil();
    let claims = format!(
        r#"{{"sub":"{id}","tenant_id":"{id}","email":"a@b","session_id":"{id}","token_family":"{id}",
        "token_generation":0,"iat":{NOW},"exp":{},"iss":"coditect","aud":"coditect","jti":"{id}"}}"#,
        NOW + 60
    );
    let token = of_parts(header.as_bytes(), claims.as_bytes());
    let ours = KEYS.0.verifying_key().to_jwk();
    let has_ours = document["keys"]
        .as_array()
        .unwrap()
        .iter()
        .any(|key| key.get("kid") == ours.get("kid") && key.get("x") == ours.get("x"));
    let accepted = verifier.verify(&token, at(NOW));
    assert!(accepted.is_err() || has_ours, "{document}");
}

fn settings(signature_cache_size: usize) -> AccessSettings {
    AccessSettings {
        leeway: TimeDelta::seconds(LEEWAY),
        signature_cache_size,
        ..AccessSettings::default()
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn root(seed: u8) -> RootKey {
    RootKey::new(Zeroizing::new([seed; 32]))
}

#[cfg(test)]
mod tests {
    use super::stable::run;

    #[test]
    fn foreign_refresh_tokens_are_rejected() {
        run("refresh_token", 3_000, super::refresh_token);
    }

    #[test]
    fn foreign_access_tokens_are_rejected() {
        run("access_token", 1_500, super::access_token);
    }
}
