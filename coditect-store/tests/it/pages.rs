//! Pages: order, ends, filters, cursors.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use coditect_store::{
    Cursor, ErrorKind, Page, Scan, Store,
    engine::{Database, KEY_SIZE_LIMIT, Order, RangeQuery},
    keyspace::Global,
    records::{MAX_PAGE_EXAMINED, MAX_PAGE_RECORDS, Stopped},
};
use proptest::prelude::*;

use crate::planner::{Holiday, Task, TaskNumber, store, store_with, task, tenant, user};

fn numbers(page: &Page<Task>) -> Vec<u64> {
    page.items.iter().map(|task| task.number.0).collect()
}

fn by_owner<'a>(store: &Store) -> Scan<'a, Task> {
    store.begin().scan(&Task::BY_OWNER, tenant(1), user(1))
}

#[tokio::test]
async fn pages_follow_one_another_in_both_orders() {
    let tasks: Vec<Task> = (1..=5).map(task).collect();
    let store = store_with(&tasks).await;
    for scan in [by_owner(&store), store.begin().list::<Task>(tenant(1))] {
        let first = scan.page(2, None).await.unwrap();
        assert_eq!((numbers(&first), first.stopped), (vec![1, 2], Stopped::Rows));
        let second = scan.page(2, first.next.as_ref()).await.unwrap();
        assert_eq!((numbers(&second), second.stopped), (vec![3, 4], Stopped::Rows));
        let third = scan.page(2, second.next.as_ref()).await.unwrap();
        assert_eq!((numbers(&third), third.stopped), (vec![5], Stopped::End));
        assert_eq!(third.next, None);

        let scan = scan.rev();
        let first = scan.page(3, None).await.unwrap();
        assert_eq!(numbers(&first), [5, 4, 3]);
        let second = scan.page(3, first.next.as_ref()).await.unwrap();
        assert_eq!((numbers(&second), second.next), (vec![2, 1], None));
    }
}

#[tokio::test]
async fn a_page_that_ends_with_the_last_row_has_no_next_one() {
    let store = store_with(&[task(1), task(2)]).await;
    for scan in [by_owner(&store), by_owner(&store).rev()] {
        let page = scan.page(2, None).await.unwrap();
        assert_eq!((page.items.len(), page.next, page.stopped), (2, None, Stopped::End));
    }
    let none = store.begin().list::<Task>(tenant(9)).page(1, None).await.unwrap();
    assert_eq!((none.items, none.next, none.stopped), (vec![], None, Stopped::End));
}

#[tokio::test]
async fn a_limit_out_of_bounds_is_refused() {
    let store = store().await;
    for limit in [0, MAX_PAGE_RECORDS + 1, usize::MAX] {
        let error = by_owner(&store).page(limit, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_scan_shows_nothing_of_other_tenants() {
    let foreign: Vec<Task> =
        [0, 2, u128::MAX].map(|n| Task { tenant: tenant(n), ..task(1) }).into();
    let store = store_with(&[foreign, vec![task(7)]].concat()).await;
    for order in [Order::Ascending, Order::Descending] {
        let tx = store.begin();
        let page = tx.list::<Task>(tenant(1)).order(order).page(9, None).await.unwrap();
        assert_eq!(page.items, [task(7)]);
        let owned = tx.scan(&Task::BY_OWNER, tenant(1), ..).order(order);
        assert_eq!(owned.page(9, None).await.unwrap().items, [task(7)]);
        let slugs = tx.scan(&Task::BY_SLUG, tenant(1), ..).order(order);
        assert_eq!(slugs.page(9, None).await.unwrap().items, [task(7)]);
    }
}

#[tokio::test]
async fn keys_that_begin_with_one_another_are_each_shown_once() {
    let names = ["", "a", "a\0", "a\0\0", "a\0b", "a\u{1}", "aa", "a\u{10ffff}", "b"];
    let store = store().await;
    let tx = store.begin();
    for name in names {
        let holiday = Holiday { name: name.into(), country: name.into() };
        tx.insert(&holiday).await.unwrap();
    }
    for scan in [tx.list::<Holiday>(Global), tx.scan(&Holiday::BY_COUNTRY, Global, ..)] {
        let shown = one_by_one(&scan).await;
        assert_eq!(shown, names);
        let mut shown = one_by_one(&scan.rev()).await;
        shown.reverse();
        assert_eq!(shown, names);
    }
    for name in names {
        let there = tx.scan(&Holiday::BY_COUNTRY, Global, name).all(9).await.unwrap();
        assert_eq!(there.len(), 1, "{name:?} and not what it begins");
        let after = tx.list_keys::<Holiday>(Global, name.to_owned()..).all(9).await.unwrap();
        assert_eq!(after.len(), names.iter().filter(|other| **other >= name).count());
    }
}

async fn one_by_one(scan: &Scan<'_, Holiday>) -> Vec<String> {
    let (mut shown, mut next) = (Vec::new(), None);
    loop {
        let page = scan.page(1, next.as_ref()).await.unwrap();
        shown.extend(page.items.into_iter().map(|holiday| holiday.name));
        next = page.next;
        if next.is_none() {
            return shown;
        }
    }
}

#[tokio::test]
async fn a_filter_reads_on_until_the_page_is_full() {
    let tasks: Vec<Task> =
        (1..=250).map(|n| Task { day: (n % 100).try_into().unwrap(), ..task(n) }).collect();
    let store = store_with(&tasks).await;
    let day = 42;
    let scan = by_owner(&store).filter("day", move |task| task.day == day);
    let page = scan.page(2, None).await.unwrap();
    assert_eq!((numbers(&page), page.stopped), (vec![42, 142], Stopped::Rows));
    let rest = scan.page(2, page.next.as_ref()).await.unwrap();
    assert_eq!((numbers(&rest), rest.stopped), (vec![242], Stopped::End));

    let newest = by_owner(&store).rev().filter("day", move |task| task.day == day);
    assert_eq!(numbers(&newest.page(9, None).await.unwrap()), [242, 142, 42]);

    let both = scan.filter("large", |task| task.number.0 > 100);
    assert_eq!(numbers(&both.page(9, None).await.unwrap()), [142, 242]);
}

#[tokio::test]
async fn page_without_matches_ends_and_continues() {
    let past = MAX_PAGE_EXAMINED as u64 + 1;
    let tasks: Vec<Task> = (1..=past).map(task).collect();
    let store = store_with(&tasks).await;
    let scan = by_owner(&store).filter("last", move |task| task.number.0 == past);
    let empty = scan.page(9, None).await.unwrap();
    assert_eq!((numbers(&empty), empty.stopped), (vec![], Stopped::Examined));
    let rest = scan.page(9, empty.next.as_ref()).await.unwrap();
    assert_eq!((numbers(&rest), rest.stopped), (vec![past], Stopped::End));
    let full = by_owner(&store).page(MAX_PAGE_RECORDS, None).await.unwrap();
    assert_eq!((full.items.len(), full.stopped), (MAX_PAGE_RECORDS, Stopped::Rows));
}

#[tokio::test]
async fn page_of_large_records_ends_early_and_continues() {
    let store = store().await;
    for n in 0..40 {
        let holiday = &Holiday { name: format!("{n:03}"), country: "x".repeat(90_000) };
        // A country that long cannot be indexed, so it is made long without updating the index.
        let short = &Holiday { country: String::new(), ..holiday.clone() };
        store.run(|tx| async move { tx.insert(short).await }).await.unwrap();
        store.run(|tx| async move { lengthen(&tx, holiday).await }).await.unwrap();
    }
    for scan in [store.begin().list(Global), store.begin().scan(&Holiday::BY_COUNTRY, Global, "")] {
        let mut pages = 0;
        let (mut shown, mut next) = (Vec::new(), None);
        loop {
            let page = scan.page(100, next.as_ref()).await.unwrap();
            assert_eq!(page.stopped == Stopped::End, page.next.is_none());
            pages += 1;
            shown.extend(page.items.into_iter().map(|holiday| holiday.name));
            next = page.next;
            if next.is_none() {
                break;
            }
            assert_eq!(page.stopped, Stopped::Bytes);
        }
        assert!(shown.iter().is_sorted() && shown.len() == 40);
        assert!(pages > 1, "3.6 MB are more than a page");
    }
}

/// Rewrites a record's bytes, and leaves its index entries.
async fn lengthen(
    tx: &coditect_store::Transaction,
    holiday: &Holiday,
) -> coditect_store::Result<()> {
    let key = tx.root().key(&("planner_holidays".to_owned(), holiday.name.clone()));
    let mut bytes = tx.engine().get(&key).await?.unwrap();
    assert_eq!(bytes.pop(), Some(0), "the length of the country");
    bytes.push(252);
    bytes.extend(u32::try_from(holiday.country.len()).unwrap().to_le_bytes());
    bytes.extend(holiday.country.as_bytes());
    tx.engine().set(&key, &bytes);
    Ok(())
}

#[tokio::test]
async fn all_refuses_more_than_it_may_give() {
    let store = store_with(&[task(1), task(2)]).await;
    assert_eq!(by_owner(&store).all(2).await.unwrap().len(), 2);
    assert_eq!(by_owner(&store).all(1).await.unwrap_err().kind(), ErrorKind::Limit);
}

#[tokio::test]
async fn a_cursor_holds_for_its_own_list_only() {
    let tasks: Vec<Task> = (1..=3)
        .map(|n| Task { due: Some(1), ..task(n) })
        .chain((4..=6).map(|n| Task { owner: user(2), ..task(n) }))
        .collect();
    let store = store_with(&tasks).await;
    let tx = store.begin();
    let cursor = by_owner(&store).page(1, None).await.unwrap().next.unwrap();
    let cursor: Cursor = cursor.to_string().parse().unwrap();
    assert_eq!(numbers(&by_owner(&store).page(9, Some(&cursor)).await.unwrap()), [2, 3]);

    let others = [
        tx.scan(&Task::BY_OWNER, tenant(1), user(2)),
        tx.scan(&Task::BY_OWNER, tenant(2), user(1)),
        tx.scan(&Task::BY_OWNER, tenant(1), ..),
        tx.scan(&Task::BY_DUE, tenant(1), (user(1),)),
        tx.list(tenant(1)),
        by_owner(&store).rev(),
        by_owner(&store).filter("day=1", |_| true),
    ];
    for scan in others {
        let error = scan.page(9, Some(&cursor)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{scan:?}");
    }
    let one = by_owner(&store).filter("day=1", |_| true);
    let cursor = one.page(1, None).await.unwrap().next.unwrap();
    let two = by_owner(&store).filter("day=2", |_| true);
    assert_eq!(two.page(1, Some(&cursor)).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_cursor_shows_nothing_readable() {
    let store = store_with(&[task(1), task(2)]).await;
    let slugs = store.begin().scan(&Task::BY_SLUG, tenant(1), ..);
    let cursor = slugs.page(1, None).await.unwrap().next.unwrap();
    let shown = format!("{cursor} {cursor:?} {slugs:?}");
    assert!(!shown.contains("task-1"), "{shown}");
    assert!(cursor.to_string().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
}

#[tokio::test]
async fn cursor_continues_after_the_longest_key() {
    let prefix = Task::BY_SLUG.name().len() + 2 + 17;
    let slug =
        |first: &str| first.to_owned() + &"s".repeat(KEY_SIZE_LIMIT - prefix - 2 - first.len());
    let tasks = [(1, "a"), (2, "b"), (3, "c")].map(|(n, s)| Task { slug: slug(s), ..task(n) });
    // In memory: in a shared cluster, a prefix is part of every key.
    let options = Store::options().schema(coditect_store::model::schema()).entity::<Task>();
    let store = options.open(Database::memory().unwrap()).await.unwrap();
    let tx = store.begin();
    for task in &tasks {
        tx.insert(task).await.unwrap();
    }
    for (order, numbers_in_order) in [(Order::Ascending, [1, 2, 3]), (Order::Descending, [3, 2, 1])]
    {
        let scan = tx.scan(&Task::BY_SLUG, tenant(1), ..).order(order);
        let (mut shown, mut next) = (Vec::new(), None);
        loop {
            let page = scan.page(1, next.as_ref()).await.unwrap();
            shown.extend(numbers(&page));
            let Some(cursor) = page.next else { break };
            next = Some(cursor.to_string().parse().unwrap());
        }
        assert_eq!(shown, numbers_in_order);
    }
}

/// Puts `position` into a cursor of `scan`, as a client that knows the layout could.
async fn forged(scan: &Scan<'_, Task>, position: &[u8]) -> Cursor {
    let given = scan.page(1, None).await.unwrap().next.unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(given.to_string()).unwrap();
    let forged = [&bytes[..17], position].concat();
    URL_SAFE_NO_PAD.encode(forged).parse().unwrap()
}

async fn forge(position: &[u8]) {
    let foreign = [0, 2].map(|n| Task { tenant: tenant(n), ..task(1) });
    let others = [4, 5].map(|n| Task { owner: user(2), ..task(n) });
    let own = [1, 2, 3].map(task);
    let store = store_with(&[foreign.as_slice(), &others, &own].concat()).await;
    for scan in [by_owner(&store), by_owner(&store).rev()] {
        let cursor = forged(&scan, position).await;
        match scan.page(9, Some(&cursor)).await {
            Ok(page) => assert!(page.items.iter().all(|task| own.contains(task))),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid),
        }
    }
}

#[tokio::test]
async fn a_forged_cursor_longer_than_any_key_is_refused() {
    let store = store_with(&[task(1), task(2)]).await;
    // The packed owner, and then more than a key can have.
    let position = [&[0x30], user(1).0.as_bytes().as_slice(), &[0; KEY_SIZE_LIMIT]].concat();
    let cursor = forged(&by_owner(&store), &position).await;
    let error = by_owner(&store).page(9, Some(&cursor)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// An operation between two pages.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Create(u64),
    Delete(u64),
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    prop_oneof![(0..30_u64).prop_map(Meanwhile::Create), (0..30_u64).prop_map(Meanwhile::Delete)]
}

async fn do_meanwhile(store: &Store, what: Meanwhile) {
    let result = store.run(|tx| async move {
        match what {
            Meanwhile::Create(number) => tx.insert(&task(number)).await,
            Meanwhile::Delete(number) => {
                tx.delete::<Task>(tenant(1), TaskNumber(number)).await.map(drop)
            }
        }
    });
    if let Err(error) = result.await {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
}

/// Pages through concurrent writes: remaining rows are returned once, in order.
async fn page_through(
    there: BTreeSet<u64>,
    limit: usize,
    order: Order,
    meanwhile: Vec<Vec<Meanwhile>>,
) {
    let tasks: Vec<Task> = there.iter().copied().map(task).collect();
    let store = store_with(&tasks).await;
    let mut stayed = there;
    let (mut shown, mut next) = (Vec::new(), None);
    let mut meanwhile = meanwhile.into_iter();
    loop {
        let page = by_owner(&store).order(order).page(limit, next.as_ref()).await.unwrap();
        shown.extend(numbers(&page));
        next = page.next;
        if next.is_none() {
            break;
        }
        for what in meanwhile.next().unwrap_or_default() {
            if let Meanwhile::Delete(number) = what {
                stayed.remove(&number);
            }
            do_meanwhile(&store, what).await;
        }
    }
    let in_order = |pair: &[u64]| match order {
        Order::Ascending => pair[0] < pair[1],
        Order::Descending => pair[0] > pair[1],
    };
    assert!(shown.windows(2).all(in_order), "{shown:?}");
    assert!(stayed.iter().all(|number| shown.contains(number)), "{stayed:?} in {shown:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn forged_cursor_stays_within_its_list(
        owner in prop::option::of(0..4_u128),
        rest in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let element = |n| [&[0x30], user(n).0.as_bytes().as_slice()].concat();
        let position = [owner.map(element).unwrap_or_default(), rest].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(forge(&position));
    }

    #[test]
    fn pages_are_right_while_rows_come_and_go(
        there in prop::collection::btree_set(0..30_u64, 0..20),
        limit in 1..6_usize,
        descending: bool,
        meanwhile in prop::collection::vec(prop::collection::vec(meanwhile(), 0..6), 0..12),
    ) {
        let order = if descending { Order::Descending } else { Order::Ascending };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(page_through(there, limit, order, meanwhile));
    }
}

#[tokio::test]
async fn tenants_range_has_its_data_and_nothing_else() {
    let foreign = [0, 2].map(|n| Task { tenant: tenant(n), ..task(1) });
    let own = [1, 2].map(|n| Task { due: Some(1), ..task(n) });
    let store = store_with(&[foreign.as_slice(), &own].concat()).await;
    let range = store.root().tenant(tenant(1));
    let tx = store.begin();
    let rows = tx.engine().get_range(&RangeQuery::new(range.begin, range.end)).await.unwrap().rows;
    assert_eq!(rows.len(), own.len() * 5 + 1, "record, slug, owner, due, summary; load");
}
