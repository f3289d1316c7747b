//! Records that would not decode are rejected; entries are made from the decoded record.

use std::collections::{BTreeMap, HashMap};

use coditect_store::{
    Entity, ErrorKind, Store,
    engine::{Database, RangeQuery},
    entity::{Covering, EventStream, Multi, Mutable, Unique},
    indexes,
    keyspace::{Global, Subspace},
    stream_indexes,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A value of many serde structures, of which one field is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row<T> {
    id: u64,
    value: T,
}

/// The values stored by one instance of the test.
trait Value: Clone + Serialize + DeserializeOwned + Send + Sync + std::fmt::Debug + 'static {
    const SPACE: Subspace<Global>;
    const LOG: Subspace<Global>;
}

macro_rules! rows {
    ($($value:ident $name:literal $log:literal;)*) => {$(
        impl Value for $value {
            const SPACE: Subspace<Global> = Subspace::global($name);
            const LOG: Subspace<Global> = Subspace::global($log).keyed(&["id"]);
        }

        indexes! { Row<$value> => }

        stream_indexes! { Event<$value> => }
    )*};
}

impl<T: Value> Entity for Row<T>
where
    Row<T>: coditect_store::entity::Indexed,
{
    type Scope = Global;
    type Key = u64;
    const SPACE: Subspace<Global> = T::SPACE;
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> u64 {
        self.id
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Event<T>(Row<T>);

impl<T: Value> EventStream for Event<T>
where
    Event<T>: coditect_store::entity::StreamIndexed,
{
    type Scope = Global;
    type Stream = u64;
    const SPACE: Subspace<Global> = T::LOG;
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn stream(&self) -> u64 {
        self.0.id
    }
}

impl<T: Value> Mutable for Event<T> where Event<T>: coditect_store::entity::StreamIndexed {}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SkippedLast {
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

// A count of 0 and one empty tag have the bytes of a count of 1 and no tags.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SkippedFirst {
    #[serde(skip_serializing_if = "is_zero")]
    count: u8,
    tags: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &u8) -> bool {
    *count == 0
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(dead_code, reason = "it is written and never read")]
struct SkippedAlways {
    #[serde(skip_serializing)]
    count: u8,
    tags: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    A { x: u8 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Text(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    more: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Json(serde_json::Value);

/// Valid, but in another order each time it is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unordered(HashMap<String, u8>);

rows! {
    SkippedLast "skipped_last" "skipped_last_log";
    SkippedFirst "skipped_first" "skipped_first_log";
    SkippedAlways "skipped_always" "skipped_always_log";
    Tagged "tagged" "tagged_log";
    Untagged "untagged" "untagged_log";
    Flat "flat" "flat_log";
    Json "json" "json_log";
    Unordered "unordered" "unordered_log";
}

async fn opened<T: Value>() -> Store
where
    Row<T>: coditect_store::entity::Indexed,
    Event<T>: coditect_store::entity::StreamIndexed,
{
    let options = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Row<T>>()
        .stream::<Event<T>>();
    options.open(Database::temporary().unwrap()).await.unwrap()
}

/// Each way to write `bad` is rejected with the name of its type, and writes nothing; `good`, of
/// the same type, is written and read.
async fn is_refused<T: Value>(bad: T, good: Option<T>)
where
    Row<T>: coditect_store::entity::Indexed,
    Event<T>: coditect_store::entity::StreamIndexed,
{
    let store = opened::<T>().await;
    let tx = store.begin();
    let mut position = None;
    if let Some(value) = good {
        let row = Row { id: 1, value };
        tx.insert(&row).await.unwrap();
        let event = Event(row);
        let appended = store.run(|tx| {
            let event = event.clone();
            async move { tx.append(&event).await }
        });
        position = appended.await.unwrap().position();
        let read = tx.get::<Row<T>>(Global, 1).await.unwrap().unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", event.0));
    }
    let before = tx.engine().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap().rows;
    let bad = Row { id: 1, value: bad };
    let mut refused = vec![
        tx.insert(&bad).await,
        tx.update(&bad).await,
        tx.upsert(&bad).await,
        tx.append(&Event(bad.clone())).await.map(drop),
    ];
    if let Some(position) = position {
        let change = |row: &mut Row<T>| *row = bad.clone();
        refused.push(tx.modify(Global, 1, change).await.map(drop));
        refused.push(tx.update_event(position, &Event(bad.clone())).await);
    }
    for error in refused {
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(
            error.to_string().contains("Row") || error.to_string().contains("Event"),
            "{error}"
        );
    }
    let after = tx.engine().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap().rows;
    assert_eq!(before, after);
}

#[tokio::test]
async fn record_that_does_not_read_back_is_refused_by_its_type() {
    let (title, tags) = (String::new(), vec![String::new()]);
    let good = SkippedLast { title: title.clone(), note: Some(title.clone()) };
    is_refused(SkippedLast { title, note: None }, Some(good)).await;
    let good = SkippedFirst { count: 1, tags: tags.clone() };
    is_refused(SkippedFirst { count: 0, tags: tags.clone() }, Some(good)).await;
    is_refused(SkippedAlways { count: 7, tags: Vec::new() }, None).await;
    is_refused(Tagged::A { x: 1 }, None).await;
    is_refused(Untagged::Text("text".into()), None).await;
    is_refused(Flat { more: BTreeMap::new() }, None).await;
    is_refused(Json(serde_json::json!({ "a": 1 })), None).await;
}

#[tokio::test]
async fn map_without_an_order_is_stored() {
    let map = (0..50_u8).map(|n| (n.to_string(), n)).collect();
    let row = Row { id: 1, value: Unordered(map) };
    let store = opened::<Unordered>().await;
    let tx = store.begin();
    tx.insert(&row).await.unwrap();
    tx.update(&row).await.unwrap();
    let read = tx.get::<Row<Unordered>>(Global, 1).await.unwrap().unwrap();
    assert_eq!(read.value, row.value);
    tx.delete::<Row<Unordered>>(Global, 1).await.unwrap();
    tx.commit().await.unwrap();
}

/// Stores milliseconds as seconds, and any case as lower case.
mod lossy {
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    pub(super) fn serialize<S: Serializer>(ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(ms / 1000)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
        u64::deserialize(source).map(|seconds| 1000 * seconds)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Timed {
    id: u64,
    #[serde(with = "lossy")]
    ms: u64,
}

impl Entity for Timed {
    type Scope = Global;
    type Key = u64;
    const SPACE: Subspace<Global> = Subspace::global("timed");
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> u64 {
        self.id
    }
}

indexes! { Timed =>
    /// By time.
    BY_TIME ("timed_by_time", ms): Multi<u64> = |timed| Some(timed.ms);
    /// Unique by time.
    BY_ONLY ("timed_by_only", ms): Unique<u64> = |timed| Some(timed.ms);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TimedEvent {
    #[serde(with = "lossy")]
    ms: u64,
}

impl EventStream for TimedEvent {
    type Scope = Global;
    type Stream = ();
    const SPACE: Subspace<Global> = Subspace::global("timed_events").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn stream(&self) {}
}

impl Mutable for TimedEvent {}

stream_indexes! { TimedEvent =>
    /// By time.
    BY_TIME ("timed_events_by_time", ms): Multi<u64> = |event| Some(event.ms);
}

#[tokio::test]
async fn entries_of_a_lossy_record_match_the_decoded_record() {
    let options = Store::options()
        .schema(coditect_store::model::schema())
        .entity::<Timed>()
        .stream::<TimedEvent>();
    let store = options.open(Database::temporary().unwrap()).await.unwrap();
    let tx = store.begin();
    tx.insert(&Timed { id: 1, ms: 1_234 }).await.unwrap();
    let stored = Timed { id: 1, ms: 1_000 };
    assert_eq!(tx.find(&Timed::BY_ONLY, Global, 1_000).await.unwrap(), Some(stored.clone()));
    let taken = tx.insert(&Timed { id: 2, ms: 1_999 }).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::UniqueViolation("timed_by_only"));
    tx.update(&Timed { id: 1, ms: 2_345 }).await.unwrap();
    let changed = tx.modify::<Timed>(Global, 1, |timed| timed.ms += 1_001).await.unwrap();
    assert_eq!(changed, Timed { id: 1, ms: 3_000 });
    tx.upsert(&Timed { id: 3, ms: 7_007 }).await.unwrap();
    let appended = tx.append(&TimedEvent { ms: 1_234 }).await.unwrap();
    tx.commit().await.unwrap();

    for index in ["timed_by_time", "timed_by_only"] {
        let report = store.verify(index).unwrap().run(|_| ()).await.unwrap();
        assert_eq!((report.faults, report.examined), (0, 4), "{index}");
    }
    let tx = store.begin();
    let found = tx.scan_events(&TimedEvent::BY_TIME, Global, 1_000).page(1, None).await.unwrap();
    assert_eq!(found.items[0].record, TimedEvent { ms: 1_000 });
    let position = appended.position().unwrap();
    tx.update_event(position, &TimedEvent { ms: 5_678 }).await.unwrap();
    tx.remove_event::<TimedEvent>(Global, (), position).await.unwrap();
    tx.delete::<Timed>(Global, 1).await.unwrap();
    tx.delete::<Timed>(Global, 3).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.check().run(|_| ()).await.unwrap().faults, 0);
    let tx = store.begin();
    let names = ["timed", "timed_by_time", "timed_by_only", "timed_events", "timed_events_by_time"];
    for name in names {
        let begin = store.root().key(&name.to_owned());
        let end = [begin.as_slice(), &[0xff]].concat();
        let rows = tx.engine().get_range(&RangeQuery::new(begin, end)).await.unwrap().rows;
        assert_eq!(rows, [], "{name}");
    }
}

/// A record whose covering index includes fields that do not decode.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Carrying {
    id: u64,
    note: Option<String>,
}

impl Entity for Carrying {
    type Scope = Global;
    type Key = u64;
    const SPACE: Subspace<Global> = Subspace::global("carrying");
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> u64 {
        self.id
    }
}

indexes! { Carrying =>
    /// With an omitted field.
    NOTES ("carrying_notes", id): Covering<u64, SkippedLast> =
        |c| Some((c.id, SkippedLast { title: String::new(), note: c.note.clone() }));
}

#[tokio::test]
async fn fields_that_do_not_read_back_are_refused_by_their_index() {
    let options = Store::options().schema(coditect_store::model::schema()).entity::<Carrying>();
    let store = options.open(Database::temporary().unwrap()).await.unwrap();
    let tx = store.begin();
    tx.insert(&Carrying { id: 1, note: Some("note".into()) }).await.unwrap();
    let page = tx.scan_index_only(&Carrying::NOTES, Global, ..).page(1, None).await.unwrap();
    assert_eq!(page.items[0].fields.note.as_deref(), Some("note"));
    let error = tx.insert(&Carrying { id: 2, note: None }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string();
    assert!(text.contains("carrying_notes") && text.contains("SkippedLast"), "{text}");
}
