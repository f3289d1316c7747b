//! The engines depend on no runtime: they work in one without timers or with a single blocking
//! thread, in several after each other, in none, and refuse to in a forked process.

use std::{
    future::Future,
    os::unix::process::CommandExt as _,
    path::Path,
    pin::{Pin, pin},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use coditect_store::{
    Error, ErrorKind, Result,
    engine::{CLUSTER_FILE_VARIABLE, Database, Watch, cluster_file},
};
use tokio::runtime::Builder;

const PATIENCE: Duration = Duration::from_secs(30);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` on this thread, without a runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

async fn set(database: &Database, key: &[u8], value: &[u8]) -> Result<()> {
    let tx = database.begin();
    tx.set(key, value);
    tx.commit().await
}

async fn get(database: &Database, key: &[u8]) -> Option<Vec<u8>> {
    database.begin().get(key).await.unwrap()
}

/// A watch of the key `a`.
async fn watch(database: &Database) -> Watch {
    let tx = database.begin();
    let watch = tx.watch(b"a").await.unwrap();
    tx.commit().await.unwrap();
    watch
}

/// Increments a number in a transaction that conflicts the first time.
async fn increment_with_a_conflict(database: &Database) {
    let attempts = AtomicU32::new(0);
    let attempts = &attempts;
    database
        .run(|tx| async move {
            let before = tx.get(b"n").await?;
            if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
                set(database, b"n", b"0").await?;
            }
            tx.set(b"n", if before.is_some() { b"1" } else { b"?" });
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
    assert_eq!(attempts.load(Ordering::Relaxed), 2);
    assert_eq!(get(database, b"n").await.as_deref(), Some(&b"1"[..]));
}

#[test]
fn conflict_is_retried_without_timers_and_without_a_runtime() {
    let database = Database::temporary().unwrap();
    let without_timers = Builder::new_current_thread().build().unwrap();
    without_timers.block_on(increment_with_a_conflict(&database));
    block_on(set(&database, b"n", b"0")).unwrap();
    block_on(increment_with_a_conflict(&database));
}

#[test]
fn database_outlives_the_runtimes_that_used_it() {
    let runtime = || Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = runtime();
    let database = first.block_on(async {
        let database = Database::temporary().unwrap();
        set(&database, b"a", b"1").await.unwrap();
        database
    });
    let watch = first.block_on(watch(&database));
    // A transaction that has begun is not of the runtime, either.
    let begun = database.begin();
    first.block_on(begun.get(b"a")).unwrap();
    first.shutdown_background();
    let second = Builder::new_current_thread().build().unwrap();
    second.block_on(async {
        assert!(begun.get(b"a").await.unwrap().is_some());
        set(&database, b"a", b"2").await.unwrap();
        watch.await.unwrap();
    });
    drop(second);
    let threads = (0..4_u8).map(|n| {
        let database = database.clone();
        thread::spawn(move || block_on(set(&database, &[b'b', n], b"3")).unwrap())
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    runtime().block_on(async {
        for n in 0..4 {
            assert!(get(&database, &[b'b', n]).await.is_some());
        }
        database.close().await;
    });
}

/// A task of a custom executor that is dropped when it is woken.
struct GivenUp(Mutex<Option<Task>>);

/// The future of a task, and the last handle.
type Task = (Pin<Box<dyn Future<Output = Result<()>> + Send>>, Option<Database>);

impl Wake for GivenUp {
    fn wake(self: Arc<Self>) {
        let task = self.0.lock().unwrap().take();
        drop(task);
    }
}

impl GivenUp {
    /// Polls `future` once, which has to wait. When it is woken, it is dropped with `last`.
    fn start(
        future: impl Future<Output = Result<()>> + Send + 'static,
        last: Database,
    ) -> Arc<Self> {
        let given_up = Arc::new(Self(Mutex::new(None)));
        let mut future: Pin<Box<dyn Future<Output = Result<()>> + Send>> = Box::pin(future);
        let waker = Waker::from(Arc::clone(&given_up));
        let mut task = given_up.0.lock().unwrap();
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        *task = Some((future, Some(last)));
        drop(task);
        given_up
    }

    fn wait(&self) {
        let started = Instant::now();
        while self.0.lock().unwrap().is_some() {
            assert!(started.elapsed() < PATIENCE, "it is not woken");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Opens the folder again, which is free soon after its last handle was dropped.
fn reopen(folder: &Path) -> Database {
    let started = Instant::now();
    loop {
        match Database::open(folder) {
            Ok(database) => return database,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn waker_may_drop_the_last_handle() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    // Of a commit, answered by the thread that writes.
    let tx = database.begin();
    tx.set(b"a", b"1");
    let committing = async move { tx.commit().await };
    GivenUp::start(committing, database).wait();
    let database = reopen(folder.path());
    assert_eq!(block_on(get(&database, b"a")).as_deref(), Some(&b"1"[..]));
    // Of a watch, which ends with the engine.
    let watch = block_on(watch(&database));
    let other = database.clone();
    let given_up = GivenUp::start(watch, database);
    block_on(set(&other, b"a", b"2")).unwrap();
    drop(other);
    given_up.wait();
    // Of a waker of `close`, which the thread that commits answers in the end.
    let database = reopen(folder.path());
    assert_eq!(block_on(get(&database, b"a")).as_deref(), Some(&b"2"[..]));
    let closing = database.clone();
    let closed = async move {
        closing.close().await;
        Ok(())
    };
    GivenUp::start(closed, database).wait();
    drop(reopen(folder.path()));
}

/// A waker that panics, as a careless executor's may.
struct Panicking(Thread);

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
        panic!("the waker's own fault");
    }
}

#[test]
fn waker_that_panics_does_not_close_the_engine() {
    if cluster_file().is_some() {
        println!("skipped: {CLUSTER_FILE_VARIABLE} names a cluster, whose library wakes by itself");
        return;
    }
    let database = Database::memory().unwrap();
    let tx = database.begin();
    tx.set(b"a", b"1");
    let waker = Waker::from(Arc::new(Panicking(thread::current())));
    let mut committing = pin!(tx.commit());
    let started = Instant::now();
    while committing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        assert!(started.elapsed() < PATIENCE);
        thread::park_timeout(Duration::from_millis(10));
    }
    block_on(set(&database, b"a", b"2")).unwrap();
    assert_eq!(block_on(get(&database, b"a")).as_deref(), Some(&b"2"[..]));
}

/// Runs `child` in a fork of this process. Panics with the error that it returns.
fn in_a_fork(child: impl Fn() -> std::result::Result<(), String> + Send + Sync + 'static) {
    let report = tempfile::NamedTempFile::new().unwrap();
    let path = report.path().to_owned();
    let mut command = Command::new("true");
    let run = move || {
        let found = child();
        std::fs::write(&path, found.err().unwrap_or_else(|| "as expected".to_owned()))
    };
    #[expect(unsafe_code, reason = "there is no other way to fork")]
    // SAFETY: the child has no other threads, and waits for none. It uses only files and the
    // allocator of the C library, which work after a fork.
    unsafe {
        command.pre_exec(run)
    };
    assert!(command.status().unwrap().success());
    assert_eq!(std::fs::read_to_string(report.path()).unwrap(), "as expected");
}

fn expect_forked<T>(answer: Result<T>) -> std::result::Result<(), String> {
    let error = answer.err().ok_or("it is done in the child")?;
    let is_clear = error.kind() == ErrorKind::Closed && error.to_string().contains("fork");
    if is_clear { Ok(()) } else { Err(format!("the child is refused by {error:?}")) }
}

#[test]
fn fork_neither_uses_nor_closes_what_was_opened_before() {
    let folder = tempfile::tempdir().unwrap();
    let (database, again) = if cluster_file().is_some() {
        (Database::temporary().unwrap(), None)
    } else {
        (Database::open(folder.path()).unwrap(), Some(folder.path().to_owned()))
    };
    block_on(set(&database, b"a", b"1")).unwrap();
    let begun = database.begin();
    block_on(begun.get(b"a")).unwrap();
    let view = block_on(database.view()).unwrap();
    // The only handles, so that the child drops its last ones.
    let handles = Arc::new(Mutex::new(Some((database, begun, view))));
    let in_child = Arc::clone(&handles);
    in_a_fork(move || {
        // Reads find it out after a moment.
        thread::sleep(Duration::from_millis(5));
        let (database, begun, view) = in_child.lock().unwrap().take().ok_or("no handles")?;
        expect_forked(block_on(begun.get(b"a")))?;
        expect_forked(block_on(database.begin().get(b"a")))?;
        expect_forked(block_on(database.begin().read_version()))?;
        expect_forked(block_on(set(&database, b"a", b"of the child")))?;
        expect_forked(block_on(database.view()))?;
        expect_forked(block_on(view.get(b"a")))?;
        if let Some(folder) = &again {
            expect_forked(database.check_open())?;
            let error = Database::open(folder).err().ok_or("the lock is gone")?;
            if !error.to_string().contains("another process") {
                return Err(format!("the lock is told to be another's: {error}"));
            }
        }
        block_on(database.close());
        drop((database, begun, view));
        Ok(())
    });
    let (database, begun, view) = handles.lock().unwrap().take().unwrap();
    // The last handles were dropped there: nothing was stopped, written or unlocked here.
    block_on(set(&database, b"b", b"2")).unwrap();
    assert_eq!(block_on(get(&database, b"a")).as_deref(), Some(&b"1"[..]));
    if cluster_file().is_none() {
        let error = Database::open(folder.path()).unwrap_err();
        assert!(error.to_string().contains("this process"), "{error}");
    }
    drop((database, begun, view));
    if cluster_file().is_none() {
        assert!(block_on(get(&Database::open(folder.path()).unwrap(), b"b")).is_some());
    }
}

#[test]
fn fork_opens_a_folder_of_its_own() {
    let parent = tempfile::tempdir().unwrap();
    let _database = Database::open(parent.path()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    in_a_fork(move || {
        let own = || -> Result<()> {
            let database = Database::open(&path)?;
            block_on(set(&database, b"a", b"of the child"))
        };
        own().map_err(|error| error.to_string())
    });
    let database = Database::open(folder.path()).unwrap();
    assert_eq!(block_on(get(&database, b"a")).as_deref(), Some(&b"of the child"[..]));
}
