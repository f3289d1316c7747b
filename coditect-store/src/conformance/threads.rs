//! Concurrency: a commit, its version, and its state become visible together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures_util::future::join_all;
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{Database, Error, RangeQuery};
use crate::retry::{RetryPolicy, run};

/// Number of threads.
const THREADS: usize = 4;

/// Runs `work` on several threads, on any runtime, with the number of the thread.
async fn on_threads<F, Fut>(work: F)
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()>,
{
    let threads = (0..THREADS).map(|number| {
        let (work, runtime) = (work.clone(), Handle::current());
        spawn_blocking(move || runtime.block_on(work(number)))
    });
    for done in join_all(threads.collect::<Vec<_>>()).await {
        done.unwrap();
    }
}

/// If a version were assigned before its commit is visible, a transaction that begins in between
/// would read the old state and pass the conflict check.
pub(super) async fn concurrent_updates_are_not_lost(database: Database) {
    const UPDATES: u32 = 25;
    let counting = database.clone();
    on_threads(move |_| {
        let database = counting.clone();
        async move {
            let policy = RetryPolicy { max_attempts: 10_000, ..RetryPolicy::default() };
            for _ in 0..UPDATES {
                let increment = run(&database, &policy, |tx| async move {
                    let now = tx.get(b"n").await?.unwrap_or_else(|| vec![0; 4]);
                    let now = u32::from_le_bytes(now.try_into().unwrap());
                    tx.set(b"n", &(now + 1).to_le_bytes());
                    Ok::<_, Error>(())
                });
                increment.await.unwrap();
            }
        }
    })
    .await;
    let sum = database.begin().get(b"n").await.unwrap().unwrap();
    let expected = u32::try_from(THREADS).unwrap() * UPDATES;
    assert_eq!(sum, expected.to_le_bytes());
}

/// The state at a version is that of the last commit up to it: neither older (version assigned too
/// early) nor newer (version and state fetched separately).
pub(super) async fn version_and_snapshot_match(database: Database) {
    const COMMITS: usize = 40;
    let (made, seen) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), Arc::<Mutex<Vec<_>>>::default());
    let (all_made, all_seen) = (Arc::clone(&made), Arc::clone(&seen));
    let shared = database.clone();
    on_threads(move |thread| {
        let (database, made, seen) = (shared.clone(), Arc::clone(&made), Arc::clone(&seen));
        async move {
            for number in 0..COMMITS {
                let reader = database.begin();
                let version = reader.read_version().await.unwrap();
                let tx = database.begin();
                let value = format!("{thread}/{number}").into_bytes();
                tx.set(b"a", &value);
                tx.commit().await.unwrap();
                made.lock().unwrap().insert(tx.versionstamp().unwrap(), value);
                let value = reader.get(b"a").await.unwrap();
                seen.lock().unwrap().push((version, value));
            }
        }
    })
    .await;
    let made = all_made.lock().unwrap();
    assert_eq!(made.len(), THREADS * COMMITS, "duplicate stamps");
    for (version, value) in &*all_seen.lock().unwrap() {
        let last = made.iter().take_while(|(stamp, _)| stamp.version() <= *version).last();
        assert_eq!(*value, last.map(|(_, value)| value.clone()), "at {version}");
    }
}

/// A snapshot taken during a commit must not contain half of it.
pub(super) async fn commits_become_visible_atomically(database: Database) {
    const COMMITS: u32 = 60;
    let shared = database.clone();
    on_threads(move |thread| {
        let database = shared.clone();
        async move {
            for number in 0..COMMITS {
                let tx = database.begin();
                if thread == 0 {
                    for key in [b"a", b"m", b"z"] {
                        tx.set(key, &number.to_le_bytes());
                    }
                    tx.commit().await.unwrap();
                    continue;
                }
                let first = tx.get(b"a").await.unwrap();
                let rows = tx.get_range(&RangeQuery::new(b"b", b"\xff")).await.unwrap().rows;
                assert_eq!(rows.len(), if first.is_some() { 2 } else { 0 });
                assert!(rows.into_iter().all(|row| Some(row.value) == first));
            }
        }
    })
    .await;
}
