//! The contract, line by line, and what others got wrong, as regression tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta};
use futures_util::future::join_all;

use super::*;
use crate::{Clock, Error, ErrorKind, ManualClock};

async fn write(database: &Database, rows: &[(&str, &str)]) {
    let tx = database.begin();
    for (key, value) in rows {
        tx.set(key.as_bytes(), value.as_bytes());
    }
    tx.commit().await.unwrap();
}

async fn value(database: &Database, key: &str) -> Option<String> {
    let value = database.begin().get(key.as_bytes()).await.unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

async fn keys(tx: &Transaction, query: &RangeQuery) -> Vec<String> {
    let page = tx.get_range(query).await.unwrap();
    page.rows.into_iter().map(|row| String::from_utf8(row.key).unwrap()).collect()
}

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[tokio::test]
async fn a_transaction_sees_its_own_writes_and_others_see_them_after_the_commit() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    tx.set(b"a", b"1");
    assert_eq!(tx.get(b"a").await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(value(&database, "a").await, None);
    tx.commit().await.unwrap();
    assert_eq!(value(&database, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_dropped_transaction_leaves_no_trace() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    tx.set(b"a", b"1");
    drop(tx);
    assert_eq!(value(&database, "a").await, None);
}

#[tokio::test]
async fn all_reads_see_one_version() {
    let database = Database::scratch().unwrap();
    write(&database, &[("a", "old"), ("b", "old")]).await;
    let reader = database.begin();
    assert_eq!(reader.get(b"a").await.unwrap().as_deref(), Some(&b"old"[..]));
    write(&database, &[("a", "new"), ("b", "new")]).await;
    assert_eq!(reader.get(b"b").await.unwrap().as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn a_limit_counts_what_is_left_after_own_writes_are_merged() {
    let database = Database::scratch().unwrap();
    write(&database, &[("a", ""), ("b", ""), ("c", ""), ("d", "")]).await;
    let tx = database.begin();
    tx.clear(b"a");
    tx.clear_range(b"b", b"c");
    tx.set(b"cc", b"");
    let query = RangeQuery::new(b"a", b"z").limit(2);
    assert_eq!(keys(&tx, &query).await, ["c", "cc"]);
    assert_eq!(keys(&tx, &query.descending()).await, ["d", "cc"]);
}

#[tokio::test]
async fn a_page_says_why_it_stopped() {
    let database = Database::scratch().unwrap();
    write(&database, &[("a", "1234"), ("b", "1234"), ("c", "1234")]).await;
    let tx = database.begin();
    let all = RangeQuery::new(b"a", b"z");
    for (query, rows, stopped) in [
        (all.clone(), 3, Stopped::End),
        (all.clone().limit(2), 2, Stopped::Rows),
        (all.clone().target_bytes(6), 2, Stopped::Bytes),
        (all.clone().target_bytes(1), 1, Stopped::Bytes),
    ] {
        let page = tx.get_range(&query).await.unwrap();
        assert_eq!((page.rows.len(), page.stopped), (rows, stopped), "{query:?}");
    }
}

#[tokio::test]
async fn a_stream_gives_every_key_once_in_both_orders() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    let mut expected = Vec::new();
    for number in 0..300_u32 {
        let key = [&b"k"[..], &number.to_be_bytes()].concat();
        let child = [key.as_slice(), b"\xff"].concat();
        for key in [key, child] {
            tx.set(&key, &[0; 1_000]);
            expected.push(key);
        }
    }
    tx.commit().await.unwrap();
    for limit in [None, Some(1), Some(100), Some(600), Some(10_000)] {
        for order in [Order::Ascending, Order::Descending] {
            let query = RangeQuery { limit, ..RangeQuery::new(b"k", b"l").order(order) };
            let reader = database.begin();
            let mut stream = reader.stream(query);
            let mut seen = Vec::new();
            while let Some(page) = stream.next_page().await.unwrap() {
                assert!(!page.is_empty());
                seen.extend(page.into_iter().map(|row| row.key));
            }
            let mut wanted = expected.clone();
            if order == Order::Descending {
                wanted.reverse();
            }
            wanted.truncate(limit.unwrap_or(usize::MAX));
            assert!(seen == wanted, "{order:?}, {limit:?}: {} of {}", seen.len(), wanted.len());
        }
    }
}

#[tokio::test]
async fn reading_what_was_written_since_conflicts() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    tx.get(b"a").await.unwrap();
    write(&database, &[("a", "1")]).await;
    tx.set(b"b", b"2");
    let error = tx.commit().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, Some(1020)));
    assert_eq!(value(&database, "b").await, None);
}

#[tokio::test]
async fn blind_writes_never_conflict() {
    let database = Database::scratch().unwrap();
    let (one, other) = (database.begin(), database.begin());
    one.set(b"a", b"1");
    other.set(b"a", b"2");
    one.commit().await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(value(&database, "a").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn write_skew_is_refused() {
    let database = Database::scratch().unwrap();
    let (one, other) = (database.begin(), database.begin());
    for tx in [&one, &other] {
        tx.get(b"a").await.unwrap();
        tx.get(b"b").await.unwrap();
    }
    one.set(b"a", b"1");
    other.set(b"b", b"1");
    one.commit().await.unwrap();
    assert_eq!(kind(other.commit().await), ErrorKind::Conflict);
}

#[tokio::test]
async fn an_insert_into_a_range_that_was_read_conflicts() {
    let database = Database::scratch().unwrap();
    write(&database, &[("a", ""), ("c", ""), ("e", "")]).await;
    let phantom = async |limit: usize, key: &str| {
        let tx = database.begin();
        tx.get_range(&RangeQuery::new(b"a", b"z").limit(limit)).await.unwrap();
        tx.set(b"mine", b"");
        write(&database, &[(key, "")]).await;
        tx.commit().await.is_err()
    };
    assert!(phantom(2, "b").await, "it lies before the last row read");
    assert!(!phantom(2, "d").await, "it lies past what the limit let be read");
    assert!(phantom(1_000, "y").await);
}

#[tokio::test]
async fn snapshot_reads_and_own_writes_do_not_conflict() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    tx.snapshot().get(b"a").await.unwrap();
    tx.set(b"b", b"1");
    assert!(tx.get(b"b").await.unwrap().is_some());
    write(&database, &[("a", "1"), ("b", "2")]).await;
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn explicit_ranges_conflict_as_given() {
    let database = Database::scratch().unwrap();
    let reader = database.begin();
    reader.add_read_conflict_range(b"a", b"c").unwrap();
    reader.read_version().await.unwrap();
    reader.set(b"z", b"");
    let writer = database.begin();
    writer.add_write_conflict_range(b"b", b"b\0").unwrap();
    writer.commit().await.unwrap();
    assert!(writer.committed_version().is_some());
    assert_eq!(kind(reader.commit().await), ErrorKind::Conflict);
}

#[tokio::test]
async fn atomic_operations_on_one_key_do_not_conflict() {
    let database = Database::scratch().unwrap();
    let adds = (0..64).map(|_| async {
        let tx = database.begin();
        tx.read_version().await.unwrap();
        tx.atomic(AtomicOp::Add, b"n", &1_u64.to_le_bytes());
        tx.commit().await
    });
    for outcome in join_all(adds).await {
        outcome.unwrap();
    }
    let sum = database.begin().get(b"n").await.unwrap().unwrap();
    assert_eq!(sum, 64_u64.to_le_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_update_is_lost_among_many_threads() {
    let database = Database::scratch().unwrap();
    let policy = crate::transaction::RetryPolicy { attempts: 10_000, ..Default::default() };
    let increments = (0..16).map(|_| {
        let (database, policy) = (database.clone(), policy.clone());
        tokio::spawn(async move {
            for _ in 0..25 {
                crate::transaction::run(&database, &policy, |tx| async move {
                    let now = tx.get(b"n").await?.map_or(0, |value| value[0]);
                    let next = u16::from(now) + 1;
                    tx.set(b"n", &next.to_le_bytes()[..1]);
                    Ok::<_, Error>(())
                })
                .await
                .unwrap();
            }
        })
    });
    for done in join_all(increments.collect::<Vec<_>>()).await {
        done.unwrap();
    }
    let sum = database.begin().get(b"n").await.unwrap().unwrap();
    assert_eq!(sum, [(16 * 25_u16).to_le_bytes()[0]]);
}

#[tokio::test]
async fn versionstamps_sort_in_commit_order() {
    let database = Database::scratch().unwrap();
    let mut stamps = Vec::new();
    for number in 0..10_u8 {
        let tx = database.begin();
        assert_eq!(tx.versionstamp(), None);
        tx.set_versionstamped_key(b"log/", b"", &[number]);
        tx.set_versionstamped_value(b"last", b"at ", b"");
        tx.commit().await.unwrap();
        let stamp = tx.versionstamp().unwrap();
        assert_eq!(tx.committed_version(), Some(stamp.version()));
        stamps.push(stamp);
    }
    assert!(stamps.is_sorted());
    let tx = database.begin();
    let log = tx.get_range(&RangeQuery::new(b"log/", b"log0")).await.unwrap().rows;
    for ((row, stamp), number) in log.iter().zip(&stamps).zip(0_u8..) {
        assert_eq!(row.key, [&b"log/"[..], stamp.as_bytes()].concat());
        assert_eq!(row.value, [number]);
    }
    assert_eq!(log.len(), 10);
    let last = tx.get(b"last").await.unwrap().unwrap();
    assert_eq!(last, [&b"at "[..], stamps[9].as_bytes()].concat());
}

#[tokio::test]
async fn a_read_version_can_be_had_and_set() {
    let database = Database::scratch().unwrap();
    write(&database, &[("a", "1")]).await;
    let first = database.begin().read_version().await.unwrap();
    write(&database, &[("a", "2")]).await;
    let tx = database.begin();
    tx.set_read_version(first);
    assert_eq!(tx.get(b"a").await.unwrap().as_deref(), Some(&b"1"[..]));
    tx.set(b"b", b"");
    assert_eq!(kind(tx.commit().await), ErrorKind::Conflict);

    let tx = database.begin();
    tx.set_read_version(u64::MAX);
    let error = tx.get(b"a").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, Some(1009)));
}

#[tokio::test]
async fn versions_before_the_start_are_too_old() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1")]).await;
    let before = database.begin().read_version().await.unwrap();
    write(&database, &[("a", "2")]).await;
    database.close().await;
    drop(database);
    let database = Database::open(folder.path()).unwrap();
    let tx = database.begin();
    tx.set_read_version(before);
    assert_eq!(kind(tx.get(b"a").await), ErrorKind::TooOld);
    assert_eq!(kind(tx.commit().await), ErrorKind::TooOld);
}

#[tokio::test]
async fn after_five_seconds_a_transaction_is_too_old() {
    let database = Database::scratch().unwrap();
    let reader = database.begin();
    let writer = database.begin();
    let blind = database.begin();
    for tx in [&reader, &writer, &blind] {
        tx.read_version().await.unwrap();
        tx.set(b"b", b"");
    }
    writer.add_read_conflict_range(b"a", b"b").unwrap();
    tokio::time::sleep(LIFETIME + Duration::from_millis(100)).await;
    let error = reader.get(b"a").await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::TooOld, Some(1007)));
    assert_eq!(kind(reader.commit().await), ErrorKind::TooOld, "its read failed");
    assert_eq!(kind(writer.commit().await), ErrorKind::TooOld);
    blind.commit().await.unwrap();
}

#[tokio::test]
async fn an_idle_database_is_not_too_old_to_begin_on() {
    let database = Database::scratch().unwrap();
    write(&database, &[("a", "1")]).await;
    let version = database.begin().read_version().await.unwrap();
    tokio::time::sleep(LIFETIME + Duration::from_millis(100)).await;
    let tx = database.begin();
    tx.set_read_version(version);
    assert!(tx.get(b"a").await.unwrap().is_some());
    tx.set(b"a", b"2");
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_watch_fires_after_a_commit_that_changed_its_key() {
    let database = Database::scratch().unwrap();
    write(&database, &[("a", "1")]).await;
    let tx = database.begin();
    let mut watch = tx.watch(b"a").await.unwrap();
    tx.commit().await.unwrap();
    let not_yet = async |watch: &mut Watch| {
        tokio::time::timeout(Duration::from_millis(20), watch).await.is_err()
    };
    write(&database, &[("b", "2")]).await;
    write(&database, &[("a", "1")]).await;
    assert!(not_yet(&mut watch).await, "neither changed it");
    let tx = database.begin();
    tx.clear_range(b"", b"\xff");
    tx.commit().await.unwrap();
    watch.await.unwrap();
}

#[tokio::test]
async fn a_watch_fires_if_its_key_changed_before_it_was_live() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    let watch = tx.watch(b"a").await.unwrap();
    write(&database, &[("a", "1")]).await;
    tx.commit().await.unwrap();
    watch.await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_its_transaction_or_its_database() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    let watch = tx.watch(b"a").await.unwrap();
    drop(tx);
    assert_eq!(watch.await.unwrap_err().code(), Some(1025));

    let tx = database.begin();
    let watch = tx.watch(b"a").await.unwrap();
    tx.commit().await.unwrap();
    database.close().await;
    assert_eq!(kind(watch.await), ErrorKind::Closed);
}

#[tokio::test]
async fn watches_are_bounded_and_dropped_ones_make_room() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    let mut watches = Vec::new();
    for _ in 0..WATCH_LIMIT {
        watches.push(tx.watch(b"a").await.unwrap());
    }
    assert_eq!(tx.watch(b"a").await.unwrap_err().code(), Some(1032));
    tx.commit().await.unwrap();
    let more = database.begin();
    assert_eq!(more.watch(b"a").await.unwrap_err().code(), Some(1032));
    watches.truncate(1);
    let watch = more.watch(b"a").await.unwrap();
    more.commit().await.unwrap();
    write(&database, &[("a", "1")]).await;
    watch.await.unwrap();
    watches.remove(0).await.unwrap();
}

#[tokio::test]
async fn a_refused_write_shows_at_the_next_read_and_at_the_commit() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    tx.set(b"a", &vec![0; VALUE_SIZE_LIMIT + 1]);
    tx.set(b"b", b"fine");
    assert_eq!(tx.get(b"c").await.unwrap_err().code(), Some(2103));
    assert_eq!(tx.commit().await.unwrap_err().code(), Some(2103));
    assert_eq!(value(&database, "b").await, None);
}

#[tokio::test]
async fn the_size_counts_keys_values_and_conflict_ranges() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    assert_eq!(tx.approximate_size().await.unwrap(), 0);
    tx.set(b"key", b"value");
    let one = tx.approximate_size().await.unwrap();
    assert!((8..400).contains(&one), "{one}");
    tx.add_read_conflict_range(&[b'r'; 500], &[b's'; 500]).unwrap();
    assert!(tx.approximate_size().await.unwrap() >= one + 1_000);
}

#[tokio::test]
async fn a_cancelled_transaction_answers_so() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    tx.set(b"a", b"1");
    tx.cancel();
    assert_eq!(tx.get(b"a").await.unwrap_err().code(), Some(1025));
    assert_eq!(tx.commit().await.unwrap_err().code(), Some(1025));
    assert_eq!(value(&database, "a").await, None);
}

#[tokio::test]
async fn run_tries_again_until_it_does_not_conflict() {
    let database = Database::scratch().unwrap();
    let attempts = AtomicU32::new(0);
    let answer = database
        .run(|tx| {
            let (database, attempts) = (&database, &attempts);
            async move {
                let attempt = attempts.fetch_add(1, Ordering::Relaxed);
                tx.get(b"a").await?;
                if attempt < 3 {
                    write(database, &[("a", "again")]).await;
                }
                tx.set(b"b", &[u8::try_from(attempt).unwrap()]);
                Ok::<_, Error>(attempt)
            }
        })
        .await
        .unwrap();
    assert_eq!(answer, 3);
    assert_eq!(database.begin().get(b"b").await.unwrap().unwrap(), [3]);
}

#[tokio::test]
async fn an_error_of_the_closure_writes_nothing_and_is_returned_at_once() {
    #[derive(Debug)]
    struct Refused(Option<Error>);
    impl From<Error> for Refused {
        fn from(error: Error) -> Self {
            Self(Some(error))
        }
    }
    impl RunError for Refused {
        fn store_error(&self) -> Option<&Error> {
            self.0.as_ref()
        }
    }
    let database = Database::scratch().unwrap();
    let outcome = database.run(|tx| async move {
        tx.set(b"a", b"1");
        Err::<(), _>(Refused(None))
    });
    assert!(outcome.await.unwrap_err().0.is_none());
    assert_eq!(value(&database, "a").await, None);
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1"), ("b", "2")]).await;
    let tx = database.begin();
    tx.clear(b"a");
    tx.atomic(AtomicOp::AppendIfFits, b"b", b"3");
    tx.commit().await.unwrap();
    drop((tx, database));
    let database = Database::open(folder.path()).unwrap();
    assert_eq!(value(&database, "a").await, None);
    assert_eq!(value(&database, "b").await.as_deref(), Some("23"));
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_made_on_disk_is_for_its_owners_eyes_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new/data");
    let _database = Database::open(&data).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("store.redb")), 0o600);
}

#[tokio::test]
async fn versions_grow_though_the_clock_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(DateTime::UNIX_EPOCH + TimeDelta::days(20_000));
    let options = Options { clock: Clock::from(&clock), ..Options::default() };
    let mut last = 0;
    for _ in 0..3 {
        let database = Database::open_with(folder.path(), &options).unwrap();
        for _ in 0..3 {
            let tx = database.begin();
            tx.set(b"a", b"");
            tx.commit().await.unwrap();
            let version = tx.committed_version().unwrap();
            assert!(version > last);
            last = version;
            clock.advance(TimeDelta::days(-1));
        }
    }
}

#[tokio::test]
async fn a_second_opening_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1")]).await;
    let error = Database::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("in use by another process"), "{error}");
    let open = database.begin();
    open.read_version().await.unwrap();
    database.close().await;
    assert_eq!(kind(open.get(b"a").await), ErrorKind::Closed);
    let late = database.begin();
    late.set(b"a", b"2");
    assert_eq!(kind(late.commit().await), ErrorKind::Closed);
    assert_eq!(kind(database.begin().get(b"a").await), ErrorKind::Closed);
    drop(open);
    let again = Database::open(folder.path()).unwrap();
    assert_eq!(value(&again, "a").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn a_file_that_is_not_a_store_is_refused_and_left_as_it_is() {
    for damage in [b"not a database at all".to_vec(), vec![0; 8_192], vec![0xff; 100_000]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        std::fs::write(&path, &damage).unwrap();
        assert_eq!(kind(Database::open(folder.path())), ErrorKind::Corrupt);
        assert_eq!(std::fs::read(&path).unwrap(), damage);
    }
}

#[tokio::test]
async fn a_damaged_header_is_refused_and_left_as_it_is() {
    for (name, damage) in [
        ("its first page zeroed", (|file: &mut Vec<u8>| file[..4_096].fill(0)) as fn(&mut Vec<u8>)),
        ("its magic number changed", |file| file[3] ^= 1),
        ("cut in half", |file| file.truncate(file.len() / 2)),
        ("cut after its header", |file| file.truncate(4_096)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path()).unwrap();
        for number in 0..200_u32 {
            let tx = database.begin();
            tx.set(&number.to_be_bytes(), &[7; 3_000]);
            tx.commit().await.unwrap();
        }
        database.close().await;
        drop(database);
        let path = folder.path().join("store.redb");
        let mut file = std::fs::read(&path).unwrap();
        damage(&mut file);
        std::fs::write(&path, &file).unwrap();
        let outcome = Database::open(folder.path());
        assert_eq!(outcome.map(drop).map_err(|e| e.kind()), Err(ErrorKind::Corrupt), "{name}");
        assert!(std::fs::read(&path).unwrap() == file, "{name}: it was written to");
    }
}

#[tokio::test]
async fn what_is_read_from_a_damaged_file_is_right_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let value = |number: u32| [number.to_be_bytes(); 100].concat();
    let tx = database.begin();
    for number in 0..500_u32 {
        tx.set(&number.to_be_bytes(), &value(number));
    }
    tx.commit().await.unwrap();
    database.close().await;
    drop((tx, database));
    let path = folder.path().join("store.redb");
    let whole = std::fs::read(&path).unwrap();
    let (mut right, mut refused) = (0, 0);
    for round in 0..30_usize {
        let mut damaged = whole.clone();
        for spot in 0..20_usize {
            // Anywhere behind the header, where every round somewhere else.
            let at = 8_192 + (round * 7_919 + spot * 104_729) % (whole.len() - 8_192 - 16);
            damaged[at..at + 16].fill(0x5a);
        }
        std::fs::write(&path, &damaged).unwrap();
        let database = match Database::open(folder.path()) {
            Ok(database) => database,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
                continue;
            }
        };
        for number in 0..500_u32 {
            match database.begin().get(&number.to_be_bytes()).await {
                // A page that lost keys is not noticed; one with other values is.
                Ok(found) => {
                    right += u32::from(found.is_some());
                    assert!(found.is_none_or(|found| found == value(number)), "round {round}");
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
                    refused += 1;
                }
            }
        }
    }
    assert!(right > 0 && refused > 0, "{right} right, {refused} refused");
}

#[tokio::test]
async fn a_start_that_was_cut_short_leaves_nothing_in_the_next_ones_way() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.4711.draft"), [0; 5_000]).unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1")]).await;
    database.close().await;
    drop(database);
    assert!(!folder.path().join(format!("store.{}.draft", std::process::id())).exists());
    std::fs::write(folder.path().join("store.redb"), b"").unwrap();
    let error = Database::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "an empty file was a store once: {error}");
}

#[tokio::test]
async fn a_handle_that_is_kept_does_not_keep_what_it_may_not_read_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let size = || std::fs::metadata(folder.path().join("store.redb")).unwrap().len();
    let overwrite = async |times: usize| {
        for _ in 0..times {
            let tx = database.begin();
            tx.set(b"k", &vec![7; VALUE_SIZE_LIMIT]);
            tx.commit().await.unwrap();
        }
    };
    let reader = database.begin();
    reader.get(b"k").await.unwrap();
    let committed = database.begin();
    committed.set(b"a", b"1");
    committed.commit().await.unwrap();
    overwrite(20).await;
    tokio::time::sleep(LIFETIME + Duration::from_millis(200)).await;
    overwrite(5).await;
    let before = size();
    overwrite(100).await;
    let grown = size() - before.min(size());
    assert!(grown < 3_000_000, "it grew by {grown} bytes while 10 MB were overwritten");
    assert_eq!(kind(reader.get(b"k").await), ErrorKind::TooOld);
    assert!(committed.committed_version().is_some());
}

#[tokio::test]
async fn a_watch_of_a_failed_commit_gives_its_error() {
    let database = Database::scratch().unwrap();
    let tx = database.begin();
    tx.get(b"a").await.unwrap();
    tx.set(b"b", b"");
    let watch = tx.watch(b"c").await.unwrap();
    write(&database, &[("a", "1")]).await;
    assert_eq!(kind(tx.commit().await), ErrorKind::Conflict);
    assert_eq!(kind(watch.await), ErrorKind::Conflict);
}

#[tokio::test]
async fn many_handles_share_one_engine() {
    let database = Arc::new(Database::scratch().unwrap());
    let handles = (0..8_u8).map(|number| {
        let database = Database::clone(&database);
        async move {
            let tx = database.begin();
            tx.set(&[number], b"");
            tx.commit().await.unwrap();
        }
    });
    join_all(handles).await;
    let page = database.begin().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap();
    assert_eq!(page.rows.len(), 8);
}

#[tokio::test]
async fn a_view_stays_as_it_was_for_longer_than_a_transaction_lives() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1"), ("b", "1"), ("c", "1")]).await;
    let view = database.view().await.unwrap();
    assert_eq!(view.consistency(), Consistency::OneVersion);
    let tx = database.begin();
    tx.read_version().await.unwrap();
    tx.clear(b"b");
    tx.set(b"a", b"2");
    tx.commit().await.unwrap();
    tokio::time::sleep(LIFETIME + Duration::from_millis(200)).await;
    write(&database, &[("d", "3")]).await;

    assert!(view.version() < tx.committed_version().unwrap());
    assert_eq!(view.get(b"b").await.unwrap().as_deref(), Some(&b"1"[..]));
    let page = view.page(b"", b"c", usize::MAX).await.unwrap();
    let rows: Vec<_> = page.rows.iter().map(|row| (&row.key[..], row.value.as_deref())).collect();
    assert_eq!(rows, [(&b"a"[..], Some(&b"1"[..])), (b"b", Some(b"1"))]);
    assert!(!page.more);
    let first = view.page(b"", b"\xff", 1).await.unwrap();
    assert_eq!((first.rows.len(), first.more), (1, true));
    let now = database.view().await.unwrap();
    assert_eq!(now.get(b"b").await.unwrap(), None);
}

#[tokio::test]
async fn a_view_of_a_closed_database_is_closed_and_the_folder_free_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1")]).await;
    let view = database.view().await.unwrap();
    database.close().await;
    assert_eq!(kind(view.get(b"a").await), ErrorKind::Closed);
    assert_eq!(kind(view.page(b"", b"b", 1).await), ErrorKind::Closed);
    assert_eq!(kind(database.view().await), ErrorKind::Closed);
    assert_eq!(kind(database.advance_version(7).await), ErrorKind::Closed);
    drop(view);
    Database::open(folder.path()).unwrap();
}

#[tokio::test]
async fn versions_go_on_from_one_that_was_advanced_to_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    let commit = async |database: &Database| {
        let tx = database.begin();
        tx.get(b"a").await.unwrap();
        tx.set(b"a", b"");
        tx.commit().await.unwrap();
        tx.committed_version().unwrap()
    };
    let before = commit(&database).await;
    let later = before + 1_000_000_000_000;
    database.advance_version(later).await.unwrap();
    database.advance_version(7).await.unwrap();
    let after = commit(&database).await;
    assert!(after > later && after < later + 1_000);
    drop(database);
    let database = Database::open(folder.path()).unwrap();
    assert!(commit(&database).await > after);
    let error = database.advance_version(u64::MAX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_file_is_found_and_its_pages_compared() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!Database::is_in(folder.path()).unwrap());
    assert_eq!(kind(Database::check_file(folder.path())), ErrorKind::Unavailable);
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "a value that is looked for"), ("b", "1")]).await;
    assert!(Database::is_in(folder.path()).unwrap());
    assert_eq!(kind(Database::check_file(folder.path())), ErrorKind::Unavailable, "it is in use");
    database.close().await;
    drop(database);
    assert_eq!(Database::check_file(folder.path()).unwrap(), FileState::Sound);

    let path = folder.path().join("store.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let looked_for = b"a value that is looked for";
    let at = bytes.windows(looked_for.len()).position(|bytes| bytes == looked_for).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let database = Database::open(folder.path()).unwrap();
    let view = database.view().await.unwrap();
    assert_eq!(kind(view.get(b"a").await), ErrorKind::Corrupt);
    let rows = view.page(b"", b"\xff", usize::MAX).await.unwrap().rows;
    let values: Vec<_> = rows.iter().map(|row| row.value.as_deref()).collect();
    assert_eq!(values, [None, Some(&b"1"[..])], "the next is read all the same");
    drop((view, database));
    assert_eq!(kind(Database::check_file(folder.path())), ErrorKind::Corrupt);
}
