//! Tests of the embedded engine in a folder, beyond the [contract](crate::conformance): restarts,
//! damaged files, clock changes, views.

use std::time::Duration;

use chrono::{DateTime, TimeDelta};

use super::*;
use crate::{
    Clock, ErrorKind, ManualClock,
    conformance::{kind, value, write},
};

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
    assert_eq!(kind(tx.get(b"a").await), ErrorKind::TransactionTooOld);
    assert_eq!(kind(tx.commit().await), ErrorKind::TransactionTooOld);
}

#[tokio::test]
async fn commits_survive_a_restart() {
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

#[tokio::test]
async fn files_are_accessible_only_to_their_owner() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new/data");
    let _database = Database::open(&data).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("store.redb")), 0o600);
}

#[tokio::test]
async fn versions_increase_when_the_clock_goes_back() {
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
async fn second_open_is_refused_until_the_first_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1")]).await;
    let error = Database::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("in use by this process"), "{error}");
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
async fn foreign_file_is_refused_unchanged() {
    for damage in [b"not a database at all".to_vec(), vec![0; 8_192], vec![0xff; 100_000]] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        std::fs::write(&path, &damage).unwrap();
        assert_eq!(kind(Database::open(folder.path())), ErrorKind::Corrupt);
        assert_eq!(std::fs::read(&path).unwrap(), damage);
    }
}

#[tokio::test]
async fn damaged_header_is_refused_unchanged() {
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
        assert!(std::fs::read(&path).unwrap() == file, "{name}: the file was changed");
    }
}

#[tokio::test]
async fn reads_of_a_damaged_file_are_correct_or_refused() {
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
            // A different offset after the header in each round.
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
                // A page that lost keys is not detected, one with other values is.
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
async fn interrupted_creation_does_not_block_the_next_open() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("store.4711.draft"), [0; 5_000]).unwrap();
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "1")]).await;
    database.close().await;
    drop(database);
    assert!(!folder.path().join(format!("store.{}.draft", std::process::id())).exists());
    std::fs::write(folder.path().join("store.redb"), b"").unwrap();
    let error = Database::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "an empty file is not a store: {error}");
}

#[tokio::test]
async fn expired_transaction_does_not_pin_its_snapshot() {
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
    assert!(grown < 3_000_000, "the file grew by {grown} bytes while 10 MB were overwritten");
    assert_eq!(kind(reader.get(b"k").await), ErrorKind::TransactionTooOld);
    assert!(committed.committed_version().is_some());
}

#[tokio::test]
async fn view_outlives_the_transaction_lifetime() {
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
async fn view_of_a_closed_database_returns_closed() {
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
async fn advanced_version_is_durable() {
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
async fn check_file_verifies_all_pages() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!Database::exists(folder.path()).unwrap());
    assert_eq!(kind(Database::check_file(folder.path())), ErrorKind::Unavailable);
    let database = Database::open(folder.path()).unwrap();
    write(&database, &[("a", "a value to damage"), ("b", "1")]).await;
    assert!(Database::exists(folder.path()).unwrap());
    assert_eq!(
        kind(Database::check_file(folder.path())),
        ErrorKind::Unavailable,
        "the store is open"
    );
    database.close().await;
    drop(database);
    assert_eq!(Database::check_file(folder.path()).unwrap(), FileState::Sound);

    let path = folder.path().join("store.redb");
    let mut bytes = std::fs::read(&path).unwrap();
    let needle = b"a value to damage";
    let at = bytes.windows(needle.len()).position(|bytes| bytes == needle).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let database = Database::open(folder.path()).unwrap();
    let view = database.view().await.unwrap();
    assert_eq!(kind(view.get(b"a").await), ErrorKind::Corrupt);
    let rows = view.page(b"", b"\xff", usize::MAX).await.unwrap().rows;
    let values: Vec<_> = rows.iter().map(|row| row.value.as_deref()).collect();
    assert_eq!(values, [None, Some(&b"1"[..])], "the next row is read");
    drop((view, database));
    assert_eq!(kind(Database::check_file(folder.path())), ErrorKind::Corrupt);
}
