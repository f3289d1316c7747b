//! Random programs of concurrent transactions, compared with a versioned map that implements the
//! conflict rule: reads, conflicts, and final contents. The recordings of
//! [`conformance`](crate::conformance) cover complex cases (counted selectors, unreadable keys).
//!
//! A failure prints the smallest failing program, and keeps its seed in `proptest-regressions`;
//! `CODITECT_MODEL_CASES=100000` runs the long form.

use std::collections::{BTreeMap, BTreeSet};

use coditect_store::{
    ErrorKind, Result,
    engine::{AtomicOp, Database, Options, Order, RangeQuery, Transaction},
};
use proptest::prelude::*;

type Map = BTreeMap<&'static [u8], Vec<u8>>;
/// A part of the keyspace: each key has twice its index among [`KEYS`], and the gap after it one
/// more.
type Parts = BTreeSet<usize>;

/// In order; the last one is only an end.
const KEYS: [&[u8]; 9] = [b"", b"a", b"a\0", b"a\xff", b"b", b"ba", b"c", b"\xfe\xff", b"\xff"];
/// Number of open transactions.
const OPEN: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    ReadVersion,
    Get { key: usize, snapshot: bool },
    Range { begin: usize, end: usize, limit: Option<usize>, descending: bool, snapshot: bool },
    Set { key: usize, value: Vec<u8> },
    Clear { key: usize },
    ClearRange { begin: usize, end: usize },
    Atomic { op: AtomicOp, key: usize, operand: Vec<u8> },
    ReadConflict { begin: usize, end: usize },
    WriteConflict { begin: usize, end: usize },
    Commit,
    Drop,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0..KEYS.len() - 1;
    let bounds = || (0..KEYS.len(), 0..KEYS.len()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let bytes = || prop::collection::vec(any::<u8>(), 0..4);
    let atomic = prop::sample::select(vec![
        AtomicOp::Add,
        AtomicOp::Max,
        AtomicOp::Min,
        AtomicOp::BitAnd,
        AtomicOp::BitOr,
        AtomicOp::BitXor,
        AtomicOp::ByteMax,
        AtomicOp::ByteMin,
        AtomicOp::AppendIfFits,
        AtomicOp::CompareAndClear,
    ]);
    prop_oneof![
        1 => Just(Op::ReadVersion),
        6 => (key(), any::<bool>()).prop_map(|(key, snapshot)| Op::Get { key, snapshot }),
        6 => (bounds(), prop::option::of(1..4_usize), any::<bool>(), any::<bool>()).prop_map(
            |((begin, end), limit, descending, snapshot)| {
                Op::Range { begin, end, limit, descending, snapshot }
            }
        ),
        6 => (key(), bytes()).prop_map(|(key, value)| Op::Set { key, value }),
        2 => key().prop_map(|key| Op::Clear { key }),
        2 => bounds().prop_map(|(begin, end)| Op::ClearRange { begin, end }),
        4 => (atomic, key(), bytes())
            .prop_map(|(op, key, operand)| Op::Atomic { op, key, operand }),
        1 => bounds().prop_map(|(begin, end)| Op::ReadConflict { begin, end }),
        1 => bounds().prop_map(|(begin, end)| Op::WriteConflict { begin, end }),
        5 => Just(Op::Commit),
        1 => Just(Op::Drop),
    ]
}

/// All commits.
#[derive(Default)]
struct Model {
    /// The contents after each commit; the first is the initial state.
    states: Vec<Map>,
    /// The parts that each commit wrote.
    written: Vec<Parts>,
}

/// A transaction of the model.
#[derive(Default)]
struct Open {
    /// The number of commits that it sees, once it has read.
    sees: Option<usize>,
    writes: Vec<Op>,
    /// Parts whose value depends on its own writes only.
    known: Parts,
    read: Parts,
    written: Parts,
}

/// All from the key at `begin` (inclusive) to the one at `end` (exclusive).
fn parts(begin: usize, end: usize) -> Parts {
    let is_there = |part: &usize| {
        part.is_multiple_of(2) || KEYS[part / 2 + 1] != [KEYS[part / 2], &[0]].concat()
    };
    (2 * begin..2 * end).filter(is_there).collect()
}

fn key_alone(key: usize) -> Parts {
    Parts::from([2 * key])
}

impl Open {
    /// Fixes the state that it sees, at its first read.
    fn settle(&mut self, model: &Model) {
        self.sees.get_or_insert(model.written.len());
    }

    fn state(&self, model: &Model) -> Map {
        let mut state = model.states[self.sees.unwrap_or(model.written.len())].clone();
        self.writes.iter().for_each(|op| apply(op, &mut state));
        state
    }

    /// Returns whether a read there depends on more than its own writes.
    fn is_of_others(&self, read: &Parts) -> bool {
        !read.is_subset(&self.known)
    }

    fn note_read(&mut self, read: &Parts) {
        self.read.extend(read.difference(&self.known));
    }

    fn note_written(&mut self, op: &Op) {
        let (written, are_known) = match *op {
            Op::Set { key, .. } | Op::Clear { key } => (key_alone(key), true),
            Op::ClearRange { begin, end } => (parts(begin, end), true),
            Op::Atomic { key, .. } => (key_alone(key), false),
            _ => return,
        };
        if are_known {
            self.known.extend(&written);
        }
        self.written.extend(&written);
        self.writes.push(op.clone());
    }

    /// Returns whether a commit since its read has written a part that it read.
    fn conflicts(&self, model: &Model) -> bool {
        let since = self.sees.unwrap_or(model.written.len());
        let written = &model.written[since..];
        !self.written.is_empty() && written.iter().any(|parts| !parts.is_disjoint(&self.read))
    }
}

/// Returns the result of a write on an existing value.
fn apply(op: &Op, state: &mut Map) {
    match op {
        Op::Set { key, value } => {
            state.insert(KEYS[*key], value.clone());
        }
        Op::Clear { key } => {
            state.remove(KEYS[*key]);
        }
        Op::ClearRange { begin, end } => KEYS[*begin..*end].iter().for_each(|key| {
            state.remove(key);
        }),
        Op::Atomic { op, key, operand } => {
            let before = state.remove(KEYS[*key]);
            if let Some(after) = combined(*op, before, operand) {
                state.insert(KEYS[*key], after);
            }
        }
        _ => {}
    }
}

/// As described in FoundationDB's manual ("Atomic operations").
fn combined(op: AtomicOp, value: Option<Vec<u8>>, operand: &[u8]) -> Option<Vec<u8>> {
    let Some(value) = value else {
        return (op != AtomicOp::CompareAndClear).then(|| operand.to_vec());
    };
    // Little-endian numbers of the operand's length.
    let mut short = value.clone();
    short.resize(operand.len(), 0);
    let number =
        |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    let of = |number: u64| number.to_le_bytes()[..operand.len()].to_vec();
    let (a, b) = (number(&short), number(operand));
    Some(match op {
        AtomicOp::Add => of(a.wrapping_add(b)),
        AtomicOp::Max => of(a.max(b)),
        AtomicOp::Min => of(a.min(b)),
        AtomicOp::BitAnd => of(a & b),
        AtomicOp::BitOr => of(a | b),
        AtomicOp::BitXor => of(a ^ b),
        AtomicOp::ByteMax => value.max(operand.to_vec()),
        AtomicOp::ByteMin => value.min(operand.to_vec()),
        AtomicOp::AppendIfFits => [value, operand.to_vec()].concat(),
        AtomicOp::CompareAndClear if value == operand => return None,
        _ => value,
    })
}

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Returns the model's result of a read, and the parts read.
fn answer(op: &Op, state: &Map) -> (Rows, Parts) {
    let row = |key: &'static [u8]| state.get(key).map(|value| (key.to_vec(), value.clone()));
    match *op {
        Op::Get { key, .. } => (row(KEYS[key]).into_iter().collect(), key_alone(key)),
        Op::Range { begin, end, limit, descending, .. } => {
            let mut order: Vec<_> = (begin..end).collect();
            if descending {
                order.reverse();
            }
            let found = order.into_iter().filter_map(|key| Some((key, row(KEYS[key])?)));
            let found: Vec<_> = found.take(limit.unwrap_or(usize::MAX)).collect();
            let last = found.last().filter(|_| limit == Some(found.len())).map(|(key, _)| *key);
            let read = match last {
                None => parts(begin, end),
                Some(last) if descending => parts(last, end),
                Some(last) => &parts(begin, last) | &key_alone(last),
            };
            (found.into_iter().map(|(_, row)| row).collect(), read)
        }
        _ => (Vec::new(), Parts::new()),
    }
}

/// Returns the engine's result.
async fn ask(tx: &Transaction, op: &Op) -> Result<Rows> {
    Ok(match *op {
        Op::Get { key, snapshot } => {
            let key = KEYS[key];
            let value = if snapshot { tx.snapshot().get(key).await? } else { tx.get(key).await? };
            value.map(|value| (key.to_vec(), value)).into_iter().collect()
        }
        Op::Range { begin, end, limit, descending, snapshot } => {
            let order = if descending { Order::Descending } else { Order::Ascending };
            let query =
                RangeQuery { limit, ..RangeQuery::new(KEYS[begin], KEYS[end]).order(order) };
            let page = if snapshot {
                tx.snapshot().get_range(&query).await
            } else {
                tx.get_range(&query).await
            };
            page?.rows.into_iter().map(|row| (row.key, row.value)).collect()
        }
        _ => Vec::new(),
    })
}

fn write(tx: &Transaction, op: &Op) {
    match op {
        Op::Set { key, value } => tx.set(KEYS[*key], value),
        Op::Clear { key } => tx.clear(KEYS[*key]),
        Op::ClearRange { begin, end } => tx.clear_range(KEYS[*begin], KEYS[*end]),
        Op::Atomic { op, key, operand } => tx.atomic(*op, KEYS[*key], operand),
        _ => {}
    }
}

/// On an engine that keeps the last commits in memory, and on one that checkpoints each while the
/// next is made.
async fn run(program: &[(usize, Op)]) {
    run_on(program, &Database::temporary().unwrap()).await;
    let moving = Options::default().memtable_bytes(1);
    run_on(program, &Database::memory_with(&moving).unwrap()).await;
}

async fn run_on(program: &[(usize, Op)], database: &Database) {
    let mut model = Model { states: vec![Map::new()], written: Vec::new() };
    let mut open: [Option<(Transaction, Open)>; OPEN] = Default::default();
    for (at, (slot, op)) in program.iter().enumerate() {
        let (tx, it) = open[*slot].get_or_insert_with(|| (database.begin(), Open::default()));
        match op {
            Op::ReadVersion => {
                tx.read_version().await.unwrap();
                it.settle(&model);
            }
            Op::Get { snapshot, .. } | Op::Range { snapshot, .. } => {
                let (expected, read) = answer(op, &it.state(&model));
                if it.is_of_others(&read) {
                    it.settle(&model);
                }
                if !snapshot {
                    it.note_read(&read);
                }
                assert_eq!(ask(tx, op).await.unwrap(), expected, "step {at}: {op:?}");
            }
            Op::ReadConflict { begin, end } => {
                it.note_read(&parts(*begin, *end));
                tx.add_read_conflict_range(KEYS[*begin], KEYS[*end]).unwrap();
            }
            Op::WriteConflict { begin, end } => {
                it.written.extend(parts(*begin, *end));
                tx.add_write_conflict_range(KEYS[*begin], KEYS[*end]).unwrap();
            }
            Op::Commit => {
                let (tx, it) = open[*slot].take().unwrap();
                let expected = if it.conflicts(&model) { Err(ErrorKind::Conflict) } else { Ok(()) };
                let committed = tx.commit().await.map_err(|error| error.kind());
                assert_eq!(committed, expected, "step {at}: the commit of {slot}");
                if expected.is_ok() && !it.written.is_empty() {
                    let mut state = model.states.last().unwrap().clone();
                    it.writes.iter().for_each(|op| apply(op, &mut state));
                    model.states.push(state);
                    model.written.push(it.written);
                }
            }
            Op::Drop => open[*slot] = None,
            _ => {
                write(tx, op);
                it.note_written(op);
            }
        }
    }
    let all = database.begin().get_range(&RangeQuery::new(b"", b"\xff")).await.unwrap();
    let found: Vec<_> = all.rows.into_iter().map(|row| (row.key, row.value)).collect();
    let expected = model.states.pop().unwrap();
    let expected: Vec<_> = expected.into_iter().map(|(key, value)| (key.to_vec(), value)).collect();
    assert_eq!(found, expected, "the end");
}

fn cases() -> u32 {
    std::env::var("CODITECT_MODEL_CASES").map_or(500, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]
    #[test]
    fn programs_of_transactions_go_as_a_versioned_map_has_it(
        program in prop::collection::vec((0..OPEN, op()), 1..80)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(&program));
    }
}
