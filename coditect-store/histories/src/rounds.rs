use std::{env, ops::Range};

use crate::{Call, fault};

/// Environment variable with the number of rounds of a test.
const ROUNDS: &str = "CODITECT_HISTORY_ROUNDS";
/// Environment variable with the seed of the first round.
const SEED: &str = "CODITECT_HISTORY_SEED";

/// Returns the seeds of a test's rounds: `few`, or `CODITECT_HISTORY_ROUNDS`, starting at
/// `CODITECT_HISTORY_SEED`, or 0.
///
/// # Panics
///
/// If one of the variables is not a number.
pub fn seeds(few: u64) -> Range<u64> {
    let variable = |name| {
        let value = env::var(name).ok()?;
        Some(value.parse::<u64>().unwrap_or_else(|error| panic!("{name} is {value}: {error}")))
    };
    let first = variable(SEED).unwrap_or(0);
    first..first + variable(ROUNDS).unwrap_or(few)
}

/// Asserts that the history of the round `seed` is strictly serializable.
///
/// # Panics
///
/// If it is not: with the fault, and the command that runs the same work of `test` again. (Thread
/// scheduling differs, so reproducing it may take many rounds.)
pub fn assert_strictly_serializable(calls: &[Call], seed: u64, test: &str) {
    if let Some(fault) = fault(calls) {
        panic!("seed {seed}: {fault}\nonce more: {SEED}={seed} {ROUNDS}=1 cargo test {test}");
    }
}
