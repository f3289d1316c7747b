//! The signature cache, and the checks that it does not skip.

use super::*;

fn remembering(entries: usize) -> Fixture {
    let settings = AccessSettings { signature_cache_size: entries, ..AccessSettings::default() };
    Fixture { tokens: AccessTokens::new(settings).unwrap(), ..Fixture::new() }
}

#[test]
fn cached_token_has_the_same_claims() {
    let fixture = remembering(10);
    let token = fixture.token();
    let first = fixture.verify(&token).unwrap();
    assert_eq!(fixture.tokens.verified.len(), 1);
    assert_eq!(fixture.verify(&token).unwrap(), first);
    assert_eq!(fixture.tokens.verified.len(), 1);
}

#[test]
fn its_times_are_looked_at_each_time() {
    let fixture = remembering(10);
    let token = fixture.token();
    let verify_at =
        |seconds| fixture.tokens.verify(fixture.ring.verifying(), &token, after(seconds));
    verify_at(0).unwrap();
    let life = 15 * 60;
    verify_at(life + 4).unwrap();
    assert!(matches!(verify_at(life + 5), Err(TokenError::Expired)));
    assert!(matches!(verify_at(-6), Err(TokenError::IssuedAhead)));
    assert_eq!(fixture.tokens.verified.len(), 1, "they were looked at of one that is known");
}

#[test]
fn removed_key_invalidates_its_cached_tokens() {
    let fixture = remembering(10);
    let token = fixture.token();
    fixture.verify(&token).unwrap();
    let another = Fixture::new();
    let refused = fixture.tokens.verify(another.ring.verifying(), &token, now());
    assert!(matches!(refused, Err(TokenError::UnknownKey)));
    assert_eq!(fixture.tokens.verified.len(), 0);
}

#[test]
fn rejected_tokens_are_not_cached() {
    let fixture = remembering(10);
    let token = fixture.token();
    for at in [0, 30, token.len() - 1] {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(fixture.verify(&changed).is_err());
    }
    let later = fixture.tokens.verify(fixture.ring.verifying(), &token, after(1_000_000));
    assert!(later.is_err());
    assert_eq!(fixture.tokens.verified.len(), 0);
}

#[test]
fn token_with_nbf_is_not_cached() {
    let fixture = remembering(10);
    let token = fixture.with_claims(|claims| claims["nbf"] = now().timestamp().into());
    fixture.verify(&token).unwrap();
    assert_eq!(fixture.tokens.verified.len(), 0);
}

#[test]
fn cache_is_bounded_and_optional() {
    let bounded = remembering(20);
    for _ in 0..200 {
        bounded.verify(&bounded.token()).unwrap();
    }
    assert!((1..=20).contains(&bounded.tokens.verified.len()));
    let none = remembering(0);
    none.verify(&none.token()).unwrap();
    none.verify(&none.token()).unwrap();
    assert_eq!(none.tokens.verified.len(), 0);
}
