//! Reads and writes of several steps continue after an error, or after their future was dropped.

use coditect_store::{
    BlobUpload, Clock, ErrorKind, Store,
    engine::{Database, Fault, Faults, KeyValue, Options, RangeQuery},
};
use futures_util::FutureExt as _;

use crate::planner::tenant;

/// Ten rows, three pages of `query`.
async fn ten_rows(database: &Database) -> RangeQuery {
    let fill = |tx: coditect_store::engine::Transaction| async move {
        for number in 0..10_u8 {
            tx.set(&[b'k', number], &[number; 100]);
        }
        Ok::<_, coditect_store::Error>(())
    };
    database.run(fill).await.unwrap();
    RangeQuery::new(b"k", b"l").target_bytes(400)
}

fn numbers(rows: &[KeyValue]) -> Vec<u8> {
    rows.iter().map(|row| row.key[1]).collect()
}

#[tokio::test]
async fn range_stream_continues_after_an_error() {
    let faults = Faults::default();
    let database = Database::temporary().unwrap().with_faults(faults.clone());
    for query in {
        let query = ten_rows(&database).await;
        [query.clone(), query.clone().descending(), query.limit(9)]
    } {
        let whole = RangeQuery { target_bytes: None, ..query.clone() };
        let expected = numbers(&database.begin().get_range(&whole).await.unwrap().rows);
        let tx = database.begin();
        let mut stream = tx.snapshot().stream(query);
        let (mut rows, mut failed) = (Vec::new(), 0);
        loop {
            faults.plan(0, Fault::Lagging);
            let error = stream.next_page().await;
            faults.clear();
            match error {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable);
                    failed += 1;
                }
                // The end needs no read.
                Ok(page) => {
                    assert_eq!(page, None);
                    break;
                }
            }
            let Some(page) = stream.next_page().await.unwrap() else { break };
            rows.extend(numbers(&page));
        }
        assert!(failed >= 3, "each page failed once: {failed}");
        assert_eq!(rows, expected);
    }
}

#[tokio::test]
async fn range_stream_continues_after_its_future_was_dropped() {
    let options = Options::default().simulate_round_trips(true);
    let database = Database::temporary_with(&options).unwrap();
    let query = ten_rows(&database).await;
    let tx = database.begin();
    let mut stream = tx.stream(query);
    let (mut rows, mut dropped) = (Vec::new(), 0);
    loop {
        let page = if let Some(page) = stream.next_page().now_or_never() {
            page
        } else {
            dropped += 1;
            stream.next_page().await
        };
        let Some(page) = page.unwrap() else { break };
        rows.extend(numbers(&page));
    }
    assert!(dropped >= 3, "each page was dropped once: {dropped}");
    assert_eq!(rows, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn upload_with_a_failed_write_is_never_finished() {
    let faults = Faults::default();
    let database = Database::temporary().unwrap();
    let store = Store::open(database.with_faults(faults.clone())).await.unwrap();
    let bytes = vec![7; 1_000_000];
    let mut upload = BlobUpload::begin(&store, tenant(1), &Clock::system()).await.unwrap();
    faults.plan(0, Fault::Silent);
    assert_eq!(upload.write(&bytes).await.unwrap_err().kind(), ErrorKind::Unavailable);
    faults.clear();
    assert_eq!(upload.write(&bytes).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(upload.finish().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn upload_with_a_dropped_write_cannot_be_finished() {
    // The write waits for its first read.
    let database =
        Database::temporary_with(&Options::default().simulate_round_trips(true)).unwrap();
    let store = Store::open(database).await.unwrap();
    let bytes = vec![7; 1_000_000];
    let mut upload = BlobUpload::begin(&store, tenant(1), &Clock::system()).await.unwrap();
    upload.write(&bytes[..10]).await.unwrap();
    // A write that is never polled has no effect.
    drop(upload.write(&bytes));
    upload.write(&bytes[..10]).await.unwrap();
    assert!(upload.write(&bytes).now_or_never().is_none(), "a write waits for its reads");
    assert_eq!(upload.write(b"more").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(upload.finish().await.unwrap_err().kind(), ErrorKind::Invalid);
}
