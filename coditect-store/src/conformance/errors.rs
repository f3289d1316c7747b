//! Refused calls and their errors.

use super::{AtomicOp, Database, ErrorKind, RangeQuery, Result, Transaction, kind, value};

fn invalid<T: std::fmt::Debug>(outcome: Result<T>) -> Option<i32> {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!error.is_retryable());
    error.code()
}

pub(super) async fn illegal_read_is_invalid(database: Database) {
    let tx = database.begin();
    assert_eq!(invalid(tx.get(b"\xff").await), Some(2004));
    assert_eq!(invalid(tx.get_range(&RangeQuery::new(b"", b"\xff\x01")).await), Some(2004));
    assert_eq!(invalid(tx.add_read_conflict_range(b"b", b"a")), Some(2005));
    assert_eq!(invalid(tx.add_write_conflict_range(b"b", b"a")), Some(2005));
    let inverted = tx.get_range(&RangeQuery::new(b"b", b"a")).await.unwrap();
    assert!(inverted.rows.is_empty(), "an inverted range of keys is empty");
    // None of these fails the commit.
    tx.set(b"a", b"1");
    tx.commit().await.unwrap();
}

pub(super) async fn illegal_write_is_invalid_at_the_commit(database: Database) {
    type Write = fn(&Transaction);
    let writes: [(Write, i32); 5] = [
        (|tx| tx.set(b"\xff", b""), 2004),
        (|tx| tx.clear(b"\xff\x01"), 2004),
        (|tx| tx.clear_range(b"b", b"a"), 2005),
        (|tx| tx.atomic(AtomicOp::SetVersionstampedKey, b"short", b""), 2000),
        (|tx| tx.atomic(AtomicOp::SetVersionstampedValue, b"k", b"short"), 2000),
    ];
    for (write, code) in writes {
        let tx = database.begin();
        tx.set(b"a", b"1");
        write(&tx);
        assert_eq!(invalid(tx.commit().await), Some(code));
        assert_eq!(value(&database, "a").await, None);
    }
}

pub(super) async fn versionstamp_is_unreadable_before_the_commit(database: Database) {
    let tx = database.begin();
    tx.set_versionstamped_value(b"k", b"", b"");
    assert_eq!(invalid(tx.get(b"k").await), Some(1036));
    let tx = database.begin();
    tx.set_versionstamped_key(b"log/", b"", b"");
    assert_eq!(invalid(tx.get_range(&RangeQuery::new(b"log/", b"log0")).await), Some(1036));
}

pub(super) async fn transaction_commits_once(database: Database) {
    let tx = database.begin();
    tx.set(b"a", b"1");
    tx.commit().await.unwrap();
    assert_eq!(invalid(tx.commit().await), Some(2017));
    assert_eq!(invalid(tx.get(b"a").await), Some(2017));
}

pub(super) async fn cancelled_transaction_returns_closed(database: Database) {
    let tx = database.begin();
    tx.set(b"a", b"1");
    tx.cancel();
    for error in [tx.get(b"a").await.unwrap_err(), tx.commit().await.unwrap_err()] {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Closed, Some(1025)));
        assert!(!error.is_retryable());
    }
    assert_eq!(value(&database, "a").await, None);
}

pub(super) async fn closed_database_returns_closed(database: Database) {
    let (reader, writer) = (database.begin(), database.begin());
    reader.get(b"a").await.unwrap();
    writer.set(b"a", b"1");
    database.clone().close().await;
    assert_eq!(kind(reader.get(b"a").await), ErrorKind::Closed);
    assert_eq!(kind(writer.commit().await), ErrorKind::Closed);
    let late = database.begin();
    assert_eq!(kind(late.read_version().await), ErrorKind::Closed);
    assert_eq!(kind(database.begin().watch(b"a").await), ErrorKind::Closed);
    late.set(b"a", b"2");
    assert_eq!(kind(late.commit().await), ErrorKind::Closed);
}
