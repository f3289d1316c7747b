//! Archives of one tenant.

use std::io;

use coditect_store::{
    Clock, ErrorKind, ManualClock, Transaction,
    engine::{Database, Options},
    keyspace::{Global, KeyPart as _},
    model::{Message, MessageId, SessionState, SessionStates, TenantId, User},
    records::Counter,
};

use crate::{
    archives::{
        Rows, content, empty, exported, faultless, filled, import, options, rows, stopped_after,
        waiting,
    },
    planner::{Task, task, tenant},
    samples,
};

#[tokio::test]
async fn a_tenant_moves_with_all_that_it_is_found_by_and_no_other() {
    let store = filled(30).await;
    let mut archive = Vec::new();
    let moved = samples::tenant().id;
    store.export().tenant(moved).run(&mut archive, |_| ()).await.unwrap();
    let other = empty().await;
    let tx = other.begin();
    tx.insert(&task(7)).await.unwrap();
    tx.commit().await.unwrap();
    let summary = import(other.database(), &archive).await.unwrap();
    assert_eq!(summary.manifest.tenant, Some(moved));

    let other = options().open(other.database().clone()).await.unwrap();
    faultless(&other).await;
    let tx = other.begin();
    let found = tx.find(&User::BY_EMAIL, Global, samples::user().email_normalized).await.unwrap();
    assert_eq!(found, Some(samples::user()));
    let message = samples::message();
    let found = tx.find_event(&Message::BY_ID, moved, message.id).await.unwrap();
    assert_eq!(found.unwrap().record, message);
    assert_eq!(tx.counter(moved, Counter::SESSIONS).await.unwrap(), 4);
    assert_eq!(tx.list::<Task>(tenant(1)).all(9).await.unwrap(), [task(7)]);
    let of_tenant = |rows: &Rows| -> Rows {
        let range = other.root().tenant(moved);
        rows.clone().into_iter().filter(|(key, _)| range.contains(key)).collect()
    };
    let (from, to) = (rows(store.database()).await, rows(other.database()).await);
    assert!(of_tenant(&to) == of_tenant(&from));
}

#[tokio::test]
async fn a_tenant_takes_its_deletions_along_that_are_under_way() {
    let store = filled(3).await;
    let (moved, now) = (samples::tenant().id, samples::session().created_at);
    let delete =
        |tx: Transaction| async move { tx.delete_session(moved, samples::session().id, now).await };
    store.run(delete).await.unwrap().unwrap();
    let mut archive = Vec::new();
    store.export().tenant(moved).run(&mut archive, |_| ()).await.unwrap();

    // Rolled back at any point, it leaves none of them.
    for polls in 1..30 {
        let other = options().open(waiting()).await.unwrap();
        let before = rows(other.database()).await;
        let begun = options().import(other.database().clone()).unwrap().rows(3);
        let ended = stopped_after(polls, begun.run(archive.as_slice(), |_| ())).await.is_some();
        if ended || !begun.rollback().await.unwrap() {
            continue;
        }
        assert!(rows(other.database()).await == before, "after {polls} polls");
    }

    let other = empty().await;
    import(other.database(), &archive).await.unwrap();
    let other = options().open(other.database().clone()).await.unwrap();
    let of_session = async || SessionState::all(&other.begin(), moved, samples::session().id).await;
    assert!(of_session().await.unwrap() != SessionStates::default());
    assert_eq!(other.resume_deletions().await.unwrap(), 1);
    assert!(of_session().await.unwrap() == SessionStates::default());
    faultless(&other).await;
}

#[tokio::test]
async fn tenant_being_deleted_is_neither_exported_nor_imported() {
    let store = filled(3).await;
    let (moved, now) = (samples::tenant().id, samples::session().created_at);
    let mut archive = Vec::new();
    let export = store.export().tenant(moved);
    export.run(&mut archive, |_| ()).await.unwrap();
    let delete = |tx: Transaction| async move { tx.delete_tenant(moved, now).await };
    let deletion = store.run(delete).await.unwrap().unwrap();
    let refused = export.run(&mut Vec::new(), |_| ()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    assert!(refused.to_string().contains("being deleted"), "{refused}");
    let refused = import(store.database(), &archive).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(refused.to_string().contains("being deleted"), "{refused}");
    store.resume_deletion(&deletion).await.unwrap();
    import(store.database(), &archive).await.unwrap();
}

#[tokio::test]
async fn tenant_with_a_taken_unique_value_is_rejected_by_index_name() {
    let store = filled(3).await;
    let mut archive = Vec::new();
    let moved = samples::tenant().id;
    store.export().tenant(moved).run(&mut archive, |_| ()).await.unwrap();
    let other = empty().await;
    let taken = &User { tenant_id: TenantId::new(), ..samples::user() };
    other.run(|tx| async move { tx.insert(taken).await }).await.unwrap();
    let before = rows(other.database()).await;
    let unique = ErrorKind::UniqueViolation("users_by_email");
    let verified = options().import(other.database().clone()).unwrap();
    let refused = verified.run_verified(io::Cursor::new(&archive), |_| ()).await.unwrap_err();
    assert_eq!(refused.kind(), unique);
    assert!(rows(other.database()).await == before, "it was found before anything was written");

    assert_eq!(import(other.database(), &archive).await.unwrap_err().kind(), unique);
    let error = options().open(other.database().clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImportInProgress, "it is there in part");
    assert!(verified.rollback().await.unwrap());
    assert!(rows(other.database()).await == before);
}

#[tokio::test]
async fn events_appended_after_an_import_follow_the_imported_ones() {
    let store = filled(1).await;
    let archive = exported(&store).await;
    // The clock of the other machine is years behind.
    let clock = Clock::from(&ManualClock::new(chrono::DateTime::UNIX_EPOCH));
    let behind = Options::default().clock(clock);
    let database = Database::memory_with(&behind).unwrap();
    import(&database, &archive).await.unwrap();
    let store = options().open(database).await.unwrap();
    let later = &Message { id: MessageId::new(), ..samples::message() };
    store.run(|tx| async move { tx.append(later).await }).await.unwrap();
    let tx = store.begin();
    let conversation = samples::conversation().id;
    let log = tx.events::<Message>(samples::tenant().id, conversation, ..);
    let messages = log.page(9, None).await.unwrap().items;
    let ids: Vec<MessageId> = messages.iter().map(|logged| logged.record.id).collect();
    assert_eq!(ids, [samples::message().id, later.id]);
}

#[tokio::test]
async fn missing_tenant_cannot_be_exported() {
    let store = filled(1).await;
    let export = store.export().tenant(TenantId::new());
    let error = export.run(&mut Vec::new(), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_tenants_rows_that_this_program_does_not_know_are_not_left_behind_silently() {
    let store = filled(3).await;
    let tx = store.begin();
    let mut key = store.root().key(&(tenant(1), "sketches".to_owned()));
    7_u64.pack(&mut key);
    tx.engine().set(&key, b"unknown");
    tx.commit().await.unwrap();
    let export = store.export().tenant(tenant(1));
    let error = export.run(&mut Vec::new(), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("\"sketches\", 7"), "{error}");
    // The archive of a store has them.
    let whole = content(&exported(&store).await).await;
    assert_eq!(whole.get(&key).map(Vec::as_slice), Some(b"unknown".as_slice()));
}
