//! The purge, with a clock that was years ahead for a while.

use chrono::TimeDelta;
use coditect_auth::{
    Action, AuditRetention, ClientInfo, Error, NewInvitation, NewPersonalToken, Purge, Scopes,
    SignedIn,
    model::{AuditExtent, CLOCK_SETTLE_TIME, Invitation, PasswordReset, PersonalToken},
};
use coditect_store::{
    Transaction,
    model::{AuditEntry, AuthSession, Role, TenantId},
};

use crate::env::{PASSWORD, TestEnv, sign_in};

const EMAIL: &str = "ada@example.org";
const STEP: TimeDelta = TimeDelta::minutes(90);
const YEARS: TimeDelta = TimeDelta::days(10 * 365);

async fn is_done(env: &TestEnv) -> bool {
    matches!(env.auth.purge(STEP).await.unwrap(), Purge::Done(..))
}

#[tokio::test]
async fn start_with_a_clock_years_ahead_loses_nothing_once_corrected() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let asking = &env.caller(ada.tokens.access.expose()).await.unwrap();
    let (auth, from) = (&env.auth, &ClientInfo::default());
    let token =
        &NewPersonalToken::new("ci", Scopes::new(&["read"]).unwrap(), TimeDelta::days(9)).unwrap();
    let invitation = &NewInvitation::new("bob@example.org", Role::Member).unwrap();
    let make = |tx: coditect_store::Transaction| async move {
        auth.create_personal_token(&tx, asking, token, from).await?;
        auth.invite(&tx, asking, invitation, from).await
    };
    env.store.run(make).await.unwrap();
    let reset = auth.reset_token(EMAIL).await.unwrap();
    assert!(is_done(&env).await);

    // A server starts with a clock that is years ahead: requests fail, and its purges run for
    // hours.
    env.clock.advance(YEARS);
    let ahead = env.another(env.master.clone()).await.unwrap();
    ahead.rotate_due_keys().await.unwrap();
    for hour in 0..20 {
        let purge = ahead.purge(STEP).await.unwrap();
        assert!(matches!(purge, Purge::Suspended { is_new, .. } if is_new == (hour == 0)));
        for _ in 0..3 {
            let wrong = ahead.login(sign_in(EMAIL, "wrong password"), from).await;
            assert!(matches!(wrong, Err(Error::InvalidCredentials | Error::Throttled { .. })));
        }
        env.clock.advance(TimeDelta::hours(1));
    }
    env.clock.advance(-YEARS - TimeDelta::hours(20));

    let corrected = env.another(env.master.clone()).await.unwrap();
    corrected.rotate_due_keys().await.unwrap();
    assert!(matches!(corrected.purge(STEP).await.unwrap(), Purge::Done(..)));
    let tx = env.store.begin();
    let tenant = ada.user.tenant_id;
    let session = tx.get::<AuthSession>(tenant, ada.tokens.session_id).await.unwrap().unwrap();
    assert!(session.holds_at(env.now()));
    assert_eq!(tx.list::<PersonalToken>(tenant).all(9).await.unwrap().len(), 1);
    assert_eq!(tx.list::<Invitation>(tenant).all(9).await.unwrap().len(), 1);
    assert_eq!(tx.list::<PasswordReset>(tenant).all(9).await.unwrap().len(), 1);
    // Nothing stays blocked until that year.
    corrected.login(sign_in(EMAIL, PASSWORD), from).await.unwrap();
    corrected.refresh(ada.tokens.refresh.expose(), None, from).await.unwrap();
    corrected.reset_password(reset.expose(), "another password", from).await.unwrap();
    corrected.login(sign_in(EMAIL, "another password"), from).await.unwrap();
}

#[tokio::test]
async fn clock_that_stays_ahead_is_trusted_after_a_day() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    assert!(is_done(&env).await);
    // The server was stopped for a long time.
    env.clock.advance(TimeDelta::days(90));
    let mut waited = TimeDelta::zero();
    while !is_done(&env).await {
        env.clock.advance(TimeDelta::hours(1));
        waited += TimeDelta::hours(1);
    }
    assert_eq!(waited, CLOCK_SETTLE_TIME);
    let (tenant, tx) = (ada.user.tenant_id, env.store.begin());
    let session = tx.get::<AuthSession>(tenant, ada.tokens.session_id).await.unwrap();
    assert_eq!(session, None, "it has expired, and is removed");
}

#[tokio::test]
async fn server_that_is_stopped_every_night_purges() {
    let env = TestEnv::new().await;
    assert!(is_done(&env).await);
    for _day in 0..3 {
        env.clock.advance(TimeDelta::hours(14));
        for _hour in 0..10 {
            assert!(is_done(&env).await);
            env.clock.advance(TimeDelta::hours(1));
        }
    }
}

async fn audited(env: &TestEnv, tenant: TenantId) -> Vec<AuditEntry> {
    let tx = env.store.begin();
    let page = tx.events::<AuditEntry>(tenant, (), ..).page(1_000, None).await.unwrap();
    page.items.into_iter().map(|logged| logged.record).collect()
}

/// Writes `count` entries, numbered from `first`.
async fn audit(env: &TestEnv, of: &SignedIn, first: usize, count: usize) {
    let asking = &env.caller(of.tokens.access.expose()).await.unwrap();
    let (auth, from) = (&env.auth, &ClientInfo::default());
    for number in first..first + count {
        let write = |tx: Transaction| async move {
            let of = (Action::SettingChanged, number);
            auth.audit(&tx, asking, of, serde_json::json!({}), from).await
        };
        env.store.run(write).await.unwrap();
    }
}

#[tokio::test]
async fn audit_entries_are_removed_after_their_retention() {
    let env = TestEnv::new().await;
    let (ada, bob) = (env.register(EMAIL).await.unwrap(), env.register("b@example.org").await);
    let (tenant, other) = (ada.user.tenant_id, bob.unwrap().user.tenant_id);
    audit(&env, &ada, 0, 250).await;
    for _ in 0..14 {
        env.clock.advance(TimeDelta::days(28));
        assert!(is_done(&env).await);
    }
    assert_eq!(audited(&env, tenant).await.len(), 251, "they are kept for 400 days");
    let ada = env.login(EMAIL, PASSWORD).await.unwrap();
    audit(&env, &ada, 250, 3).await;
    env.clock.advance(TimeDelta::days(9));
    assert!(is_done(&env).await);
    let kept = audited(&env, tenant).await;
    assert_eq!(kept.len(), 4, "{kept:?}");
    assert!(audited(&env, other).await.is_empty());
    let tx = env.store.begin();
    let indexed =
        tx.scan_events(&AuditEntry::BY_ACTOR, tenant, ada.user.id).page(1_000, None).await;
    assert_eq!(indexed.unwrap().items.len(), 4);
    let report = env.store.check().run(|_| ()).await.unwrap();
    assert_eq!(report.faults, 0);
}

#[tokio::test]
async fn audit_log_of_a_tenant_keeps_its_newest_entries() {
    let env = TestEnv::new().await;
    let ada = env.register(EMAIL).await.unwrap();
    let tenant = ada.user.tenant_id;
    let retention = AuditRetention::new(TimeDelta::days(400), 120);
    let auth = env.with(|settings| settings.audit_retention = retention).await;
    let purge = async || assert!(matches!(auth.purge(STEP).await.unwrap(), Purge::Done(..)));
    audit(&env, &ada, 0, 100).await;
    purge().await;
    assert_eq!(audited(&env, tenant).await.len(), 101);
    audit(&env, &ada, 100, 230).await;
    purge().await;
    let numbers = async || {
        let kept = audited(&env, tenant).await;
        kept.iter().map(|entry| entry.target.clone().unwrap()).collect::<Vec<_>>()
    };
    let expected = |range: std::ops::Range<usize>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(numbers().await, expected(210..330));
    purge().await;
    assert_eq!(numbers().await, expected(210..330), "nothing is counted twice");
    audit(&env, &ada, 330, 1).await;
    purge().await;
    assert_eq!(numbers().await, expected(211..331));
    // Expired entries and surplus ones in one step: each is counted once.
    env.clock.advance(TimeDelta::days(29));
    let ada = env.login(EMAIL, PASSWORD).await.unwrap();
    audit(&env, &ada, 332, 100).await;
    let month = AuditRetention::new(TimeDelta::days(28), 60);
    let auth = env.with(|settings| settings.audit_retention = month).await;
    assert!(matches!(auth.purge(STEP).await.unwrap(), Purge::Done(..)));
    assert_eq!(numbers().await, expected(372..432));
    let extent = env.store.begin().get::<AuditExtent>(tenant, ()).await.unwrap().unwrap();
    assert_eq!(extent.entries, 60);
}
