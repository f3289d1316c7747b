//! Mutations, and their encoding in frames.

use std::{fmt, iter, mem, sync::Arc};

use super::super::super::limits::KEY_SIZE_LIMIT;

const SET: u8 = 1;
const CLEAR: u8 = 2;
const CLEAR_RANGE: u8 = 3;

// A bound of a range may be a byte longer than a key.
const _: () = assert!(KEY_SIZE_LIMIT < u16::MAX as usize);

/// A resolved mutation: it does not depend on stored values, and versionstamps are filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation<'a> {
    Set { key: &'a [u8], value: &'a [u8] },
    Clear { key: &'a [u8] },
    ClearRange { begin: &'a [u8], end: &'a [u8] },
}

impl Mutation<'_> {
    /// Returns the encoded length, in bytes.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Set { key, value } => 7 + key.len() + value.len(),
            Self::Clear { key } => 3 + key.len(),
            Self::ClearRange { begin, end } => 5 + begin.len() + end.len(),
        }
    }
}

/// Encoded mutations in order. Cheap to clone: clones share the memory.
#[derive(Clone)]
pub(crate) struct MutationBatch(Arc<[u8]>);

impl MutationBatch {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Mutation<'_>> {
        decode(&self.0)
    }

    /// Returns the mutations, each with its offset.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = (usize, Mutation<'_>)> {
        let mut next = 0;
        self.iter().map(move |change| {
            let at = next;
            next += change.length();
            (at, change)
        })
    }

    /// Returns the key of the mutation at `offset`, which must be a set or a clear.
    pub(crate) fn key_at(&self, offset: usize) -> &[u8] {
        self.0.get(offset + 1..).and_then(|mut rest| key(&mut rest)).unwrap_or_default()
    }

    /// Returns the value of the mutation at `offset`; `None` unless it is a set.
    pub(crate) fn value_at(&self, offset: usize) -> Option<&[u8]> {
        match next_mutation(&mut self.0.get(offset..)?)? {
            Mutation::Set { value, .. } => Some(value),
            Mutation::Clear { .. } | Mutation::ClearRange { .. } => None,
        }
    }
}

impl fmt::Debug for MutationBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<Mutation<'a>> for MutationBatch {
    fn from_iter<T: IntoIterator<Item = Mutation<'a>>>(changes: T) -> Self {
        let mut encoder = Encoder::default();
        for change in changes {
            encoder.push(change);
        }
        encoder.take()
    }
}

/// Encodes mutations into a batch.
#[derive(Debug, Default)]
pub(crate) struct Encoder(Vec<u8>);

impl Encoder {
    pub(crate) fn length(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, change: Mutation<'_>) {
        self.0.reserve(change.length());
        match change {
            Mutation::Set { key, value } => {
                self.0.push(SET);
                self.key(key);
                // Values are limited by the size of a transaction.
                self.0.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                self.0.extend(value);
            }
            Mutation::Clear { key } => {
                self.0.push(CLEAR);
                self.key(key);
            }
            Mutation::ClearRange { begin, end } => {
                self.0.push(CLEAR_RANGE);
                self.key(begin);
                self.key(end);
            }
        }
    }

    /// Returns the mutations pushed since the last call.
    pub(crate) fn take(&mut self) -> MutationBatch {
        MutationBatch(mem::take(&mut self.0).into())
    }

    fn key(&mut self, key: &[u8]) {
        self.0.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend(key);
    }
}

/// Decodes mutations up to the end or the first malformed one.
pub(super) fn decode(mut bytes: &[u8]) -> impl Iterator<Item = Mutation<'_>> {
    iter::from_fn(move || next_mutation(&mut bytes))
}

/// Returns whether `bytes` are well-formed mutations.
pub(super) fn are_well_formed(bytes: &[u8]) -> bool {
    decode(bytes).map(|change| change.length()).sum::<usize>() == bytes.len()
}

/// Decodes the next mutation. Returns `None` at the end or if it is malformed.
fn next_mutation<'a>(rest: &mut &'a [u8]) -> Option<Mutation<'a>> {
    let (tag, mut after) = rest.split_first()?;
    let key = key(&mut after)?;
    let change = match *tag {
        SET => {
            let (length, behind) = after.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (value, behind) = behind.split_at_checked(length)?;
            after = behind;
            Mutation::Set { key, value }
        }
        CLEAR => Mutation::Clear { key },
        CLEAR_RANGE => Mutation::ClearRange { begin: key, end: self::key(&mut after)? },
        _ => return None,
    };
    *rest = after;
    Some(change)
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

    use super::*;

    #[test]
    fn mutations_round_trip_with_their_offsets() {
        let list = [
            Mutation::Set { key: b"a", value: b"1" },
            Mutation::Set { key: b"", value: b"" },
            Mutation::Clear { key: b"b" },
            Mutation::ClearRange { begin: b"c", end: b"d" },
        ];
        let changes: MutationBatch = list.into_iter().collect();
        assert_eq!(changes.iter().collect::<Vec<_>>(), list);
        for (place, change) in changes.offsets() {
            let alone = &changes.bytes()[place..place + change.length()];
            assert_eq!(decode(alone).collect::<Vec<_>>(), [change]);
            match change {
                Mutation::Set { key, value } => {
                    assert_eq!(
                        (changes.key_at(place), changes.value_at(place)),
                        (key, Some(value))
                    );
                }
                Mutation::Clear { key } => {
                    assert_eq!((changes.key_at(place), changes.value_at(place)), (key, None));
                }
                Mutation::ClearRange { .. } => {}
            }
        }
        assert!(are_well_formed(changes.bytes()) && are_well_formed(b""));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_them_fail(bytes: Vec<u8>) {
            let again: MutationBatch = decode(&bytes).collect();
            prop_assert!(bytes.starts_with(again.bytes()));
            prop_assert_eq!(are_well_formed(&bytes), again.bytes() == bytes);
        }
    }
}
