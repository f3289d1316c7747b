//! Indexes compared with a full scan, after random operations.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use coditect_store::{
    ErrorKind, Store, Transaction,
    engine::{KeyValue, RangeQuery},
    entity::{CountIndexType, Covered, CoveringIndexType, Index, ListIndexType},
    keyspace::{Global, KeyPart, KeyQuery, KeyRange, Scope},
    model::TenantId,
};
use proptest::prelude::*;

use crate::planner::{Summary, Task, TaskNumber, store, task, tenant, user};

#[derive(Clone, Debug)]
enum Step {
    Create(Task),
    Update(Task),
    Upsert(Task),
    Delete(TenantId, TaskNumber),
    Commit,
    GiveUp,
}

/// The expected contents of the store.
type Tasks = BTreeMap<(TenantId, TaskNumber), Task>;

fn tasks() -> impl Strategy<Value = Task> {
    let slug = prop_oneof!["[ab]", Just("a\0".to_owned()), Just(String::new())];
    let ticket = prop::option::of("[xy]");
    let tags = prop::collection::vec("[pq]", 0..3);
    let found_by = (slug, 1..3_u128, prop::option::of(-1..2_i64), ticket, -1..2_i64, tags);
    (1..3_u128, 0..4_u64, found_by).prop_map(
        |(owner_tenant, number, (slug, owner, due, ticket, day, tags))| Task {
            tenant: tenant(owner_tenant),
            number: TaskNumber(number),
            slug,
            owner: user(owner),
            due,
            ticket,
            day,
            tags,
        },
    )
}

/// Operations, each of one of three concurrent transactions.
fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let step = prop_oneof![
        4 => tasks().prop_map(Step::Create),
        4 => tasks().prop_map(Step::Update),
        2 => tasks().prop_map(Step::Upsert),
        2 => (1..3_u128, 0..4_u64).prop_map(|(t, n)| Step::Delete(tenant(t), TaskNumber(n))),
        3 => Just(Step::Commit),
        1 => Just(Step::GiveUp),
    ];
    prop::collection::vec((0..3_usize, step), 0..60)
}

/// Returns the reason why `task` cannot be added to the others.
fn taken(tasks: &Tasks, task: &Task) -> Option<ErrorKind> {
    let mut others =
        tasks.values().filter(|other| (other.tenant, other.number) != (task.tenant, task.number));
    if others.clone().any(|other| other.tenant == task.tenant && other.slug == task.slug) {
        return Some(ErrorKind::UniqueViolation("planner_tasks_by_slug"));
    }
    let ticket = others.any(|other| task.ticket.is_some() && other.ticket == task.ticket);
    ticket.then_some(ErrorKind::UniqueViolation("planner_tasks_by_ticket"))
}

/// Returns the expected result of `step`, and applies it to `tasks`.
fn expected(tasks: &mut Tasks, step: &Step) -> Result<Option<Task>, ErrorKind> {
    let (task, refused) = match step {
        Step::Create(task) => (
            task,
            tasks.contains_key(&(task.tenant, task.number)).then_some(ErrorKind::AlreadyExists),
        ),
        Step::Update(task) => (
            task,
            (!tasks.contains_key(&(task.tenant, task.number))).then_some(ErrorKind::NotFound),
        ),
        Step::Upsert(task) => (task, None),
        Step::Delete(tenant, number) => return Ok(tasks.remove(&(*tenant, *number))),
        Step::Commit | Step::GiveUp => unreachable!("the caller's"),
    };
    if let Some(kind) = refused.or_else(|| taken(tasks, task)) {
        return Err(kind);
    }
    tasks.insert((task.tenant, task.number), task.clone());
    Ok(None)
}

async fn answered(tx: &Transaction, step: &Step) -> Result<Option<Task>, ErrorKind> {
    let outcome = match step {
        Step::Create(task) => tx.insert(task).await.map(|()| None),
        Step::Update(task) => tx.update(task).await.map(|()| None),
        Step::Upsert(task) => tx.upsert(task).await.map(|()| None),
        Step::Delete(tenant, number) => tx.delete::<Task>(*tenant, *number).await,
        Step::Commit | Step::GiveUp => unreachable!("the caller's"),
    };
    outcome.map_err(|error| error.kind())
}

/// A transaction, with its expected reads and its writes.
struct Running {
    tx: Transaction,
    sees: Tasks,
    did: Vec<Step>,
}

async fn begin(store: &Store, committed: &Tasks) -> Running {
    let tx = store.begin();
    tx.engine().read_version().await.unwrap();
    Running { tx, sees: committed.clone(), did: Vec::new() }
}

async fn play(steps: Vec<(usize, Step)>) {
    let store = store().await;
    let mut committed = Tasks::new();
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(begin(&store, &committed).await);
    }
    for (which, step) in steps {
        let of = &mut running[which];
        match step {
            Step::Commit => {
                agrees(&of.tx, &of.sees).await;
                match of.tx.commit().await {
                    Ok(()) => {
                        for step in &of.did {
                            let _ = expected(&mut committed, step);
                        }
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                }
                running[which] = begin(&store, &committed).await;
            }
            Step::GiveUp => running[which] = begin(&store, &committed).await,
            step => {
                let answer = answered(&of.tx, &step).await;
                assert_eq!(answer, expected(&mut of.sees, &step));
                let wrote = match step {
                    Step::Delete(..) => answer != Ok(None),
                    _ => answer.is_ok(),
                };
                of.did.extend(wrote.then_some(step));
            }
        }
    }
    agrees(&store.begin(), &committed).await;
    no_more_keys_than(&store, &committed).await;
}

/// Compares each index with a full scan, sorted by the indexed value.
async fn agrees(tx: &Transaction, tasks: &Tasks) {
    let mut all: Vec<&Task> = tasks.values().collect();
    for scope in [tenant(1), tenant(2)] {
        let own: Vec<&Task> = all.iter().copied().filter(|task| task.tenant == scope).collect();
        assert_eq!(refs(&tx.list::<Task>(scope).all(99).await.unwrap()), own);
        same(tx, &Task::BY_SLUG, scope, &own, |task| Some(task.slug.clone())).await;
        same(tx, &Task::BY_OWNER, scope, &own, |task| Some(task.owner)).await;
        same(tx, &Task::BY_DUE, scope, &own, |task| task.due.map(|due| (task.owner, due))).await;
        same(tx, &Task::SUMMARIES, scope, &own, |task| Some(task.owner)).await;
        same(tx, &Task::BY_TAG, scope, &own, tags).await;
        let summary = |task: &Task| Some((task.owner, Summary::of(task)));
        covers(tx, &Task::SUMMARIES, scope, &own, summary).await;
        counts(tx, &Task::LOAD, scope, &own, |task| Some((task.owner, task.day))).await;
    }
    all.sort_by_key(|task| (task.tenant, task.number));
    same(tx, &Task::BY_TICKET, Global, &all, |task| task.ticket.clone()).await;
    same(tx, &Task::BY_DAY, Global, &all, |task| Some(task.day)).await;
    same(tx, &Task::AGENDA, Global, &all, |task| task.due).await;
    same(tx, &Task::BY_TAG_OF_ALL, Global, &all, tags).await;
    let due = |task: &Task| task.due.map(|due| (due, task.owner));
    covers(tx, &Task::AGENDA, Global, &all, due).await;
    counts(tx, &Task::DUE_COUNT, Global, &all, |task| task.due).await;
}

fn tags(task: &Task) -> BTreeSet<String> {
    task.tags.iter().cloned().collect()
}

fn refs(tasks: &[Task]) -> Vec<&Task> {
    tasks.iter().collect()
}

/// Compares all of one index, each of its values, and the ranges below and above each value.
async fn same<K, V, S, Values>(
    tx: &Transaction,
    index: &'static Index<Task, K>,
    scope: S,
    tasks: &[&Task],
    values: impl Fn(&Task) -> Values,
) where
    K: ListIndexType<Value = V, Scope<TenantId> = S>,
    Values: IntoIterator<Item = V>,
    V: KeyPart + Ord,
    S: Scope,
{
    let with = |task| move |value| (value, task);
    let mut sorted: Vec<(V, &Task)> =
        tasks.iter().flat_map(|task| values(task).into_iter().map(with(*task))).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let those = |keep: &dyn Fn(&V) -> bool| -> Vec<&Task> {
        sorted.iter().filter(|(value, _)| keep(value)).map(|(_, task)| *task).collect()
    };
    let scan = async |values: Selected<V>| tx.scan(index, scope, values).all(99).await.unwrap();
    assert_eq!(refs(&scan(Selected::All).await), those(&|_| true));
    for (value, _) in &sorted {
        assert_eq!(refs(&scan(Selected::Exactly(value.clone())).await), those(&|v| v == value));
        assert_eq!(refs(&scan(Selected::Below(value.clone())).await), those(&|v| v < value));
        assert_eq!(refs(&scan(Selected::From(value.clone())).await), those(&|v| v >= value));
    }
}

/// Compares a covering index with the records.
async fn covers<K, V, C, S>(
    tx: &Transaction,
    index: &'static Index<Task, K>,
    scope: S,
    tasks: &[&Task],
    fields: impl Fn(&Task) -> Option<(V, C)>,
) where
    K: CoveringIndexType<Value = V, Included = C, Scope<TenantId> = S>,
    V: KeyPart + Ord + Debug,
    C: PartialEq + Debug + 'static,
{
    let of = |task: &Task| {
        let (value, fields) = fields(task)?;
        Some(Covered { scope: task.tenant, key: task.number, value, fields })
    };
    let mut expected: Vec<_> = tasks.iter().filter_map(|task| of(task)).collect();
    expected.sort_by(|a, b| a.value.cmp(&b.value));
    assert_eq!(tx.scan_index_only(index, scope, ..).all(99).await.unwrap(), expected);
}

/// Compares a counting index with the records.
async fn counts<K, V, S>(
    tx: &Transaction,
    index: &'static Index<Task, K>,
    scope: S,
    tasks: &[&Task],
    group: impl Fn(&Task) -> Option<V>,
) where
    K: CountIndexType<Value = V, Scope<TenantId> = S>,
    V: KeyPart + Ord + Debug,
    S: Scope,
{
    let mut expected = BTreeMap::new();
    for task in tasks {
        if let Some(value) = group(task) {
            *expected.entry(value).or_insert(0_i64) += 1;
        }
    }
    for (value, number) in &expected {
        assert_eq!(tx.count(index, scope, value).await.unwrap(), *number);
    }
    let expected: Vec<(V, i64)> = expected.into_iter().collect();
    assert_eq!(tx.scan_counts(index, scope, ..).all(99).await.unwrap(), expected);
}

/// Each kind of query, as one type.
enum Selected<V> {
    All,
    Exactly(V),
    Below(V),
    From(V),
}

impl<V: KeyPart> KeyQuery<V> for Selected<V> {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        match self {
            Self::All => KeyQuery::<V>::keys(.., prefix),
            Self::Exactly(value) => value.keys(prefix),
            Self::Below(value) => (..value).keys(prefix),
            Self::From(value) => (value..).keys(prefix),
        }
    }
}

/// Asserts that no entry is left of deleted records, and that each entry is of a scan.
async fn no_more_keys_than(store: &Store, tasks: &Tasks) {
    let all = store.root().range();
    let query = RangeQuery::new(all.begin, all.end);
    let rows: Vec<KeyValue> = store.begin().engine().get_range(&query).await.unwrap().rows;
    let meta = store.root().key(&"meta".to_owned());
    let written = rows.iter().filter(|row| !row.key.starts_with(&meta)).count();
    let of = |task: &Task| {
        let (due, ticket) = (usize::from(task.due.is_some()), usize::from(task.ticket.is_some()));
        5 + 2 * due + ticket + 2 * tags(task).len()
    };
    let load: BTreeSet<_> = tasks.values().map(|t| (t.tenant, t.owner, t.day)).collect();
    let due: BTreeSet<_> = tasks.values().filter_map(|task| task.due).collect();
    assert_eq!(written, tasks.values().map(of).sum::<usize>() + load.len() + due.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn indexes_match_a_full_scan_after_any_steps(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}

#[tokio::test]
async fn a_composite_is_scanned_by_its_first_part_and_by_ranges_of_both() {
    let store = store().await;
    let tx = store.begin();
    for (number, owner, due) in [(1, 1, 30), (2, 1, 10), (3, 2, 20), (4, 1, 20)] {
        tx.insert(&Task { owner: user(owner), due: Some(due), ..task(number) }).await.unwrap();
    }
    tx.insert(&task(5)).await.unwrap();
    let numbers = async |scan: coditect_store::Scan<'_, Task>| -> Vec<u64> {
        scan.all(9).await.unwrap().iter().map(|task| task.number.0).collect()
    };
    let scope = tenant(1);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, (user(1),))).await, [2, 4, 1]);
    let early = (user(1), i64::MIN)..=(user(1), 20);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, early)).await, [2, 4]);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, (user(2), 20))).await, [3]);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, ..).rev()).await, [3, 1, 4, 2]);
}

#[tokio::test]
async fn writers_of_one_count_do_not_conflict_and_it_ends_with_its_last_record() {
    let store = store().await;
    let (first, second) = (store.begin(), store.begin());
    first.insert(&task(1)).await.unwrap();
    second.insert(&task(2)).await.unwrap();
    first.commit().await.unwrap();
    second.commit().await.unwrap();
    let group = (user(1), 0);
    let tx = store.begin();
    assert_eq!(tx.count(&Task::LOAD, tenant(1), group).await.unwrap(), 2);
    assert_eq!(tx.count(&Task::LOAD, tenant(1), (user(1), 7)).await.unwrap(), 0);

    tx.delete::<Task>(tenant(1), TaskNumber(1)).await.unwrap();
    tx.update(&Task { day: 7, ..task(2) }).await.unwrap();
    tx.commit().await.unwrap();
    let tx = store.begin();
    let all = tx.scan_counts(&Task::LOAD, tenant(1), ..).all(9).await.unwrap();
    assert_eq!(all, [((user(1), 7), 1)]);
    let someones = tx.scan_counts(&Task::LOAD, tenant(1), (user(1),)).all(9).await.unwrap();
    assert_eq!(someones, all);
}

#[tokio::test]
async fn a_covering_index_is_read_page_by_page_without_its_records() {
    let store = store().await;
    let tx = store.begin();
    for number in 1..=5 {
        tx.insert(&task(number)).await.unwrap();
        let key = store.root().key(&(tenant(1), ("planner_tasks".to_owned(), number)));
        tx.engine().clear(&key);
    }
    let scan = tx
        .scan_index_only(&Task::SUMMARIES, tenant(1), user(1))
        .filter("not 2", |of| of.key.0 != 2);
    let first = scan.page(2, None).await.unwrap();
    let second = scan.page(9, first.next.as_ref()).await.unwrap();
    let slugs = first.items.iter().chain(&second.items).map(|of| of.fields.slug.as_str());
    assert_eq!(slugs.collect::<Vec<_>>(), ["task-1", "task-3", "task-4", "task-5"]);
    assert!(first.items.iter().all(|of| (of.scope, of.value) == (tenant(1), user(1))));
}
