//! Event streams: appends, their order, and their conflicts.

use std::collections::BTreeSet;

use coditect_store::{
    AppendHandle, ErrorKind, Event, Scan, Store, Transaction,
    engine::{Database, KEY_SIZE_LIMIT, RangeQuery},
    entity::{EventStream, Multi},
    keyspace::{Global, Position, Subspace},
    model::{AuditEntry, ConversationId, Message, MessageId, TenantId, UserId},
    stream_indexes,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{planner::store, samples};

fn message(n: u128, content: &str) -> Message {
    let id = MessageId(uuid::Uuid::from_u128(n));
    Message { id, content: content.into(), ..samples::message() }
}

async fn said(store: &Store, messages: &[Message]) -> Vec<Position> {
    let append = |tx: Transaction| async move {
        let mut appended = Vec::new();
        for message in messages {
            appended.push(tx.append(message).await?);
        }
        Ok::<_, coditect_store::Error>(appended)
    };
    let appended = store.run(append).await.unwrap();
    appended.iter().map(|appended| appended.position().unwrap()).collect()
}

fn all<'a>(store: &Store) -> Scan<'a, Event<Message>> {
    store.begin().events(samples::tenant().id, samples::conversation().id, ..)
}

async fn contents(scan: &Scan<'_, Event<Message>>) -> Vec<String> {
    let page = scan.page(100, None).await.unwrap();
    assert!(page.next.is_none());
    page.items.into_iter().map(|logged| logged.record.content).collect()
}

#[tokio::test]
async fn records_lie_in_the_order_of_their_commits_then_of_their_appends() {
    let store = store().await;
    let (first, second) = (store.begin(), store.begin());
    first.append(&message(1, "c")).await.unwrap();
    second.append(&message(2, "a")).await.unwrap();
    second.append(&message(3, "b")).await.unwrap();
    second.commit().await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(contents(&all(&store)).await, ["a", "b", "c"]);
    assert_eq!(contents(&all(&store).rev()).await, ["c", "b", "a"]);
}

#[tokio::test]
async fn a_position_is_known_once_it_is_committed() {
    let store = store().await;
    let tx = store.begin();
    let one = tx.append(&message(1, "a")).await.unwrap();
    let two = tx.append(&message(2, "b")).await.unwrap();
    assert_eq!((one.position(), two.position()), (None, None));
    tx.commit().await.unwrap();
    let (one, two) = (one.position().unwrap(), two.position().unwrap());
    assert!(one < two && one.versionstamp() == two.versionstamp());
    assert_eq!((one.order(), two.order()), (0, 1));

    let (tenant, conversation) = (samples::tenant().id, samples::conversation().id);
    let tx = store.begin();
    let at =
        async |position| tx.get_event::<Message>(tenant, conversation, position).await.unwrap();
    assert_eq!(at(one).await, Some(message(1, "a")));
    assert_eq!(at(two).await, Some(message(2, "b")));
    let elsewhere = tx.get_event::<Message>(tenant, ConversationId::new(), one).await.unwrap();
    assert_eq!(elsewhere, None);
    let found = tx.find_event(&Message::BY_ID, tenant, message(2, "").id).await.unwrap().unwrap();
    assert_eq!((found.position, found.record), (two, message(2, "b")));
    assert_eq!(tx.find_event(&Message::BY_ID, tenant, MessageId::new()).await.unwrap(), None);
}

#[tokio::test]
async fn streams_and_tenants_see_nothing_of_each_other() {
    let store = store().await;
    let here = message(1, "here");
    let there = Message { conversation_id: ConversationId::new(), ..message(2, "there") };
    let foreign = Message { tenant_id: TenantId::new(), ..message(1, "foreign") };
    said(&store, &[there.clone(), here.clone(), foreign.clone()]).await;
    assert_eq!(contents(&all(&store)).await, ["here"]);
    let tx = store.begin();
    for message in [there, foreign] {
        let (tenant, conversation) = (message.tenant_id, message.conversation_id);
        assert_eq!(
            contents(&tx.events(tenant, conversation, ..)).await,
            [message.content.as_str()]
        );
        let found = tx.find_event(&Message::BY_ID, tenant, message.id).await.unwrap();
        assert_eq!(found.unwrap().record, message);
    }
}

#[tokio::test]
async fn appended_events_cannot_be_read_in_their_transaction() {
    let store = store().await;
    let tx = store.begin();
    tx.append(&message(1, "a")).await.unwrap();
    let (tenant, conversation) = (samples::tenant().id, samples::conversation().id);
    let refused = [
        tx.events::<Message>(tenant, conversation, ..).page(9, None).await.unwrap_err(),
        tx.find_event(&Message::BY_ID, tenant, message(1, "").id).await.unwrap_err(),
        tx.append(&message(1, "again")).await.unwrap_err(),
    ];
    for error in refused {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, Some(1036)));
    }
    assert_eq!(tx.commit().await.unwrap_err().code(), Some(1036));
}

#[tokio::test]
async fn taken_unique_value_is_rejected() {
    let store = store().await;
    said(&store, &[message(1, "a")]).await;
    let tx = store.begin();
    let error = tx.append(&message(1, "b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation("messages_by_id"));
    tx.append(&message(2, "c")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(contents(&all(&store)).await, ["a", "c"]);

    let (one, two) = (store.begin(), store.begin());
    one.append(&message(3, "d")).await.unwrap();
    two.append(&message(3, "e")).await.unwrap();
    one.commit().await.unwrap();
    assert_eq!(two.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_do_not_conflict() {
    const WRITERS: u128 = 64;
    let store = store().await;
    let append = |n| {
        let store = store.clone();
        async move {
            let tx = store.begin();
            let appended = tx.append(&message(n, "x")).await.unwrap();
            tx.append(&samples::audit_entry()).await.unwrap();
            tx.commit().await.unwrap();
            appended.position().unwrap()
        }
    };
    let running: Vec<_> = (0..WRITERS).map(|n| tokio::spawn(append(n))).collect();
    let mut positions = BTreeSet::new();
    for writer in running {
        positions.insert(writer.await.unwrap());
    }
    let page = all(&store).page(100, None).await.unwrap();
    let read: Vec<Position> = page.items.iter().map(|logged| logged.position).collect();
    assert_eq!(read.len(), 64);
    assert!(read.iter().eq(&positions), "in the order of their positions");
}

#[tokio::test]
async fn reader_of_a_streams_end_conflicts_with_an_append() {
    let store = store().await;
    said(&store, &[message(1, "a"), message(2, "b")]).await;
    let (reader, reader_of_one) = (store.begin(), store.begin());
    let stream = |tx: &Transaction| {
        tx.events::<Message>(samples::tenant().id, samples::conversation().id, ..)
    };
    assert_eq!(stream(&reader).page(9, None).await.unwrap().items.len(), 2);
    assert_eq!(stream(&reader_of_one).page(1, None).await.unwrap().items.len(), 1);
    for tx in [&reader, &reader_of_one] {
        tx.insert(&samples::tenant()).await.unwrap();
    }
    said(&store, &[message(3, "c")]).await;
    assert_eq!(reader.commit().await.unwrap_err().kind(), ErrorKind::Conflict);
    reader_of_one.commit().await.unwrap();
}

#[tokio::test]
async fn positions_select_a_part_of_a_stream() {
    let store = store().await;
    let mut positions = said(&store, &[message(1, "a"), message(2, "b")]).await;
    positions.extend(said(&store, &[message(3, "c")]).await);
    let tx = store.begin();
    let (tenant, conversation) = (samples::tenant().id, samples::conversation().id);
    assert_eq!(contents(&tx.events(tenant, conversation, positions[1]..)).await, ["b", "c"]);
    assert_eq!(contents(&tx.events(tenant, conversation, ..positions[1])).await, ["a"]);
    assert_eq!(contents(&tx.events(tenant, conversation, positions[2])).await, ["c"]);
}

#[tokio::test]
async fn a_message_is_amended_in_its_place_and_taken_out() {
    let store = store().await;
    let positions = said(&store, &[message(1, "a"), message(2, "b"), message(3, "c")]).await;
    let (tenant, conversation) = (samples::tenant().id, samples::conversation().id);
    let tx = store.begin();
    tx.update_event(positions[1], &message(2, "B")).await.unwrap();
    let error = tx.update_event(positions[1], &message(3, "B")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation("messages_by_id"));
    tx.update_event(positions[2], &message(4, "D")).await.unwrap();
    let elsewhere = Message { conversation_id: ConversationId::new(), ..message(1, "x") };
    let error = tx.update_event(positions[0], &elsewhere).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let taken = tx.remove_event::<Message>(tenant, conversation, positions[0]).await.unwrap();
    assert_eq!(taken, Some(message(1, "a")));
    let taken = tx.remove_event::<Message>(tenant, conversation, positions[0]).await.unwrap();
    assert_eq!(taken, None);
    tx.commit().await.unwrap();

    assert_eq!(contents(&all(&store)).await, ["B", "D"]);
    let tx = store.begin();
    let found = async |n| {
        let id = message(n, "").id;
        let found = tx.find_event(&Message::BY_ID, tenant, id).await.unwrap();
        found.map(|logged| (logged.position, logged.record.content))
    };
    assert_eq!(found(1).await, None);
    assert_eq!(found(2).await, Some((positions[1], "B".to_owned())));
    assert_eq!(found(3).await, None);
    assert_eq!(found(4).await, Some((positions[2], "D".to_owned())));
    let range = store.root().range();
    let rows = tx.engine().get_range(&RangeQuery::new(range.begin, range.end)).await.unwrap().rows;
    let meta = store.root().key(&"meta".to_owned());
    let written = rows.iter().filter(|row| !row.key.starts_with(&meta)).count();
    assert_eq!(written, 2 * 2, "records and their entries");
}

fn audit(actor: Option<UserId>, action: &str) -> AuditEntry {
    AuditEntry { actor, action: action.into(), ..samples::audit_entry() }
}

#[tokio::test]
async fn the_audit_log_is_read_by_actor_and_by_action() {
    let store = store().await;
    let (ada, grace) = (Some(samples::user().id), Some(UserId::new()));
    let entries = &[
        audit(ada, "login"),
        audit(grace, "login"),
        audit(None, "sweep"),
        audit(ada, "login.again"),
        audit(ada, "logout"),
    ];
    for entry in entries {
        store.run(|tx| async move { tx.append(entry).await.map(drop) }).await.unwrap();
    }
    let tx = store.begin();
    let tenant = samples::tenant().id;
    let shown = async |scan: Scan<'_, Event<AuditEntry>>| -> Vec<AuditEntry> {
        let page = scan.rev().page(9, None).await.unwrap();
        page.items.into_iter().map(|logged| logged.record).collect()
    };
    let of = |numbers: &[usize]| -> Vec<AuditEntry> {
        numbers.iter().map(|&n| entries[n].clone()).collect()
    };
    assert_eq!(shown(tx.events(tenant, (), ..)).await, of(&[4, 3, 2, 1, 0]));
    let by_actor = tx.scan_events(&AuditEntry::BY_ACTOR, tenant, ada.unwrap());
    assert_eq!(shown(by_actor).await, of(&[4, 3, 0]));
    let by_action = tx.scan_events(&AuditEntry::BY_ACTION, tenant, "login");
    assert_eq!(shown(by_action).await, of(&[1, 0]));
    let both = tx.scan_events(&AuditEntry::BY_ACTION, tenant, "login");
    let both = both.filter("actor=ada", move |entry| entry.record.actor == ada);
    assert_eq!(shown(both).await, of(&[0]));
    let foreign = tx.scan_events(&AuditEntry::BY_ACTION, TenantId::new(), "login");
    assert_eq!(shown(foreign).await, []);
}

#[tokio::test]
async fn a_cursor_holds_for_its_own_scan_only() {
    let store = store().await;
    said(&store, &[message(1, "a"), message(2, "b")]).await;
    let cursor = all(&store).page(1, None).await.unwrap().next.unwrap();
    let other = store.begin().events::<Message>(samples::tenant().id, ConversationId::new(), ..);
    let others = [other, all(&store).rev(), all(&store).filter("x", |_| true)];
    for scan in others {
        let error = scan.page(1, Some(&cursor)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{scan:?}");
    }
    for limit in [0, usize::MAX] {
        let error = all(&store).page(limit, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_record_in_anothers_stream_is_corruption() {
    let store = store().await;
    said(&store, &[message(1, "a")]).await;
    let tx = store.begin();
    let tenant = samples::tenant().id;
    let own = Message::SPACE.prefix(store.root(), tenant);
    let range = coditect_store::keyspace::KeyRange::tuples(&own);
    let rows = tx.engine().get_range(&RangeQuery::new(range.begin, range.end)).await.unwrap().rows;
    let foreign = ConversationId::new();
    let mut key = Message::SPACE.key(store.root(), tenant, &foreign);
    key.extend(&rows[0].key[key.len()..]);
    tx.engine().set(&key, &rows[0].value);
    let read = tx.events::<Message>(tenant, foreign, ..).page(1, None).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt);
    tx.engine().clear(&rows[0].key);
    let found = tx.find_event(&Message::BY_ID, tenant, message(1, "").id).await;
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Corrupt);
}

/// A global stream of another crate, with composite names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reading {
    station: String,
    sensor: u64,
    value: i64,
}

impl EventStream for Reading {
    type Scope = Global;
    type Stream = (String, u64);
    const SPACE: Subspace<Global> = Subspace::global("readings").keyed(&["station", "sensor"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn stream(&self) -> (String, u64) {
        (self.station.clone(), self.sensor)
    }
}

stream_indexes! { Reading =>
    /// By reading.
    BY_VALUE ("readings_by_value", value): Multi<i64> = |reading| Some(reading.value);
}

#[tokio::test]
async fn a_log_of_another_crate_is_declared_and_read() {
    let database = Database::temporary().unwrap();
    let reading = &Reading { station: "north\0".into(), sensor: 7, value: -3 };
    let undeclared = Store::open(database.clone()).await.unwrap();
    let error = undeclared.begin().append(reading).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);

    let store = Store::options()
        .schema(coditect_store::model::schema())
        .stream::<Reading>()
        .open(database)
        .await
        .unwrap();
    let append = |tx: Transaction| async move { tx.append(reading).await };
    let appended: AppendHandle = store.run(append).await.unwrap();
    let tx = store.begin();
    let read =
        tx.get_event::<Reading>(Global, reading.stream(), appended.position().unwrap()).await;
    assert_eq!(read.unwrap().as_ref(), Some(reading));
    let found = tx.scan_events(&Reading::BY_VALUE, Global, ..0).page(9, None).await.unwrap();
    assert_eq!(&found.items[0].record, reading);
    let layouts: Vec<String> = store.schema().layouts().iter().map(ToString::to_string).collect();
    assert!(layouts.contains(&r#"("readings", station, sensor, versionstamp)"#.to_owned()));
    assert!(layouts.contains(&r#"("readings_by_value", value, versionstamp)"#.to_owned()));
}

#[tokio::test]
async fn oversized_key_is_rejected() {
    let store = store().await;
    let entry = &audit(None, &"a".repeat(KEY_SIZE_LIMIT));
    let error = store.run(|tx| async move { tx.append(entry).await }).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Limit, Some(2102)));
}

/// Pages through a stream during appends and removals.
async fn page_through(there: usize, limit: usize, rev: bool, meanwhile: Vec<usize>) {
    let store = store().await;
    let messages: Vec<Message> = (0..there).map(|n| message(n as u128, "x")).collect();
    let mut stayed: BTreeSet<Position> = said(&store, &messages).await.into_iter().collect();
    let stayed_first = stayed.clone();
    let (mut shown, mut next) = (Vec::new(), None);
    let (mut meanwhile, mut id) = (meanwhile.into_iter(), 1_000);
    loop {
        let scan = all(&store);
        let scan = if rev { scan.rev() } else { scan };
        let page = scan.page(limit, next.as_ref()).await.unwrap();
        shown.extend(page.items.into_iter().map(|logged| logged.position));
        next = page.next;
        if next.is_none() {
            break;
        }
        let Some(what) = meanwhile.next() else { continue };
        id += 1;
        let appended = said(&store, &[message(id, "late")]).await;
        if !rev {
            stayed.extend(appended);
        }
        if let Some(&position) = stayed_first.iter().nth(what) {
            stayed.remove(&position);
            let take_out = |tx: Transaction| async move {
                let conversation = samples::conversation().id;
                tx.remove_event::<Message>(samples::tenant().id, conversation, position).await
            };
            store.run(take_out).await.unwrap();
        }
    }
    if rev {
        shown.reverse();
    }
    assert!(shown.is_sorted_by(|a, b| a < b), "{shown:?}");
    assert!(stayed.iter().all(|position| shown.contains(position)), "{stayed:?} in {shown:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pages_are_right_while_others_append(
        there in 0..20_usize,
        limit in 1..6_usize,
        rev: bool,
        meanwhile in prop::collection::vec(0..30_usize, 0..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(page_through(there, limit, rev, meanwhile));
    }
}

/// One stream, as declared by two versions of a program: the newer one has another index.
mod versions {
    use coditect_store::{
        entity::{EventStream, Multi},
        keyspace::Subspace,
        model::{TenantId, UserId},
        stream_indexes,
    };
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct Older(pub(super) TenantId, pub(super) Option<UserId>);

    impl EventStream for Older {
        type Scope = TenantId;
        type Stream = ();
        const SPACE: Subspace<TenantId> = Subspace::tenant("events").keyed(&[]);
        const VERSION: u8 = 1;
        fn scope(&self) -> TenantId {
            self.0
        }
        fn stream(&self) {}
    }

    stream_indexes! { Older => }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Newer(pub(super) TenantId, pub(super) Option<UserId>);

    impl EventStream for Newer {
        type Scope = TenantId;
        type Stream = ();
        const SPACE: Subspace<TenantId> = Subspace::tenant("events").keyed(&[]);
        const VERSION: u8 = 1;
        fn scope(&self) -> TenantId {
            self.0
        }
        fn stream(&self) {}
    }

    stream_indexes! { Newer =>
        /// By author.
        BY_ACTOR ("events_by_actor", user): Multi<UserId> = |event| event.1;
    }
}

#[tokio::test]
async fn index_of_a_stream_is_declared_before_its_first_event() {
    let database = Database::temporary().unwrap();
    let old = Store::options()
        .schema(coditect_store::model::schema())
        .stream::<versions::Older>()
        .open(database.clone())
        .await
        .unwrap();
    let with_index = || {
        Store::options()
            .schema(coditect_store::model::schema())
            .stream::<versions::Newer>()
            .open(database.clone())
    };
    let tx = old.begin();
    tx.append(&versions::Older(samples::tenant().id, None)).await.unwrap();
    tx.commit().await.unwrap();
    let refused = with_index().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SchemaMismatch("events_by_actor"));

    let tx = old.begin();
    tx.engine().clear_range(&old.root().tenant(samples::tenant().id).begin, b"\xff");
    tx.commit().await.unwrap();
    let new = with_index().await.unwrap();
    let tx = new.begin();
    tx.append(&versions::Newer(samples::tenant().id, None)).await.unwrap();
    tx.commit().await.unwrap();

    // The older program, still running, would omit its entries.
    let tx = old.begin();
    let refused = tx.append(&versions::Older(samples::tenant().id, None)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NewerFormat);
}
