//! Refresh: each decision, over a store.

use chrono::TimeDelta;
use coditect_auth::{ClientInfo, Error, Lifetimes, Tokens};
use coditect_store::model::{AuthSession, RevocationReason};
use futures_util::future::join_all;

use crate::env::{PASSWORD, TestEnv};

async fn session(env: &TestEnv, tokens: &Tokens) -> AuthSession {
    let claims = env.claims(tokens).await;
    let tx = env.store.begin();
    tx.get::<AuthSession>(claims.tenant_id, claims.session_id).await.unwrap().unwrap()
}

#[tokio::test]
async fn refresh_returns_a_new_pair_and_extends_the_idle_expiry_only() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let before = session(&env, &first).await;
    env.clock.advance(TimeDelta::minutes(10));
    let second = env.refresh(&first).await.unwrap();
    assert_ne!(first.refresh.expose(), second.refresh.expose());
    assert!(env.holds(&second).await);
    assert!(env.holds(&first).await, "an access token holds until its time or its session's");

    let after = session(&env, &second).await;
    assert_eq!(after.generation, before.generation + 1);
    assert_eq!(after.idle_expires_at - before.idle_expires_at, TimeDelta::minutes(10));
    assert_eq!(after.absolute_expires_at, before.absolute_expires_at);
}

#[tokio::test]
async fn within_the_grace_the_same_successor_is_given_again() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let second = env.refresh(&first).await.unwrap();
    assert!(env.holds(&second).await);
    env.clock.advance(TimeDelta::seconds(9));
    let again = env.refresh(&first).await.unwrap();
    assert_eq!(second.refresh.expose(), again.refresh.expose());
    assert_eq!(session(&env, &again).await.generation, 1);
    env.clock.advance(TimeDelta::seconds(2));
    let late = env.refresh(&first).await;
    assert!(matches!(late, Err(Error::RefreshReused)), "the grace does not slide: {late:?}");
}

#[tokio::test]
async fn replay_past_the_grace_revokes_the_family() {
    let env = TestEnv::with_grace(TimeDelta::zero()).await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let elsewhere = env.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let second = env.refresh(&first).await.unwrap();
    assert!(env.holds(&second).await);
    assert!(matches!(env.refresh(&first).await, Err(Error::RefreshReused)));

    assert!(!env.holds(&second).await);
    assert!(matches!(env.refresh(&second).await, Err(Error::SessionRevoked)));
    assert!(matches!(env.refresh(&first).await, Err(Error::SessionRevoked)));
    assert!(env.holds(&elsewhere).await, "another login is another family");
    let tx = env.store.begin();
    let claims = env.claims(&second).await;
    let ended = tx.get::<AuthSession>(claims.tenant_id, claims.session_id).await.unwrap().unwrap();
    assert_eq!(ended.revocation.map(|it| it.reason), Some(RevocationReason::Reuse));
}

#[tokio::test]
async fn client_whose_response_was_lost_gets_the_same_successor_until_the_session_expires() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let lost = env.refresh(&first).await.unwrap();
    for hours in [1, 10, 100] {
        env.clock.advance(TimeDelta::hours(hours));
        assert!(!env.holds(&first).await, "its access token has expired, and confirms nothing");
        let again = env.refresh(&first).await.unwrap();
        assert_eq!(lost.refresh.expose(), again.refresh.expose());
        assert_eq!(session(&env, &again).await.confirmed_at, None);
    }
    env.clock.advance(TimeDelta::days(7) - TimeDelta::hours(111));
    assert!(matches!(env.refresh(&first).await, Err(Error::SessionExpired)));
}

#[tokio::test]
async fn first_use_of_the_successor_starts_the_grace_of_the_other_tabs() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    env.refresh(&first).await.unwrap();
    env.clock.advance(TimeDelta::hours(8));
    let tab = env.refresh(&first).await.unwrap();
    assert!(env.holds(&tab).await);
    assert_eq!(session(&env, &tab).await.confirmed_at, Some(env.now()));
    env.clock.advance(TimeDelta::seconds(10));
    let other_tab = env.refresh(&first).await.unwrap();
    assert!(env.holds(&other_tab).await);
    env.clock.advance(TimeDelta::seconds(1));
    assert!(matches!(env.refresh(&first).await, Err(Error::RefreshReused)));
    assert!(!env.holds(&tab).await);
}

#[tokio::test]
async fn rotation_is_confirmed_once_and_by_transactions_that_are_not_committed() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let second = env.refresh(&first).await.unwrap();
    let credential = &env.auth.verify_credential(second.access.expose()).await.unwrap();
    let confirmed_at = env.now();
    for _ in 0..3 {
        // A transaction that is never committed.
        let tx = env.store.begin();
        env.auth.authenticate(&tx, credential).await.unwrap();
        assert_eq!(tx.engine().statistics().writes, 0);
        assert_eq!(session(&env, &second).await.confirmed_at, Some(confirmed_at));
        env.clock.advance(TimeDelta::seconds(1));
    }
    // Access tokens of older generations confirm nothing.
    let third = env.refresh(&second).await.unwrap();
    assert!(env.holds(&first).await && env.holds(&second).await);
    assert_eq!(session(&env, &third).await.confirmed_at, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_at_once_confirm_a_rotation_and_all_are_answered() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let second = env.refresh(&first).await.unwrap();
    let answers = join_all((0..50).map(|_| env.holds(&second))).await;
    assert!(answers.into_iter().all(|holds| holds));
    assert!(session(&env, &second).await.confirmed_at.is_some());
}

#[tokio::test]
async fn two_generations_back_is_a_replay_even_within_the_grace() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let second = env.refresh(&first).await.unwrap();
    let third = env.refresh(&second).await.unwrap();
    assert!(matches!(env.refresh(&first).await, Err(Error::RefreshReused)));
    assert!(!env.holds(&third).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_refreshes_at_once_have_one_successor() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let outcomes = join_all((0..50).map(|_| env.refresh(&first))).await;
    let successors: Vec<_> =
        outcomes.into_iter().map(|tokens| tokens.unwrap().refresh.expose().to_owned()).collect();
    assert!(successors.iter().all(|successor| *successor == successors[0]));
    assert_eq!(session(&env, &first).await.generation, 1);
}

#[tokio::test]
async fn foreign_token_is_rejected_before_the_store_is_read() {
    let env = TestEnv::new().await;
    let tokens = env.register("ada@example.org").await.unwrap().tokens;
    let token = tokens.refresh.expose();
    env.store.database().close().await;
    let flipped =
        format!("{}{}", &token[..token.len() - 1], if token.ends_with('A') { 'B' } else { 'A' });
    for wrong in ["", "crt_", "x", &token[..token.len() - 1], &flipped, tokens.access.expose()] {
        let outcome = env.auth.refresh(wrong, None, &ClientInfo::default()).await;
        assert!(matches!(outcome, Err(Error::RefreshInvalid)), "{wrong}: {outcome:?}");
    }
    assert!(matches!(
        env.auth.refresh(token, None, &ClientInfo::default()).await,
        Err(Error::Store(_))
    ));
}

#[tokio::test]
async fn token_of_another_installation_is_rejected() {
    let (here, there) = (TestEnv::new().await, TestEnv::new().await);
    let tokens = there.register("ada@example.org").await.unwrap().tokens;
    assert!(matches!(here.refresh(&tokens).await, Err(Error::RefreshInvalid)));
    let outcome = here.caller(tokens.access.expose()).await;
    assert!(matches!(outcome, Err(Error::TokenInvalid(_))));
}

#[tokio::test]
async fn idle_session_ends_after_a_week_and_any_after_thirty_days() {
    let env = TestEnv::new().await;
    let idle = env.register("ada@example.org").await.unwrap().tokens;
    env.clock.advance(TimeDelta::days(7));
    assert!(matches!(env.refresh(&idle).await, Err(Error::SessionExpired)));

    let mut busy = env.login("ada@example.org", PASSWORD).await.unwrap().tokens;
    let Lifetimes { absolute, .. } = Lifetimes::default();
    for _ in 1..absolute.num_days() {
        env.clock.advance(TimeDelta::days(1));
        busy = env.refresh(&busy).await.unwrap();
    }
    env.clock.advance(TimeDelta::days(1));
    assert!(matches!(env.refresh(&busy).await, Err(Error::SessionExpired)));
    assert!(!env.holds(&busy).await);
}

#[tokio::test]
async fn restored_store_revokes_no_family() {
    let env = TestEnv::new().await;
    let first = env.register("ada@example.org").await.unwrap().tokens;
    let before = &session(&env, &first).await;
    let second = env.refresh(&first).await.unwrap();
    env.store.run(|tx| async move { tx.update(before).await }).await.unwrap();
    assert!(matches!(env.refresh(&second).await, Err(Error::RefreshInvalid)));
    assert!(env.refresh(&first).await.is_ok(), "nothing was revoked");
}
