//! What this engine alone promises: what it does when its disk fails, and when more wait than fit.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use futures_util::future::join_all;

use super::{super::RangeQuery, disk::File, *};
use crate::engine::{Database, Engine, Isolation};

/// Memory of whose syncs one fails: the one that finds `syncs_left` at zero. What comes after it
/// panics.
#[derive(Debug, Default)]
struct Failing {
    files: Memory,
    syncs_left: Arc<AtomicI64>,
}

#[derive(Debug)]
struct FailingFile(Arc<dyn File>, Arc<AtomicI64>);

impl Disk for Failing {
    fn names(&self) -> io::Result<Vec<String>> {
        self.files.names()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FailingFile(self.files.open(name)?, Arc::clone(&self.syncs_left))))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FailingFile(self.files.create(name)?, Arc::clone(&self.syncs_left))))
    }

    fn publish(&self, draft: &str, name: &str) -> io::Result<()> {
        self.files.publish(draft, name)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
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
        match self.1.fetch_sub(1, Ordering::SeqCst) {
            0 => Err(io::Error::other("the disk is gone")),
            ..0 => panic!("nobody syncs again what failed to be synced"),
            _ => self.0.sync(),
        }
    }
}

#[tokio::test]
async fn a_failed_sync_answers_that_the_outcome_is_unknown_and_closes_the_engine() {
    let disk = Arc::new(Failing::default());
    disk.syncs_left.store(i64::MAX, Ordering::SeqCst);
    let disk_of_engine = Arc::clone(&disk) as Arc<dyn Disk>;
    let engine = Embedded::start("embedded", disk_of_engine, &Options::default()).unwrap();
    let database = Database::of(Engine::Embedded(engine));
    let first = database.begin();
    first.set(b"first", b"");
    first.commit().await.unwrap();
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
                assert!(std::error::Error::source(&error).is_some(), "the cause is kept");
            }
            // It was still waiting.
            kind => assert_eq!(kind, ErrorKind::Closed),
        }
    }
    assert!(unknown > 0);
    assert_eq!(reader.get(b"a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(database.begin().get(b"a").await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(watch.await.unwrap_err().kind(), ErrorKind::Closed);
    database.close().await;
}

/// On the client's own thread, which must not be harmed, and on the sequencer's.
#[test]
fn a_panic_while_a_commit_is_written_closes_the_engine_and_harms_nobody() {
    for threads in [1, 4] {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = if threads == 1 {
            tokio::runtime::Builder::new_current_thread().build()
        } else {
            builder.worker_threads(threads).build()
        };
        runtime.unwrap().block_on(async {
            let disk = Arc::new(Failing::default());
            disk.syncs_left.store(i64::MAX, Ordering::SeqCst);
            let engine = Embedded::start(
                "embedded",
                Arc::clone(&disk) as Arc<dyn Disk>,
                &Options::default(),
            );
            let database = Database::of(Engine::Embedded(engine.unwrap()));
            let first = database.begin();
            first.set(b"first", b"");
            first.commit().await.unwrap();
            disk.syncs_left.store(-1, Ordering::SeqCst);
            let second = database.begin();
            second.set(b"second", b"");
            assert_eq!(second.commit().await.unwrap_err().kind(), ErrorKind::MaybeCommitted);
            let gone = database.begin().get(b"first").await.unwrap_err();
            assert_eq!(gone.kind(), ErrorKind::Closed);
            database.close().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_commits_than_the_queue_holds_wait_and_all_succeed() {
    let engine = Embedded::memory(&Options::default()).unwrap();
    let commits = (0..6_000_u32).map(|number| {
        let tx = engine.begin();
        // 50 kB each: 300 MB, where the queue may hold 64 MiB.
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
        from = writes::next_key(&last.key);
        tx = engine.begin();
    }
    assert_eq!(seen, 6_000);
}
