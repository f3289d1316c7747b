//! What becomes of a log that was torn, damaged, or of which a file is missing.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    super::{
        disk::{Disk, Folder},
        storage::Storage,
    },
    Change, Draft, Encoder, Log,
    segment::Header,
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

/// The folder as it is after a kill: commits of the keys 0, 1, … that are in the log and not in the
/// B-tree.
async fn killed(commits: u8, bytes: usize) -> tempfile::TempDir {
    let (folder, after) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = Database::open(folder.path()).unwrap();
    for n in 0..commits {
        let tx = database.begin();
        tx.set(&[n], &vec![n; bytes]);
        tx.commit().await.unwrap();
    }
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), after.path().join(file.file_name())).unwrap();
    }
    after
}

/// Where frames begin in a segment.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let mark = Header::of(bytes).unwrap().unwrap().mark();
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
async fn what_is_in_the_log_alone_is_there_after_a_kill() {
    let folder = killed(5, 100).await;
    for _ in 0..3 {
        let database = opened(folder.path()).unwrap();
        assert_eq!(keys(&database).await, [[0], [1], [2], [3], [4]]);
    }
}

#[tokio::test]
async fn log_without_its_b_tree_file_is_refused_and_left_alone() {
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

#[tokio::test]
async fn a_torn_end_is_cut_and_gone_on_from() {
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
    // Killed again, with the torn end still there.
    let again = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), again.path().join(file.file_name())).unwrap();
    }
    drop(database);
    let database = opened(again.path()).unwrap();
    assert_eq!(keys(&database).await.len(), 5);
}

#[tokio::test]
async fn damage_before_whole_commits_is_refused_with_what_is_lost_and_given_up_when_asked_to() {
    let folder = killed(5, 100).await;
    let [segment] = &segments(folder.path())[..] else { panic!("one segment") };
    change(segment, |bytes| {
        let third = frames(bytes)[2];
        bytes[third + 60] ^= 1;
    });
    let before = fs::read(segment).unwrap();
    let error = opened(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let told = error.to_string();
    assert!(told.contains("2 later batches") && told.contains("check --repair"), "{told}");
    assert!(fs::read(segment).unwrap() == before, "it was written to");
    let check = Database::check_file(folder.path()).unwrap_err();
    assert_eq!(check.kind(), ErrorKind::Corrupt);

    let lost = Database::give_up_lost(folder.path()).unwrap().unwrap();
    assert!(lost.contains("2 later batches"), "{lost}");
    assert!(Database::give_up_lost(folder.path()).unwrap().is_none());
    let database = opened(folder.path()).unwrap();
    assert_eq!(keys(&database).await, [[0], [1]]);
    let names = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name());
    let mut aside = names.filter(|name| name.to_string_lossy().contains(".wal.damaged-"));
    assert!(fs::read(folder.path().join(aside.next().unwrap())).unwrap() == before);
}

#[tokio::test]
async fn a_log_that_lacks_a_file_in_the_middle_is_refused() {
    let folder = killed(60, 99_000).await;
    let segments = segments(folder.path());
    assert!(segments.len() >= 3, "{segments:?}");
    fs::remove_file(&segments[1]).unwrap();
    let error = opened(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_segment_without_a_readable_header_is_refused_by_name_and_one_copy_is_enough() {
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
async fn a_later_segment_without_a_readable_header_costs_nothing_that_is_whole() {
    let folder = killed(8, 100).await;
    fs::write(folder.path().join("log-0001.wal"), vec![0; 1 << 20]).unwrap();
    assert_eq!(opened(folder.path()).unwrap_err().kind(), ErrorKind::Corrupt);
    let lost = Database::give_up_lost(folder.path()).unwrap().unwrap();
    assert!(lost.contains("log-0001.wal"), "{lost}");
    assert_eq!(keys(&opened(folder.path()).unwrap()).await.len(), 8);
}

#[tokio::test]
async fn there_is_nothing_to_give_up_where_there_is_no_store() {
    let folder = tempfile::tempdir().unwrap();
    let error = Database::give_up_lost(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_log_of_another_store_is_refused() {
    let (one, other) = (killed(5, 100).await, killed(5, 100).await);
    fs::copy(&segments(one.path())[0], &segments(other.path())[0]).unwrap();
    let error = opened(other.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("another store"), "{error}");
}

#[tokio::test]
async fn no_byte_of_a_log_makes_it_panic_or_show_what_was_not_committed() {
    let sound = killed(5, 100).await;
    let [segment] = &segments(sound.path())[..] else { panic!("one segment") };
    let whole = fs::read(segment).unwrap();
    let end = frames(&whole).last().unwrap() + 200;
    for round in 0..60_usize {
        let at = 8_192 + round * 7_919 % (end - 8_192);
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (round % 8);
        fs::write(segment, &bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for file in fs::read_dir(sound.path()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        match opened(folder.path()) {
            Ok(database) => {
                let count = keys(&database).await.len();
                assert!((4..=5).contains(&count), "{count} with a changed byte at {at}");
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "at {at}: {error}"),
        }
    }
}

#[tokio::test]
async fn a_store_of_format_1_is_opened_and_becomes_one_with_a_log() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = include_bytes!("../../../../tests/fixtures/stores/format-1.redb.gz");
    let mut file = Vec::new();
    flate2::read::GzDecoder::new(&fixture[..]).read_to_end(&mut file).unwrap();
    fs::write(folder.path().join("store.redb"), file).unwrap();
    for round in 0..2_u32 {
        let database = opened(folder.path()).unwrap();
        assert_eq!(keys(&database).await.len(), 90 + round as usize);
        let value = database.begin().get(&7_u32.to_be_bytes()).await.unwrap();
        assert_eq!(value, Some(7_u32.to_le_bytes().repeat(20)));
        let tx = database.begin();
        tx.get(b"").await.unwrap();
        tx.set(&(1_000 + round).to_be_bytes(), b"");
        tx.commit().await.unwrap();
        assert!(tx.committed_version().unwrap() > 1_700_000_000_000_000);
    }
}

/// How long a gigabyte of rows of 1 KiB takes, and how much memory at the most: it says so.
#[tokio::test]
#[ignore = "writes a gigabyte: cargo test --release -p coditect-store --lib a_gigabyte -- --ignored --nocapture"]
async fn a_gigabyte_is_recovered() {
    const BATCHES: u64 = 1 << 10;
    const ROWS: u64 = 1 << 10;
    // In no order; none begins with 0xff.
    let key = |row: u64| (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1).to_be_bytes();
    let folder = tempfile::tempdir_in(".").unwrap();
    let disk: Arc<dyn Disk> = Arc::new(Folder::make(folder.path()).unwrap());
    let storage = Storage::open(&*disk, 1 << 20).unwrap();
    let (store, applied) = (storage.store(), storage.applied());
    let replayed = super::replay(&*disk, store, applied, |_| {}).unwrap();
    let mut log = Log::new(Arc::clone(&disk), store, replayed.complete().unwrap(), 256 << 20);
    for batch in 0..BATCHES {
        let mut rows = Encoder::default();
        for row in batch * ROWS..(batch + 1) * ROWS {
            rows.push(Change::Set { key: &key(row), value: &[row.to_be_bytes()[7]; 1_000] });
        }
        let (placed, _) = log.append(Draft::of(&[rows.take()]), batch + 1, false).unwrap();
        placed.write().unwrap();
    }
    drop((log, storage, disk));
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
