//! Many writers with little memory, on a disk that another program fills and frees three times: no
//! acknowledged commit is lost, no refused one is stored, and the store needs no restart.
//!
//! The short form writes 48 MiB, to the faulty disk and, where it can be mounted, to ext4. The long
//! form writes 10 GiB with 64 MiB of cache and memtables, needs 8.2 GiB of disk, and prints its
//! duration and peak memory:
//!
//! ```text
//! CODITECT_ENDURANCE_MIB=10240 cargo test --release -p coditect-store \
//!     --lib endurance -- --nocapture
//! ```

use std::{
    env, fs,
    io::{ErrorKind as Io, Write as _},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    super::{vfs::Vfs, *},
    faulty::{Fault, Faulty},
    full_disk::Mount,
};
use crate::engine::{Database, Engine};

/// Default amount of writes, in MiB.
const SHORT_MIB: u64 = 48;
/// Number of times that the disk is filled.
const FILLS: u64 = 3;
const WRITERS: u64 = 8;
/// Mean length of a value, in bytes.
const VALUE: u64 = 40_000;
/// Time within which the store must recover by itself.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);
/// Memory of the cache, and of the memtables, in the long form, in bytes.
const MEMORY: usize = 32 << 20;
/// The same in the short form, small enough that checkpoints run.
const SHORT_MEMORY: usize = 4 << 20;

fn mib() -> u64 {
    let set = env::var("CODITECT_ENDURANCE_MIB").ok();
    set.map_or(SHORT_MIB, |mib| mib.parse().unwrap())
}

/// A disk that another program fills and frees.
trait Filled: Send + Sync {
    fn open(&self) -> Database;
    fn fill(&self);
    fn free(&self);
}

impl Filled for Faulty {
    fn open(&self) -> Database {
        let disk = Arc::new(self.clone()) as Arc<dyn Vfs>;
        let engine = Embedded::start("embedded", disk, &options()).unwrap();
        Database::of(Engine::Embedded(engine))
    }

    fn fill(&self) {
        self.fail_now(Fault::Full);
    }

    fn free(&self) {
        self.repair();
    }
}

struct Mounted {
    mount: Mount,
    ballast: PathBuf,
}

impl Filled for Mounted {
    fn open(&self) -> Database {
        Database::open_with(self.mount.folder(), &options()).unwrap()
    }

    fn fill(&self) {
        let mut file = fs::File::create(&self.ballast).unwrap();
        for chunk in [vec![1_u8; 8 << 20], vec![1; 4 << 10]] {
            loop {
                match file.write_all(&chunk) {
                    Ok(()) => {}
                    Err(error) if error.kind() == Io::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn free(&self) {
        fs::remove_file(&self.ballast).unwrap();
    }
}

fn options() -> Options {
    let memory = if mib() > SHORT_MIB { MEMORY } else { SHORT_MEMORY };
    Options { memtable_bytes: memory, cache_bytes: memory, ..Options::default() }
}

/// Returns the value of a generation of a key.
fn value(key: u64, generation: u64) -> Vec<u8> {
    let mut state = ((key << 20) | generation).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words = VALUE / 16 + next() % (VALUE / 8);
    (0..words).flat_map(|_| next().to_le_bytes()).collect()
}

struct Run {
    database: Database,
    /// Number of keys per writer.
    keys: u64,
    written: AtomicU64,
    refused: AtomicU64,
    target: u64,
    /// Number of written bytes at which writers pause until the disk is full.
    allowed: AtomicU64,
    /// The last acknowledged generation of each writer's keys.
    acknowledged: Vec<Mutex<Vec<u64>>>,
}

impl Run {
    async fn write(&self, writer: u64) {
        let (mut at, mut state) = (0, writer + 1);
        while self.written.load(Ordering::Relaxed) < self.target {
            if self.written.load(Ordering::Relaxed) >= self.allowed.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            at = if at < self.keys { at } else { state >> 33 };
            let index = at % self.keys;
            let key = writer * self.keys + index;
            let generation = self.of(writer)[usize::try_from(index).unwrap()] + 1;
            let value = value(key, generation);
            let tx = self.database.begin();
            tx.set(&key.to_be_bytes(), &value);
            match tx.commit().await {
                Ok(()) => {
                    self.of(writer)[usize::try_from(index).unwrap()] = generation;
                    self.written.fetch_add(value.len() as u64, Ordering::Relaxed);
                    at += 1;
                    // Commits may complete without yielding.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
                    assert!(error.to_string().starts_with("no space left in "), "{error}");
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    self.expect(key, generation - 1).await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    fn of(&self, writer: u64) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.acknowledged[usize::try_from(writer).unwrap()].lock().unwrap()
    }

    async fn expect(&self, key: u64, generation: u64) {
        let found = self.database.begin().get(&key.to_be_bytes()).await.unwrap();
        let expected = (generation > 0).then(|| value(key, generation));
        assert!(found == expected, "key {key} is not as in generation {generation}");
    }

    /// Waits until `is_done` returns true. Panics after [`RECOVERY_TIMEOUT`].
    async fn wait(&self, what: &str, mut is_done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_done() {
            assert!(started.elapsed() < RECOVERY_TIMEOUT, "{what} takes too long");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn fill_and_free(&self, disk: &dyn Filled) {
        for fill in 1..=FILLS {
            // After the last fill, more is written than the WAL and the memtables hold.
            let from = self.target / 8 * fill;
            self.allowed.store(from, Ordering::Relaxed);
            while self.written.load(Ordering::Relaxed) < from {
                let written = self.written.load(Ordering::Relaxed);
                let continues = || self.written.load(Ordering::Relaxed) > written;
                self.wait("writing", continues).await;
            }
            let refused = self.refused.load(Ordering::Relaxed);
            disk.fill();
            self.allowed.store(self.target, Ordering::Relaxed);
            let is_over = || self.written.load(Ordering::Relaxed) >= self.target;
            let is_full = || self.refused.load(Ordering::Relaxed) > refused || is_over();
            self.wait("filling the disk", is_full).await;
            // The other writers fail too, and reads succeed.
            tokio::time::sleep(Duration::from_millis(500)).await;
            for writer in 0..WRITERS {
                self.database.begin().get(&(writer * self.keys).to_be_bytes()).await.unwrap();
            }
            disk.free();
            let written = self.written.load(Ordering::Relaxed);
            let resumes = || self.written.load(Ordering::Relaxed) > written + VALUE * WRITERS;
            self.wait("recovering", || resumes() || is_over()).await;
        }
    }

    async fn check(&self, database: &Database) {
        let mut rows = 0;
        for writer in 0..WRITERS {
            let acknowledged = self.of(writer).clone();
            for (index, generation) in (0..).zip(acknowledged) {
                let key = writer * self.keys + index;
                let found = database.begin().get(&key.to_be_bytes()).await.unwrap();
                let expected = (generation > 0).then(|| value(key, generation));
                assert!(found == expected, "key {key} is not as in generation {generation}");
                rows += u64::from(generation > 0);
            }
        }
        assert!(rows > WRITERS, "{rows} rows");
    }
}

async fn endure(disk: &dyn Filled, mib: u64) {
    let started = Instant::now();
    let target = mib << 20;
    // All keys are new until two fifths are written, after the last fill: overwrites would find
    // free pages in the file, and not be refused.
    let keys = (target / 5 * 2 / VALUE / WRITERS).max(4);
    let run = Run {
        database: disk.open(),
        keys,
        written: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        target,
        allowed: AtomicU64::new(0),
        acknowledged: (0..WRITERS)
            .map(|_| Mutex::new(vec![0; usize::try_from(keys).unwrap()]))
            .collect(),
    };
    let writers = futures_util::future::join_all((0..WRITERS).map(|writer| run.write(writer)));
    tokio::join!(writers, run.fill_and_free(disk));
    let written = started.elapsed();
    assert!(run.refused.load(Ordering::Relaxed) > 0, "the disk was never full");
    run.check(&run.database).await;
    run.database.close().await;
    let reopening = Instant::now();
    let database = disk.open();
    let opened = reopening.elapsed();
    run.check(&database).await;
    println!(
        "{mib} MiB in {written:.1?}, {} commits refused on the full disk; opened in {opened:.1?}; \
         peak memory of the process {} MiB",
        run.refused.load(Ordering::Relaxed),
        peak_memory() >> 10,
    );
}

/// Returns the peak resident memory of this process, in KiB.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn endurance_on_a_faulty_disk() {
    endure(&Faulty::new(None), mib().min(SHORT_MIB)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn endurance_on_ext4() {
    let mib = mib();
    // Space for the rows, the pages that a checkpoint replaces, and the WAL.
    let Some((mount, _image)) = Mount::ext4(mib * 4 / 5 + 128) else { return };
    let ballast = mount.path().join("ballast");
    endure(&Mounted { mount, ballast }, mib).await;
}
