//! Derived entities: the same declaration as the explicit form, and every attribute.

use std::{collections::BTreeSet, env, process::Command, slice};

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Blob, Entity, Error, ErrorKind, Result, Store,
    engine::Database,
    entity::{Count, Covering, FanOut, GlobalUnique, Indexed, Multi, Older, Unique},
    indexes,
    keyspace::{Global, KeyPart, Subspace},
    model::TenantId,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KeyPart)]
enum Binding {
    #[key(name = "hard")]
    Hard,
    #[key(name = "soft")]
    Soft,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KeyPart)]
struct Shelf {
    room: u8,
    row: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Entity)]
#[entity(subspace = "derived_books", version = 2, upgrade = from_older)]
#[index(multi, name = "derived_by_author", constant = BY_AUTHOR_AND_SHELF, on(author, shelf),
        labels("author", "room", "row"))]
#[index(count, name = "derived_decades", constant = DECADES, label = "decade",
        value = decade, type = i64)]
struct Book {
    #[entity(scope)]
    tenant_id: TenantId,
    #[entity(key)]
    binding: Binding,
    #[entity(key = "number")]
    number: u64,
    #[index(unique, global, name = "derived_by_isbn")]
    isbn: Option<String>,
    author: String,
    #[index(multi, name = "derived_by_shelf", labels("room", "row"))]
    shelf: Option<Shelf>,
    #[index(covering(author, number), name = "derived_titles", constant = TITLES)]
    title: String,
    year: i64,
    #[index(fan_out, name = "derived_by_subject")]
    subjects: BTreeSet<String>,
    #[serde(with = "ts_microseconds")]
    #[index(multi, name = "derived_by_arrival")]
    arrived_at: DateTime<Utc>,
    #[entity(secret)]
    #[serde(rename = "donatedBy")]
    donor: Option<String>,
    #[entity(blob)]
    cover: Option<Blob>,
}

fn decade(book: &Book) -> Option<i64> {
    (book.year > 0).then_some(book.year / 10 * 10)
}

fn from_older(older: Older<'_>) -> Result<Book> {
    Err(older.unknown_version())
}

fn book(tenant_id: TenantId, number: u64) -> Book {
    Book {
        tenant_id,
        binding: Binding::Hard,
        number,
        isbn: None,
        author: "Woolf".into(),
        shelf: None,
        title: format!("Title {number}"),
        year: 1928,
        subjects: BTreeSet::new(),
        arrived_at: DateTime::from_timestamp_micros(1_700_000_000_000_000).unwrap(),
        donor: None,
        cover: None,
    }
}

async fn open() -> Store {
    let options = Store::options().entity::<Book>().entity::<Motto>();
    options.open(Database::temporary().unwrap()).await.unwrap()
}

#[tokio::test]
async fn derived_indexes_are_maintained() {
    let store = open().await;
    let tenant = TenantId::new();
    let shelf = Shelf { room: 1, row: 300 };
    let lent = Book {
        isbn: Some("isbn".into()),
        shelf: Some(shelf),
        subjects: ["novel".to_owned(), "time".to_owned()].into(),
        ..book(tenant, 2)
    };
    let soft = Book { binding: Binding::Soft, year: 0, ..book(tenant, 1) };
    let tx = store.begin();
    for book in [&book(tenant, 1), &lent, &soft] {
        tx.insert(book).await.unwrap();
    }
    tx.commit().await.unwrap();

    let tx = store.begin();
    assert_eq!(tx.get::<Book>(tenant, (Binding::Hard, 2)).await.unwrap().as_ref(), Some(&lent));
    let found = tx.find(&Book::BY_ISBN, Global, "isbn").await.unwrap();
    assert_eq!(found.as_ref(), Some(&lent));
    let taken = tx.insert(&Book { number: 9, ..lent.clone() }).await.unwrap_err();
    assert!(taken.violates(&Book::BY_ISBN), "{taken:?}");
    let on_shelf = tx.scan(&Book::BY_SHELF, tenant, shelf).all(9).await.unwrap();
    assert_eq!(on_shelf, slice::from_ref(&lent));
    let by_author = tx.scan(&Book::BY_AUTHOR_AND_SHELF, tenant, ("Woolf".to_owned(),));
    let on_shelves = by_author.all(9).await.unwrap();
    assert_eq!(on_shelves, slice::from_ref(&lent), "the others have no shelf");
    let subject = tx.scan(&Book::BY_SUBJECTS, tenant, "time").all(9).await.unwrap();
    assert_eq!(subject, slice::from_ref(&lent));
    let titles = tx.scan_index_only(&Book::TITLES, tenant, "Title 2").all(9).await.unwrap();
    assert_eq!(titles[0].fields, ("Woolf".to_owned(), 2));
    assert_eq!(tx.count(&Book::DECADES, tenant, 1920).await.unwrap(), 2);
    let arrived = tx.scan(&Book::BY_ARRIVED_AT, tenant, lent.arrived_at..).all(9).await.unwrap();
    assert_eq!(arrived.len(), 3);
    for index in Book::NAMES {
        assert_eq!(store.verify(index).unwrap().run(|_| ()).await.unwrap().faults, 0);
    }
}

#[test]
fn attributes_are_constants_of_the_entity() {
    assert_eq!(<Book as Entity>::VERSION, 2);
    assert_eq!(Book::SPACE.labels(), ["binding", "number"]);
    assert_eq!(Book::SECRETS, ["donatedBy"]);
    let blobs = Book::BLOBS.unwrap();
    assert!(blobs(&book(TenantId::new(), 1)).is_empty());
    let names = [
        "derived_by_isbn",
        "derived_by_shelf",
        "derived_titles",
        "derived_by_subject",
        "derived_by_arrival",
        "derived_by_author",
        "derived_decades",
    ];
    assert_eq!(Book::NAMES, names);
}

/// A global record with a composite key of one part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Entity)]
#[entity(subspace = "derived_mottos", version = 1, global)]
struct Motto {
    #[entity(key)]
    language: String,
    text: String,
}

#[tokio::test]
async fn global_entity_is_found_by_str() {
    let store = open().await;
    let motto = Motto { language: "la".into(), text: "Sapere aude".into() };
    let tx = store.begin();
    tx.insert(&motto).await.unwrap();
    assert_eq!(tx.get::<Motto>(Global, "la").await.unwrap(), Some(motto));
}

/// The explicit form of [`Twin`].
#[derive(Serialize, Deserialize)]
struct Explicit {
    tenant: TenantId,
    number: u64,
    title: Option<String>,
    author: String,
    tags: Vec<String>,
}

impl Entity for Explicit {
    type Scope = TenantId;
    type Key = u64;
    const SPACE: Subspace<TenantId> = Subspace::tenant("twins").keyed(&["number"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant
    }

    fn key(&self) -> u64 {
        self.number
    }
}

indexes! { Explicit =>
    /// By title.
    BY_TITLE ("twins_by_title", title): Unique<String> = |twin| twin.title.clone();
    /// By author.
    BY_AUTHOR ("twins_by_author", author): Covering<String, Option<String>> =
        |twin| Some((twin.author.clone(), twin.title.clone()));
    /// By tag.
    BY_TAGS ("twins_by_tag", tags): FanOut<String> = |twin| twin.tags.clone();
    /// Of an author and a title.
    BOTH ("twins_by_both", author, title): Multi<(String, String)> =
        |twin| Some((twin.author.clone(), twin.title.clone()?));
    /// Titles in all tenants.
    ALL ("twins_of_all", title): GlobalUnique<String> = |twin| twin.title.clone();
    /// Authors.
    AUTHORS ("twin_authors", author): Count<String> = |twin| Some(twin.author.clone());
}

#[derive(Serialize, Deserialize, Entity)]
#[entity(subspace = "twins", version = 1)]
#[index(multi, name = "twins_by_both", constant = BOTH, on(author, title))]
struct Twin {
    #[entity(scope)]
    tenant: TenantId,
    #[entity(key)]
    number: u64,
    #[index(unique, name = "twins_by_title")]
    #[index(unique, global, name = "twins_of_all", constant = ALL)]
    title: Option<String>,
    #[index(covering(title), name = "twins_by_author")]
    #[index(count, name = "twin_authors", constant = AUTHORS)]
    author: String,
    #[index(fan_out, name = "twins_by_tag")]
    tags: Vec<String>,
}

#[tokio::test]
async fn derived_and_explicit_declarations_are_the_same_to_a_store() {
    let database = Database::temporary().unwrap();
    let tenant = TenantId::new();
    let explicit = Explicit {
        tenant,
        number: 7,
        title: Some("t".into()),
        author: "a".into(),
        tags: vec!["x".into(), "y".into()],
    };
    let options = Store::options().entity::<Explicit>();
    let store = options.open(database.clone()).await.unwrap();
    store
        .run(|tx| {
            let explicit = &explicit;
            async move { tx.insert(explicit).await }
        })
        .await
        .unwrap();
    let options = Store::options().entity::<Twin>();
    let store = options.open(database).await.unwrap();
    for index in Twin::NAMES {
        assert_eq!(store.verify(index).unwrap().run(|_| ()).await.unwrap().faults, 0);
    }
    let deleted = store.run(|tx| async move { tx.delete::<Twin>(tenant, 7).await }).await.unwrap();
    assert_eq!(deleted.unwrap().tags, ["x", "y"]);
}

#[test]
fn unknown_variant_in_a_key_is_corrupt() {
    let mut key = Vec::new();
    "paper".to_owned().pack(&mut key);
    let error: Error = Binding::unpack(&mut key.as_slice()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(Shelf::element_types(), ["u8", "u16"]);
    assert_eq!(Binding::element_types(), ["string"]);
}

/// Version of the compiler whose messages are recorded.
const RECORDED: &str = "rustc 1.95.";

/// The messages of likely mistakes. Other compilers word some of them differently.
/// `TRYBUILD=overwrite` records the messages anew.
#[test]
fn mistakes_are_reported_once_and_where_they_are() {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().unwrap().stdout;
    if !String::from_utf8(version).unwrap().starts_with(RECORDED) {
        assert!(env::var_os("CODITECT_ALL_TOOLS").is_none(), "record this compiler's messages");
        eprintln!("skipped: the recorded messages are those of {RECORDED}x");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/mistakes/*.rs");
}
