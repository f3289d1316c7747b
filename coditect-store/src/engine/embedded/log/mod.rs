//! The log in front of the B-tree: a batch of commits is one write at its end, and one sync.
//!
//! What stays true: one frame is written at a time, and only when the one before it is synced. So of
//! all that is on disk after a crash only the last frame can be torn, and nobody was told of that one. A
//! frame that is whole while the one before it is not says that something that was acknowledged is
//! damaged: such a log is refused, not cut.
//!
//! ```text
//! folder     log-0000.wal, log-0001.wal, …: segments, in the order of the numbers in their headers
//! segment    header (4,096 bytes) ‖ the header again ‖ frame ‖ frame ‖ … ‖ what was there before
//! header     "CDTLOG\0\0" ‖ format (4 bytes) ‖ store (8) ‖ number (8) ‖ salt (8) ‖ CRC-32C (4) ‖ zeros
//! frame      mark (4) ‖ CRC-32C (4) ‖ predecessor (4) ‖ length of the payload (4) ‖ version (8)
//!            ‖ payload ‖ zeros up to a multiple of 8
//! payload    change ‖ change ‖ …
//! change     1 ‖ key ‖ length (4) ‖ value             the key has the value
//!            2 ‖ key                                  the key has none
//!            3 ‖ key ‖ key                            the keys from the first up to the second have none
//! key        length (2) ‖ bytes
//! ```
//!
//! Numbers are little-endian. A frame's mark is the CRC-32C of the salt of its segment (in format 1 it was
//! "CDTF"), so that nothing else is taken for the beginning of one. A frame's checksum is over the salt of its segment and everything in the
//! frame behind the checksum; `predecessor` is the checksum of the frame before, wherever that lies.
//! Segments are files that are there, with their whole length written and synced, before they are
//! needed: a commit changes no length and no name. When the B-tree holds what a segment does, the file
//! gets another number and another salt, and none of its old frames counts any more.
//!
//! On opening, all whole frames are taken in order. Those that the B-tree holds are passed over, each
//! of the others must follow the one before it; the first of them, the one that the B-tree has the
//! checksum of. What is not whole matters only if a later frame shows that something is missing. A
//! damaged last frame cannot be told from one that was torn, and is passed over in silence.

mod changes;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzzing;
mod recovery;
mod segment;

#[cfg(test)]
mod tests;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use fuzzing::log_segment;

use std::{collections::VecDeque, io, sync::Arc};

use self::segment::{FRAMES, LONGEST, SHORTEST, Segment, Slot, Supply};
pub(super) use self::{
    changes::{Change, Changes, Encoder},
    frame::Draft,
    recovery::{Applied, Replay, replay},
    segment::is_segment,
};
use super::{
    disk::{Disk, File},
    space::is_no_space,
};
use crate::{Error, ErrorKind, Result};

/// Bytes at the end of a segment that only frames may use that free more than they take.
const RESERVE: u64 = 64 << 10;

/// The writer's end.
#[derive(Debug)]
pub(super) struct Log {
    supply: Supply,
    active: Option<Active>,
    /// Files whose frames the B-tree does not hold yet, each with its last version.
    used: VecDeque<(Slot, u64)>,
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
    last_version: u64,
}

/// A frame that has its place.
#[derive(Debug)]
pub(super) struct Placed {
    file: Arc<dyn File>,
    at: u64,
    frame: Draft,
    /// How writing it went, if it was begun.
    begun: Option<io::Result<()>>,
}

impl Placed {
    /// Writes it; the disk may make it durable from now on. How that went, [`write`](Self::write) says.
    pub(super) fn begin(&mut self) {
        let bytes = self.frame.bytes();
        let begun = self.file.write(self.at, bytes);
        if begun.is_ok() {
            self.file.begin_sync(self.at, bytes.len());
        }
        self.begun = Some(begun);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// Makes it durable. After an error nobody knows what is on disk: the log must not be written to any
    /// more.
    pub(super) fn write(mut self) -> io::Result<()> {
        match self.begun.take() {
            Some(begun) => begun?,
            None => self.file.write(self.at, self.frame.bytes())?,
        }
        self.file.sync()
    }
}

impl Log {
    /// The log of `store` on `disk`, as far as it has been replayed. It goes on in a segment of its own.
    /// None is longer than a fourth of the memory that holds what is not in the B-tree yet.
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        store: u64,
        replayed: Replay,
        overlay_bytes: usize,
    ) -> Self {
        let Replay { slots, free, used, next_number, reached, .. } = replayed;
        Self {
            supply: Supply::new(disk, store, next_number, &slots, free),
            active: None,
            used: used.into(),
            last: reached.checksum,
            longest: (overlay_bytes as u64 / 4).clamp(SHORTEST, LONGEST),
            is_full: false,
        }
    }

    /// Gives the next frame its place. An error leaves the log as it was. The end of a segment is kept
    /// for frames that `may_use_reserve`, until there is a next one.
    pub(super) fn append(
        &mut self,
        mut draft: Draft,
        version: u64,
        may_use_reserve: bool,
    ) -> Result<(Placed, Applied)> {
        let length = draft.length() as u64;
        let has_room = self.active.as_ref().is_some_and(|active| {
            let kept = if may_use_reserve || self.supply.is_ready() { 0 } else { RESERVE };
            active.at + length + kept <= active.segment.slot.length
        });
        if !has_room {
            let taken = self.supply.take(length, self.next_length());
            self.is_full = taken.as_ref().is_err_and(is_no_space);
            let segment = taken.map_err(|error| cannot("be lengthened", error))?;
            let next = Active { segment, at: FRAMES, last_version: version };
            if let Some(Active { segment, last_version, .. }) = self.active.replace(next) {
                self.used.push_back((segment.slot, last_version));
            }
        }
        let Some(active) = &mut self.active else { return Err(no_segment()) };
        let checksum = draft.finish(active.segment.header, self.last, version);
        let file = Arc::clone(&active.segment.slot.file);
        let placed = Placed { file, at: active.at, frame: draft, begun: None };
        active.at += length;
        active.last_version = version;
        if active.at > active.segment.slot.length / 2 {
            self.supply.prepare(self.next_length());
        }
        self.last = checksum;
        Ok((placed, Applied { version, checksum }))
    }

    /// Returns whether the last segment that was asked for found no space.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// Returns whether there is a segment for the next frames, after trying to get one.
    pub(super) fn has_next(&mut self) -> bool {
        self.is_full = !self.supply.has_next(self.next_length());
        !self.is_full
    }

    /// Each segment is longer than the one before: who writes little keeps little.
    fn next_length(&self) -> u64 {
        let length = self.active.as_ref().map_or(SHORTEST, |active| active.segment.slot.length * 4);
        length.clamp(SHORTEST, self.longest)
    }

    /// The B-tree holds everything up to `version`.
    pub(super) fn release(&mut self, version: u64) {
        while self.used.front().is_some_and(|(_, last)| *last <= version)
            && let Some((slot, _)) = self.used.pop_front()
        {
            self.supply.give(slot);
        }
    }
}

fn no_segment() -> Error {
    cannot("be lengthened", io::Error::other("there is no segment"))
}

fn cannot(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the log cannot {what}")).with_source(error)
}
