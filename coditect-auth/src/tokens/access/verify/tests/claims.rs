//! Signed tokens with invalid claims.

use super::*;

#[test]
fn minted_token_verifies_to_the_same_claims() {
    let fixture = Fixture::new();
    let jti = TokenId::new();
    let minted =
        fixture.tokens.mint(&fixture.ring, &fixture.session, "Ä@example.com", jti, now()).unwrap();
    let claims = fixture.verify(minted.token.expose()).unwrap();
    assert_eq!(claims.sub, fixture.session.user_id);
    assert_eq!(claims.tenant_id, fixture.session.tenant_id);
    assert_eq!(claims.session_id, fixture.session.id);
    assert_eq!(claims.token_family, fixture.session.token_family);
    assert_eq!(claims.token_generation, fixture.session.generation);
    assert_eq!(claims.email, "Ä@example.com");
    assert_eq!(claims.jti, jti);
    assert_eq!(claims.iat, now().timestamp());
    assert_eq!(claims.exp, after(900).timestamp());
    assert_eq!(minted.expires_at, after(900));
}

#[test]
fn token_ends_with_its_session() {
    let mut fixture = Fixture::new();
    fixture.session.absolute_expires_at = after(60);
    assert_eq!(fixture.verify(&fixture.token()).unwrap().exp, after(60).timestamp());
}

#[test]
fn missing_claims_are_rejected() {
    let fixture = Fixture::new();
    for name in [
        "iss",
        "aud",
        "exp",
        "iat",
        "sub",
        "session_id",
        "tenant_id",
        "token_family",
        "token_generation",
        "email",
        "jti",
    ] {
        let absent = fixture.with_claims(|claims| {
            claims.as_object_mut().unwrap().remove(name);
        });
        let result = fixture.verify(&absent);
        assert!(
            matches!(result, Err(TokenError::Claim(claim)) if claim == name),
            "{name}: {result:?}"
        );
        for wrong in [json!(null), json!([]), json!({}), json!(true), json!(1.5)] {
            let mistyped = fixture.with_claims(|claims| claims[name] = wrong);
            let result = fixture.verify(&mistyped);
            assert!(
                matches!(result, Err(TokenError::Claim(claim)) if claim == name),
                "{name}: {result:?}"
            );
        }
    }
}

#[test]
fn issuer_and_audience_are_one_text_each_and_ours() {
    let fixture = Fixture::new();
    for value in [json!(7), json!(["coditect"]), json!(["coditect", "other"])] {
        let iss = fixture.with_claims(|claims| claims["iss"] = value.clone());
        assert_refused!(fixture.verify(&iss), TokenError::Claim("iss"));
        let aud = fixture.with_claims(|claims| claims["aud"] = value);
        assert_refused!(fixture.verify(&aud), TokenError::Claim("aud"));
    }
    let iss = fixture.with_claims(|claims| claims["iss"] = json!("coditect2"));
    assert_refused!(fixture.verify(&iss), TokenError::Issuer);
    let aud = fixture.with_claims(|claims| claims["aud"] = json!("Coditect"));
    assert_refused!(fixture.verify(&aud), TokenError::Audience);
}

#[test]
fn times_are_whole_numbers() {
    let fixture = Fixture::new();
    let later = after(60).timestamp();
    for value in [json!(later.to_string()), json!(1.9e9), json!(u64::MAX)] {
        for name in ["exp", "iat", "nbf"] {
            let token = fixture.with_claims(|claims| claims[name] = value.clone());
            assert_refused!(fixture.verify(&token), TokenError::Claim(_));
        }
    }
}

#[test]
fn token_ends_at_its_expiry_plus_leeway() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let verify_at =
        |seconds| fixture.tokens.verify(fixture.ring.verifying(), &token, after(seconds));
    assert!(verify_at(900 + LEEWAY - 1).is_ok());
    assert_refused!(verify_at(900 + LEEWAY), TokenError::Expired);
    assert_refused!(verify_at(1_000_000), TokenError::Expired);
}

#[test]
fn token_from_the_future_is_rejected_beyond_the_leeway() {
    let fixture = Fixture::new();
    let token = fixture.token();
    let verify_at =
        |seconds| fixture.tokens.verify(fixture.ring.verifying(), &token, after(seconds));
    assert!(verify_at(-LEEWAY).is_ok());
    assert_refused!(verify_at(-LEEWAY - 1), TokenError::IssuedAhead);
}

#[test]
fn not_before_is_honored() {
    let fixture = Fixture::new();
    let from =
        |seconds| fixture.with_claims(|claims| claims["nbf"] = json!(after(seconds).timestamp()));
    assert!(fixture.verify(&from(LEEWAY)).is_ok());
    assert_refused!(fixture.verify(&from(LEEWAY + 1)), TokenError::NotYet);
    let mistyped = fixture.with_claims(|claims| claims["nbf"] = json!(null));
    assert_refused!(fixture.verify(&mistyped), TokenError::Claim("nbf"));
}

#[test]
fn times_at_the_ends_of_their_range_do_not_overflow() {
    let fixture = Fixture::new();
    let endless = fixture.with_claims(|claims| claims["exp"] = json!(i64::MAX));
    assert!(fixture.verify(&endless).is_ok());
    let never = fixture.with_claims(|claims| claims["exp"] = json!(i64::MIN));
    assert_refused!(fixture.verify(&never), TokenError::Expired);
    let ahead = fixture.with_claims(|claims| claims["iat"] = json!(i64::MAX));
    assert_refused!(fixture.verify(&ahead), TokenError::IssuedAhead);
}

#[test]
fn generation_is_a_32_bit_number() {
    let fixture = Fixture::new();
    for value in [json!(-1), json!(u64::from(u32::MAX) + 1), json!("0")] {
        let token = fixture.with_claims(|claims| claims["token_generation"] = value);
        assert_refused!(fixture.verify(&token), TokenError::Claim("token_generation"));
    }
}

#[test]
fn ids_are_uuids() {
    let fixture = Fixture::new();
    for name in ["sub", "session_id", "tenant_id", "token_family", "jti"] {
        for value in ["", "1", "admin", "0198c0de"] {
            let token = fixture.with_claims(|claims| claims[name] = json!(value));
            assert_refused!(fixture.verify(&token), TokenError::Claim(_));
        }
    }
}

#[test]
fn claims_we_do_not_know_are_passed_over() {
    let fixture = Fixture::new();
    let token = fixture.with_claims(|claims| claims["added_later"] = json!({ "any": ["thing"] }));
    assert!(fixture.verify(&token).is_ok());
}
