//! What an operator does with users.

use coditect_auth::{ClientInfo, Error, Registration};
use coditect_store::model::UserStatus;

use crate::installation::{Installation, PASSWORD};

const EMAIL: &str = "ada@example.org";

#[tokio::test]
async fn an_operator_makes_and_lists_users() {
    let home = Installation::new().await;
    for email in ["c@example.org", "a@example.org", "b@example.org"] {
        let new = Registration { email, password: PASSWORD, first_name: None, last_name: None };
        home.auth.create_user(new.clone(), true).await.unwrap();
        assert!(matches!(home.auth.create_user(new, true).await, Err(Error::EmailTaken)));
        home.login(email, PASSWORD).await.unwrap();
    }
    let first = home.auth.users(2, None).await.unwrap();
    let rest = home.auth.users(2, first.next.as_ref()).await.unwrap();
    let emails: Vec<_> = first.items.iter().chain(&rest.items).map(|it| &*it.email).collect();
    assert_eq!(emails, ["a@example.org", "b@example.org", "c@example.org"]);
    assert!(rest.next.is_none());
    assert_eq!(home.auth.user(" B@Example.org").await.unwrap().email, "b@example.org");
    assert!(matches!(home.auth.user("d@example.org").await, Err(Error::NotFound)));
}

#[tokio::test]
async fn a_disabled_user_is_out_until_they_are_enabled() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    home.auth.set_status(EMAIL, UserStatus::Disabled).await.unwrap();
    assert!(!home.holds(&ada.tokens).await);
    assert!(matches!(home.login(EMAIL, PASSWORD).await, Err(Error::InvalidCredentials)));
    assert!(matches!(home.auth.reset_token(EMAIL).await, Err(Error::NotFound)));
    home.auth.set_status(EMAIL, UserStatus::Enabled).await.unwrap();
    assert!(!home.holds(&ada.tokens).await, "what was ended stays ended");
    home.login(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn an_operator_resets_a_password_without_an_e_mail() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    for _ in 0..2 {
        let token = home.auth.reset_token(EMAIL).await.unwrap();
        let next = format!("{PASSWORD}-{}", token.expose().len());
        home.auth.reset_password(token.expose(), &next, &ClientInfo::default()).await.unwrap();
        home.login(EMAIL, &next).await.unwrap();
    }
    assert!(!home.holds(&ada.tokens).await);
    assert_eq!(home.auth.sign_out_user(EMAIL).await.unwrap(), 1);
    assert!(matches!(home.auth.sign_out_user("x@example.org").await, Err(Error::NotFound)));
}
