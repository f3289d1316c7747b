//! Personal access tokens, and tickets.

use chrono::TimeDelta;
use coditect_auth::{
    ClientInfo, Error, MAX_FRESH_LOGIN_AGE, NewPersonalToken, NewTicket, Scope, Scopes, SignedIn,
    VerifiedCredential, model::PersonalToken,
};
use coditect_store::model::{User, UserStatus};

use crate::env::{PASSWORD, TestEnv};

const EMAIL: &str = "ada@example.org";

async fn token(
    env: &TestEnv,
    of: &SignedIn,
    scopes: &[&str],
    life: TimeDelta,
) -> (String, PersonalToken) {
    let asking = env.caller(of.tokens.access.expose()).await.unwrap();
    let new = NewPersonalToken::new("ci", Scopes::new(scopes).unwrap(), life).unwrap();
    let tx = env.store.begin();
    let made =
        env.auth.create_personal_token(&tx, &asking, &new, &ClientInfo::default()).await.unwrap();
    tx.commit().await.unwrap();
    (new.text().expose().to_owned(), made)
}

#[tokio::test]
async fn personal_token_acts_within_its_scopes_until_it_expires() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let (text, made) = token(&env, &ada, &["read", "ci:deploy"], TimeDelta::days(30)).await;
    let caller = env.caller(&text).await.unwrap();
    assert_eq!((caller.user.id, caller.tenant_id), (ada.user.id, ada.user.tenant_id));
    assert_eq!(caller.expires_at(), made.expires_at);
    caller.require_scope(Scope::Read).unwrap();
    assert!(matches!(caller.require_scope(Scope::Write), Err(Error::Forbidden(_))));
    assert!(matches!(caller.session(), Err(Error::Forbidden(_))));

    env.clock.advance(TimeDelta::days(30) - TimeDelta::seconds(1));
    env.caller(&text).await.unwrap();
    env.clock.advance(TimeDelta::seconds(1));
    assert!(matches!(env.caller(&text).await, Err(Error::SessionExpired)));
}

#[tokio::test]
async fn its_last_use_is_known_to_the_hour() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let (text, made) = token(&env, &ada, &["read"], TimeDelta::days(30)).await;
    for (minutes, noted) in [(59, false), (1, true), (30, false)] {
        env.clock.advance(TimeDelta::minutes(minutes));
        env.caller(&text).await.unwrap();
        let tx = env.store.begin();
        let now = tx.get::<PersonalToken>(made.tenant_id, made.id).await.unwrap().unwrap();
        assert_eq!(now.last_used_at == env.now(), noted, "{minutes}");
    }
}

#[tokio::test]
async fn revoked_token_and_token_of_a_disabled_user_are_rejected() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let bob = env.register("bob@example.org").await.unwrap();
    let (text, made) = token(&env, &ada, &["read"], TimeDelta::days(1)).await;
    let (other, _) = token(&env, &ada, &["read"], TimeDelta::days(1)).await;
    let revoke = async |of: &SignedIn| {
        let asking = env.caller(of.tokens.access.expose()).await.unwrap();
        let tx = env.store.begin();
        env.auth.revoke_personal_token(&tx, &asking, made.id, &ClientInfo::default()).await?;
        tx.commit().await.map_err(Error::Store)
    };
    assert!(matches!(revoke(&bob).await, Err(Error::NotFound)));
    revoke(&ada).await.unwrap();
    assert!(matches!(env.caller(&text).await, Err(Error::SessionRevoked)));
    env.caller(&other).await.unwrap();
    env.update_user(&User { status: UserStatus::Disabled, ..ada.user.clone() }).await;
    assert!(matches!(env.caller(&other).await, Err(Error::SessionRevoked)));
}

#[tokio::test]
async fn personal_token_creates_no_tokens_and_lists_no_sessions() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let (text, made) = token(&env, &ada, &["write"], TimeDelta::days(1)).await;
    let program = env.caller(&text).await.unwrap();
    let (tx, from) = (env.store.begin(), &ClientInfo::default());
    let new =
        NewPersonalToken::new("x", Scopes::new(&["write"]).unwrap(), TimeDelta::days(1)).unwrap();
    let auth = &env.auth;
    let ticket = NewTicket::new().unwrap();
    for refused in [
        auth.create_personal_token(&tx, &program, &new, from).await.map(|_| ()),
        auth.personal_tokens(&tx, &program, (50, None)).await.map(|_| ()),
        auth.revoke_personal_token(&tx, &program, made.id, from).await,
        auth.sessions(&tx, &program, (50, None)).await.map(|_| ()),
        auth.revoke_other_sessions(&tx, &program, from).await.map(|_| ()),
        auth.create_ticket(&tx, &program, &ticket, None).await,
        auth.change_password(&program, "x", "another password", from).await,
        auth.remove_second_factor(&program, "x", None, from).await,
    ] {
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn user_has_at_most_a_hundred_tokens() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    for _ in 0..100 {
        token(&env, &ada, &["read"], TimeDelta::days(1)).await;
    }
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let new =
        NewPersonalToken::new("x", Scopes::new(&["read"]).unwrap(), TimeDelta::days(1)).unwrap();
    let tx = env.store.begin();
    let refused = env.auth.create_personal_token(&tx, &asking, &new, &ClientInfo::default()).await;
    assert!(matches!(refused, Err(Error::TooMany(_))));
    // Expired tokens make room.
    env.clock.advance(TimeDelta::days(1));
    let tokens = env.refresh(&ada.tokens).await.unwrap();
    let ada = SignedIn { tokens, ..ada };
    token(&env, &ada, &["read"], TimeDelta::days(1)).await;
    let tx = env.store.begin();
    let held = env.auth.personal_tokens(&tx, &asking, (50, None)).await.unwrap();
    assert_eq!(held.items.len(), 1);
}

#[tokio::test]
async fn tokens_are_listed_in_pages_oldest_first() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    for _ in 0..5 {
        token(&env, &ada, &["read"], TimeDelta::days(1)).await;
    }
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let tx = env.store.begin();
    let (mut ids, mut after) = (Vec::new(), None);
    loop {
        let page = env.auth.personal_tokens(&tx, &asking, (2, after.as_ref())).await.unwrap();
        assert!(page.items.len() <= 2);
        ids.extend(page.items.iter().map(|token| token.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted(), "ids are ordered by creation");
}

async fn ticket(env: &TestEnv, of: &SignedIn, origin: Option<&str>) -> String {
    let asking = env.caller(of.tokens.access.expose()).await.unwrap();
    let new = NewTicket::new().unwrap();
    let tx = env.store.begin();
    let origin = origin.map(str::to_owned);
    env.auth.create_ticket(&tx, &asking, &new, origin).await.unwrap();
    tx.commit().await.unwrap();
    new.text().expose().to_owned()
}

#[tokio::test]
async fn ticket_is_valid_once_for_half_a_minute_for_its_origin() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let ide = Some("https://ide.example.org");
    let take = async |text: &str, origin| env.auth.consume_ticket(text, origin).await;

    let text = ticket(&env, &ada, ide).await;
    let credential = take(&text, ide).await.unwrap();
    let caller = env.identity(&credential).await.unwrap();
    assert_eq!(caller.session().unwrap().id, ada.tokens.session_id);
    assert!(matches!(take(&text, ide).await, Err(Error::TicketInvalid)), "not twice");

    for origin in [None, Some("https://evil.example"), Some("https://ide.example.org:444")] {
        let text = ticket(&env, &ada, ide).await;
        assert!(matches!(take(&text, origin).await, Err(Error::TicketInvalid)));
        assert!(matches!(take(&text, ide).await, Err(Error::TicketInvalid)), "it was shown");
    }
    let text = ticket(&env, &ada, None).await;
    take(&text, Some("https://any.example")).await.unwrap();
    let text = ticket(&env, &ada, ide).await;
    env.clock.advance(TimeDelta::seconds(30));
    assert!(matches!(take(&text, ide).await, Err(Error::TicketInvalid)));
    for wrong in ["", "ctk_", ada.tokens.access.expose()] {
        assert!(matches!(take(wrong, ide).await, Err(Error::TicketInvalid)));
    }
}

#[tokio::test]
async fn ticket_credential_ends_with_its_session() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let text = ticket(&env, &ada, None).await;
    let credential: VerifiedCredential = env.auth.consume_ticket(&text, None).await.unwrap();
    env.identity(&credential).await.unwrap();
    env.auth.revoke_user_sessions(EMAIL).await.unwrap();
    assert!(matches!(env.identity(&credential).await, Err(Error::SessionRevoked)));
}

#[tokio::test]
async fn stale_login_needs_its_password_for_lasting_credentials() {
    let env = TestEnv::new().await;
    let ada = env.register("ada@example.org").await.unwrap();
    let asking = env.caller(ada.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    env.clock.advance(MAX_FRESH_LOGIN_AGE - TimeDelta::seconds(1));
    env.auth.require_fresh_login(&asking, None, from).await.unwrap();
    env.clock.advance(TimeDelta::seconds(1));
    let stale = env.auth.require_fresh_login(&asking, None, from).await;
    assert!(matches!(stale, Err(Error::ReauthenticationRequired)));
    env.refresh(&ada.tokens).await.unwrap();
    let refreshed = env.auth.require_fresh_login(&asking, None, from).await;
    assert!(matches!(refreshed, Err(Error::ReauthenticationRequired)), "a refresh is no login");
    let wrong = env.auth.require_fresh_login(&asking, Some("wrong"), from).await;
    assert!(matches!(wrong, Err(Error::InvalidCredentials)));
    env.auth.require_fresh_login(&asking, Some(PASSWORD), from).await.unwrap();
}
