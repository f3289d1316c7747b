//! What a log has that the B-tree has not.

use std::{fmt, io, iter, sync::Arc};

use chrono::{DateTime, Utc};

use super::{
    super::disk::{self, Disk, File},
    cannot,
    changes::Change,
    frame::{ALIGNMENT, Frame},
    segment::{FRAMES, Header, Slot},
};
use crate::{Error, ErrorKind, Result};

/// How far the B-tree holds the log: the last frame's version and checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Applied {
    pub(in super::super) version: u64,
    pub(in super::super) checksum: u32,
}

/// What was found.
#[derive(Debug, Default)]
pub(in super::super) struct Replay {
    /// The last frame that follows all before it.
    pub(in super::super) reached: Applied,
    /// How many frames were replayed.
    pub(in super::super) frames: u64,
    /// What is there and does not follow.
    pub(in super::super) lost: Option<Lost>,
    pub(super) slots: Vec<Slot>,
    /// Files with frames that the B-tree does not hold, each with its last version, oldest first.
    pub(super) used: Vec<(Slot, u64)>,
    /// Files without.
    pub(super) free: Vec<Slot>,
    pub(super) next_number: u64,
    /// The last frame that was replayed, and where it lies.
    last: Option<(Arc<dyn File>, u64, Vec<u8>)>,
}

/// Frames that are whole, or may be, while one before them is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Lost {
    pub(in super::super) frames: u64,
    /// Their first and last versions.
    pub(in super::super) versions: Option<(u64, u64)>,
    /// Files whose headers cannot be read.
    pub(in super::super) unreadable: Vec<String>,
}

/// Gives `redo` all that follows `applied`, in order, frame by frame. It stops at what does not follow,
/// which is [`Replay::lost`].
pub(in super::super) fn replay(
    disk: &dyn Disk,
    store: u64,
    applied: Applied,
    mut redo: impl FnMut(&mut dyn Iterator<Item = Change<'_>>),
) -> Result<Replay> {
    let mut replay = Replay { reached: applied, ..Replay::default() };
    replay.slots = Slot::all(disk).map_err(|error| cannot("be opened", error))?;
    let mut segments = Vec::new();
    for slot in replay.slots.clone() {
        match header(&slot)? {
            None => replay.lost().unreadable.push(slot.name),
            Some(header) if header.store != store => {
                let message = format!("{} belongs to another store", slot.name);
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            Some(header) => segments.push((header, slot)),
        }
    }
    segments.sort_unstable_by_key(|(header, _)| header.number);
    replay.next_number = segments.last().map_or(0, |(header, _)| header.number + 1);
    let of = segments.len();
    let mut bytes = Vec::new();
    for (n, (header, slot)) in (1_usize..).zip(segments) {
        disk::read_all(&*slot.file, &mut bytes).map_err(|error| cannot("be read", error))?;
        let before = replay.frames;
        let mut last_version = 0;
        let mut last = None;
        for (at, frame) in frames(&bytes, header) {
            last_version = frame.version;
            if frame.version <= applied.version {
                continue;
            }
            let is_broken = replay.lost.as_ref().is_some_and(|lost| lost.frames > 0);
            if is_broken || frame.predecessor != replay.reached.checksum {
                replay.lost().add(frame.version);
                continue;
            }
            let reached = Applied { version: frame.version, checksum: frame.checksum };
            redo(&mut frame.changes().ok_or_else(nonsense)?);
            replay.reached = reached;
            replay.frames += 1;
            last = Some((at, frame.length()));
        }
        if let Some((at, length)) = last {
            let end = (at + length).min(bytes.len());
            let frame = bytes[at..end].to_vec();
            replay.last = Some((Arc::clone(&slot.file), at as u64, frame));
        }
        if last_version > applied.version {
            replay.used.push((slot, last_version));
        } else {
            replay.free.push(slot);
        }
        if replay.frames > before {
            let frames = replay.frames;
            tracing::debug!(frames, "replayed the log as far as segment {n} of {of}");
        }
    }
    Ok(replay)
}

impl Replay {
    fn lost(&mut self) -> &mut Lost {
        self.lost.get_or_insert_default()
    }

    /// Makes durable what was replayed, before anybody sees it. A crash of the program leaves the last frame
    /// in the system's cache, and it may not be on disk: the others are, since one is written when the one
    /// before it is synced. It is written again, since what failed to be synced once may count as clean.
    pub(in super::super) fn make_durable(&self) -> Result<()> {
        let Some((file, at, frame)) = &self.last else { return Ok(()) };
        file.write(*at, frame)
            .and_then(|()| file.sync())
            .map_err(|error| cannot("be synced", error))
    }

    /// Gives the log's files names under which no log is looked for.
    pub(in super::super) fn put_aside(&self, disk: &dyn Disk) -> Result<()> {
        for slot in &self.slots {
            let aside = format!("{}.damaged-{}", slot.name, self.reached.version);
            // One of that name may be there from another time.
            let mut names =
                iter::once(aside.clone()).chain((2_u32..).map(|n| format!("{aside}-{n}")));
            let publish = |aside: &str| match disk.publish(&slot.name, aside) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                outcome => Some(outcome),
            };
            if let Some(outcome) = names.find_map(|aside| publish(&aside)) {
                outcome.map_err(|error| cannot("be put aside", error))?;
            }
        }
        disk.sync_names().map_err(|error| cannot("be put aside", error))
    }

    /// Refuses a log of which something is missing.
    pub(in super::super) fn complete(self) -> Result<Self> {
        match &self.lost {
            None => Ok(self),
            Some(lost) => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the log is damaged behind {}: {lost}. What was committed then is lost; `check \
                     --repair` opens the store as it was before, and keeps the log's files aside",
                    Moment(self.reached.version)
                ),
            )),
        }
    }
}

impl Lost {
    fn add(&mut self, version: u64) {
        self.frames += 1;
        let (first, _) = self.versions.unwrap_or((version, version));
        self.versions = Some((first, version));
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.versions {
            Some((first, last)) => write!(
                f,
                "{} later batches of commits are whole, from {} to {}",
                self.frames,
                Moment(first),
                Moment(last)
            )?,
            None => f.write_str("no later batch of commits is whole")?,
        }
        if !self.unreadable.is_empty() {
            write!(f, "; these have no readable header: {}", self.unreadable.join(", "))?;
        }
        Ok(())
    }
}

/// A version, and when it was given, as far as the clock was right.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).ok();
        match micros.and_then(DateTime::<Utc>::from_timestamp_micros) {
            Some(at) => write!(f, "version {} ({at:?})", self.0),
            None => write!(f, "version {}", self.0),
        }
    }
}

fn header(slot: &Slot) -> Result<Option<Header>> {
    let length = FRAMES.min(slot.length);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    slot.file.read(0, &mut bytes).map_err(|error: io::Error| cannot("be read", error))?;
    Header::of(&bytes).transpose()
}

/// All whole frames of a segment, and where they lie.
fn frames(bytes: &[u8], header: Header) -> impl Iterator<Item = (usize, Frame<'_>)> {
    let mut next = usize::try_from(FRAMES).unwrap_or(usize::MAX);
    iter::from_fn(move || {
        loop {
            let (at, rest) = (next, bytes.get(next..)?);
            let frame = Frame::read(rest, header);
            next += frame.map_or(ALIGNMENT, |frame| frame.length());
            if let Some(frame) = frame {
                return Some((at, frame));
            }
        }
    })
}

fn nonsense() -> Error {
    Error::new(ErrorKind::Corrupt, "the log has a batch of commits that makes no sense")
}
