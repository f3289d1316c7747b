//! Full disks: reads, watches and deletions continue, other commits are refused, and the store
//! recovers by itself once there is space.
//!
//! The faulty disk becomes full at a sample of the operations, or at all of them with
//! `CODITECT_OUTAGE_STEP=1`. Tests on tmpfs and ext4 are skipped where these cannot be mounted.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    super::{vfs::File, *},
    faulty::{Fault, Faulty, Unsynced},
    outages::{database, step},
};
use crate::engine::{Database, Engine, RangeQuery};

/// Time within which the store must recover by itself.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(20);

async fn set(database: &Database, key: &[u8], value: &[u8]) -> Result<()> {
    let tx = database.begin();
    tx.set(key, value);
    tx.commit().await
}

fn assert_no_space(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().starts_with("no space left in "), "{error}");
}

const COMMITS: u32 = 60;

/// Makes the n-th commit. Each commit needs new blocks.
async fn commit(database: &Database, n: u32) -> Result<()> {
    let tx = database.begin();
    tx.set(b"last", &n.to_be_bytes());
    tx.set(&[b"k", &n.to_be_bytes()[..]].concat(), &n.to_le_bytes().repeat(20_000));
    tx.commit().await
}

/// Returns the number of visible commits, after checking that each is complete.
async fn seen(database: &Database) -> u32 {
    let query = RangeQuery::new(b"", b"\xff");
    let rows = database.begin().get_range(&query).await.unwrap().rows;
    let last = rows.last().filter(|row| row.key == b"last");
    let last = last.map_or(0, |row| u32::from_be_bytes(row.value[..].try_into().unwrap()));
    let expected = (1..=last).map(|n| (n.to_be_bytes(), n.to_le_bytes().repeat(20_000)));
    for (row, (key, value)) in rows.iter().zip(expected) {
        assert!(row.key[1..] == key && row.value == value, "{:?} is not as committed", row.key);
    }
    assert_eq!(rows.len(), usize::try_from(last).unwrap() + usize::from(last > 0));
    last
}

async fn found(disk: Memory) -> u32 {
    seen(&database(Arc::new(disk)).unwrap()).await
}

/// Retries the n-th commit until it succeeds.
async fn commit_in_time(database: &Database, n: u32) {
    let started = Instant::now();
    while let Err(error) = commit(database, n).await {
        assert_no_space(&error);
        assert!(started.elapsed() < RECOVERY_TIMEOUT, "the store does not recover");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Fills the disk at the operation `at` after opening the store, and frees it after each refused
/// commit. Returns whether the disk was ever full.
async fn fill_and_free(at: u64, restarts: bool) -> bool {
    let disk = Faulty::new(None);
    let open = || database(Arc::new(disk.clone())).unwrap();
    let mut database = open();
    disk.fail_after(at, Fault::Full);
    let mut was_full = 0;
    for n in 1..=COMMITS {
        let Err(error) = commit(&database, n).await else { continue };
        assert_no_space(&error);
        was_full += 1;
        assert_eq!(seen(&database).await, n - 1, "at {at}");
        for unsynced in [Unsynced::Kept, Unsynced::Dropped, Unsynced::Mixed] {
            let found = found(disk.after_power_loss(unsynced)).await;
            assert_eq!(found, n - 1, "at {at}, {unsynced:?}");
        }
        if restarts {
            drop(database);
            database = open();
            assert_eq!(seen(&database).await, n - 1, "at {at}, after a restart");
        }
        disk.repair();
        commit_in_time(&database, n).await;
        if was_full < 3 {
            disk.fail_after(at, Fault::Full);
        }
    }
    disk.repair();
    database.close().await;
    drop(database);
    assert_eq!(found(disk.after_power_loss(Unsynced::Dropped)).await, COMMITS);
    was_full > 0
}

async fn fill_at_every_operation(restarts: bool) {
    let mut was_full = 0;
    let step = if step() == 1 { 1 } else { 3 * step() };
    for at in (0..).step_by(usize::try_from(step).unwrap()) {
        if !fill_and_free(at, restarts).await {
            break;
        }
        was_full += 1;
    }
    assert!(was_full > 2, "the disk was full {was_full} times");
}

#[tokio::test]
async fn full_disk_refuses_commits_and_recovers_by_itself() {
    fill_at_every_operation(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk_opens_read_only_after_a_restart() {
    fill_at_every_operation(true).await;
}

#[tokio::test]
async fn reads_and_watches_continue_without_space() {
    let disk = Faulty::new(None);
    let options = Options { memtable_bytes: 1 << 20, ..Options::default() };
    let engine = Embedded::start("memory", Arc::new(disk.clone()), &options).unwrap();
    let database = Database::of(Engine::Embedded(engine));
    set(&database, b"watched", b"1").await.unwrap();
    let tx = database.begin();
    let watch = tx.watch(b"watched").await.unwrap();
    tx.commit().await.unwrap();
    disk.fail_now(Fault::Full);
    let value = vec![7; 50_000];
    let mut stored = 0_u32;
    let error = loop {
        match set(&database, &stored.to_be_bytes(), &value).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the disk is never full");
    };
    assert_no_space(&error);
    for n in 0..stored {
        assert!(database.begin().get(&n.to_be_bytes()).await.unwrap().is_some());
    }
    // A deletion frees more than it needs, and fires the watch.
    let tx = database.begin();
    tx.clear(b"watched");
    (0..stored).for_each(|n| tx.clear(&n.to_be_bytes()));
    tx.set(b"deleted", b"1");
    tx.commit().await.unwrap();
    tokio::time::timeout(RECOVERY_TIMEOUT, watch).await.unwrap().unwrap();
    // Freed pages may or may not suffice for a small commit.
    if let Err(error) = set(&database, b"small", b"").await {
        assert_no_space(&error);
    }
    disk.repair();
    let started = Instant::now();
    while set(&database, b"after", b"1").await.is_err() {
        assert!(started.elapsed() < RECOVERY_TIMEOUT);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(database);
    let engine = Embedded::start("memory", Arc::new(disk), &options).unwrap();
    let database = Database::of(Engine::Embedded(engine));
    let rows = database.begin().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap().rows;
    let keys: Vec<_> =
        rows.iter().map(|row| row.key.as_slice()).filter(|k| *k != b"small").collect();
    assert_eq!(keys, [b"after".as_slice(), b"deleted"]);
}

/// An in-memory disk on which only the B-tree file finds no space.
#[derive(Clone, Debug, Default)]
struct FullForTree(Arc<Memory>, Arc<AtomicBool>);

impl Vfs for FullForTree {
    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.0.open(name)?;
        let is_tree = name == "store.redb";
        Ok(if is_tree { Arc::new(FullFile(file, Arc::clone(&self.1))) } else { file })
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.0.create(name)
    }

    fn publish(&self, draft: &str, name: &str) -> io::Result<()> {
        self.0.publish(draft, name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

#[derive(Debug)]
struct FullFile(Arc<dyn File>, Arc<AtomicBool>);

impl FullFile {
    fn check(&self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl File for FullFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check()?;
        self.0.write(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check()?;
        self.0.allocate(offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

#[tokio::test]
async fn nothing_is_committed_until_the_btree_file_requires_the_wal() {
    let disk = FullForTree::default();
    let first = database(Arc::new(disk.clone())).unwrap();
    commit(&first, 1).await.unwrap();
    first.close().await;
    drop(first);
    disk.1.store(true, Ordering::SeqCst);
    let again = database(Arc::new(disk.clone())).unwrap();
    assert_eq!(seen(&again).await, 1);
    assert_no_space(&commit(&again, 2).await.unwrap_err());
    // Not even a deletion, which frees more than it needs.
    let tx = again.begin();
    tx.clear_range(b"", b"\xff");
    assert_no_space(&tx.commit().await.unwrap_err());
    assert_no_space(&again.check_open().unwrap_err());
    disk.1.store(false, Ordering::SeqCst);
    commit_in_time(&again, 2).await;
    assert_eq!(seen(&again).await, 2);
    let killed = Memory::default();
    let mut bytes = Vec::new();
    vfs::read_all(&*disk.0.open("store.redb").unwrap(), &mut bytes).unwrap();
    killed.create("store.redb").unwrap().write(0, &bytes).unwrap();
    let error = database(Arc::new(killed)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "the WAL was not required: {error}");
}

/// A mounted file system; unmounted on drop.
pub(super) struct Mount(tempfile::TempDir);

impl Mount {
    fn new(mount: impl FnOnce(&Path) -> Vec<Command>) -> Option<Self> {
        let mounted = Self(tempfile::tempdir().unwrap());
        for mut command in mount(mounted.0.path()) {
            let done = command.output();
            if !done.as_ref().is_ok_and(|done| done.status.success()) {
                eprintln!("skipped: cannot mount a file system: {command:?}: {done:?}");
                return None;
            }
        }
        Some(mounted)
    }

    fn tmpfs(mib: u32) -> Option<Self> {
        Self::new(|at| {
            vec![command("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"], at)]
        })
    }

    pub(super) fn ext4(mib: u64) -> Option<(Self, tempfile::TempDir)> {
        let image = tempfile::tempdir().unwrap();
        let file = image.path().join("image");
        fs::File::create(&file).unwrap().set_len(mib << 20).unwrap();
        let options = ["-q", "-O", "^has_journal", "-m", "0"];
        let mounted = Self::new(|at| {
            vec![command("mkfs.ext4", &options, &file), {
                let mut mount = command("mount", &["-o", "loop"], &file);
                mount.arg(at);
                mount
            }]
        })?;
        Some((mounted, image))
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.0.path().join("data")
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = command("umount", &["-q"], self.0.path()).output();
    }
}

fn command(program: &str, arguments: &[&str], last: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg(last);
    command
}

/// Fills the file system with values and deletes them again, twice; deletions alone free the space.
async fn fill_real(mount: &Mount) {
    let options = Options { memtable_bytes: 16 << 20, cache_bytes: 8 << 20, ..Options::default() };
    let open = || Database::open_with(mount.folder(), &options).unwrap();
    let mut database = open();
    let mut acknowledged = Vec::new();
    for round in 0..2_u8 {
        // Neither compressible nor zero.
        let value: Vec<u8> = (0..90_000_u32).map(|n| n.to_le_bytes()[0] ^ round | 1).collect();
        let error = loop {
            let key = [&[b'v', round][..], &acknowledged.len().to_be_bytes()].concat();
            match set(&database, &key, &value).await {
                Ok(()) => acknowledged.push(key),
                Err(error) => break error,
            }
            assert!(acknowledged.len() < 10_000, "the disk is never full");
        };
        assert_no_space(&error);
        // Later rounds fit less: freed pages are reused only after a checkpoint.
        assert!(round > 0 || acknowledged.len() > 50, "{} fit", acknowledged.len());
        if round == 1 {
            drop(database);
            database = open();
        }
        for key in &acknowledged {
            assert_eq!(database.begin().get(key).await.unwrap().as_deref(), Some(&value[..]));
        }
        // Deletes the values one by one.
        let started = Instant::now();
        while let Some(key) = acknowledged.pop() {
            loop {
                let tx = database.begin();
                tx.clear(&key);
                match tx.commit().await {
                    Ok(()) => break,
                    // After a restart on a full disk the store is read-only until the first retry.
                    Err(error) => assert_no_space(&error),
                }
                assert!(
                    started.elapsed() < RECOVERY_TIMEOUT,
                    "nothing can be deleted in round {round}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let started = Instant::now();
        while let Err(error) = set(&database, &[b'w', round], &value).await {
            assert_no_space(&error);
            assert!(
                started.elapsed() < RECOVERY_TIMEOUT,
                "deletions freed no space in round {round}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    database.close().await;
    drop(database);
    let query = RangeQuery::new(b"v", b"w");
    assert!(open().begin().get_range(&query).await.unwrap().rows.is_empty());
}

#[tokio::test]
async fn full_tmpfs_is_survived() {
    if let Some(mount) = Mount::tmpfs(64) {
        fill_real(&mount).await;
    }
}

#[tokio::test]
async fn full_ext4_is_survived() {
    if let Some((mount, _image)) = Mount::ext4(96) {
        fill_real(&mount).await;
    }
}

#[tokio::test]
async fn store_recovers_when_another_program_frees_space() {
    let Some(mount) = Mount::tmpfs(200) else { return };
    let options = Options { memtable_bytes: 8 << 20, cache_bytes: 8 << 20, ..Options::default() };
    let database = Database::open_with(mount.folder(), &options).unwrap();
    let other = mount.0.path().join("other");
    let mut written = 0_u32;
    for _ in 0..3 {
        let _ = fs::write(&other, vec![1; 250 << 20]);
        let error = loop {
            match set(&database, &written.to_be_bytes(), &vec![7; 50_000]).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_no_space(&error);
        assert!(database.begin().get(&0_u32.to_be_bytes()).await.is_ok());
        fs::remove_file(&other).unwrap();
        let started = Instant::now();
        for _ in 0..100 {
            while set(&database, &written.to_be_bytes(), &vec![7; 50_000]).await.is_err() {
                assert!(started.elapsed() < RECOVERY_TIMEOUT, "the store does not recover");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            written += 1;
        }
    }
    drop(database);
    let database = Database::open_with(mount.folder(), &options).unwrap();
    for n in 0..written {
        assert!(database.begin().get(&n.to_be_bytes()).await.unwrap().is_some(), "{n} is lost");
    }
}
