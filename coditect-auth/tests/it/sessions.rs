//! Login sessions and passwords of a user.

use chrono::TimeDelta;
use coditect_auth::{ClientInfo, Error, Identity, MAX_RESETS, SignedIn, model::PasswordReset};
use coditect_store::model::{AuditEntry, AuthSession, RevocationReason, User};

use crate::env::{PASSWORD, TestEnv};

const EMAIL: &str = "ada@example.org";
const NEXT: &str = "another password";

async fn identity(env: &TestEnv, of: &SignedIn) -> Identity {
    env.caller(of.tokens.access.expose()).await.unwrap()
}

async fn reason(env: &TestEnv, of: &SignedIn) -> Option<RevocationReason> {
    let (tenant, id) = (of.user.tenant_id, of.tokens.session_id);
    let session = env.store.begin().get::<AuthSession>(tenant, id).await.unwrap().unwrap();
    session.revocation.map(|revocation| revocation.reason)
}

/// Returns whether the session is revoked, by itself or by the login epoch.
async fn is_revoked(env: &TestEnv, of: &SignedIn) -> bool {
    let (tenant, tx) = (of.user.tenant_id, env.store.begin());
    let session = tx.get::<AuthSession>(tenant, of.tokens.session_id).await.unwrap().unwrap();
    session.is_revoked(&tx.get::<User>(tenant, of.user.id).await.unwrap().unwrap())
}

/// Returns the audited actions in the user's tenant, oldest first.
pub(crate) async fn audited(env: &TestEnv, of: &SignedIn) -> Vec<String> {
    let tx = env.store.begin();
    let page = tx.events::<AuditEntry>(of.user.tenant_id, (), ..).page(200, None).await.unwrap();
    page.items.into_iter().map(|entry| entry.record.action).collect()
}

#[tokio::test]
async fn devices_are_listed_newest_first_named_and_ended_one_by_one() {
    let env = TestEnv::new().await;
    let first = env.register(EMAIL).await.unwrap();
    let second = env.login(EMAIL, PASSWORD).await.unwrap();
    let third = env.login(EMAIL, PASSWORD).await.unwrap();
    let bob = env.register("bob@example.org").await.unwrap();
    let asking = identity(&env, &second).await;
    let (auth, from) = (&env.auth, &ClientInfo::default());

    let tx = env.store.begin();
    let ids: Vec<_> = auth
        .sessions(&tx, &asking, (50, None))
        .await
        .unwrap()
        .items
        .iter()
        .map(|device| device.id)
        .collect();
    let expected = [&third, &second, &first].map(|of| of.tokens.session_id);
    assert_eq!(ids, expected);
    let named = auth
        .rename_session(&tx, &asking, first.tokens.session_id, Some("x".repeat(101)))
        .await
        .unwrap();
    assert_eq!(named.name.unwrap().len(), 100);
    auth.revoke_session(&tx, &asking, first.tokens.session_id, from).await.unwrap();
    tx.commit().await.unwrap();
    assert!(!env.holds(&first.tokens).await && env.holds(&third.tokens).await);
    assert_eq!(reason(&env, &first).await, Some(RevocationReason::Revoked));

    let tx = env.store.begin();
    for id in [first.tokens.session_id, bob.tokens.session_id] {
        let ended = auth.revoke_session(&tx, &asking, id, from).await;
        assert!(matches!(ended, Err(Error::NotFound)));
        let named = auth.rename_session(&tx, &asking, id, None).await;
        assert!(matches!(named, Err(Error::NotFound)));
    }
    assert_eq!(auth.revoke_other_sessions(&tx, &asking, from).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert!(env.holds(&second.tokens).await && !env.holds(&third.tokens).await);
    assert!(env.holds(&bob.tokens).await);
    let audited = audited(&env, &first).await;
    let ended = audited.iter().filter(|action| *action == "auth.session_revoked").count();
    assert_eq!(ended, 2, "{audited:?}");
}

#[tokio::test]
async fn another_password_ends_the_other_sessions_and_no_more() {
    let env = TestEnv::new().await;
    let here = env.register(EMAIL).await.unwrap();
    let elsewhere = env.login(EMAIL, PASSWORD).await.unwrap();
    let (asking, from) = (identity(&env, &here).await, &ClientInfo::default());
    let change = async |present, next| env.auth.change_password(&asking, present, next, from).await;
    assert!(matches!(change("wrong", NEXT).await, Err(Error::InvalidCredentials)));
    assert!(matches!(change(PASSWORD, "short").await, Err(Error::WeakPassword(_))));
    assert!(env.holds(&elsewhere.tokens).await, "nothing has changed");

    change(PASSWORD, NEXT).await.unwrap();
    assert!(env.holds(&here.tokens).await && !env.holds(&elsewhere.tokens).await);
    assert!(is_revoked(&env, &elsewhere).await && !is_revoked(&env, &here).await);
    env.refresh(&here.tokens).await.unwrap();
    assert!(matches!(env.login(EMAIL, PASSWORD).await, Err(Error::InvalidCredentials)));
    env.login(EMAIL, NEXT).await.unwrap();
    assert!(audited(&env, &here).await.contains(&"user.password_changed".to_owned()));
}

#[tokio::test]
async fn reset_token_is_valid_once_for_half_an_hour_and_revokes_everything() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    env.auth.request_reset("Ada@Example.org", from).await.unwrap();
    let token = env.mailer.last_token(EMAIL).unwrap();
    env.auth.request_reset(EMAIL, from).await.unwrap();
    assert_eq!(env.mailer.sent(), 1, "not twice within a minute");
    env.auth.request_reset("nobody@example.org", from).await.unwrap();
    env.auth.request_reset("nonsense", from).await.unwrap();
    assert_eq!(env.mailer.sent(), 1);

    for wrong in ["", "cpr_", &token[..46], &token.to_uppercase(), ada.tokens.refresh.expose()] {
        let refused = env.auth.reset_password(wrong, NEXT, from).await;
        assert!(matches!(refused, Err(Error::ResetInvalid)), "{wrong}");
    }
    let weak = env.auth.reset_password(&token, "short", from).await;
    assert!(matches!(weak, Err(Error::WeakPassword(_))), "it is not used up by that");
    env.auth.reset_password(&token, NEXT, from).await.unwrap();
    assert!(!env.holds(&ada.tokens).await);
    assert!(is_revoked(&env, &ada).await);
    env.login(EMAIL, NEXT).await.unwrap();
    let again = env.auth.reset_password(&token, PASSWORD, from).await;
    assert!(matches!(again, Err(Error::ResetInvalid)));

    env.clock.advance(TimeDelta::minutes(2));
    env.auth.request_reset(EMAIL, from).await.unwrap();
    let late = env.mailer.last_token(EMAIL).unwrap();
    env.clock.advance(TimeDelta::minutes(30));
    let over = env.auth.reset_password(&late, PASSWORD, from).await;
    assert!(matches!(over, Err(Error::ResetInvalid)));
    env.clock.advance(TimeDelta::hours(2));
    assert_eq!(env.auth.purge_expired().await.unwrap(), 1);
}

#[tokio::test]
async fn several_reset_tokens_are_open_and_a_change_of_the_password_ends_all() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        env.auth.request_reset(EMAIL, from).await.unwrap();
        tokens.push(env.mailer.last_token(EMAIL).unwrap());
        env.clock.advance(TimeDelta::minutes(4));
    }
    assert_eq!(env.mailer.sent(), 3);
    env.auth.reset_password(&tokens[0], NEXT, from).await.unwrap();
    for token in &tokens {
        let used = env.auth.reset_password(token, PASSWORD, from).await;
        assert!(matches!(used, Err(Error::ResetInvalid)));
    }
    env.auth.request_reset(EMAIL, from).await.unwrap();
    let open = env.mailer.last_token(EMAIL).unwrap();
    let ada = env.login(&ada.user.email, NEXT).await.unwrap();
    let asking = identity(&env, &ada).await;
    env.auth.change_password(&asking, NEXT, PASSWORD, from).await.unwrap();
    let late = env.auth.reset_password(&open, NEXT, from).await;
    assert!(matches!(late, Err(Error::ResetInvalid)), "the owner has chosen another meanwhile");
}

#[tokio::test]
async fn requests_of_clients_never_end_an_operators_reset_token() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    let operators = env.auth.reset_token(EMAIL).await.unwrap();
    let mut sent = Vec::new();
    for minutes in [1, 1, 2, 4, 8] {
        env.clock.advance(TimeDelta::minutes(minutes));
        env.auth.request_reset(EMAIL, from).await.unwrap();
        sent.push(env.mailer.last_token(EMAIL).unwrap());
    }
    assert_eq!(env.mailer.sent(), MAX_RESETS);
    // The oldest token that a client requested was replaced.
    let ended = env.auth.reset_password(&sent[0], NEXT, from).await;
    assert!(matches!(ended, Err(Error::ResetInvalid)));
    // An operator's next token replaces a client's; the operator's are bounded too.
    let mut of_operator = vec![operators];
    for _ in 0..MAX_RESETS - 1 {
        of_operator.push(env.auth.reset_token(EMAIL).await.unwrap());
    }
    env.clock.advance(TimeDelta::minutes(1));
    env.auth.request_reset(EMAIL, from).await.unwrap();
    assert_eq!(env.mailer.sent(), MAX_RESETS);
    let next = env.auth.reset_token(EMAIL).await.unwrap();
    let first = env.auth.reset_password(of_operator[0].expose(), NEXT, from).await;
    assert!(matches!(first, Err(Error::ResetInvalid)), "the oldest has ended");
    env.auth.reset_password(next.expose(), NEXT, from).await.unwrap();
    env.login(EMAIL, NEXT).await.unwrap();
}

#[tokio::test]
async fn reset_request_without_a_mailer_changes_nothing() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let without_mailer = env.another(env.master.clone()).await.unwrap();
    let from = &ClientInfo::default();
    without_mailer.request_reset(EMAIL, from).await.unwrap();
    let (tenant, tx) = (ada.user.tenant_id, env.store.begin());
    assert!(tx.list::<PasswordReset>(tenant).all(1).await.unwrap().is_empty());
    assert!(!audited(&env, &ada).await.contains(&"user.password_reset_requested".to_owned()));
}

#[tokio::test]
async fn reset_requested_while_the_clock_was_ahead_blocks_no_later_one() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    let from = &ClientInfo::default();
    env.clock.advance(TimeDelta::days(3_650));
    for _ in 0..MAX_RESETS {
        env.auth.request_reset(EMAIL, from).await.unwrap();
        env.clock.advance(TimeDelta::minutes(1));
    }
    let before = env.mailer.sent();
    env.clock.advance(-TimeDelta::days(3_651));
    env.auth.request_reset(EMAIL, from).await.unwrap();
    assert_eq!(env.mailer.sent(), before + 1);
    let token = env.mailer.last_token(EMAIL).unwrap();
    env.auth.reset_password(&token, NEXT, from).await.unwrap();
}

#[tokio::test]
async fn reset_mails_of_an_address_are_limited_and_the_last_one_works() {
    let env = TestEnv::new().await;
    env.register(EMAIL).await.unwrap();
    env.register("bob@example.org").await.unwrap();
    let from = &ClientInfo::default();
    for _minute in 0..24 * 60 {
        env.auth.request_reset(EMAIL, from).await.unwrap();
        env.clock.advance(TimeDelta::minutes(1));
    }
    // One at the beginning, after 1, 2, 4, 8 and 16 minutes more, and then each half hour.
    assert_eq!(env.mailer.sent(), 52);
    env.auth.request_reset("bob@example.org", from).await.unwrap();
    assert_eq!(env.mailer.sent(), 53, "another address has its own limit");
    let token = env.mailer.last_token(EMAIL).unwrap();
    env.auth.reset_password(&token, NEXT, from).await.unwrap();
    // The owner has shown that the mails arrive.
    env.auth.request_reset(EMAIL, from).await.unwrap();
    assert_eq!(env.mailer.sent(), 54);
}
