//! My devices, my password.

use chrono::TimeDelta;
use coditect_auth::{ClientInfo, Error, Identity, MAX_RESETS, SignedIn, model::PasswordReset};
use coditect_store::model::{AuditEntry, AuthSession, RevocationReason, User};

use crate::installation::{Installation, PASSWORD};

const EMAIL: &str = "ada@example.org";
const NEXT: &str = "another password";

async fn identity(home: &Installation, of: &SignedIn) -> Identity {
    home.caller(of.tokens.access.expose()).await.unwrap()
}

async fn reason(home: &Installation, of: &SignedIn) -> Option<RevocationReason> {
    let (tenant, id) = (of.user.tenant_id, of.tokens.session_id);
    let session = home.store.begin().get::<AuthSession>(tenant, id).await.unwrap().unwrap();
    session.revocation.map(|revocation| revocation.reason)
}

/// Whether the stored session is revoked, by itself or with all of its user's.
async fn is_revoked(home: &Installation, of: &SignedIn) -> bool {
    let (tenant, tx) = (of.user.tenant_id, home.store.begin());
    let session = tx.get::<AuthSession>(tenant, of.tokens.session_id).await.unwrap().unwrap();
    session.is_revoked(&tx.get::<User>(tenant, of.user.id).await.unwrap().unwrap())
}

/// What was written down of Ada, oldest first.
pub(crate) async fn audited(home: &Installation, of: &SignedIn) -> Vec<String> {
    let tx = home.store.begin();
    let page = tx.log::<AuditEntry>(of.user.tenant_id, (), ..).page(200, None).await.unwrap();
    page.items.into_iter().map(|entry| entry.record.action).collect()
}

#[tokio::test]
async fn devices_are_listed_newest_first_named_and_ended_one_by_one() {
    let home = Installation::new().await;
    let first = home.register(EMAIL).await.unwrap();
    let second = home.login(EMAIL, PASSWORD).await.unwrap();
    let third = home.login(EMAIL, PASSWORD).await.unwrap();
    let bob = home.register("bob@example.org").await.unwrap();
    let asking = identity(&home, &second).await;
    let (auth, from) = (&home.auth, &ClientInfo::default());

    let tx = home.store.begin();
    let ids: Vec<_> = auth
        .devices(&tx, &asking, (50, None))
        .await
        .unwrap()
        .items
        .iter()
        .map(|device| device.id)
        .collect();
    let expected = [&third, &second, &first].map(|of| of.tokens.session_id);
    assert_eq!(ids, expected);
    let named = auth
        .name_device(&tx, &asking, first.tokens.session_id, Some("x".repeat(101)))
        .await
        .unwrap();
    assert_eq!(named.name.unwrap().len(), 100);
    auth.revoke_device(&tx, &asking, first.tokens.session_id, from).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!home.holds(&first.tokens).await && home.holds(&third.tokens).await);
    assert_eq!(reason(&home, &first).await, Some(RevocationReason::Revoked));

    let tx = home.store.begin();
    for id in [first.tokens.session_id, bob.tokens.session_id] {
        let ended = auth.revoke_device(&tx, &asking, id, from).await;
        assert!(matches!(ended, Err(Error::NotFound)));
        let named = auth.name_device(&tx, &asking, id, None).await;
        assert!(matches!(named, Err(Error::NotFound)));
    }
    assert_eq!(auth.revoke_other_devices(&tx, &asking, from).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert!(home.holds(&second.tokens).await && !home.holds(&third.tokens).await);
    assert!(home.holds(&bob.tokens).await);
    let audited = audited(&home, &first).await;
    let ended = audited.iter().filter(|action| *action == "auth.session_revoked").count();
    assert_eq!(ended, 2, "{audited:?}");
}

#[tokio::test]
async fn another_password_ends_the_other_sessions_and_no_more() {
    let home = Installation::new().await;
    let here = home.register(EMAIL).await.unwrap();
    let elsewhere = home.login(EMAIL, PASSWORD).await.unwrap();
    let (asking, from) = (identity(&home, &here).await, &ClientInfo::default());
    let change =
        async |present, next| home.auth.change_password(&asking, present, next, from).await;
    assert!(matches!(change("wrong", NEXT).await, Err(Error::InvalidCredentials)));
    assert!(matches!(change(PASSWORD, "short").await, Err(Error::WeakPassword(_))));
    assert!(home.holds(&elsewhere.tokens).await, "nothing has changed");

    change(PASSWORD, NEXT).await.unwrap();
    assert!(home.holds(&here.tokens).await && !home.holds(&elsewhere.tokens).await);
    assert!(is_revoked(&home, &elsewhere).await && !is_revoked(&home, &here).await);
    home.refresh(&here.tokens).await.unwrap();
    assert!(matches!(home.login(EMAIL, PASSWORD).await, Err(Error::InvalidCredentials)));
    home.login(EMAIL, NEXT).await.unwrap();
    assert!(audited(&home, &here).await.contains(&"user.password_changed".to_owned()));
}

#[tokio::test]
async fn a_reset_token_is_good_once_for_half_an_hour_and_ends_everything() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    home.auth.request_reset("Ada@Example.org", from).await.unwrap();
    let token = home.mailer.last_token(EMAIL).unwrap();
    home.auth.request_reset(EMAIL, from).await.unwrap();
    assert_eq!(home.mailer.sent(), 1, "not twice within a minute");
    home.auth.request_reset("nobody@example.org", from).await.unwrap();
    home.auth.request_reset("nonsense", from).await.unwrap();
    assert_eq!(home.mailer.sent(), 1);

    for wrong in ["", "cpr_", &token[..46], &token.to_uppercase(), ada.tokens.refresh.expose()] {
        let refused = home.auth.reset_password(wrong, NEXT, from).await;
        assert!(matches!(refused, Err(Error::ResetInvalid)), "{wrong}");
    }
    let weak = home.auth.reset_password(&token, "short", from).await;
    assert!(matches!(weak, Err(Error::WeakPassword(_))), "it is not used up by that");
    home.auth.reset_password(&token, NEXT, from).await.unwrap();
    assert!(!home.holds(&ada.tokens).await);
    assert!(is_revoked(&home, &ada).await);
    home.login(EMAIL, NEXT).await.unwrap();
    let again = home.auth.reset_password(&token, PASSWORD, from).await;
    assert!(matches!(again, Err(Error::ResetInvalid)));

    home.clock.advance(TimeDelta::minutes(2));
    home.auth.request_reset(EMAIL, from).await.unwrap();
    let late = home.mailer.last_token(EMAIL).unwrap();
    home.clock.advance(TimeDelta::minutes(30));
    let over = home.auth.reset_password(&late, PASSWORD, from).await;
    assert!(matches!(over, Err(Error::ResetInvalid)));
    home.clock.advance(TimeDelta::hours(2));
    assert_eq!(home.auth.sweep().await.unwrap(), 1);
}

#[tokio::test]
async fn several_reset_tokens_are_open_and_a_change_of_the_password_ends_all() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        home.auth.request_reset(EMAIL, from).await.unwrap();
        tokens.push(home.mailer.last_token(EMAIL).unwrap());
        home.clock.advance(TimeDelta::minutes(1));
    }
    home.auth.reset_password(&tokens[0], NEXT, from).await.unwrap();
    for token in &tokens {
        let used = home.auth.reset_password(token, PASSWORD, from).await;
        assert!(matches!(used, Err(Error::ResetInvalid)));
    }
    home.auth.request_reset(EMAIL, from).await.unwrap();
    let open = home.mailer.last_token(EMAIL).unwrap();
    let ada = home.login(&ada.user.email, NEXT).await.unwrap();
    let asking = identity(&home, &ada).await;
    home.auth.change_password(&asking, NEXT, PASSWORD, from).await.unwrap();
    let late = home.auth.reset_password(&open, NEXT, from).await;
    assert!(matches!(late, Err(Error::ResetInvalid)), "the owner has chosen another meanwhile");
}

#[tokio::test]
async fn requests_of_clients_never_end_an_operators_reset_token() {
    let home = Installation::new().await;
    home.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    let operators = home.auth.reset_token(EMAIL).await.unwrap();
    let mut sent = Vec::new();
    for _ in 0..2 * MAX_RESETS {
        home.clock.advance(TimeDelta::minutes(1));
        home.auth.request_reset(EMAIL, from).await.unwrap();
        sent.push(home.mailer.last_token(EMAIL).unwrap());
    }
    assert_eq!(home.mailer.sent(), 2 * MAX_RESETS);
    // The oldest of the clients' have ended.
    let ended = home.auth.reset_password(&sent[0], NEXT, from).await;
    assert!(matches!(ended, Err(Error::ResetInvalid)));
    // An operator's next token takes the place of a client's, and those are bounded too.
    let mut of_operator = vec![operators];
    for _ in 0..MAX_RESETS - 1 {
        of_operator.push(home.auth.reset_token(EMAIL).await.unwrap());
    }
    home.clock.advance(TimeDelta::minutes(1));
    home.auth.request_reset(EMAIL, from).await.unwrap();
    assert_eq!(home.mailer.sent(), 2 * MAX_RESETS, "there is no place");
    let next = home.auth.reset_token(EMAIL).await.unwrap();
    let first = home.auth.reset_password(of_operator[0].expose(), NEXT, from).await;
    assert!(matches!(first, Err(Error::ResetInvalid)), "the oldest has ended");
    home.auth.reset_password(next.expose(), NEXT, from).await.unwrap();
    home.login(EMAIL, NEXT).await.unwrap();
}

#[tokio::test]
async fn reset_request_without_a_mailer_changes_nothing() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let without_mailer = home.another(home.master.clone()).await.unwrap();
    let from = &ClientInfo::default();
    without_mailer.request_reset(EMAIL, from).await.unwrap();
    let (tenant, tx) = (ada.user.tenant_id, home.store.begin());
    assert!(tx.list::<PasswordReset>(tenant).all(1).await.unwrap().is_empty());
    assert!(!audited(&home, &ada).await.contains(&"user.password_reset_requested".to_owned()));
}

#[tokio::test]
async fn reset_requested_while_the_clock_was_ahead_blocks_no_later_one() {
    let home = Installation::new().await;
    home.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    home.clock.advance(TimeDelta::days(3_650));
    for _ in 0..MAX_RESETS {
        home.auth.request_reset(EMAIL, from).await.unwrap();
        home.clock.advance(TimeDelta::minutes(1));
    }
    home.clock.advance(-TimeDelta::days(3_651));
    home.auth.request_reset(EMAIL, from).await.unwrap();
    assert_eq!(home.mailer.sent(), MAX_RESETS + 1);
    let token = home.mailer.last_token(EMAIL).unwrap();
    home.auth.reset_password(&token, NEXT, from).await.unwrap();
}
