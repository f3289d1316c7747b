//! The state of the store at one version: memtables over the B-tree.
//!
//! ```text
//! mutable     commits since the last checkpoint began
//! immutable   commits before it, while their checkpoint is running
//! tree        the B-tree as of before that
//! ```
//!
//! A lookup proceeds from the top until a level has an answer. When the checkpoint of `immutable`
//! is complete, the two lower levels are replaced by a B-tree that includes it. The state is the
//! same before and after, so readers do not notice.

use std::{collections::VecDeque, fmt, sync::Arc};

use super::{
    super::range::{KeyValue, Order},
    btree_file::{self, CheckedRow, damaged},
    memtable::{Entry, Lookup, Memtable},
    ranges::next_key,
    sync::ArcSwap,
};
use crate::Result;

/// An immutable state of the whole store. Cheap to clone.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) mutable: Memtable,
    pub(super) base: Arc<SnapshotBase>,
}

/// The levels below the mutable memtable, shared by all versions above them.
pub(super) struct SnapshotBase(ArcSwap<BaseState>);

/// The state before or after a checkpoint, which are equivalent: see
/// [`SnapshotBase::install_checkpoint`].
#[derive(Clone)]
struct BaseState {
    immutable: Option<Memtable>,
    tree: btree_file::Snapshot,
}

impl SnapshotBase {
    pub(super) fn new(immutable: Option<Memtable>, tree: btree_file::Snapshot) -> Self {
        Self(ArcSwap::from_pointee(BaseState { immutable, tree }))
    }

    /// Returns a base with `immutable` over this one, whose own checkpoint is complete.
    pub(super) fn freeze(&self, immutable: Memtable) -> Self {
        Self::new(Some(immutable), self.0.load().tree.clone())
    }

    /// Returns the memtable whose checkpoint is running, if any, and the base without it.
    pub(super) fn thaw(&self) -> (Option<Memtable>, Self) {
        let BaseState { immutable, tree } = BaseState::clone(&self.0.load());
        (immutable, Self::new(None, tree))
    }

    /// Replaces the B-tree by `tree`, which contains a part of the immutable memtable.
    pub(super) fn rebase(&self, tree: btree_file::Snapshot) {
        let immutable = self.0.load().immutable.clone();
        self.0.store(Arc::new(BaseState { immutable, tree }));
    }

    /// Replaces both levels by `tree`, which contains them.
    pub(super) fn install_checkpoint(&self, tree: btree_file::Snapshot) {
        self.0.store(Arc::new(BaseState { immutable: None, tree }));
    }
}

impl Snapshot {
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let below = self.base.0.load();
        for memtable in std::iter::once(&self.mutable).chain(&below.immutable) {
            match memtable.find(key) {
                Lookup::Found(value) => return Ok(Some(value.to_vec())),
                Lookup::Deleted => return Ok(None),
                Lookup::Absent => {}
            }
        }
        below.tree.value(key)
    }

    /// Returns the rows from `begin` (inclusive) to `end` (exclusive).
    pub(super) fn rows(&self, begin: &[u8], end: &[u8], order: Order) -> Result<MergeIter> {
        let end = end.max(begin);
        let below = self.base.0.load();
        let memtables = std::iter::once(&self.mutable).chain(&below.immutable);
        let memtables = memtables.filter(|memtable| memtable.overlaps(begin, end));
        let memtables =
            memtables.map(|memtable| MemtableIter::new(memtable.clone(), begin, end)).collect();
        let stored = below.tree.rows(begin, end, order)?;
        let tree = BTreeIter {
            tree: below.tree.clone(),
            rows: stored,
            head: None,
            begin: begin.to_vec(),
            end: end.to_vec(),
        };
        Ok(MergeIter { order, memtables, tree })
    }
}

/// The rows of a range of a snapshot, in one order, merged from all levels.
pub(super) struct MergeIter {
    order: Order,
    /// Upper levels first.
    memtables: Vec<MemtableIter>,
    tree: BTreeIter,
}

impl MergeIter {
    /// Returns the next row. A row with a damaged value is returned as such, and does not end the
    /// range.
    pub(super) fn next_checked(&mut self) -> Result<Option<CheckedRow>> {
        if self.memtables.is_empty() {
            return self.tree.rows.next_checked();
        }
        loop {
            let order = self.order;
            self.tree.fill()?;
            self.memtables.iter_mut().for_each(|memtable| memtable.fill(order));
            // The next key, and the uppermost level that has it.
            let mut next =
                self.tree.head.as_ref().map(|(key, _)| (key.as_slice(), self.memtables.len()));
            for (at, memtable) in self.memtables.iter().enumerate().rev() {
                if let Some(key) = memtable.head()
                    && next.is_none_or(|(first, _)| key == first || comes_before(order, key, first))
                {
                    next = Some((key, at));
                }
            }
            let Some((key, at)) = next else { return Ok(None) };
            let above = &self.memtables[..at];
            let cleared = above.iter().find_map(|rows| rows.memtable.covering_tombstone(key));
            let cleared = cleared.map(|(begin, end)| (Arc::clone(begin), Arc::clone(end)));
            let found = if at < self.memtables.len() {
                self.memtables[at].pop().map(|point| {
                    // Lower levels are hidden by it.
                    for lower in &mut self.memtables[at + 1..] {
                        lower.pass(point.key());
                    }
                    self.tree.pass(point.key());
                    (point.key().to_vec(), point.value().map(|value| Some(value.to_vec())))
                })
            } else {
                self.tree.head.take().map(|(key, value)| (key, Some(value)))
            };
            match (found, cleared) {
                // Skips the range tombstone at once.
                (_, Some((begin, end))) => {
                    if at == self.memtables.len() {
                        self.tree.skip(order, &begin, &end)?;
                    }
                }
                (Some((key, Some(value))), None) => return Ok(Some((key, value))),
                (Some((_, None)) | None, None) => {}
            }
        }
    }
}

impl Iterator for MergeIter {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_checked().transpose()?;
        Some(row.and_then(|(key, value)| match value {
            Some(value) => Ok(KeyValue { key, value }),
            None => Err(damaged()),
        }))
    }
}

fn comes_before(order: Order, a: &[u8], b: &[u8]) -> bool {
    match order {
        Order::Ascending => a < b,
        Order::Descending => a > b,
    }
}

/// Minimum and maximum number of entries that are taken from a memtable at once.
const PREFETCH_MIN: usize = 4;
const PREFETCH_MAX: usize = 64;

/// A cursor over the entries of a memtable.
struct MemtableIter {
    memtable: Memtable,
    taken: VecDeque<Entry>,
    /// Number of entries to take next; 0 at the end.
    take: usize,
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl MemtableIter {
    fn new(memtable: Memtable, begin: &[u8], end: &[u8]) -> Self {
        let (begin, end) = (begin.to_vec(), end.to_vec());
        Self { memtable, taken: VecDeque::new(), take: PREFETCH_MIN, begin, end }
    }

    fn fill(&mut self, order: Order) {
        if self.taken.is_empty() && self.take > 0 {
            self.taken = self.memtable.points(&self.begin, &self.end, order, self.take).into();
            let is_last = self.taken.len() < self.take;
            self.take = if is_last { 0 } else { (self.take * 2).min(PREFETCH_MAX) };
            if let Some(last) = self.taken.back() {
                match order {
                    Order::Ascending => self.begin = next_key(last.key()),
                    Order::Descending => self.end = last.key().to_vec(),
                }
            }
        }
    }

    fn head(&self) -> Option<&[u8]> {
        self.taken.front().map(Entry::key)
    }

    fn pop(&mut self) -> Option<Entry> {
        self.taken.pop_front()
    }

    fn pass(&mut self, key: &[u8]) {
        if self.head() == Some(key) {
            self.pop();
        }
    }
}

/// A cursor over the B-tree, with its next row.
struct BTreeIter {
    tree: btree_file::Snapshot,
    rows: btree_file::Rows,
    head: Option<CheckedRow>,
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl BTreeIter {
    fn fill(&mut self) -> Result<()> {
        if self.head.is_none() {
            self.head = self.rows.next_checked()?;
        }
        Ok(())
    }

    fn pass(&mut self, key: &[u8]) {
        if self.head.as_ref().is_some_and(|(head, _)| head == key) {
            self.head = None;
        }
    }

    /// Continues after the range tombstone from `begin` to `end`.
    fn skip(&mut self, order: Order, begin: &[u8], end: &[u8]) -> Result<()> {
        match order {
            Order::Ascending => self.begin = end.to_vec(),
            Order::Descending => self.end = begin.to_vec(),
        }
        self.rows = self.tree.rows(&self.begin, &self.end, order)?;
        Ok(())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

impl fmt::Debug for SnapshotBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotBase")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{
            btree_file::BTreeFile,
            vfs::Memory,
            wal::{LogPosition, Mutation, MutationBatch},
        },
        *,
    };

    #[derive(Clone, Debug)]
    enum Op {
        Set(u8),
        Clear(u8),
        ClearRange(u8, u8),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (0_u8..30).prop_map(Op::Set),
            2 => (0_u8..30).prop_map(Op::Clear),
            1 => (0_u8..30, 0_u8..30).prop_map(|(a, b)| Op::ClearRange(a.min(b), a.max(b))),
        ];
        vec(op, 0..40)
    }

    fn one(change: Mutation<'_>) -> MutationBatch {
        [change].into_iter().collect()
    }

    fn apply(
        memtable: &mut Memtable,
        plain: &mut BTreeMap<Vec<u8>, Vec<u8>>,
        ops: &[Op],
        value: &[u8],
    ) {
        for op in ops {
            match *op {
                Op::Set(key) => {
                    memtable.apply(&one(Mutation::Set { key: &[key], value }));
                    plain.insert(vec![key], value.to_vec());
                }
                Op::Clear(key) => {
                    memtable.apply(&one(Mutation::Clear { key: &[key] }));
                    plain.remove(&[key][..]);
                }
                Op::ClearRange(begin, end) => {
                    memtable.apply(&one(Mutation::ClearRange { begin: &[begin], end: &[end] }));
                    plain.retain(|key, _| key[0] < begin || key[0] >= end);
                }
            }
        }
    }

    fn rows(snapshot: &Snapshot, begin: u8, end: u8, order: Order) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = snapshot.rows(&[begin], &[end], order).unwrap();
        rows.map(|row| row.map(|row| (row.key, row.value)).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn memtables_over_the_btree_read_as_one_map_before_and_after_a_checkpoint(
            stored in ops(), immutable_ops in ops(), mutable_ops in ops(),
            (a, b) in (0_u8..31, 0_u8..31),
        ) {
            let disk = Memory::default();
            let mut btree = BTreeFile::open(&disk, 1 << 20).unwrap();
            let mut plain = BTreeMap::new();
            let mut memtable = Memtable::default();
            apply(&mut memtable, &mut plain, &stored, b"stored");
            btree.apply(&memtable, LogPosition::default(), false).unwrap();
            let base = SnapshotBase::new(None, btree.snapshot().unwrap());
            let (mut immutable, mut mutable) = (Memtable::default(), Memtable::default());
            apply(&mut immutable, &mut plain, &immutable_ops, b"immutable");
            apply(&mut mutable, &mut plain, &mutable_ops, b"mutable");
            let base = Arc::new(base.freeze(immutable.clone()));
            let snapshot = Snapshot { mutable: mutable.clone(), base: Arc::clone(&base) };
            let (begin, end) = (a.min(b), a.max(b));
            let within = plain.range(vec![begin]..vec![end]);
            let expected: Vec<_> =
                within.map(|(key, value)| (key.clone(), value.clone())).collect();
            for is_installed in [false, true] {
                if is_installed {
                    btree.apply(&immutable, LogPosition::default(), false).unwrap();
                    base.install_checkpoint(btree.snapshot().unwrap());
                }
                prop_assert_eq!(&rows(&snapshot, begin, end, Order::Ascending), &expected);
                let mut descending = rows(&snapshot, begin, end, Order::Descending);
                descending.reverse();
                prop_assert_eq!(&descending, &expected);
                for key in 0..30 {
                    let expected = plain.get(&[key][..]).cloned();
                    prop_assert_eq!(&snapshot.value(&[key]).unwrap(), &expected);
                }
            }
            // The counters and mutations of a memtable match its content.
            let again: MutationBatch = mutable.changes().collect();
            prop_assert!(mutable.bytes() >= again.bytes().len());
            let mutable = { let mut copy = Memtable::default(); copy.apply(&again); copy };
            let snapshot = Snapshot { mutable, base };
            prop_assert_eq!(&rows(&snapshot, begin, end, Order::Ascending), &expected);
        }
    }
}
