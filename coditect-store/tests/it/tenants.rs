//! Calls with the scope of one tenant do not affect others.

use std::collections::BTreeMap;

use coditect_store::{
    Entity, Store, Transaction,
    engine::RangeQuery,
    keyspace::{Global, KeyPart},
    model::{Agent, AuditEntry, Message, MessageId, TenantId},
};
use proptest::prelude::*;

use crate::{
    planner::{Task, TaskNumber, store, task, tenant, user},
    samples,
};

type Keys = BTreeMap<Vec<u8>, Vec<u8>>;

async fn keys(store: &Store) -> Keys {
    let range = store.root().range();
    let mut stream = store.begin().engine().stream(RangeQuery::new(range.begin, range.end));
    let mut keys = Keys::new();
    while let Some(rows) = stream.next_page().await.unwrap() {
        keys.extend(rows.into_iter().map(|row| (row.key, row.value)));
    }
    keys
}

#[derive(Clone, Debug)]
enum Step {
    Create(Task),
    Update(Task),
    Upsert(Task),
    Delete(u64),
    Read(u64),
    Append,
    Audit,
    TakeOut(usize),
    ReadLogs,
}

/// Records of `tenant(2)`.
fn tasks() -> impl Strategy<Value = Task> {
    (0..4_u64, "[ab]", prop::option::of("[xyz]"), 0..2_i64).prop_map(
        |(number, slug, ticket, day)| Task {
            tenant: tenant(2),
            slug,
            ticket,
            day,
            owner: user(1),
            ..task(number)
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => tasks().prop_map(Step::Create),
        3 => tasks().prop_map(Step::Update),
        2 => tasks().prop_map(Step::Upsert),
        2 => (0..4_u64).prop_map(Step::Delete),
        1 => (0..4_u64).prop_map(Step::Read),
        2 => Just(Step::Append),
        1 => Just(Step::Audit),
        1 => (0..2_usize).prop_map(Step::TakeOut),
        1 => Just(Step::ReadLogs),
    ];
    prop::collection::vec(step, 0..20)
}

fn message(of: TenantId, id: u128) -> Message {
    let id = MessageId(uuid::Uuid::from_u128(id));
    Message { tenant_id: of, id, ..samples::message() }
}

fn audit_entry(of: TenantId) -> AuditEntry {
    AuditEntry { tenant_id: of, ..samples::audit_entry() }
}

/// Runs `step`; a rejection is as good as success. Streams are read only if nothing was `appended`:
/// afterwards they cannot be read.
async fn apply(tx: &Transaction, of: TenantId, appended: &mut u128, step: Step) {
    let conversation = samples::conversation().id;
    match step {
        Step::Create(task) => drop(tx.insert(&task).await),
        Step::Update(task) => drop(tx.update(&task).await),
        Step::Upsert(task) => drop(tx.upsert(&task).await),
        Step::Delete(number) => {
            tx.delete::<Task>(of, TaskNumber(number)).await.unwrap();
        }
        Step::Read(number) => {
            tx.get::<Task>(of, TaskNumber(number)).await.unwrap();
            tx.find(&Task::BY_SLUG, of, "a".to_owned()).await.unwrap();
            tx.scan(&Task::BY_OWNER, of, ..).all(99).await.unwrap();
            tx.list::<Task>(of).rev().all(99).await.unwrap();
            tx.list_keys::<Task>(of, ..TaskNumber(number)).all(99).await.unwrap();
        }
        Step::Append => {
            *appended += 1;
            tx.append(&message(of, 100 + *appended)).await.unwrap();
        }
        Step::Audit => {
            *appended += 1;
            tx.append(&audit_entry(of)).await.unwrap();
        }
        Step::TakeOut(_) | Step::ReadLogs if *appended > 0 => {}
        Step::TakeOut(nth) => {
            let page = tx.events::<Message>(of, conversation, ..).page(9, None).await.unwrap();
            if let Some(logged) = page.items.get(nth) {
                let changed = Message { content: "changed".into(), ..logged.record.clone() };
                tx.update_event(logged.position, &changed).await.unwrap();
                tx.remove_event::<Message>(of, conversation, logged.position).await.unwrap();
            }
        }
        Step::ReadLogs => {
            let entries = tx.scan_events(&AuditEntry::BY_ACTION, of, ..).rev();
            entries.page(9, None).await.unwrap();
        }
    }
}

/// A store in which three tenants have records of every kind.
async fn peopled() -> Store {
    let store = store().await;
    for n in 1..=3 {
        let ticket = Some(["x", "y", "z"][n as usize - 1].to_owned());
        let tx = store.begin();
        tx.insert(&Task { tenant: tenant(n), ticket, ..task(1) }).await.unwrap();
        tx.insert(&Agent { tenant_id: tenant(n), ..samples::agent() }).await.unwrap();
        tx.append(&message(tenant(n), 7)).await.unwrap();
        tx.append(&audit_entry(tenant(n))).await.unwrap();
        tx.commit().await.unwrap();
    }
    store
}

/// Returns whether `key` is an entry of a record of `of` in a global index.
fn is_global_entry_of(store: &Store, key: &[u8], value: &[u8], of: TenantId) -> bool {
    let mut packed = Vec::new();
    of.pack(&mut packed);
    let by_ticket = store.root().key(&"planner_tasks_by_ticket".to_owned());
    let by_day = store.root().key(&"planner_tasks_by_day".to_owned());
    let within = |bytes: &[u8]| bytes.windows(packed.len()).any(|window| window == packed);
    (key.starts_with(&by_ticket) && within(value)) || (key.starts_with(&by_day) && within(key))
}

async fn affects_no_other_tenant(steps: Vec<Step>) {
    let own = tenant(2);
    let store = peopled().await;
    let before = keys(&store).await;
    let tx = store.begin();
    let mut appended = 0;
    for step in steps {
        apply(&tx, own, &mut appended, step).await;
    }

    // Concurrent writes of others are no conflict: this transaction has not read them.
    let range = store.root().tenant(own);
    let others = store.begin();
    for (key, value) in &before {
        let is_of = |name: &str| key.starts_with(&store.root().key(&name.to_owned()));
        // The catalog is read by all.
        if !range.contains(key) && !is_of("planner_tasks_by_ticket") && !is_of("meta") {
            others.engine().set(key, value);
        }
    }
    others.commit().await.unwrap();
    tx.commit().await.unwrap();

    let after = keys(&store).await;
    let changed = before
        .iter()
        .filter(|(key, value)| after.get(*key) != Some(value))
        .chain(after.iter().filter(|(key, value)| before.get(*key) != Some(value)));
    for (key, value) in changed {
        let is_mark = key.ends_with(b"\x02meta\0\x02last_append\0");
        let allowed = range.contains(key) || is_global_entry_of(&store, key, value, own) || is_mark;
        assert!(allowed, "{}", key.escape_ascii());
    }
    let tasks = store.begin().list::<Task>(own).all(99).await.unwrap();
    let days = store.begin().scan(&Task::BY_DAY, Global, ..).all(99).await.unwrap();
    let of_own = days.iter().filter(|task| task.tenant == own).count();
    assert_eq!(of_own, tasks.len(), "indexes over all tenants are kept");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn writes_of_a_tenant_change_its_keys_and_global_entries_only(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(affects_no_other_tenant(steps));
    }
}

#[tokio::test]
async fn another_tenants_records_are_not_found() {
    let store = store().await;
    let (tx, own, agent) = (store.begin(), samples::tenant().id, samples::agent());
    tx.insert(&agent).await.unwrap();
    tx.append(&samples::message()).await.unwrap();
    tx.commit().await.unwrap();

    let (tx, other) = (store.begin(), TenantId::new());
    let said = tx.find_event(&Message::BY_ID, own, samples::message().id).await.unwrap().unwrap();
    let conversation = said.record.conversation_id;
    let again = tx.get_event::<Message>(own, conversation, said.position).await.unwrap();
    assert_eq!(again, Some(said.record));
    assert_eq!(tx.find(&Agent::BY_NAME, own, &agent.name).await.unwrap().as_ref(), Some(&agent));

    assert_eq!(tx.get::<Agent>(other, agent.key()).await.unwrap(), None);
    assert_eq!(tx.delete::<Agent>(other, agent.key()).await.unwrap(), None);
    assert_eq!(tx.find(&Agent::BY_NAME, other, &agent.name).await.unwrap(), None);
    let event = tx.get_event::<Message>(other, conversation, said.position).await.unwrap();
    assert_eq!(event, None);
}
