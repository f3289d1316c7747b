//! Refresh: each line of the table, over a store.

use chrono::TimeDelta;
use coditect_auth::{ClientInfo, Error, Lifetimes, Tokens};
use coditect_store::model::{AuthSession, RevocationReason};
use futures_util::future::join_all;

use crate::installation::{Installation, PASSWORD};

async fn session(home: &Installation, tokens: &Tokens) -> AuthSession {
    let claims = home.claims(tokens).await;
    let tx = home.store.begin();
    tx.get::<AuthSession>(claims.tenant_id, claims.session_id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_refresh_gives_a_new_pair_and_moves_the_idle_expiry_only() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let before = session(&home, &first).await;
    home.clock.advance(TimeDelta::minutes(10));
    let second = home.refresh(&first).await.unwrap();
    assert_ne!(first.refresh.expose(), second.refresh.expose());
    assert!(home.holds(&second).await);
    assert!(home.holds(&first).await, "an access token holds until its time or its session's");

    let after = session(&home, &second).await;
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!(after.idle_expires_at - before.idle_expires_at, TimeDelta::minutes(10));
    assert_eq!(after.absolute_expires_at, before.absolute_expires_at);
}

#[tokio::test]
async fn within_the_grace_the_same_successor_is_given_again() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let second = home.refresh(&first).await.unwrap();
    assert!(home.holds(&second).await);
    home.clock.advance(TimeDelta::seconds(9));
    let again = home.refresh(&first).await.unwrap();
    assert_eq!(second.refresh.expose(), again.refresh.expose());
    assert_eq!(session(&home, &again).await.generation, 1);
    home.clock.advance(TimeDelta::seconds(2));
    let late = home.refresh(&first).await;
    assert!(matches!(late, Err(Error::RefreshReused)), "the grace does not slide: {late:?}");
}

#[tokio::test]
async fn a_replay_past_the_grace_ends_the_family_for_good() {
    let home = Installation::with_grace(TimeDelta::zero()).await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let elsewhere = home.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let second = home.refresh(&first).await.unwrap();
    assert!(home.holds(&second).await);
    assert!(matches!(home.refresh(&first).await, Err(Error::RefreshReused)));

    assert!(!home.holds(&second).await);
    assert!(matches!(home.refresh(&second).await, Err(Error::SessionRevoked)));
    assert!(matches!(home.refresh(&first).await, Err(Error::SessionRevoked)));
    assert!(home.holds(&elsewhere).await, "another login is another family");
    let tx = home.store.begin();
    let claims = home.claims(&second).await;
    let ended = tx.get::<AuthSession>(claims.tenant_id, claims.session_id).await.unwrap().unwrap();
    assert_eq!(ended.revocation.map(|it| it.reason), Some(RevocationReason::Reuse));
}

#[tokio::test]
async fn client_whose_response_was_lost_gets_the_same_successor_until_the_session_expires() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let lost = home.refresh(&first).await.unwrap();
    for hours in [1, 10, 100] {
        home.clock.advance(TimeDelta::hours(hours));
        assert!(!home.holds(&first).await, "its access token has expired, and confirms nothing");
        let again = home.refresh(&first).await.unwrap();
        assert_eq!(lost.refresh.expose(), again.refresh.expose());
        assert_eq!(session(&home, &again).await.confirmed_at, None);
    }
    home.clock.advance(TimeDelta::days(7) - TimeDelta::hours(111));
    assert!(matches!(home.refresh(&first).await, Err(Error::SessionExpired)));
}

#[tokio::test]
async fn first_use_of_the_successor_starts_the_grace_of_the_other_tabs() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    home.refresh(&first).await.unwrap();
    home.clock.advance(TimeDelta::hours(8));
    let tab = home.refresh(&first).await.unwrap();
    assert!(home.holds(&tab).await);
    assert_eq!(session(&home, &tab).await.confirmed_at, Some(home.now()));
    home.clock.advance(TimeDelta::seconds(10));
    let other_tab = home.refresh(&first).await.unwrap();
    assert!(home.holds(&other_tab).await);
    home.clock.advance(TimeDelta::seconds(1));
    assert!(matches!(home.refresh(&first).await, Err(Error::RefreshReused)));
    assert!(!home.holds(&tab).await);
}

#[tokio::test]
async fn rotation_is_confirmed_once_and_by_transactions_that_are_not_committed() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let second = home.refresh(&first).await.unwrap();
    let pass = &home.auth.pass(second.access.expose()).await.unwrap();
    let confirmed_at = home.now();
    for _ in 0..3 {
        // A transaction that is never committed.
        let tx = home.store.begin();
        home.auth.authenticate(&tx, pass).await.unwrap();
        assert_eq!(tx.engine().statistics().writes, 0);
        assert_eq!(session(&home, &second).await.confirmed_at, Some(confirmed_at));
        home.clock.advance(TimeDelta::seconds(1));
    }
    // The access tokens of older generations confirm nothing.
    let third = home.refresh(&second).await.unwrap();
    assert!(home.holds(&first).await && home.holds(&second).await);
    assert_eq!(session(&home, &third).await.confirmed_at, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_at_once_confirm_a_rotation_and_all_are_answered() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let second = home.refresh(&first).await.unwrap();
    let answers = join_all((0..50).map(|_| home.holds(&second))).await;
    assert!(answers.into_iter().all(|holds| holds));
    assert!(session(&home, &second).await.confirmed_at.is_some());
}

#[tokio::test]
async fn two_generations_back_is_a_replay_even_within_the_grace() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let second = home.refresh(&first).await.unwrap();
    let third = home.refresh(&second).await.unwrap();
    assert!(matches!(home.refresh(&first).await, Err(Error::RefreshReused)));
    assert!(!home.holds(&third).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_refreshes_at_once_have_one_successor() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let outcomes = join_all((0..50).map(|_| home.refresh(&first))).await;
    let successors: Vec<_> =
        outcomes.into_iter().map(|tokens| tokens.unwrap().refresh.expose().to_owned()).collect();
    assert!(successors.iter().all(|successor| *successor == successors[0]));
    assert_eq!(session(&home, &first).await.generation, 1);
}

#[tokio::test]
async fn what_was_not_made_here_is_refused_before_the_store_is_read() {
    let home = Installation::new().await;
    let tokens = home.register("ada@example.org").await.unwrap().tokens;
    let token = tokens.refresh.expose();
    home.store.database().close().await;
    let flipped =
        format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
    for wrong in ["", "crt_", "x", &token[..token.len() - 1], &flipped, tokens.access.expose()] {
        let outcome = home.auth.refresh(wrong, None, &ClientInfo::default()).await;
        assert!(matches!(outcome, Err(Error::RefreshInvalid)), "{wrong}: {outcome:?}");
    }
    assert!(matches!(
        home.auth.refresh(token, None, &ClientInfo::default()).await,
        Err(Error::Store(_))
    ));
}

#[tokio::test]
async fn a_token_of_another_installation_is_refused() {
    let (here, there) = (Installation::new().await, Installation::new().await);
    let tokens = there.register("ada@example.org").await.unwrap().tokens;
    assert!(matches!(here.refresh(&tokens).await, Err(Error::RefreshInvalid)));
    let outcome = here.caller(tokens.access.expose()).await;
    assert!(matches!(outcome, Err(Error::TokenInvalid(_))));
}

#[tokio::test]
async fn an_idle_session_ends_after_a_week_and_any_after_thirty_days() {
    let home = Installation::new().await;
    let idle = home.register("ada@example.org").await.unwrap().tokens;
    home.clock.advance(TimeDelta::days(7));
    assert!(matches!(home.refresh(&idle).await, Err(Error::SessionExpired)));

    let mut busy = home.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let Lifetimes { absolute, .. } = Lifetimes::default();
    for _ in 1..absolute.num_days() {
        home.clock.advance(TimeDelta::days(1));
        busy = home.refresh(&busy).await.unwrap();
    }
    home.clock.advance(TimeDelta::days(1));
    assert!(matches!(home.refresh(&busy).await, Err(Error::SessionExpired)));
    assert!(!home.holds(&busy).await);
}

#[tokio::test]
async fn a_store_that_was_set_back_ends_no_family() {
    let home = Installation::new().await;
    let first = home.register("ada@example.org").await.unwrap().tokens;
    let before = &session(&home, &first).await;
    let second = home.refresh(&first).await.unwrap();
    home.store.run(|tx| async move { tx.update(before).await }).await.unwrap();
    assert!(matches!(home.refresh(&second).await, Err(Error::RefreshInvalid)));
    assert!(home.refresh(&first).await.is_ok(), "nothing was revoked");
}
