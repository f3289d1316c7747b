//! The engine under controlled schedules: shuttle chooses the next thread at every step, at random
//! or with few preemptions (PCT).
//!
//! Each workload runs under a few hundred schedules; more with
//!
//! ```text
//! CODITECT_SCHEDULES=100000 cargo test -p coditect-store --features schedules --lib schedules
//! ```
//!
//! A failing schedule is printed with the command that repeats it. Time does not pass, see
//! [`sync`](super::super::sync); a read of the B-tree is one step, and so is a checkpoint. Clients
//! commit inline or not, at random.

use std::{
    collections::BTreeMap,
    env, io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
};

use shuttle::{
    Config, Runner,
    future::block_on,
    rand::{Rng as _, thread_rng},
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler},
};

use super::super::{
    super::{AtomicOp, Database, Engine, RangeQuery, Transaction},
    Embedded, Options,
    btree_file::BTreeFile,
    sync::{
        thread::{self, JoinHandle},
        yield_point,
    },
    vfs::{File, Memory, Vfs, read_all},
};
use crate::{Clock, ErrorKind, ManualClock, Result};

/// Default number of schedules of each workload.
const SCHEDULES: usize = 400;
/// Number of preemptions of a PCT schedule.
const PREEMPTIONS: usize = 4;

/// Runs `work` under many schedules; `name` is the test's name.
fn under_schedules(name: &str, work: fn()) {
    let mut config = Config::new();
    // The B-tree needs a larger stack than the default.
    config.stack_size = 1 << 20;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    if let Ok(schedule) = env::var("CODITECT_SCHEDULE") {
        Runner::new(ReplayScheduler::new_from_encoded(&schedule), config).run(work);
        return;
    }
    let schedules = env::var("CODITECT_SCHEDULES").ok().and_then(|number| number.parse().ok());
    let half = schedules.unwrap_or(SCHEDULES) / 2;
    let tried = panic::catch_unwind(AssertUnwindSafe(|| {
        Runner::new(RandomScheduler::new(half), config.clone()).run(work);
        Runner::new(PctScheduler::new(PREEMPTIONS, half), config).run(work);
    }));
    assert!(
        tried.is_ok(),
        "replay the schedule above with CODITECT_SCHEDULE=\"…\" cargo test -p coditect-store \
         --features schedules --lib schedules::{name}"
    );
}

/// An in-memory disk that yields at each step of the WAL, tracks which bytes are synced, and fails
/// on request.
#[derive(Clone, Debug)]
struct TracingDisk(Arc<State>);

#[derive(Debug)]
struct State {
    files: Memory,
    written: Mutex<Written>,
}

/// Bytes written to the WAL.
#[derive(Debug, Default)]
struct Written {
    unsynced: Vec<Vec<u8>>,
    synced: Vec<Vec<u8>>,
    /// Number of commits that are synced before a sync fails.
    syncs_left: Option<usize>,
    /// Commits that reached the B-tree before they were synced in the WAL.
    ahead: Vec<String>,
}

/// Maximum size of a frame in these tests, in bytes; longer writes create a segment.
const MAX_FRAME_BYTES: usize = 4_000;

impl TracingDisk {
    /// Returns a disk with a copy of an empty B-tree file, which is slow to create.
    fn new() -> Self {
        static EMPTY: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
            let files = Memory::default();
            drop(BTreeFile::open(&files, 1 << 20).unwrap());
            let read = |name: String| {
                let mut bytes = Vec::new();
                read_all(&*files.open(&name).unwrap(), &mut bytes).unwrap();
                (name, bytes)
            };
            files.names().unwrap().into_iter().map(read).collect()
        });
        let files = Memory::default();
        for (name, bytes) in &*EMPTY {
            files.create(name).unwrap().write(0, bytes).unwrap();
        }
        Self(Arc::new(State { files, written: Mutex::default() }))
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.0.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a commit with these bytes is durable.
    fn has(&self, bytes: &[u8]) -> bool {
        self.written().has(bytes)
    }

    fn file(&self, name: &str, file: Arc<dyn File>) -> Arc<dyn File> {
        if name.starts_with("log-") {
            Arc::new(LogFile(self.clone(), file))
        } else {
            Arc::new(TreeFile(self.clone(), file))
        }
    }
}

impl Written {
    fn has(&self, bytes: &[u8]) -> bool {
        self.synced.iter().any(|frame| frame.windows(bytes.len()).any(|part| part == bytes))
    }
}

impl Vfs for TracingDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        self.0.files.names()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(name, self.0.files.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(name, self.0.files.create(name)?))
    }

    fn publish(&self, draft: &str, name: &str) -> io::Result<()> {
        self.0.files.publish(draft, name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.files.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
struct LogFile(TracingDisk, Arc<dyn File>);

impl File for LogFile {
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.read(offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        yield_point();
        if bytes.len() < MAX_FRAME_BYTES {
            self.0.written().unsynced.push(bytes.to_vec());
        }
        self.1.write(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.1.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        let begun = std::mem::take(&mut self.0.written().unsynced);
        yield_point();
        let mut written = self.0.written();
        if !begun.is_empty()
            && let Some(left) = &mut written.syncs_left
        {
            let Some(fewer) = left.checked_sub(1) else {
                return Err(io::Error::other("the disk is gone"));
            };
            *left = fewer;
        }
        written.synced.extend(begun);
        drop(written);
        yield_point();
        Ok(())
    }
}

/// Records counts and values that are written before they are synced in the WAL.
#[derive(Debug)]
struct TreeFile(TracingDisk, Arc<dyn File>);

impl File for TreeFile {
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.1.read(offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = self.0.written();
        for start in [b"count ".as_slice(), b"value "] {
            for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(start)) {
                let value = bytes[at..].split_inclusive(|byte| *byte == b';').next().unwrap();
                if !written.has(value) {
                    written.ahead.push(String::from_utf8_lossy(value).into_owned());
                }
            }
        }
        drop(written);
        self.1.write(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.1.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.sync()
    }
}

/// Returns the engine on `disk`, with consecutive versions.
fn open(disk: &TracingDisk, memtable_bytes: usize) -> Database {
    let clock = ManualClock::new(chrono::DateTime::UNIX_EPOCH);
    let options = Options { memtable_bytes, clock: Clock::from(&clock), ..Options::default() };
    let engine = Embedded::start("memory", Arc::new(disk.clone()), &options).unwrap();
    Database::of(Engine::Embedded(engine))
}

fn set(database: &Database, key: &[u8], value: &[u8]) -> Result<u64> {
    let tx = database.begin();
    tx.set(key, value);
    block_on(tx.commit())?;
    Ok(tx.committed_version().unwrap())
}

fn number(value: Option<Vec<u8>>) -> u64 {
    let Some(value) = value else { return 0 };
    String::from_utf8(value).unwrap().trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// Observations that the clients of a counter share.
#[derive(Debug, Default)]
struct Counted {
    /// Sum of the acknowledged additions.
    acknowledged: u64,
    /// The value at each version.
    versions: BTreeMap<u64, u64>,
    /// The values read, by version.
    read: Vec<(u64, u64)>,
}

/// Reads the counter in a new transaction. Returns the transaction, its version, and the value.
fn read(
    database: &Database,
    disk: &TracingDisk,
    counted: &Mutex<Counted>,
) -> (Transaction, u64, u64) {
    let acknowledged = counted.lock().unwrap().acknowledged;
    let tx = database.begin();
    let found = number(block_on(tx.get(b"counter")).unwrap());
    let version = block_on(tx.read_version()).unwrap();
    assert!(found >= acknowledged, "{found} was read after {acknowledged} was acknowledged");
    let is_durable = found == 0 || disk.has(format!("count {found};").as_bytes());
    assert!(is_durable, "{found} was visible before it was durable");
    counted.lock().unwrap().read.push((version, found));
    (tx, version, found)
}

fn add(database: &Database, disk: &TracingDisk, counted: &Mutex<Counted>) -> u64 {
    loop {
        let (tx, _, found) = read(database, disk, counted);
        let next = found + 1;
        tx.set(b"counter", format!("count {next};").as_bytes());
        match block_on(tx.commit()) {
            Ok(()) => {
                let version = tx.committed_version().unwrap();
                let mut counted = counted.lock().unwrap();
                counted.acknowledged = counted.acknowledged.max(next);
                assert_eq!(counted.versions.insert(version, next), None);
                return version;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
        }
    }
}

#[test]
fn additions_are_not_lost_and_visible_ones_are_durable() {
    under_schedules("additions_are_not_lost_and_visible_ones_are_durable", || {
        let disk = TracingDisk::new();
        let database = open(&disk, 1 << 20);
        let counted = Arc::new(Mutex::new(Counted::default()));
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (database, disk, counted) =
                    (database.clone(), disk.clone(), Arc::clone(&counted));
                thread::spawn(move || {
                    let mut last = 0;
                    for _ in 0..2 {
                        let version = if client < 2 {
                            add(&database, &disk, &counted)
                        } else {
                            read(&database, &disk, &counted).1
                        };
                        assert!(version >= last, "versions go backwards");
                        last = version;
                        let (_, version, _) = read(&database, &disk, &counted);
                        assert!(version >= last, "versions go backwards");
                        last = version;
                    }
                })
            })
            .collect();
        join(clients);
        let (.., found) = read(&database, &disk, &counted);
        assert_eq!(found, 4);
        block_on(database.close());
        assert!(disk.written().ahead.is_empty(), "the B-tree was ahead of the WAL");
        let Counted { versions, read, .. } = &*counted.lock().unwrap();
        for &(version, found) in read {
            let before = versions.range(..=version).next_back();
            assert_eq!(before.map_or(0, |(_, before)| *before), found, "at {version}");
        }
    });
}

fn join<T>(clients: Vec<JoinHandle<T>>) -> Vec<T> {
    clients.into_iter().map(|client| client.join().unwrap()).collect()
}

#[test]
fn inline_commits_keep_the_commit_order() {
    under_schedules("inline_commits_keep_the_commit_order", || {
        let disk = TracingDisk::new();
        let database = open(&disk, 1 << 20);
        let clients = (0..4_u8).map(|client| {
            let database = database.clone();
            thread::spawn(move || {
                let mut last = None;
                for _ in 0..2 {
                    let tx = database.begin();
                    tx.atomic(AtomicOp::Add, b"sum", &[1]);
                    tx.set(&[client], b"");
                    block_on(tx.commit()).unwrap();
                    let stamp = tx.versionstamp();
                    assert!(stamp > last, "the later of two commits has the earlier stamp");
                    last = stamp;
                    let now = block_on(database.begin().read_version()).unwrap();
                    assert!(
                        Some(now) >= tx.committed_version(),
                        "the latest version precedes an acknowledged one"
                    );
                    if client == 0 {
                        let next = tx.committed_version().unwrap() + 100;
                        block_on(database.advance_version(next)).unwrap();
                        let tx = database.begin();
                        tx.set(b"after", b"");
                        block_on(tx.commit()).unwrap();
                        assert!(tx.committed_version().unwrap() > next);
                        last = tx.versionstamp();
                    }
                }
            })
        });
        join(clients.collect());
        assert_eq!(block_on(database.begin().get(b"sum")).unwrap(), Some(vec![8]));
        block_on(database.close());
    });
}

/// Returns the rows of a transaction, read twice with the same result.
fn rows_twice(tx: &Transaction) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = || {
        let page =
            block_on(tx.get_range(&RangeQuery::new(b"a".as_slice(), b"z".as_slice()))).unwrap();
        let rows = page.rows.into_iter().map(|row| (row.key, row.value));
        rows.collect::<Vec<_>>()
    };
    let first = rows();
    for (key, value) in &first {
        assert_eq!(block_on(tx.get(key)).unwrap().as_ref(), Some(value));
    }
    assert_eq!(rows(), first, "the snapshot changed");
    first
}

#[test]
fn snapshot_is_stable_during_a_checkpoint() {
    under_schedules("snapshot_is_stable_during_a_checkpoint", || {
        let disk = TracingDisk::new();
        // So small that each commit starts a checkpoint if none is running, and some have to wait.
        let database = open(&disk, 700);
        let writer = {
            let database = database.clone();
            thread::spawn(move || {
                for round in 0..4_u8 {
                    let tx = database.begin();
                    tx.clear_range(b"a", b"z");
                    for key in [b"k", b"l", &[b'm' + round]] {
                        tx.set(key, &[round; 50]);
                    }
                    block_on(tx.commit()).unwrap();
                }
            })
        };
        let readers = (0..2).map(|_| {
            let database = database.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    let rows = rows_twice(&database.begin());
                    let is_one_commit = rows.iter().all(|(_, value)| *value == rows[0].1);
                    assert!(is_one_commit && [0, 3].contains(&rows.len()), "{rows:?}");
                }
            })
        });
        join(readers.chain([writer]).collect());
        let tx = database.begin();
        let last = rows_twice(&tx);
        assert_eq!(last.last(), Some(&(b"p".to_vec(), vec![3; 50])));
        drop(tx);
        block_on(database.close());
        drop(database);
        assert_eq!(rows_twice(&open(&disk, 700).begin()), last);
    });
}

/// The outcome of each write, by key.
type Outcomes = Vec<(u8, Option<ErrorKind>)>;

/// Starts clients that write two keys each, and report the outcomes.
fn writers(database: &Database, disk: &TracingDisk) -> Vec<JoinHandle<Outcomes>> {
    let client = |client: u8| {
        let (database, disk) = (database.clone(), disk.clone());
        thread::spawn(move || {
            let mut outcomes = Vec::new();
            for key in [client, client + 10] {
                let outcome = set(&database, &[key], format!("value {key};").as_bytes());
                if outcome.is_ok() {
                    assert!(disk.has(format!("value {key};").as_bytes()), "{key} is not durable");
                }
                outcomes.push((key, outcome.err().map(|error| error.kind())));
            }
            outcomes
        })
    };
    (100..103).map(client).collect()
}

/// Checks that the content of `disk` agrees with the outcomes.
fn compare(disk: &TracingDisk, outcomes: &Outcomes) {
    assert!(disk.written().ahead.is_empty(), "{:?}", disk.written().ahead);
    let database = open(disk, 1 << 20);
    for (key, failure) in outcomes {
        let is_stored = block_on(database.begin().get(&[*key])).unwrap().is_some();
        match failure {
            None => assert!(is_stored, "{key} was acknowledged"),
            Some(ErrorKind::MaybeCommitted) => {}
            Some(ErrorKind::Closed) => assert!(!is_stored, "{key} was refused"),
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn close_answers_every_commit() {
    under_schedules("close_answers_every_commit", || {
        let disk = TracingDisk::new();
        let database = open(&disk, 1 << 20);
        let clients = writers(&database, &disk);
        block_on(database.close());
        let outcomes = join(clients).concat();
        assert!(outcomes.iter().all(|(_, failure)| *failure != Some(ErrorKind::MaybeCommitted)));
        drop(database);
        compare(&disk, &outcomes);
    });
}

#[test]
fn watch_fires_unless_it_read_the_new_value() {
    under_schedules("watch_fires_unless_it_read_the_new_value", || {
        let disk = TracingDisk::new();
        let database = open(&disk, 1 << 20);
        let watchers = (0..2_u8).map(|watcher| {
            let database = database.clone();
            thread::spawn(move || {
                let tx = database.begin();
                let seen = block_on(tx.get(b"watched")).unwrap();
                let watch = block_on(tx.watch(b"watched")).unwrap();
                if watcher == 0 {
                    tx.set(b"other", b"");
                }
                match block_on(tx.commit()) {
                    // A watch is a read, and conflicts.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
                    Ok(()) if seen.is_none() => {
                        block_on(watch).unwrap();
                        assert!(block_on(database.begin().get(b"watched")).unwrap().is_some());
                    }
                    Ok(()) => {}
                }
            })
        });
        let watchers = watchers.collect();
        set(&database, b"watched", b"new").unwrap();
        join(watchers);
        block_on(database.close());
    });
}

#[test]
fn failed_sync_answers_every_commit_and_publishes_nothing() {
    under_schedules("failed_sync_answers_every_commit_and_publishes_nothing", || {
        let disk = TracingDisk::new();
        disk.written().syncs_left = Some(thread_rng().gen_range(0..4));
        let database = open(&disk, 1 << 20);
        let clients = writers(&database, &disk);
        let reader = {
            let (database, disk) = (database.clone(), disk.clone());
            thread::spawn(move || {
                for _ in 0..3 {
                    match block_on(database.begin().get(&[100])) {
                        Ok(Some(value)) => {
                            assert!(
                                disk.has(&value),
                                "the value was visible before it was durable"
                            );
                        }
                        Ok(None) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
                    }
                }
            })
        };
        let outcomes = join(clients).concat();
        reader.join().unwrap();
        let unknown = |(_, failure): &(u8, _)| *failure == Some(ErrorKind::MaybeCommitted);
        if outcomes.iter().any(unknown) {
            let closed = block_on(database.begin().get(b"a")).unwrap_err();
            assert_eq!(closed.kind(), ErrorKind::Closed);
        }
        block_on(database.close());
        drop(database);
        disk.written().syncs_left = None;
        compare(&disk, &outcomes);
    });
}
