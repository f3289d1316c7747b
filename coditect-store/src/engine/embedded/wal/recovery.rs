//! Replay of the WAL: reads the frames that the B-tree lacks, and detects missing ones.

use std::{collections::BTreeMap, fmt, io, iter, sync::Arc};

use chrono::{DateTime, Utc};

use super::{
    super::vfs::{self, File, Vfs},
    cannot,
    frame::{ALIGNMENT, Frame},
    mutations::Mutation,
    segment::{FRAMES, Header, Link, Segment, SegmentFile},
};
use crate::{Error, ErrorKind, Result};

/// A position in the WAL: the last frame that the B-tree contains, or that was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogPosition {
    pub(crate) version: u64,
    pub(crate) checksum: u32,
    /// Number of the segment with the frame, or of the first segment; 0 if there is none.
    pub(crate) segment: u64,
}

/// The record of the WAL in the B-tree file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recorded {
    pub(crate) store: u64,
    pub(crate) applied: LogPosition,
    /// Whether the last shutdown was clean: the B-tree contains all commits, and the WAL may be
    /// missing.
    pub(crate) is_clean: bool,
}

/// The result of a replay.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The last frame that follows all before it.
    pub(crate) log_end: LogPosition,
    /// Number of replayed frames.
    pub(crate) frames: u64,
    /// Acknowledged commits that are missing.
    pub(crate) lost: Option<LogGap>,
    pub(super) slots: Vec<SegmentFile>,
    /// Segments before the tail with frames that the B-tree may lack, oldest first.
    pub(super) used: Vec<Segment>,
    /// The segment that new frames continue.
    pub(super) tail: Option<Tail>,
    /// Segments that can be recycled.
    pub(super) free: Vec<SegmentFile>,
    pub(super) next_number: u64,
    /// The last replayed frame: its file, offset and bytes.
    last: Option<(Arc<dyn File>, u64, Vec<u8>)>,
    /// The record that names the tail, if it may not be durable yet.
    link: Option<Link>,
}

/// The last segment of the WAL.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) segment: Segment,
    /// Offset of the end of the last frame.
    pub(super) end: u64,
}

/// Evidence of missing acknowledged commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogGap {
    /// Number of intact frames after the gap.
    pub(crate) frames: u64,
    /// First and last version of these frames.
    pub(crate) versions: Option<(u64, u64)>,
    /// Files with unreadable headers.
    pub(crate) unreadable: Vec<String>,
    /// Number of a missing segment that is required or named.
    pub(crate) missing: Option<u64>,
}

/// A segment that was read.
struct Read {
    segment: Segment,
    /// Offset of the end of the last frame.
    end: u64,
    successor: Option<u64>,
    /// Whether the segment has frames that the B-tree lacks.
    has_later_frames: bool,
}

/// Calls `apply` with each frame after the recorded position, in order. Stops at the first frame
/// that does not follow its predecessor, and reports it as [`Replay::lost`].
pub(crate) fn replay(
    disk: &dyn Vfs,
    recorded: Recorded,
    mut apply: impl FnMut(&mut dyn Iterator<Item = Mutation<'_>>),
) -> Result<Replay> {
    let Recorded { store, applied, .. } = recorded;
    let mut replay = Replay { log_end: applied, ..Replay::default() };
    replay.slots = SegmentFile::all(disk).map_err(|error| cannot("open", error))?;
    let mut segments = Vec::new();
    for slot in replay.slots.clone() {
        match header(&slot)? {
            None => replay.lost().unreadable.push(slot.name),
            Some(header) if header.store != store => {
                let message = format!("{} belongs to another store", slot.name);
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            Some(header) => segments.push(Segment { slot, header }),
        }
    }
    segments.sort_unstable_by_key(|segment| segment.header.number);
    let last_number = segments.last().map_or(0, |segment| segment.header.number);
    replay.next_number = last_number.max(applied.segment) + 1;
    let of = segments.len();
    let mut bytes = Vec::new();
    let mut found = BTreeMap::new();
    for (n, segment) in (1_usize..).zip(segments) {
        let Segment { slot, header } = &segment;
        vfs::read_all(&*slot.file, &mut bytes).map_err(|error| cannot("read", error))?;
        let before = replay.frames;
        let mut end = usize::try_from(FRAMES).unwrap_or(usize::MAX);
        let mut last = None;
        let mut has_later_frames = false;
        for (at, frame) in frames(&bytes, *header) {
            end = at + frame.length();
            if frame.version <= applied.version {
                continue;
            }
            has_later_frames = true;
            let is_broken = replay.lost.as_ref().is_some_and(|lost| lost.frames > 0);
            if is_broken || frame.predecessor != replay.log_end.checksum {
                replay.lost().add(frame.version);
                continue;
            }
            let Frame { version, checksum, .. } = frame;
            apply(&mut frame.changes().ok_or_else(malformed_batch)?);
            replay.log_end = LogPosition { version, checksum, segment: header.number };
            replay.frames += 1;
            last = Some((at, end.min(bytes.len())));
        }
        if let Some((at, end)) = last {
            let frame = bytes[at..end].to_vec();
            replay.last = Some((Arc::clone(&slot.file), at as u64, frame));
        }
        if replay.frames > before {
            let frames = replay.frames;
            tracing::debug!(frames, segment = n, of, "WAL segment replayed");
        }
        let (number, successor, end) = (header.number, header.successor(&bytes), end as u64);
        found.insert(number, Read { segment, end, successor, has_later_frames });
    }
    replay.arrange(found, recorded);
    Ok(replay)
}

impl Replay {
    fn lost(&mut self) -> &mut LogGap {
        self.lost.get_or_insert_default()
    }

    /// Follows the chain of successors from the recorded segment to detect a missing one, and
    /// divides the segments `found` into used and free ones.
    fn arrange(&mut self, found: BTreeMap<u64, Read>, recorded: Recorded) {
        let first = recorded.applied.segment;
        if !recorded.is_clean && !found.contains_key(&first) {
            self.lost().missing = Some(first);
        }
        // The last segment of the chain, and the one that names it.
        let (mut linked, mut before) = (found.get(&first), None);
        while let Some(read) = linked
            && let Some(successor) = read.successor
        {
            let Some(next) = found.get(&successor) else {
                self.lost().missing.get_or_insert(successor);
                break;
            };
            (linked, before) = (Some(next), Some(read));
        }
        let number = |read: &Read| read.segment.header.number;
        let written = found.values().rev().find(|read| read.has_later_frames);
        let tail = linked.into_iter().chain(written).max_by_key(|read| number(read));
        let tail_number = tail.map(number);
        // The name of a segment with a frame is durable, unless the disk has lost it.
        let is_linked = linked.map(number) == tail_number;
        let predecessor = if is_linked { before } else { linked };
        let needs_link = |tail: &Read| !is_linked || tail.end == FRAMES;
        self.link = tail.filter(|tail| needs_link(tail)).zip(predecessor).map(|(tail, read)| {
            let Segment { slot, header } = &read.segment;
            Link::new(Arc::clone(&slot.file), *header, number(tail))
        });
        for (number, Read { segment, end, has_later_frames, .. }) in found {
            if Some(number) == tail_number {
                self.tail = Some(Tail { segment, end });
            } else if has_later_frames
                || number >= first && tail_number.is_some_and(|tail| number < tail)
            {
                self.used.push(segment);
            } else {
                self.free.push(segment.slot);
            }
        }
    }

    /// Makes the replayed commits durable before they are read. A killed process may leave the last
    /// frame, or the record that names the last segment, unsynced in the page cache; earlier frames
    /// are durable. They are written again, since the kernel may mark pages as clean after a failed
    /// sync.
    pub(crate) fn make_durable(&self) -> Result<()> {
        let write = || {
            if let Some(link) = &self.link {
                link.write()?;
            }
            let Some((file, at, frame)) = &self.last else { return Ok(()) };
            file.write(*at, frame)?;
            file.sync()
        };
        write().map_err(|error| cannot("sync", error))
    }

    /// Renames all segments so that they are no longer part of the WAL.
    pub(crate) fn quarantine(&self, disk: &dyn Vfs) -> Result<()> {
        for slot in &self.slots {
            let target = format!("{}.damaged-{}", slot.name, self.log_end.version);
            // The name may be taken by an earlier quarantine.
            let mut names =
                iter::once(target.clone()).chain((2_u32..).map(|n| format!("{target}-{n}")));
            let publish = |target: &str| match disk.publish(&slot.name, target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                outcome => Some(outcome),
            };
            if let Some(outcome) = names.find_map(|target| publish(&target)) {
                outcome.map_err(|error| cannot("rename segments of", error))?;
            }
        }
        disk.sync_dir().map_err(|error| cannot("rename segments of", error))
    }

    /// Fails if acknowledged commits are missing.
    pub(crate) fn require_contiguous(self) -> Result<Self> {
        let Some(lost) = &self.lost else { return Ok(self) };
        let message = format!(
            "the WAL is incomplete after {}: {lost}. Acknowledged commits are missing: put the \
             missing log-*.wal files back, or restore a backup. To open the store without the \
             later commits instead, run `coditect-server check --repair --accept-data-loss`, \
             which keeps the remaining WAL files under other names",
            Moment(self.log_end.version)
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }
}

impl LogGap {
    fn add(&mut self, version: u64) {
        self.frames += 1;
        let (first, _) = self.versions.unwrap_or((version, version));
        self.versions = Some((first, version));
    }
}

impl fmt::Display for LogGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.missing {
            write!(f, "segment {number} of the WAL is missing; ")?;
        }
        match self.versions {
            Some((first, last)) => write!(
                f,
                "{} later batches of commits are intact, from {} to {}",
                self.frames,
                Moment(first),
                Moment(last)
            )?,
            None => f.write_str("no later batch of commits is intact")?,
        }
        if !self.unreadable.is_empty() {
            write!(f, "; files without a readable header: {}", self.unreadable.join(", "))?;
        }
        Ok(())
    }
}

/// A version, displayed with its time.
struct Moment(u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("the creation of the store");
        }
        let micros = i64::try_from(self.0).ok();
        match micros.and_then(DateTime::<Utc>::from_timestamp_micros) {
            Some(at) => write!(f, "version {} ({at:?})", self.0),
            None => write!(f, "version {}", self.0),
        }
    }
}

fn header(slot: &SegmentFile) -> Result<Option<Header>> {
    let length = FRAMES.min(slot.length);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    slot.file.read(0, &mut bytes).map_err(|error: io::Error| cannot("read", error))?;
    Header::of(&bytes).transpose()
}

/// Returns all intact frames of a segment, each with its offset.
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

fn malformed_batch() -> Error {
    Error::new(ErrorKind::Corrupt, "the WAL contains a malformed batch of commits")
}
