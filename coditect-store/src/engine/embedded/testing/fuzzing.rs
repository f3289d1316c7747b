//! Fuzz target: the engine on files with changed bytes.

#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, LazyLock},
};

use tokio::runtime::{Builder, Runtime};

use super::super::{
    Embedded, Options,
    btree_file::BTreeFile,
    vfs::{self, Memory, Vfs},
    wal::{self, FrameBuilder, Log, Mutation},
};
use crate::{
    Error, ErrorKind, Result,
    engine::{Database, Engine, RangeQuery},
    fuzzing::Input,
};

pub(crate) use super::super::wal::log_segment;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Files = BTreeMap<String, Vec<u8>>;

const COMMITS: u32 = 12;
const CACHE_BYTES: usize = 1 << 20;
const BTREE: &str = "store.redb";

/// The files of an intact store.
struct Base {
    files: Files,
    /// Number of commits in the B-tree; the WAL has all.
    in_btree: u32,
}

/// A store with all commits in the B-tree, and one with half of them in the WAL only.
static BASES: LazyLock<[Base; 2]> = LazyLock::new(|| [base(COMMITS), base(COMMITS / 2)]);

/// Checks that reads of damaged files return the written data or an error, and that `check` reports
/// missing data.
///
/// The first byte selects the store; each five bytes after it are a file, an offset, and a
/// difference to the byte there.
pub(crate) fn database_file(bytes: &[u8]) {
    #[cfg(not(test))]
    silence_redb_panics();
    let mut input = Input(bytes);
    let base = &BASES[usize::from(input.byte() % 2)];
    let mut files = base.files.clone();
    let mut damaged = Vec::new();
    while !input.is_empty() {
        let [file, a, b, c, other] = input.array();
        let at = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        // The reserve has blocks but no bytes.
        let mut files: Vec<_> = files.iter_mut().filter(|(_, bytes)| !bytes.is_empty()).collect();
        let file = usize::from(file) % files.len();
        let (name, bytes) = &mut files[file];
        let at = at % bytes.len();
        bytes[at] ^= other;
        damaged.push(name.clone());
    }
    if files == base.files {
        damaged.clear();
    }
    let read = read(&files);
    if damaged.is_empty() {
        assert!(read.as_ref().is_ok_and(|read| read.rows == after(COMMITS)));
    }
    let is_wal_only = damaged.iter().all(|name| name != BTREE);
    let Ok(read) = read else { return };
    if is_wal_only {
        let commits = (base.in_btree..=COMMITS).find(|commits| after(*commits) == read.rows);
        assert!(commits.is_some() && read.refused == 0, "{:?}", read.rows.keys());
        return;
    }
    for (key, value) in &read.rows {
        let was = (1..=COMMITS).any(|commits| after(commits).get(key) == Some(value));
        assert!(was, "{key:?} has a value that was never written");
    }
    let is_complete = read.refused == 0 && (0..=COMMITS).any(|commits| after(commits) == read.rows);
    assert!(
        is_complete || !is_sound(&files),
        "{} rows are left, and the check found no fault",
        read.rows.len()
    );
}

/// redb may panic on damage, which the engine maps to an error; libFuzzer ends at any panic.
#[cfg(not(test))]
fn silence_redb_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !panic.location().is_some_and(|at| at.file().contains("/redb-")) {
                before(panic);
            }
        }));
    });
}

/// The result of reading a damaged store.
struct Read {
    rows: Rows,
    /// Number of refused reads.
    refused: usize,
}

fn read(files: &Files) -> Result<Read, ErrorKind> {
    let database = match opened(Arc::new(on_disk(files))) {
        Ok(database) => database,
        Err(error) => return Err(refusal(&error)),
    };
    let mut found = Read { rows: Rows::new(), refused: 0 };
    runtime().block_on(async {
        for key in after(COMMITS).into_keys() {
            match database.begin().get(&key).await {
                Ok(value) => found.rows.extend(value.map(|value| (key, value))),
                Err(error) => {
                    assert!(is_refusal(&error), "{error:?}");
                    found.refused += 1;
                }
            }
        }
        let mut stream = database.begin().stream(RangeQuery::new(b"", b"\xff"));
        let mut in_range = Rows::new();
        loop {
            match stream.next_page().await {
                Ok(Some(page)) => in_range.extend(page.into_iter().map(|row| (row.key, row.value))),
                Ok(None) => break,
                Err(error) => {
                    assert!(is_refusal(&error), "{error:?}");
                    found.refused += 1;
                    break;
                }
            }
        }
        found.refused += usize::from(in_range != found.rows);
        found.rows.extend(in_range);
    });
    Ok(found)
}

/// Returns the kind of the error of opening a damaged store.
fn refusal(error: &Error) -> ErrorKind {
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::NewerFormat), "{error:?}");
    kind
}

/// Returns whether a read reports damage, or an engine that was closed by damage during a
/// checkpoint.
fn is_refusal(error: &Error) -> bool {
    let cause =
        || std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Arc<Error>>());
    error.kind() == ErrorKind::Corrupt
        || error.kind() == ErrorKind::Closed
            && cause().is_some_and(|cause| cause.kind() == ErrorKind::Corrupt)
}

/// Returns whether the check finds no fault.
fn is_sound(files: &Files) -> bool {
    Embedded::check_on(&on_disk(files)).is_ok_and(|is_sound| is_sound)
}

/// Returns a store with the given number of commits in its B-tree.
fn base(in_btree: u32) -> Base {
    let disk: Arc<dyn Vfs> = Arc::new(Memory::default());
    let database = opened(Arc::clone(&disk)).unwrap();
    runtime().block_on(async {
        for n in 1..=in_btree {
            let tx = database.begin();
            for (key, value) in written(n) {
                tx.set(&key, &value);
            }
            tx.commit().await.unwrap();
        }
        database.close().await;
    });
    drop(database);
    // Opening checkpoints the WAL.
    drop(opened(Arc::clone(&disk)).unwrap());
    // The rest is appended to the WAL directly, so that no checkpoint runs.
    let mut btree = BTreeFile::open(&*disk, CACHE_BYTES).unwrap();
    let recorded = btree.recorded();
    let applied = recorded.applied;
    let replayed = wal::replay(&*disk, recorded, |_| {}).unwrap();
    let mut log = Log::new(Arc::clone(&disk), recorded.store, replayed, CACHE_BYTES);
    btree.require_log(log.first_segment().unwrap()).unwrap();
    drop(btree);
    for n in in_btree + 1..=COMMITS {
        let rows = written(n);
        let changes = rows.iter().map(|(key, value)| Mutation::Set { key, value }).collect();
        let (pending, _) = log
            .append(FrameBuilder::of(&[changes]), applied.version + u64::from(n), false)
            .unwrap();
        pending.write().unwrap();
    }
    drop(log);
    Base { files: files_of(&*disk).unwrap(), in_btree }
}

/// Returns the n-th commit: its own rows, a few of them long, and one row of all commits.
fn written(n: u32) -> Rows {
    let own = (0..8_u32).map(|row| {
        let length = if row == 7 { 2_000 } else { 40 };
        (
            [n.to_be_bytes(), row.to_be_bytes()].concat(),
            [n + row; 1].map(u32::to_be_bytes).concat().repeat(length / 4),
        )
    });
    own.chain([(b"last".to_vec(), n.to_be_bytes().to_vec())]).collect()
}

fn after(commits: u32) -> Rows {
    (1..=commits).flat_map(written).collect()
}

fn opened(disk: Arc<dyn Vfs>) -> Result<Database> {
    let options = Options { cache_bytes: CACHE_BYTES, ..Options::default() };
    Embedded::start("memory", disk, &options).map(|engine| Database::of(Engine::Embedded(engine)))
}

fn files_of(disk: &dyn Vfs) -> io::Result<Files> {
    let names = disk.names()?;
    let read = |name: String| {
        let mut bytes = Vec::new();
        vfs::read_all(&*disk.open(&name)?, &mut bytes)?;
        Ok((name, bytes))
    };
    names.into_iter().map(read).collect()
}

fn on_disk(files: &Files) -> Memory {
    let disk = Memory::default();
    for (name, bytes) in files {
        disk.create(name).unwrap().write(0, bytes).unwrap();
    }
    disk
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}
