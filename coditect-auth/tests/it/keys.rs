//! The key ring in the store: shared by several servers, opened by one master key.

use coditect_auth::{Device, Error, KeyError, MasterKey, SealedKey, keys};
use coditect_store::{engine::RangeQuery, keyspace::Global};
use futures_util::future::join_all;

use crate::installation::Installation;

#[tokio::test]
async fn servers_over_one_store_share_the_ring() {
    let home = Installation::new().await;
    let tokens = home.register("ada@example.org").await.unwrap().tokens;
    let other = home.another(home.master.clone()).await.unwrap();
    assert!(other.verify(tokens.access.expose()).await.is_ok());
    assert!(other.refresh(tokens.refresh.expose(), None, &Device::default()).await.is_ok());
    assert_eq!(other.jwks(), home.auth.jwks());
}

#[tokio::test]
async fn servers_that_start_at_once_on_a_new_store_make_one_ring() {
    let home = Installation::new().await;
    let store = &home.store;
    store
        .run(|tx| async move {
            for key in tx.list::<SealedKey>(Global).all(10).await? {
                tx.delete::<SealedKey>(Global, key.kid).await?;
            }
            Ok::<_, coditect_store::Error>(())
        })
        .await
        .unwrap();
    let servers = join_all((0..8).map(|_| home.another(home.master.clone()))).await;
    let rings: Vec<_> = servers.into_iter().map(|auth| auth.unwrap().jwks()).collect();
    assert!(rings.iter().all(|ring| *ring == rings[0]));
}

#[tokio::test]
async fn a_wrong_master_key_is_told_at_the_start() {
    let home = Installation::new().await;
    let outcome = home.another(MasterKey::generate().unwrap()).await;
    assert!(matches!(outcome, Err(Error::Key(KeyError::DoesNotOpen { .. }))), "{outcome:?}");
}

#[tokio::test]
async fn a_master_key_is_made_for_a_new_store_and_missed_for_an_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("master.key");
    let new = coditect_auth::entities(coditect_store::Store::options());
    let new = new.open(coditect_store::engine::Database::memory().unwrap()).await.unwrap();
    let made = coditect_auth::master_key_at(&path, &new).await.unwrap();
    assert_eq!(coditect_auth::master_key_at(&path, &new).await.unwrap(), made);

    std::fs::remove_file(&path).unwrap();
    let home = Installation::new().await;
    let outcome = coditect_auth::master_key_at(&path, &home.store).await;
    assert!(matches!(outcome, Err(Error::Key(KeyError::MasterKeyMissing { .. }))), "{outcome:?}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_server_learns_of_a_key_that_another_one_made() {
    let home = Installation::new().await;
    let (store, master, now) = (&home.store, &home.master, home.now());
    store
        .run(|tx| async move {
            let known = tx.list::<SealedKey>(Global).all(100).await?;
            let life = chrono::TimeDelta::minutes(15);
            // Twice, so that the key that signs is one that the first server has never seen.
            let once = keys::rotate(&known, now, life, || SealedKey::generate(master, now))?;
            let mut records = known.clone();
            records.retain(|key| once.iter().all(|changed| changed.kid != key.kid));
            records.extend(once);
            let twice = keys::rotate(&records, now, life, || SealedKey::generate(master, now))?;
            records.retain(|key| twice.iter().all(|changed| changed.kid != key.kid));
            records.extend(twice);
            for key in &records {
                match tx.get::<SealedKey>(Global, key.kid).await? {
                    Some(_) => tx.update(key).await?,
                    None => tx.create(key).await?,
                }
            }
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    let other = home.another(home.master.clone()).await.unwrap();
    let device = coditect_auth::Device::default();
    let registration = coditect_auth::Registration {
        email: "ada@example.org",
        password: crate::installation::PASSWORD,
        first_name: None,
        last_name: None,
    };
    let tokens = other.register(registration, &device).await.unwrap().tokens;
    assert!(home.holds(&tokens).await, "the ring is read again for a key that is not in it");
}

#[tokio::test]
async fn keys_lie_where_the_keyspace_has_them() {
    let home = Installation::new().await;
    let tx = home.store.begin();
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
