//! Personal access tokens, and tickets.

use chrono::TimeDelta;
use coditect_auth::{
    ClientInfo, Error, FRESH_LOGIN, NewTicket, NewToken, Scope, Scopes, SignedIn,
    VerifiedCredential, model::PersonalToken,
};
use coditect_store::model::{User, UserStatus};

use crate::installation::{Installation, PASSWORD};

const EMAIL: &str = "ada@example.org";

async fn token(
    home: &Installation,
    of: &SignedIn,
    scopes: &[&str],
    life: TimeDelta,
) -> (String, PersonalToken) {
    let asking = home.caller(of.tokens.access.expose()).await.unwrap();
    let new = NewToken::new("ci", Scopes::new(scopes).unwrap(), life).unwrap();
    let tx = home.store.begin();
    let made = home.auth.create_token(&tx, &asking, &new, &ClientInfo::default()).await.unwrap();
    tx.commit().await.unwrap();
    (new.text().expose().to_owned(), made)
}

#[tokio::test]
async fn a_personal_token_acts_for_its_user_within_its_scopes_until_its_time() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let (text, made) = token(&home, &ada, &["read", "ci:deploy"], TimeDelta::days(30)).await;
    let caller = home.caller(&text).await.unwrap();
    assert_eq!((caller.user.id, caller.tenant_id), (ada.user.id, ada.user.tenant_id));
    assert_eq!(caller.expires_at(), made.expires_at);
    caller.require_scope(Scope::Read).unwrap();
    assert!(matches!(caller.require_scope(Scope::Write), Err(Error::Forbidden(_))));
    assert!(matches!(caller.session(), Err(Error::Forbidden(_))));

    home.clock.advance(TimeDelta::days(30) - TimeDelta::seconds(1));
    home.caller(&text).await.unwrap();
    home.clock.advance(TimeDelta::seconds(1));
    assert!(matches!(home.caller(&text).await, Err(Error::SessionExpired)));
}

#[tokio::test]
async fn its_last_use_is_known_to_the_hour() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let (text, made) = token(&home, &ada, &["read"], TimeDelta::days(30)).await;
    for (minutes, noted) in [(59, false), (1, true), (30, false)] {
        home.clock.advance(TimeDelta::minutes(minutes));
        home.caller(&text).await.unwrap();
        let tx = home.store.begin();
        let now = tx.get::<PersonalToken>(made.tenant_id, made.id).await.unwrap().unwrap();
        assert_eq!(now.last_used_at == home.now(), noted, "{minutes}");
    }
}

#[tokio::test]
async fn a_revoked_token_and_that_of_a_disabled_user_are_nobodys() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let bob = home.register("bob@example.org").await.unwrap();
    let (text, made) = token(&home, &ada, &["read"], TimeDelta::days(1)).await;
    let (other, _) = token(&home, &ada, &["read"], TimeDelta::days(1)).await;
    let revoke = async |of: &SignedIn| {
        let asking = home.caller(of.tokens.access.expose()).await.unwrap();
        let tx = home.store.begin();
        home.auth.revoke_token(&tx, &asking, made.id, &ClientInfo::default()).await?;
        tx.commit().await.map_err(Error::Store)
    };
    assert!(matches!(revoke(&bob).await, Err(Error::NotFound)));
    revoke(&ada).await.unwrap();
    assert!(matches!(home.caller(&text).await, Err(Error::SessionRevoked)));
    home.caller(&other).await.unwrap();
    home.update_user(&User { status: UserStatus::Disabled, ..ada.user.clone() }).await;
    assert!(matches!(home.caller(&other).await, Err(Error::SessionRevoked)));
}

#[tokio::test]
async fn a_program_makes_no_tokens_and_lists_no_devices() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let (text, made) = token(&home, &ada, &["write"], TimeDelta::days(1)).await;
    let program = home.caller(&text).await.unwrap();
    let (tx, from) = (home.store.begin(), &ClientInfo::default());
    let new = NewToken::new("x", Scopes::new(&["write"]).unwrap(), TimeDelta::days(1)).unwrap();
    let auth = &home.auth;
    let ticket = NewTicket::new().unwrap();
    for refused in [
        auth.create_token(&tx, &program, &new, from).await.map(|_| ()),
        auth.tokens_of(&tx, &program).await.map(|_| ()),
        auth.revoke_token(&tx, &program, made.id, from).await,
        auth.devices(&tx, &program, (50, None)).await.map(|_| ()),
        auth.revoke_other_devices(&tx, &program, from).await.map(|_| ()),
        auth.create_ticket(&tx, &program, &ticket, None).await,
        auth.change_password(&program, "x", "another password", from).await,
        auth.remove_factor(&program, "x", None, from).await,
    ] {
        assert!(matches!(refused, Err(Error::Forbidden(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_user_has_a_hundred_tokens_at_the_most() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    for _ in 0..100 {
        token(&home, &ada, &["read"], TimeDelta::days(1)).await;
    }
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let new = NewToken::new("x", Scopes::new(&["read"]).unwrap(), TimeDelta::days(1)).unwrap();
    let tx = home.store.begin();
    let refused = home.auth.create_token(&tx, &asking, &new, &ClientInfo::default()).await;
    assert!(matches!(refused, Err(Error::TooMany(_))));
    // Those that have ended make room.
    home.clock.advance(TimeDelta::days(1));
    let tokens = home.refresh(&ada.tokens).await.unwrap();
    let ada = SignedIn { tokens, ..ada };
    token(&home, &ada, &["read"], TimeDelta::days(1)).await;
    let tx = home.store.begin();
    let held = home.auth.tokens_of(&tx, &asking).await.unwrap();
    assert_eq!(held.len(), 1);
}

async fn ticket(home: &Installation, of: &SignedIn, origin: Option<&str>) -> String {
    let asking = home.caller(of.tokens.access.expose()).await.unwrap();
    let new = NewTicket::new().unwrap();
    let tx = home.store.begin();
    let origin = origin.map(str::to_owned);
    home.auth.create_ticket(&tx, &asking, &new, origin).await.unwrap();
    tx.commit().await.unwrap();
    new.text().expose().to_owned()
}

#[tokio::test]
async fn a_ticket_is_good_once_for_half_a_minute_for_its_origin() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let ide = Some("https://ide.example.org");
    let take = async |text: &str, origin| home.auth.take_ticket(text, origin).await;

    let text = ticket(&home, &ada, ide).await;
    let pass = take(&text, ide).await.unwrap();
    let caller = home.identity(&pass).await.unwrap();
    assert_eq!(caller.session().unwrap().id, ada.tokens.session_id);
    assert!(matches!(take(&text, ide).await, Err(Error::TicketInvalid)), "not twice");

    for origin in [None, Some("https://evil.example"), Some("https://ide.example.org:444")] {
        let text = ticket(&home, &ada, ide).await;
        assert!(matches!(take(&text, origin).await, Err(Error::TicketInvalid)));
        assert!(matches!(take(&text, ide).await, Err(Error::TicketInvalid)), "it was shown");
    }
    let text = ticket(&home, &ada, None).await;
    take(&text, Some("https://any.example")).await.unwrap();
    let text = ticket(&home, &ada, ide).await;
    home.clock.advance(TimeDelta::seconds(30));
    assert!(matches!(take(&text, ide).await, Err(Error::TicketInvalid)));
    for wrong in ["", "ctk_", ada.tokens.access.expose()] {
        assert!(matches!(take(wrong, ide).await, Err(Error::TicketInvalid)));
    }
}

#[tokio::test]
async fn what_a_ticket_has_opened_ends_with_its_session() {
    let home = Installation::new().await;
    let ada = home.register(EMAIL).await.unwrap();
    let text = ticket(&home, &ada, None).await;
    let pass: VerifiedCredential = home.auth.take_ticket(&text, None).await.unwrap();
    home.identity(&pass).await.unwrap();
    home.auth.sign_out_user(EMAIL).await.unwrap();
    assert!(matches!(home.identity(&pass).await, Err(Error::SessionRevoked)));
}

#[tokio::test]
async fn stale_login_shows_its_password_for_what_outlives_it() {
    let home = Installation::new().await;
    let ada = home.register("ada@example.org").await.unwrap();
    let asking = home.caller(ada.tokens.access.expose()).await.unwrap();
    let from = &ClientInfo::default();
    home.clock.advance(FRESH_LOGIN - TimeDelta::seconds(1));
    home.auth.require_fresh_login(&asking, None, from).await.unwrap();
    home.clock.advance(TimeDelta::seconds(1));
    let stale = home.auth.require_fresh_login(&asking, None, from).await;
    assert!(matches!(stale, Err(Error::ReauthenticationRequired)));
    home.refresh(&ada.tokens).await.unwrap();
    let refreshed = home.auth.require_fresh_login(&asking, None, from).await;
    assert!(matches!(refreshed, Err(Error::ReauthenticationRequired)), "a refresh is no login");
    let wrong = home.auth.require_fresh_login(&asking, Some("wrong"), from).await;
    assert!(matches!(wrong, Err(Error::InvalidCredentials)));
    home.auth.require_fresh_login(&asking, Some(PASSWORD), from).await.unwrap();
}
