//! What is exported is imported as it was, whole or not at all, however often it is stopped.

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
    Clock, Error, ErrorKind, ManualClock, Store, StoreOptions, Transaction,
    archive::{self, Summary},
    engine::{Database, Options, RangeQuery},
    keyspace::{Global, KeyPart, Root},
    model::{Message, MessageId, SessionState, SessionStates, Tenant, TenantId, User},
    repository::Counter,
};
use proptest::prelude::*;
use tokio::io::AsyncWrite;

use crate::{
    planner::{Holiday, Task, task, tenant, user},
    samples,
};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn options() -> StoreOptions {
    Store::options().root(Root::new(&"here".to_owned())).entity::<Task>().entity::<Holiday>()
}

async fn empty() -> Store {
    options().open(Database::temporary().unwrap()).await.unwrap()
}

/// A database whose reads wait once each, so that work on it can be stopped in many places. It is in memory:
/// from a cluster what was stopped may come in a moment later.
fn waiting() -> Database {
    Database::memory_with(&Options::default().simulate_round_trips(true)).unwrap()
}

/// A store that has something of every kind, of several tenants.
async fn filled(tasks: u64) -> Store {
    let store = empty().await;
    let tx = store.begin();
    samples::write(&tx).await;
    tx.charge(samples::tenant().id, Counter::SESSIONS, 3, 100).await.unwrap();
    let holiday = Holiday { name: "Christmas".into(), country: "SE".into() };
    tx.create(&holiday).await.unwrap();
    for number in 0..tasks {
        let task = Task {
            tenant: tenant(u128::from(number % 3) + 1),
            owner: user(u128::from(number % 2)),
            due: (number % 4 != 0).then(|| i64::try_from(number).unwrap()),
            ticket: (number % 5 == 0).then(|| format!("T-{number}")),
            tags: vec![format!("tag {}", number % 7), "all".into()],
            ..task(number)
        };
        tx.create(&task).await.unwrap();
    }
    tx.commit().await.unwrap();
    store
}

/// All rows of a database, as they are, but for the value of the mark of the newest version, which an
/// import raises.
async fn rows(database: &Database) -> Rows {
    let query = RangeQuery::new(b"", b"\xff");
    let rows = database.begin().get_range(&query).await.unwrap().rows;
    let mut rows: Rows = rows.into_iter().map(|row| (row.key, row.value)).collect();
    if !rows.is_empty() {
        let root = Root::new(&"here".to_owned());
        rows.insert(root.key(&("meta".to_owned(), "last_append".to_owned())), Vec::new());
    }
    rows
}

async fn exported(store: &Store) -> Vec<u8> {
    let mut archive = Vec::new();
    let summary = store.export().run(&mut archive, |_| ()).await.unwrap();
    assert_eq!(summary.bytes, archive.len() as u64);
    archive
}

async fn import(database: &Database, archive: &[u8]) -> Result<Summary, Error> {
    options().import(database.clone()).unwrap().run(archive, |_| ()).await
}

/// The archive without what tells it from others: its id, and the sums that go on from it.
async fn content(archive: &[u8]) -> Rows {
    let database = Database::temporary().unwrap();
    import(&database, archive).await.unwrap();
    rows(&database).await
}

async fn faultless(store: &Store) {
    for shape in store.registry().shapes() {
        if let Ok(verification) = store.verify(shape.name) {
            let report = verification.run(|_| ()).await.unwrap();
            assert_eq!(report.findings, [], "{}", shape.name);
        }
    }
}

#[tokio::test]
async fn an_import_is_what_was_exported_byte_for_byte() {
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
async fn an_archive_goes_under_another_root() {
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

/// What a random store is filled with.
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
    fn any_store_is_restored_whole_and_by_tenants(tasks in some_tasks()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = empty().await;
            let tx = store.begin();
            for task in &tasks {
                tx.create(task).await.unwrap();
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
async fn a_byte_that_is_damaged_anywhere_is_noticed() {
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
async fn an_archive_that_is_cut_short_or_goes_on_is_refused_with_the_place() {
    let archive = exported(&filled(2).await).await;
    for length in 0..archive.len() {
        let error = archive::verify(&archive[..length], |_| ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let said = format!("the archive is cut short: it ends at byte {length}");
        assert_eq!(error.to_string(), said);
    }
    let longer = [archive.as_slice(), b"\0"].concat();
    let error = archive::verify(longer.as_slice(), |_| ()).await.unwrap_err();
    let said =
        format!("the archive is damaged at byte {}: there is more after its end", archive.len());
    assert_eq!(error.to_string(), said);
}

#[tokio::test]
async fn frames_that_change_places_are_refused() {
    let store = empty().await;
    for hundreds in 0..30 {
        let tx = store.begin();
        for number in 0..100 {
            tx.create(&task(hundreds * 100 + number)).await.unwrap();
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
    let said = format!("the archive is damaged at byte {a}: a frame is not what was written");
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
    // One that has entities of its own is no hindrance; an index that is missing here would be.
    let fewer = Store::options().import(Database::temporary().unwrap()).unwrap();
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
async fn nothing_is_imported_over_what_is_there() {
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
async fn a_damaged_archive_leaves_nothing_that_looks_whole() {
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

/// Drops `work` after `polls` polls, as whoever stops does; its answer if it was faster.
async fn stopped_after<T>(polls: usize, work: impl Future<Output = T>) -> Option<T> {
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

/// Stops an import of `archive` after the n-th step, for every n, and runs it again.
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
            // It was stopped between its last commit and the answer.
            Err(error) => assert_eq!((error.kind(), under_way), (ErrorKind::AlreadyExists, false)),
        }
        assert!(rows(&database).await == whole, "after {polls} polls");
    }
    unreachable!("it ends some time");
}

#[tokio::test]
async fn an_import_that_is_stopped_anywhere_goes_on_where_it_was() {
    let archive = exported(&filled(60).await).await;
    let target = async || waiting();
    let unfinished = stopped_everywhere(&archive, 20, target).await;
    assert!(unfinished > 10, "{unfinished} were stopped on their way");
}

#[tokio::test]
async fn a_tenants_import_that_is_stopped_anywhere_counts_nothing_twice() {
    let mut archive = Vec::new();
    filled(60).await.export().tenant(tenant(2)).run(&mut archive, |_| ()).await.unwrap();
    let target = async || options().open(waiting()).await.unwrap().database().clone();
    let unfinished = stopped_everywhere(&archive, 1, target).await;
    assert!(unfinished >= 2, "{unfinished} were stopped on their way");
}

#[tokio::test]
async fn an_import_that_is_abandoned_leaves_what_was_there_before() {
    let store = filled(60).await;
    let mut of_tenant = Vec::new();
    store.export().tenant(tenant(2)).run(&mut of_tenant, |_| ()).await.unwrap();
    for polls in 1.. {
        let target = options().open(waiting()).await.unwrap();
        // Others have the same days and tags, and are counted with them.
        let other = &Task { due: Some(1), tags: vec!["all".into()], ..task(7) };
        target.run(|tx| async move { tx.create(other).await }).await.unwrap();
        let before = rows(target.database()).await;
        let import = options().import(target.database().clone()).unwrap().rows(5);
        if stopped_after(polls, import.run(of_tenant.as_slice(), |_| ())).await.is_some() {
            assert!(!import.abandon().await.unwrap(), "it has ended");
            assert!(rows(target.database()).await != before);
            break;
        }
        // It may be stopped itself.
        let begun = rows(target.database()).await != before;
        let abandoned = stopped_after(polls, import.abandon()).await;
        let again = import.abandon().await.unwrap();
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
            assert!(import.abandon().await.unwrap());
            assert!(rows(&database).await == Rows::new());
            break;
        }
    }
}

/// Whether the import was stopped between its last commit and the answer, and so had ended.
async fn import_had_ended(store: &Store) -> bool {
    store.begin().list::<Task>(tenant(2)).all(99).await.unwrap().len() == 20
}

#[tokio::test]
async fn a_tenant_moves_with_all_that_it_is_found_by_and_no_other() {
    let store = filled(30).await;
    let mut archive = Vec::new();
    let moved = samples::tenant().id;
    store.export().tenant(moved).run(&mut archive, |_| ()).await.unwrap();
    let other = empty().await;
    let tx = other.begin();
    tx.create(&task(7)).await.unwrap();
    tx.commit().await.unwrap();
    let summary = import(other.database(), &archive).await.unwrap();
    assert_eq!(summary.manifest.tenant, Some(moved));

    let other = options().open(other.database().clone()).await.unwrap();
    faultless(&other).await;
    let tx = other.begin();
    let found = tx.find(&User::BY_EMAIL, Global, samples::user().email_normalized).await.unwrap();
    assert_eq!(found, Some(samples::user()));
    let message = samples::message();
    let found = tx.find_logged(&Message::BY_ID, moved, message.id).await.unwrap();
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

    // Abandoned anywhere, it leaves none of them.
    for polls in 1..30 {
        let other = options().open(waiting()).await.unwrap();
        let before = rows(other.database()).await;
        let begun = options().import(other.database().clone()).unwrap().rows(3);
        let ended = stopped_after(polls, begun.run(archive.as_slice(), |_| ())).await.is_some();
        if ended || !begun.abandon().await.unwrap() {
            continue;
        }
        assert!(rows(other.database()).await == before, "after {polls} polls");
    }

    let other = empty().await;
    import(other.database(), &archive).await.unwrap();
    let other = options().open(other.database().clone()).await.unwrap();
    let of_session = async || SessionState::all(&other.begin(), moved, samples::session().id).await;
    assert!(of_session().await.unwrap() != SessionStates::default());
    assert_eq!(other.complete_deletions().await.unwrap(), 1);
    assert!(of_session().await.unwrap() == SessionStates::default());
    faultless(&other).await;
}

#[tokio::test]
async fn a_tenant_that_is_being_deleted_is_not_exported_and_not_imported_over() {
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
    store.complete(&deletion).await.unwrap();
    import(store.database(), &archive).await.unwrap();
}

#[tokio::test]
async fn a_tenant_whose_unique_value_is_taken_is_refused_by_the_indexs_name() {
    let store = filled(3).await;
    let mut archive = Vec::new();
    let moved = samples::tenant().id;
    store.export().tenant(moved).run(&mut archive, |_| ()).await.unwrap();
    let other = empty().await;
    let taken = &User { tenant_id: TenantId::new(), ..samples::user() };
    other.run(|tx| async move { tx.create(taken).await }).await.unwrap();
    let before = rows(other.database()).await;
    let unique = ErrorKind::UniqueViolation("users_by_email");
    let verified = options().import(other.database().clone()).unwrap();
    let refused = verified.run_verified(io::Cursor::new(&archive), |_| ()).await.unwrap_err();
    assert_eq!(refused.kind(), unique);
    assert!(rows(other.database()).await == before, "it was found before anything was written");

    assert_eq!(import(other.database(), &archive).await.unwrap_err().kind(), unique);
    let error = options().open(other.database().clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImportInProgress, "it is there in part");
    assert!(verified.abandon().await.unwrap());
    assert!(rows(other.database()).await == before);
}

#[tokio::test]
async fn what_is_appended_after_an_import_comes_after_what_was_imported() {
    let store = filled(1).await;
    let archive = exported(&store).await;
    // The other machine's clock is years behind.
    let clock = Clock::from(&ManualClock::new(chrono::DateTime::UNIX_EPOCH));
    let behind = Options::default().clock(clock);
    let database = Database::memory_with(&behind).unwrap();
    import(&database, &archive).await.unwrap();
    let store = options().open(database).await.unwrap();
    let later = &Message { id: MessageId::new(), ..samples::message() };
    store.run(|tx| async move { tx.append(later).await }).await.unwrap();
    let tx = store.begin();
    let conversation = samples::conversation().id;
    let log = tx.log::<Message>(samples::tenant().id, conversation, ..);
    let messages = log.page(9, None).await.unwrap().items;
    let ids: Vec<MessageId> = messages.iter().map(|logged| logged.record.id).collect();
    assert_eq!(ids, [samples::message().id, later.id]);
}

/// Writes two records in each transaction, that always say the same, until it is told to stop.
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
                    tx.create(&task).await?;
                }
            }
            Ok::<_, Error>(())
        };
        store.run(write).await.unwrap();
    }
    round
}

/// A sink that lets others write between any two writes of its own, and waits a while at first.
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
                tx.create(&Task { tenant: tenant(2), ..task(tens * 50 + number) }).await?;
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
    store.run(|tx| async move { tx.create(first).await }).await.unwrap();

    // From now on there always are pairs: of three rounds two leave theirs.
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
        // Its versions are those of the hour: a cluster would have to recover at them.
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
    store.run(|tx| async move { tx.create(record).await }).await.unwrap();
    store.database().close().await;
    drop(store);
    damage(folder.path(), name);
    let store = Store::open(Database::open(folder.path()).unwrap()).await.unwrap();
    let error = store.export().run(&mut Vec::new(), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let said = format!("the value of ({}, \"tenant\") is damaged: check the store", record.id);
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

#[tokio::test]
async fn a_tenant_that_is_not_there_cannot_be_exported() {
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
    // A store's archive has them.
    let whole = content(&exported(&store).await).await;
    assert_eq!(whole.get(&key).map(Vec::as_slice), Some(b"unknown".as_slice()));
}
