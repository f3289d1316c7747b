//! Logout takes effect at once, with either token, and is idempotent.

use chrono::TimeDelta;
use coditect_auth::{Credential, Error};
use futures_util::future::join;

use crate::env::{PASSWORD, TestEnv};

#[tokio::test]
async fn after_signing_out_neither_token_works() {
    let env = TestEnv::new().await;
    for by_refresh in [false, true] {
        let email = format!("ada-{by_refresh}@example.org");
        let tokens = env.register(&email).await.unwrap().tokens;
        let credential = if by_refresh {
            Credential::Refresh(tokens.refresh.expose())
        } else {
            Credential::Access(tokens.access.expose())
        };
        for _again in 0..2 {
            env.logout(credential).await.unwrap();
            let outcome = env.caller(tokens.access.expose()).await;
            assert!(matches!(outcome, Err(Error::SessionRevoked)));
            assert!(matches!(env.refresh(&tokens).await, Err(Error::SessionRevoked)));
        }
    }
}

#[tokio::test]
async fn signing_out_ends_this_session_and_everywhere_ends_all_of_the_users() {
    let env = TestEnv::new().await;
    let phone = env.register("ada@example.org").await.unwrap().tokens;
    let laptop = env.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let desk = env.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let bobs = env.register("bob@example.org").await.unwrap().tokens;

    let of_phone = Credential::Access(phone.access.expose());
    env.logout(of_phone).await.unwrap();
    assert!(!env.holds(&phone).await);
    assert!(env.holds(&laptop).await && env.holds(&desk).await);

    let of_laptop = Credential::Refresh(laptop.refresh.expose());
    env.logout_everywhere(of_laptop).await.unwrap();
    assert!(!env.holds(&laptop).await && !env.holds(&desk).await);
    assert!(env.holds(&bobs).await);

    // A repeat with either token changes nothing, for a later session either.
    let later = env.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    env.logout_everywhere(of_laptop).await.unwrap();
    env.logout_everywhere(Credential::Access(laptop.access.expose())).await.unwrap();
    assert!(env.holds(&later).await);
}

#[tokio::test]
async fn invalid_token_revokes_no_other_session() {
    let env = TestEnv::new().await;
    let signed_out = env.register("ada@example.org").await.unwrap().tokens;
    env.logout(Credential::Access(signed_out.access.expose())).await.unwrap();
    let replaced = env.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let newest = env.refresh(&replaced).await.unwrap();
    assert!(env.holds(&newest).await);
    env.clock.advance(TimeDelta::minutes(1));
    let live = env.login("ada@example.org", PASSWORD).await.unwrap().tokens;

    for (lost, refusal) in [(&signed_out, "SessionRevoked"), (&replaced, "RefreshReused")] {
        let credential = Credential::Refresh(lost.refresh.expose());
        let outcome = env.logout_everywhere(credential).await;
        assert_eq!(format!("{:?}", outcome.unwrap_err()), refusal);
    }
    let credential = Credential::Access(signed_out.access.expose());
    let outcome = env.logout_everywhere(credential).await;
    assert!(matches!(outcome, Err(Error::SessionRevoked)));
    assert!(env.holds(&live).await);
    assert!(!env.holds(&replaced).await, "the replay ended its own family");
}

#[tokio::test]
async fn forged_token_revokes_nothing() {
    let env = TestEnv::new().await;
    let tokens = env.register("ada@example.org").await.unwrap().tokens;
    let access = format!("{}x", tokens.access.expose());
    for credential in [Credential::Access(&access), Credential::Refresh("crt_nothing")] {
        for outcome in [env.logout(credential).await, env.logout_everywhere(credential).await] {
            assert!(matches!(outcome, Err(Error::TokenInvalid(_) | Error::RefreshInvalid)));
        }
    }
    assert!(env.holds(&tokens).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_racing_a_logout_leaves_no_valid_token() {
    let env = TestEnv::new().await;
    for round in 0..30 {
        let tokens = env.register(&format!("ada-{round}@example.org")).await.unwrap().tokens;
        let credential = Credential::Refresh(tokens.refresh.expose());
        let (refreshed, signed_out) = join(env.refresh(&tokens), env.logout(credential)).await;
        signed_out.unwrap();
        if let Ok(refreshed) = refreshed {
            assert!(!env.holds(&refreshed).await);
            assert!(env.refresh(&refreshed).await.is_err());
        }
        assert!(!env.holds(&tokens).await);
    }
}
