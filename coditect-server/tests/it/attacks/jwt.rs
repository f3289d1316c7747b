//! Attacks on access tokens.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    Row, row,
    test_server::{TestServer, claims, encoded, part, sign},
};
use crate::client::Call;

/// An attack that forges a token from a valid one, which stays valid.
fn forged(
    name: &'static str,
    source: &'static str,
    forge: impl Fn(&TestServer, &str) -> String + Send + Sync + Copy + 'static,
) -> Row {
    row(name, source, move |env| async move {
        let victim = env.register().await;
        let token = forge(&env, &victim.device.token);
        env.refuses(&token).await;
        env.spares(&victim).await;
    })
}

/// Returns a signed token with a modified header.
fn headed(
    name: &'static str,
    source: &'static str,
    change: impl Fn(&TestServer, &mut Value) + Send + Sync + Copy + 'static,
) -> Row {
    forged(name, source, move |env, token| {
        let mut header = env.header();
        change(env, &mut header);
        env.signed(&header, &claims(token))
    })
}

/// Returns a signed token with modified claims.
fn saying(
    name: &'static str,
    source: &'static str,
    change: impl Fn(&mut Value) + Send + Sync + Copy + 'static,
) -> Row {
    forged(name, source, move |env, token| {
        let mut said = claims(token);
        change(&mut said);
        env.signed(&env.header(), &said)
    })
}

/// Returns a token with the algorithm `none` in some spelling.
fn unsigned(token: &str, alg: &str) -> String {
    let header = json!({ "typ": "at+jwt", "alg": alg, "kid": part(token, 0)["kid"] });
    format!("{}.{}.", encoded(header.to_string()), token.split('.').nth(1).unwrap())
}

/// Returns a token signed by HMAC with `key`.
fn by_hmac(token: &str, key: &[u8]) -> String {
    let header = json!({ "typ": "at+jwt", "alg": "HS256", "kid": part(token, 0)["kid"] });
    let message = format!("{}.{}", encoded(header.to_string()), token.split('.').nth(1).unwrap());
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", encoded(mac.finalize().into_bytes()))
}

fn without(name: &'static str) -> impl Fn(&mut Value) + Send + Sync + Copy + 'static {
    move |value| drop(value.as_object_mut().unwrap().remove(name))
}

fn public_key(env: &TestServer) -> Vec<u8> {
    let ring = serde_json::to_value(env.active.verifying_key().to_jwk()).unwrap();
    BASE64_URL_SAFE_NO_PAD.decode(ring["x"].as_str().unwrap()).unwrap()
}

#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(super) fn rows() -> Vec<Row> {
    vec![
        forged("alg none", "RFC 8725, 2.1", |_, token| unsigned(token, "none")),
        forged("alg None", "RFC 8725, 3.2; Auth0's advisory of 2020 on nonE", |_, token| {
            unsigned(token, "None")
        }),
        forged("alg nOnE", "RFC 8725, 3.2; CVE-2018-1000531", |_, token| unsigned(token, "nOnE")),
        forged("alg none, with the good signature", "RFC 8725, 3.2", |_, token| {
            format!("{}{}", unsigned(token, "none"), token.split('.').nth(2).unwrap())
        }),
        forged(
            "HS256 with the public key's bytes",
            "CVE-2015-9235; RFC 8725, 2.1",
            |env, token| by_hmac(token, &public_key(env)),
        ),
        forged("HS256 with the public key's text", "CVE-2016-10555", |env, token| {
            by_hmac(token, env.active.verifying_key().to_jwk().to_string().as_bytes())
        }),
        forged("HS256 with an empty key", "CVE-2019-20933", |_, token| by_hmac(token, b"")),
        headed("another family of algorithm, rightly signed", "RFC 8725, 3.1", |_, header| {
            header["alg"] = json!("ES256");
        }),
        headed("an algorithm that there is not", "RFC 7515, 4.1.1", |_, header| {
            header["alg"] = json!("Ed25519ph");
        }),
        headed("no algorithm", "RFC 7515, 4.1.1", |_, header| without("alg")(header)),
        headed("a kid that nobody has", "RFC 8725, 3.10", |_, header| {
            header["kid"] = json!("01900000-0000-7000-8000-000000000000");
        }),
        headed("a kid that is a path", "RFC 8725, 3.10; CWE-22", |_, header| {
            header["kid"] = json!("../../../../dev/null");
        }),
        headed("a kid that is SQL", "RFC 8725, 3.10; CWE-89", |_, header| {
            header["kid"] = json!("' UNION SELECT 'key' --");
        }),
        headed("a kid of ten kilobytes", "CWE-770", |_, header| {
            header["kid"] = json!("x".repeat(10_000));
        }),
        headed("a kid that is a number", "RFC 7515, 4.1.4", |_, header| header["kid"] = json!(7)),
        headed("no kid", "RFC 8725, 3.8", |_, header| without("kid")(header)),
        headed("a kid in another spelling", "RFC 7515, 4.1.4", |env, header| {
            header["kid"] = json!(env.active.kid().to_string().to_uppercase());
        }),
        forged("a key of one's own in the head", "CVE-2018-0114", |env, token| {
            let mut header = env.header();
            header["jwk"] = env.foreign.verifying_key().to_jwk();
            sign(&env.foreign, &header.to_string(), &claims(token).to_string())
        }),
        forged("a key of one's own at a URL", "RFC 8725, 3.10", |env, token| {
            let mut header = env.header();
            header["jku"] = json!("http://127.0.0.1:1/jwks.json");
            sign(&env.foreign, &header.to_string(), &claims(token).to_string())
        }),
        forged("a certificate of one's own at a URL", "RFC 8725, 3.10", |env, token| {
            let mut header = env.header();
            header["x5u"] = json!("http://127.0.0.1:1/cert.pem");
            sign(&env.foreign, &header.to_string(), &claims(token).to_string())
        }),
        headed("an extension that must be understood", "RFC 7515, 4.1.11", |_, header| {
            header["crit"] = json!(["exp"]);
        }),
        headed("a JWT of another kind", "RFC 9068, 4; RFC 8725, 3.11", |_, header| {
            header["typ"] = json!("JWT");
        }),
        headed("a JWT of no kind", "RFC 9068, 4", |_, header| without("typ")(header)),
        forged("a key of another installation", "RFC 8725, 3.8", |env, token| {
            let mut header = env.header();
            header["kid"] = json!(env.foreign.kid().to_string());
            sign(&env.foreign, &header.to_string(), &claims(token).to_string())
        }),
        forged("another key under the kid of ours", "RFC 8725, 3.8", |env, token| {
            sign(&env.foreign, &env.header().to_string(), &claims(token).to_string())
        }),
        forged("a key that is gone", "OWASP ASVS 5, 11.1", |env, token| {
            let mut header = env.header();
            header["kid"] = json!(env.gone.kid().to_string());
            sign(&env.gone, &header.to_string(), &claims(token).to_string())
        }),
        saying("expired beyond the leeway", "RFC 7519, 4.1.4", |said| {
            said["exp"] = json!(said["iat"].as_i64().unwrap() - 31);
        }),
        saying("no expiry", "RFC 9068, 2.2", without("exp")),
        saying("an expiry that is text", "RFC 7519, 2", |said| said["exp"] = json!("99999999999")),
        saying("an expiry that is null", "RFC 7519, 2", |said| said["exp"] = Value::Null),
        saying("an expiry beyond all numbers", "RFC 7519, 2", |said| said["exp"] = json!(1e300)),
        saying("not before tomorrow", "RFC 7519, 4.1.5", |said| {
            said["nbf"] = json!(said["iat"].as_i64().unwrap() + 86_400);
        }),
        saying("issued tomorrow", "RFC 7519, 4.1.6", |said| {
            said["iat"] = json!(said["iat"].as_i64().unwrap() + 86_400);
            said["exp"] = json!(said["iat"].as_i64().unwrap() + 900);
        }),
        saying("no issuer", "RFC 8725, 3.8", without("iss")),
        saying("another issuer", "RFC 8725, 3.8", |said| {
            said["iss"] = json!("https://evil.example");
        }),
        saying("a list of issuers", "CVE-2024-53861; RFC 7519, 4.1.1", |said| {
            said["iss"] = json!([said["iss"]]);
        }),
        saying("an issuer that is a number", "RFC 7519, 4.1.1", |said| said["iss"] = json!(0)),
        saying("no audience", "RFC 8725, 3.9", without("aud")),
        saying("another audience", "RFC 8725, 3.9", |said| said["aud"] = json!("billing")),
        saying("a list of audiences", "RFC 7519, 4.1.3", |said| {
            said["aud"] = json!(["evil", said["aud"]]);
        }),
        saying("no session", "OWASP ASVS 5, 7.2", without("session_id")),
        saying("a session that is a number", "RFC 8725, 2.6", |said| said["session_id"] = json!(1)),
        saying("a user that is a list", "RFC 8725, 2.6", |said| said["sub"] = json!([said["sub"]])),
        saying("a user that there is not", "OWASP ASVS 5, 7.4", |said| {
            said["sub"] = json!("01900000-0000-7000-8000-000000000000");
        }),
        saying("another family", "RFC 9700, 4.14", |said| {
            said["token_family"] = json!("01900000-0000-7000-8000-000000000000");
        }),
        forged("a claim that stands there twice", "RFC 7519, 4", |env, token| {
            let said = claims(token).to_string();
            let twice = format!("{{\"sub\":{},{}", claims(token)["sub"], &said[1..]);
            sign(&env.active, &env.header().to_string(), &twice)
        }),
        forged("claims that are a list", "RFC 7519, 2", |env, token| {
            sign(&env.active, &env.header().to_string(), &json!([claims(token)]).to_string())
        }),
        forged("an edited user, not signed anew", "RFC 7519, 7.2", |_, token| {
            let mut said = claims(token);
            said["sub"] = json!("01900000-0000-7000-8000-000000000000");
            let parts: Vec<&str> = token.split('.').collect();
            format!("{}.{}.{}", parts[0], encoded(said.to_string()), parts[2])
        }),
        forged("an edited tenant, not signed anew", "RFC 7519, 7.2", |_, token| {
            let mut said = claims(token);
            said["tenant_id"] = json!("01900000-0000-7000-8000-000000000000");
            let parts: Vec<&str> = token.split('.').collect();
            format!("{}.{}.{}", parts[0], encoded(said.to_string()), parts[2])
        }),
        forged("a signature with a bit flipped", "RFC 8032, 5.1.7", |_, token| {
            let (message, signature) = token.rsplit_once('.').unwrap();
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            bytes[20] ^= 1;
            format!("{message}.{}", encoded(bytes))
        }),
        forged("a signature whose second half is not reduced", "RFC 8032, 8.4", |_, token| {
            // S + L is an equivalent signature under a lax check.
            const L: [u8; 32] = [
                0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
                0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
            ];
            let (message, signature) = token.rsplit_once('.').unwrap();
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
            let mut carry = 0_u16;
            for (at, of_l) in L.iter().enumerate() {
                let sum = u16::from(bytes[32 + at]) + u16::from(*of_l) + carry;
                bytes[32 + at] = sum.to_le_bytes()[0];
                carry = sum >> 8;
            }
            format!("{message}.{}", encoded(bytes))
        }),
        forged("no signature", "RFC 7515, 5.2", |_, token| {
            format!("{}.", token.rsplit_once('.').unwrap().0)
        }),
        forged("two segments", "RFC 7519, 7.2", |_, token| {
            token.rsplit_once('.').unwrap().0.to_owned()
        }),
        forged("four segments", "RFC 7519, 7.2", |_, token| format!("{token}.{token}")),
        forged("padding", "RFC 7515, 2", |_, token| format!("{token}==")),
        forged("the other alphabet of Base64", "RFC 7515, 2", |env, token| {
            // Signed over text that a lax parser considers equal.
            let header = encoded(env.header().to_string());
            let said = base64::prelude::BASE64_STANDARD_NO_PAD
                .encode(format!("{}{}", claims(token), " ".repeat(3)) + "\u{fbf}\u{3bf}");
            let message = format!("{header}.{said}");
            format!("{message}.{}", encoded(env.active.sign(message.as_bytes())))
        }),
        row("a token of a megabyte", "CWE-770", |env| async move {
            let huge = format!("e30.{}.x", "A".repeat(1 << 20));
            let answer = env.call(Call::get(crate::account::ME).bearer(&huge)).await;
            assert!(matches!(answer.status, 401 | 431), "{}", answer.status);
        }),
        row("a token of a user who was disabled", "OWASP ASVS 5, 7.4", |env| async move {
            let victim = env.register().await;
            env.operator(&["user", "disable", &victim.email]).await;
            env.refuses(&victim.device.token).await;
        }),
        row("claims put together of two sessions", "RFC 9700, 4.14", |env| async move {
            let (one, other) = (env.register().await, env.register().await);
            for claim in ["sub", "session_id", "tenant_id", "token_family"] {
                let mut said = claims(&one.device.token);
                said[claim] = claims(&other.device.token)[claim].clone();
                env.refuses(&env.signed(&env.header(), &said)).await;
            }
            let mut said = claims(&one.device.token);
            said["primary_tenant_id"] = said["tenant_id"].clone();
            said["tenant_id"] = claims(&other.device.token)["tenant_id"].clone();
            let answer = env.me(&env.signed(&env.header(), &said)).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "NOT_A_MEMBER"));
        }),
    ]
}
