//! A store whose rows are restored, as they are, to a database that counts its versions from less.

use chrono::{DateTime, TimeDelta};
use coditect_store::{
    Clock, ErrorKind, ManualClock, Store,
    engine::{Database, KeyValue, Options, RangeQuery},
    model::{Message, MessageId},
};

use crate::samples;

async fn rows(database: &Database) -> Vec<KeyValue> {
    let query = RangeQuery::new(b"", b"\xff");
    database.begin().get_range(&query).await.unwrap().rows
}

/// Writes all rows of `from`, as a restore does which knows nothing of them.
async fn restore(from: &Database, to: &Database) {
    let tx = to.begin();
    tx.clear_range(b"", b"\xff");
    for row in rows(from).await {
        tx.set(&row.key, &row.value);
    }
    tx.commit().await.unwrap();
}

async fn append(store: &Store) -> u64 {
    let tx = store.begin();
    let message = Message { id: MessageId::new(), ..samples::message() };
    let message = tx.append(&message).await.unwrap();
    tx.commit().await.unwrap();
    message.position().unwrap().versionstamp().version()
}

/// The versions of the messages' commits, in the order in which they are listed.
async fn listed(store: &Store) -> Vec<u64> {
    let (tenant, conversation) = (samples::tenant().id, samples::message().conversation_id);
    let tx = store.begin();
    let page = tx.events::<Message>(tenant, conversation, ..).page(100, None).await.unwrap();
    page.items.iter().map(|found| found.position.versionstamp().version()).collect()
}

async fn open(database: &Database) -> Store {
    Store::open(database.clone()).await.unwrap()
}

/// A database whose versions are years behind, where it is in memory.
fn behind() -> Database {
    let clock = ManualClock::new(DateTime::UNIX_EPOCH + TimeDelta::days(10_000));
    Database::temporary_with(&Options::default().clock(Clock::from(&clock))).unwrap()
}

/// Returns a store with messages, at versions of the present time.
async fn source() -> (Store, Vec<u64>) {
    let store = open(&Database::memory().unwrap()).await;
    let tx = store.begin();
    samples::write(&tx).await;
    tx.commit().await.unwrap();
    for _ in 0..3 {
        append(&store).await;
    }
    let appended = listed(&store).await;
    (store, appended)
}

#[tokio::test]
async fn messages_sort_after_those_that_were_restored_to_a_database_with_lower_versions() {
    let (source, mut expected) = source().await;
    let database = behind();
    restore(source.database(), &database).await;
    let store = open(&database).await;
    for _ in 0..3 {
        expected.push(append(&store).await);
        // Each time it is opened: the mark was raised with the appended.
        open(&database).await.ping().await.unwrap();
    }
    assert_eq!(listed(&store).await, expected);
    assert!(expected.is_sorted(), "{expected:?}");
}

#[tokio::test]
async fn store_that_is_open_while_another_is_restored_over_it_is_not_ready() {
    let (source, _) = source().await;
    let database = behind();
    let store = open(&database).await;
    store.ping().await.unwrap();
    restore(source.database(), &database).await;
    // A cluster that other tests have advanced is not behind.
    if database.begin().read_version().await.unwrap() < append(&source).await {
        let error = store.ping().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("open it again"), "{error}");
    }
    let store = open(&database).await;
    store.ping().await.unwrap();
    append(&store).await;
    let listed = listed(&store).await;
    assert!(listed.len() > 3 && listed.is_sorted(), "{listed:?}");
}

#[tokio::test]
async fn imported_store_that_is_restored_elsewhere_keeps_its_order() {
    let (source, mut expected) = source().await;
    let mut archive = Vec::new();
    source.export().run(&mut archive, |_| ()).await.unwrap();
    // Nothing is appended between the import and the restore.
    let imported = Database::memory().unwrap();
    let import =
        Store::options().schema(coditect_store::model::schema()).import(imported.clone()).unwrap();
    import.run(archive.as_slice(), |_| ()).await.unwrap();
    let database = behind();
    restore(&imported, &database).await;
    let store = open(&database).await;
    expected.push(append(&store).await);
    assert_eq!(listed(&store).await, expected);
    assert!(expected.is_sorted(), "{expected:?}");
}

#[tokio::test]
async fn tenant_that_is_imported_raises_the_mark() {
    let (source, mut expected) = source().await;
    let mut archive = Vec::new();
    source.export().tenant(samples::tenant().id).run(&mut archive, |_| ()).await.unwrap();
    let imported = behind();
    open(&imported).await;
    let import =
        Store::options().schema(coditect_store::model::schema()).import(imported.clone()).unwrap();
    import.run(archive.as_slice(), |_| ()).await.unwrap();
    let database = behind();
    restore(&imported, &database).await;
    let store = open(&database).await;
    expected.push(append(&store).await);
    assert_eq!(listed(&store).await, expected);
    assert!(expected.is_sorted(), "{expected:?}");
}
