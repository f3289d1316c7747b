//! The write-ahead log: a batch of commits is one write at its end, and one sync.
//!
//! # Invariants
//!
//! One frame is written at a time, and only when the one before it is synced. So only the last
//! frame on disk can be torn after a crash, and it was not acknowledged. An intact frame after one
//! that is not proves that acknowledged commits are damaged: such a log is refused, not truncated.
//!
//! The B-tree file records the segment that has the last frame which the B-tree holds. That segment
//! exists until a later checkpoint records another. Each segment names its successor before the
//! first frame of the successor is written. So every segment with acknowledged frames that the
//! B-tree lacks is known by name, and a missing one is refused. A segment that nothing names has no
//! acknowledged frame: a crash came between creating it and naming it. Without any segment a store
//! opens only if the B-tree file records a clean shutdown, which moved everything to the B-tree.
//!
//! # On-disk format
//!
//! ```text
//! folder     log-0000.wal, log-0001.wal, …: segments, in the order of the numbers in their headers
//! segment    header (4,096 bytes) ‖ the header again ‖ frame ‖ frame ‖ … ‖ earlier contents
//! header     "CDTLOG\0\0" ‖ format (4 bytes) ‖ store (8) ‖ number (8) ‖ salt (8) ‖ CRC-32C (4) ‖ zeros
//!            ‖ successor (12) at byte 512 ‖ zeros
//! successor  number of the next segment (8) ‖ CRC-32C of this segment's salt and that number (4);
//!            zeros if there is none
//! frame      mark (4) ‖ CRC-32C (4) ‖ predecessor (4) ‖ length of the payload (4) ‖ version (8)
//!            ‖ payload ‖ zeros up to a multiple of 8
//! payload    change ‖ change ‖ …
//! change     1 ‖ key ‖ length (4) ‖ value             sets the key to the value
//!            2 ‖ key                                  clears the key
//!            3 ‖ key ‖ key                            clears the keys from the first up to the second
//! key        length (2) ‖ bytes
//! ```
//!
//! Numbers are little-endian. A frame's mark is the CRC-32C of the salt of its segment, so that
//! nothing else is taken for the beginning of one. A frame's checksum covers the salt of its
//! segment and everything in the frame behind the checksum; `predecessor` is the checksum of the
//! frame before, in this segment or an earlier one. A segment's file has its whole length, written
//! and synced, before it is needed: a commit changes no length and no name. Once the B-tree holds
//! all frames of a segment and records a later one, the file gets another number and another salt,
//! which void its old frames.
//!
//! On opening, all intact frames are read in order. Those that the B-tree holds are skipped; each
//! of the others must follow the one before it, and the first of them the frame whose checksum the
//! B-tree file records. A frame that is not intact matters only if a later one shows that something
//! is missing. A damaged last frame cannot be told from a torn one, and is skipped. New frames
//! continue the last segment.

mod frame;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing;
mod mutations;
mod recovery;
mod segment;

#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fuzzing::log_segment;

use std::{collections::VecDeque, io, sync::Arc};

use self::segment::{FRAMES, LONGEST, Link, SHORTEST, Segment, SegmentPool};
pub(super) use self::{
    frame::FrameBuilder,
    mutations::{Encoder, Mutation, MutationBatch},
    recovery::{LogPosition, Recorded, Replay, replay},
    segment::is_segment,
};
use super::vfs::{File, Vfs, is_no_space};
use crate::{Error, ErrorKind, Result};

/// Bytes at the end of a segment that only frames may use that free more than they take.
const RESERVE: u64 = 64 << 10;

/// The writer's end.
#[derive(Debug)]
pub(super) struct Log {
    pool: SegmentPool,
    active: Option<Active>,
    /// Segments before the active one that the B-tree file requires, or that it will not pass over.
    used: VecDeque<Segment>,
    /// The checksum of the last frame.
    last: u32,
    /// How long a segment is at the most, in bytes.
    longest: u64,
    /// Whether the last segment that was asked for found no space.
    is_full: bool,
}

#[derive(Debug)]
struct Active {
    segment: Segment,
    /// Where the next frame goes.
    at: u64,
}

/// A frame that has its place.
#[derive(Debug)]
pub(super) struct PendingFrame {
    /// The record that names this frame's segment, if the frame is its first.
    link: Option<Link>,
    file: Arc<dyn File>,
    at: u64,
    frame: FrameBuilder,
    /// How writing it went, if it was begun.
    begun: Option<io::Result<()>>,
}

impl PendingFrame {
    /// Writes it; the disk may make it durable from now on. [`write`](Self::write) returns the
    /// outcome. Does nothing for the first frame of a segment, which has to be named before.
    pub(super) fn begin(&mut self) {
        if self.link.is_some() {
            return;
        }
        let bytes = self.frame.bytes();
        let begun = self.file.write(self.at, bytes);
        if begun.is_ok() {
            self.file.start_writeback(self.at, bytes.len());
        }
        self.begun = Some(begun);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Makes it durable, after the name of its segment. After an error the content of the disk is
    /// unknown: the log must not be written to any more.
    pub(super) fn write(mut self) -> io::Result<()> {
        if let Some(link) = &self.link {
            link.write()?;
        }
        match self.begun.take() {
            Some(begun) => begun?,
            None => self.file.write(self.at, self.frame.bytes())?,
        }
        self.file.sync()
    }
}

impl Log {
    /// Returns the log of `store` on `disk`, as replayed; it continues the last segment. No segment
    /// is longer than a fourth of `memtable_bytes`, the memory for recent commits.
    pub(super) fn new(
        disk: Arc<dyn Vfs>,
        store: u64,
        replayed: Replay,
        memtable_bytes: usize,
    ) -> Self {
        let Replay { slots, free, used, tail, next_number, log_end, .. } = replayed;
        Self {
            pool: SegmentPool::new(disk, store, next_number, &slots, free),
            active: tail.map(|tail| Active { segment: tail.segment, at: tail.end }),
            used: used.into(),
            last: log_end.checksum,
            longest: (memtable_bytes as u64 / 4).clamp(SHORTEST, LONGEST),
            is_full: false,
        }
    }

    /// Returns the number of the first segment that replaying this log needs, after creating one if
    /// there is none.
    pub(super) fn first_segment(&mut self) -> Result<u64> {
        let active = if let Some(active) = self.active.take() {
            active
        } else {
            let taken = self.pool.acquire(0, SHORTEST);
            self.is_full = taken.as_ref().is_err_and(is_no_space);
            let segment = taken.map_err(|error| cannot("be lengthened", error))?;
            Active { segment, at: FRAMES }
        };
        let active = self.active.insert(active);
        Ok(self.used.front().unwrap_or(&active.segment).header.number)
    }

    /// Gives the next frame its place. An error leaves the log as it was. The end of a segment is
    /// kept for frames that `may_use_reserve`, until there is a next one.
    pub(super) fn append(
        &mut self,
        mut draft: FrameBuilder,
        version: u64,
        may_use_reserve: bool,
    ) -> Result<(PendingFrame, LogPosition)> {
        let length = draft.length() as u64;
        let has_room = self.active.as_ref().is_some_and(|active| {
            let kept = if may_use_reserve || self.pool.is_ready() { 0 } else { RESERVE };
            active.at + length + kept <= active.segment.slot.length
        });
        let mut link = None;
        if !has_room {
            let taken = self.pool.acquire(length, self.next_length());
            self.is_full = taken.as_ref().is_err_and(is_no_space);
            let segment = taken.map_err(|error| cannot("be lengthened", error))?;
            let number = segment.header.number;
            if let Some(before) = self.active.replace(Active { segment, at: FRAMES }) {
                let Segment { slot, header } = &before.segment;
                link = Some(Link::new(Arc::clone(&slot.file), *header, number));
                self.used.push_back(before.segment);
            }
        }
        let Some(active) = &mut self.active else { return Err(no_segment()) };
        let checksum = draft.finish(active.segment.header, self.last, version);
        let Segment { slot, header } = &active.segment;
        let (file, segment) = (Arc::clone(&slot.file), header.number);
        let placed = PendingFrame { link, file, at: active.at, frame: draft, begun: None };
        active.at += length;
        if active.at > active.segment.slot.length / 2 {
            self.pool.prepare(self.next_length());
        }
        self.last = checksum;
        Ok((placed, LogPosition { version, checksum, segment }))
    }

    /// Returns whether the last segment that was asked for found no space.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns whether there is a segment for the next frames, after trying to get one.
    pub(super) fn has_next(&mut self) -> bool {
        self.is_full = !self.pool.has_next(self.next_length());
        !self.is_full
    }

    /// Each segment is longer than the one before: who writes little keeps little.
    fn next_length(&self) -> u64 {
        let length = self.active.as_ref().map_or(SHORTEST, |active| active.segment.slot.length * 4);
        length.clamp(SHORTEST, self.longest)
    }

    /// Recycles the segments before `first`, which the B-tree file records as the first one that it
    /// requires.
    pub(super) fn release(&mut self, first: u64) {
        while self.used.front().is_some_and(|segment| segment.header.number < first)
            && let Some(segment) = self.used.pop_front()
        {
            self.pool.recycle(segment.slot);
        }
    }
}

fn no_segment() -> Error {
    cannot("be lengthened", io::Error::other("there is no segment"))
}

fn cannot(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the log cannot {what}")).with_source(error)
}
