//! Indexes against a full scan, after whatever was done.

use std::collections::BTreeMap;

use coditect_store::{
    ErrorKind, Store, Transaction,
    engine::{KeyValue, RangeQuery},
    entity::{Index, Kind},
    keyspace::{Global, Scope, Select},
    model::TenantId,
};
use proptest::prelude::*;

use crate::planner::{Task, TaskNumber, store, task, tenant, user};

#[derive(Clone, Debug)]
enum Step {
    Create(Task),
    Update(Task),
    Delete(TenantId, TaskNumber),
    Commit,
    GiveUp,
}

/// What the store should hold.
type Tasks = BTreeMap<(TenantId, TaskNumber), Task>;

fn tasks() -> impl Strategy<Value = Task> {
    let slug = prop_oneof!["[ab]", Just("a\0".to_owned()), Just(String::new())];
    let ticket = prop::option::of("[xy]");
    (1..3_u128, 0..4_u64, slug, 1..3_u128, prop::option::of(-1..2_i64), ticket, -1..2_i64).prop_map(
        |(owner_tenant, number, slug, owner, due, ticket, day)| Task {
            tenant: tenant(owner_tenant),
            number: TaskNumber(number),
            slug,
            owner: user(owner),
            due,
            ticket,
            day,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => tasks().prop_map(Step::Create),
        4 => tasks().prop_map(Step::Update),
        2 => (1..3_u128, 0..4_u64).prop_map(|(t, n)| Step::Delete(tenant(t), TaskNumber(n))),
        2 => Just(Step::Commit),
        1 => Just(Step::GiveUp),
    ];
    prop::collection::vec(step, 0..60)
}

fn kind(outcome: coditect_store::Result<()>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind())
}

/// Why `task` cannot be put beside the others.
fn taken(tasks: &Tasks, task: &Task) -> Option<ErrorKind> {
    let mut others =
        tasks.values().filter(|other| (other.tenant, other.number) != (task.tenant, task.number));
    if others.clone().any(|other| other.tenant == task.tenant && other.slug == task.slug) {
        return Some(ErrorKind::Unique("planner_tasks_by_slug"));
    }
    let ticket = others.any(|other| task.ticket.is_some() && other.ticket == task.ticket);
    ticket.then_some(ErrorKind::Unique("planner_tasks_by_ticket"))
}

async fn apply(tx: &Transaction, tasks: &mut Tasks, step: Step) {
    match step {
        Step::Create(task) => {
            let key = (task.tenant, task.number);
            let exists = tasks.contains_key(&key).then_some(ErrorKind::Exists);
            let expected = exists.or_else(|| taken(tasks, &task));
            assert_eq!(kind(tx.create(&task).await), expected);
            if expected.is_none() {
                tasks.insert(key, task);
            }
        }
        Step::Update(task) => {
            let key = (task.tenant, task.number);
            let missing = (!tasks.contains_key(&key)).then_some(ErrorKind::NotFound);
            let expected = missing.or_else(|| taken(tasks, &task));
            assert_eq!(kind(tx.update(&task).await), expected);
            if expected.is_none() {
                tasks.insert(key, task);
            }
        }
        Step::Delete(tenant, number) => {
            let deleted = tx.delete::<Task>(tenant, number).await.unwrap();
            assert_eq!(deleted, tasks.remove(&(tenant, number)));
        }
        Step::Commit | Step::GiveUp => unreachable!("the caller's"),
    }
}

async fn play(steps: Vec<Step>) {
    let store = store().await;
    let mut committed = Tasks::new();
    let (mut tx, mut tasks) = (store.begin(), committed.clone());
    for step in steps {
        match step {
            Step::Commit => {
                agrees(&tx, &tasks).await;
                tx.commit().await.unwrap();
                committed.clone_from(&tasks);
                tx = store.begin();
            }
            Step::GiveUp => {
                (tx, tasks) = (store.begin(), committed.clone());
            }
            step => apply(&tx, &mut tasks, step).await,
        }
    }
    agrees(&store.begin(), &committed).await;
    no_more_keys_than(&store, &committed).await;
}

/// Compares each index with what a full scan, sorted by the indexed value, would say.
async fn agrees(tx: &Transaction, tasks: &Tasks) {
    let mut all: Vec<&Task> = tasks.values().collect();
    for scope in [tenant(1), tenant(2)] {
        let own: Vec<&Task> = all.iter().copied().filter(|task| task.tenant == scope).collect();
        assert_eq!(refs(&tx.list::<Task>(scope).all(99).await.unwrap()), own);
        same(tx, &Task::BY_SLUG, scope, &own, |task| Some(task.slug.clone())).await;
        same(tx, &Task::BY_OWNER, scope, &own, |task| Some(task.owner)).await;
        same(tx, &Task::BY_DUE, scope, &own, |task| task.due.map(|due| (task.owner, due))).await;
    }
    all.sort_by_key(|task| (task.tenant, task.number));
    same(tx, &Task::BY_TICKET, Global, &all, |task| task.ticket.clone()).await;
    same(tx, &Task::BY_DAY, Global, &all, |task| Some(task.day)).await;
}

fn refs(tasks: &[Task]) -> Vec<&Task> {
    tasks.iter().collect()
}

/// Compares all of one index, each value of it, and what lies below and above each value.
async fn same<K, V, S>(
    tx: &Transaction,
    index: &'static Index<Task, K>,
    scope: S,
    tasks: &[&Task],
    value: impl Fn(&Task) -> Option<V>,
) where
    K: Kind<Value = V, Scope<TenantId> = S>,
    V: coditect_store::keyspace::KeyPart + Ord,
    S: Scope,
{
    let mut sorted: Vec<(V, &Task)> =
        tasks.iter().filter_map(|task| Some((value(task)?, *task))).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let those = |keep: &dyn Fn(&V) -> bool| -> Vec<&Task> {
        sorted.iter().filter(|(value, _)| keep(value)).map(|(_, task)| *task).collect()
    };
    let scan = async |values: Values<V>| tx.scan(index, scope, values).all(99).await.unwrap();
    assert_eq!(refs(&scan(Values::All).await), those(&|_| true));
    for (value, _) in &sorted {
        assert_eq!(refs(&scan(Values::Exactly(value.clone())).await), those(&|v| v == value));
        assert_eq!(refs(&scan(Values::Below(value.clone())).await), those(&|v| v < value));
        assert_eq!(refs(&scan(Values::From(value.clone())).await), those(&|v| v >= value));
    }
}

/// Each way to select, as one type.
enum Values<V> {
    All,
    Exactly(V),
    Below(V),
    From(V),
}

impl<V: coditect_store::keyspace::KeyPart> Select<V> for Values<V> {
    fn keys(self, prefix: &[u8]) -> coditect_store::keyspace::KeyRange {
        match self {
            Self::All => Select::<V>::keys(.., prefix),
            Self::Exactly(value) => value.keys(prefix),
            Self::Below(value) => (..value).keys(prefix),
            Self::From(value) => (value..).keys(prefix),
        }
    }
}

/// No entry is left of what is gone, and none is written that no scan would show.
async fn no_more_keys_than(store: &Store, tasks: &Tasks) {
    let all = store.root().range();
    let query = RangeQuery::new(all.begin, all.end);
    let rows: Vec<KeyValue> = store.begin().engine().get_range(&query).await.unwrap().rows;
    let of = |task: &Task| 4 + usize::from(task.due.is_some()) + usize::from(task.ticket.is_some());
    let format = 1;
    assert_eq!(rows.len(), tasks.values().map(of).sum::<usize>() + format);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn after_any_steps_each_index_says_what_a_full_scan_says(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}

#[tokio::test]
async fn a_composite_is_scanned_by_its_first_part_and_by_ranges_of_both() {
    let store = store().await;
    let tx = store.begin();
    for (number, owner, due) in [(1, 1, 30), (2, 1, 10), (3, 2, 20), (4, 1, 20)] {
        tx.create(&Task { owner: user(owner), due: Some(due), ..task(number) }).await.unwrap();
    }
    tx.create(&task(5)).await.unwrap();
    let numbers = async |scan: coditect_store::Scan<'_, Task>| -> Vec<u64> {
        scan.all(9).await.unwrap().iter().map(|task| task.number.0).collect()
    };
    let scope = tenant(1);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, (user(1),))).await, [2, 4, 1]);
    let early = (user(1), i64::MIN)..=(user(1), 20);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, early)).await, [2, 4]);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, (user(2), 20))).await, [3]);
    assert_eq!(numbers(tx.scan(&Task::BY_DUE, scope, ..).newest_first()).await, [3, 1, 4, 2]);
}
