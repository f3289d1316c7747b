//! Fuzz target: segments with arbitrary bytes, and logs with damaged frames.

#![expect(clippy::unwrap_used, reason = "a fuzz target fails by panicking")]

use std::sync::Arc;

use super::{
    super::{
        memtable::Memtable,
        vfs::{Memory, Vfs},
    },
    FrameBuilder, Log, LogPosition, Mutation, MutationBatch, Recorded, replay,
    segment::{FORMAT, FRAMES, Header},
};
use crate::{ErrorKind, Result, fuzzing::Input};

const STORE: u64 = 1;
const NUMBER: u64 = 2;
const SALT: u64 = 3;
const SEGMENT: &str = "log-0000.wal";

/// Checks that a replay returns a prefix of the frames, or refuses the log if a frame before intact
/// ones is missing.
///
/// The first byte selects the use of the rest: damage, the payload of a frame, the bytes after a
/// header, or a header.
pub(crate) fn log_segment(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 4 {
        0 => is_cut_or_refused(&mut input),
        1 => {
            let frame = frame(input.0);
            is_replayed_or_refused(&segment(&header(FORMAT, STORE), &frame));
        }
        2 => is_replayed_or_refused(&segment(&header(FORMAT, STORE), input.0)),
        _ => is_replayed_or_refused(&segment(input.0, &[])),
    }
}

/// Replays the log on `disk`. Returns the result, and the encoded mutations of each frame.
fn replayed(disk: &dyn Vfs) -> Result<(super::Replay, Vec<Vec<u8>>)> {
    let mut done = Vec::new();
    let mut memtable = Memtable::default();
    let applied = LogPosition { segment: NUMBER, ..LogPosition::default() };
    let recorded = Recorded { store: STORE, applied, is_clean: true };
    let found = replay(disk, recorded, |changes| {
        let changes: MutationBatch = changes.collect();
        done.push(format!("{changes:?}").into_bytes());
        memtable.apply(&changes);
    })?;
    Ok((found, done))
}

/// Replays a segment of arbitrary bytes, which must succeed or be refused.
fn is_replayed_or_refused(segment: &[u8]) {
    let disk = Memory::default();
    disk.create(SEGMENT).unwrap().write(0, segment).unwrap();
    match replayed(&disk) {
        Ok((found, done)) => {
            assert_eq!(found.frames, done.len() as u64);
            let lost = found.lost.is_some();
            let kind = found.require_contiguous().err().map(|error| error.kind());
            assert_eq!(kind, lost.then_some(ErrorKind::Corrupt));
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NewerFormat));
        }
    }
}

fn header(format: u32, store: u64) -> Vec<u8> {
    let mut bytes = [b"CDTLOG\0\0".as_slice(), &format.to_le_bytes()].concat();
    for number in [store, NUMBER, SALT] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

fn segment(header: &[u8], frames: &[u8]) -> Vec<u8> {
    let begin = usize::try_from(FRAMES).unwrap();
    let mut bytes = header[..header.len().min(begin)].to_vec();
    bytes.resize(begin, 0);
    bytes.extend(frames);
    bytes
}

/// Returns a frame with a valid checksum.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let predecessor = 0_u32;
    let summed = [
        predecessor.to_le_bytes().as_slice(),
        &length.to_le_bytes(),
        &1_u64.to_le_bytes(),
        payload,
    ]
    .concat();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&SALT.to_le_bytes()), &summed);
    let mark = Header { store: STORE, number: NUMBER, salt: SALT }.magic();
    [mark.as_slice(), &sum.to_le_bytes(), &summed].concat()
}

/// Writes a few frames from the input, changes at most one byte of each, and checks the replay.
fn is_cut_or_refused(input: &mut Input<'_>) {
    let disk: Arc<dyn Vfs> = Arc::new(Memory::default());
    let (found, _) = replayed(&*disk).unwrap();
    let mut log = Log::new(Arc::clone(&disk), STORE, found, 1 << 20);
    let mut written = Vec::new();
    let mut damages = Vec::new();
    for version in 1..=u64::from(input.byte() % 8) {
        let mut changes = Vec::new();
        for _ in 0..input.byte() % 4 {
            let key = input.bytes();
            changes.push(match input.byte() % 3 {
                0 => Mutation::Set { key, value: input.bytes() },
                1 => Mutation::Clear { key },
                _ => Mutation::ClearRange { begin: key, end: input.bytes() },
            });
        }
        // Padding is not covered by the checksum.
        let length = 24 + changes.iter().map(Mutation::length).sum::<usize>();
        let (at, other) = (usize::from(u16::from_be_bytes(input.array())) % length, input.byte());
        let (placed, _) = log
            .append(FrameBuilder::of(&[changes.iter().copied().collect()]), version, false)
            .unwrap();
        damages.push((placed.at + at as u64, other));
        placed.write().unwrap();
        written.push(format!("{changes:?}").into_bytes());
    }
    if written.is_empty() {
        return;
    }
    let file = disk.open(SEGMENT).unwrap();
    for &(at, other) in &damages {
        let mut byte = [0];
        file.read(at, &mut byte).unwrap();
        file.write(at, &[byte[0] ^ other]).unwrap();
    }
    let whole = damages.iter().take_while(|(_, other)| *other == 0).count();
    let later = damages.iter().skip(whole).filter(|(_, other)| *other == 0).count();
    let (found, done) = replayed(&*disk).unwrap();
    assert!(done == written[..whole], "{} frames of {whole}", done.len());
    let lost = found.lost.as_ref().map_or(0, |lost| lost.frames);
    assert_eq!(lost, later as u64);
}
