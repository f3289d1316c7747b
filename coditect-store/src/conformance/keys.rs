//! Ordered byte keys: set, get, clear, and selectors.

use super::{Database, KeySelector, RangeQuery, keys, value, write};

pub(super) async fn keys_sort_in_byte_order(database: Database) {
    let ordered: [&[u8]; 11] = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\xff",
        b"a",
        b"a\0",
        b"aa",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xfe\xff\xff",
    ];
    // Writes and commits in another order.
    for first in [1, 0] {
        let tx = database.begin();
        ordered.iter().skip(first).step_by(2).rev().for_each(|key| tx.set(key, key));
        tx.commit().await.unwrap();
    }
    let rows = database.begin().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap().rows;
    let found: Vec<_> = rows.iter().map(|row| row.key.as_slice()).collect();
    assert_eq!(found, ordered);
    assert!(rows.iter().all(|row| row.value == row.key));
}

pub(super) async fn get_returns_the_last_value_until_it_is_cleared(database: Database) {
    assert_eq!(value(&database, "a").await, None);
    for text in ["1", "another", ""] {
        write(&database, &[("a", text)]).await;
        assert_eq!(value(&database, "a").await.as_deref(), Some(text), "an empty value is a value");
    }
    for _ in 0..2 {
        let tx = database.begin();
        tx.clear(b"a");
        tx.commit().await.unwrap();
        assert_eq!(value(&database, "a").await, None);
    }
}

/// Engines that split values may leave the last part of a longer one behind.
pub(super) async fn shorter_value_replaces_a_longer_one(database: Database) {
    for length in [90_000, 10_001, 10_000, 1, 0, 4_097] {
        let tx = database.begin();
        let written: Vec<_> = (0_u8..251).cycle().take(length).collect();
        tx.set(b"a", &written);
        tx.commit().await.unwrap();
        let tx = database.begin();
        assert!(tx.get(b"a").await.unwrap().unwrap() == written, "{length} bytes");
        assert_eq!(keys(&tx, &RangeQuery::new(b"", b"\xff")).await, ["a"]);
    }
}

pub(super) async fn clear_range_excludes_its_end(database: Database) {
    write(&database, &[("a", ""), ("b", ""), ("b\0", ""), ("bb", ""), ("c", ""), ("d", "")]).await;
    let tx = database.begin();
    tx.clear_range(b"b", b"c");
    tx.clear_range(b"d", b"d");
    tx.commit().await.unwrap();
    let left = keys(&database.begin(), &RangeQuery::new(b"", b"\xff")).await;
    assert_eq!(left, ["a", "c", "d"]);
}

pub(super) async fn get_key_resolves_selectors(database: Database) {
    write(&database, &[("b", ""), ("d", ""), ("f", "")]).await;
    let on =
        |selector: KeySelector, by: i32| KeySelector { offset: selector.offset + by, ..selector };
    let tx = database.begin();
    for (selector, expected) in [
        (KeySelector::first_greater_or_equal("d"), &b"d"[..]),
        (KeySelector::first_greater_or_equal("c"), b"d"),
        (KeySelector::first_greater_than("d"), b"f"),
        (KeySelector::last_less_or_equal("d"), b"d"),
        (KeySelector::last_less_or_equal("e"), b"d"),
        (KeySelector::last_less_than("d"), b"b"),
        (on(KeySelector::first_greater_or_equal("b"), 2), b"f"),
        (on(KeySelector::last_less_than("f"), -1), b"b"),
        (KeySelector::last_less_than("b"), b""),
        (on(KeySelector::last_less_than("f"), -5), b""),
        (KeySelector::first_greater_than("f"), b"\xff"),
        (on(KeySelector::first_greater_or_equal("a"), 3), b"\xff"),
    ] {
        assert_eq!(tx.get_key(&selector).await.unwrap(), expected, "{selector:?}");
    }
}

pub(super) async fn get_range_resolves_both_selectors(database: Database) {
    write(&database, &[("b", ""), ("d", ""), ("f", ""), ("h", "")]).await;
    let tx = database.begin();
    for (begin, end, expected) in [
        (
            KeySelector::first_greater_than("b"),
            KeySelector::first_greater_than("f"),
            &["d", "f"][..],
        ),
        (KeySelector::last_less_than("f"), KeySelector::last_less_or_equal("h"), &["d", "f"]),
        (
            KeySelector::last_less_than("a"),
            KeySelector::first_greater_than("x"),
            &["b", "d", "f", "h"],
        ),
        (KeySelector::first_greater_than("f"), KeySelector::first_greater_or_equal("f"), &[]),
    ] {
        let query = RangeQuery::between(begin, end);
        assert_eq!(keys(&tx, &query).await, expected, "{query:?}");
        let mut back = keys(&tx, &query.clone().descending()).await;
        back.reverse();
        assert_eq!(back, expected, "{query:?}, descending");
    }
}
