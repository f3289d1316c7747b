//! Many clients at once, each noting what it did and saw; and whether all of that could have been done one
//! after the other, in an order that keeps to the clock: strict serializability.
//!
//! Clients append numbers to lists and read them, so that a list tells the order of its writers (the
//! workload of Elle: Kingsbury, Alvaro, "Elle: Inferring Isolation Anomalies from Experimental
//! Observations", 2020). The checker is tried on histories that are wrong.
//! `CODITECT_HISTORY_ROUNDS=200` is the long form.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use coditect_store::{
    ErrorKind, Result,
    engine::{AtomicOp, Database, Transaction},
};

const LISTS: u8 = 4;
const CLIENTS: u64 = 8;
const TRANSACTIONS: u64 = 40;

#[derive(Clone, Debug)]
enum Op {
    Append(u8, u32),
    Read(u8, Vec<u32>),
}

/// Something that was done, from when to when, on one clock. What may be done or not has no end.
#[derive(Clone, Debug)]
struct Done {
    from: u64,
    to: u64,
    ops: Vec<Op>,
    is_known: bool,
}

/// What is wrong with a history.
fn fault(history: &[Done]) -> Option<String> {
    let appended = |done: &Done, list: u8, number: u32| {
        done.ops
            .iter()
            .any(|op| matches!(op, Op::Append(to, what) if (*to, *what) == (list, number)))
    };
    let mut longest: BTreeMap<u8, &[u32]> = BTreeMap::new();
    for op in history.iter().flat_map(|done| &done.ops) {
        if let Op::Read(list, seen) = op {
            let known = longest.entry(*list).or_default();
            let (short, long) =
                if seen.len() < known.len() { (&**seen, *known) } else { (*known, &**seen) };
            if !long.starts_with(short) {
                return Some(format!("list {list} was read as {short:?} and as {long:?}"));
            }
            *known = long;
        }
    }
    let mut writers: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (list, numbers) in &longest {
        for number in *numbers {
            let writer = history.iter().position(|done| appended(done, *list, *number));
            let Some(writer) = writer else {
                return Some(format!("{number} is in list {list}, and nobody has appended it"));
            };
            writers.entry(*list).or_default().push(writer);
        }
    }
    let mut after: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); history.len()];
    let mut note = |one: usize, other: usize| {
        if one != other {
            after[one].insert(other);
        }
    };
    let nobody = Vec::new();
    for (at, done) in history.iter().enumerate() {
        for op in &done.ops {
            match op {
                Op::Read(list, seen) => {
                    let order = writers.get(list).unwrap_or(&nobody);
                    seen.len().checked_sub(1).into_iter().for_each(|last| note(order[last], at));
                    order.get(seen.len()).into_iter().for_each(|next| note(at, *next));
                }
                Op::Append(list, number) => {
                    let order = writers.get(list).unwrap_or(&nobody);
                    let place =
                        longest.get(list).and_then(|all| all.iter().position(|it| it == number));
                    match place {
                        Some(place) => {
                            order.get(place + 1).into_iter().for_each(|next| note(at, *next));
                        }
                        None if done.is_known => {
                            return Some(format!(
                                "{number} was appended to list {list}, and is lost"
                            ));
                        }
                        None => {}
                    }
                }
            }
        }
        let later = (0..history.len()).filter(|other| done.to < history[*other].from);
        later.for_each(|other| note(at, other));
    }
    // What comes after nothing goes first, until there is nothing, or a circle, left.
    let mut before = vec![0; history.len()];
    after.iter().flatten().for_each(|other| before[*other] += 1);
    let mut first: Vec<_> = (0..history.len()).filter(|at| before[*at] == 0).collect();
    let mut ordered = 0;
    while let Some(at) = first.pop() {
        ordered += 1;
        for other in &after[at] {
            before[*other] -= 1;
            if before[*other] == 0 {
                first.push(*other);
            }
        }
    }
    let in_circle = (0..history.len()).filter(|at| before[*at] > 0).map(|at| &history[at]);
    (ordered < history.len()).then(|| {
        format!(
            "each of these before the next, in a circle: {:?}",
            in_circle.take(9).collect::<Vec<_>>()
        )
    })
}

fn decoded(value: Option<Vec<u8>>) -> Vec<u32> {
    let value = value.unwrap_or_default();
    value.chunks(4).map(|number| u32::from_be_bytes(number.try_into().unwrap())).collect()
}

/// Makes some reads and appends, as `random` has it.
async fn work(tx: &Transaction, mut random: u64, next: &AtomicU32) -> Result<Vec<Op>> {
    let mut ops = Vec::new();
    for _ in 0..=random % 3 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let list = u8::try_from((random >> 40) % u64::from(LISTS)).unwrap();
        let has_written = ops.iter().any(|op| matches!(op, Op::Append(to, _) if *to == list));
        match (random >> 50) % 3 {
            // Its own appends are not in the order of the others' yet.
            0 if !has_written => ops.push(Op::Read(list, decoded(tx.get(&[list]).await?))),
            kind => {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if kind == 1 {
                    tx.atomic(AtomicOp::AppendIfFits, &[list], &number.to_be_bytes());
                } else {
                    let mut value = tx.get(&[list]).await?.unwrap_or_default();
                    value.extend(number.to_be_bytes());
                    tx.set(&[list], &value);
                }
                ops.push(Op::Append(list, number));
            }
        }
    }
    Ok(ops)
}

async fn history(round: u64, database: &Database) -> Vec<Done> {
    let clock = Instant::now();
    let now = move || u64::try_from(clock.elapsed().as_nanos()).unwrap();
    let (done, next) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(1)));
    let clients = (0..CLIENTS).map(|client| {
        let (database, done, next) = (database.clone(), Arc::clone(&done), Arc::clone(&next));
        tokio::spawn(async move {
            for number in 0..TRANSACTIONS {
                let seed =
                    ((round << 32) + (client << 16) + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let (tx, from) = (database.begin(), now());
                let Ok(ops) = work(&tx, seed, &next).await else { continue };
                let is_known = match tx.commit().await {
                    Ok(()) => true,
                    Err(error) if error.kind() == ErrorKind::MaybeCommitted => false,
                    Err(_) => continue,
                };
                let to = if is_known { now() } else { u64::MAX };
                done.lock().unwrap().push(Done { from, to, ops, is_known });
            }
        })
    });
    futures_util::future::join_all(clients).await.into_iter().for_each(|ended| ended.unwrap());
    let mut history = Arc::into_inner(done).unwrap().into_inner().unwrap();
    let (tx, from) = (database.begin(), now());
    let mut ops = Vec::new();
    for list in 0..LISTS {
        ops.push(Op::Read(list, decoded(tx.get(&[list]).await.unwrap())));
    }
    history.push(Done { from, to: now(), ops, is_known: true });
    history
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_many_clients_did_and_saw_could_have_been_done_in_turn() {
    let rounds =
        std::env::var("CODITECT_HISTORY_ROUNDS").map_or(3, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let history = history(round, &Database::scratch().unwrap()).await;
        assert!(history.len() > 50, "only {} came through", history.len());
        assert_eq!(fault(&history), None, "round {round}");
    }
}

fn done(from: u64, to: u64, ops: &[Op]) -> Done {
    Done { from, to, ops: ops.to_vec(), is_known: true }
}

#[test]
fn histories_that_are_wrong_are_told_from_those_that_are_not() {
    use Op::{Append, Read};
    let right = [
        done(0, 9, &[Append(0, 1), Append(1, 2)]),
        done(5, 20, &[Read(0, vec![1]), Append(1, 3)]),
        done(5, 20, &[Read(0, vec![]), Read(1, vec![])]),
        done(30, 40, &[Read(0, vec![1]), Read(1, vec![2, 3])]),
    ];
    assert_eq!(fault(&right), None);
    let wrong: [(&str, &[Done]); 7] = [
        ("a number is lost", &[done(0, 1, &[Append(0, 1)]), done(2, 3, &[Read(0, vec![])])]),
        ("a number that was given up is read", &[done(0, 1, &[Read(0, vec![7])])]),
        (
            "two orders",
            &[
                done(0, 9, &[Append(0, 1)]),
                done(0, 9, &[Append(0, 2)]),
                done(0, 9, &[Read(0, vec![1, 2])]),
                done(0, 9, &[Read(0, vec![2, 1])]),
            ],
        ),
        (
            "the past is read",
            &[
                done(0, 1, &[Append(0, 1)]),
                done(2, 3, &[Read(0, vec![])]),
                done(4, 5, &[Read(0, vec![1])]),
            ],
        ),
        (
            "half of another is read",
            &[
                done(0, 9, &[Append(0, 1), Append(1, 2)]),
                done(0, 9, &[Read(0, vec![1]), Read(1, vec![])]),
                done(10, 11, &[Read(0, vec![1]), Read(1, vec![2])]),
            ],
        ),
        (
            "write skew",
            &[
                done(0, 9, &[Read(0, vec![]), Append(1, 1)]),
                done(0, 9, &[Read(1, vec![]), Append(0, 2)]),
                done(10, 11, &[Read(0, vec![2]), Read(1, vec![1])]),
            ],
        ),
        (
            "an update is lost",
            &[
                done(0, 9, &[Read(0, vec![]), Append(0, 1)]),
                done(0, 9, &[Read(0, vec![]), Append(0, 2)]),
                done(10, 11, &[Read(0, vec![1, 2])]),
            ],
        ),
    ];
    for (what, history) in wrong {
        assert!(fault(history).is_some(), "{what}");
    }
    // What may be done or not may be either.
    let unknown = Done { to: u64::MAX, is_known: false, ..done(0, 0, &[Append(0, 1)]) };
    for seen in [vec![], vec![1]] {
        assert_eq!(fault(&[unknown.clone(), done(5, 6, &[Read(0, seen)])]), None);
    }
}
