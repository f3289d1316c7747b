//! Whatever the disk does, and whenever the power goes: what is found afterwards is what the first so
//! many commits made, those that were acknowledged among them; or it is refused, if the disk lied.
//!
//! A few of the points are tried; all of them with
//!
//! ```text
//! CODITECT_OUTAGE_STEP=1 cargo test -p coditect-store --lib outages
//! ```

use std::{collections::BTreeMap, env, sync::Arc};

use super::{
    super::RangeQuery,
    faulty::{Fault, Faulty, Unsynced},
    *,
};
use crate::engine::{Database, Engine};

/// Every so-manieth operation fails, if not said.
const STEP: u64 = 17;
const COMMITS: u32 = 30;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

pub(super) fn database(disk: Arc<dyn Disk>) -> Result<Database> {
    // So little that all but the last commits are moved to the B-tree.
    let options = Options { overlay_bytes: 1 << 12, ..Options::default() };
    Embedded::start("memory", disk, &options).map(|engine| Database::of(Engine::Embedded(engine)))
}

/// What the n-th commit does: to a transaction, and to what is expected.
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
    target
        .set(&[b'k', low], &n.to_le_bytes().repeat(if n.is_multiple_of(3) { 20_000 } else { 50 }));
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

/// Commits until one fails or all are done; how many were acknowledged.
async fn run(disk: &Faulty) -> u32 {
    let Ok(database) = database(Arc::new(disk.clone())) else { return 0 };
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

/// How many commits are found.
async fn found(disk: Memory) -> Result<u32> {
    let database = database(Arc::new(disk))?;
    let last = seen(&database).await?;
    // It can be gone on with.
    let mut tx = database.begin();
    act(last + 1, &mut tx);
    tx.commit().await?;
    Ok(last)
}

/// How many commits can be seen.
async fn seen(database: &Database) -> Result<u32> {
    let query = RangeQuery::new(b"", b"\xff");
    let rows = database.begin().get_range(&query).await?.rows;
    let rows: Rows = rows.into_iter().map(|row| (row.key, row.value)).collect();
    let last = rows.get(b"last".as_slice());
    let last = last.map_or(0, |last| u32::from_be_bytes(last[..].try_into().unwrap()));
    assert!(rows == after(last), "what is there is not what the first {last} commits made");
    Ok(last)
}

#[tokio::test]
async fn whatever_the_disk_does_what_was_acknowledged_is_there_and_nothing_by_half() {
    try_all().await;
}

/// The client leads the sequencer here.
#[tokio::test(flavor = "multi_thread")]
async fn nor_is_it_otherwise_for_a_client_that_writes_itself() {
    try_all().await;
}

pub(super) fn step() -> u64 {
    env::var("CODITECT_OUTAGE_STEP").map_or(STEP, |step| step.parse().unwrap())
}

async fn try_all() {
    let step = step();
    let sound = Faulty::new(None);
    assert_eq!(run(&sound).await, COMMITS);
    let operations = sound.operations();
    assert!(operations > 100, "{operations} operations");
    let (mut lost_by_lies, mut refused) = (0, 0);
    for (n, fault) in [Fault::Stop, Fault::Tear, Fault::Full, Fault::Lie].into_iter().enumerate() {
        for at in (n as u64..operations).step_by(usize::try_from(step).unwrap()) {
            let disk = Faulty::new(Some((at, fault)));
            let acknowledged = run(&disk).await;
            for unsynced in [Unsynced::Kept, Unsynced::Dropped, Unsynced::Mixed] {
                let what = format!("{fault:?} at {at} of {operations}, unsynced {unsynced:?}");
                match found(disk.after_power_loss(unsynced)).await {
                    Ok(found) if fault == Fault::Lie && unsynced != Unsynced::Kept => {
                        lost_by_lies += u32::from(found < acknowledged);
                    }
                    Ok(found) => {
                        assert!(
                            (acknowledged..=acknowledged + 1).contains(&found),
                            "{found} of {acknowledged} are there; {what}"
                        );
                    }
                    Err(error) if fault == Fault::Lie && unsynced != Unsynced::Kept => {
                        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error:?}");
                        refused += 1;
                    }
                    Err(error) => panic!("{what}: {error:?}"),
                }
            }
        }
    }
    assert!(lost_by_lies + refused > 0, "a disk that lies loses something: is it one?");
}

/// A killed program leaves in the system's cache what it wrote last and did not sync.
#[tokio::test]
async fn what_is_seen_after_a_restart_is_there_when_the_power_goes_then() {
    let sound = Faulty::new(None);
    assert_eq!(run(&sound).await, COMMITS);
    let mut unacknowledged = 0;
    for at in (0..sound.operations()).step_by(usize::try_from(step().min(7)).unwrap()) {
        let disk = Faulty::new(Some((at, Fault::Stop)));
        let acknowledged = run(&disk).await;
        disk.repair();
        let again = database(Arc::new(disk.clone())).unwrap();
        let seen = seen(&again).await.unwrap();
        unacknowledged += u32::from(seen > acknowledged);
        for unsynced in [Unsynced::Dropped, Unsynced::Mixed] {
            let found = found(disk.after_power_loss(unsynced)).await.unwrap();
            assert!(found >= seen, "{found} of {seen} are there; stopped at {at}, {unsynced:?}");
        }
        drop(again);
    }
    assert!(unacknowledged > 0, "none was written, and not synced");
}

/// Files of the log that are full are used again, or removed, only once the B-tree has what is in them.
#[tokio::test]
async fn a_kill_loses_nothing_of_a_file_of_the_log_that_the_b_tree_has_not() {
    let disk = Faulty::new(None);
    // More than a first file and half of a second one, and less than what is moved at once.
    let options = Options { overlay_bytes: 64 << 20, ..Options::default() };
    let open = |disk: Arc<dyn Disk>| {
        let engine = Embedded::start("memory", disk, &options).unwrap();
        Database::of(Engine::Embedded(engine))
    };
    let database = open(Arc::new(disk.clone()));
    for n in 0..70_u8 {
        let tx = database.begin();
        tx.set(&[n], &vec![n; 50_000]);
        tx.commit().await.unwrap();
    }
    let again = open(Arc::new(disk.after_power_loss(Unsynced::Kept)));
    for n in 0..70_u8 {
        assert!(again.begin().get(&[n]).await.unwrap().is_some(), "{n} is gone");
    }
}
