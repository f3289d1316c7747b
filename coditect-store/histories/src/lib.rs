//! Many clients at once, each noting what it did and saw; and whether all of that could have been done one
//! after the other, in an order that keeps to the clock: strict serializability.
//!
//! Clients append numbers to lists, whose content tells the order of its writers, and read and write
//! registers, whose content tells who wrote last (the workloads of Elle: Kingsbury, Alvaro, "Elle: Inferring
//! Isolation Anomalies from Experimental Observations", 2020). No number is written to the same place twice,
//! so that whoever sees one knows who wrote it. In which order a register was written is not told: where it
//! matters and nothing else decides it, both orders are tried.
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
//! It knows no store and no HTTP: those who have some note what they did there.

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

/// The name of a list or a register: of one of the two, throughout a history.
pub type Key = &'static str;

/// One step of a transaction, in the order in which it took them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// It put the number at the end of the list.
    Append(Key, u32),
    /// It saw all of the list.
    List(Key, Vec<u32>),
    /// It put the number into the register.
    Write(Key, u32),
    /// It saw the number in the register: 0, if it found none.
    Read(Key, u32),
    /// It learnt that not this number is in the register.
    Other(Key, u32),
}

/// What became of a transaction, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It is done, or will be at any time, or never. What it is noted to have seen counts if it is done.
    Unknown,
    /// It wrote nothing. What it saw must have been there all the same, all of it at one time.
    GivenUp,
}

/// A transaction, from when to when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// When its client began it.
    pub from: u64,
    /// When its client was told of its end; what is [unknown](Outcome::Unknown) may come later.
    pub to: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// What it did and saw.
    pub ops: Vec<Op>,
}

/// Where clients note what they do. It has the one clock of a history, and its numbers.
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
    /// The hour, in nanoseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number that nobody has.
    pub fn number(&self) -> u32 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes a transaction, if it did or saw anything, that was begun at `from`, and of whose end its client was told just now.
    pub fn note(&self, from: u64, outcome: Outcome, ops: Vec<Op>) {
        let to = self.now();
        if ops.is_empty() {
            return;
        }
        self.lock().push(Call { from, to, outcome, ops });
    }

    /// All that was noted.
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
