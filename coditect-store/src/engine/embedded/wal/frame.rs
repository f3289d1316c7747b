//! Frames: the encoded mutations of one batch of commits.

use super::{
    mutations::{self, Mutation, MutationBatch},
    segment::Header,
};

/// Size of the header of a frame, in bytes.
const HEADER_BYTES: usize = 24;
/// Alignment of frames, in bytes.
pub(super) const ALIGNMENT: usize = 8;

/// A frame under construction.
#[derive(Debug)]
pub(crate) struct FrameBuilder(Vec<u8>);

impl FrameBuilder {
    /// Returns a frame of `changes`, in order.
    pub(crate) fn of(changes: &[MutationBatch]) -> Self {
        let payload: usize = changes.iter().map(|changes| changes.bytes().len()).sum();
        let mut bytes = Vec::with_capacity((HEADER_BYTES + payload).next_multiple_of(ALIGNMENT));
        bytes.resize(HEADER_BYTES, 0);
        for changes in changes {
            bytes.extend_from_slice(changes.bytes());
        }
        Self(bytes)
    }

    /// Returns the length in a segment, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.0.len().next_multiple_of(ALIGNMENT)
    }

    /// Completes the frame, as the one after the frame with the checksum `predecessor`, in the
    /// segment of `header`. Returns its checksum.
    pub(super) fn finish(&mut self, header: Header, predecessor: u32, version: u64) -> u32 {
        let payload = u32::try_from(self.0.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        self.0[0..4].copy_from_slice(&header.magic());
        self.0[8..12].copy_from_slice(&predecessor.to_le_bytes());
        self.0[12..16].copy_from_slice(&payload.to_le_bytes());
        self.0[16..24].copy_from_slice(&version.to_le_bytes());
        let checksum = checksum(header.salt, &self.0);
        self.0[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.0.resize(self.length(), 0);
        checksum
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Returns the checksum of a frame, which covers everything after itself.
fn checksum(salt: u64, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &frame[8..])
}

/// An intact frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) checksum: u32,
    pub(super) predecessor: u32,
    pub(super) version: u64,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the frame at the start of `bytes`, if it is intact.
    pub(super) fn read(bytes: &'a [u8], header: Header) -> Option<Self> {
        let rest = bytes.strip_prefix(&header.magic())?;
        let (sum, rest) = rest.split_first_chunk()?;
        let (predecessor, rest) = rest.split_first_chunk()?;
        let (payload, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let payload = rest.get(..usize::try_from(u32::from_le_bytes(*payload)).ok()?)?;
        let sum = u32::from_le_bytes(*sum);
        (checksum(header.salt, &bytes[..HEADER_BYTES + payload.len()]) == sum).then_some(Self {
            checksum: sum,
            predecessor: u32::from_le_bytes(*predecessor),
            version: u64::from_le_bytes(*version),
            payload,
        })
    }

    /// Returns the length in a segment, in bytes.
    pub(super) fn length(&self) -> usize {
        (HEADER_BYTES + self.payload.len()).next_multiple_of(ALIGNMENT)
    }

    /// Returns the mutations in order; `None` if they are malformed.
    pub(super) fn changes(&self) -> Option<impl Iterator<Item = Mutation<'a>> + use<'a>> {
        mutations::are_well_formed(self.payload).then(|| mutations::decode(self.payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finished(mut draft: FrameBuilder) -> Vec<u8> {
        draft.finish(segment(1), 2, 3);
        draft.0
    }

    const CHANGES: [Mutation<'static>; 4] = [
        Mutation::Set { key: b"a", value: b"1" },
        Mutation::Set { key: b"", value: b"" },
        Mutation::Clear { key: b"b" },
        Mutation::ClearRange { begin: b"c", end: b"d" },
    ];

    /// Returns a frame of two batches.
    fn draft() -> FrameBuilder {
        FrameBuilder::of(&[&CHANGES[..1], &CHANGES[1..]].map(|some| some.iter().copied().collect()))
    }

    fn segment(salt: u64) -> Header {
        Header { store: 1, number: 2, salt }
    }

    #[test]
    fn frame_has_these_bytes() {
        let fixture = include_str!("../../../../tests/fixtures/log/frame-3.hex");
        let header = segment(0x1122_3344_5566_7788);
        let mut draft = draft();
        let sum = draft.finish(header, 0x0a0b_0c0d, 1_000_000);
        let bytes = draft.0;
        let hex = bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        assert_eq!(hex, fixture.trim());
        let frame = Frame::read(&bytes, header).unwrap();
        assert_eq!((frame.checksum, frame.predecessor), (sum, 0x0a0b_0c0d));
        assert_eq!((frame.version, frame.length()), (1_000_000, bytes.len()));
        assert_eq!(frame.changes().unwrap().collect::<Vec<_>>(), CHANGES);
    }

    #[test]
    fn frame_of_another_segment_or_truncated_is_ignored() {
        let bytes = finished(draft());
        assert!(Frame::read(&bytes, segment(1)).is_some());
        assert!(Frame::read(&bytes, segment(2)).is_none());
        for length in 0..bytes.len() - ALIGNMENT {
            assert!(Frame::read(&bytes[..length], segment(1)).is_none(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn a_frame_with_a_changed_byte_is_none(at in 0_usize..50, other in 1_u8..) {
            let mut bytes = finished(draft());
            let frame = Frame::read(&bytes, segment(1)).unwrap();
            let at = at % (HEADER_BYTES + frame.payload.len());
            bytes[at] ^= other;
            prop_assert!(Frame::read(&bytes, segment(1)).is_none());
        }

        #[test]
        fn a_payload_that_makes_no_sense_is_one_all_the_same(payload: Vec<u8>) {
            let mut draft = FrameBuilder::of(&[]);
            draft.0.extend(&payload);
            let bytes = finished(draft);
            let frame = Frame::read(&bytes, segment(1)).unwrap();
            let again = frame.changes().map(MutationBatch::from_iter);
            prop_assert!(again.is_none_or(|changes| changes.bytes() == payload));
        }
    }
}
