//! What was done, as the bytes that a frame has of it.

use std::{fmt, iter, mem, sync::Arc};

use super::super::super::limits::KEY_SIZE_LIMIT;

const SET: u8 = 1;
const CLEAR: u8 = 2;
const CLEAR_RANGE: u8 = 3;

// A bound of a range may be a byte longer than a key.
const _: () = assert!(KEY_SIZE_LIMIT < u16::MAX as usize);

/// One thing that was done. Nothing in it depends on what was there before: operations are
/// resolved, versionstamps filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation<'a> {
    Set { key: &'a [u8], value: &'a [u8] },
    Clear { key: &'a [u8] },
    ClearRange { begin: &'a [u8], end: &'a [u8] },
}

impl Mutation<'_> {
    /// The bytes that say it.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Set { key, value } => 7 + key.len() + value.len(),
            Self::Clear { key } => 3 + key.len(),
            Self::ClearRange { begin, end } => 5 + begin.len() + end.len(),
        }
    }
}

/// What was done, in order: one piece of memory, shared by all that know of it.
#[derive(Clone)]
pub(crate) struct MutationBatch(Arc<[u8]>);

impl MutationBatch {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Mutation<'_>> {
        of(&self.0)
    }

    /// Each with where it begins.
    pub(crate) fn places(&self) -> impl Iterator<Item = (usize, Mutation<'_>)> {
        let mut next = 0;
        self.iter().map(move |change| {
            let at = next;
            next += change.length();
            (at, change)
        })
    }

    /// The key of the one at `place`, which is one that has a key.
    pub(crate) fn key_at(&self, place: usize) -> &[u8] {
        self.0.get(place + 1..).and_then(|mut rest| key(&mut rest)).unwrap_or_default()
    }

    /// The value that the one at `place` gives its key, if it does.
    pub(crate) fn value_at(&self, place: usize) -> Option<&[u8]> {
        match change(&mut self.0.get(place..)?)? {
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

/// Makes them, one after the other.
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
                // Values are shorter than this by far: they fit a transaction.
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

    /// What was pushed since this was asked last.
    pub(crate) fn take(&mut self) -> MutationBatch {
        MutationBatch(mem::take(&mut self.0).into())
    }

    fn key(&mut self, key: &[u8]) {
        self.0.extend(u16::try_from(key.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend(key);
    }
}

/// What `bytes` say, up to the end, or to what makes no sense.
pub(super) fn of(mut bytes: &[u8]) -> impl Iterator<Item = Mutation<'_>> {
    iter::from_fn(move || change(&mut bytes))
}

/// Whether `bytes` make sense up to the end.
pub(super) fn are_whole(bytes: &[u8]) -> bool {
    of(bytes).map(|change| change.length()).sum::<usize>() == bytes.len()
}

/// `None` at the end, and at what makes no sense.
fn change<'a>(rest: &mut &'a [u8]) -> Option<Mutation<'a>> {
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
    fn changes_are_found_again_each_at_its_place() {
        let list = [
            Mutation::Set { key: b"a", value: b"1" },
            Mutation::Set { key: b"", value: b"" },
            Mutation::Clear { key: b"b" },
            Mutation::ClearRange { begin: b"c", end: b"d" },
        ];
        let changes: MutationBatch = list.into_iter().collect();
        assert_eq!(changes.iter().collect::<Vec<_>>(), list);
        for (place, change) in changes.places() {
            let alone = &changes.bytes()[place..place + change.length()];
            assert_eq!(of(alone).collect::<Vec<_>>(), [change]);
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
        assert!(are_whole(changes.bytes()) && are_whole(b""));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_them_fail(bytes: Vec<u8>) {
            let again: MutationBatch = of(&bytes).collect();
            prop_assert!(bytes.starts_with(again.bytes()));
            prop_assert_eq!(are_whole(&bytes), again.bytes() == bytes);
        }
    }
}
