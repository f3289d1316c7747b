//! Which values of an index, or keys of a space, are asked for.

use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use super::{KeyPart, KeyRange};

/// What can be asked of keys that hold a `V`:
///
/// | | |
/// |---|---|
/// | a `V`, or a reference to one | that value |
/// | a range of them: `a..b`, `a..=b`, `..b`, `..=b`, `a..` | the values between, in the order of keys |
/// | `..` | all |
/// | the first parts of a composite, as a tuple: `(a,)`, `(a, b)` | the values that begin so |
pub trait Select<V: KeyPart> {
    /// The keys that go on, after `prefix`, with what is asked for.
    fn keys(self, prefix: &[u8]) -> KeyRange;
}

fn exactly(prefix: &[u8], part: &impl KeyPart) -> KeyRange {
    let mut key = prefix.to_vec();
    part.pack(&mut key);
    KeyRange::tuples(&key)
}

impl<V: KeyPart> Select<V> for V {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        exactly(prefix, &self)
    }
}

impl<V: KeyPart> Select<V> for &V {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        exactly(prefix, self)
    }
}

impl Select<String> for &str {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        exactly(prefix, &self.to_owned())
    }
}

impl<V: KeyPart> Select<V> for RangeFull {
    fn keys(self, prefix: &[u8]) -> KeyRange {
        KeyRange::tuples(prefix)
    }
}

macro_rules! ranges {
    ($($range:ident)*) => {$(
        impl<V: KeyPart> Select<V> for $range<V> {
            fn keys(self, prefix: &[u8]) -> KeyRange {
                KeyRange::between(prefix, &self)
            }
        }
    )*};
}

ranges!(Range RangeFrom RangeInclusive RangeTo RangeToInclusive);

macro_rules! first_parts {
    ($(($($first:ident)*) of ($($all:ident)*))*) => {$(
        impl<$($all: KeyPart),*> Select<($($all,)*)> for ($($first,)*) {
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
