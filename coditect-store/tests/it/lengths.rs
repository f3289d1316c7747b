//! Keys and values that are too long are rejected when they are written, with their kind and
//! length.

use coditect_store::{
    Entity, Error, ErrorKind, Store,
    check::Event,
    engine::{Database, KEY_SIZE_LIMIT},
    entity::{Count, Covering, EventStream, FanOut, Multi, Mutable, Unique},
    indexes,
    keyspace::{Global, Subspace},
    stream_indexes,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Page {
    path: String,
    body: Vec<u8>,
    title: Option<String>,
    tags: Vec<String>,
    group: Option<String>,
    carried: usize,
}

impl Entity for Page {
    type Scope = Global;
    type Key = String;
    const SPACE: Subspace<Global> = Subspace::global("pages").keyed(&["path"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> String {
        self.path.clone()
    }
}

indexes! { Page =>
    /// By title.
    BY_TITLE ("pages_by_title", title): Unique<String> = |page| page.title.clone();
    /// By tag.
    BY_TAG ("pages_by_tag", tag): FanOut<String> = |page| page.tags.clone();
    /// The number of pages.
    GROUPS ("page_groups", group): Count<String> = |page| page.group.clone();
    /// With bytes.
    CARRIED ("pages_carried", path): Covering<u64, Vec<u8>> =
        |page| Some((1, vec![7; page.carried]));
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Line {
    stream: String,
    text: String,
    word: Option<String>,
}

impl EventStream for Line {
    type Scope = Global;
    type Stream = String;
    const SPACE: Subspace<Global> = Subspace::global("lines").keyed(&["stream"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn stream(&self) -> String {
        self.stream.clone()
    }
}

impl Mutable for Line {}

stream_indexes! { Line =>
    /// By word.
    BY_WORD ("lines_by_word", word): Multi<String> = |line| line.word.clone();
}

fn text(length: usize) -> String {
    "x".repeat(length)
}

#[track_caller]
fn is_too_long(outcome: Result<(), Error>, names: &[&str]) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    let message = error.to_string();
    for name in names {
        assert!(message.contains(name), "{message:?} names {name:?}");
    }
}

async fn opened() -> Store {
    let options =
        Store::options().schema(coditect_store::model::schema()).entity::<Page>().stream::<Line>();
    options.open(Database::temporary().unwrap()).await.unwrap()
}

#[tokio::test]
async fn too_long_key_or_value_is_refused_where_it_is_written() {
    let store = opened().await;
    let tx = store.begin();
    let page = Page { path: "p".into(), ..Page::default() };
    tx.insert(&page).await.unwrap();
    // After the name of the subspace; the text ends with a zero byte.
    let long = KEY_SIZE_LIMIT;
    let cases: [(Page, &[&str]); 6] = [
        (Page { path: text(long), ..page.clone() }, &["key of a record of pages", "10000"]),
        (Page { body: vec![7; 100_000], ..page.clone() }, &["record of pages", "100000"]),
        (Page { title: Some(text(long)), ..page.clone() }, &["pages_by_title", "pages", "10000"]),
        (Page { tags: vec!["a".into(), text(long)], ..page.clone() }, &["pages_by_tag", "10000"]),
        (Page { group: Some(text(long)), ..page.clone() }, &["page_groups", "10000"]),
        (Page { carried: 100_000, ..page.clone() }, &["pages_carried", "100000"]),
    ];
    for (bad, names) in cases {
        is_too_long(
            tx.insert(&Page { path: format!("{}2", bad.path), ..bad.clone() }).await,
            names,
        );
        is_too_long(tx.upsert(&bad).await, names);
        if bad.path == page.path {
            is_too_long(tx.update(&bad).await, names);
            let change = |page: &mut Page| *page = bad.clone();
            is_too_long(tx.modify(Global, "p".to_owned(), change).await.map(drop), names);
        }
    }
    let line = Line { stream: "s".into(), ..Line::default() };
    let appended = store.run(|tx| {
        let line = line.clone();
        async move { tx.append(&line).await }
    });
    let position = appended.await.unwrap().position().unwrap();
    tx.commit().await.unwrap();
    let tx = store.begin();
    let cases: [(Line, &[&str]); 3] = [
        (Line { stream: text(long), ..line.clone() }, &["key of a record of lines", "10000"]),
        (Line { text: text(100_000), ..line.clone() }, &["record of lines", "100000"]),
        (Line { word: Some(text(long)), ..line.clone() }, &["lines_by_word", "lines", "10000"]),
    ];
    for (bad, names) in cases {
        is_too_long(tx.append(&bad).await.map(drop), names);
        is_too_long(tx.update_event(position, &bad).await, names);
    }
    // Rejected writes have no effect.
    tx.commit().await.unwrap();
    assert_eq!(store.begin().list::<Page>(Global).page(9, None).await.unwrap().items.len(), 1);
    let mut findings = Vec::new();
    let observe = |event: Event<'_>| {
        if let Event::Found(found) = event {
            findings.push(found.to_string());
        }
    };
    store.check().run(observe).await.unwrap();
    assert!(findings.is_empty(), "{findings:?}");
}

#[tokio::test]
async fn accepted_charges_are_committed_and_can_be_recounted() {
    let store = opened().await;
    let options = || (KEY_SIZE_LIMIT - 200..KEY_SIZE_LIMIT).rev();
    let mut written = 0;
    for length in options() {
        let tx = store.begin();
        let page = Page { path: text(length - 100), group: Some(text(length)), ..Page::default() };
        match tx.insert(&page).await {
            // A prefix of a cluster is unknown to the store.
            Ok(()) => match tx.commit().await {
                Ok(()) => written += 1,
                Err(error) => {
                    assert!(error.kind() == ErrorKind::Limit && length > 9_900, "{error}");
                }
            },
            Err(error) => assert_eq!(error.kind(), ErrorKind::Limit),
        }
        if written == 3 {
            break;
        }
    }
    assert_eq!(written, 3);
    let report = store.verify("page_groups").unwrap().run(|_| ()).await.unwrap();
    assert_eq!(report.faults, 0);
}
