//! Handles: clones, futures, and dropping.

use futures_util::future::{join, join_all};

use super::{AtomicOp, Database, RangeQuery, keys, value, write};

pub(super) async fn dropped_transaction_has_no_effect(database: Database) {
    let reader = database.begin();
    reader.get(b"a").await.unwrap();
    let tx = database.begin();
    tx.set(b"a", b"1");
    tx.atomic(AtomicOp::Add, b"n", b"\x01");
    tx.add_write_conflict_range(b"", b"\xff").unwrap();
    drop(tx);
    assert_eq!(value(&database, "a").await, None);
    reader.set(b"b", b"");
    reader.commit().await.unwrap();
}

pub(super) async fn handles_share_one_database(database: Database) {
    let commits = (b'a'..b'i').map(|letter| {
        let database = database.clone();
        async move {
            let tx = database.begin();
            tx.set(&[letter], b"");
            tx.commit().await.unwrap();
        }
    });
    join_all(commits).await;
    let all = keys(&database.begin(), &RangeQuery::new(b"", b"\xff")).await;
    assert_eq!(all.concat(), "abcdefgh");
}

pub(super) async fn clones_share_a_transaction(database: Database) {
    write(&database, &[("a", "1"), ("b", "2")]).await;
    let tx = database.begin();
    let clone = tx.clone();
    clone.set(b"c", b"3");
    let (a, c) = join(tx.get(b"a"), clone.get(b"c")).await;
    assert_eq!((a.unwrap().unwrap(), c.unwrap().unwrap()), (b"1".to_vec(), b"3".to_vec()));
    drop(clone);
    tx.commit().await.unwrap();
    assert_eq!(value(&database, "c").await.as_deref(), Some("3"));
}

pub(super) async fn futures_are_send(database: Database) {
    let tx = database.begin();
    let work = async move {
        let query = RangeQuery::new(b"", b"\xff");
        tx.get(b"a").await.unwrap();
        tx.snapshot().get_range(&query).await.unwrap();
        tx.stream(query).next_page().await.unwrap();
        tx.read_version().await.unwrap();
        let watch = tx.watch(b"a").await.unwrap();
        tx.set(b"b", b"1");
        tx.commit().await.unwrap();
        watch.await.unwrap();
    };
    let working = tokio::spawn(work);
    while value(&database, "b").await.is_none() {
        tokio::task::yield_now().await;
    }
    let other = database.clone();
    tokio::spawn(async move { write(&other, &[("a", "1")]).await }).await.unwrap();
    working.await.unwrap();
    let ran =
        tokio::spawn(async move { database.run(|tx| async move { tx.get(b"a").await }).await });
    assert!(ran.await.unwrap().unwrap().is_some());
}
