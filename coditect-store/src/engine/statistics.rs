//! Counters of the reads and writes of a transaction.
//!
//! A *round* is a set of concurrent reads: on a cluster it costs one round trip. Sequential reads
//! are a round each. The embedded engine answers at once, so that concurrent reads complete one
//! after the other; a test that counts rounds sets
//! [`Options::simulate_round_trips`](super::Options::simulate_round_trips).

use std::sync::atomic::{AtomicU64, Ordering};

/// The reads and writes of a transaction: see
/// [`Transaction::statistics`](super::Transaction::statistics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Number of reads: of a key, a selector, or a page of a range.
    pub reads: u64,
    /// Number of rounds.
    pub rounds: u64,
    /// Number of rows read.
    pub rows_read: u64,
    /// Size of their keys and values, in bytes.
    pub bytes_read: u64,
    /// Number of sets, clears and atomic operations.
    pub writes: u64,
    /// Size of their keys and values, in bytes.
    pub bytes_written: u64,
}

/// The counters behind [`Statistics`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    reads: AtomicU64,
    rounds: AtomicU64,
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    /// Number of reads in flight.
    running: AtomicU64,
    /// Whether a read yields before it completes.
    round_trips: bool,
}

/// A read in flight; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Read<'a>(&'a Counts);

impl Counts {
    pub(super) fn new(round_trips: bool) -> Self {
        Self { round_trips, ..Self::default() }
    }

    pub(super) fn simulates_round_trips(&self) -> bool {
        self.round_trips
    }

    pub(super) fn begin_read(&self) -> Read<'_> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.running.fetch_add(1, Ordering::Relaxed) == 0 {
            self.rounds.fetch_add(1, Ordering::Relaxed);
        }
        Read(self)
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Statistics {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Statistics {
            reads: of(&self.reads),
            rounds: of(&self.rounds),
            rows_read: of(&self.rows_read),
            bytes_read: of(&self.bytes_read),
            writes: of(&self.writes),
            bytes_written: of(&self.bytes_written),
        }
    }
}

impl Read<'_> {
    pub(super) fn found(&self, rows: usize, bytes: usize) {
        self.0.rows_read.fetch_add(rows as u64, Ordering::Relaxed);
        self.0.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
