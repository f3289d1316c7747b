//! Behaviour of the engine as a whole that other engines need not share: failed syncs, panics,
//! batching, queue limits, shutdown.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::future::join_all;

use super::super::{vfs::File, *};
use crate::engine::{AtomicOp, Database, Engine, Isolation, RangeQuery};

/// An in-memory disk on which the sync that finds `syncs_left` at zero fails, and later ones panic.
#[derive(Debug)]
struct Failing {
    files: Memory,
    syncs_left: Arc<AtomicI64>,
    sync_takes: Duration,
}

impl Default for Failing {
    fn default() -> Self {
        let syncs_left = Arc::new(AtomicI64::new(i64::MAX));
        Self { files: Memory::default(), syncs_left, sync_takes: Duration::ZERO }
    }
}

impl Failing {
    /// Returns a disk without failures whose syncs take `sync_takes`.
    fn slow(sync_takes: Duration) -> Arc<Self> {
        Arc::new(Self { sync_takes, ..Self::default() })
    }

    fn file(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(FailingFile(file, Arc::clone(&self.syncs_left), self.sync_takes))
    }

    fn syncs(&self) -> i64 {
        i64::MAX - self.syncs_left.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct FailingFile(Arc<dyn File>, Arc<AtomicI64>, Duration);

fn database(disk: &Arc<impl Vfs + 'static>, options: &Options) -> Database {
    let engine = Embedded::start("embedded", Arc::clone(disk) as Arc<dyn Vfs>, options).unwrap();
    Database::of(Engine::Embedded(engine))
}

async fn set(database: &Database, key: &[u8], value: &[u8]) -> Result<u64> {
    let tx = database.begin();
    tx.set(key, value);
    tx.commit().await?;
    Ok(tx.committed_version().unwrap())
}

impl Vfs for Failing {
    fn names(&self) -> io::Result<Vec<String>> {
        self.files.names()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.files.open(name)?))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.file(self.files.create(name)?))
    }

    fn publish(&self, draft: &str, name: &str) -> io::Result<()> {
        self.files.publish(draft, name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

impl File for FailingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        thread::sleep(self.2);
        match self.1.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(io::Error::other("the disk is gone")),
            ..0 => panic!("sync after a failed sync"),
            _ => self.0.sync(),
        }
    }
}

#[tokio::test]
async fn failed_sync_returns_maybe_committed_and_closes_the_engine() {
    let disk = Arc::new(Failing::default());
    let database = database(&disk, &Options::default());
    set(&database, b"first", b"").await.unwrap();
    let reader = database.begin();
    reader.read_version().await.unwrap();
    let watching = database.begin();
    let watch = watching.watch(b"a").await.unwrap();
    watching.commit().await.unwrap();

    disk.syncs_left.store(0, Ordering::SeqCst);
    let writes = (0..10_u8).map(|number| {
        let tx = database.begin();
        tx.set(&[number], b"");
        async move { tx.commit().await }
    });
    let mut unknown = 0;
    for outcome in join_all(writes).await {
        let error = outcome.unwrap_err();
        match error.kind() {
            ErrorKind::MaybeCommitted => {
                unknown += 1;
                assert!(std::error::Error::source(&error).is_some(), "the error has no source");
            }
            // The commit was still queued.
            kind => assert_eq!(kind, ErrorKind::Closed),
        }
    }
    assert!(unknown > 0);
    assert_eq!(reader.get(b"a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(database.begin().get(b"a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(watch.await.unwrap_err().kind(), ErrorKind::Closed);
    database.close().await;
}

/// Commits inline, on the client's thread, and on the pipeline's thread.
#[test]
fn panic_during_a_write_closes_the_engine() {
    for threads in [1, 4] {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = if threads == 1 {
            tokio::runtime::Builder::new_current_thread().build()
        } else {
            builder.worker_threads(threads).build()
        };
        runtime.unwrap().block_on(async {
            let disk = Arc::new(Failing::default());
            let database = database(&disk, &Options::default());
            set(&database, b"first", b"").await.unwrap();
            disk.syncs_left.store(-1, Ordering::SeqCst);
            let error = set(&database, b"second", b"").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MaybeCommitted);
            let gone = database.begin().get(b"first").await.unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::Closed);
            database.close().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn panic_answers_all_waiting_commits() {
    let disk = Failing::slow(Duration::from_millis(1));
    let database = database(&disk, &Options::default());
    set(&database, b"first", b"").await.unwrap();
    disk.syncs_left.store(-1, Ordering::SeqCst);
    let clients: Vec<_> = (0..20_u8)
        .map(|client| {
            let database = database.clone();
            tokio::spawn(async move { while set(&database, &[client], b"").await.is_ok() {} })
        })
        .collect();
    let all = tokio::time::timeout(Duration::from_secs(20), join_all(clients));
    assert!(all.await.is_ok(), "a client waits forever");
    tokio::time::timeout(Duration::from_secs(20), database.close()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn clients_of_one_thread_share_syncs() {
    let disk = Failing::slow(Duration::from_micros(200));
    let database = database(&disk, &Options::default());
    let before = disk.syncs();
    let clients = (0..64_u8).map(|client| {
        let database = database.clone();
        tokio::spawn(async move {
            for n in 0..10_u8 {
                set(&database, &[client, n], b"").await.unwrap();
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs < 640 / 4, "{syncs} syncs of 640 commits");
}

#[tokio::test]
async fn advance_version_applies_to_the_open_batch() {
    let disk = Failing::slow(Duration::from_millis(100));
    let database = database(&disk, &Options::default());
    let first = set(&database, b"first", b"").await.unwrap();
    // The pipeline writes the first commit, the writer thread the next two in one batch; the last
    // one is in the open batch.
    let waiting = [0, 20, 20, 150].map(|after| {
        let database = database.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            set(&database, &after.to_be_bytes(), b"").await.unwrap()
        })
    });
    tokio::time::sleep(Duration::from_millis(170)).await;
    let ahead = first + 1_000_000_000;
    database.advance_version(ahead).await.unwrap();
    assert!(set(&database, b"last", b"").await.unwrap() > ahead);
    for commit in waiting {
        assert!(commit.await.unwrap() < ahead);
    }
}

fn log_bytes(disk: &dyn Vfs) -> u64 {
    let names = disk.names().unwrap().into_iter().filter(|name| name.starts_with("log-"));
    names.map(|name| disk.open(&name).unwrap().len().unwrap()).sum()
}

#[tokio::test]
async fn conflict_ranges_count_once_even_below_a_versionstamped_key() {
    let database = Database::memory().unwrap();
    let long = |byte: u8| vec![byte; 9_900];
    let tx = database.begin();
    for _ in 0..300 {
        tx.clear_range(&long(1), &long(2));
    }
    tx.commit().await.unwrap();
    let tx = database.begin();
    for n in 0..400_u16 {
        tx.set(&[b"s\xfe".as_slice(), &n.to_be_bytes(), &long(0)].concat(), b"");
    }
    tx.set_versionstamped_key(b"s", b"", b"");
    assert_eq!(tx.commit().await.unwrap_err().code(), Some(2101));
}

#[tokio::test(flavor = "multi_thread")]
async fn wal_stays_short_when_the_same_keys_are_overwritten() {
    let disk = Arc::new(Memory::default());
    let options = Options { memtable_bytes: 8 << 20, ..Options::default() };
    let database = database(&disk, &options);
    let clients = (0..8_u8).map(|client| {
        let database = database.clone();
        tokio::spawn(async move {
            for n in 0..200_u8 {
                set(&database, &[client], &vec![n; 50_000]).await.unwrap();
            }
        })
    });
    for client in join_all(clients).await {
        client.unwrap();
    }
    let bytes = log_bytes(&*disk);
    assert!(bytes <= 20 << 20, "{bytes} bytes of WAL for 80 million written");
}

#[tokio::test]
async fn atomic_operations_on_one_key_are_logged_once() {
    let disk = Arc::new(Memory::default());
    let database = database(&disk, &Options::default());
    set(&database, b"long", &vec![1; 90_000]).await.unwrap();
    let tx = database.begin();
    for _ in 0..2_000 {
        tx.atomic(AtomicOp::AppendIfFits, b"long", &[2]);
    }
    tx.commit().await.unwrap();
    let value = database.begin().get(b"long").await.unwrap().unwrap();
    assert_eq!((value.len(), value.last()), (92_000, Some(&2)));
    assert!(log_bytes(&*disk) < 8 << 20, "{} bytes of WAL", log_bytes(&*disk));
}

#[tokio::test]
async fn commit_that_resolves_to_too_many_bytes_is_refused() {
    let database = database(&Arc::new(Memory::default()), &Options::default());
    for ten in 0..80_u8 {
        let tx = database.begin();
        (0..10_u8).for_each(|one| tx.set(&[b'k', ten, one], &vec![1; 90_000]));
        tx.commit().await.unwrap();
    }
    let tx = database.begin();
    for ten in 0..80_u8 {
        (0..10_u8).for_each(|one| tx.atomic(AtomicOp::AppendIfFits, &[b'k', ten, one], &[2]));
    }
    let (refused, done) = tokio::join!(tx.commit(), set(&database, b"other", b"1"));
    let error = refused.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Limit, Some(2101)));
    done.unwrap();
    for ten in [0, 79] {
        let value = database.begin().get(&[b'k', ten, 0]).await.unwrap().unwrap();
        assert_eq!(value.len(), 90_000);
    }
    assert_eq!(database.begin().get(b"other").await.unwrap(), Some(b"1".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_beyond_the_queue_limit_wait() {
    let engine = Embedded::memory(&Options::default()).unwrap();
    let commits = (0..6_000_u32).map(|number| {
        let tx = engine.begin();
        // 50 kB each: 300 MB, while the queue holds 64 MiB.
        tx.set(&number.to_be_bytes(), &vec![7; 50_000]);
        async move { tx.commit().await }
    });
    for outcome in join_all(commits).await {
        outcome.unwrap();
    }
    let mut tx = engine.begin();
    let mut seen = 0;
    let mut from = Vec::new();
    loop {
        let query = RangeQuery::new(from.clone(), b"\xff").limit(500);
        let rows = tx.get_range(&query, Isolation::Snapshot).await.unwrap().rows;
        let Some(last) = rows.last() else { break };
        seen += rows.len();
        from = ranges::next_key(&last.key);
        tx = engine.begin();
    }
    assert_eq!(seen, 6_000);
}

#[tokio::test]
async fn close_frees_the_folder_under_finished_transactions() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    set(&database, b"a", b"1").await.unwrap();
    let finished = database.begin();
    finished.get(b"a").await.unwrap();
    let view = database.view().await.unwrap();

    let error = Database::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("in use by this process"), "{error}");

    database.close().await;
    let again = Database::open(folder.path()).unwrap();
    assert_eq!(again.begin().get(b"a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(finished.get(b"a").await.unwrap_err().kind(), ErrorKind::Closed);
    drop((finished, view, database));
    // Dropping the old handles did not unlock the folder under the new database.
    let error = Database::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("in use by this process"), "{error}");
    set(&again, b"b", b"2").await.unwrap();
}

/// An in-memory disk that counts as slow.
#[derive(Debug, Default)]
struct Slow(Memory);

impl Vfs for Slow {
    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.0.open(name)
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
        Ok(())
    }

    fn is_slow(&self) -> bool {
        true
    }
}

#[test]
fn slow_reads_need_no_blocking_thread_of_the_runtime() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(1).build().unwrap();
    let database = database(&Arc::new(Slow::default()), &Options::default());
    runtime.block_on(set(&database, b"a", b"1")).unwrap();
    let (done, answer) = std::sync::mpsc::channel();
    let (handle, reader) = (runtime.handle().clone(), database.clone());
    // Occupies the only blocking thread with more reads than the pool has threads.
    runtime.spawn_blocking(move || {
        let reads = (0..200).map(|_| async { reader.begin().get(b"a").await.unwrap() });
        let read = handle.block_on(join_all(reads));
        done.send(read).unwrap();
    });
    let read = answer.recv_timeout(Duration::from_secs(20)).expect("the read deadlocks");
    assert_eq!(read, vec![Some(b"1".to_vec()); 200]);
    // Reads need no runtime at all.
    let view = futures_util::future::FutureExt::now_or_never(database.view()).unwrap().unwrap();
    runtime.shutdown_background();
    let waiting = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(view.get(b"a")).unwrap()
    });
    assert_eq!(waiting.join().unwrap(), Some(b"1".to_vec()));
}
