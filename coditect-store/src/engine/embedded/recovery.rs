//! What the log has that the B-tree has not, found again when a store is opened.
//!
//! It is kept in memory, as while it was committed, if it is no more than that may hold. Of a longer log the
//! keys are divided: it is read once for each slice of them, and the slice is moved to the B-tree as it is in
//! the end, which so is written once and from left to right. Only the last slice stays in memory.
//!
//! A slice is ahead of what the B-tree says that it holds, since that is as before until all are there. To do
//! again what is there already does no harm; but should the log be shorter then, since it was damaged
//! meanwhile, neither is whole, and the store is refused. Reading takes as often as long as there are slices.

use super::{
    disk::Disk,
    layer::Layer,
    log::{self, Change, Changes, Encoder, Log, Replay},
    space::Space,
    storage::{Storage, Written},
};
use crate::{Error, ErrorKind, Result};

/// Finds it, in a layer of about so many bytes at the most; what is more is in the B-tree then, if that
/// has `space`. A log of which
/// something is missing is refused, before anything is written, unless what follows that `may_be_lost`.
pub(super) fn recover(
    disk: &dyn Disk,
    storage: &mut Storage,
    space: &Space,
    mut bytes: usize,
    may_be_lost: bool,
) -> Result<(Replay, Layer)> {
    let recorded = storage.recorded();
    let (mut from, mut parts, mut reached) = (Vec::new(), 0_u32, None);
    loop {
        let mut slice = Slice::new(from, bytes);
        let replayed = log::replay(disk, recorded, |changes| slice.redo(changes))?;
        check_reached(storage, &replayed)?;
        let replayed = if may_be_lost { replayed } else { replayed.complete()? };
        if *reached.get_or_insert(replayed.reached) != replayed.reached {
            let message = "the log was not read twice alike: the disk may be failing";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let Some(end) = slice.end else { return Ok((replayed, slice.layer)) };
        // Nothing may be in the B-tree that the log could lose.
        replayed.make_durable()?;
        if storage.apply_ahead(&slice.layer, replayed.reached.version)? == Written::NoSpace {
            // The rest has to be in memory, however much it is: it can be read so.
            space.set_tree_full(true);
            (from, bytes) = (slice.from, usize::MAX / 8);
            continue;
        }
        parts += 1;
        tracing::info!(parts, "the log is long: parts of it were moved to the store's file");
        from = end;
    }
}

/// Has the B-tree file require the log, before anything is committed to it. Without space for that it
/// returns the segment to require once there is, and commits are refused until then.
pub(super) fn require_log(
    storage: &mut Storage,
    log: &mut Log,
    space: &Space,
) -> Result<Option<u64>> {
    if !storage.recorded().is_clean {
        return Ok(None);
    }
    let first = log.first_segment();
    let first = first.map_err(|error| if log.is_full() { space.error() } else { error })?;
    if storage.require_log(first)? == Written::Durably {
        return Ok(None);
    }
    space.release_reserve();
    let written = storage.require_log(first)?;
    space.restore_reserve();
    if written == Written::Durably {
        return Ok(None);
    }
    space.set_log_unrequired(true);
    Ok(Some(first))
}

/// Fails if acknowledged commits are missing from the log.
pub(super) fn check(disk: &dyn Disk, storage: &Storage) -> Result<()> {
    let replayed = log::replay(disk, storage.recorded(), |_| {})?;
    check_reached(storage, &replayed)?;
    replayed.complete().map(drop)
}

/// Refuses a log that ends before what an earlier start has moved of it.
fn check_reached(storage: &Storage, replayed: &Replay) -> Result<()> {
    let (ahead, reached) = (storage.ahead(), replayed.reached.version);
    if ahead <= reached {
        return Ok(());
    }
    let message = format!(
        "a part of what was committed up to version {ahead} was moved to the store's file when the log was \
         damaged, which ends at version {reached} now: neither is whole, and what is left is a backup"
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}

/// What is kept of a slice is kept in pieces of so many bytes.
const PIECE: usize = 64 << 10;

/// What was done to some of the keys: those from one up to another, or to the end. It ends the earlier the more
/// was done to them.
struct Slice {
    from: Vec<u8>,
    end: Option<Vec<u8>>,
    layer: Layer,
    limit: usize,
    /// When there is more than this, it is made smaller.
    shrink_at: usize,
}

impl Slice {
    fn new(from: Vec<u8>, limit: usize) -> Self {
        Self { from, end: None, layer: Layer::default(), limit, shrink_at: limit }
    }

    fn redo(&mut self, changes: &mut dyn Iterator<Item = Change<'_>>) {
        let within: Changes = changes.filter_map(|change| self.within(change)).collect();
        self.layer.redo(&within);
        if self.layer.bytes() > self.shrink_at {
            self.shrink();
        }
    }

    /// What of `change` is done to its keys.
    fn within<'a: 'b, 'b>(&'a self, change: Change<'b>) -> Option<Change<'b>> {
        let is_before_end = |key: &[u8]| self.end.as_ref().is_none_or(|end| key < end.as_slice());
        match change {
            Change::Set { key, .. } | Change::Clear { key } => {
                (key >= self.from.as_slice() && is_before_end(key)).then_some(change)
            }
            Change::ClearRange { begin, end } => {
                let begin = begin.max(&self.from);
                let end = self.end.as_ref().map_or(end, |last| end.min(last));
                (begin < end).then_some(Change::ClearRange { begin, end })
            }
        }
    }

    /// Frees what was written over, and gives up the last fourth of its keys if that was not enough.
    fn shrink(&mut self) {
        self.shrink_at = self.limit;
        let kept = self.layer.bytes_kept();
        if kept > self.limit / 4 * 3 {
            match self.layer.key_at(3, 4).filter(|end| **end > *self.from) {
                Some(end) => self.end = Some(end.to_vec()),
                // What cannot be divided is as large as it is.
                None => self.shrink_at = self.limit.max(2 * kept),
            }
        }
        self.layer = self.compacted();
    }

    /// The layer with what is within it, and nothing else.
    fn compacted(&self) -> Layer {
        let (mut layer, mut encoder) = (Layer::default(), Encoder::default());
        for change in self.layer.changes().filter_map(|change| self.within(change)) {
            encoder.push(change);
            if encoder.length() >= PIECE {
                layer.redo(&encoder.take());
            }
        }
        layer.redo(&encoder.take());
        layer
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{
            super::range::Order,
            disk::Memory,
            faulty::{Fault, Faulty, Unsynced},
            log::Draft,
            snapshot::{Ground, Snapshot},
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

    /// Writes the log of a new store on `disk`, and gives what that comes to after each commit. The last one is
    /// not synced.
    fn write(disk: &Arc<dyn Disk>, commits: &[Vec<Op>]) -> Vec<Plain> {
        let storage = Storage::open(&**disk, CACHE).unwrap();
        let recorded = storage.recorded();
        let (store, applied) = (recorded.store, recorded.applied);
        let replayed = log::replay(&**disk, recorded, |_| {}).unwrap();
        let mut log = Log::new(Arc::clone(disk), store, replayed, 1 << 20);
        let (mut plain, mut states) = (Plain::new(), Vec::new());
        for (version, ops) in (applied.version + 1..).zip(commits) {
            let mut encoder = Encoder::default();
            for op in ops {
                match *op {
                    Op::Set(key, length) => {
                        let value = vec![version.to_le_bytes()[0]; usize::from(length)];
                        encoder.push(Change::Set { key: &[key], value: &value });
                        plain.insert(vec![key], value);
                    }
                    Op::Clear(key) => {
                        encoder.push(Change::Clear { key: &[key] });
                        plain.remove(&[key][..]);
                    }
                    Op::ClearRange(begin, end) => {
                        encoder.push(Change::ClearRange { begin: &[begin], end: &[end] });
                        plain.retain(|key, _| key[0] < begin || key[0] >= end);
                    }
                }
            }
            let (mut placed, _) = log.append(Draft::of(&[encoder.take()]), version, false).unwrap();
            placed.begin();
            states.push(plain.clone());
            if states.len() < commits.len() {
                placed.write().unwrap();
            }
        }
        states
    }

    /// All rows that are found with so many bytes of memory, and how many bytes stayed in memory.
    fn rows(disk: &dyn Disk, bytes: usize) -> Result<(Plain, usize)> {
        let mut storage = Storage::open(disk, CACHE)?;
        let (_, layer) = recover(disk, &mut storage, &Space::default(), bytes, false)?;
        let held = layer.bytes();
        let ground = Arc::new(Ground::new(Some(layer), storage.snapshot()?));
        let snapshot = Snapshot { active: Layer::default(), ground };
        let rows = snapshot.rows(b"", b"\xff\xff", Order::Ascending)?;
        let rows = rows.map(|row| row.map(|row| (row.key, row.value))).collect::<Result<_>>()?;
        Ok((rows, held))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn a_long_log_comes_to_the_same_slice_by_slice(commits in vec(ops(), 1..20)) {
            let disk: Arc<dyn Disk> = Arc::new(Memory::default());
            let states = write(&disk, &commits);
            let (found, held) = rows(&*disk, 2_000).unwrap();
            prop_assert_eq!(Some(&found), states.last());
            prop_assert!(held <= 4_000, "{} bytes in memory", held);
        }
    }

    /// The last one is done to keys of all slices.
    fn long() -> Vec<Vec<Op>> {
        let few = (0..30_u8).map(|n| vec![Op::Set(n.wrapping_mul(37), 100), Op::Set(n, 1)]);
        few.chain([(0..25).map(|n| Op::Set(n * 10, 2)).collect()]).collect()
    }

    #[test]
    fn who_dies_between_two_slices_begins_anew() {
        for at in (0..).step_by(3) {
            let disk = Faulty::new(None);
            let states = write(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &long());
            disk.fail_after(at, Fault::Stop);
            let is_through = rows(&disk, 2_000).is_ok();
            for unsynced in [Unsynced::Kept, Unsynced::Dropped, Unsynced::Mixed] {
                let found = rows(&disk.after_power_loss(unsynced), 2_000).unwrap().0;
                // The last commit, of which nobody was told, may be there or not.
                assert!(states[states.len() - 2..].contains(&found), "{unsynced:?} {at}");
            }
            if is_through {
                assert!(at > 20, "there were no slices");
                break;
            }
        }
    }

    #[test]
    fn a_log_that_lost_its_end_since_a_slice_was_moved_is_refused() {
        let memory = Arc::new(Memory::default());
        let disk = Arc::clone(&memory) as Arc<dyn Disk>;
        write(&disk, &long());
        rows(&*disk, 2_000).unwrap();
        let file = disk.open("log-0000.wal").unwrap();
        let length = file.len().unwrap();
        // All behind the header, and so the first commit; then the last ones alone.
        for from in [8_192 + 3_000, 8_192] {
            file.write(from, &vec![0; usize::try_from(length - from).unwrap()]).unwrap();
            let error = rows(&*disk, 2_000).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("neither is whole"), "{error}");
        }
    }
}
