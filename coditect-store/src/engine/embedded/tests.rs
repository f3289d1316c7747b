//! What this engine alone promises: what it does when its disk fails, and when more wait than fit.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use futures_util::future::join_all;

use super::{super::RangeQuery, storage::failing::Failure, *};
use crate::engine::{Database, Engine, Isolation};

#[tokio::test]
async fn a_failed_sync_answers_that_the_outcome_is_unknown_and_closes_the_engine() {
    // A commit syncs twice; a panic of the storage is no better than an error.
    for (nth, failure) in
        [(0, Failure::Error), (1, Failure::Error), (0, Failure::Panic), (1, Failure::Panic)]
    {
        let syncs_left = Arc::new(AtomicI64::new(i64::MAX));
        let storage = Storage::failing(Arc::clone(&syncs_left), failure).unwrap();
        let engine = Embedded::start("embedded", storage, &Options::default()).unwrap();
        let database = Database::of(Engine::Embedded(engine));
        let reader = database.begin();
        reader.read_version().await.unwrap();
        let watching = database.begin();
        let watch = watching.watch(b"a").await.unwrap();
        watching.commit().await.unwrap();

        syncs_left.store(nth, Ordering::SeqCst);
        let writes = (0..10_u8).map(|number| {
            let tx = database.begin();
            tx.set(&[number], b"");
            async move { tx.commit().await }
        });
        let mut unknown = 0;
        for outcome in join_all(writes).await {
            let error = outcome.unwrap_err();
            match error.kind() {
                ErrorKind::MaybeCommitted => {
                    unknown += 1;
                    assert!(std::error::Error::source(&error).is_some(), "the cause is kept");
                }
                // It was still waiting.
                kind => assert_eq!(kind, ErrorKind::Closed),
            }
        }
        assert!(unknown > 0, "{failure:?} of sync {nth}");
        assert_eq!(reader.get(b"a").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(database.begin().get(b"a").await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(watch.await.unwrap_err().kind(), ErrorKind::Closed);
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_commits_than_the_queue_holds_wait_and_all_succeed() {
    let engine = Embedded::memory(&Options::default()).unwrap();
    let commits = (0..6_000_u32).map(|number| {
        let tx = engine.begin();
        // 50 kB each: 300 MB, where the queue may hold 64 MiB.
        tx.set(&number.to_be_bytes(), &vec![7; 50_000]);
        async move { tx.commit().await }
    });
    for outcome in join_all(commits).await {
        outcome.unwrap();
    }
    let mut tx = engine.begin();
    let mut seen = 0;
    let mut from = Vec::new();
    loop {
        let query = RangeQuery::new(from.clone(), b"\xff").limit(500);
        let rows = tx.get_range(&query, Isolation::Snapshot).unwrap().rows;
        let Some(last) = rows.last() else { break };
        seen += rows.len();
        from = writes::next_key(&last.key);
        tx = engine.begin();
    }
    assert_eq!(seen, 6_000);
}
