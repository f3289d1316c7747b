//! Disk failures and power losses at every operation.
//!
//! The recovered store contains exactly the first n commits, including all acknowledged ones. It
//! may be refused only if the disk ignored syncs, or if WAL segments are missing.
//!
//! By default a sample of the operations is tested; all of them with
//!
//! ```text
//! CODITECT_OUTAGE_STEP=1 cargo test -p coditect-store --lib outages
//! ```

use std::{collections::BTreeMap, env, sync::Arc};

use super::{
    super::*,
    faulty::{Fault, Faulty, Unsynced},
};
use crate::engine::{Database, Engine, RangeQuery};

/// Default step between the tested operations.
const DEFAULT_STEP: u64 = 17;
const COMMITS: u32 = 30;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Memtable budget so small that all commits but the last are checkpointed, in bytes.
const SMALL_MEMTABLE: usize = 1 << 12;
/// Memtable budget without checkpoints before the end: all commits stay in several segments, in
/// bytes.
const LARGE_MEMTABLE: usize = 64 << 20;

pub(super) fn database(disk: Arc<dyn Vfs>) -> Result<Database> {
    database_with(disk, SMALL_MEMTABLE)
}

fn database_with(disk: Arc<dyn Vfs>, memtable_bytes: usize) -> Result<Database> {
    let options = Options { memtable_bytes, ..Options::default() };
    Embedded::start("memory", disk, &options).map(|engine| Database::of(Engine::Embedded(engine)))
}

/// Applies the n-th commit to a transaction and to the expected state.
trait Target {
    fn set(&mut self, key: &[u8], value: &[u8]);
    fn clear_range(&mut self, begin: &[u8], end: &[u8]);
}

impl Target for Rows {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.insert(key.to_vec(), value.to_vec());
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        self.retain(|key, _| key.as_slice() < begin || key.as_slice() >= end);
    }
}

impl Target for crate::engine::Transaction {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        Self::set(self, key, value);
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) {
        Self::clear_range(self, begin, end);
    }
}

fn act(n: u32, target: &mut impl Target) {
    let [.., low] = n.to_be_bytes();
    target.set(b"last", &n.to_be_bytes());
    let value = n.to_le_bytes().repeat(if n.is_multiple_of(3) { 20_000 } else { 50 });
    target.set(&[b'k', low], &value);
    if n.is_multiple_of(6) {
        (0..4).for_each(|part| target.set(&[b'l', low, part], &value));
    }
    if n.is_multiple_of(7) {
        target.clear_range(&[b'k', low - 5], &[b'k', low - 2]);
    }
    target.set(&[b'k', low / 2], &[low]);
}

fn after(commits: u32) -> Rows {
    let mut rows = Rows::new();
    (1..=commits).for_each(|n| act(n, &mut rows));
    rows
}

/// Commits until one fails or all are done, and returns the number of acknowledged commits.
async fn run(disk: &Faulty, memtable_bytes: usize) -> u32 {
    let disk = Arc::new(disk.clone());
    let Ok(database) = database_with(disk, memtable_bytes) else { return 0 };
    let mut acknowledged = 0;
    for n in 1..=COMMITS {
        let mut tx = database.begin();
        act(n, &mut tx);
        if tx.commit().await.is_err() {
            break;
        }
        acknowledged = n;
    }
    drop(database);
    acknowledged
}

/// Returns a copy of `disk` without the files that `is_missing`.
fn copy_without(disk: &Memory, is_missing: impl Fn(&str) -> bool) -> Memory {
    let (copy, mut bytes) = (Memory::default(), Vec::new());
    for name in disk.names().unwrap().iter().filter(|name| !is_missing(name)) {
        vfs::read_all(&*disk.open(name).unwrap(), &mut bytes).unwrap();
        copy.create(name).unwrap().write(0, &bytes).unwrap();
    }
    copy
}

/// Removes each WAL segment from `disk`, and all of them, and checks that no acknowledged commit is
/// lost silently. Returns the number of refused stores.
async fn remove_segments(disk: &Memory, acknowledged: u32, context: &str) -> u32 {
    let mut names = disk.names().unwrap();
    names.retain(|name| wal::is_segment(name));
    let all = [names.clone()].into_iter();
    let mut refused = 0;
    for missing in names.iter().map(|name| vec![name.clone()]).chain(all) {
        let is_missing = |name: &str| missing.iter().any(|missing| missing == name);
        match found(copy_without(disk, is_missing)).await {
            Ok(found) => {
                assert!(
                    (acknowledged..=acknowledged + 1).contains(&found),
                    "{found} of {acknowledged} recovered without {missing:?}; {context}"
                );
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}, {missing:?}: {error:?}");
                refused += 1;
            }
        }
    }
    refused
}

/// Recovers the store on `disk`, commits once more, and returns the number of recovered commits.
async fn found(disk: Memory) -> Result<u32> {
    let database = database(Arc::new(disk))?;
    let last = seen(&database).await?;
    let mut tx = database.begin();
    act(last + 1, &mut tx);
    tx.commit().await?;
    Ok(last)
}

/// Returns the number of visible commits.
async fn seen(database: &Database) -> Result<u32> {
    let query = RangeQuery::new(b"", b"\xff");
    let rows = database.begin().get_range(&query).await?.rows;
    let rows: Rows = rows.into_iter().map(|row| (row.key, row.value)).collect();
    let last = rows.get(b"last".as_slice());
    let last = last.map_or(0, |last| u32::from_be_bytes(last[..].try_into().unwrap()));
    assert!(rows == after(last), "the content is not that of the first {last} commits");
    Ok(last)
}

#[tokio::test]
async fn disk_fault_at_any_operation_loses_no_acknowledged_commit() {
    try_all(SMALL_MEMTABLE).await;
}

/// The client commits inline here.
#[tokio::test(flavor = "multi_thread")]
async fn disk_fault_during_inline_commits_loses_no_acknowledged_commit() {
    try_all(SMALL_MEMTABLE).await;
}

#[tokio::test]
async fn disk_fault_before_any_checkpoint_loses_no_acknowledged_commit() {
    try_all(LARGE_MEMTABLE).await;
}

#[tokio::test]
async fn btree_file_is_complete_after_a_clean_shutdown() {
    for memtable_bytes in [SMALL_MEMTABLE, LARGE_MEMTABLE] {
        let disk = Faulty::new(None);
        assert_eq!(run(&disk, memtable_bytes).await, COMMITS);
        for unsynced in [Unsynced::Kept, Unsynced::Dropped] {
            let disk = disk.after_power_loss(unsynced);
            let alone = copy_without(&disk, |name| name != "store.redb");
            assert_eq!(found(alone).await.unwrap(), COMMITS);
        }
    }
}

pub(super) fn step() -> u64 {
    env::var("CODITECT_OUTAGE_STEP").map_or(DEFAULT_STEP, |step| step.parse().unwrap())
}

async fn try_all(memtable_bytes: usize) {
    let step = step();
    let sound = Faulty::new(None);
    assert_eq!(run(&sound, memtable_bytes).await, COMMITS);
    let operations = sound.operations();
    assert!(operations > 100, "{operations} operations");
    let (mut lost_commits, mut refused, mut incomplete) = (0, 0, 0);
    for (n, fault) in
        [Fault::Stop, Fault::Tear, Fault::Full, Fault::IgnoreSyncs].into_iter().enumerate()
    {
        for at in (n as u64..operations).step_by(usize::try_from(step).unwrap()) {
            let disk = Faulty::new(Some((at, fault)));
            let acknowledged = run(&disk, memtable_bytes).await;
            for unsynced in [Unsynced::Kept, Unsynced::Dropped, Unsynced::Mixed] {
                let context = format!("{fault:?} at {at} of {operations}, unsynced {unsynced:?}");
                let after = disk.after_power_loss(unsynced);
                if fault != Fault::IgnoreSyncs && (step == 1 || unsynced != Unsynced::Mixed) {
                    incomplete += remove_segments(&after, acknowledged, &context).await;
                }
                match found(after).await {
                    Ok(found) if fault == Fault::IgnoreSyncs && unsynced != Unsynced::Kept => {
                        lost_commits += u32::from(found < acknowledged);
                    }
                    Ok(found) => {
                        assert!(
                            (acknowledged..=acknowledged + 1).contains(&found),
                            "{found} of {acknowledged} recovered; {context}"
                        );
                    }
                    Err(error) if fault == Fault::IgnoreSyncs && unsynced != Unsynced::Kept => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{context}: {error:?}");
                        refused += 1;
                    }
                    Err(error) => panic!("{context}: {error:?}"),
                }
            }
        }
    }
    assert!(lost_commits + refused > 0, "ignored syncs had no effect");
    assert!(incomplete > 0, "no missing segment was detected");
}

/// A killed process leaves its last writes unsynced in the page cache.
#[tokio::test]
async fn recovered_commits_survive_a_power_loss() {
    let sound = Faulty::new(None);
    assert_eq!(run(&sound, SMALL_MEMTABLE).await, COMMITS);
    let mut unacknowledged = 0;
    for at in (0..sound.operations()).step_by(usize::try_from(step().min(7)).unwrap()) {
        let disk = Faulty::new(Some((at, Fault::Stop)));
        let acknowledged = run(&disk, SMALL_MEMTABLE).await;
        disk.repair();
        let again = database(Arc::new(disk.clone())).unwrap();
        let seen = seen(&again).await.unwrap();
        unacknowledged += u32::from(seen > acknowledged);
        for unsynced in [Unsynced::Dropped, Unsynced::Mixed] {
            let found = found(disk.after_power_loss(unsynced)).await.unwrap();
            assert!(found >= seen, "{found} of {seen} recovered; stopped at {at}, {unsynced:?}");
        }
        drop(again);
    }
    assert!(unacknowledged > 0, "no commit was written and not synced");
}

/// A killed process may leave the directory entry of a new segment unsynced.
#[tokio::test]
async fn new_segment_names_are_durable_after_a_kill() {
    async fn fill(disk: &Faulty) {
        let Ok(database) = database_with(Arc::new(disk.clone()), LARGE_MEMTABLE) else { return };
        for n in 0..14_u8 {
            let tx = database.begin();
            tx.set(&[b'f', n], &vec![n; 90_000]);
            if tx.commit().await.is_err() {
                break;
            }
        }
    }
    let sound = Faulty::new(None);
    fill(&sound).await;
    let mut refused = 0;
    for at in 0..sound.operations() {
        let disk = Faulty::new(Some((at, Fault::Stop)));
        fill(&disk).await;
        disk.repair();
        let database = database_with(Arc::new(disk.clone()), LARGE_MEMTABLE).unwrap();
        let tx = database.begin();
        tx.set(b"acknowledged", b"");
        tx.commit().await.unwrap();
        let after = disk.after_power_loss(Unsynced::Dropped);
        for name in after.names().unwrap().iter().filter(|name| wal::is_segment(name)) {
            let incomplete = copy_without(&after, |missing| missing == name);
            match database_with(Arc::new(incomplete), LARGE_MEMTABLE) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                    refused += 1;
                }
                Ok(database) => {
                    let found = database.begin().get(b"acknowledged").await.unwrap();
                    assert!(found.is_some(), "lost silently with {name}; stopped at {at}");
                }
            }
        }
    }
    assert!(refused > 0, "no missing segment was detected");
}

/// Full segments are recycled or removed only once the B-tree contains their frames.
#[tokio::test]
async fn segments_are_recycled_only_after_their_checkpoint() {
    const COMMITS: u32 = 240;
    let disk = Faulty::new(None);
    // Less than a checkpoint, in four segments of 1, 4, 16 and 64 MiB: of three free ones the
    // shortest would be removed.
    let options = Options { memtable_bytes: 256 << 20, ..Options::default() };
    let open = |disk: Arc<dyn Vfs>| {
        let engine = Embedded::start("memory", disk, &options).unwrap();
        Database::of(Engine::Embedded(engine))
    };
    let database = open(Arc::new(disk.clone()));
    for n in 0..COMMITS {
        let tx = database.begin();
        tx.set(&n.to_be_bytes(), &vec![7; 95_000]);
        tx.commit().await.unwrap();
    }
    let segments = disk.names().unwrap().iter().filter(|name| wal::is_segment(name)).count();
    assert!(segments >= 4, "{segments} segments");
    let again = open(Arc::new(disk.after_power_loss(Unsynced::Kept)));
    for n in 0..COMMITS {
        let found = again.begin().get(&n.to_be_bytes()).await.unwrap();
        assert!(found.is_some(), "{n} is lost");
    }
}
