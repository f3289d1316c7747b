//! Pages and streams: limits, bytes, both orders, and continuation.

use super::{
    Database, KeySelector, KeyValue, Order, RangeQuery, RangeStream, Stopped, keys, write,
};

pub(super) async fn limit_applies_after_own_writes_are_merged(database: Database) {
    write(&database, &[("a", ""), ("b", ""), ("c", ""), ("d", "")]).await;
    let tx = database.begin();
    tx.clear(b"a");
    tx.clear_range(b"b", b"c");
    tx.set(b"cc", b"");
    let query = RangeQuery::new(b"a", b"z").limit(2);
    assert_eq!(keys(&tx, &query).await, ["c", "cc"]);
    assert_eq!(keys(&tx, &query.descending()).await, ["d", "cc"]);
}

pub(super) async fn descending_range_merges_own_writes_in_order(database: Database) {
    write(&database, &[("b", ""), ("d", ""), ("f", "")]).await;
    let tx = database.begin();
    for key in [b"a", b"c", b"e", b"g"] {
        tx.set(key, b"");
    }
    tx.clear(b"d");
    let query = RangeQuery::new(b"", b"\xff").descending();
    assert_eq!(keys(&tx, &query).await, ["g", "f", "e", "c", "b", "a"]);
    assert_eq!(keys(&tx, &query.limit(4)).await, ["g", "f", "e", "c"]);
}

pub(super) async fn page_reports_why_it_stopped(database: Database) {
    write(&database, &[("a", "1234"), ("b", "1234"), ("c", "1234")]).await;
    let tx = database.begin();
    let all = RangeQuery::new(b"a", b"z");
    for (query, rows, stopped) in [
        (all.clone(), 3, Stopped::End),
        (all.clone().limit(4), 3, Stopped::End),
        (all.clone().limit(2), 2, Stopped::Rows),
        (all.clone().limit(0), 0, Stopped::Rows),
        (all.clone().target_bytes(6), 2, Stopped::Bytes),
        (all.clone().target_bytes(1), 1, Stopped::Bytes),
        (all.clone().target_bytes(100), 3, Stopped::End),
    ] {
        for query in [query.clone(), query.descending()] {
            let page = tx.get_range(&query).await.unwrap();
            assert_eq!((page.rows.len(), page.stopped), (rows, stopped), "{query:?}");
        }
    }
}

/// Continuing at `last_key ++ 0xff` skips child keys. The ascending selector in a descending range
/// returns the last key twice.
pub(super) async fn range_continues_after_its_last_key(database: Database) {
    let family: [&[u8]; 6] = [b"k", b"k\0", b"k\0\0", b"k\xff", b"k\xff\xff", b"l"];
    let tx = database.begin();
    for key in family {
        tx.set(key, b"");
    }
    tx.commit().await.unwrap();
    let tx = database.begin();
    for rows in 1..=family.len() {
        for order in [Order::Ascending, Order::Descending] {
            let mut query = RangeQuery::new(b"k", b"z").order(order).limit(rows);
            let mut seen = Vec::new();
            loop {
                let page = tx.get_range(&query).await.unwrap().rows;
                let Some(last) = page.last().map(|row| row.key.clone()) else { break };
                match order {
                    Order::Ascending => query.begin = KeySelector::first_greater_than(last),
                    Order::Descending => query.end = KeySelector::first_greater_or_equal(last),
                }
                seen.extend(page.into_iter().map(|row| row.key));
            }
            if order == Order::Descending {
                seen.reverse();
            }
            assert_eq!(seen, family, "{rows} at a time, {order:?}");
        }
    }
}

/// Returns the rows of a stream, after checking that no page is empty.
async fn all(mut stream: RangeStream) -> Vec<KeyValue> {
    let mut rows = Vec::new();
    while let Some(page) = stream.next_page().await.unwrap() {
        assert!(!page.is_empty());
        rows.extend(page);
    }
    rows
}

pub(super) async fn stream_returns_every_key_once(database: Database) {
    let tx = database.begin();
    let mut expected = Vec::new();
    // Three keys per number, which divides no page: each is the last of some page.
    for number in 0..200_u32 {
        for child in [&b""[..], b"\0", b"\xff"] {
            let key = [&b"k"[..], &number.to_be_bytes(), child].concat();
            tx.set(&key, &[0; 1_000]);
            expected.push(key);
        }
    }
    tx.commit().await.unwrap();
    for limit in [None, Some(1), Some(100), Some(600), Some(10_000)] {
        for order in [Order::Ascending, Order::Descending] {
            let query = RangeQuery { limit, ..RangeQuery::new(b"k", b"l").order(order) };
            let rows = all(database.begin().stream(query)).await;
            let mut wanted = expected.clone();
            if order == Order::Descending {
                wanted.reverse();
            }
            wanted.truncate(limit.unwrap_or(usize::MAX));
            let is_equal = rows.iter().map(|row| &row.key).eq(&wanted);
            assert!(is_equal, "{order:?}, {limit:?}: {} of {}", rows.len(), wanted.len());
        }
    }
}

pub(super) async fn stream_merges_own_writes_on_each_page(database: Database) {
    let key = |number: u32| number.to_be_bytes();
    let tx = database.begin();
    (0..400).step_by(2).for_each(|number| tx.set(&key(number), &[1; 1_000]));
    tx.commit().await.unwrap();
    let tx = database.begin();
    (1..400).step_by(2).for_each(|number| tx.set(&key(number), &[2; 1_000]));
    (0..400).step_by(8).for_each(|number| tx.clear(&key(number)));
    // More than a page.
    tx.clear_range(&key(100), &key(200));
    let is_left = |number: &u32| !number.is_multiple_of(8) && !(100..200).contains(number);
    let mut expected: Vec<_> =
        (0..400).filter(is_left).map(|number| key(number).to_vec()).collect();
    for order in [Order::Ascending, Order::Descending] {
        let query = RangeQuery::new(b"", b"\xff").order(order);
        let streams = [tx.stream(query.clone()), tx.snapshot().stream(query)];
        for stream in streams {
            let rows = all(stream).await;
            assert!(rows.iter().map(|row| &row.key).eq(&expected), "{order:?}");
            let is_own = |row: &KeyValue| row.value[0] == 1 + row.key[3] % 2;
            assert!(rows.iter().all(is_own), "{order:?}");
        }
        expected.reverse();
    }
}
