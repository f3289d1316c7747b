//! Frames: what one batch of commits did, as bytes.

use std::{iter, mem};

use super::{super::super::limits::KEY_SIZE_LIMIT, segment::Header};

/// The bytes before a frame's payload.
const HEADER: usize = 24;
/// Frames begin at multiples of this.
pub(super) const ALIGNMENT: usize = 8;

const SET: u8 = 1;
const CLEAR: u8 = 2;
const CLEAR_RANGE: u8 = 3;

// A bound of a range may be a byte longer than a key.
const _: () = assert!(KEY_SIZE_LIMIT < u16::MAX as usize);

/// One thing that was done. Nothing in it depends on what was there before: operations are resolved,
/// versionstamps filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Change<'a> {
    Set { key: &'a [u8], value: &'a [u8] },
    Clear { key: &'a [u8] },
    ClearRange { begin: &'a [u8], end: &'a [u8] },
}

/// A frame that is being filled.
#[derive(Debug)]
pub(in super::super) struct Draft {
    bytes: Vec<u8>,
    /// Up to where [`news`](Self::news) has told it.
    told: usize,
}

impl Default for Draft {
    fn default() -> Self {
        Self { bytes: vec![0; HEADER], told: HEADER }
    }
}

impl Draft {
    pub(in super::super) fn push(&mut self, change: Change<'_>) {
        match change {
            Change::Set { key, value } => {
                self.bytes.push(SET);
                self.key(key);
                // Values are shorter than this by far: they fit a transaction.
                self.bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                self.bytes.extend(value);
            }
            Change::Clear { key } => {
                self.bytes.push(CLEAR);
                self.key(key);
            }
            Change::ClearRange { begin, end } => {
                self.bytes.push(CLEAR_RANGE);
                self.key(begin);
                self.key(end);
            }
        }
    }

    /// What was pushed since this was asked last.
    pub(in super::super) fn news(&mut self) -> impl Iterator<Item = Change<'_>> {
        let from = mem::replace(&mut self.told, self.bytes.len());
        // Nothing was pushed that makes no sense; what fills up a finished frame is no change.
        changes(&self.bytes[from..]).flatten()
    }

    /// Where the next change goes.
    pub(in super::super) fn end(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back what was pushed from `end` on.
    pub(in super::super) fn cut(&mut self, end: usize) {
        self.bytes.truncate(end);
        self.told = self.told.min(end);
    }

    /// The bytes that it takes in a segment.
    pub(in super::super) fn length(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGNMENT)
    }

    /// Makes it the frame that follows the one with the checksum `predecessor` in the segment of `header`;
    /// gives its own checksum.
    pub(super) fn finish(&mut self, header: Header, predecessor: u32, version: u64) -> u32 {
        let payload = u32::try_from(self.bytes.len() - HEADER).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&header.mark());
        self.bytes[8..12].copy_from_slice(&predecessor.to_le_bytes());
        self.bytes[12..16].copy_from_slice(&payload.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&version.to_le_bytes());
        let checksum = checksum(header.salt, &self.bytes);
        self.bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.resize(self.length(), 0);
        checksum
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn key(&mut self, key: &[u8]) {
        self.bytes.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.bytes.extend(key);
    }
}

/// Of all but the mark and the checksum itself.
fn checksum(salt: u64, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &frame[8..])
}

/// A frame that is whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) checksum: u32,
    pub(super) predecessor: u32,
    pub(super) version: u64,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that `bytes` begin with, if there is one and it is as it was written.
    pub(super) fn read(bytes: &'a [u8], header: Header) -> Option<Self> {
        let rest = bytes.strip_prefix(&header.mark())?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (predecessor, rest) = rest.split_first_chunk()?;
        let (payload, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let payload = rest.get(..usize::try_from(u32::from_le_bytes(*payload)).ok()?)?;
        let sum = u32::from_le_bytes(*sum);
        (checksum(header.salt, &bytes[..HEADER + payload.len()]) == sum).then_some(Self {
            checksum: sum,
            predecessor: u32::from_le_bytes(*predecessor),
            version: u64::from_le_bytes(*version),
            payload,
        })
    }

    /// The bytes that it takes in a segment.
    pub(super) fn length(&self) -> usize {
        (HEADER + self.payload.len()).next_multiple_of(ALIGNMENT)
    }

    /// What was done, in order; `None` in place of what makes no sense.
    pub(super) fn changes(&self) -> impl Iterator<Item = Option<Change<'a>>> + use<'a> {
        changes(self.payload)
    }
}

fn changes(mut rest: &[u8]) -> impl Iterator<Item = Option<Change<'_>>> {
    iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let change = change(&mut rest);
        if change.is_none() {
            rest = &[];
        }
        Some(change)
    })
}

fn change<'a>(rest: &mut &'a [u8]) -> Option<Change<'a>> {
    let (tag, after) = rest.split_first()?;
    *rest = after;
    let key = key(rest)?;
    match *tag {
        SET => {
            let (length, after) = rest.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (value, after) = after.split_at_checked(length)?;
            *rest = after;
            Some(Change::Set { key, value })
        }
        CLEAR => Some(Change::Clear { key }),
        CLEAR_RANGE => Some(Change::ClearRange { begin: key, end: self::key(rest)? }),
        _ => None,
    }
}

fn key<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (key, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    *rest = after;
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::segment::FORMAT, *};

    fn draft(changes: &[Change<'_>]) -> Draft {
        let mut draft = Draft::default();
        for change in changes {
            draft.push(*change);
        }
        draft
    }

    fn finished(mut draft: Draft) -> Vec<u8> {
        draft.finish(segment(1), 2, 3);
        draft.bytes
    }

    const CHANGES: [Change<'static>; 4] = [
        Change::Set { key: b"a", value: b"1" },
        Change::Set { key: b"", value: b"" },
        Change::Clear { key: b"b" },
        Change::ClearRange { begin: b"c", end: b"d" },
    ];

    fn segment(salt: u64) -> Header {
        Header { format: FORMAT, store: 1, number: 2, salt }
    }

    #[test]
    fn a_frame_of_each_format_has_these_bytes() {
        let fixtures = [
            include_str!("../../../../tests/fixtures/log/frame-1.hex"),
            include_str!("../../../../tests/fixtures/log/frame-2.hex"),
        ];
        for (format, fixture) in (1..).zip(fixtures) {
            let header = Header { format, ..segment(0x1122_3344_5566_7788) };
            let mut draft = draft(&CHANGES);
            let sum = draft.finish(header, 0x0a0b_0c0d, 1_000_000);
            let bytes = draft.bytes;
            let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            assert_eq!(hex, fixture.trim());
            let frame = Frame::read(&bytes, header).unwrap();
            assert_eq!((frame.checksum, frame.predecessor), (sum, 0x0a0b_0c0d));
            assert_eq!((frame.version, frame.length()), (1_000_000, bytes.len()));
            let changes: Vec<_> = frame.changes().map(Option::unwrap).collect();
            assert_eq!(changes, CHANGES);
        }
    }

    #[test]
    fn what_was_pushed_is_told_once_before_and_after_the_frame_is_finished() {
        let mut draft = draft(&CHANGES[..1]);
        assert_eq!(draft.news().collect::<Vec<_>>(), CHANGES[..1]);
        for change in &CHANGES[1..] {
            draft.push(*change);
        }
        draft.finish(segment(1), 2, 3);
        assert_eq!(draft.news().collect::<Vec<_>>(), CHANGES[1..]);
        assert_eq!(draft.news().next(), None);
    }

    #[test]
    fn a_frame_of_another_segment_or_cut_short_is_none() {
        let bytes = finished(draft(&CHANGES));
        assert!(Frame::read(&bytes, segment(1)).is_some());
        assert!(Frame::read(&bytes, segment(2)).is_none());
        for length in 0..bytes.len() - ALIGNMENT {
            assert!(Frame::read(&bytes[..length], segment(1)).is_none(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn a_frame_with_a_changed_byte_is_none(at in 0_usize..50, other in 1_u8..) {
            let mut bytes = finished(draft(&CHANGES));
            let frame = Frame::read(&bytes, segment(1)).unwrap();
            let at = at % (HEADER + frame.payload.len());
            bytes[at] ^= other;
            prop_assert!(Frame::read(&bytes, segment(1)).is_none());
        }

        #[test]
        fn no_payload_makes_reading_it_fail(payload: Vec<u8>) {
            let mut draft = Draft::default();
            draft.bytes.extend(&payload);
            let bytes = finished(draft);
            let frame = Frame::read(&bytes, segment(1)).unwrap();
            prop_assert!(frame.changes().count() <= payload.len());
        }
    }
}
