//! The write-ahead log (WAL): each batch of commits is appended as one frame, with one write and
//! one sync.
//!
//! # Invariants
//!
//! One frame is written at a time, and only when the one before it is synced. So only the last
//! frame on disk can be torn after a crash, and it was not acknowledged. An intact frame after one
//! that is not proves that acknowledged commits are damaged: such a log is refused, not truncated.
//!
//! The B-tree file records the segment of the last frame that it contains. That segment exists
//! until a later checkpoint records another one. Each segment names its successor before the
//! successor's first frame is written. So every segment with acknowledged frames that the B-tree
//! lacks is named, and a store with a missing segment is refused. A segment that nothing names has
//! no acknowledged frame: a crash came between its creation and its naming. Without any segment a
//! store opens only if the B-tree file records a clean shutdown, after which it contains all
//! commits.
//!
//! # On-disk format
//!
//! ```text
//! folder     log-0000.wal, log-0001.wal, …: segments, in the order of the numbers in their headers
//! segment    header (4,096 bytes) ‖ the header again ‖ frame ‖ frame ‖ … ‖ earlier contents
//! header     "CDTLOG\0\0" ‖ format (4 bytes) ‖ store (8) ‖ number (8) ‖ salt (8)
//!            ‖ CRC-32C (4) ‖ zeros
//!            ‖ successor (12) at byte 512 ‖ zeros
//! successor  number of the next segment (8) ‖ CRC-32C of this segment's salt and that number (4);
//!            zeros if there is none
//! frame      magic (4) ‖ CRC-32C (4) ‖ predecessor (4) ‖ length of the payload (4) ‖ version (8)
//!            ‖ payload ‖ zeros up to a multiple of 8
//! payload    mutation ‖ mutation ‖ …
//! mutation   1 ‖ key ‖ length (4) ‖ value             sets the key to the value
//!            2 ‖ key                                  clears the key
//!            3 ‖ key ‖ key                            clears the range [first, second)
//! key        length (2) ‖ bytes
//! ```
//!
//! Numbers are little-endian. The magic of a frame is the CRC-32C of the salt of its segment, so
//! that no other bytes match it. The checksum of a frame covers the salt of its segment and the
//! bytes of the frame after the checksum; `predecessor` is the checksum of the previous frame, in
//! this segment or an earlier one. A segment file is written to its full length and synced before
//! it is used, so that a commit changes neither lengths nor names. Once the B-tree contains all
//! frames of a segment and requires a later one, the segment is recycled with a new number and
//! salt, which invalidate its old frames.
//!
//! Recovery reads all intact frames in order, and skips frames that the B-tree contains. Each
//! further frame must follow the previous one; the first must follow the frame whose checksum the
//! B-tree file records. A frame that is not intact is a gap if an intact frame follows, and a torn
//! tail otherwise. New frames continue the last segment.

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

use self::segment::{FRAMES, Link, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, Segment, SegmentPool};
pub(super) use self::{
    frame::FrameBuilder,
    mutations::{Encoder, Mutation, MutationBatch},
    recovery::{LogPosition, Recorded, Replay, replay},
    segment::is_segment,
};
use super::vfs::{File, Vfs, is_no_space};
use crate::{Error, ErrorKind, Result};

/// Bytes at the end of a segment that are reserved for frames that free more space than they need.
const RESERVE_BYTES: u64 = 64 << 10;

/// The append side of the WAL.
#[derive(Debug)]
pub(super) struct Log {
    pool: SegmentPool,
    active: Option<Active>,
    /// Segments before the active one that are not checkpointed or that the B-tree file requires.
    used: VecDeque<Segment>,
    /// The checksum of the last frame.
    last: u32,
    /// Maximum length of a segment, in bytes.
    max_length: u64,
    /// Whether the last allocation of a segment found no space.
    is_full: bool,
}

#[derive(Debug)]
struct Active {
    segment: Segment,
    /// Offset of the next frame.
    at: u64,
}

/// A frame with its position in a segment, to be written.
#[derive(Debug)]
pub(super) struct PendingFrame {
    /// The record that names this frame's segment, if the frame is its first.
    link: Option<Link>,
    file: Arc<dyn File>,
    at: u64,
    frame: FrameBuilder,
    /// The result of [`begin`](Self::begin), if it was called.
    begun: Option<io::Result<()>>,
}

impl PendingFrame {
    /// Writes the frame and starts the writeback; [`write`](Self::write) returns the outcome. Does
    /// nothing for the first frame of a segment, which has to be named before.
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

    /// Makes the frame durable, after the link to its segment. After an error the content of the
    /// disk is unknown, and the WAL must not be written again.
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
    /// Returns the WAL of `store` on `disk` after a replay; it continues the last segment. Segments
    /// are at most a quarter of `memtable_bytes` long.
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
            max_length: (memtable_bytes as u64 / 4).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES),
            is_full: false,
        }
    }

    /// Returns the number of the first segment that a replay needs, after creating one if there is
    /// none.
    pub(super) fn first_segment(&mut self) -> Result<u64> {
        let active = if let Some(active) = self.active.take() {
            active
        } else {
            let taken = self.pool.acquire(0, MIN_SEGMENT_BYTES);
            self.is_full = taken.as_ref().is_err_and(is_no_space);
            let segment = taken.map_err(|error| cannot("allocate a segment of", error))?;
            Active { segment, at: FRAMES }
        };
        let active = self.active.insert(active);
        Ok(self.used.front().unwrap_or(&active.segment).header.number)
    }

    /// Assigns a position to the next frame. An error leaves the WAL unchanged. The end of a
    /// segment is reserved for frames that `may_use_reserve`, until the next segment is ready.
    pub(super) fn append(
        &mut self,
        mut frame: FrameBuilder,
        version: u64,
        may_use_reserve: bool,
    ) -> Result<(PendingFrame, LogPosition)> {
        let length = frame.length() as u64;
        let has_room = self.active.as_ref().is_some_and(|active| {
            let reserved = if may_use_reserve || self.pool.is_ready() { 0 } else { RESERVE_BYTES };
            active.at + length + reserved <= active.segment.slot.length
        });
        let mut link = None;
        if !has_room {
            let taken = self.pool.acquire(length, self.next_length());
            self.is_full = taken.as_ref().is_err_and(is_no_space);
            let segment = taken.map_err(|error| cannot("allocate a segment of", error))?;
            let number = segment.header.number;
            if let Some(before) = self.active.replace(Active { segment, at: FRAMES }) {
                let Segment { slot, header } = &before.segment;
                link = Some(Link::new(Arc::clone(&slot.file), *header, number));
                self.used.push_back(before.segment);
            }
        }
        let Some(active) = &mut self.active else { return Err(no_segment()) };
        let checksum = frame.finish(active.segment.header, self.last, version);
        let Segment { slot, header } = &active.segment;
        let (file, segment) = (Arc::clone(&slot.file), header.number);
        let pending = PendingFrame { link, file, at: active.at, frame, begun: None };
        active.at += length;
        if active.at > active.segment.slot.length / 2 {
            self.pool.prepare(self.next_length());
        }
        self.last = checksum;
        Ok((pending, LogPosition { version, checksum, segment }))
    }

    /// Returns whether the last allocation of a segment found no space.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns whether the next segment is ready; starts to allocate it otherwise.
    pub(super) fn has_next(&mut self) -> bool {
        self.is_full = !self.pool.has_next(self.next_length());
        !self.is_full
    }

    /// Returns the length of the next segment: four times that of the active one, so that small
    /// stores have small segments.
    fn next_length(&self) -> u64 {
        let length =
            self.active.as_ref().map_or(MIN_SEGMENT_BYTES, |active| active.segment.slot.length * 4);
        length.clamp(MIN_SEGMENT_BYTES, self.max_length)
    }

    /// Recycles the segments before `first`, the first segment that the B-tree file requires.
    pub(super) fn release(&mut self, first: u64) {
        while self.used.front().is_some_and(|segment| segment.header.number < first)
            && let Some(segment) = self.used.pop_front()
        {
            self.pool.recycle(segment.slot);
        }
    }
}

fn no_segment() -> Error {
    cannot("append to", io::Error::other("no active segment"))
}

fn cannot(action: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot {action} the WAL")).with_source(error)
}
