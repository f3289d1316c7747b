//! The state of the store at one version: what was committed lately over what is in the B-tree.
//!
//! ```text
//! active   what was committed since the last turn
//! frozen   what was committed before it and is on its way into the B-tree, if anything is
//! tree     the B-tree as of before that
//! ```
//!
//! Each says of a key what it is, or leaves it to the one below. When `frozen` has come to be in the
//! B-tree, the two lower ones are replaced at once by a B-tree that has it: the state is the same
//! before and after, so who reads it need not know.

use std::{collections::VecDeque, fmt, sync::Arc};

use super::{
    super::range::{KeyValue, Order},
    layer::{Known, Layer, Point},
    ranges::next_key,
    storage::{self, CheckedRow, damaged},
    sync::ArcSwap,
};
use crate::Result;

/// A state of the whole store that stays as it is while others are written. Cheap to clone.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) active: Layer,
    pub(super) ground: Arc<Ground>,
}

/// What lies below the active layer, shared by all versions that lie on it.
pub(super) struct Ground(ArcSwap<Below>);

/// Two ways to have the same: see [`Ground::settle`].
#[derive(Clone)]
struct Below {
    frozen: Option<Layer>,
    tree: storage::Snapshot,
}

impl Ground {
    pub(super) fn new(frozen: Option<Layer>, tree: storage::Snapshot) -> Self {
        Self(ArcSwap::from_pointee(Below { frozen, tree }))
    }

    /// `frozen` over this, whose own is in the B-tree.
    pub(super) fn under(&self, frozen: Layer) -> Self {
        Self::new(Some(frozen), self.0.load().tree.clone())
    }

    /// Returns the layer that is on its way to the B-tree, if there is one, and this without it.
    pub(super) fn thaw(&self) -> (Option<Layer>, Self) {
        let Below { frozen, tree } = Below::clone(&self.0.load());
        (frozen, Self::new(None, tree))
    }

    /// `tree` has some of the frozen layer, and all that lies under it.
    pub(super) fn rebase(&self, tree: storage::Snapshot) {
        let frozen = self.0.load().frozen.clone();
        self.0.store(Arc::new(Below { frozen, tree }));
    }

    /// `tree` has all of this.
    pub(super) fn settle(&self, tree: storage::Snapshot) {
        self.0.store(Arc::new(Below { frozen: None, tree }));
    }
}

impl Snapshot {
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let below = self.ground.0.load();
        for layer in std::iter::once(&self.active).chain(&below.frozen) {
            match layer.find(key) {
                Known::Value(value) => return Ok(Some(value.to_vec())),
                Known::Cleared => return Ok(None),
                Known::Nothing => {}
            }
        }
        below.tree.value(key)
    }

    /// The rows from `begin` up to, and without, `end`.
    pub(super) fn rows(&self, begin: &[u8], end: &[u8], order: Order) -> Result<Rows> {
        let end = end.max(begin);
        let below = self.ground.0.load();
        let layers = std::iter::once(&self.active).chain(&below.frozen);
        let layers = layers.filter(|layer| layer.touches(begin, end));
        let layers = layers.map(|layer| LayerRows::new(layer.clone(), begin, end)).collect();
        let stored = below.tree.rows(begin, end, order)?;
        let tree = TreeRows {
            tree: below.tree.clone(),
            rows: stored,
            head: None,
            begin: begin.to_vec(),
            end: end.to_vec(),
        };
        Ok(Rows { order, layers, tree })
    }
}

/// The rows of a range of a snapshot, in one order.
pub(super) struct Rows {
    order: Order,
    /// The upper ones first.
    layers: Vec<LayerRows>,
    tree: TreeRows,
}

impl Rows {
    /// The next row; one whose value is damaged is not passed over, nor does it end the rows.
    pub(super) fn next_checked(&mut self) -> Result<Option<CheckedRow>> {
        if self.layers.is_empty() {
            return self.tree.rows.next_checked();
        }
        loop {
            let order = self.order;
            self.tree.fill()?;
            self.layers.iter_mut().for_each(|layer| layer.fill(order));
            // The next key, and the uppermost that has it.
            let mut next =
                self.tree.head.as_ref().map(|(key, _)| (key.as_slice(), self.layers.len()));
            for (at, layer) in self.layers.iter().enumerate().rev() {
                if let Some(key) = layer.head()
                    && next.is_none_or(|(first, _)| key == first || comes_before(order, key, first))
                {
                    next = Some((key, at));
                }
            }
            let Some((key, at)) = next else { return Ok(None) };
            let above = &self.layers[..at];
            let cleared = above.iter().find_map(|rows| rows.layer.cleared_around(key));
            let cleared = cleared.map(|(begin, end)| (Arc::clone(begin), Arc::clone(end)));
            let found = if at < self.layers.len() {
                self.layers[at].pop().map(|point| {
                    // The same key further down is hidden.
                    for lower in &mut self.layers[at + 1..] {
                        lower.pass(point.key());
                    }
                    self.tree.pass(point.key());
                    (point.key().to_vec(), point.value().map(|value| Some(value.to_vec())))
                })
            } else {
                self.tree.head.take().map(|(key, value)| (key, Some(value)))
            };
            match (found, cleared) {
                // What was cleared at once is passed over at once.
                (_, Some((begin, end))) => {
                    if at == self.layers.len() {
                        self.tree.skip(order, &begin, &end)?;
                    }
                }
                (Some((key, Some(value))), None) => return Ok(Some((key, value))),
                (Some((_, None)) | None, None) => {}
            }
        }
    }
}

impl Iterator for Rows {
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

/// How many points are taken out of a layer at once, to begin with and at the most.
const FEW: usize = 4;
const MANY: usize = 64;

/// A way through a layer's points.
struct LayerRows {
    layer: Layer,
    taken: VecDeque<Point>,
    /// How many to take next; 0 when there are no more.
    take: usize,
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl LayerRows {
    fn new(layer: Layer, begin: &[u8], end: &[u8]) -> Self {
        let (begin, end) = (begin.to_vec(), end.to_vec());
        Self { layer, taken: VecDeque::new(), take: FEW, begin, end }
    }

    fn fill(&mut self, order: Order) {
        if self.taken.is_empty() && self.take > 0 {
            self.taken = self.layer.points(&self.begin, &self.end, order, self.take).into();
            let is_last = self.taken.len() < self.take;
            self.take = if is_last { 0 } else { (self.take * 2).min(MANY) };
            if let Some(last) = self.taken.back() {
                match order {
                    Order::Ascending => self.begin = next_key(last.key()),
                    Order::Descending => self.end = last.key().to_vec(),
                }
            }
        }
    }

    fn head(&self) -> Option<&[u8]> {
        self.taken.front().map(Point::key)
    }

    fn pop(&mut self) -> Option<Point> {
        self.taken.pop_front()
    }

    fn pass(&mut self, key: &[u8]) {
        if self.head() == Some(key) {
            self.pop();
        }
    }
}

/// A way through the B-tree, with the row that is next.
struct TreeRows {
    tree: storage::Snapshot,
    rows: storage::Rows,
    head: Option<CheckedRow>,
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl TreeRows {
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

    /// Goes on behind the range, in which it is.
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

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ground")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::{
        super::{
            disk::Memory,
            log::{Applied, Change, Changes},
            storage::Storage,
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

    fn one(change: Change<'_>) -> Changes {
        [change].into_iter().collect()
    }

    fn redo(layer: &mut Layer, plain: &mut BTreeMap<Vec<u8>, Vec<u8>>, ops: &[Op], value: &[u8]) {
        for op in ops {
            match *op {
                Op::Set(key) => {
                    layer.redo(&one(Change::Set { key: &[key], value }));
                    plain.insert(vec![key], value.to_vec());
                }
                Op::Clear(key) => {
                    layer.redo(&one(Change::Clear { key: &[key] }));
                    plain.remove(&[key][..]);
                }
                Op::ClearRange(begin, end) => {
                    layer.redo(&one(Change::ClearRange { begin: &[begin], end: &[end] }));
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
        fn layers_over_a_tree_are_read_as_one_map_before_and_after_they_are_moved(
            stored in ops(), frozen_ops in ops(), active_ops in ops(), (a, b) in (0_u8..31, 0_u8..31),
        ) {
            let disk = Memory::default();
            let mut storage = Storage::open(&disk, 1 << 20).unwrap();
            let mut plain = BTreeMap::new();
            let mut layer = Layer::default();
            redo(&mut layer, &mut plain, &stored, b"stored");
            storage.apply(&layer, Applied::default(), false).unwrap();
            let ground = Ground::new(None, storage.snapshot().unwrap());
            let (mut frozen, mut active) = (Layer::default(), Layer::default());
            redo(&mut frozen, &mut plain, &frozen_ops, b"frozen");
            redo(&mut active, &mut plain, &active_ops, b"active");
            let ground = Arc::new(ground.under(frozen.clone()));
            let snapshot = Snapshot { active: active.clone(), ground: Arc::clone(&ground) };
            let (begin, end) = (a.min(b), a.max(b));
            let within = plain.range(vec![begin]..vec![end]);
            let expected: Vec<_> = within.map(|(key, value)| (key.clone(), value.clone())).collect();
            for moved in [false, true] {
                if moved {
                    storage.apply(&frozen, Applied::default(), false).unwrap();
                    ground.settle(storage.snapshot().unwrap());
                }
                prop_assert_eq!(&rows(&snapshot, begin, end, Order::Ascending), &expected);
                let mut descending = rows(&snapshot, begin, end, Order::Descending);
                descending.reverse();
                prop_assert_eq!(&descending, &expected);
                for key in 0..30 {
                    prop_assert_eq!(&snapshot.value(&[key]).unwrap(), &plain.get(&[key][..]).cloned());
                }
            }
            // A layer counts what it holds, and does again what it says was done.
            let again: Changes = active.changes().collect();
            prop_assert!(active.bytes() >= again.bytes().len());
            let active = { let mut copy = Layer::default(); copy.redo(&again); copy };
            let snapshot = Snapshot { active, ground };
            prop_assert_eq!(&rows(&snapshot, begin, end, Order::Ascending), &expected);
        }
    }
}
