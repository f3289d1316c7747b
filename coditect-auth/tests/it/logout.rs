//! Signing out holds at once, for either token, once or again.

use chrono::TimeDelta;
use coditect_auth::{Credential, Error};
use futures_util::future::join;

use crate::installation::{Installation, PASSWORD};

#[tokio::test]
async fn after_signing_out_neither_token_works() {
    let home = Installation::new().await;
    for by_refresh in [false, true] {
        let email = format!("ada-{by_refresh}@example.org");
        let tokens = home.register(&email).await.unwrap().tokens;
        let credential = if by_refresh {
            Credential::Refresh(tokens.refresh.expose())
        } else {
            Credential::Access(tokens.access.expose())
        };
        for _again in 0..2 {
            home.logout(credential).await.unwrap();
            let outcome = home.caller(tokens.access.expose()).await;
            assert!(matches!(outcome, Err(Error::SessionRevoked)));
            assert!(matches!(home.refresh(&tokens).await, Err(Error::SessionRevoked)));
        }
    }
}

#[tokio::test]
async fn signing_out_ends_this_session_and_everywhere_ends_all_of_the_users() {
    let home = Installation::new().await;
    let phone = home.register("ada@example.org").await.unwrap().tokens;
    let laptop = home.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let desk = home.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let bobs = home.register("bob@example.org").await.unwrap().tokens;

    let of_phone = Credential::Access(phone.access.expose());
    home.logout(of_phone).await.unwrap();
    assert!(!home.holds(&phone).await);
    assert!(home.holds(&laptop).await && home.holds(&desk).await);

    let of_laptop = Credential::Refresh(laptop.refresh.expose());
    home.logout_everywhere(of_laptop).await.unwrap();
    assert!(!home.holds(&laptop).await && !home.holds(&desk).await);
    assert!(home.holds(&bobs).await);

    // Again, with either token of the session: nothing changes, for a later session either.
    let later = home.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    home.logout_everywhere(of_laptop).await.unwrap();
    home.logout_everywhere(Credential::Access(laptop.access.expose())).await.unwrap();
    assert!(home.holds(&later).await);
}

#[tokio::test]
async fn a_token_that_does_not_hold_any_more_ends_no_other_session() {
    let home = Installation::new().await;
    let signed_out = home.register("ada@example.org").await.unwrap().tokens;
    home.logout(Credential::Access(signed_out.access.expose())).await.unwrap();
    let replaced = home.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let newest = home.refresh(&replaced).await.unwrap();
    assert!(home.holds(&newest).await);
    home.clock.advance(TimeDelta::minutes(1));
    let live = home.login("ada@example.org", PASSWORD).await.unwrap().tokens;

    for (lost, refusal) in [(&signed_out, "SessionRevoked"), (&replaced, "RefreshReused")] {
        let credential = Credential::Refresh(lost.refresh.expose());
        let outcome = home.logout_everywhere(credential).await;
        assert_eq!(format!("{:?}", outcome.unwrap_err()), refusal);
    }
    let credential = Credential::Access(signed_out.access.expose());
    let outcome = home.logout_everywhere(credential).await;
    assert!(matches!(outcome, Err(Error::SessionRevoked)));
    assert!(home.holds(&live).await);
    assert!(!home.holds(&replaced).await, "the replay ended its own family");
}

#[tokio::test]
async fn a_forged_token_signs_nobody_out() {
    let home = Installation::new().await;
    let tokens = home.register("ada@example.org").await.unwrap().tokens;
    let access = format!("{}x", tokens.access.expose());
    for credential in [Credential::Access(&access), Credential::Refresh("crt_nothing")] {
        for outcome in [home.logout(credential).await, home.logout_everywhere(credential).await] {
            assert!(matches!(outcome, Err(Error::TokenInvalid(_) | Error::RefreshInvalid)));
        }
    }
    assert!(home.holds(&tokens).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_races_a_sign_out_leaves_nothing_that_works() {
    let home = Installation::new().await;
    for round in 0..30 {
        let tokens = home.register(&format!("ada-{round}@example.org")).await.unwrap().tokens;
        let credential = Credential::Refresh(tokens.refresh.expose());
        let (refreshed, signed_out) = join(home.refresh(&tokens), home.logout(credential)).await;
        signed_out.unwrap();
        if let Ok(refreshed) = refreshed {
            assert!(!home.holds(&refreshed).await);
            assert!(home.refresh(&refreshed).await.is_err());
        }
        assert!(!home.holds(&tokens).await);
    }
}
