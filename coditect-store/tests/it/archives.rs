//! Archives: an import restores the exported data completely or not at all, regardless of
//! interruptions.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use coditect_store::{
    Error, ErrorKind, Store, StoreOptions, Transaction,
    archive::{self, Summary},
    engine::{Database, Options, RangeQuery},
    keyspace::{Global, Root},
    model::Tenant,
    records::Counter,
};
use proptest::prelude::*;
use tokio::io::AsyncWrite;

use crate::{
    planner::{Holiday, Task, task, tenant, user},
    samples,
};

pub(crate) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn options() -> StoreOptions {
    Store::options()
        .schema(coditect_store::model::schema())
        .root(Root::new(&"here".to_owned()))
        .entity::<Task>()
        .entity::<Holiday>()
}

pub(crate) async fn empty() -> Store {
    options().open(Database::temporary().unwrap()).await.unwrap()
}

/// A database whose reads wait once each, so that work on it can be interrupted at many points. In
/// memory: on a cluster, an interrupted commit may complete later.
pub(crate) fn waiting() -> Database {
    Database::memory_with(&Options::default().simulate_round_trips(true)).unwrap()
}

/// A store with records of every kind, of several tenants.
pub(crate) async fn filled(tasks: u64) -> Store {
    let store = empty().await;
    let tx = store.begin();
    samples::write(&tx).await;
    tx.charge(samples::tenant().id, Counter::SESSIONS, 3, 100).await.unwrap();
    let holiday = Holiday { name: "Christmas".into(), country: "SE".into() };
    tx.insert(&holiday).await.unwrap();
    for number in 0..tasks {
        let task = Task {
            tenant: tenant(u128::from(number % 3) + 1),
            owner: user(u128::from(number % 2)),
            due: (number % 4 != 0).then(|| i64::try_from(number).unwrap()),
            ticket: (number % 5 == 0).then(|| format!("T-{number}")),
            tags: vec![format!("tag {}", number % 7), "all".into()],
            ..task(number)
        };
        tx.insert(&task).await.unwrap();
    }
    tx.commit().await.unwrap();
    store
}

/// Returns all rows of a database, without the value of the high-water mark, which an import
/// raises.
pub(crate) async fn rows(database: &Database) -> Rows {
    let query = RangeQuery::new(b"", b"\xff");
    let rows = database.begin().get_range(&query).await.unwrap().rows;
    let mut rows: Rows = rows.into_iter().map(|row| (row.key, row.value)).collect();
    if !rows.is_empty() {
        let root = Root::new(&"here".to_owned());
        rows.insert(root.key(&("meta".to_owned(), "last_append".to_owned())), Vec::new());
    }
    rows
}

pub(crate) async fn exported(store: &Store) -> Vec<u8> {
    let mut archive = Vec::new();
    let summary = store.export().run(&mut archive, |_| ()).await.unwrap();
    assert_eq!(summary.bytes, archive.len() as u64);
    archive
}

pub(crate) async fn import(database: &Database, archive: &[u8]) -> Result<Summary, Error> {
    options().import(database.clone()).unwrap().run(archive, |_| ()).await
}

/// Returns the archive without its unique parts: its id, and the checksums that depend on it.
pub(crate) async fn content(archive: &[u8]) -> Rows {
    let database = Database::temporary().unwrap();
    import(&database, archive).await.unwrap();
    rows(&database).await
}

pub(crate) async fn faultless(store: &Store) {
    for layout in store.schema().layouts() {
        if let Ok(verification) = store.verify(layout.name) {
            let report = verification.run(|_| ()).await.unwrap();
            assert_eq!(report.findings, [], "{}", layout.name);
        }
    }
}

#[tokio::test]
async fn import_is_identical_to_the_export() {
    let store = filled(40).await;
    let before = rows(store.database()).await;
    let archive = exported(&store).await;
    let database = Database::temporary().unwrap();
    let summary = import(&database, &archive).await.unwrap();
    assert_eq!(summary.rows, before.len() as u64);
    assert_eq!(summary, archive::verify(archive.as_slice(), |_| ()).await.unwrap());
    assert!(rows(&database).await == before);

    let restored = options().open(database).await.unwrap();
    let again = exported(&restored).await;
    assert_eq!(again.len(), archive.len());
    assert!(content(&again).await == before);
    faultless(&restored).await;
}

#[tokio::test]
async fn archive_is_imported_under_another_root() {
    let store = filled(5).await;
    let archive = exported(&store).await;
    let elsewhere = || options().root(Root::default());
    let database = Database::temporary().unwrap();
    elsewhere().import(database.clone()).unwrap().run(archive.as_slice(), |_| ()).await.unwrap();
    let restored = elsewhere().open(database).await.unwrap();
    faultless(&restored).await;
    let found = restored.begin().find(&Task::BY_TICKET, Global, "T-0".to_owned()).await.unwrap();
    assert_eq!(found.unwrap().slug, "task-0");
}

/// The contents of a random store.
fn some_tasks() -> impl Strategy<Value = Vec<Task>> {
    let one =
        (any::<bool>(), any::<Option<i64>>(), ".{0,9}", prop::collection::vec(".{0,4}", 0..4));
    prop::collection::vec(one, 0..25).prop_map(|given| {
        let tasks = (0_u64..).zip(given).map(|(number, (first, due, text, tags))| Task {
            tenant: tenant(if first { 1 } else { u128::MAX }),
            due,
            ticket: first.then(|| format!("{number}-{text}")),
            slug: format!("{text}-{number}"),
            tags,
            ..task(number)
        });
        tasks.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_store_is_restored_whole_and_by_tenant(tasks in some_tasks()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = empty().await;
            let tx = store.begin();
            for task in &tasks {
                tx.insert(task).await.unwrap();
            }
            tx.commit().await.unwrap();
            let before = rows(store.database()).await;
            assert!(content(&exported(&store).await).await == before);

            // All tenants, one by one, make the same store.
            let other = empty().await;
            for tenant in [tenant(1), tenant(u128::MAX)] {
                let mut archive = Vec::new();
                match store.export().tenant(tenant).run(&mut archive, |_| ()).await {
                    Ok(_) => drop(import(other.database(), &archive).await.unwrap()),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
                }
            }
            assert!(rows(other.database()).await == before);
        });
    }
}

#[tokio::test]
async fn damaged_byte_is_detected_anywhere() {
    let archive = exported(&filled(2).await).await;
    let import = options().import(Database::temporary().unwrap()).unwrap();
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = import.verify(damaged.as_slice(), |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}: {error}");
    }
}

#[tokio::test]
async fn truncated_or_extended_archive_is_rejected_with_the_offset() {
    let archive = exported(&filled(2).await).await;
    for length in 0..archive.len() {
        let error = archive::verify(&archive[..length], |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let said = format!("the archive is truncated at byte {length}");
        assert_eq!(error.to_string(), said);
    }
    let longer = [archive.as_slice(), b"\0"].concat();
    let error = archive::verify(longer.as_slice(), |_| ()).await.unwrap_err();
    let said = format!(
        "the archive is damaged at byte {}: there are bytes after the last frame",
        archive.len()
    );
    assert_eq!(error.to_string(), said);
}

#[tokio::test]
async fn reordered_frames_are_rejected() {
    let store = empty().await;
    for hundreds in 0..30 {
        let tx = store.begin();
        for number in 0..100 {
            tx.insert(&task(hundreds * 100 + number)).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    let archive = exported(&store).await;
    let mut frames = vec![24];
    while let Some(length) = archive.get(frames[frames.len() - 1] + 1..).and_then(|at| at.get(..4))
    {
        let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
        frames.push(frames[frames.len() - 1] + 9 + length);
    }
    let [_, a, b, c, ..] = frames[..] else { panic!("{frames:?}") };
    let swapped = [&archive[..a], &archive[b..c], &archive[a..b], &archive[c..]].concat();
    let error = archive::verify(swapped.as_slice(), |_| ()).await.unwrap_err();
    let said = format!("the archive is damaged at byte {a}: a frame has a wrong checksum");
    assert_eq!(error.to_string(), said);
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let mut archive = exported(&empty().await).await;
    archive[16] = 2;
    let sum = crc32c::crc32c(&archive[..20]).to_le_bytes();
    archive[20..24].copy_from_slice(&sum);
    let error = archive::verify(archive.as_slice(), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("format 2"), "{error}");
}

#[tokio::test]
async fn declarations_that_are_not_this_programs_are_refused_before_anything_is_written() {
    let archive = exported(&filled(3).await).await;
    // A store with further entities is accepted; one without an index would not be.
    let fewer = Store::options()
        .schema(coditect_store::model::schema())
        .import(Database::temporary().unwrap())
        .unwrap();
    fewer.verify(archive.as_slice(), |_| ()).await.unwrap();

    let store = filled(3).await;
    let tx = store.begin();
    let schema =
        |name: &str| store.root().key(&("meta".to_owned(), "schema".to_owned(), name.to_owned()));
    let index = Root::default().key(&(
        ("multi".to_owned(), "tenant".to_owned()),
        ("colour".to_owned(), "planner_tasks".to_owned()),
    ));
    tx.engine().set(&schema("planner_tasks_by_colour"), &index);
    tx.commit().await.unwrap();
    let archive = exported(&store).await;
    let database = Database::temporary().unwrap();
    let import = options().import(database.clone()).unwrap();
    let error = import.run_verified(io::Cursor::new(&archive), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NewerFormat);
    assert!(error.to_string().contains("planner_tasks_by_colour"), "{error}");
    assert_eq!(rows(&database).await, Rows::new());

    let tx = store.begin();
    tx.engine().clear(&schema("planner_tasks_by_colour"));
    tx.engine().set(&schema("planner_tasks_by_day"), &index);
    tx.commit().await.unwrap();
    let error = import.verify(exported(&store).await.as_slice(), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SchemaMismatch("planner_tasks_by_day"));
}

#[tokio::test]
async fn import_into_a_non_empty_destination_is_rejected() {
    let store = filled(3).await;
    let archive = exported(&store).await;
    let before = rows(store.database()).await;
    for database in [store.database(), empty().await.database()] {
        let before = rows(database).await;
        let error = import(database, &archive).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(rows(database).await == before);
    }
    let mut of_one = Vec::new();
    store.export().tenant(tenant(1)).run(&mut of_one, |_| ()).await.unwrap();
    assert_eq!(
        import(store.database(), &of_one).await.unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    assert!(rows(store.database()).await == before);
}

#[tokio::test]
async fn damaged_archive_leaves_no_store() {
    let archive = exported(&filled(30).await).await;
    let mut damaged = archive.clone();
    let last = archive.len() - 1;
    damaged[last] ^= 1;
    let database = Database::temporary().unwrap();
    let verified = options().import(database.clone()).unwrap();
    let error = verified.run_verified(io::Cursor::new(&damaged), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(rows(&database).await, Rows::new(), "it was read before anything was written");

    assert_eq!(import(&database, &damaged).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let refused = options().open(database.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ImportInProgress);
    assert!(refused.to_string().contains("run it again with the same archive"), "{refused}");
    let other = exported(&filled(1).await).await;
    assert_eq!(import(&database, &other).await.unwrap_err().kind(), ErrorKind::ImportInProgress);

    import(&database, &archive).await.unwrap();
    assert!(rows(&database).await == content(&archive).await);
}

/// Drops `work` after `polls` polls, as an interruption does; returns its result if it completed.
pub(crate) async fn stopped_after<T>(polls: usize, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut left = polls;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Interrupts an import of `archive` after the n-th step, for every n, and runs it again.
async fn stopped_everywhere(
    archive: &[u8],
    rows_a_step: usize,
    target: impl AsyncFn() -> Database,
) -> usize {
    let whole = target().await;
    import(&whole, archive).await.unwrap();
    let whole = rows(&whole).await;
    let mut unfinished = 0;
    for polls in 1.. {
        let database = target().await;
        let import = options().import(database.clone()).unwrap().rows(rows_a_step);
        if let Some(done) = stopped_after(polls, import.run(archive, |_| ())).await {
            done.unwrap();
            assert!(rows(&database).await == whole);
            return unfinished;
        }
        let marker = Root::new(&"here".to_owned()).key(&("meta".to_owned(), "import".to_owned()));
        let under_way = database.begin().get(&marker).await.unwrap().is_some();
        if under_way {
            let refused = options().open(database.clone()).await.unwrap_err();
            assert_eq!(
                refused.kind(),
                ErrorKind::ImportInProgress,
                "after {polls} polls: {refused}"
            );
            unfinished += 1;
        }
        match import.run(archive, |_| ()).await {
            Ok(_) => {}
            // It was interrupted between its last commit and the result.
            Err(error) => assert_eq!((error.kind(), under_way), (ErrorKind::AlreadyExists, false)),
        }
        assert!(rows(&database).await == whole, "after {polls} polls");
    }
    unreachable!("it ends some time");
}

#[tokio::test]
async fn import_interrupted_anywhere_resumes() {
    let archive = exported(&filled(60).await).await;
    let target = async || waiting();
    let unfinished = stopped_everywhere(&archive, 20, target).await;
    assert!(unfinished > 10, "{unfinished} were stopped on their way");
}

#[tokio::test]
async fn tenant_import_interrupted_anywhere_counts_once() {
    let mut archive = Vec::new();
    filled(60).await.export().tenant(tenant(2)).run(&mut archive, |_| ()).await.unwrap();
    let target = async || options().open(waiting()).await.unwrap().database().clone();
    let unfinished = stopped_everywhere(&archive, 1, target).await;
    assert!(unfinished >= 2, "{unfinished} were stopped on their way");
}

#[tokio::test]
async fn rolled_back_import_leaves_the_earlier_data() {
    let store = filled(60).await;
    let mut of_tenant = Vec::new();
    store.export().tenant(tenant(2)).run(&mut of_tenant, |_| ()).await.unwrap();
    for polls in 1.. {
        let target = options().open(waiting()).await.unwrap();
        // Others have the same days and tags, and are counted with them.
        let other = &Task { due: Some(1), tags: vec!["all".into()], ..task(7) };
        target.run(|tx| async move { tx.insert(other).await }).await.unwrap();
        let before = rows(target.database()).await;
        let import = options().import(target.database().clone()).unwrap().rows(5);
        if stopped_after(polls, import.run(of_tenant.as_slice(), |_| ())).await.is_some() {
            assert!(!import.rollback().await.unwrap(), "it has ended");
            assert!(rows(target.database()).await != before);
            break;
        }
        // The rollback may be interrupted, too.
        let begun = rows(target.database()).await != before;
        let abandoned = stopped_after(polls, import.rollback()).await;
        let again = import.rollback().await.unwrap();
        assert!(!begun || abandoned.is_none() || !again);
        let after = rows(target.database()).await;
        assert!(after == before || import_had_ended(&target).await, "after {polls} polls");
    }

    let whole = exported(&store).await;
    for polls in 1.. {
        let database = waiting();
        let import = options().import(database.clone()).unwrap().rows(5);
        let stopped = stopped_after(polls, import.run(whole.as_slice(), |_| ())).await;
        assert!(stopped.is_none(), "it had written nothing {polls} steps before its end");
        if !rows(&database).await.is_empty() {
            assert!(import.rollback().await.unwrap());
            assert!(rows(&database).await == Rows::new());
            break;
        }
    }
}

/// Returns whether the import was interrupted after its last commit, and so had completed.
async fn import_had_ended(store: &Store) -> bool {
    store.begin().list::<Task>(tenant(2)).all(99).await.unwrap().len() == 20
}

/// Writes two equal records in each transaction, until it is stopped.
async fn write_pairs(store: Store, writer: u64, done: &AtomicBool) -> u64 {
    let mut round = 0;
    while !done.load(Ordering::Relaxed) {
        round += 1;
        let pair = (round * 8 + writer) % 160;
        let write = |tx: Transaction| async move {
            for number in [pair, 5_000 - pair] {
                let day = i64::try_from(round).unwrap();
                let task = Task { day, due: Some(day), ..task(number) };
                if tx.delete::<Task>(task.tenant, task.number).await?.is_none() || round % 3 > 0 {
                    tx.insert(&task).await?;
                }
            }
            Ok::<_, Error>(())
        };
        store.run(write).await.unwrap();
    }
    round
}

/// A sink that lets others write between its own writes, and waits at first.
struct Slow {
    archive: Vec<u8>,
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl AsyncWrite for Slow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        self.archive.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_export_is_of_one_version_though_it_outlives_a_transaction_and_writes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = options().open(Database::open(folder.path()).unwrap()).await.unwrap();
    for tens in 0..60 {
        let fill = |tx: Transaction| async move {
            for number in 0..50 {
                tx.insert(&Task { tenant: tenant(2), ..task(tens * 50 + number) }).await?;
            }
            Ok::<_, Error>(())
        };
        store.run(fill).await.unwrap();
    }
    let done: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(false)));
    let write = |writer| tokio::spawn(write_pairs(store.clone(), writer, done));
    let writers: Vec<_> = (0..4).map(write).collect();
    let acknowledged = Task { tenant: tenant(9), ..task(0) };
    let first = &acknowledged;
    store.run(|tx| async move { tx.insert(first).await }).await.unwrap();

    // From now on there always are pairs: two of three rounds leave theirs.
    while store.begin().list::<Task>(tenant(1)).all(1_000).await.unwrap().len() < 40 {
        tokio::task::yield_now().await;
    }
    let mut archives = Vec::new();
    for wait in [0, 0, 0, 6] {
        let wait = Box::pin(tokio::time::sleep(Duration::from_secs(wait)));
        let mut sink = Slow { archive: Vec::new(), wait: Some(wait) };
        store.export().run(&mut sink, |_| ()).await.unwrap();
        archives.push(sink.archive);
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.unwrap() > 10);
    }
    for archive in archives {
        // Its versions are of its time of recording: a cluster would have to recover at them.
        let database = Database::memory().unwrap();
        import(&database, &archive).await.unwrap();
        let restored = options().open(database).await.unwrap();
        faultless(&restored).await;
        let tx = restored.begin();
        let found = tx.get::<Task>(tenant(9), acknowledged.number).await.unwrap();
        assert_eq!(found.as_ref(), Some(&acknowledged));
        let tasks = tx.list::<Task>(tenant(1)).all(1_000).await.unwrap();
        let days: BTreeMap<u64, i64> = tasks.iter().map(|task| (task.number.0, task.day)).collect();
        assert!(!days.is_empty());
        for (number, day) in &days {
            assert_eq!(days.get(&(5_000 - number)), Some(day), "the other of {number}");
        }
    }
}

#[tokio::test]
async fn a_damaged_value_is_not_exported() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let store = Store::open(database).await.unwrap();
    let name = "a name that is found in the file";
    let record = &Tenant { name: name.into(), ..samples::tenant() };
    store.run(|tx| async move { tx.insert(record).await }).await.unwrap();
    store.database().close().await;
    drop(store);
    damage(folder.path(), name);
    let store = Store::open(Database::open(folder.path()).unwrap()).await.unwrap();
    let error = store.export().run(&mut Vec::new(), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let said =
        format!("the value of ({}, \"tenant\") is damaged: run a check of the store", record.id);
    assert_eq!(error.to_string(), said);
}

/// Changes a letter wherever `text` is in the file of the closed store in `folder`.
pub(crate) fn damage(folder: &std::path::Path, text: &str) {
    let path = folder.join("store.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let places: Vec<usize> = (0..bytes.len().saturating_sub(text.len()))
        .filter(|&at| bytes[at..].starts_with(text.as_bytes()))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, &bytes).unwrap();
}
