//! Every method of the store, with every error of a cluster at each of its steps: the result is
//! true, and the store has the earlier data, or all of the new data, once.

use std::{ops::RangeInclusive, pin::Pin, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use coditect_store::{
    Blob, BlobUpload, Clock, Counter, Error, ErrorKind, Result, Store, Transaction,
    archive::Summary,
    engine::{Database, Fault, Faults, RangeQuery},
    keyspace::{Global, Root},
    model::{
        ClientState, Conversation, ConversationId, EditorState, File, FilePolicy, FileRoot,
        Message, MessageId, Session, SessionId, SessionState, StateQuota, Tenant, User,
    },
    retry::{OnUnknownOutcome, RetryPolicy},
};

use crate::{
    deletions::is_sound,
    planner::{Task, TaskNumber, task, tenant},
    samples,
};

/// Longer than the delay of a commit that completes after its error.
const LATE: Duration = Duration::from_millis(25);

type Rows = Vec<(Vec<u8>, Vec<u8>)>;
type Working = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
/// Work in one transaction, including its retries.
type Work = Box<dyn Fn(Transaction) -> Working + Send + Sync>;

/// A store with an engine that fails on request, and its initial contents.
struct Bench {
    /// The same database, without failures.
    sound: Database,
    faults: Faults,
    store: Store,
    before: Rows,
    /// The version at the start.
    since: u64,
}

impl Bench {
    async fn new() -> Self {
        let sound = Database::temporary().unwrap();
        let faults = Faults::default();
        let options = Store::options()
            .schema(coditect_store::model::schema())
            .root(Root::new(&"s".to_owned()))
            .entity::<Task>();
        let store = options.open(sound.with_faults(faults.clone())).await.unwrap();
        let fill = |tx: Transaction| async move {
            tx.insert(&Tenant { id: tenant(1), ..samples::tenant() }).await?;
            for number in 1..=9 {
                tx.insert(&Task { ticket: Some(number.to_string()), ..task(number) }).await?;
            }
            samples::write(&tx).await;
            samples::agent().set_up(&tx, 9).await
        };
        store.run(fill).await.unwrap();
        // An empty database would have version 0, which precedes all.
        let since = sound.begin().read_version().await.unwrap();
        Self { before: Vec::new(), sound, faults, store, since }
    }

    /// Returns all rows except the markers of attempts.
    async fn rows(&self) -> Rows {
        let tx = self.sound.begin();
        let all = tx.snapshot().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap();
        let rows = all.rows.into_iter().filter(|row| row.key != MARKER);
        rows.map(|row| (row.key, row.value)).collect()
    }

    /// Restores the initial contents.
    async fn restore(&self) {
        self.faults.clear();
        let tx = self.sound.begin();
        tx.clear_range(b"", b"\xff");
        for (key, value) in &self.before {
            tx.set(key, value);
        }
        tx.commit().await.unwrap();
    }

    /// Returns the contents, without versions that differ between runs.
    async fn state(&self) -> Rows {
        let mut rows = self.rows().await;
        let versions = self.since..=self.sound.begin().read_version().await.unwrap();
        let known: std::collections::BTreeSet<_> = self.before.iter().collect();
        let fresh: Vec<_> = rows.iter().map(|row| !known.contains(row)).collect();
        for ((key, value), is_fresh) in rows.iter_mut().zip(fresh) {
            if is_fresh {
                mask(key, &versions);
                mask(value, &versions);
            }
        }
        rows.sort();
        rows
    }
}

/// A counter that no check compares with records.
const TRIED: Counter = Counter::new("tried");

const MARKER: &[u8] = b"marker";

/// Operations that are not idempotent.
const DONE_AGAIN: [&str; 6] = [
    "append",
    "charge",
    "take_out",
    "SessionState::save",
    "SessionMemory::save",
    "ClientState::save",
];

/// Replaces versionstamps of these versions and ids of these days: eight bytes of version and two
/// of order, or 16 bytes that begin with six of milliseconds.
fn mask(bytes: &mut [u8], versions: &RangeInclusive<u64>) {
    let millis = u64::try_from(Clock::system().now().timestamp_millis()).unwrap().to_be_bytes();
    let is_stamp = |bytes: &[u8]| {
        bytes.first_chunk().is_some_and(|eight| versions.contains(&u64::from_be_bytes(*eight)))
    };
    let is_id = |bytes: &[u8]| bytes.starts_with(&millis[2..5]);
    blank(bytes, 10, is_stamp);
    blank(bytes, 16, is_id);
}

/// Blanks each `length` bytes that start like one of these.
fn blank(bytes: &mut [u8], length: usize, begins: impl Fn(&[u8]) -> bool) {
    for at in 0..bytes.len().saturating_sub(length - 1) {
        if begins(&bytes[at..]) {
            bytes[at..at + length].fill(0);
        }
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

async fn upload(store: &Store, bytes: &[u8]) -> Blob {
    let mut upload =
        BlobUpload::begin(store, samples::tenant().id, &Clock::system()).await.unwrap();
    upload.write(bytes).await.unwrap();
    upload.finish().await.unwrap()
}

/// `name: |tx, it| …` for each, where `it` has the shared values.
macro_rules! works {
    ($common:expr; $($name:literal: |$tx:ident, $it:ident| $work:expr;)*) => {
        vec![$(($name, {
            let common = Arc::clone(&$common);
            Box::new(move |$tx: Transaction| {
                let $it = Arc::clone(&common);
                Box::pin(async move { $work.map(|_| ()) }) as Working
            }) as Work
        })),*]
    };
}

struct Common {
    read: coditect_store::Versioned<Task>,
    changed: Task,
    new: Task,
    opened: Session,
    begun: Conversation,
    said: Message,
    position: coditect_store::keyspace::Position,
    file: File,
    blob: Blob,
    policy: FilePolicy,
    home: FileRoot,
}

async fn common(store: &Store) -> Common {
    let of = samples::tenant().id;
    let policy = FilePolicy::default().versions(2);
    let home = FileRoot::Workspace("/workspace/p".into());
    let first = upload(store, b"one").await;
    let put = |tx| {
        let (home, policy) = (&home, &policy);
        async move { File::put(&tx, of, (home, "d/a"), first, policy, now()).await }
    };
    let file = store.run(put).await.unwrap();
    let tx = store.begin();
    let read = tx.get_versioned::<Task>(tenant(1), TaskNumber(7)).await.unwrap().unwrap();
    let log = tx.events::<Message>(of, samples::conversation().id, ..).page(1, None).await.unwrap();
    Common {
        changed: Task { due: Some(9), slug: "new".into(), ..task(7) },
        new: Task { slug: "other".into(), ..task(999) },
        opened: Session { id: SessionId::new(), ..samples::session() },
        begun: Conversation { id: ConversationId::new(), ..samples::conversation() },
        said: Message { id: MessageId::new(), ..samples::message() },
        position: log.items[0].position,
        blob: upload(store, b"two").await,
        read,
        file,
        policy,
        home,
    }
}

fn works(common: &Arc<Common>) -> Vec<(&'static str, Work)> {
    let (of, session) = (samples::tenant().id, samples::session().id);
    works! { common;
        "create": |tx, it| tx.insert(&it.new).await;
        "update": |tx, it| tx.update(&it.changed).await;
        "update_at": |tx, it| tx.update_at(&it.changed, it.read.revision()).await;
        "upsert": |tx, it| tx.upsert(&it.new).await;
        "modify": |tx, _it| tx.modify::<Task>(tenant(1), TaskNumber(7), |task| task.day = 8).await;
        "delete": |tx, _it| tx.delete::<Task>(tenant(1), TaskNumber(7)).await;
        "find": |tx, _it| tx.find(&User::BY_EMAIL, Global, "ada@example.org".to_owned()).await;
        "scan": |tx, _it| tx.scan(&Task::BY_OWNER, tenant(1), task(1).owner).page(5, None).await;
        "append": |tx, _it| tx.append(&samples::audit_entry()).await;
        "amend": |tx, it| tx.update_event(it.position, &it.said).await;
        "take_out": |tx, it| {
            tx.release(of, Counter::BYTES, it.said.counted_bytes()).unwrap();
            let conversation = samples::conversation().id;
            tx.remove_event::<Message>(samples::tenant().id, conversation, it.position).await
        };
        "charge": |tx, _it| tx.charge(of, TRIED, 1, 1_000).await;
        "Session::insert": |tx, it| it.opened.insert(&tx, 100).await;
        "SessionState::save": |tx, _it| {
            SessionState::save(&tx, of, session, EditorState::default(), now()).await
        };
        "SessionMemory::save": |tx, _it|
            samples::session_memory().save(&tx, &StateQuota::default()).await;
        "Conversation::insert": |tx, it| it.begun.insert(&tx).await;
        "Message::insert": |tx, it| it.said.insert(&tx, 1_000_000).await;
        "ClientState::save": |tx, _it| {
            ClientState::save(
                &tx, (of, session), ("theia.layout", vec![1]), &StateQuota::default(), now(),
            ).await
        };
        "ClientState::discard": |tx, _it|
            ClientState::discard(&tx, of, session, "theia.layout").await;
        "File::put": |tx, it|
            File::put(&tx, of, (&it.home, "d/a"), it.blob, &it.policy, now()).await;
        "File::create_parent_dirs": |tx, it|
            File::create_parent_dirs(&tx, of, (&it.home, "x/y/z"), &it.policy, now()).await;
        "File::remove": |tx, it| it.file.remove(&tx, now()).await;
        "delete_session": |tx, _it| tx.delete_session(of, session, now()).await;
        "delete_conversation": |tx, _it| {
            tx.delete_conversation(of, samples::conversation().id, now()).await
        };
        "delete_tenant": |tx, _it| tx.delete_tenant(of, now()).await;
    }
}

fn policy(unknown: OnUnknownOutcome) -> RetryPolicy {
    RetryPolicy::default().initial_delay(Duration::from_micros(10)).on_unknown_outcome(unknown)
}

/// Returns whether the error is the closure's own, here that it had run before.
fn is_answer(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::AlreadyExists
            | ErrorKind::NotFound
            | ErrorKind::RevisionMismatch
            | ErrorKind::UniqueViolation(_)
    )
}

#[tokio::test]
async fn methods_are_atomic_under_every_engine_error() {
    let mut bench = Bench::new().await;
    let common = Arc::new(common(&bench.store).await);
    bench.before = bench.rows().await;
    let mut tried = 0;
    for (name, work) in works(&common) {
        bench.restore().await;
        let before = bench.state().await;
        bench.store.run(&work).await.unwrap();
        let steps = bench.faults.steps();
        let after = bench.state().await;
        for (step, fault) in (0..steps).flat_map(|step| Fault::ALL.map(|fault| (step, fault))) {
            for unknown in [
                OnUnknownOutcome::Fail,
                OnUnknownOutcome::Retry,
                OnUnknownOutcome::CheckMarker(MARKER.into()),
            ] {
                let about = format!("{name}, {fault:?} at step {step}, {unknown:?}");
                bench.restore().await;
                bench.faults.plan(step, fault);
                let outcome = bench.store.run_with(&policy(unknown.clone()), &work).await;
                if !bench.faults.has_occurred() {
                    continue;
                }
                tried += 1;
                if fault == Fault::Late {
                    tokio::time::sleep(LATE).await;
                }
                let found = bench.state().await;
                match (outcome, &unknown) {
                    (Ok(()), OnUnknownOutcome::Retry) if DONE_AGAIN.contains(&name) => {
                        assert!(found != before, "{about}: done, and not there");
                    }
                    (Ok(()), _) => assert!(found == after, "{about}: done, and not there"),
                    (Err(error), _) if error.kind() == ErrorKind::MaybeCommitted => {
                        let is_in_flight = matches!(fault, Fault::Late | Fault::Changed);
                        let is_told = matches!(unknown, OnUnknownOutcome::Fail) || is_in_flight;
                        assert!(is_told && fault.is_unknown_outcome(), "{about}: {error}");
                        assert!(found == before || found == after, "{about}: a part is there");
                    }
                    (Err(error), OnUnknownOutcome::Retry) if is_answer(&error) => {
                        assert!(found == after, "{about}: {error}, and not there");
                    }
                    (Err(error), _) => {
                        let is_silent = fault == Fault::Silent;
                        assert!(
                            is_silent && error.kind() == ErrorKind::Unavailable,
                            "{about}: {error}"
                        );
                        assert!(found == before, "{about}: something was written");
                    }
                }
            }
        }
        bench.faults.clear();
        is_sound(&bench.store).await;
    }
    assert!(tried > 1_000, "only {tried} faults came");
}

/// Work of several transactions that can be begun again.
type Task2 = Box<dyn Fn(Store) -> Working + Send + Sync>;

#[tokio::test]
async fn multi_transaction_work_resumes_after_any_fault() {
    let mut bench = Bench::new().await;
    let common = Arc::new(common(&bench.store).await);
    let of = samples::tenant().id;
    let delete = |tx: Transaction| async move { tx.delete_tenant(of, now()).await };
    bench.before = bench.rows().await;
    let kept = bench.before.clone();
    bench.store.run(delete).await.unwrap();
    let doomed = bench.rows().await;
    let policy = common.policy;
    let jobs: Vec<(&str, Rows, Task2)> = vec![
        (
            "resume_deletions",
            doomed,
            Box::new(|store| Box::pin(async move { store.resume_deletions().await.map(|_| ()) })),
        ),
        (
            "sweep",
            kept.clone(),
            Box::new(|store| {
                let late = now() + chrono::TimeDelta::days(4_000);
                Box::pin(async move { store.purge(late).await.map(|_| ()) })
            }),
        ),
        (
            "verify",
            kept.clone(),
            Box::new(|store| {
                Box::pin(async move {
                    store.verify("planner_tasks_by_slug")?.run(|_| ()).await.map(|_| ())
                })
            }),
        ),
        (
            "a file is uploaded",
            kept.clone(),
            Box::new(move |store| {
                Box::pin(async move {
                    let home = &FileRoot::Workspace("/workspace/q".into());
                    let mut upload = BlobUpload::begin(&store, of, &Clock::system()).await?;
                    upload.write(&vec![7; 300_000]).await?;
                    let (blob, policy) = (upload.finish().await?, &policy);
                    let put = |tx| async move {
                        File::put(&tx, of, (home, "a"), blob, policy, now()).await
                    };
                    store.run(put).await.map(|_| ())
                })
            }),
        ),
    ];
    for (name, before, job) in jobs {
        bench.before = before;
        bench.restore().await;
        job(bench.store.clone()).await.unwrap();
        let steps = bench.faults.steps();
        let after = bench.state().await.len();
        for (step, fault) in (0..steps).flat_map(|step| Fault::ALL.map(|fault| (step, fault))) {
            let about = format!("{name}, {fault:?} at step {step} of {steps}");
            bench.restore().await;
            bench.faults.plan(step, fault);
            let outcome = job(bench.store.clone()).await;
            if !bench.faults.has_occurred() {
                continue;
            }
            if fault == Fault::Late {
                tokio::time::sleep(LATE).await;
            }
            if let Err(error) = outcome {
                let kinds = [ErrorKind::MaybeCommitted, ErrorKind::Unavailable];
                assert!(kinds.contains(&error.kind()), "{about}: {error}");
                assert!(fault.is_unknown_outcome() || fault == Fault::Silent, "{about}: {error}");
                bench.faults.clear();
                is_sound(&bench.store).await;
                job(bench.store.clone()).await.unwrap_or_else(|error| panic!("{about}: {error}"));
            }
            // A dropped upload is collected later; nothing else remains.
            let found = bench.state().await.len();
            let is_upload = name.contains("upload");
            assert!(found == after || is_upload && found > after, "{about}: {found}, not {after}");
        }
        bench.faults.clear();
        is_sound(&bench.store).await;
    }
}

async fn exported(store: &Store) -> Result<(Vec<u8>, Summary)> {
    let mut bytes = Vec::new();
    let summary = store.export().run(&mut bytes, |_| ()).await?;
    Ok((bytes, summary))
}

#[tokio::test]
async fn import_resumes_after_any_fault() {
    let source = Bench::new().await;
    let (archive, _) = exported(&source.store).await.unwrap();
    let faults = Faults::default();
    let options = || {
        Store::options()
            .schema(coditect_store::model::schema())
            .root(Root::new(&"s".to_owned()))
            .entity::<Task>()
    };
    let import = async |database: Database| {
        options().import(database)?.run(archive.as_slice(), |_| ()).await.map(|_| ())
    };
    let sound = Database::temporary().unwrap();
    let failing = sound.with_faults(faults.clone());
    import(failing.clone()).await.unwrap();
    for (step, fault) in (0..faults.steps()).flat_map(|at| Fault::ALL.map(|fault| (at, fault))) {
        let tx = sound.begin();
        tx.clear_range(b"", b"\xff");
        tx.commit().await.unwrap();
        faults.plan(step, fault);
        if let Err(error) = import(failing.clone()).await {
            assert!(fault.is_unknown_outcome() || fault == Fault::Silent, "{fault:?}: {error}");
            tokio::time::sleep(LATE).await;
            faults.clear();
            match import(failing.clone()).await {
                Ok(()) => {}
                // The unknown step was its last one, and has committed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{fault:?}: {error}"),
            }
        }
        faults.clear();
        let store = options().open(sound.clone()).await.unwrap();
        is_sound(&store).await;
        assert_eq!(exported(&store).await.unwrap().0.len(), archive.len());
    }
}
