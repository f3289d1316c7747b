//! The cost of each method: the number of reads, and of rounds, each a round trip on a cluster. A
//! more expensive method fails here.
//!
//! Measured on a store whose catalog is cached, as after a program's first transaction. A
//! transaction that writes records reads the epoch once, in its first method that writes.

use coditect_store::{
    Blob, BlobReader, BlobUpload, Clock, Counter, Result, Store, Transaction,
    engine::{Database, Options, Statistics},
    keyspace::Global,
    model::{
        AuditEntry, AuthSession, ClientState, Conversation, ConversationId, EditorState, File,
        FilePolicy, FileRoot, Message, MessageId, Session, SessionId, SessionMemory, SessionState,
        Setting, StatePart, StateQuota, User,
    },
};

use crate::{
    planner::{Task, TaskNumber, task, tenant},
    samples,
};

/// A store whose reads yield before they complete, with records of every kind.
async fn filled() -> Store {
    let options = Options::default().simulate_round_trips(true);
    let database = Database::temporary_with(&options).unwrap();
    let store = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Task>()
        .open(database)
        .await
        .unwrap();
    let fill = |tx: Transaction| async move {
        for number in 1..=250 {
            tx.insert(&Task { ticket: Some(number.to_string()), ..task(number) }).await?;
        }
        samples::write(&tx).await;
        tx.insert(&samples::agent()).await?;
        tx.insert(&samples::session_memory()).await?;
        Ok::<_, coditect_store::Error>(())
    };
    store.run(fill).await.unwrap();
    store
}

/// Returns the cost of `work` in a transaction of its own, which is not committed.
async fn cost<T, Fut>(store: &Store, work: impl FnOnce(Transaction) -> Fut) -> (u64, u64)
where
    Fut: Future<Output = Result<T>>,
{
    let tx = store.begin();
    work(tx.clone()).await.unwrap();
    let Statistics { reads, rounds, .. } = tx.engine().statistics();
    (reads, rounds)
}

/// `expected` is (reads, rounds).
macro_rules! budgets {
    ($store:expr; $($name:literal: $expected:expr, |$tx:ident| $work:expr;)*) => {
        let mut over = Vec::new();
        $(
            let counted = cost($store, |$tx| async move { $work }).await;
            if counted != $expected {
                over.push(format!("{}: {counted:?}, not {:?}", $name, $expected));
            }
        )*
        assert!(over.is_empty(), "(reads, rounds)\n{}", over.join("\n"));
    };
}

#[tokio::test]
async fn every_method_of_a_record_keeps_its_budget() {
    let store = &filled().await;
    let (of, key) = (tenant(1), TaskNumber(7));
    let read = store.begin().get_versioned::<Task>(of, key).await.unwrap().unwrap();
    let revision = read.revision();
    let changed = &Task { due: Some(9), ..read.into_record() };
    let renamed = &Task { slug: "new".into(), ..changed.clone() };
    let new = &Task { slug: "other".into(), ..task(999) };
    budgets! { store;
        "get": (1, 1), |tx| tx.get::<Task>(of, key).await;
        "get_versioned": (1, 1), |tx| tx.get_versioned::<Task>(of, key).await;
        // The epoch, the key and two unique values concurrently.
        "create": (3, 1), |tx| tx.insert(new).await;
        "update": (2, 1), |tx| tx.update(changed).await;
        "update of a unique value": (3, 2), |tx| tx.update(renamed).await;
        "upsert of what is there": (2, 1), |tx| tx.upsert(changed).await;
        // The key and the epoch concurrently; then the unique value.
        "upsert of what is new": (3, 2), |tx| tx.upsert(new).await;
        "update_at": (2, 1), |tx| tx.update_at(changed, revision).await;
        "modify": (2, 1), |tx| tx.modify::<Task>(of, key, |task| task.day = 8).await;
        "delete": (2, 1), |tx| tx.delete::<Task>(of, key).await;
        "delete_at": (2, 1), |tx| tx.delete_at::<Task>(of, key, revision).await;
        "find": (2, 2), |tx| tx.find(&Task::BY_SLUG, of, "task-7".to_owned()).await;
        "find, over all tenants": (2, 2), |tx|
            tx.find(&Task::BY_TICKET, Global, "7".to_owned()).await;
        "find of what is not there": (1, 1), |tx|
            tx.find(&Task::BY_SLUG, of, "none".to_owned()).await;
        "count": (1, 1), |tx| tx.count(&Task::LOAD, of, (task(1).owner, 0)).await;
        "list, a page of 50": (1, 1), |tx| tx.list::<Task>(of).page(50, None).await;
        "list, a page of 200": (2, 2), |tx| tx.list::<Task>(of).page(200, None).await;
        "scan, a page of 50": (51, 2), |tx|
            tx.scan(&Task::BY_OWNER, of, task(1).owner).page(50, None).await;
        "scan, a page of 200": (202, 4), |tx|
            tx.scan(&Task::BY_OWNER, of, task(1).owner).page(200, None).await;
        // A filter reads whole batches: the first match, the last one of 250 rows, and none of
        // them.
        "filtered list, the first match": (1, 1), |tx|
            tx.list::<Task>(of).filter("", |task| task.number == TaskNumber(1)).page(1, None).await;
        "filtered list, the last match": (3, 3), |tx|
            tx.list::<Task>(of).filter("", |task| task.number == TaskNumber(250))
                .page(1, None).await;
        "filtered scan, the last match": (253, 6), |tx|
            tx.scan(&Task::BY_OWNER, of, task(1).owner)
                .filter("", |task| task.number == TaskNumber(250)).page(1, None).await;
        "filtered scan, a 50th match": (253, 6), |tx|
            tx.scan(&Task::BY_OWNER, of, task(1).owner).filter("", |task| task.number.0 > 200)
                .page(50, None).await;
        "scan of what is not there": (1, 1), |tx|
            tx.scan(&Task::BY_OWNER, of, coditect_store::model::UserId::new()).page(50, None).await;
        "covered, a page of 50": (1, 1), |tx|
            tx.scan_index_only(&Task::SUMMARIES, of, ..).page(50, None).await;
        "counts, a page of 50": (1, 1), |tx|
            tx.scan_counts(&Task::LOAD, of, ..).page(50, None).await;
    }
}

#[tokio::test]
async fn every_method_of_a_log_keeps_its_budget() {
    let store = &filled().await;
    let (of, conversation) = (samples::tenant().id, samples::conversation().id);
    let tx = store.begin();
    let first = tx.events::<Message>(of, conversation, ..).page(1, None).await.unwrap();
    let position = first.items[0].position;
    let said = &first.items[0].record;
    let next = &Message { id: MessageId::new(), ..samples::message() };
    let amended = &Message { content: "what".into(), ..said.clone() };
    budgets! { store;
        "append": (2, 1), |tx| tx.append(next).await.map(|_| ());
        "append without unique values": (1, 1), |tx|
            tx.append(&samples::audit_entry()).await.map(|_| ());
        "logged": (1, 1), |tx| tx.get_event::<Message>(of, conversation, position).await;
        "find_event": (2, 2), |tx| tx.find_event(&Message::BY_ID, of, said.id).await;
        "log, a page of 50": (1, 1), |tx|
            tx.events::<Message>(of, conversation, ..).page(50, None).await;
        "scan_events, one record": (2, 2), |tx|
            tx.scan_events(&AuditEntry::BY_ACTOR, of, samples::user().id).page(50, None).await;
        "amend": (2, 1), |tx| tx.update_event(position, amended).await;
        "take_out": (2, 1), |tx| tx.remove_event::<Message>(of, conversation, position).await;
    }
}

#[tokio::test]
async fn every_counter_keeps_its_budget() {
    let store = &filled().await;
    let of = samples::tenant().id;
    budgets! { store;
        "counter": (1, 1), |tx| tx.counter(of, Counter::FILES).await;
        "charge, far from the limit": (1, 1), |tx| tx.charge(of, Counter::FILES, 1, 1_000).await;
        "charge, near the limit": (2, 2), |tx| tx.charge(of, Counter::FILES, 1, 1).await;
        "release": (0, 0), |tx| tx.release(of, Counter::FILES, 1);
    }
}

async fn upload(store: &Store, bytes: &[u8]) -> Blob {
    let tenant = samples::tenant().id;
    let mut upload = BlobUpload::begin(store, tenant, &Clock::system()).await.unwrap();
    upload.write(bytes).await.unwrap();
    upload.finish().await.unwrap()
}

#[tokio::test]
async fn every_look_up_of_the_models_keeps_its_budget() {
    let store = &filled().await;
    let (of, now) = (samples::tenant().id, Clock::system().now());
    let (session, user) = (samples::session().id, samples::user().id);
    let state = || EditorState::default();
    let quota = &StateQuota::default();
    let opened = &Session { id: SessionId::new(), ..samples::session() };
    let begun = &Conversation { id: ConversationId::new(), ..samples::conversation() };
    let said = &Message { id: MessageId::new(), ..samples::message() };
    let policy = &FilePolicy::default().versions(2);
    let home = &FileRoot::Workspace("/workspace/p".into());
    let (first, second) = (upload(store, b"one").await, upload(store, b"two").await);
    let put = |tx| async move { File::put(&tx, of, (home, "a"), first, policy, now).await };
    let file = &store.run(put).await.unwrap();
    let way =
        |tx| async move { File::create_parent_dirs(&tx, of, (home, "d/a"), policy, now).await };
    store.run(way).await.unwrap();
    let third = upload(store, b"three").await;
    let in_session = &FileRoot::Session(session);
    budgets! { store;
        "users by e-mail": (2, 2), |tx|
            tx.find(&User::BY_EMAIL, Global, "ada@example.org".to_owned()).await;
        "logins of a user": (1, 1), |tx|
            tx.scan_index_only(&AuthSession::BY_USER, of, (user,)).page(50, None).await;
        "login of a family": (2, 2), |tx|
            tx.find(&AuthSession::BY_FAMILY, Global, samples::auth_session().token_family).await;
        "Session::insert": (3, 2), |tx| opened.insert(&tx, 100).await;
        "SessionState::save": (3, 2), |tx| SessionState::save(&tx, of, session, state(), now).await;
        "SessionState::load": (1, 1), |tx|
            SessionState::load(&tx, &samples::session(), StatePart::Editor).await;
        "SessionState::all": (1, 1), |tx| SessionState::all(&tx, of, session).await;
        "SessionMemory::save": (4, 2), |tx|
            samples::session_memory().save(&tx, &StateQuota::default()).await;
        "Conversation::insert": (3, 2), |tx| begun.insert(&tx).await;
        "Message::insert": (4, 3), |tx| said.insert(&tx, 1_000_000).await;
        "memory of a session": (1, 1), |tx|
            tx.list_keys::<SessionMemory>(of, (session,)).page(50, None).await;
        "ClientState::save": (6, 3), |tx|
            ClientState::save(&tx, (of, session), ("theia.layout", vec![1]), quota, now).await;
        "ClientState::newest": (1, 1), |tx|
            ClientState::newest(&tx, of, session, "theia.layout").await;
        "ClientState::keys, one key": (3, 3), |tx|
            ClientState::keys(&tx, of, session, None, 50).await;
        "ClientState::discard, one version": (2, 2), |tx|
            ClientState::discard(&tx, of, session, "theia.layout").await;
        "conversations of a user": (2, 2), |tx|
            tx.scan(&Conversation::BY_USER, of, user).page(50, None).await;
        "settings of the tenant": (1, 1), |tx| tx.list::<Setting>(of).page(50, None).await;
        "File::at": (2, 2), |tx| File::at(&tx, of, home, "a").await;
        "File::content": (1, 1), |tx| file.content(&tx, 1).await;
        "File::contents": (1, 1), |tx| file.contents(&tx).await;
        "attach": (3, 2), |tx| tx.attach(of, &second).await;
        "File::put of a new file": (10, 7), |tx|
            File::put(&tx, of, (home, "b"), second, policy, now).await;
        "File::put of the next content": (8, 7), |tx|
            File::put(&tx, of, (home, "a"), third, policy, now).await;
        "File::put in a session": (11, 8), |tx|
            File::put(&tx, of, (in_session, "a"), second, policy, now).await;
        "File::create_parent_dirs, which is there": (2, 2), |tx|
            File::create_parent_dirs(&tx, of, (home, "d/b"), policy, now).await;
        "File::remove": (5, 3), |tx| file.remove(&tx, now).await;
        "delete_session": (3, 2), |tx| tx.delete_session(of, session, now).await;
    }
}

#[tokio::test]
async fn a_mebibyte_of_a_blob_is_read_in_four_transactions_of_one_read() {
    let store = &filled().await;
    let blob = upload(store, &vec![7; 1 << 20]).await;
    let mut reader = BlobReader::new(store, samples::tenant().id, blob);
    let mut pieces = 0;
    while reader.next().await.unwrap().is_some() {
        pieces += 1;
    }
    assert_eq!(pieces, 4);
}
