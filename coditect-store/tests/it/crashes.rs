//! Kills the process during long work: the remaining data is consistent, and the same work, run
//! again, completes.
//!
//! The killed process is this program, run again for its test [`child`]. To run more rounds:
//! more of them:
//!
//! ```text
//! CODITECT_CRASH_ROUNDS=100 cargo test -p coditect-store --test it crashes
//! ```

use std::{
    cell::Cell,
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use chrono::TimeDelta;
use coditect_store::{
    BlobReader, BlobUpload, Clock, Store, Transaction,
    engine::Database,
    model::{
        EditorState, File, FilePolicy, FileRoot, Session, SessionMemory, SessionState, Tenant,
    },
};

use crate::{
    builds,
    deletions::{is_sound, rows},
    planner::tenant,
    samples,
};

/// Number of kills per kind of work, by default.
const ROUNDS: u64 = 6;

/// Returns the content of a file at `version`: longer than one transaction writes.
fn content(version: u64) -> Vec<u8> {
    let [version, ..] = version.to_le_bytes();
    let byte = |at: u32| {
        let [low, high, ..] = at.to_le_bytes();
        low ^ high ^ version
    };
    (0..2_500_000).map(byte).collect()
}

fn home() -> FileRoot {
    FileRoot::Workspace("/workspace/p".to_owned())
}

async fn put(store: &Store, content: &[u8]) -> File {
    let (tenant, clock) = (samples::tenant().id, Clock::system());
    let mut upload = BlobUpload::begin(store, tenant, &clock).await.unwrap();
    upload.write(content).await.unwrap();
    let blob = upload.finish().await.unwrap();
    let (home, policy, now) = (&home(), &FilePolicy::default(), clock.now());
    let put = |tx| async move { File::put(&tx, tenant, (home, "a"), blob, policy, now).await };
    store.run(put).await.unwrap()
}

/// Work that can be begun and resumed any number of times.
#[derive(Clone, Copy, Debug)]
enum Work {
    Upload,
    Delete,
    Build,
}

impl Work {
    const ALL: [Self; 3] = [Self::Upload, Self::Delete, Self::Build];

    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|work| format!("{work:?}") == name).unwrap()
    }

    /// Prints acknowledged work to stdout.
    #[expect(clippy::print_stdout, reason = "the one that kills it reads it there")]
    async fn run(self, database: Database) {
        match self {
            Self::Upload => {
                let store = Store::open(database).await.unwrap();
                let file = File::at(&store.begin(), samples::tenant().id, &home(), "a").await;
                let mut version = file.unwrap().map_or(0, |file| file.version);
                loop {
                    version += 1;
                    assert_eq!(put(&store, &content(version)).await.version, version);
                    println!("acknowledged {version}");
                }
            }
            Self::Delete => {
                let store = Store::open(database).await.unwrap();
                let (tenant, session) = (samples::tenant().id, samples::session().id);
                let now = Clock::system().now();
                let delete =
                    |tx: Transaction| async move { tx.delete_session(tenant, session, now).await };
                store.run(delete).await.unwrap();
                println!("acknowledged 1");
                store.resume_deletions().await.unwrap();
            }
            Self::Build => {
                let store = builds::newer(&database).await;
                for index in store.pending_indexes().await.unwrap() {
                    let build = store.build(index).unwrap().rows(3);
                    while !build.step().await.unwrap().done {
                        println!("acknowledged 0");
                    }
                }
            }
        }
        // It is complete, and waits for the kill all the same.
        std::future::pending::<()>().await;
    }
}

/// Run by [`broken_off`], in a process of its own.
#[tokio::test]
#[ignore = "it is a part of the other tests here, and never ends"]
async fn child() {
    let Ok(folder) = env::var("CODITECT_CRASH_FOLDER") else { return };
    let work = Work::named(&env::var("CODITECT_CRASH_WORK").unwrap());
    work.run(Database::open(folder).unwrap()).await;
}

/// Runs `work` on `folder` in another process, kills it after `time`, and returns the last
/// acknowledged number.
fn broken_off(folder: &Path, work: Work, time: Duration) -> Option<u64> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crashes::child", "--ignored", "--nocapture"])
        .env("CODITECT_CRASH_FOLDER", folder)
        .env("CODITECT_CRASH_WORK", format!("{work:?}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
    let lines = BufReader::new(stdout).lines();
    let told = lines.map_while(Result::ok).filter_map(|line| {
        let (_, number) = line.split_once("acknowledged ")?;
        number.trim().parse().ok()
    });
    told.last()
}

/// A store in `folder` with a tenant and a user.
async fn prepared(folder: &Path) -> Store {
    let store = Store::open(Database::open(folder).unwrap()).await.unwrap();
    let (tenant, user) = (&samples::tenant(), &samples::user());
    let prepare = |tx: Transaction| async move {
        tx.insert(tenant).await?;
        tx.insert(user).await
    };
    store.run(prepare).await.unwrap();
    store
}

/// Runs the rounds of a test, and more until `broken_off` reports a kill in the middle, which on a
/// busy machine may take some.
fn rounds(broken_off: &Cell<u64>) -> impl Iterator<Item = u64> {
    let asked: u64 =
        env::var("CODITECT_CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    (0..).take_while(move |&round| {
        assert!(round < asked + 100, "none was killed in the middle");
        round < asked || broken_off.get() == 0
    })
}

/// Returns a time from a few milliseconds to a second.
fn time(round: u64) -> Duration {
    Duration::from_millis(5 + round * 37 % 1_000)
}

#[tokio::test]
async fn killed_upload_leaves_the_file_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let tenant = samples::tenant().id;
    prepared(folder.path()).await.database().close().await;
    let (mut known, killed) = (0, Cell::new(0));
    for round in rounds(&killed) {
        let told = broken_off(folder.path(), Work::Upload, time(round));
        known = known.max(told.unwrap_or(0));
        let store = Store::open(Database::open(folder.path()).unwrap()).await.unwrap();
        is_sound(&store).await;
        let tx = store.begin();
        let file = File::at(&tx, tenant, &home(), "a").await.unwrap();
        let version = file.as_ref().map_or(0, |file| file.version);
        assert!(version == known || version == known + 1, "{version} of {known}");
        known = version;
        if let Some(file) = file {
            for kept in file.contents(&tx).await.unwrap() {
                let mut reader = BlobReader::new(&store, tenant, kept.blob);
                let mut read = Vec::new();
                while let Some(piece) = reader.next().await.unwrap() {
                    read.extend(piece);
                }
                assert!(read == content(kept.version), "version {}", kept.version);
            }
        }
        let later = Clock::system().now() + TimeDelta::hours(2);
        killed.set(killed.get() + store.collect_blobs(later).await.unwrap());
        let chunks = rows(&store)
            .await
            .into_iter()
            .filter(|row| row.key.windows(11).any(|window| window == b"blob_chunks"));
        assert_eq!(chunks.count() as u64, version.min(10) * 250);
        store.database().close().await;
    }
}

#[tokio::test]
async fn killed_deletion_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (tenant, session) =
        (samples::tenant().id, &Session { conversation_id: None, ..samples::session() });
    prepared(folder.path()).await.database().close().await;
    let begun = Cell::new(0);
    for round in rounds(&begun) {
        let store = Store::open(Database::open(folder.path()).unwrap()).await.unwrap();
        let before = rows(&store).await;
        let furnish = |tx: Transaction| async move {
            session.insert(&tx, 100).await?;
            let now = Clock::system().now();
            SessionState::save(&tx, tenant, session.id, EditorState::default(), now).await?;
            for n in 0..2_000 {
                let key = n.to_string();
                tx.insert(&SessionMemory { key, ..samples::session_memory() }).await?;
            }
            Ok::<_, coditect_store::Error>(())
        };
        store.run(furnish).await.unwrap();
        let furnished = rows(&store).await;
        store.database().close().await;
        drop(store);

        let told = broken_off(folder.path(), Work::Delete, time(round) / 4);
        let store = Store::open(Database::open(folder.path()).unwrap()).await.unwrap();
        is_sound(&store).await;
        if store.begin().get::<Session>(tenant, session.id).await.unwrap().is_some() {
            assert_eq!(told, None, "it was acknowledged");
            assert!(rows(&store).await == furnished, "all or nothing");
            let now = Clock::system().now();
            let delete =
                |tx: Transaction| async move { tx.delete_session(tenant, session.id, now).await };
            store.run(delete).await.unwrap();
        } else {
            begun.set(begun.get() + 1);
        }
        store.resume_deletions().await.unwrap();
        let mut left = rows(&store).await;
        left.retain(|row| !row.key.windows(8).any(|window| window == b"counters"));
        let mut before = before;
        before.retain(|row| !row.key.windows(8).any(|window| window == b"counters"));
        assert!(left == before);
        store.database().close().await;
    }
}

#[tokio::test]
async fn killed_build_is_resumed() {
    let unfinished = Cell::new(0);
    for round in rounds(&unfinished) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        let store = builds::older(&database).await;
        let create = |tx: Transaction| async move {
            for of in 1..=3 {
                tx.insert(&Tenant { id: tenant(of), ..samples::tenant() }).await?;
            }
            for number in 0..900 {
                tx.insert(&builds::old::note(1 + u128::from(number % 3), number)).await?;
            }
            Ok::<_, coditect_store::Error>(())
        };
        store.run(create).await.unwrap();
        database.close().await;
        drop((store, database));

        broken_off(folder.path(), Work::Build, time(round));
        let database = Database::open(folder.path()).unwrap();
        let store = builds::newer(&database).await;
        is_sound(&store).await;
        let left = store.pending_indexes().await.unwrap().len() as u64;
        unfinished.set(unfinished.get() + left);
        builds::build_all(&store).await;
        builds::agrees(&store).await;
        for index in builds::INDEXES {
            let report = store.verify(index).unwrap().run(|_| ()).await.unwrap();
            assert_eq!(report.faults, 0, "{index}");
        }
        assert_eq!(
            store.begin().list::<builds::new::Note>(tenant(1)).all(999).await.unwrap().len(),
            300
        );
        database.close().await;
    }
}
