//! User administration.

use coditect_auth::{ClientInfo, Error, Registration};
use coditect_store::model::UserStatus;

use crate::env::{PASSWORD, TestEnv};

const EMAIL: &str = "ada@example.org";

#[tokio::test]
async fn operator_creates_and_lists_users() {
    let env = TestEnv::new().await;
    for email in ["c@example.org", "a@example.org", "b@example.org"] {
        let new = Registration { email, password: PASSWORD, first_name: None, last_name: None };
        env.auth.create_user(new.clone(), true).await.unwrap();
        assert!(matches!(env.auth.create_user(new, true).await, Err(Error::EmailTaken)));
        env.login(email, PASSWORD).await.unwrap();
    }
    let first = env.auth.users(2, None).await.unwrap();
    let rest = env.auth.users(2, first.next.as_ref()).await.unwrap();
    let emails: Vec<_> = first.items.iter().chain(&rest.items).map(|it| &*it.email).collect();
    assert_eq!(emails, ["a@example.org", "b@example.org", "c@example.org"]);
    assert!(rest.next.is_none());
    assert_eq!(env.auth.user(" B@Example.org").await.unwrap().email, "b@example.org");
    assert!(matches!(env.auth.user("d@example.org").await, Err(Error::NotFound)));
}

#[tokio::test]
async fn disabled_user_is_locked_out_until_enabled() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    env.auth.set_status(EMAIL, UserStatus::Disabled).await.unwrap();
    assert!(!env.holds(&ada.tokens).await);
    assert!(matches!(env.login(EMAIL, PASSWORD).await, Err(Error::InvalidCredentials)));
    assert!(matches!(env.auth.reset_token(EMAIL).await, Err(Error::Forbidden(_))));
    env.auth.set_status(EMAIL, UserStatus::Enabled).await.unwrap();
    assert!(!env.holds(&ada.tokens).await, "what was ended stays ended");
    env.login(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn operator_resets_a_password_without_mail() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    for _ in 0..2 {
        let token = env.auth.reset_token(EMAIL).await.unwrap();
        let next = format!("{PASSWORD}-{}", token.expose().len());
        env.auth.reset_password(token.expose(), &next, &ClientInfo::default()).await.unwrap();
        env.login(EMAIL, &next).await.unwrap();
    }
    assert!(!env.holds(&ada.tokens).await);
    assert_eq!(env.auth.revoke_user_sessions(EMAIL).await.unwrap(), 1);
    assert!(matches!(env.auth.revoke_user_sessions("x@example.org").await, Err(Error::NotFound)));
}
