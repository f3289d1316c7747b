//! Recovery from torn, damaged and incomplete logs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    super::{
        btree_file::BTreeFile,
        vfs::{Directory, Memory, Vfs, read_all},
    },
    Encoder, FrameBuilder, Log, Mutation, Recorded,
    segment::{Header, is_segment},
};
use crate::{
    ErrorKind, Result,
    engine::{Database, RangeQuery},
};

fn segments(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension() == Some("wal".as_ref())).collect();
    files.sort();
    files
}

async fn keys(database: &Database) -> Vec<Vec<u8>> {
    let page = database.begin().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap();
    page.rows.into_iter().map(|row| row.key).collect()
}

/// Returns a folder after a kill: the commits of the keys 0, 1, … are in the WAL and not in the
/// B-tree.
async fn killed(commits: u8, bytes: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path()).unwrap();
    for n in 0..commits {
        let tx = database.begin();
        tx.set(&[n], &vec![n; bytes]);
        tx.commit().await.unwrap();
    }
    copied(folder.path())
}

/// Returns the offsets of the frames of a segment.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mark = Header::of(bytes).unwrap().unwrap().magic();
    (8_192..bytes.len() - 4).step_by(8).filter(|at| bytes[*at..at + 4] == mark).collect()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn opened(folder: &Path) -> Result<Database> {
    Database::open(folder)
}

#[tokio::test]
async fn commits_in_the_wal_survive_a_kill() {
    let folder = killed(5, 100).await;
    for _ in 0..3 {
        let database = opened(folder.path()).unwrap();
        assert_eq!(keys(&database).await, [[0], [1], [2], [3], [4]]);
    }
}

#[tokio::test]
async fn wal_without_its_btree_file_is_refused_unchanged() {
    let folder = killed(5, 100).await;
    let file = folder.path().join("store.redb");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let error = opened(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("store.redb is missing"), "{error}");
    assert!(!file.exists(), "a new store was made");
    fs::write(&file, bytes).unwrap();
    assert_eq!(keys(&opened(folder.path()).unwrap()).await.len(), 5);
}

fn remove_log(folder: &Path) {
    for file in segments(folder) {
        fs::remove_file(file).unwrap();
    }
}

fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn assert_incomplete(folder: &Path) {
    let error = opened(folder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let message = error.to_string();
    assert!(message.contains("of the WAL is missing"), "{message}");
    assert!(message.contains("restore a backup"), "{message}");
    assert!(message.contains("check --repair --accept-data-loss"), "{message}");
    assert_eq!(Database::check_file(folder).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn btree_file_without_its_wal_is_refused_after_a_crash() {
    let folder = killed(5, 100).await;
    remove_log(folder.path());
    assert_incomplete(folder.path());
    assert!(segments(folder.path()).is_empty(), "a log was made");

    let lost = Database::truncate_damaged_log(folder.path()).unwrap().unwrap();
    assert!(lost.contains("is missing"), "{lost}");
    assert!(Database::truncate_damaged_log(folder.path()).unwrap().is_none());
    let database = opened(folder.path()).unwrap();
    assert!(keys(&database).await.is_empty());
    set(&database, b"after").await;
    let again = copied(folder.path());
    assert_eq!(keys(&opened(again.path()).unwrap()).await, [b"after"]);
}

async fn set(database: &Database, key: &[u8]) {
    let tx = database.begin();
    tx.set(key, b"");
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn btree_file_opens_alone_after_a_clean_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for key in [b"a", b"b", b"c"] {
        let database = opened(folder.path()).unwrap();
        assert_eq!(keys(&database).await, expected);
        set(&database, key).await;
        expected.push(key.to_vec());
        // The first commit voids the clean shutdown, even before a checkpoint.
        let killed = copied(folder.path());
        remove_log(killed.path());
        assert_incomplete(killed.path());
        database.close().await;
        drop(database);
        remove_log(folder.path());
    }
    // Also with its WAL.
    let database = opened(folder.path()).unwrap();
    database.close().await;
    drop(database);
    assert_eq!(keys(&opened(copied(folder.path()).path()).unwrap()).await, expected);
}

#[tokio::test]
async fn each_missing_segment_is_refused_unless_it_has_no_commit() {
    let folder = killed(60, 99_000).await;
    let files = segments(folder.path());
    assert!(files.len() >= 3, "{files:?}");
    let mut refused = 0;
    for file in &files {
        let copy = copied(folder.path());
        fs::remove_file(copy.path().join(file.file_name().unwrap())).unwrap();
        if frames(&fs::read(file).unwrap()).is_empty() {
            // Prepared and not named yet: it has no commit.
            assert_eq!(keys(&opened(copy.path()).unwrap()).await.len(), 60);
            continue;
        }
        assert_incomplete(copy.path());
        refused += 1;
    }
    assert!(refused >= 3, "{refused} of {} files", files.len());
}

#[test]
fn required_segment_is_not_recycled() {
    let disk: Arc<dyn Vfs> = Arc::new(Memory::default());
    let recorded = Recorded { store: 1, is_clean: true, ..Recorded::default() };
    let replayed = super::replay(&*disk, recorded, |_| {}).unwrap();
    let mut log = Log::new(Arc::clone(&disk), 1, replayed, 1 << 20);
    let first = log.first_segment().unwrap();
    let numbers = || -> Vec<_> {
        let mut bytes = Vec::new();
        let names = disk.names().unwrap().into_iter().filter(|name| is_segment(name));
        let numbers = names.map(|name| {
            read_all(&*disk.open(&name).unwrap(), &mut bytes).unwrap();
            Header::of(&bytes).unwrap().unwrap().number
        });
        numbers.collect()
    };
    // The last checkpoint ended in the first segment.
    let mut last = first;
    for version in 1..=60 {
        let mutations =
            [Mutation::Set { key: b"a", value: &vec![1; 90_000] }].into_iter().collect();
        let (pending, position) =
            log.append(FrameBuilder::of(&[mutations]), version, false).unwrap();
        pending.write().unwrap();
        log.release(first);
        assert!(numbers().contains(&first), "recycled at version {version}");
        last = position.segment;
    }
    assert!(last > first + 3, "{last} segments");
    log.release(last);
    let earlier = numbers().into_iter().filter(|number| *number < last).count();
    assert!(earlier <= 2, "{earlier} segments are kept though nothing requires them");
}

#[tokio::test]
async fn restarts_continue_the_last_segment() {
    let folder = killed(5, 100).await;
    let mut folder = folder;
    for round in 0..4 {
        let database = opened(folder.path()).unwrap();
        set(&database, &[b'r', round]).await;
        let after = copied(folder.path());
        drop(database);
        folder = after;
    }
    assert_eq!(segments(folder.path()).len(), 1);
    assert_eq!(keys(&opened(folder.path()).unwrap()).await.len(), 9);
}

#[tokio::test]
async fn torn_tail_is_truncated() {
    let folder = killed(5, 100).await;
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    change(segment, |bytes| {
        let last = *frames(bytes).last().unwrap();
        bytes[last + 60..last + 80].fill(0);
    });
    let database = opened(folder.path()).unwrap();
    assert_eq!(keys(&database).await, [[0], [1], [2], [3]]);
    let tx = database.begin();
    tx.set(b"after", b"");
    tx.commit().await.unwrap();
    // Killed again, with the torn tail in place.
    let again = copied(folder.path());
    drop(database);
    let database = opened(again.path()).unwrap();
    assert_eq!(keys(&database).await.len(), 5);
}

#[tokio::test]
async fn gap_before_intact_commits_is_refused_until_truncated() {
    let folder = killed(5, 100).await;
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    change(segment, |bytes| {
        let third = frames(bytes)[2];
        bytes[third + 60] ^= 1;
    });
    let before = fs::read(segment).unwrap();
    let error = opened(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let message = error.to_string();
    assert!(message.contains("2 later batches"), "{message}");
    assert!(message.contains("check --repair --accept-data-loss"), "{message}");
    assert!(fs::read(segment).unwrap() == before, "it was written to");
    let check = Database::check_file(folder.path()).unwrap_err();
    assert_eq!(check.kind(), ErrorKind::Corrupt);

    let lost = Database::truncate_damaged_log(folder.path()).unwrap().unwrap();
    assert!(lost.contains("2 later batches"), "{lost}");
    assert!(Database::truncate_damaged_log(folder.path()).unwrap().is_none());
    let database = opened(folder.path()).unwrap();
    assert_eq!(keys(&database).await, [[0], [1]]);
    let names = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
    let mut aside = names.filter(|name| name.to_string_lossy().contains(".wal.damaged-"));
    assert!(fs::read(folder.path().join(aside.next().unwrap())).unwrap() == before);
}

#[tokio::test]
async fn wal_with_a_missing_middle_segment_is_refused() {
    let folder = killed(60, 99_000).await;
    let segments = segments(folder.path());
    assert!(segments.len() >= 3, "{segments:?}");
    fs::remove_file(&segments[1]).unwrap();
    let error = opened(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn segment_with_two_damaged_headers_is_refused_by_name() {
    let folder = killed(5, 100).await;
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    change(segment, |bytes| bytes[..4_096].fill(0));
    assert_eq!(keys(&opened(folder.path()).unwrap()).await.len(), 5);

    let folder = killed(5, 100).await;
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    change(segment, |bytes| bytes[..8_192].fill(0));
    let told = opened(folder.path()).unwrap_err().to_string();
    assert!(told.contains("log-0000.wal"), "{told}");
}

#[tokio::test]
async fn damaged_header_of_a_later_segment_loses_no_intact_commit() {
    let folder = killed(8, 100).await;
    fs::write(folder.path().join("log-0001.wal"), vec![0; 1 << 20]).unwrap();
    assert_eq!(opened(folder.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    let lost = Database::truncate_damaged_log(folder.path()).unwrap().unwrap();
    assert!(lost.contains("log-0001.wal"), "{lost}");
    assert_eq!(keys(&opened(folder.path()).unwrap()).await.len(), 8);
}

#[tokio::test]
async fn truncating_without_a_store_fails() {
    let folder = tempfile::tempdir().unwrap();
    let error = Database::truncate_damaged_log(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn wal_of_another_store_is_refused() {
    let (one, other) = (killed(5, 100).await, killed(5, 100).await);
    fs::copy(&segments(one.path())[0], &segments(other.path())[0]).unwrap();
    let error = opened(other.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("another store"), "{error}");
}

#[tokio::test]
async fn changed_bytes_never_panic_or_add_commits() {
    let sound = killed(5, 100).await;
    let [segment] = &segments(sound.path())[..] else { panic!("one segment") };
    let whole = fs::read(segment).unwrap();
    let end = frames(&whole).last().unwrap() + 200;
    for round in 0..60_usize {
        let at = 8_192 + round * 7_919 % (end - 8_192);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        fs::write(segment, &bytes).unwrap();
        let folder = copied(sound.path());
        match opened(folder.path()) {
            Ok(database) => {
                let count = keys(&database).await.len();
                assert!((4..=5).contains(&count), "{count} with a changed byte at {at}");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "at {at}: {error}"),
        }
    }
}

/// Prints the duration and the peak memory of recovering one gigabyte of rows of 1 KiB.
#[tokio::test]
#[ignore = "writes 1 GB: cargo test --release -p coditect-store --lib a_gigabyte -- --ignored"]
async fn a_gigabyte_is_recovered() {
    const BATCHES: u64 = 1 << 10;
    const ROWS: u64 = 1 << 10;
    // Unordered keys, none of which begins with 0xff.
    let key = |row: u64| (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1).to_be_bytes();
    let folder = tempfile::tempdir_in(".").unwrap();
    let disk: Arc<dyn Vfs> = Arc::new(Directory::make(folder.path()).unwrap());
    let btree = BTreeFile::open(&*disk, 1 << 20).unwrap();
    let recorded = btree.recorded();
    let replayed = super::replay(&*disk, recorded, |_| {}).unwrap();
    let replayed = replayed.require_contiguous().unwrap();
    let mut log = Log::new(Arc::clone(&disk), recorded.store, replayed, 256 << 20);
    for batch in 0..BATCHES {
        let mut rows = Encoder::default();
        for row in batch * ROWS..(batch + 1) * ROWS {
            rows.push(Mutation::Set { key: &key(row), value: &[row.to_be_bytes()[7]; 1_000] });
        }
        let (placed, _) = log.append(FrameBuilder::of(&[rows.take()]), batch + 1, false).unwrap();
        placed.write().unwrap();
    }
    drop((log, btree, disk));
    let began = Instant::now();
    let database = opened(folder.path()).unwrap();
    let took = began.elapsed();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("memory unknown");
    println!("recovered in {:.1} s, {peak}", took.as_secs_f64());
    for row in (0..BATCHES * ROWS).step_by(1_009) {
        let value = database.begin().get(&key(row)).await.unwrap();
        assert_eq!(value.unwrap(), [row.to_be_bytes()[7]; 1_000]);
    }
}
