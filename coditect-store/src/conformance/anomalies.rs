//! The anomalies of weaker isolation levels, none of which may occur: the cases of Hermitage
//! (<https://github.com/ept/hermitage>), with its names for the anomalies of Adya's thesis.
//!
//! There are two rows: 1 = 10, 2 = 20. Where Hermitage makes a transaction wait for a lock, here
//! the later of two conflicting transactions is refused at its commit.

use super::{Database, ErrorKind, RangeQuery, Transaction, kind};

async fn two_rows(database: &Database) {
    let tx = database.begin();
    set(&tx, 1, 10);
    set(&tx, 2, 20);
    tx.commit().await.unwrap();
}

fn set(tx: &Transaction, row: u8, value: u8) {
    tx.set(&[row], &[value]);
}

async fn get(tx: &Transaction, row: u8) -> Option<u8> {
    tx.get(&[row]).await.unwrap().map(|value| value[0])
}

async fn all(tx: &Transaction) -> Vec<(u8, u8)> {
    let page = tx.get_range(&RangeQuery::new([0], [9])).await.unwrap();
    page.rows.iter().map(|row| (row.key[0], row.value[0])).collect()
}

/// Returns the rows whose value is a multiple of `number`: a predicate that reads all rows.
async fn multiples(tx: &Transaction, number: u8) -> Vec<(u8, u8)> {
    let mut rows = all(tx).await;
    rows.retain(|(_, value)| value % number == 0);
    rows
}

async fn expect_conflict(tx: Transaction) {
    assert_eq!(kind(tx.commit().await), ErrorKind::Conflict);
}

pub(super) async fn g0_no_dirty_write(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    set(&one, 1, 11);
    set(&two, 1, 12);
    set(&one, 2, 21);
    one.commit().await.unwrap();
    assert_eq!(all(&database.begin()).await, [(1, 11), (2, 21)]);
    set(&two, 2, 22);
    two.commit().await.unwrap();
    assert_eq!(all(&database.begin()).await, [(1, 12), (2, 22)]);
}

pub(super) async fn g1a_no_aborted_read(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    set(&one, 1, 101);
    assert_eq!(all(&two).await, [(1, 10), (2, 20)]);
    one.cancel();
    assert_eq!(all(&two).await, [(1, 10), (2, 20)]);
    two.commit().await.unwrap();
}

pub(super) async fn g1b_no_intermediate_read(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    set(&one, 1, 101);
    assert_eq!(all(&two).await, [(1, 10), (2, 20)]);
    set(&one, 1, 11);
    one.commit().await.unwrap();
    assert_eq!(all(&two).await, [(1, 10), (2, 20)]);
    two.commit().await.unwrap();
    assert_eq!(get(&database.begin(), 1).await, Some(11));
}

pub(super) async fn g1c_no_circular_information_flow(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    set(&one, 1, 11);
    set(&two, 2, 22);
    assert_eq!(get(&one, 2).await, Some(20));
    assert_eq!(get(&two, 1).await, Some(10));
    one.commit().await.unwrap();
    expect_conflict(two).await;
}

pub(super) async fn otv_observed_transaction_does_not_vanish(database: Database) {
    two_rows(&database).await;
    let (one, two, three) = (database.begin(), database.begin(), database.begin());
    set(&one, 1, 11);
    set(&one, 2, 19);
    set(&two, 1, 12);
    one.commit().await.unwrap();
    assert_eq!(get(&three, 1).await, Some(11));
    set(&two, 2, 18);
    assert_eq!(get(&three, 2).await, Some(19));
    two.commit().await.unwrap();
    assert_eq!(all(&three).await, [(1, 11), (2, 19)]);
    three.commit().await.unwrap();
}

pub(super) async fn pmp_predicate_read_is_repeatable(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    assert_eq!(multiples(&one, 30).await, []);
    set(&two, 3, 30);
    two.commit().await.unwrap();
    assert_eq!(multiples(&one, 3).await, []);
    one.commit().await.unwrap();
}

pub(super) async fn pmp_stale_predicate_write_conflicts(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    for (row, value) in all(&one).await {
        set(&one, row, value + 10);
    }
    for (row, _) in multiples(&two, 20).await {
        two.clear(&[row]);
    }
    one.commit().await.unwrap();
    expect_conflict(two).await;
    assert_eq!(all(&database.begin()).await, [(1, 20), (2, 30)]);
}

pub(super) async fn p4_no_lost_update(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    let (first, second) = (get(&one, 1).await.unwrap(), get(&two, 1).await.unwrap());
    set(&one, 1, first + 1);
    set(&two, 1, second + 1);
    one.commit().await.unwrap();
    expect_conflict(two).await;
    assert_eq!(get(&database.begin(), 1).await, Some(11));
}

pub(super) async fn g_single_no_read_skew(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    assert_eq!(get(&one, 1).await, Some(10));
    assert_eq!(all(&two).await, [(1, 10), (2, 20)]);
    set(&two, 1, 12);
    set(&two, 2, 18);
    two.commit().await.unwrap();
    assert_eq!(get(&one, 2).await, Some(20), "read at the same version as row 1");
    one.commit().await.unwrap();
}

pub(super) async fn g_single_no_read_skew_of_predicates(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    assert_eq!(multiples(&one, 5).await, [(1, 10), (2, 20)]);
    set(&two, 1, 12);
    two.commit().await.unwrap();
    assert_eq!(multiples(&one, 3).await, []);
    one.commit().await.unwrap();
}

pub(super) async fn g_single_stale_write_conflicts(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    assert_eq!(get(&one, 1).await, Some(10));
    set(&two, 1, 12);
    set(&two, 2, 18);
    two.commit().await.unwrap();
    for (row, _) in multiples(&one, 20).await {
        one.clear(&[row]);
    }
    expect_conflict(one).await;
    assert_eq!(all(&database.begin()).await, [(1, 12), (2, 18)]);
}

pub(super) async fn g2_item_no_write_skew(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    assert_eq!((get(&one, 1).await, get(&one, 2).await), (Some(10), Some(20)));
    assert_eq!((get(&two, 1).await, get(&two, 2).await), (Some(10), Some(20)));
    set(&one, 1, 11);
    set(&two, 2, 21);
    one.commit().await.unwrap();
    expect_conflict(two).await;
}

pub(super) async fn g2_no_write_skew_of_predicates(database: Database) {
    two_rows(&database).await;
    let (one, two) = (database.begin(), database.begin());
    assert_eq!(multiples(&one, 3).await, []);
    assert_eq!(multiples(&two, 3).await, []);
    set(&one, 3, 30);
    set(&two, 4, 42);
    one.commit().await.unwrap();
    expect_conflict(two).await;
    assert_eq!(multiples(&database.begin(), 3).await, [(3, 30)]);
}

pub(super) async fn g2_no_cycle_of_three(database: Database) {
    two_rows(&database).await;
    let (one, two, three) = (database.begin(), database.begin(), database.begin());
    assert_eq!(all(&one).await, [(1, 10), (2, 20)]);
    two.read_version().await.unwrap();
    let second = get(&two, 2).await.unwrap();
    set(&two, 2, second + 5);
    two.commit().await.unwrap();
    // `three` reads the write of `two` and not that of `one`, so `one` cannot be ordered before it.
    assert_eq!(all(&three).await, [(1, 10), (2, 25)]);
    three.commit().await.unwrap();
    set(&one, 1, 0);
    expect_conflict(one).await;
}
