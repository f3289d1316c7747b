//! Tokens with a wrong signature or a wrong form.

use proptest::prelude::*;

use super::*;

#[test]
fn token_signed_by_the_test_verifies() {
    // Control: the unmodified token verifies.
    let fixture = Fixture::new();
    assert!(fixture.verify(&fixture.with_header(|_| {})).is_ok());
    assert!(fixture.verify(&fixture.with_claims(|_| {})).is_ok());
}

#[test]
fn signed_token_over_8_kib_is_rejected() {
    let fixture = Fixture::new();
    let long = fixture.with_claims(|claims| claims["padding"] = json!("x".repeat(7_000)));
    assert!(long.len() > MAX_TOKEN_BYTES);
    assert_refused!(fixture.verify(&long), TokenError::TooLong);
    assert_refused!(fixture.verify(&"a".repeat(1 << 20)), TokenError::TooLong);
}

#[test]
fn token_has_three_segments() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let (message, signature) = token.rsplit_once('.').unwrap();
    for text in [
        String::new(),
        "..".to_owned(),
        message.to_owned(),
        format!("{message}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{message}..{signature}"),
    ] {
        assert_refused!(fixture.verify(&text), TokenError::Segments);
    }
}

#[test]
fn padding_and_white_space_are_refused() {
    let fixture = Fixture::new();
    let token = fixture.token();
    for text in [
        format!("{token}="),
        format!("{token}=="),
        format!("{token}\n"),
        format!(" {token}"),
        token.replacen('.', "=.", 1),
    ] {
        assert!(fixture.verify(&text).is_err(), "{text}");
    }
}

#[test]
fn unknown_algorithm_and_none_are_rejected() {
    let fixture = Fixture::new();
    for alg in [json!("none"), json!("None"), json!("nOnE"), json!("eddsa"), json!(7), json!(null)]
    {
        let token = fixture.with_header(|header| header["alg"] = alg);
        assert_refused!(fixture.verify(&token), TokenError::Header(_));
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        assert_refused!(fixture.verify(&unsigned), TokenError::Segments);
    }
}

#[test]
fn algorithm_is_that_of_the_key() {
    let fixture = Fixture::new();
    for alg in ["HS256", "RS256", "ES256", "PS512"] {
        // Signed by the right key: the name alone suffices for the rejection.
        let token = fixture.with_header(|header| header["alg"] = json!(alg));
        assert_refused!(fixture.verify(&token), TokenError::Algorithm);
    }
}

#[test]
fn hmac_with_the_public_key_is_rejected() {
    let fixture = Fixture::new();
    let jwks = fixture.ring.jwks();
    let x = jwks["keys"][0]["x"].as_str().unwrap();
    let public: [u8; 32] = BASE64_URL_SAFE_NO_PAD.decode(x).unwrap().try_into().unwrap();
    for alg in ["HS256", "EdDSA"] {
        let token = fixture.with_header(|header| header["alg"] = json!(alg));
        let message = token.rsplit_once('.').unwrap().0;
        let tag = crate::subkey::mac(&public, &[message.as_bytes()]);
        let forged = format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag.as_slice()));
        assert!(fixture.verify(&forged).is_err());
    }
}

#[test]
fn unknown_kid_is_rejected() {
    let fixture = Fixture::new();
    for kid in [
        "../../../etc/passwd".to_owned(),
        "' OR 1=1 --".to_owned(),
        "https://example.com/keys.json".to_owned(),
        "k".repeat(4_000),
        String::new(),
        crate::KeyId::new().to_string(),
        fixture.ring.signing().kid().to_string().to_uppercase(),
        format!(" {}", fixture.ring.signing().kid()),
    ] {
        let token = fixture.with_header(|header| header["kid"] = json!(kid));
        assert_refused!(fixture.verify(&token), TokenError::UnknownKey);
    }
    let absent = fixture.with_header(|header| {
        header.as_object_mut().unwrap().remove("kid");
    });
    assert_refused!(fixture.verify(&absent), TokenError::UnknownKey);
    let number = fixture.with_header(|header| header["kid"] = json!(7));
    assert_refused!(fixture.verify(&number), TokenError::Header(_));
}

#[test]
fn key_or_url_in_the_header_is_ignored() {
    let (fixture, attacker) = (Fixture::new(), Fixture::new());
    let own_key = attacker.ring.jwks()["keys"][0].clone();
    for (name, value) in [
        ("jwk", own_key),
        ("jku", json!("https://example.com/jwks.json")),
        ("x5u", json!("https://example.com/cert.pem")),
    ] {
        let mut header = fixture.header();
        header[name] = value;
        let token = attacker.signed(&header.to_string(), &fixture.claims().to_string());
        assert_refused!(fixture.verify(&token), TokenError::Signature);
    }
}

#[test]
fn any_critical_extension_is_refused() {
    let fixture = Fixture::new();
    for crit in [json!(["exp"]), json!(["b64"]), json!([])] {
        let token = fixture.with_header(|header| header["crit"] = crit);
        assert_refused!(fixture.verify(&token), TokenError::Critical);
    }
}

#[test]
fn token_of_another_ring_is_rejected_under_a_known_kid() {
    let (fixture, attacker) = (Fixture::new(), Fixture::new());
    let token = attacker.signed(&fixture.header().to_string(), &fixture.claims().to_string());
    assert_refused!(fixture.verify(&token), TokenError::Signature);
}

#[test]
fn edited_claims_are_refused() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let segments: Vec<&str> = token.split('.').collect();
    for name in ["sub", "tenant_id", "session_id"] {
        let mut claims = fixture.claims();
        claims[name] = json!(Uuid::now_v7());
        let edited = format!("{}.{}.{}", segments[0], encoded(&claims.to_string()), segments[2]);
        assert_refused!(fixture.verify(&edited), TokenError::Signature);
    }
}

#[test]
fn signed_token_of_another_type_is_rejected() {
    let fixture = Fixture::new();
    for typ in [json!("JWT"), json!("at+JWT"), json!("application/at+jwt"), json!("")] {
        let token = fixture.with_header(|header| header["typ"] = typ);
        assert_refused!(fixture.verify(&token), TokenError::Type);
    }
    let absent = fixture.with_header(|header| {
        header.as_object_mut().unwrap().remove("typ");
    });
    assert_refused!(fixture.verify(&absent), TokenError::Type);
}

#[test]
fn duplicate_claim_is_rejected() {
    let fixture = Fixture::new();
    let header = fixture.header().to_string();
    let claims = fixture.claims().to_string();
    for doubled in [
        claims.replacen('{', "{\"sub\":\"0198c0de-0000-7000-8000-000000000000\",", 1),
        claims.replacen('{', "{\"x\":1,\"x\":2,", 1),
        "[]".to_owned(),
        "\"text\"".to_owned(),
        String::from("{"),
    ] {
        assert_refused!(fixture.verify(&fixture.signed(&header, &doubled)), TokenError::Claims(_));
    }
    let doubled = header.replacen('{', "{\"alg\":\"EdDSA\",", 1);
    assert_refused!(fixture.verify(&fixture.signed(&doubled, &claims)), TokenError::Header(_));
}

#[test]
fn retired_key_verifies_and_destroyed_one_does_not() {
    let root = RootKey::new(Zeroizing::new([1; 32]));
    let tokens = AccessTokens::new(AccessSettings::default()).unwrap();
    let old = SealedKey::generate(&root, now()).unwrap().activate(now()).unwrap();
    let new = SealedKey::generate(&root, now()).unwrap().activate(now()).unwrap();
    let ring = KeyRing::open(std::slice::from_ref(&old), &root).unwrap();
    let minted = tokens.mint(&ring, &session(), "a@b.example", TokenId::new(), now()).unwrap();

    let retired = old.retire(now()).unwrap();
    let ring = KeyRing::open(&[retired.clone(), new.clone()], &root).unwrap();
    assert!(tokens.verify(ring.verifying(), minted.token.expose(), now()).is_ok());

    let life = tokens.max_lifetime();
    let gone = retired.destroy(now() + life, life).unwrap();
    let ring = KeyRing::open(&[gone, new], &root).unwrap();
    assert_refused!(
        tokens.verify(ring.verifying(), minted.token.expose(), now()),
        TokenError::UnknownKey
    );
}

#[test]
fn refresh_token_is_not_an_access_token() {
    let text = format!("crt_{}", "A".repeat(92));
    assert_refused!(Fixture::new().verify(&text), TokenError::Segments);
}

proptest! {
    #[test]
    fn garbage_is_refused(
        text in any::<String>(),
        a in "[A-Za-z0-9_-]{0,40}",
        b in "[A-Za-z0-9_-]{0,40}",
    ) {
        let fixture = Fixture::new();
        prop_assert!(fixture.verify(&text).is_err());
        let dotted = format!("{a}.{b}.{a}");
        prop_assert!(fixture.verify(&dotted).is_err());
    }

    /// Includes the spare bits of the last character: a token has one encoding.
    #[test]
    fn token_with_any_changed_character_is_rejected(
        at in any::<prop::sample::Index>(),
        to in "[A-Za-z0-9_-]",
    ) {
        let fixture = Fixture::new();
        let token = fixture.token();
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != token);
        prop_assert!(fixture.verify(&changed).is_err());
    }
}
