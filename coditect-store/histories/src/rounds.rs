use std::{env, ops::Range};

use crate::{Call, fault};

/// How many rounds a test goes, if more are wanted, or fewer.
const ROUNDS: &str = "CODITECT_HISTORY_ROUNDS";
/// The seed of its first round.
const SEED: &str = "CODITECT_HISTORY_SEED";

/// The seeds of a test's rounds: `few` of them, or as many as the variable `CODITECT_HISTORY_ROUNDS` says, from
/// that on which `CODITECT_HISTORY_SEED` names, or 0.
///
/// # Panics
///
/// If one of the two is no number.
pub fn seeds(few: u64) -> Range<u64> {
    let variable = |name| {
        let value = env::var(name).ok()?;
        Some(value.parse::<u64>().unwrap_or_else(|error| panic!("{name} is {value}: {error}")))
    };
    let first = variable(SEED).unwrap_or(0);
    first..first + variable(ROUNDS).unwrap_or(few)
}

/// Asserts that the history of the round of `seed` is strictly serializable.
///
/// # Panics
///
/// If it is not: with what is wrong, and how `test`, as cargo is asked for it, does the same work again. (Who
/// comes first is up to the threads, and may take many rounds of it.)
pub fn assert_strictly_serializable(calls: &[Call], seed: u64, test: &str) {
    if let Some(fault) = fault(calls) {
        panic!("seed {seed}: {fault}\nonce more: {SEED}={seed} {ROUNDS}=1 cargo test {test}");
    }
}
