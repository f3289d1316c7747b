//! Signing out holds at once, for either token, once or again.

use coditect_auth::{Credential, Error, Extent};
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
            home.auth.logout(credential, Extent::ThisSession).await.unwrap();
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
    home.auth.logout(of_phone, Extent::ThisSession).await.unwrap();
    assert!(!home.holds(&phone).await);
    assert!(home.holds(&laptop).await && home.holds(&desk).await);

    let of_laptop = Credential::Refresh(laptop.refresh.expose());
    home.auth.logout(of_laptop, Extent::Everywhere).await.unwrap();
    assert!(!home.holds(&laptop).await && !home.holds(&desk).await);
    assert!(home.holds(&bobs).await);
}

#[tokio::test]
async fn a_forged_token_signs_nobody_out() {
    let home = Installation::new().await;
    let tokens = home.register("ada@example.org").await.unwrap().tokens;
    let access = format!("{}x", tokens.access.expose());
    for credential in [Credential::Access(&access), Credential::Refresh("crt_nothing")] {
        let outcome = home.auth.logout(credential, Extent::Everywhere).await;
        assert!(matches!(outcome, Err(Error::TokenInvalid(_) | Error::RefreshInvalid)));
    }
    assert!(home.holds(&tokens).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_races_a_sign_out_leaves_nothing_that_works() {
    let home = Installation::new().await;
    for round in 0..30 {
        let tokens = home.register(&format!("ada-{round}@example.org")).await.unwrap().tokens;
        let credential = Credential::Refresh(tokens.refresh.expose());
        let (refreshed, signed_out) =
            join(home.refresh(&tokens), home.auth.logout(credential, Extent::ThisSession)).await;
        signed_out.unwrap();
        if let Ok(refreshed) = refreshed {
            assert!(!home.holds(&refreshed).await);
            assert!(home.refresh(&refreshed).await.is_err());
        }
        assert!(!home.holds(&tokens).await);
    }
}
