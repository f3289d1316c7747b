//! Registration, login and authentication.

use chrono::TimeDelta;
use coditect_auth::{Error, VerifiedCredential};
use coditect_store::{
    keyspace::Global,
    model::{AuthSession, Tenant, User, UserStatus},
};
use futures_util::future::join_all;

use crate::env::{PASSWORD, TestEnv, sign_in};

#[tokio::test]
async fn registration_creates_a_user_a_tenant_and_a_session() {
    let env = TestEnv::new().await;
    let signed_in = env.register("Ada@Example.org").await.unwrap();
    let claims = env.claims(&signed_in.tokens).await;

    let tx = env.store.begin();
    let user =
        tx.find(&User::BY_EMAIL, Global, "ada@example.org".to_owned()).await.unwrap().unwrap();
    assert_eq!((user.id, user.email.as_str()), (signed_in.user.id, "Ada@Example.org"));
    assert!(tx.get::<Tenant>(user.tenant_id, ()).await.unwrap().is_some());
    let session =
        tx.get::<AuthSession>(claims.tenant_id, claims.session_id).await.unwrap().unwrap();
    assert_eq!(session.user_id, claims.sub);
    assert_eq!(session.token_family, claims.token_family);
    assert_eq!((claims.sub, claims.tenant_id), (user.id, user.tenant_id));
    assert_eq!(claims.exp - claims.iat, 15 * 60);
    assert_eq!(signed_in.tokens.expires_in, TimeDelta::minutes(15));
}

#[tokio::test]
async fn address_is_taken_in_any_spelling() {
    let env = TestEnv::new().await;
    env.register("ada@example.org").await.unwrap();
    for again in ["ada@example.org", "ADA@EXAMPLE.ORG", " ada@Example.org "] {
        assert!(matches!(env.register(again).await, Err(Error::EmailTaken)), "{again}");
    }
}

#[tokio::test]
async fn of_a_hundred_registrations_at_once_one_succeeds_and_no_other_leaves_a_trace() {
    let env = TestEnv::new().await;
    let outcomes = join_all((0..100).map(|_| env.register("ada@example.org"))).await;
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 99));
    for refusal in refused {
        assert!(matches!(refusal, Err(Error::EmailTaken)), "{refusal:?}");
    }
    let all = coditect_store::engine::RangeQuery::new(b"", b"\xff");
    let rows = env.store.begin().engine().get_range(&all).await.unwrap().rows;
    let meta = env.store.root().key(&"meta".to_owned());
    let written = rows.iter().filter(|row| !row.key.starts_with(&meta)).count();
    // The root key and two that sign; a tenant; a user and an index entry; a session and three; an
    // audit entry and two.
    assert_eq!(written, 3 + 1 + 2 + 4 + 3);
}

#[tokio::test]
async fn malformed_address_or_password_is_rejected() {
    let env = TestEnv::new().await;
    assert!(matches!(env.register("nobody").await, Err(Error::InvalidEmail(_))));
    let weak = coditect_auth::Registration {
        email: "ada@example.org",
        password: "short",
        first_name: None,
        last_name: None,
    };
    let refused = env.auth.register(weak, &coditect_auth::ClientInfo::default()).await;
    assert!(matches!(refused, Err(Error::WeakPassword(_))));
}

#[tokio::test]
async fn unknown_wrong_and_disabled_are_one_error() {
    let env = TestEnv::new().await;
    let user = env.register("ada@example.org").await.unwrap().user;
    env.login("Ada@example.org", PASSWORD).await.unwrap();
    let disabled = User { status: UserStatus::Disabled, ..user };
    for (email, password) in [
        ("ada@example.org", "another password"),
        ("bob@example.org", PASSWORD),
        ("no address", PASSWORD),
        ("ada@example.org", ""),
    ] {
        let outcome = env.login(email, password).await;
        assert!(matches!(outcome, Err(Error::InvalidCredentials)), "{email}: {outcome:?}");
    }
    env.update_user(&disabled).await;
    let outcome = env.login("ada@example.org", PASSWORD).await;
    assert!(matches!(outcome, Err(Error::InvalidCredentials)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sign_ins_at_once_that_make_the_hash_anew_all_succeed() {
    let env = TestEnv::new().await;
    env.register("ada@example.org").await.unwrap();
    let dearer = env.with_dearer_hashes().await;
    let device = coditect_auth::ClientInfo::default();
    let logins = (0..8).map(|_| dearer.login(sign_in("ada@example.org", PASSWORD), &device));
    for outcome in join_all(logins).await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn request_is_authenticated_by_the_stored_session() {
    let env = TestEnv::new().await;
    let ada = env.register("ada@example.org").await.unwrap();
    let bob = env.register("bob@example.org").await.unwrap();
    let caller = env.caller(ada.tokens.access.expose()).await.unwrap();
    assert_eq!(caller.user.id, ada.user.id);

    // Claims combined from two sessions belong to neither.
    let (adas, bobs) = (env.claims(&ada.tokens).await, env.claims(&bob.tokens).await);
    let mixed = [
        coditect_auth::Claims { sub: bobs.sub, ..adas.clone() },
        coditect_auth::Claims { tenant_id: bobs.tenant_id, ..adas.clone() },
        coditect_auth::Claims { session_id: bobs.session_id, ..adas.clone() },
        coditect_auth::Claims { token_family: bobs.token_family, ..adas },
    ];
    for claims in &mixed {
        let outcome = env.identity(&VerifiedCredential::Access(Box::new(claims.clone()))).await;
        assert!(matches!(outcome, Err(Error::SessionRevoked)), "{claims:?}");
    }
}

#[tokio::test]
async fn disabled_user_is_rejected_from_the_next_request_on() {
    let env = TestEnv::new().await;
    let ada = env.register("ada@example.org").await.unwrap();
    env.update_user(&User { status: UserStatus::Disabled, ..ada.user.clone() }).await;
    let outcome = env.caller(ada.tokens.access.expose()).await;
    assert!(matches!(outcome, Err(Error::SessionRevoked)));
    assert!(matches!(env.refresh(&ada.tokens).await, Err(Error::SessionRevoked)));
}

#[tokio::test]
async fn access_token_expires() {
    let env = TestEnv::new().await;
    let ada = env.register("ada@example.org").await.unwrap();
    env.clock.advance(TimeDelta::minutes(15) - TimeDelta::seconds(1));
    assert!(env.holds(&ada.tokens).await);
    env.clock.advance(TimeDelta::minutes(1));
    let outcome = env.caller(ada.tokens.access.expose()).await;
    assert!(matches!(outcome, Err(Error::TokenExpired)));
    let refreshed = env.refresh(&ada.tokens).await.unwrap();
    assert!(env.holds(&refreshed).await);
}
