//! Histories of concurrent clients, and a checker of their strict serializability.
//!
//! Clients append numbers to lists, whose contents show the order of writers, and read and write
//! registers, whose contents show the last writer (the workloads of Elle: Kingsbury, Alvaro, "Elle:
//! Inferring Isolation Anomalies from Experimental Observations", 2020). No number is written twice
//! to one place, so each observed number identifies its writer. The order of writes to a register
//! is not observed: where nothing else decides it, both orders are tried.
//!
//! ```
//! use coditect_histories::{Op, Outcome, Recorder, fault};
//!
//! let recorder = Recorder::default();
//! let (begun, number) = (recorder.now(), recorder.number());
//! // … a transaction of a client …
//! recorder.note(begun, Outcome::Done, vec![Op::Read("a", 0), Op::Write("a", number)]);
//! let begun = recorder.now();
//! recorder.note(begun, Outcome::Done, vec![Op::Read("a", 0)]);
//! let told = fault(&recorder.calls()).unwrap();
//! assert!(told.contains("each before the next, in a circle"), "{told}");
//! ```
//!
//! The crate depends neither on the store nor on HTTP: their tests record what they do.

mod check;
mod order;
mod outside;
mod random;
mod rounds;

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

pub use check::fault;
pub use random::Random;
pub use rounds::{assert_strictly_serializable, seeds};

/// The name of a list or a register; the same kind throughout a history.
pub type Key = &'static str;

/// An operation of a transaction. Operations are in program order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Appended the number to the list.
    Append(Key, u32),
    /// Read the whole list.
    List(Key, Vec<u32>),
    /// Wrote the number to the register.
    Write(Key, u32),
    /// Read the number in the register; 0 if it was empty.
    Read(Key, u32),
    /// Observed that the register does not have this number.
    Other(Key, u32),
}

/// The outcome of a transaction, as known to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Committed.
    Done,
    /// Committed, commits at any later time, or never. Its reads count only if it commits.
    Unknown,
    /// Aborted. Its reads must be of one state all the same.
    GivenUp,
}

/// A transaction, with its start and end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Time at which the client began it.
    pub from: u64,
    /// Time at which the client learned the outcome; an [unknown](Outcome::Unknown) one may commit
    /// later.
    pub to: u64,
    /// Outcome.
    pub outcome: Outcome,
    /// Operations.
    pub ops: Vec<Op>,
}

/// Records the calls of all clients. Has the clock and the numbers of a history.
#[derive(Debug)]
pub struct Recorder {
    begun: Instant,
    last: AtomicU32,
    calls: Mutex<Vec<Call>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), last: AtomicU32::new(0), calls: Mutex::default() }
    }
}

impl Recorder {
    /// Returns the time, in nanoseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Returns a unique number.
    pub fn number(&self) -> u32 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Records a transaction that began at `from` and ended now, if it has operations.
    pub fn note(&self, from: u64, outcome: Outcome, ops: Vec<Op>) {
        let to = self.now();
        if ops.is_empty() {
            return;
        }
        self.lock().push(Call { from, to, outcome, ops });
    }

    /// Returns all recorded calls.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append(key, number) => write!(f, "appends {number} to {key}"),
            Self::List(key, seen) => write!(f, "sees {key} as {seen:?}"),
            Self::Write(key, number) => write!(f, "writes {key} = {number}"),
            Self::Read(key, number) => write!(f, "sees {key} = {number}"),
            Self::Other(key, number) => write!(f, "finds {key} ≠ {number}"),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops: Vec<_> = self.ops.iter().map(ToString::to_string).collect();
        let end = match self.outcome {
            Outcome::Done => "",
            Outcome::Unknown => ", outcome unknown",
            Outcome::GivenUp => ", given up",
        };
        write!(f, "[{} to {}{end}] {}", self.from, self.to, ops.join(", "))
    }
}
