//! Limits of size and time.

use std::time::Duration;

use super::{
    AtomicOp, Database, ErrorKind, KEY_SIZE_LIMIT, LIFETIME, RangeQuery, Result,
    TRANSACTION_SIZE_LIMIT, Transaction, VALUE_SIZE_LIMIT, kind, value, write,
};

/// Maximum length of the prefix of the database under test, in bytes.
const MAX_PREFIX_BYTES: usize = 100;

fn limit<T: std::fmt::Debug>(outcome: Result<T>) -> Option<i32> {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    error.code()
}

pub(super) async fn key_above_10_000_bytes_is_refused(database: Database) {
    let writes: [fn(&Transaction, &[u8]); 2] =
        [|tx, key| tx.set(key, b"1"), |tx, key| tx.atomic(AtomicOp::Add, key, b"1")];
    for write in writes {
        let tx = database.begin();
        let longest = vec![b'k'; KEY_SIZE_LIMIT - MAX_PREFIX_BYTES];
        write(&tx, &longest);
        tx.commit().await.unwrap();
        assert_eq!(database.begin().get(&longest).await.unwrap().unwrap(), b"1");
        let tx = database.begin();
        tx.clear(&longest);
        write(&tx, &[b'k'; KEY_SIZE_LIMIT + 1]);
        assert_eq!(limit(tx.commit().await), Some(2102));
        assert!(database.begin().get(&longest).await.unwrap().is_some());
        let tx = database.begin();
        tx.clear(&longest);
        tx.commit().await.unwrap();
    }
    let found = database.begin().get(&[b'k'; KEY_SIZE_LIMIT + 1]).await;
    assert_eq!(found.unwrap(), None, "no key is that long");
}

pub(super) async fn value_above_100_000_bytes_is_refused(database: Database) {
    let tx = database.begin();
    tx.set(b"a", &vec![1; VALUE_SIZE_LIMIT]);
    tx.commit().await.unwrap();
    let tx = database.begin();
    tx.set(b"a", &vec![2; VALUE_SIZE_LIMIT + 1]);
    assert_eq!(limit(tx.commit().await), Some(2103));
    let found = database.begin().get(b"a").await.unwrap().unwrap();
    assert!(found == vec![1; VALUE_SIZE_LIMIT]);
}

pub(super) async fn transaction_above_10_000_000_bytes_is_refused(database: Database) {
    let value = vec![0; VALUE_SIZE_LIMIT];
    let fitting = TRANSACTION_SIZE_LIMIT / VALUE_SIZE_LIMIT - 1;
    for (values, fits) in [(fitting, true), (fitting + 1, false)] {
        let tx = database.begin();
        for number in 0..values {
            tx.set(&number.to_be_bytes(), &value);
        }
        tx.set(b"size", values.to_string().as_bytes());
        let outcome = tx.commit().await;
        assert_eq!(outcome.is_ok(), fits, "{values} values: {outcome:?}");
        if !fits {
            assert_eq!(limit(outcome), Some(2101));
        }
    }
    assert_eq!(self::value(&database, "size").await.unwrap(), fitting.to_string());
}

pub(super) async fn invalid_write_fails_the_next_read_and_the_commit(database: Database) {
    let tx = database.begin();
    tx.set(b"a", &vec![0; VALUE_SIZE_LIMIT + 1]);
    tx.set(b"b", b"fine");
    assert_eq!(tx.get(b"c").await.unwrap_err().code(), Some(2103));
    assert_eq!(tx.commit().await.unwrap_err().code(), Some(2103));
    assert_eq!(value(&database, "b").await, None);
}

pub(super) async fn size_includes_keys_values_and_conflict_ranges(database: Database) {
    let tx = database.begin();
    assert_eq!(tx.approximate_size().await.unwrap(), 0);
    tx.set(b"key", b"value");
    let one = tx.approximate_size().await.unwrap();
    assert!((8..400).contains(&one), "{one}");
    tx.add_read_conflict_range(&[b'r'; 500], &[b's'; 500]).unwrap();
    assert!(tx.approximate_size().await.unwrap() >= one + 1_000);
}

/// Covers all effects of the lifetime of transactions, to wait for it only once.
pub(super) async fn transaction_is_too_old_after_five_seconds(database: Database) {
    write(&database, &[("a", "1")]).await;
    let (reader, scanner) = (database.begin(), database.begin());
    let (writer, blind) = (database.begin(), database.begin());
    let (snapshot, versionless) = (database.begin(), database.begin());
    for tx in [&reader, &scanner, &writer, &blind] {
        tx.read_version().await.unwrap();
        tx.set(b"b", b"");
    }
    snapshot.snapshot().get(b"a").await.unwrap();
    snapshot.set(b"b", b"");
    versionless.set(b"c", b"");
    writer.add_read_conflict_range(b"a", b"b").unwrap();
    tokio::time::sleep(LIFETIME + Duration::from_millis(100)).await;
    // Idle servers of a cluster expire versions some seconds late. Each attempt uses another key,
    // since the client caches reads.
    for number in 0..150_u8 {
        if scanner.get(&[number]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Nothing was written in between.
    let late = database.begin();
    assert!(late.get(b"a").await.unwrap().is_some());
    late.set(b"a", b"2");
    late.commit().await.unwrap();

    let error = reader.get(b"a").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::TransactionTooOld, Some(1007)));
    assert!(error.is_retryable());
    assert_eq!(kind(reader.commit().await), ErrorKind::TransactionTooOld, "a read failed");
    let page = scanner.get_range(&RangeQuery::new(b"", b"\xff")).await;
    assert_eq!(kind(page), ErrorKind::TransactionTooOld);
    assert_eq!(kind(writer.commit().await), ErrorKind::TransactionTooOld);
    assert_eq!(
        kind(blind.commit().await),
        ErrorKind::TransactionTooOld,
        "has writes and a read version"
    );
    assert_eq!(
        kind(snapshot.commit().await),
        ErrorKind::TransactionTooOld,
        "has writes and a read version"
    );
    versionless.commit().await.unwrap();
}
