//! A transaction's own writes: visibility, reads without conflicts, and the conflicts that own
//! writes add.

use super::{
    AtomicOp, Database, ErrorKind, KeySelector, RangeQuery, Transaction, keys, kind, value, write,
};

pub(super) async fn own_writes_are_visible_before_the_commit(database: Database) {
    let tx = database.begin();
    tx.set(b"a", b"1");
    assert_eq!(tx.get(b"a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(value(&database, "a").await, None);
    tx.clear(b"a");
    assert_eq!(tx.get(b"a").await.unwrap(), None);
    tx.set(b"a", b"2");
    tx.commit().await.unwrap();
    assert_eq!(value(&database, "a").await.as_deref(), Some("2"));
}

pub(super) async fn ranges_and_selectors_read_own_writes(database: Database) {
    write(&database, &[("a", ""), ("c", ""), ("e", ""), ("g", "")]).await;
    let tx = database.begin();
    tx.set(b"d", b"");
    tx.clear_range(b"c", b"f");
    tx.set(b"ee", b"");
    tx.clear(b"g");
    let all = RangeQuery::new(b"", b"\xff");
    assert_eq!(keys(&tx, &all).await, ["a", "ee"]);
    let next = tx.get_key(&KeySelector::first_greater_than(b"a")).await.unwrap();
    assert_eq!(next, b"ee");
    assert_eq!(tx.get_key(&KeySelector::first_greater_than(b"ee")).await.unwrap(), b"\xff");
    tx.commit().await.unwrap();
    assert_eq!(keys(&database.begin(), &all).await, ["a", "ee"]);
}

pub(super) async fn reads_include_own_atomic_operations(database: Database) {
    write(&database, &[("a", "\u{1}"), ("b", "b"), ("d", "d")]).await;
    let tx = database.begin();
    tx.atomic(AtomicOp::Add, b"a", b"\x02");
    tx.atomic(AtomicOp::Add, b"a", b"\x03");
    tx.atomic(AtomicOp::CompareAndClear, b"b", b"b");
    tx.set(b"c", b"c");
    tx.atomic(AtomicOp::AppendIfFits, b"c", b"+");
    tx.clear(b"d");
    tx.atomic(AtomicOp::AppendIfFits, b"d", b"new");
    let expected = [(&b"a"[..], &b"\x06"[..]), (b"c", b"c+"), (b"d", b"new")];
    let all = RangeQuery::new(b"", b"\xff");
    let expect_rows = async |reader: &Transaction| {
        let rows = reader.get_range(&all).await.unwrap().rows;
        let rows: Vec<_> = rows.iter().map(|row| (&row.key[..], &row.value[..])).collect();
        assert_eq!(rows, expected);
        assert_eq!(reader.get(b"a").await.unwrap().unwrap(), b"\x06");
        assert_eq!(reader.get(b"b").await.unwrap(), None);
    };
    expect_rows(&tx).await;
    tx.commit().await.unwrap();
    expect_rows(&database.begin()).await;
}

pub(super) async fn reads_of_own_writes_do_not_conflict(database: Database) {
    let tx = database.begin();
    tx.read_version().await.unwrap();
    tx.set(b"b", b"1");
    tx.clear_range(b"c", b"e");
    assert!(tx.get(b"b").await.unwrap().is_some());
    assert!(keys(&tx, &RangeQuery::new(b"c", b"e")).await.is_empty());
    write(&database, &[("b", "2"), ("d", "2")]).await;
    tx.commit().await.unwrap();
    assert_eq!(value(&database, "b").await.as_deref(), Some("1"));
    assert_eq!(value(&database, "d").await, None);
}

/// The result depends on the stored value.
pub(super) async fn read_of_an_own_atomic_operation_conflicts(database: Database) {
    let tx = database.begin();
    tx.atomic(AtomicOp::Add, b"n", b"\x01");
    assert_eq!(tx.get(b"n").await.unwrap().unwrap(), b"\x01");
    write(&database, &[("n", "5")]).await;
    assert_eq!(kind(tx.commit().await), ErrorKind::Conflict);
}

pub(super) async fn snapshot_reads_do_not_conflict(database: Database) {
    let tx = database.begin();
    tx.snapshot().get(b"a").await.unwrap();
    tx.snapshot().get_key(&KeySelector::first_greater_than(b"a")).await.unwrap();
    tx.snapshot().get_range(&RangeQuery::new(b"a", b"z")).await.unwrap();
    tx.snapshot().stream(RangeQuery::new(b"a", b"z")).next_page().await.unwrap();
    tx.set(b"mine", b"1");
    write(&database, &[("a", "1"), ("b", "2")]).await;
    tx.commit().await.unwrap();
}

pub(super) async fn snapshot_reads_see_one_version_and_own_writes(database: Database) {
    write(&database, &[("a", "old"), ("b", "old")]).await;
    let tx = database.begin();
    assert_eq!(tx.snapshot().get(b"a").await.unwrap().as_deref(), Some(&b"old"[..]));
    write(&database, &[("a", "new"), ("b", "new")]).await;
    assert_eq!(tx.snapshot().get(b"b").await.unwrap().as_deref(), Some(&b"old"[..]));
    tx.set(b"b", b"mine");
    tx.clear(b"a");
    assert_eq!(tx.snapshot().get(b"b").await.unwrap().as_deref(), Some(&b"mine"[..]));
    let rows = tx.snapshot().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap().rows;
    assert_eq!(rows.len(), 1);
}

pub(super) async fn explicit_conflict_ranges_conflict(database: Database) {
    for (key, expected) in [(b"a", false), (b"b", true), (b"c", true), (b"d", false)] {
        let reader = database.begin();
        reader.read_version().await.unwrap();
        reader.add_read_conflict_range(b"b", b"d").unwrap();
        reader.set(b"z", b"");
        let writer = database.begin();
        writer.add_write_conflict_range(key, &[key, &b"\0"[..]].concat()).unwrap();
        writer.commit().await.unwrap();
        assert!(writer.committed_version().is_some(), "a conflict range counts as a write");
        let outcome = reader.commit().await.map_err(|error| error.kind());
        assert_eq!(outcome == Err(ErrorKind::Conflict), expected, "{}", key.escape_ascii());
    }
    assert_eq!(value(&database, "a").await, None, "a conflict range writes nothing");
}
