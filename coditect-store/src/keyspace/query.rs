//! Queries: selections of an index's values or a subspace's keys.

use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use super::{KeyPart, KeyRange};

/// A selection of keys that contain a `V`:
///
/// | | |
/// |---|---|
/// | a `V`, or a reference to one | the value |
/// | a range: `a..b`, `a..=b`, `..b`, `..=b`, `a..` | the values within, in key order |
/// | `..` | all |
/// | the leading parts of a composite, as a tuple: `(a,)`, `(a, b)` | the values that start with them |
pub trait KeyQuery<V: KeyPart> {
    /// Returns the range of the selected keys, which follow `prefix`.
    fn keys(self, prefix: &[u8]) -> KeyRange;
}

fn exactly(prefix: &[u8], part: &impl KeyPart) -> KeyRange {
    let mut key = prefix.to_vec();
    part.pack(&mut key);
    KeyRange::tuples(&key)
}

impl<V: KeyPart> KeyQuery<V> for V {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        exactly(prefix, &self)
    }
}

impl<V: KeyPart> KeyQuery<V> for &V {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        exactly(prefix, self)
    }
}

impl KeyQuery<String> for &str {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        exactly(prefix, &self.to_owned())
    }
}

impl<V: KeyPart> KeyQuery<V> for RangeFull {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        KeyRange::tuples(prefix)
    }
}

macro_rules! ranges {
    ($($range:ident)*) => {$(
        impl<V: KeyPart> KeyQuery<V> for $range<V> {
            fn keys(self, prefix: &[u8]) -> KeyRange {
                KeyRange::between(prefix, &self)
            }
        }
    )*};
}

ranges!(Range RangeFrom RangeInclusive RangeTo RangeToInclusive);

macro_rules! first_parts {
    ($(($($first:ident)*) of ($($all:ident)*))*) => {$(
        impl<$($all: KeyPart),*> KeyQuery<($($all,)*)> for ($($first,)*) {
            fn keys(self, prefix: &[u8]) -> KeyRange {
                exactly(prefix, &self)
            }
        }
    )*};
}

first_parts! {
    (A) of (A B)
    (A) of (A B C)
    (A B) of (A B C)
    (A) of (A B C D)
    (A B) of (A B C D)
    (A B C) of (A B C D)
}
