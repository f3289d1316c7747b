//! Tests of the checker: specific wrong histories, and random ones compared with a search of all
//! orders.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail it")]

use std::collections::BTreeMap;

use coditect_histories::{Call, Key, Op, Outcome, Random, fault};

use Op::{Append, List, Other, Read, Write};

fn call(from: u64, to: u64, outcome: Outcome, ops: &[Op]) -> Call {
    Call { from, to, outcome, ops: ops.to_vec() }
}

fn done(from: u64, to: u64, ops: &[Op]) -> Call {
    call(from, to, Outcome::Done, ops)
}

fn unknown(from: u64, ops: &[Op]) -> Call {
    call(from, from, Outcome::Unknown, ops)
}

fn given_up(from: u64, to: u64, ops: &[Op]) -> Call {
    call(from, to, Outcome::GivenUp, ops)
}

const CIRCLE: &str = "in a circle";

fn is_right(history: &[Call]) {
    assert_eq!(fault(history), None, "{history:?}");
}

/// Asserts that the history is rejected, with all of `reasons`.
fn is_wrong(history: &[Call], reasons: &[&str]) {
    let told = fault(history).unwrap_or_else(|| panic!("{reasons:?} was not seen"));
    for reason in reasons {
        assert!(told.contains(reason), "{reason}: {told}");
    }
}

#[test]
fn serializable_histories_are_accepted() {
    is_right(&[]);
    is_right(&[
        done(0, 9, &[Append("l", 1), Append("m", 2), Write("r", 1)]),
        done(5, 20, &[List("l", vec![1]), Append("m", 3), Read("r", 1)]),
        done(5, 20, &[List("l", vec![]), List("m", vec![]), Read("r", 0)]),
        done(30, 40, &[List("l", vec![1]), List("m", vec![2, 3]), Read("r", 1)]),
    ]);
    // Two blind writes, and readers that show their order.
    is_right(&[
        done(0, 9, &[Write("r", 1), Write("s", 1)]),
        done(0, 9, &[Write("r", 2), Write("s", 2)]),
        done(3, 20, &[Read("r", 2), Read("s", 2)]),
        done(10, 20, &[Read("r", 1), Read("s", 1)]),
    ]);
    // It reads its own write, regardless of concurrent writes.
    is_right(&[
        done(0, 9, &[Write("r", 1), Read("r", 1), Append("l", 1), List("l", vec![2, 1])]),
        done(0, 9, &[Write("r", 2), Append("l", 2)]),
        done(10, 11, &[Read("r", 1), List("l", vec![2, 1])]),
        done(0, 9, &[Write("r", 3), Write("r", 4), Other("r", 3)]),
        done(12, 13, &[Write("r", 5)]),
    ]);
}

#[test]
fn stale_reads_are_rejected() {
    let (early, late) = (done(0, 1, &[Write("r", 1)]), done(2, 3, &[Write("r", 2)]));
    let stale = done(4, 5, &[Read("r", 1)]);
    is_wrong(&[early, late.clone(), stale], &[CIRCLE, "saw r without", "was over before"]);
    is_wrong(&[late, done(4, 5, &[Read("r", 0)])], &[CIRCLE, "saw r without"]);
    is_wrong(
        &[
            done(0, 1, &[Append("l", 1)]),
            done(2, 3, &[List("l", vec![])]),
            done(4, 5, &[List("l", vec![1])]),
        ],
        &[CIRCLE, "saw l without"],
    );
    // Observed already, so it stays visible, although its writer does not know the outcome.
    is_wrong(
        &[done(0, 99, &[Write("r", 1)]), done(2, 3, &[Read("r", 1)]), done(4, 5, &[Read("r", 0)])],
        &[CIRCLE, "saw r without", "what the next saw"],
    );
}

#[test]
fn reads_of_the_future_are_rejected() {
    let read = done(0, 1, &[Read("r", 1)]);
    is_wrong(&[read.clone(), done(2, 3, &[Write("r", 1)])], &[CIRCLE, "what the next saw"]);
    is_wrong(&[read, unknown(2, &[Write("r", 1)])], &[CIRCLE, "outcome unknown"]);
}

#[test]
fn a_lost_update_is_refused() {
    is_wrong(
        &[done(0, 9, &[Read("r", 0), Write("r", 1)]), done(0, 9, &[Read("r", 0), Write("r", 2)])],
        &[CIRCLE, "saw r without what the next wrote"],
    );
    is_wrong(
        &[
            done(0, 9, &[List("l", vec![]), Append("l", 1)]),
            done(0, 9, &[List("l", vec![]), Append("l", 2)]),
            done(10, 11, &[List("l", vec![1, 2])]),
        ],
        &[CIRCLE, "saw l without what the next wrote"],
    );
}

#[test]
fn write_skew_is_refused() {
    is_wrong(
        &[
            done(0, 9, &[Read("r", 0), Read("s", 0), Write("r", 1)]),
            done(0, 9, &[Read("r", 0), Read("s", 0), Write("s", 1)]),
        ],
        &[CIRCLE, "saw r without", "saw s without"],
    );
    // Between a list and a register, and through a third key.
    is_wrong(
        &[
            done(0, 9, &[List("l", vec![]), Write("r", 1)]),
            done(0, 9, &[Read("r", 0), Write("s", 1)]),
            done(0, 9, &[Read("s", 0), Append("l", 2)]),
            done(10, 11, &[List("l", vec![2])]),
        ],
        &[CIRCLE, "saw l without", "saw r without", "saw s without"],
    );
}

#[test]
fn aborted_or_absent_writes_are_not_read() {
    is_wrong(&[done(0, 1, &[Read("r", 7)])], &["nobody wrote 7 to r"]);
    is_wrong(&[done(0, 1, &[List("l", vec![7])])], &["nobody wrote 7 to l"]);
    let lost = given_up(0, 9, &[Write("r", 1), Append("l", 1)]);
    is_wrong(&[lost.clone(), done(0, 9, &[Read("r", 1)])], &["1 in r was given up"]);
    is_wrong(&[lost.clone(), given_up(0, 9, &[List("l", vec![1])])], &["1 in l was given up"]);
    is_right(&[lost, done(0, 9, &[Read("r", 0), List("l", vec![])])]);
}

#[test]
fn overwritten_values_of_a_transaction_are_not_read() {
    let twice = done(0, 9, &[Write("r", 1), Write("r", 2), Append("l", 1), Append("l", 2)]);
    let reasons = ["in the middle of another"];
    is_wrong(&[twice.clone(), done(0, 9, &[Read("r", 1)])], &reasons);
    is_wrong(&[twice.clone(), done(0, 9, &[List("l", vec![1])])], &reasons);
    is_right(&[twice, done(0, 9, &[Read("r", 2), List("l", vec![1, 2])])]);
}

#[test]
fn acknowledged_writes_are_not_lost() {
    is_wrong(
        &[done(0, 1, &[Write("r", 1)]), done(2, 3, &[Read("r", 0)])],
        &[CIRCLE, "writes r = 1", "saw r without"],
    );
    is_wrong(
        &[
            done(0, 1, &[Append("l", 1)]),
            done(2, 3, &[Append("l", 2)]),
            done(4, 5, &[List("l", vec![2])]),
        ],
        &[CIRCLE, "appends 1 to l"],
    );
    // After a restart, only half of it is visible.
    is_wrong(
        &[done(0, 1, &[Append("l", 1), Append("l", 2)]), done(2, 3, &[List("l", vec![1])])],
        &["1 was last in l in the middle of another"],
    );
    is_wrong(
        &[
            done(0, 1, &[Append("l", 1), Append("l", 2)]),
            done(2, 3, &[Append("l", 3), List("l", vec![1, 3])]),
            done(4, 5, &[List("l", vec![1, 3])]),
        ],
        &["in the middle of another"],
    );
    is_wrong(
        &[
            done(0, 1, &[Append("l", 1), Append("l", 2)]),
            done(0, 9, &[Append("l", 3)]),
            done(4, 5, &[List("l", vec![1, 3])]),
        ],
        &["2 is not in l = [1, 3]"],
    );
    // It does not read its own write.
    is_wrong(&[done(0, 1, &[Write("r", 1), Read("r", 0)])], &["does not see in r what it wrote"]);
    is_wrong(
        &[done(0, 1, &[Append("l", 1), List("l", vec![])])],
        &["does not see at the end of l"],
    );
}

#[test]
fn half_of_another_is_not_read() {
    is_wrong(
        &[done(0, 9, &[Write("r", 1), Write("s", 1)]), done(0, 9, &[Read("r", 1), Read("s", 0)])],
        &[CIRCLE, "wrote to r what the next saw", "saw s without"],
    );
    is_wrong(
        &[
            done(0, 9, &[Append("l", 1), Append("m", 2)]),
            done(0, 9, &[List("l", vec![1]), List("m", vec![])]),
            done(10, 11, &[List("l", vec![1]), List("m", vec![2])]),
        ],
        &[CIRCLE, "saw m without"],
    );
    // Of two that write both, half of each.
    is_wrong(
        &[
            done(0, 9, &[Write("r", 1), Write("s", 1)]),
            done(0, 9, &[Write("r", 2), Write("s", 2)]),
            done(10, 11, &[Read("r", 1), Read("s", 2)]),
        ],
        &[CIRCLE],
    );
    // Aborted, but it read a state that never existed.
    is_wrong(
        &[
            done(0, 9, &[Write("r", 1), Write("s", 1)]),
            given_up(0, 9, &[Read("r", 1), Read("s", 0)]),
        ],
        &[CIRCLE, "given up"],
    );
}

#[test]
fn one_order_is_seen_by_all() {
    is_wrong(
        &[
            done(0, 9, &[Append("l", 1)]),
            done(0, 9, &[Append("l", 2)]),
            done(0, 9, &[List("l", vec![1, 2])]),
            done(0, 9, &[List("l", vec![2, 1])]),
        ],
        &["l was seen as [1, 2] and as [2, 1]"],
    );
    is_wrong(
        &[
            done(0, 9, &[Write("r", 1)]),
            done(0, 9, &[Write("r", 2)]),
            done(10, 11, &[Read("r", 1)]),
            done(12, 13, &[Read("r", 2)]),
        ],
        &[CIRCLE],
    );
    // Another's numbers do not separate one's.
    is_wrong(
        &[
            done(0, 9, &[Append("l", 1), Append("l", 3)]),
            done(0, 9, &[Append("l", 2)]),
            done(10, 11, &[List("l", vec![1, 2, 3])]),
        ],
        &[CIRCLE, "wrote to l before the next did"],
    );
    is_wrong(
        &[done(0, 9, &[Append("l", 1)]), done(10, 11, &[List("l", vec![1, 1])])],
        &["a number is in l twice"],
    );
}

#[test]
fn unknown_outcome_is_either_but_not_both() {
    let maybe = unknown(0, &[Append("l", 1), Write("r", 1)]);
    let with = |from, to| done(from, to, &[List("l", vec![1]), Read("r", 1)]);
    let without = |from, to| done(from, to, &[List("l", vec![]), Read("r", 0)]);
    is_right(&[maybe.clone(), without(5, 6)]);
    is_right(&[maybe.clone(), with(5, 6)]);
    // Late, even after later calls.
    is_right(&[maybe.clone(), without(5, 6), with(7, 8)]);
    is_wrong(&[maybe.clone(), with(5, 6), without(7, 8)], &[CIRCLE, "outcome unknown"]);
    is_wrong(&[maybe, done(5, 6, &[List("l", vec![1]), Read("r", 0)])], &[CIRCLE]);
    // Its reads count only if it committed.
    let swap = unknown(0, &[Read("r", 0), Write("r", 2)]);
    let before = done(1, 2, &[Write("r", 1)]);
    is_right(&[swap.clone(), before.clone(), done(3, 4, &[Read("r", 1)])]);
    is_right(&[swap.clone(), done(3, 4, &[Read("r", 2)])]);
    is_wrong(&[swap, before, done(3, 4, &[Read("r", 2)])], &[CIRCLE, "writes r = 1"]);
}

#[test]
fn a_refusal_has_a_reason() {
    let read = done(0, 1, &[Read("r", 0)]);
    let refused = done(4, 5, &[Other("r", 0)]);
    is_wrong(&[read.clone(), refused.clone()], &[CIRCLE, "did not find in r"]);
    is_right(&[read.clone(), done(2, 3, &[Write("r", 1)]), refused.clone()]);
    is_right(&[read.clone(), done(2, 9, &[Write("r", 1)]), refused.clone()]);
    is_wrong(&[read.clone(), refused.clone(), done(6, 7, &[Write("r", 1)])], &[CIRCLE]);
    // It was changed, by the only possible writer, but not yet.
    is_wrong(
        &[read.clone(), refused.clone(), done(2, 9, &[Write("r", 1)]), done(6, 7, &[Read("r", 0)])],
        &[CIRCLE, "did not find in r"],
    );
    // By an unknown writer, whose number was overwritten before any read.
    let swap = unknown(2, &[Read("r", 0), Write("r", 1)]);
    is_right(&[read.clone(), swap, refused.clone(), done(6, 7, &[Write("r", 2)])]);
    // Not by an aborted one.
    is_wrong(&[read, given_up(2, 3, &[Write("r", 1)]), refused], &[CIRCLE]);
}

/// Returns whether the calls `left` can follow each other from `state`; of those with unknown
/// outcome, any subset.
fn follows(state: &BTreeMap<Key, Vec<u32>>, left: &[&Call]) -> bool {
    if left.iter().all(|call| call.outcome == Outcome::Unknown) {
        return true;
    }
    (0..left.len()).any(|at| {
        let call = left[at];
        let ends_before = |other: &&Call| other.outcome != Outcome::Unknown && other.to < call.from;
        let mut after = state.clone();
        if left.iter().any(ends_before) || !call.ops.iter().all(|op| does(&mut after, op)) {
            return false;
        }
        let rest: Vec<_> = [&left[..at], &left[at + 1..]].concat();
        follows(if call.outcome == Outcome::GivenUp { state } else { &after }, &rest)
    })
}

/// Applies `op`, if its read agrees with the state. A register has one number.
fn does(state: &mut BTreeMap<Key, Vec<u32>>, op: &Op) -> bool {
    let (Append(key, _) | List(key, _) | Write(key, _) | Read(key, _) | Other(key, _)) = op;
    let value = state.entry(key).or_default();
    let held = value.last().copied().unwrap_or(0);
    match op {
        Append(_, number) => value.push(*number),
        Write(_, number) => *value = vec![*number],
        List(_, seen) => return value == seen,
        Read(_, number) => return held == *number,
        Other(_, number) => return held != *number,
    }
    true
}

/// A short history, right or wrong: executed serially, except that some reads are of an earlier
/// state.
fn any(random: &mut Random) -> Vec<Call> {
    let (mut states, mut calls, mut number) =
        (vec![BTreeMap::<Key, Vec<u32>>::new()], Vec::new(), 0);
    let staleness = random.one_of(&[1, 1, 2, 3]);
    for at in 0..=2 + random.below(4) {
        let outcome = random.one_of(&[
            Outcome::Done,
            Outcome::Done,
            Outcome::Done,
            Outcome::Unknown,
            Outcome::GivenUp,
        ]);
        let mut ops = Vec::new();
        let is_stale = random.below(2) == 0;
        let back = if is_stale { random.below(staleness) } else { 0 };
        let at_most = states.len() - 1;
        let mut seen = states[at_most.saturating_sub(usize::try_from(back).unwrap())].clone();
        let mut state = states[at_most].clone();
        for _ in 0..=random.below(3) {
            let (list, register) = (random.one_of(&["l", "m"]), random.one_of(&["r", "s"]));
            let value = |key| seen.get(key).cloned().unwrap_or_default();
            let held = value(register).last().copied().unwrap_or(0);
            number += 1;
            let is_own = ops.iter().any(|op| matches!(op, Write(key, _) if *key == register));
            let op = match random.below(6) {
                0 => Append(list, number),
                1 => List(list, value(list)),
                2 | 3 => Write(register, number),
                4 => Read(register, held),
                // Reads of its own writes are right in any outcome.
                _ if is_own => Read(register, held),
                _ => Other(register, u32::try_from(random.below(u64::from(number))).unwrap()),
            };
            if let Append(..) | Write(..) = op {
                does(&mut seen, &op);
                does(&mut state, &op);
            }
            ops.push(op);
        }
        if outcome == Outcome::Done || outcome == Outcome::Unknown && random.below(2) == 0 {
            states.push(state);
        }
        let from = (at * 10).saturating_sub(random.below(25));
        calls.push(call(from, at * 10 + random.below(25), outcome, &ops));
    }
    calls
}

#[test]
fn short_histories_agree_with_a_search_of_all_orders() {
    let (mut right, mut wrong) = (0, 0);
    for seed in 0..20_000 {
        let history = any(&mut Random::new(seed));
        let is_right = follows(&BTreeMap::new(), &history.iter().collect::<Vec<_>>());
        let told = fault(&history);
        assert_eq!(told.is_none(), is_right, "seed {seed}: {told:?} of {history:#?}");
        if is_right { right += 1 } else { wrong += 1 }
    }
    assert!(right > 2_000 && wrong > 2_000, "{right} right, {wrong} wrong");
}
