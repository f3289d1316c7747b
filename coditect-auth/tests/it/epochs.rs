//! Login epochs: all logins of a user are revoked by one write, and live ones are limited.

use chrono::TimeDelta;
use coditect_auth::{Auth, ClientInfo, Credential, Error, SignedIn};
use coditect_store::model::{AuthSession, AuthSessionId, TokenFamilyId, User, UserStatus};
use futures_util::future::join_all;
use proptest::prelude::*;

use crate::env::{PASSWORD, TestEnv, sign_in};

const EMAIL: &str = "ada@example.org";

/// Number of logins beyond one page.
const MANY: usize = 1_100;

/// Stores `MANY` further logins of `ada`, past the limit.
async fn crowd(env: &TestEnv, ada: &SignedIn) {
    let (tenant, id) = (ada.user.tenant_id, ada.tokens.session_id);
    let own = env.store.begin().get::<AuthSession>(tenant, id).await.unwrap().unwrap();
    for _ in 0..MANY / 100 {
        let fill = |tx: coditect_store::Transaction| {
            let own = own.clone();
            async move {
                for _ in 0..100 {
                    let (id, token_family) = (AuthSessionId::new(), TokenFamilyId::new());
                    tx.insert(&AuthSession { id, token_family, ..own.clone() }).await?;
                }
                Ok::<_, coditect_store::Error>(())
            }
        };
        env.store.run(fill).await.unwrap();
    }
}

async fn stored(env: &TestEnv, ada: &SignedIn) -> usize {
    let tenant = ada.user.tenant_id;
    env.store.begin().list::<AuthSession>(tenant).all(MANY * 2).await.unwrap().len()
}

#[tokio::test]
async fn revocations_cover_more_logins_than_a_page() {
    let env = &TestEnv::new().await;
    let (auth, from) = (&env.auth, &ClientInfo::default());
    for (n, way) in ["others", "everywhere", "password", "reset", "sign-out", "disable", "delete"]
        .into_iter()
        .enumerate()
    {
        let email = &format!("ada{n}@example.org");
        let (thief, ada) = (env.register(email).await.unwrap(), env.login(email, PASSWORD).await);
        let ada = ada.unwrap();
        crowd(env, &thief).await;
        let caller = env.caller(ada.tokens.access.expose()).await.unwrap();
        let keeps_own = matches!(way, "others" | "password");
        match way {
            "others" => {
                let tx = env.store.begin();
                auth.revoke_other_sessions(&tx, &caller, from).await.unwrap();
                tx.commit().await.unwrap();
            }
            "everywhere" => {
                let credential = Credential::Access(ada.tokens.access.expose());
                env.logout_everywhere(credential).await.unwrap();
            }
            "password" => {
                auth.change_password(&caller, PASSWORD, "another password", from).await.unwrap();
            }
            "reset" => {
                let token = auth.reset_token(email).await.unwrap();
                auth.reset_password(token.expose(), "another password", from).await.unwrap();
            }
            "sign-out" => assert!(auth.revoke_user_sessions(email).await.unwrap() > 0),
            "disable" => {
                auth.set_status(email, UserStatus::Disabled).await.unwrap();
            }
            _ => {
                let credential = auth.verify_credential(ada.tokens.access.expose()).await.unwrap();
                auth.delete_tenant(&credential, PASSWORD, from).await.unwrap();
            }
        }
        assert!(!env.holds(&thief.tokens).await, "{way}");
        let refused = env.refresh(&thief.tokens).await;
        assert!(matches!(refused, Err(Error::SessionRevoked)), "{way}");
        assert_eq!(env.holds(&ada.tokens).await, keeps_own, "{way}");
        env.store.resume_deletions().await.unwrap();
        assert!(stored(env, &ada).await <= 1, "{way}: revoked logins are deleted");
        if keeps_own {
            let tokens = env.refresh(&ada.tokens).await.unwrap();
            assert!(env.holds(&tokens).await, "{way}");
        }
    }
}

#[tokio::test]
async fn login_beyond_the_limit_ends_the_longest_idle_one() {
    let env = &TestEnv::new().await;
    let auth = env.limited_to(3).await;
    let first = env.register(EMAIL).await.unwrap();
    let mut logins = Vec::new();
    for _ in 0..2 {
        env.clock.advance(TimeDelta::minutes(1));
        logins.push(auth.login(sign_in(EMAIL, PASSWORD), &ClientInfo::default()).await.unwrap());
    }
    env.clock.advance(TimeDelta::minutes(1));
    let first = env.refresh(&first.tokens).await.unwrap();
    auth.login(sign_in(EMAIL, PASSWORD), &ClientInfo::default()).await.unwrap();
    assert!(env.holds(&first).await, "it was used last");
    assert!(!env.holds(&logins[0].tokens).await && env.holds(&logins[1].tokens).await);
    let refused = env.refresh(&logins[0].tokens).await;
    assert!(matches!(refused, Err(Error::SessionRevoked)));
    assert!(
        crate::sessions::audited(env, &logins[0]).await.contains(&"auth.session_revoked".into())
    );
}

#[tokio::test]
async fn expired_logins_make_room_before_live_ones() {
    let env = &TestEnv::new().await;
    let auth = env.limited_to(2).await;
    let old = env.register(EMAIL).await.unwrap();
    env.clock.advance(TimeDelta::days(6));
    let live = auth.login(sign_in(EMAIL, PASSWORD), &ClientInfo::default()).await.unwrap();
    env.clock.advance(TimeDelta::days(2));
    auth.login(sign_in(EMAIL, PASSWORD), &ClientInfo::default()).await.unwrap();
    env.refresh(&live.tokens).await.unwrap();
    assert!(env.refresh(&old.tokens).await.is_err());
    assert_eq!(stored(env, &old).await, 2);
}

#[tokio::test]
async fn devices_are_paged_by_their_last_use() {
    let env = &TestEnv::new().await;
    let mut expected = vec![env.register(EMAIL).await.unwrap().tokens.session_id];
    for _ in 0..6 {
        env.clock.advance(TimeDelta::minutes(1));
        expected.insert(0, env.login(EMAIL, PASSWORD).await.unwrap().tokens.session_id);
    }
    let last = env.login(EMAIL, PASSWORD).await.unwrap();
    env.logout(Credential::Access(last.tokens.access.expose())).await.unwrap();
    let asking = env.login(EMAIL, PASSWORD).await.unwrap();
    expected.insert(0, asking.tokens.session_id);
    let asking = env.caller(asking.tokens.access.expose()).await.unwrap();
    let (mut listed, mut next) = (Vec::new(), None);
    loop {
        let tx = env.store.begin();
        let page = env.auth.sessions(&tx, &asking, (3, next.as_ref())).await.unwrap();
        assert!(page.items.len() <= 3);
        listed.extend(page.items.iter().map(|device| device.id));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(listed, expected);
}

/// Concurrent operations.
#[derive(Clone, Debug)]
struct Round {
    logins: usize,
    revocations: usize,
    refreshes: bool,
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let round = (0..4_usize, 0..3_usize, any::<bool>());
    let round =
        round.prop_map(|(logins, revocations, refreshes)| Round { logins, revocations, refreshes });
    prop::collection::vec(round, 1..5)
}

const LIMIT: usize = 4;

async fn log_in(auth: &Auth) -> SignedIn {
    auth.login(sign_in(EMAIL, PASSWORD), &ClientInfo::default()).await.unwrap()
}

async fn play(rounds: Vec<Round>) {
    let env = &TestEnv::in_memory().await;
    // Two servers, which do not serialize the logins of a user between them.
    let servers = [env.limited_to(LIMIT).await, env.limited_to(LIMIT).await];
    let ada = env.register(EMAIL).await.unwrap();
    let (tenant, user) = (ada.user.tenant_id, ada.user.id);
    let mut before = vec![ada];
    for round in rounds {
        let logins = (0..round.logins).map(|n| log_in(&servers[n % 2]));
        let revocations = (0..round.revocations).map(|_| env.auth.revoke_user_sessions(EMAIL));
        let refreshed = before.iter().filter(|_| round.refreshes).map(|it| env.refresh(&it.tokens));
        let together = futures_util::future::join3(
            join_all(logins),
            join_all(revocations),
            join_all(refreshed),
        );
        let (new, revoked, _) = together.await;
        assert!(revoked.iter().all(Result::is_ok));

        let tx = env.store.begin();
        let stored = tx.get::<User>(tenant, user).await.unwrap().unwrap();
        let all = tx.list::<AuthSession>(tenant).all(1_000).await.unwrap();
        let live = all.iter().filter(|session| !session.is_revoked(&stored));
        let live: Vec<AuthSessionId> = live.map(|session| session.id).collect();
        assert!(live.len() <= LIMIT, "{live:?}");
        for login in before.iter().chain(&new) {
            let holds = env.holds(&login.tokens).await;
            assert_eq!(holds, live.contains(&login.tokens.session_id));
        }
        if round.revocations > 0 {
            let survives = |login: &SignedIn| live.contains(&login.tokens.session_id);
            assert!(!before.iter().any(survives), "a login from before a revocation holds");
        } else {
            let expected = (before.iter().filter(|login| live.contains(&login.tokens.session_id)))
                .count()
                + new.len().min(LIMIT);
            assert!(live.len() >= new.len().min(LIMIT) && live.len() <= expected);
        }
        before.extend(new);
        if round.revocations > 1 {
            env.store.resume_deletions().await.unwrap();
            let left = env.store.begin().list::<AuthSession>(tenant).all(1_000).await.unwrap();
            assert_eq!(left.len(), live.len(), "revoked logins are deleted, live ones are not");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn logins_never_survive_a_later_revocation_and_the_limit_is_exact(rounds in rounds()) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(play(rounds));
    }
}
