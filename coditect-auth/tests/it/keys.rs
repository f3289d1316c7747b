//! The key ring in the store: shared by several servers, opened by one master key.

use std::time::Duration;

use chrono::TimeDelta;
use coditect_auth::{
    AccessSettings, Auth, ClientInfo, Error, HashParams, JwksVerifier, KeyError, MasterKey,
    Registration, SealedKey, Settings, TokenError, Tokens, WrappedRootKey, load_master_key,
    replace_master_key, replace_master_key_file,
};
use coditect_store::{
    Clock, Store, Transaction,
    engine::{Database, RangeQuery},
    keyspace::Global,
};
use futures_util::future::{join, join_all};
use tokio::time::{sleep, timeout};

use crate::env::TestEnv;

#[tokio::test]
async fn servers_over_one_store_share_the_ring() {
    let env = TestEnv::new().await;
    let tokens = env.register("ada@example.org").await.unwrap().tokens;
    let other = env.another(env.master.clone()).await.unwrap();
    assert!(other.verify(tokens.access.expose()).await.is_ok());
    assert!(other.refresh(tokens.refresh.expose(), None, &ClientInfo::default()).await.is_ok());
    assert_eq!(other.jwks(), env.auth.jwks());
}

#[tokio::test]
async fn servers_that_start_at_once_on_a_new_store_make_one_ring() {
    let env = TestEnv::new().await;
    let store = &env.store;
    store
        .run(|tx| async move {
            for key in tx.list::<SealedKey>(Global).all(10).await? {
                tx.delete::<SealedKey>(Global, key.kid).await?;
            }
            Ok::<_, coditect_store::Error>(())
        })
        .await
        .unwrap();
    let servers = join_all((0..8).map(|_| env.another(env.master.clone()))).await;
    let rings: Vec<_> = servers.into_iter().map(|auth| auth.unwrap().jwks()).collect();
    assert!(rings.iter().all(|ring| *ring == rings[0]));
}

#[tokio::test]
async fn wrong_master_key_fails_at_the_start() {
    let env = TestEnv::new().await;
    let outcome = env.another(MasterKey::generate().unwrap()).await;
    assert!(matches!(outcome, Err(Error::Key(KeyError::WrongMasterKey))), "{outcome:?}");
}

#[tokio::test]
async fn master_key_is_created_for_a_new_store_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let new = coditect_auth::entities(Store::options());
    let new = new.open(Database::temporary().unwrap()).await.unwrap();
    let made = load_master_key(&path, &new).await.unwrap();
    assert_eq!(load_master_key(&path, &new).await.unwrap(), made);

    std::fs::remove_file(&path).unwrap();
    let env = TestEnv::new().await;
    let outcome = load_master_key(&path, &env.store).await;
    assert!(matches!(outcome, Err(Error::Key(KeyError::MasterKeyMissing { .. }))), "{outcome:?}");
    assert!(!path.exists());
}

#[tokio::test]
async fn server_loads_keys_of_another_one() {
    let env = TestEnv::new().await;
    let other = env.another(env.master.clone()).await.unwrap();
    // Twice, so that the active key is unknown to the first server.
    other.rotate_keys().await.unwrap();
    other.rotate_keys().await.unwrap();
    let tokens = register(&other).await;
    assert!(env.holds(&tokens).await, "the ring is read again for a key that is not in it");
}

#[tokio::test]
async fn rotation_by_another_server_ends_the_wait_for_one() {
    let env = TestEnv::new().await;
    let other = env.another(env.master.clone()).await.unwrap();
    let patience = Duration::from_secs(20);
    let rotation = async {
        sleep(Duration::from_millis(20)).await;
        other.rotate_keys().await.unwrap();
    };
    let (rotated, ()) = join(timeout(patience, env.auth.wait_for_key_rotation()), rotation).await;
    rotated.expect("the wait ends").unwrap();
    env.auth.rotate_due_keys().await.unwrap();
    assert_eq!(env.auth.jwks(), other.jwks());
    // A rotation before the wait ends it too.
    other.rotate_keys().await.unwrap();
    timeout(patience, env.auth.wait_for_key_rotation()).await.expect("the wait ends").unwrap();
}

async fn register(auth: &Auth) -> Tokens {
    let registration = Registration {
        email: &format!("{}@example.org", uuid::Uuid::now_v7()),
        password: crate::env::PASSWORD,
        first_name: None,
        last_name: None,
    };
    auth.register(registration, &ClientInfo::default()).await.unwrap().tokens
}

async fn states(env: &TestEnv) -> Vec<&'static str> {
    env.auth.signing_keys().await.unwrap().iter().map(|key| key.state.name()).collect()
}

#[tokio::test]
async fn key_signs_for_thirty_days_and_is_destroyed_after_its_last_token() {
    let env = TestEnv::new().await;
    env.clock.advance(TimeDelta::days(30) - TimeDelta::seconds(1));
    env.auth.rotate_due_keys().await.unwrap();
    assert_eq!(states(&env).await, ["active", "next"]);
    let last = register(&env.auth).await;
    env.clock.advance(TimeDelta::seconds(1));
    env.auth.rotate_due_keys().await.unwrap();
    assert_eq!(states(&env).await, ["retired", "active", "next"]);

    // Its last token is valid until its expiry.
    env.clock.advance(TimeDelta::minutes(15) - TimeDelta::seconds(2));
    env.auth.rotate_due_keys().await.unwrap();
    assert!(env.holds(&last).await);
    env.clock.advance(TimeDelta::hours(1));
    env.auth.rotate_due_keys().await.unwrap();
    assert_eq!(states(&env).await, ["destroyed", "active", "next"]);
    let outcome = env.caller(last.access.expose()).await;
    assert!(matches!(outcome, Err(Error::TokenInvalid(_))), "its key is not there: {outcome:?}");
    env.auth.refresh(last.refresh.expose(), None, &ClientInfo::default()).await.unwrap();
}

#[tokio::test]
async fn of_servers_that_keep_the_keys_at_once_one_rotates() {
    let env = TestEnv::new().await;
    let mut servers = Vec::new();
    for _ in 0..6 {
        servers.push(env.another(env.master.clone()).await.unwrap());
    }
    env.clock.advance(TimeDelta::days(31));
    for outcome in join_all(servers.iter().map(Auth::rotate_due_keys)).await {
        outcome.unwrap();
    }
    assert_eq!(states(&env).await, ["retired", "active", "next"]);
    assert!(servers.iter().all(|server| server.jwks() == servers[0].jwks()));
}

#[tokio::test]
async fn token_of_any_server_verifies_on_all_through_rotations() {
    let env = TestEnv::new().await;
    let other = env.another(env.master.clone()).await.unwrap();
    for _ in 0..5 {
        // The other server has not reloaded the ring, and signs with the previous key.
        env.auth.rotate_keys().await.unwrap();
        let (here, there) = (register(&env.auth).await, register(&other).await);
        for tokens in [&here, &there] {
            for server in [&env.auth, &other] {
                server.verify(tokens.access.expose()).await.unwrap();
            }
        }
        other.rotate_due_keys().await.unwrap();
    }
}

#[tokio::test]
async fn of_rotations_that_are_asked_for_at_once_one_is_done() {
    let env = TestEnv::new().await;
    let mut servers = Vec::new();
    for _ in 0..6 {
        servers.push(env.another(env.master.clone()).await.unwrap());
    }
    for outcome in join_all(servers.iter().map(Auth::rotate_keys)).await {
        outcome.unwrap();
    }
    assert_eq!(states(&env).await, ["retired", "active", "next"]);
    servers[0].rotate_keys().await.unwrap();
    assert_eq!(states(&env).await, ["retired", "retired", "active", "next"]);
}

#[tokio::test]
async fn token_verifies_everywhere_despite_forged_key_ids_and_two_rotations() {
    let env = TestEnv::new().await;
    let other = env.another(env.master.clone()).await.unwrap();
    let stranger = register(&TestEnv::new().await.auth).await;
    for _ in 0..3 {
        // It reloads the ring just before keys that it does not know are created.
        let outcome = env.auth.verify(stranger.access.expose()).await;
        assert!(matches!(outcome, Err(Error::TokenInvalid(_))), "{outcome:?}");
        other.rotate_keys().await.unwrap();
        other.rotate_keys().await.unwrap();
        let tokens = register(&other).await;
        env.auth.verify(tokens.access.expose()).await.unwrap();
    }
}

#[tokio::test]
async fn server_with_a_stale_ring_signs_with_no_destroyed_key() {
    let env = TestEnv::new().await;
    let stalled = env.another(env.master.clone()).await.unwrap();
    env.auth.rotate_keys().await.unwrap();
    env.clock.advance(TimeDelta::hours(1));
    env.auth.rotate_due_keys().await.unwrap();
    assert_eq!(states(&env).await, ["destroyed", "active", "next"]);
    let tokens = register(&stalled).await;
    env.auth.verify(tokens.access.expose()).await.unwrap();
}

#[tokio::test]
async fn server_with_a_stale_ring_rejects_tokens_of_destroyed_keys() {
    let env = TestEnv::new().await;
    let stalled = env.another(env.master.clone()).await.unwrap();
    let long = with_life(&env, TimeDelta::hours(24)).await;
    let tokens = register(&long).await;
    stalled.verify(tokens.access.expose()).await.unwrap();
    env.auth.rotate_keys().await.unwrap();
    env.clock.advance(TimeDelta::hours(1));
    env.auth.rotate_due_keys().await.unwrap();
    assert_eq!(states(&env).await, ["destroyed", "active", "next"]);
    let outcome = stalled.verify(tokens.access.expose()).await;
    assert!(matches!(outcome, Err(Error::TokenInvalid(_))), "{outcome:?}");
}

#[tokio::test]
async fn manual_rotation_destroys_no_key_whatever_its_token_lifetime() {
    let env = TestEnv::new().await;
    let server = with_life(&env, TimeDelta::hours(24)).await;
    let tokens = register(&server).await;
    server.rotate_keys().await.unwrap();
    env.clock.advance(TimeDelta::hours(2));
    // As run by an operator beside a stopped server, with other settings.
    env.another(env.master.clone()).await.unwrap().rotate_keys().await.unwrap();
    assert_eq!(states(&env).await, ["retired", "retired", "active", "next"]);
    let restarted = with_life(&env, TimeDelta::hours(24)).await;
    restarted.rotate_due_keys().await.unwrap();
    restarted.verify(tokens.access.expose()).await.unwrap();
}

/// Opens a server over the same store with access tokens valid for `ttl`.
async fn with_life(env: &TestEnv, ttl: TimeDelta) -> Auth {
    let settings = Settings::default()
        .access(AccessSettings::default().ttl(ttl))
        .hash(HashParams::weak_for_tests());
    let clock = Clock::from(&env.clock);
    Auth::open(env.store.clone(), env.master.clone(), clock, settings).await.unwrap()
}

#[tokio::test]
async fn another_service_verifies_by_the_published_keys_alone() {
    let env = TestEnv::new().await;
    let settings = AccessSettings::default();
    let mut verifier = JwksVerifier::new(&env.auth.jwks(), settings.clone()).unwrap();
    let ada = env.register("ada@example.org").await.unwrap();
    let claims = verifier.verify(ada.tokens.access.expose(), env.now()).unwrap();
    assert_eq!((claims.sub, claims.tenant_id), (ada.user.id, ada.user.tenant_id));
    let late = verifier.verify(ada.tokens.access.expose(), env.now() + TimeDelta::hours(1));
    assert!(matches!(late, Err(Error::TokenExpired)));
    let refresh = verifier.verify(ada.tokens.refresh.expose(), env.now());
    assert!(matches!(refresh, Err(Error::TokenInvalid(_))));
    let elsewhere = settings.clone().audience("billing".to_owned());
    let elsewhere = JwksVerifier::new(&env.auth.jwks(), elsewhere).unwrap();
    let other = elsewhere.verify(ada.tokens.access.expose(), env.now());
    assert!(matches!(other, Err(Error::TokenInvalid(TokenError::Audience))));

    // The next key is in the document before it signs; the one after it is not.
    env.auth.rotate_keys().await.unwrap();
    let bob = env.register("bob@example.org").await.unwrap();
    verifier.verify(bob.tokens.access.expose(), env.now()).unwrap();
    env.auth.rotate_keys().await.unwrap();
    let eve = env.register("eve@example.org").await.unwrap();
    let unknown = verifier.verify(eve.tokens.access.expose(), env.now());
    assert!(matches!(unknown, Err(Error::TokenInvalid(TokenError::UnknownKey))));
    verifier.replace_keys(&env.auth.jwks()).unwrap();
    verifier.verify(eve.tokens.access.expose(), env.now()).unwrap();
}

#[tokio::test]
async fn another_master_key_ends_nothing() {
    let env = TestEnv::new().await;
    let tokens = env.register("ada@example.org").await.unwrap().tokens;
    let (clock, next) = (Clock::from(&env.clock), MasterKey::generate().unwrap());
    let stranger = MasterKey::generate().unwrap();
    let wrong = replace_master_key(&env.store, &clock, &stranger, &next).await;
    assert!(matches!(wrong, Err(Error::Key(KeyError::WrongMasterKey))));
    for _again in 0..2 {
        replace_master_key(&env.store, &clock, &env.master, &next).await.unwrap();
    }
    let before = env.another(env.master.clone()).await;
    assert!(matches!(before, Err(Error::Key(KeyError::WrongMasterKey))));
    let restarted = env.another(next).await.unwrap();
    restarted.verify(tokens.access.expose()).await.unwrap();
    restarted.refresh(tokens.refresh.expose(), None, &ClientInfo::default()).await.unwrap();
    env.refresh(&tokens).await.unwrap();
    assert_eq!(restarted.jwks(), env.auth.jwks());
}

#[tokio::test]
async fn master_key_replaced_before_the_first_start_is_no_root_key() {
    let store = coditect_auth::entities(Store::options());
    let store = store.open(Database::temporary().unwrap()).await.unwrap();
    let (present, next) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
    replace_master_key(&store, &Clock::system(), &present, &next).await.unwrap();
    let root = store.begin().get::<WrappedRootKey>(Global, ()).await.unwrap().unwrap();
    assert!(root.open(&next).unwrap().expose() != present.expose());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let outcome = load_master_key(&path, &store).await;
    assert!(matches!(outcome, Err(Error::Key(KeyError::MasterKeyMissing { .. }))), "{outcome:?}");
    assert!(!path.exists(), "another would open nothing");
}

#[tokio::test]
async fn interrupted_master_key_replacement_completes_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let successor = folder.path().join("master.key.new");
    let store = coditect_auth::entities(Store::options());
    let store = store.open(Database::temporary().unwrap()).await.unwrap();
    let clock = Clock::system();
    let opens = async || {
        let master = load_master_key(&path, &store).await.unwrap();
        let auth = Auth::open(store.clone(), master.clone(), clock.clone(), Settings::default());
        auth.await.map(|_| master)
    };
    let first = opens().await.unwrap();
    replace_master_key_file(&path, &store, &clock).await.unwrap();
    let second = opens().await.unwrap();
    assert!(first != second && !successor.exists());

    // Interrupted before the store changed: the new key exists and is not needed.
    let third = MasterKey::load_or_create(&successor).unwrap();
    assert_eq!(opens().await.unwrap(), second);
    // Interrupted between the store and the file.
    replace_master_key(&store, &clock, &second, &third).await.unwrap();
    assert_eq!(opens().await.unwrap(), third);
    assert!(!successor.exists());
}

#[tokio::test]
async fn installation_without_a_root_key_keeps_its_tokens_and_takes_a_new_master_key() {
    let env = TestEnv::new().await;
    // A store whose keys were derived from the master key directly.
    let root = env.store.begin().get::<WrappedRootKey>(Global, ()).await.unwrap().unwrap();
    let as_it_was = MasterKey::parse(&hex(root.open(&env.master).unwrap().expose())).unwrap();
    let forget =
        |tx: Transaction| async move { tx.delete::<WrappedRootKey>(Global, ()).await.map(|_| ()) };
    env.store.run(forget).await.unwrap();
    let wrong = env.another(env.master.clone()).await;
    assert!(matches!(wrong, Err(Error::Key(KeyError::WrongMasterKey))));

    let tokens = env.register("ada@example.org").await.unwrap().tokens;
    let upgraded = env.another(as_it_was.clone()).await.unwrap();
    upgraded.refresh(tokens.refresh.expose(), None, &ClientInfo::default()).await.unwrap();
    let clock = Clock::from(&env.clock);
    replace_master_key(&env.store, &clock, &as_it_was, &env.master).await.unwrap();
    let restarted = env.another(env.master.clone()).await.unwrap();
    restarted.verify(tokens.access.expose()).await.unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[tokio::test]
async fn keys_lie_where_the_keyspace_has_them() {
    let env = TestEnv::new().await;
    let tx = env.store.begin();
    let keys = tx.list::<SealedKey>(Global).all(10).await.unwrap();
    let ring = RangeQuery::new(b"\x02signing_keys", b"\x02signing_keys\x01");
    let rows = tx.engine().get_range(&ring).await.unwrap().rows;
    assert_eq!(rows.len(), keys.len());
    for (row, key) in rows.iter().zip(&keys) {
        // A string, then a UUID: ("signing_keys", kid) as FoundationDB's tuple layer packs it.
        let expected = [&b"\x02signing_keys\x00\x30"[..], key.kid.0.as_bytes()].concat();
        assert_eq!(row.key, expected);
    }
}
