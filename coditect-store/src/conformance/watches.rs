//! Watches: when they fire, their limit, and their end.

use std::time::Duration;

use futures_util::{FutureExt as _, future::join_all};

use super::{AtomicOp, Database, ErrorKind, Result, Transaction, WATCH_LIMIT, Watch, kind, write};

/// Time after which a watch counts as never firing.
const WATCH_TIMEOUT: Duration = Duration::from_secs(60);

async fn end(watch: Watch) -> Result<()> {
    tokio::time::timeout(WATCH_TIMEOUT, watch).await.unwrap()
}

async fn watch(database: &Database, key: &[u8]) -> Watch {
    let tx = database.begin();
    let watch = tx.watch(key).await.unwrap();
    tx.commit().await.unwrap();
    watch
}

pub(super) async fn watch_fires_after_its_key_changes(database: Database) {
    write(&database, &[("a", "1"), ("b", "1")]).await;
    let changes: [fn(&Transaction); 3] = [
        |tx| tx.set(b"a", b"2"),
        |tx| tx.clear_range(b"", b"\xff"),
        |tx| tx.atomic(AtomicOp::Add, b"a", b"\x01"),
    ];
    for change in changes {
        let watch = watch(&database, b"a").await;
        let tx = database.begin();
        change(&tx);
        tx.commit().await.unwrap();
        end(watch).await.unwrap();
    }
}

/// Returns whether `waiting` has not fired, after a watch of a later change has.
async fn is_waiting(database: &Database, waiting: &mut Watch) -> bool {
    let other = watch(database, b"other").await;
    let tx = database.begin();
    tx.set_versionstamped_value(b"other", b"", b"");
    tx.commit().await.unwrap();
    end(other).await.unwrap();
    waiting.now_or_never().is_none()
}

pub(super) async fn watch_ignores_writes_of_the_same_value(database: Database) {
    write(&database, &[("a", "1")]).await;
    let mut waiting = watch(&database, b"a").await;
    write(&database, &[("b", "2")]).await;
    write(&database, &[("a", "1")]).await;
    assert!(is_waiting(&database, &mut waiting).await);
    write(&database, &[("a", "2")]).await;
    end(waiting).await.unwrap();
}

pub(super) async fn watch_fires_if_its_key_changed_before_the_commit(database: Database) {
    let tx = database.begin();
    tx.snapshot().get(b"a").await.unwrap();
    let watch = tx.watch(b"a").await.unwrap();
    write(&database, &[("a", "1")]).await;
    tx.commit().await.unwrap();
    end(watch).await.unwrap();
}

pub(super) async fn watch_compares_with_own_writes(database: Database) {
    let tx = database.begin();
    tx.set(b"a", b"mine");
    let mut waiting = tx.watch(b"a").await.unwrap();
    tx.commit().await.unwrap();
    assert!(is_waiting(&database, &mut waiting).await);
    write(&database, &[("a", "another's")]).await;
    end(waiting).await.unwrap();
}

pub(super) async fn cancelled_transaction_ends_its_watches(database: Database) {
    let (dropped, cancelled) = (database.begin(), database.begin());
    let watches = [dropped.watch(b"a").await.unwrap(), cancelled.watch(b"a").await.unwrap()];
    drop(dropped);
    cancelled.cancel();
    for watch in watches {
        let error = end(watch).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Closed, Some(1025)));
    }
}

pub(super) async fn closed_database_ends_its_watches(database: Database) {
    let watch = watch(&database, b"a").await;
    database.close().await;
    assert_eq!(kind(end(watch).await), ErrorKind::Closed);
}

pub(super) async fn watch_of_a_failed_commit_returns_its_error(database: Database) {
    let tx = database.begin();
    tx.get(b"a").await.unwrap();
    tx.set(b"b", b"");
    let watch = tx.watch(b"c").await.unwrap();
    write(&database, &[("a", "1")]).await;
    assert_eq!(kind(tx.commit().await), ErrorKind::Conflict);
    assert_eq!(kind(end(watch).await), ErrorKind::Conflict);
}

pub(super) async fn watches_are_limited_and_dropped_ones_do_not_count(database: Database) {
    let tx = database.begin();
    let mut watches = join_all((0..WATCH_LIMIT).map(|_| tx.watch(b"a"))).await;
    assert!(watches.iter().all(Result::is_ok));
    assert_eq!(tx.watch(b"a").await.unwrap_err().code(), Some(1032));
    tx.commit().await.unwrap();
    let more = database.begin();
    let error = more.watch(b"a").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Limit, Some(1032)));
    watches.truncate(3);
    watches.push(more.watch(b"a").await);
    more.commit().await.unwrap();
    write(&database, &[("a", "1")]).await;
    for watch in watches {
        end(watch.unwrap()).await.unwrap();
    }
}
