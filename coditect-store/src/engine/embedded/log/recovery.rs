//! What a log has that the B-tree has not.

use std::{fmt, io};

use chrono::{DateTime, Utc};

use super::{
    super::disk::{self, Disk},
    cannot,
    frame::{ALIGNMENT, Change, Frame},
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
    mut redo: impl FnMut(Applied, &[Change<'_>]) -> Result<()>,
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
    for (n, (header, slot)) in (1_usize..).zip(segments) {
        let bytes = disk::read_all(&*slot.file).map_err(|error| cannot("be read", error))?;
        let before = replay.frames;
        let mut last_version = 0;
        for frame in frames(&bytes, header.salt) {
            last_version = frame.version;
            if frame.version <= applied.version {
                continue;
            }
            if replay.lost.is_some() || frame.predecessor != replay.reached.checksum {
                replay.lost().add(frame.version);
                continue;
            }
            let reached = Applied { version: frame.version, checksum: frame.checksum };
            let changes: Option<Vec<_>> = frame.changes().collect();
            redo(reached, &changes.ok_or_else(nonsense)?)?;
            replay.reached = reached;
            replay.frames += 1;
        }
        if last_version > applied.version {
            replay.used.push((slot, last_version));
        } else {
            replay.free.push(slot);
        }
        if replay.frames > before {
            let frames = replay.frames;
            tracing::info!(frames, "replayed the log as far as segment {n} of {of}");
        }
    }
    Ok(replay)
}

impl Replay {
    fn lost(&mut self) -> &mut Lost {
        self.lost.get_or_insert_default()
    }

    /// Gives the log's files names under which no log is looked for.
    pub(in super::super) fn put_aside(&self, disk: &dyn Disk) -> Result<()> {
        for slot in &self.slots {
            let aside = format!("{}.damaged-{}", slot.name, self.reached.version);
            disk.publish(&slot.name, &aside).map_err(|error| cannot("be put aside", error))?;
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

/// All whole frames of a segment.
fn frames(bytes: &[u8], salt: u64) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = usize::try_from(FRAMES).ok().and_then(|from| bytes.get(from..)).unwrap_or(&[]);
    std::iter::from_fn(move || {
        loop {
            if let Some(frame) = Frame::read(rest, salt) {
                rest = rest.get(frame.length()..).unwrap_or(&[]);
                return Some(frame);
            }
            rest = rest.get(ALIGNMENT..)?;
        }
    })
}

fn nonsense() -> Error {
    Error::new(ErrorKind::Corrupt, "the log has a batch of commits that makes no sense")
}
