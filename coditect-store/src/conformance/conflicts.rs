//! Strict serializability: one version for all reads, and conflicts only with later writes of keys
//! that were read.

use futures_util::future::join_all;

use super::{
    AtomicOp, Database, Error, ErrorKind, KEY_SIZE_LIMIT, KeySelector, RangeQuery, Transaction,
    keys, kind, value, write,
};

pub(super) async fn reads_see_one_version(database: Database) {
    write(&database, &[("a", "old"), ("b", "old")]).await;
    let reader = database.begin();
    assert_eq!(reader.get(b"a").await.unwrap().as_deref(), Some(&b"old"[..]));
    write(&database, &[("a", "new"), ("b", "new"), ("c", "new")]).await;
    assert_eq!(reader.get(b"b").await.unwrap().as_deref(), Some(&b"old"[..]));
    assert_eq!(keys(&reader, &RangeQuery::new(b"", b"\xff")).await, ["a", "b"]);
    let last = reader.get_key(&KeySelector::last_less_than(b"\xff")).await.unwrap();
    assert_eq!(last, b"b");
}

/// A cached read version would miss commits.
pub(super) async fn transaction_reads_all_earlier_commits(database: Database) {
    let other = database.clone();
    for number in 0..20 {
        let (writing, reading) =
            if number % 2 == 0 { (&database, &other) } else { (&other, &database) };
        let tx = writing.begin();
        tx.set(b"a", &[number]);
        tx.commit().await.unwrap();
        let reader = reading.begin();
        assert!(reader.read_version().await.unwrap() >= tx.committed_version().unwrap());
        assert_eq!(reader.get(b"a").await.unwrap().unwrap(), [number]);
    }
}

pub(super) async fn later_write_of_a_read_key_conflicts(database: Database) {
    let tx = database.begin();
    tx.get(b"a").await.unwrap();
    write(&database, &[("a", "1")]).await;
    tx.set(b"b", b"2");
    let error = tx.commit().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, Some(1020)));
    assert!(error.is_retryable());
    assert_eq!(value(&database, "b").await, None);
}

type Change = fn(&Transaction);

async fn read(tx: &Transaction, how: usize) {
    match how {
        0 => drop(tx.get(b"k").await.unwrap()),
        1 => drop(tx.get_range(&RangeQuery::new(b"j", b"l")).await.unwrap()),
        2 => drop(tx.get_range(&RangeQuery::new(b"j", b"l").descending().limit(1)).await.unwrap()),
        3 => drop(tx.get_key(&KeySelector::first_greater_or_equal(b"j")).await.unwrap()),
        _ => drop(tx.stream(RangeQuery::new(b"k", b"l")).next_page().await.unwrap()),
    }
}

pub(super) async fn every_read_conflicts_with_every_write(database: Database) {
    let changes: [(&str, Change); 7] = [
        ("set", |tx| tx.set(b"k", b"other")),
        ("clear", |tx| tx.clear(b"k")),
        ("clear_range", |tx| tx.clear_range(b"a", b"z")),
        ("add", |tx| tx.atomic(AtomicOp::Add, b"k", b"\x01")),
        ("compare_and_clear", |tx| tx.atomic(AtomicOp::CompareAndClear, b"k", b"1")),
        ("versionstamped value", |tx| tx.set_versionstamped_value(b"k", b"", b"")),
        ("write conflict", |tx| tx.add_write_conflict_range(b"k", b"k\0").unwrap()),
    ];
    for how in 0..5 {
        for (name, change) in changes {
            write(&database, &[("k", "1")]).await;
            let tx = database.begin();
            read(&tx, how).await;
            tx.set(b"mine", b"");
            let writer = database.begin();
            change(&writer);
            writer.commit().await.unwrap();
            assert_eq!(kind(tx.commit().await), ErrorKind::Conflict, "read {how}, {name}");
        }
    }
}

/// The final key is known only at the commit.
pub(super) async fn versionstamped_key_conflicts_with_reads_of_its_range(database: Database) {
    let (within, beside) = (database.begin(), database.begin());
    within.get_range(&RangeQuery::new(b"log/", b"log0")).await.unwrap();
    beside.get_range(&RangeQuery::new(b"m", b"z")).await.unwrap();
    let writer = database.begin();
    writer.set_versionstamped_key(b"log/", b"", b"");
    writer.commit().await.unwrap();
    for tx in [&within, &beside] {
        tx.set(b"mine", b"");
    }
    assert_eq!(kind(within.commit().await), ErrorKind::Conflict);
    beside.commit().await.unwrap();
}

pub(super) async fn unread_rest_of_a_page_does_not_conflict(database: Database) {
    write(&database, &[("b", "123"), ("d", "123"), ("f", "123")]).await;
    let conflicts = async |query: &RangeQuery, key: &str| {
        let tx = database.begin();
        tx.get_range(query).await.unwrap();
        tx.set(b"mine", b"");
        write(&database, &[(key, "")]).await;
        let outcome = tx.commit().await.map_err(|error| error.kind());
        let tx = database.begin();
        tx.clear(key.as_bytes());
        tx.commit().await.unwrap();
        outcome == Err(ErrorKind::Conflict)
    };
    let all = RangeQuery::new(b"b", b"g");
    for (query, key, expected) in [
        (all.clone().limit(2), "c", true),
        (all.clone().limit(2), "e", false),
        (all.clone().limit(2).descending(), "e", true),
        (all.clone().limit(2).descending(), "c", false),
        (all.clone().target_bytes(8), "c", true),
        (all.clone().target_bytes(8), "e", false),
        (all.clone().target_bytes(8).descending(), "e", true),
        (all.clone().target_bytes(8).descending(), "c", false),
        (all.clone(), "ff", true),
        (all.clone(), "g", false),
        (all, "a", false),
    ] {
        assert_eq!(conflicts(&query, key).await, expected, "{key}, {query:?}");
    }
}

/// Writes of transactions that have read other keys do not conflict either.
pub(super) async fn blind_writes_never_conflict(database: Database) {
    for has_read in [false, true] {
        let (one, other) = (database.begin(), database.begin());
        for (tx, value) in [(&one, b"1"), (&other, b"2")] {
            tx.read_version().await.unwrap();
            if has_read {
                tx.get(b"elsewhere").await.unwrap();
            }
            tx.set(b"a", value);
            tx.clear_range(b"b", b"c");
        }
        one.commit().await.unwrap();
        other.commit().await.unwrap();
        assert_eq!(value(&database, "a").await.as_deref(), Some("2"));
    }
}

/// A symmetric conflict check would reject the writer for the reads of the other transaction.
pub(super) async fn overwriting_a_key_read_by_another_does_not_conflict(database: Database) {
    write(&database, &[("a", "1")]).await;
    let (reader, writer) = (database.begin(), database.begin());
    for tx in [&reader, &writer] {
        tx.read_version().await.unwrap();
    }
    reader.get(b"a").await.unwrap();
    reader.set(b"b", b"1");
    writer.get(b"c").await.unwrap();
    writer.set(b"a", b"2");
    reader.commit().await.unwrap();
    writer.commit().await.unwrap();
}

pub(super) async fn read_only_transaction_always_commits(database: Database) {
    let tx = database.begin();
    tx.get(b"a").await.unwrap();
    write(&database, &[("a", "1")]).await;
    assert_eq!(tx.get(b"a").await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!((tx.committed_version(), tx.versionstamp()), (None, None));
}

/// A commit that fails after its first half must not leave that half in the batch.
pub(super) async fn rejected_commit_of_a_batch_leaves_no_writes(database: Database) {
    let mut open = Vec::new();
    for number in 0..40_u8 {
        let tx = database.begin();
        tx.get(b"\0").await.unwrap();
        tx.set(&[1, number], b"first");
        match number % 4 {
            0 => tx.set(b"\0", &[number]),
            1 => tx.clear_range(b"b", b"a"),
            2 => tx.atomic(AtomicOp::SetVersionstampedKey, b"short", b""),
            _ => tx.set(&vec![b'k'; KEY_SIZE_LIMIT + 1], b""),
        }
        tx.set(&[2, number], b"last");
        open.push(tx);
    }
    let outcomes = join_all(open.iter().map(Transaction::commit)).await;
    let reader = database.begin();
    for (number, outcome) in (0_u8..).zip(&outcomes) {
        let refused = outcome.as_ref().map_err(Error::kind);
        match number % 4 {
            0 => assert!(matches!(refused, Ok(()) | Err(ErrorKind::Conflict)), "{refused:?}"),
            3 => assert_eq!(refused, Err(ErrorKind::Limit)),
            _ => assert_eq!(refused, Err(ErrorKind::Invalid)),
        }
        for part in [1, 2] {
            let found = reader.get(&[part, number]).await.unwrap();
            assert_eq!(found.is_some(), outcome.is_ok(), "part {part} of {number}");
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
}
