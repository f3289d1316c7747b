//! Versions and versionstamps.

use futures_util::future::join_all;

use super::{Database, ErrorKind, RangeQuery, kind, write};

pub(super) async fn versionstamps_sort_in_commit_order(database: Database) {
    let mut stamps = Vec::new();
    for number in 0..10_u8 {
        let tx = database.begin();
        assert_eq!((tx.versionstamp(), tx.committed_version()), (None, None));
        tx.set_versionstamped_key(b"log/", b"", &[number]);
        tx.commit().await.unwrap();
        let stamp = tx.versionstamp().unwrap();
        assert_eq!(tx.committed_version(), Some(stamp.version()));
        stamps.push(stamp);
    }
    assert!(stamps.is_sorted());
    let log = database.begin().get_range(&RangeQuery::new(b"log/", b"log0")).await.unwrap().rows;
    for ((row, stamp), number) in log.iter().zip(&stamps).zip(0_u8..) {
        assert_eq!(row.key, [&b"log/"[..], stamp.as_bytes()].concat());
        assert_eq!(row.value, [number]);
    }
    assert_eq!(log.len(), 10);
}

/// Concurrent commits may share a version, and are ordered within it.
pub(super) async fn versionstamps_of_concurrent_commits_match_their_order(database: Database) {
    let commits = (0..60_u8).map(|number| {
        let tx = database.begin();
        tx.set_versionstamped_key(b"log/", b"", &[number]);
        tx.set(b"last", &[number]);
        async move {
            tx.commit().await.unwrap();
            (tx.versionstamp().unwrap(), number)
        }
    });
    let mut stamps = join_all(commits).await;
    stamps.sort_unstable();
    assert!(stamps.windows(2).all(|pair| pair[0].0 < pair[1].0), "duplicate stamps");
    let tx = database.begin();
    let log = tx.get_range(&RangeQuery::new(b"log/", b"log0")).await.unwrap().rows;
    let logged: Vec<_> = log.iter().map(|row| (&row.key[4..], row.value[0])).collect();
    let expected: Vec<_> = stamps.iter().map(|(stamp, n)| (&stamp.as_bytes()[..], *n)).collect();
    assert_eq!(logged, expected);
    let last = stamps.last().map(|(_, number)| vec![*number]);
    assert_eq!(tx.get(b"last").await.unwrap(), last);
}

/// Returns the versions of the given number of commits, each of which sets a key to its number.
async fn committed(database: &Database, commits: u8) -> Vec<u64> {
    let mut versions = Vec::new();
    for number in 0..commits {
        let tx = database.begin();
        tx.set(b"a", &[number]);
        tx.commit().await.unwrap();
        versions.push(tx.committed_version().unwrap());
    }
    versions
}

/// Callers must not expect contiguous versions.
pub(super) async fn versions_increase_with_gaps(database: Database) {
    let versions = committed(&database, 10).await;
    assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    assert!(versions[9] - versions[0] > 9, "{versions:?}");
}

pub(super) async fn read_version_can_be_set(database: Database) {
    write(&database, &[("a", "1")]).await;
    let first = database.begin().read_version().await.unwrap();
    write(&database, &[("a", "2")]).await;
    let tx = database.begin();
    tx.set_read_version(first);
    assert_eq!(tx.read_version().await.unwrap(), first);
    assert_eq!(tx.get(b"a").await.unwrap().as_deref(), Some(&b"1"[..]));
    tx.set(b"b", b"");
    assert_eq!(kind(tx.commit().await), ErrorKind::Conflict);
}

/// A read at the version of a commit returns its writes and nothing later.
pub(super) async fn committed_version_can_be_read(database: Database) {
    for (number, version) in (0_u8..).zip(committed(&database, 3).await) {
        let tx = database.begin();
        tx.set_read_version(version);
        assert_eq!(tx.get(b"a").await.unwrap().unwrap(), [number]);
        // Has no effect after the first read.
        tx.set_read_version(version - 1);
        assert_eq!(tx.get(b"a").await.unwrap().unwrap(), [number]);
    }
}

pub(super) async fn future_read_version_is_refused(database: Database) {
    let tx = database.begin();
    tx.set_read_version(u64::MAX);
    let error = tx.get(b"a").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, Some(1009)));
    assert!(error.is_retryable());
}
