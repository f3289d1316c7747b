//! Opening a store: formats, roots, declarations.

use coditect_store::{
    Entity, ErrorKind, Store,
    engine::Database,
    entity::Multi,
    indexes,
    keyspace::{Global, KeyPart, Root, Subspace},
    model::Tenant,
};
use serde::{Deserialize, Serialize};

use crate::{
    planner::{Task, TaskNumber, store, task, tenant},
    samples,
};

async fn raw(database: &Database, writes: &[(&[u8], &[u8])]) {
    let tx = database.begin();
    for (key, value) in writes {
        tx.set(key, value);
    }
    tx.commit().await.unwrap();
}

fn packed(part: &impl KeyPart) -> Vec<u8> {
    Root::default().key(part)
}

fn format_key() -> Vec<u8> {
    packed(&("meta".to_owned(), "format".to_owned()))
}

#[tokio::test]
async fn store_is_reopened() {
    let database = Database::temporary().unwrap();
    let store = Store::open(database.clone()).await.unwrap();
    let record = &samples::tenant();
    store.run(|tx| async move { tx.insert(record).await }).await.unwrap();

    let again = Store::open(database).await.unwrap();
    again.ping().await.unwrap();
    let found = again.begin().get::<Tenant>(record.id, ()).await.unwrap();
    assert_eq!(found.as_ref(), Some(record));
}

#[tokio::test]
async fn many_may_open_a_new_store_at_once() {
    let database = Database::temporary().unwrap();
    let open = |_| tokio::spawn(Store::open(database.clone()));
    for opening in (0..16).map(open).collect::<Vec<_>>() {
        opening.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let database = Database::temporary().unwrap();
    let newer = packed(&("coditect-store".to_owned(), 2_u64));
    raw(&database, &[(&format_key(), &newer)]).await;
    let error = Store::open(database).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert_eq!(error.to_string(), "the store is of format 2; this program knows 1");
}

#[tokio::test]
async fn keys_of_another_program_are_left_alone() {
    let foreign = packed(&("another-store".to_owned(), 1_u64));
    let format = format_key();
    let cases: [(&[u8], &[u8]); 4] =
        [(b"somebody", b"else"), (&format, b""), (&format, b"\xff"), (&format, &foreign)];
    for (key, value) in cases {
        let database = Database::temporary().unwrap();
        raw(&database, &[(key, value)]).await;
        assert_eq!(Store::open(database.clone()).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(database.begin().get(key).await.unwrap().as_deref(), Some(value));
    }
}

#[tokio::test]
async fn stores_under_two_roots_of_one_database_see_nothing_of_each_other() {
    let database = Database::temporary().unwrap();
    let open = |root: &str| {
        let options = Store::options()
            .schema(coditect_store::model::schema())
            .root(Root::new(&root.to_owned()))
            .entity::<Task>();
        options.open(database.clone())
    };
    let (one, other) = (open("one").await.unwrap(), open("other").await.unwrap());
    let record = &Task { ticket: Some("T-1".into()), ..task(1) };
    one.run(|tx| async move { tx.insert(record).await }).await.unwrap();

    let tx = other.begin();
    assert_eq!(tx.get::<Task>(tenant(1), TaskNumber(1)).await.unwrap(), None);
    assert_eq!(tx.find(&Task::BY_TICKET, Global, "T-1".to_owned()).await.unwrap(), None);
    assert_eq!(tx.list::<Task>(tenant(1)).all(9).await.unwrap(), []);
    let error = Store::open(database.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "the root of both is no store's");
    let found = one.begin().find(&Task::BY_TICKET, Global, "T-1".to_owned()).await.unwrap();
    assert_eq!(found.as_ref(), Some(record));
}

#[tokio::test]
async fn ping_fails_when_the_store_was_removed() {
    let store = store().await;
    store.ping().await.unwrap();
    let tx = store.begin();
    tx.engine().clear(&format_key());
    tx.commit().await.unwrap();
    assert_eq!(store.ping().await.unwrap_err().kind(), ErrorKind::Corrupt);
    store.database().close().await;
    assert_eq!(store.ping().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn undeclared_entity_is_rejected() {
    let store = Store::open(Database::temporary().unwrap()).await.unwrap();
    let tx = store.begin();
    let refused = [
        tx.insert(&task(1)).await.unwrap_err(),
        tx.update(&task(1)).await.unwrap_err(),
        tx.get::<Task>(tenant(1), TaskNumber(1)).await.unwrap_err(),
        tx.delete::<Task>(tenant(1), TaskNumber(1)).await.unwrap_err(),
        tx.find(&Task::BY_TICKET, Global, "T-1".to_owned()).await.unwrap_err(),
        tx.list::<Task>(tenant(1)).page(1, None).await.unwrap_err(),
    ];
    assert!(refused.iter().all(|error| error.kind() == ErrorKind::Invalid), "{refused:?}");
}

/// Uses the name of a subspace of the product for an index.
#[derive(Serialize, Deserialize)]
struct Intruder;

impl Entity for Intruder {
    type Scope = Global;
    type Key = ();
    const SPACE: Subspace<Global> = Subspace::global("intruder").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) {}
}

indexes! { Intruder =>
    /// The name is taken.
    BY_NAME ("users", name): Multi<String> = |_| None;
}

/// Uses the name of the store's metadata.
#[derive(Serialize, Deserialize)]
struct Meta;

impl Entity for Meta {
    type Scope = Global;
    type Key = ();
    const SPACE: Subspace<Global> = Subspace::global("meta").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) {}
}

indexes! { Meta => }

#[tokio::test]
async fn duplicate_name_is_rejected_when_the_store_is_opened() {
    let database = Database::temporary().unwrap();
    let options = Store::options().schema(coditect_store::model::schema()).entity::<Intruder>();
    let error = options.open(database.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.to_string();
    assert!(message.contains("\"users\"") && message.contains("Intruder"), "{message}");
    let error = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Meta>()
        .open(database.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(database.begin().get(&format_key()).await.unwrap(), None, "nothing was made");
}

#[test]
fn an_entity_declared_twice_is_declared_once() {
    let once = coditect_store::model::schema().with::<Task>().layouts();
    let twice =
        coditect_store::model::schema().with::<Task>().with::<Tenant>().with::<Task>().layouts();
    assert_eq!(once, twice);
}
