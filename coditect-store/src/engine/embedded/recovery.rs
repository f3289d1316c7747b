//! Recovery: applying the part of the WAL that the B-tree lacks when a store is opened.
//!
//! A WAL that fits the memtable budget is replayed into memory. A longer one is replayed one key
//! range at a time: the WAL is read once per range, and the range is written to the B-tree in its
//! final state, so the B-tree is written once and from left to right. Only the last range stays in
//! memory. Reading takes as many passes as there are ranges.
//!
//! Until all ranges are written, the B-tree is ahead of its recorded position. Replaying a range
//! twice is harmless. But if the WAL is shorter at the next attempt, since it was damaged in
//! between, neither is complete, and the store is refused.

use super::{
    btree_file::{BTreeFile, Written},
    memtable::Memtable,
    space::Space,
    vfs::Vfs,
    wal::{self, Encoder, Log, Mutation, MutationBatch, Replay},
};
use crate::{Error, ErrorKind, Result};

/// Replays the WAL. Returns its last key range in a memtable of about `bytes`; the ranges before
/// are written to the B-tree, if there is `space`.
///
/// # Errors
///
/// Fails before anything is written if commits are missing from the WAL, unless `may_be_lost`.
pub(super) fn recover(
    disk: &dyn Vfs,
    btree: &mut BTreeFile,
    space: &Space,
    mut bytes: usize,
    may_be_lost: bool,
) -> Result<(Replay, Memtable)> {
    let recorded = btree.recorded();
    let (mut from, mut parts, mut log_end) = (Vec::new(), 0_u32, None);
    loop {
        let mut slice = Slice::new(from, bytes);
        let replayed = wal::replay(disk, recorded, |changes| slice.apply(changes))?;
        check_reached(btree, &replayed)?;
        let replayed = if may_be_lost { replayed } else { replayed.require_contiguous()? };
        if *log_end.get_or_insert(replayed.log_end) != replayed.log_end {
            let message = "two reads of the WAL differ: the disk may be failing";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let Some(end) = slice.end else { return Ok((replayed, slice.memtable)) };
        // The B-tree must not contain anything that the WAL could lose.
        replayed.make_durable()?;
        if btree.apply_partial(&slice.memtable, replayed.log_end.version)? == Written::NoSpace {
            // Without space the rest has to be in memory, whatever its size: reads need it.
            space.set_tree_full(true);
            (from, bytes) = (slice.from, usize::MAX / 8);
            continue;
        }
        parts += 1;
        tracing::info!(parts, "long WAL: key range replayed into the B-tree file");
        from = end;
    }
}

/// Makes the B-tree file require the WAL before anything is committed. Without space for the
/// record, returns the segment to require later; commits are refused until then.
pub(super) fn require_log(
    btree: &mut BTreeFile,
    log: &mut Log,
    space: &Space,
) -> Result<Option<u64>> {
    if !btree.recorded().is_clean {
        return Ok(None);
    }
    let first = log.first_segment();
    let first = first.map_err(|error| if log.is_full() { space.error() } else { error })?;
    if btree.require_log(first)? == Written::Durably {
        return Ok(None);
    }
    space.release_reserve();
    let written = btree.require_log(first)?;
    space.restore_reserve();
    if written == Written::Durably {
        return Ok(None);
    }
    space.set_log_unrequired(true);
    Ok(Some(first))
}

/// Fails if acknowledged commits are missing from the WAL.
pub(super) fn check(disk: &dyn Vfs, btree: &BTreeFile) -> Result<()> {
    let replayed = wal::replay(disk, btree.recorded(), |_| {})?;
    check_reached(btree, &replayed)?;
    replayed.require_contiguous().map(drop)
}

/// Fails if the WAL ends before the position up to which an earlier attempt has moved it.
fn check_reached(btree: &BTreeFile, replayed: &Replay) -> Result<()> {
    let (partial, log_end) = (btree.partial_checkpoint_version(), replayed.log_end.version);
    if partial <= log_end {
        return Ok(());
    }
    let message = format!(
        "the B-tree file contains a part of the commits up to version {partial}, but the WAL now \
         ends at version {log_end}: neither is complete; restore a backup"
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// Size of the chunks that a range is stored in, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// The mutations of one key range, which ends earlier the more mutations there are.
struct Slice {
    from: Vec<u8>,
    end: Option<Vec<u8>>,
    memtable: Memtable,
    limit: usize,
    /// Size at which the range is shortened, in bytes.
    shrink_at: usize,
}

impl Slice {
    fn new(from: Vec<u8>, limit: usize) -> Self {
        Self { from, end: None, memtable: Memtable::default(), limit, shrink_at: limit }
    }

    fn apply(&mut self, changes: &mut dyn Iterator<Item = Mutation<'_>>) {
        let within: MutationBatch = changes.filter_map(|change| self.within(change)).collect();
        self.memtable.apply(&within);
        if self.memtable.bytes() > self.shrink_at {
            self.shrink();
        }
    }

    /// Returns the part of `change` inside the range.
    fn within<'a: 'b, 'b>(&'a self, change: Mutation<'b>) -> Option<Mutation<'b>> {
        let is_before_end = |key: &[u8]| self.end.as_ref().is_none_or(|end| key < end.as_slice());
        match change {
            Mutation::Set { key, .. } | Mutation::Clear { key } => {
                (key >= self.from.as_slice() && is_before_end(key)).then_some(change)
            }
            Mutation::ClearRange { begin, end } => {
                let begin = begin.max(&self.from);
                let end = self.end.as_ref().map_or(end, |last| end.min(last));
                (begin < end).then_some(Mutation::ClearRange { begin, end })
            }
        }
    }

    /// Frees overwritten values, and drops the last quarter of the keys if that was not enough.
    fn shrink(&mut self) {
        self.shrink_at = self.limit;
        let kept = self.memtable.bytes_kept();
        if kept > self.limit / 4 * 3 {
            match self.memtable.key_at(3, 4).filter(|end| **end > *self.from) {
                Some(end) => self.end = Some(end.to_vec()),
                // An indivisible range keeps its size.
                None => self.shrink_at = self.limit.max(2 * kept),
            }
        }
        self.memtable = self.compacted();
    }

    /// Returns a memtable with the content of the range and nothing else.
    fn compacted(&self) -> Memtable {
        let (mut memtable, mut encoder) = (Memtable::default(), Encoder::default());
        for change in self.memtable.changes().filter_map(|change| self.within(change)) {
            encoder.push(change);
            if encoder.length() >= CHUNK_BYTES {
                memtable.apply(&encoder.take());
            }
        }
        memtable.apply(&encoder.take());
        memtable
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{
            super::range::Order,
            snapshot::{Snapshot, SnapshotBase},
            testing::faulty::{Fault, Faulty, Unsynced},
            vfs::Memory,
            wal::FrameBuilder,
        },
        *,
    };

    const CACHE: usize = 1 << 20;

    #[derive(Clone, Debug)]
    enum Op {
        Set(u8, u8),
        Clear(u8),
        ClearRange(u8, u8),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            6 => (any::<u8>(), 0_u8..200).prop_map(|(key, length)| Op::Set(key, length)),
            1 => any::<u8>().prop_map(Op::Clear),
            1 => any::<(u8, u8)>().prop_map(|(a, b)| Op::ClearRange(a.min(b), a.max(b))),
        ];
        vec(op, 1..30)
    }

    type Plain = BTreeMap<Vec<u8>, Vec<u8>>;

    /// Writes the WAL of a new store on `disk`, and returns the expected rows after each commit.
    /// The last commit is not synced.
    fn write(disk: &Arc<dyn Vfs>, commits: &[Vec<Op>]) -> Vec<Plain> {
        let btree = BTreeFile::open(&**disk, CACHE).unwrap();
        let recorded = btree.recorded();
        let (store, applied) = (recorded.store, recorded.applied);
        let replayed = wal::replay(&**disk, recorded, |_| {}).unwrap();
        let mut log = Log::new(Arc::clone(disk), store, replayed, 1 << 20);
        let (mut plain, mut states) = (Plain::new(), Vec::new());
        for (version, ops) in (applied.version + 1..).zip(commits) {
            let mut encoder = Encoder::default();
            for op in ops {
                match *op {
                    Op::Set(key, length) => {
                        let value = vec![version.to_le_bytes()[0]; usize::from(length)];
                        encoder.push(Mutation::Set { key: &[key], value: &value });
                        plain.insert(vec![key], value);
                    }
                    Op::Clear(key) => {
                        encoder.push(Mutation::Clear { key: &[key] });
                        plain.remove(&[key][..]);
                    }
                    Op::ClearRange(begin, end) => {
                        encoder.push(Mutation::ClearRange { begin: &[begin], end: &[end] });
                        plain.retain(|key, _| key[0] < begin || key[0] >= end);
                    }
                }
            }
            let (mut pending, _) =
                log.append(FrameBuilder::of(&[encoder.take()]), version, false).unwrap();
            pending.begin();
            states.push(plain.clone());
            if states.len() < commits.len() {
                pending.write().unwrap();
            }
        }
        states
    }

    /// Returns all recovered rows with the given memory, and the size of the memtable.
    fn rows(disk: &dyn Vfs, bytes: usize) -> Result<(Plain, usize)> {
        let mut btree = BTreeFile::open(disk, CACHE)?;
        let (_, memtable) = recover(disk, &mut btree, &Space::default(), bytes, false)?;
        let held = memtable.bytes();
        let base = Arc::new(SnapshotBase::new(Some(memtable), btree.snapshot()?));
        let snapshot = Snapshot { mutable: Memtable::default(), base };
        let rows = snapshot.rows(b"", b"\xff\xff", Order::Ascending)?;
        let rows = rows.map(|row| row.map(|row| (row.key, row.value))).collect::<Result<_>>()?;
        Ok((rows, held))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn long_wal_is_replayed_one_key_range_at_a_time(commits in vec(ops(), 1..20)) {
            let disk: Arc<dyn Vfs> = Arc::new(Memory::default());
            let states = write(&disk, &commits);
            let (found, held) = rows(&*disk, 2_000).unwrap();
            prop_assert_eq!(Some(&found), states.last());
            prop_assert!(held <= 4_000, "{} bytes in memory", held);
        }
    }

    /// The last commit affects all ranges.
    fn long() -> Vec<Vec<Op>> {
        let few = (0..30_u8).map(|n| vec![Op::Set(n.wrapping_mul(37), 100), Op::Set(n, 1)]);
        few.chain([(0..25).map(|n| Op::Set(n * 10, 2)).collect()]).collect()
    }

    #[test]
    fn interrupted_replay_starts_over() {
        for at in (0..).step_by(3) {
            let disk = Faulty::new(None);
            let states = write(&(Arc::new(disk.clone()) as Arc<dyn Vfs>), &long());
            disk.fail_after(at, Fault::Stop);
            let is_complete = rows(&disk, 2_000).is_ok();
            for unsynced in [Unsynced::Kept, Unsynced::Dropped, Unsynced::Mixed] {
                let found = rows(&disk.after_power_loss(unsynced), 2_000).unwrap().0;
                // The last commit was not acknowledged, and may or may not be there.
                assert!(states[states.len() - 2..].contains(&found), "{unsynced:?} {at}");
            }
            if is_complete {
                assert!(at > 20, "the WAL was not replayed in ranges");
                break;
            }
        }
    }

    #[test]
    fn wal_truncated_after_a_partial_replay_is_refused() {
        let memory = Arc::new(Memory::default());
        let disk = Arc::clone(&memory) as Arc<dyn Vfs>;
        write(&disk, &long());
        rows(&*disk, 2_000).unwrap();
        let file = disk.open("log-0000.wal").unwrap();
        let length = file.len().unwrap();
        // First everything after the header, then only the last commits.
        for from in [8_192 + 3_000, 8_192] {
            file.write(from, &vec![0; usize::try_from(length - from).unwrap()]).unwrap();
            let error = rows(&*disk, 2_000).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("neither is complete"), "{error}");
        }
    }
}
