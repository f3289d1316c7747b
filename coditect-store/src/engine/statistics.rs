//! What a transaction has cost so far.
//!
//! A *round* is reads that run together: on a cluster each costs one round trip, however many they
//! are. Reads that are made one after the other are a round each. The embedded engine answers at once,
//! so that reads that were begun together are over one after the other all the same; a test that
//! counts rounds asks for [`Options::round_trips`](super::Options::round_trips).

use std::sync::atomic::{AtomicU64, Ordering};

/// What a transaction has read and written so far: see
/// [`Transaction::statistics`](super::Transaction::statistics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Reads: of a key, of a selector, of a page of a range.
    pub reads: u64,
    /// Reads that were made one after the other, those that ran together counted once.
    pub rounds: u64,
    /// Rows that were read.
    pub rows_read: u64,
    /// Keys and values of those, in bytes.
    pub bytes_read: u64,
    /// Sets, clears and atomic operations.
    pub writes: u64,
    /// Keys and values of those, in bytes.
    pub bytes_written: u64,
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    reads: AtomicU64,
    rounds: AtomicU64,
    rows_read: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    /// Reads that are not answered yet.
    running: AtomicU64,
    /// Whether a read lets others begin before it is answered.
    round_trips: bool,
}

/// A read that is not answered yet. It may be given up.
#[derive(Debug)]
pub(super) struct Read<'a>(&'a Counts);

impl Counts {
    pub(super) fn new(round_trips: bool) -> Self {
        Self { round_trips, ..Self::default() }
    }

    pub(super) fn has_round_trips(&self) -> bool {
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

    pub(super) fn so_far(&self) -> Statistics {
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
