//! Queries: selections of an index's values or a subspace's keys.

use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use super::{
    KeyPart, KeyRange,
    part::{pack_bytes, pack_str},
};

/// A value to look up as a `V`: a `V`, a reference to one, a `&str` for a `String`, or a `&[u8]`
/// for bytes; also as parts of a pair.
pub trait AsKey<V: KeyPart> {
    /// Appends the elements of the `V` to `key`.
    fn pack_as(&self, key: &mut Vec<u8>);
}

impl<V: KeyPart> AsKey<V> for V {
    fn pack_as(&self, key: &mut Vec<u8>) {
        self.pack(key);
    }
}

impl<V: KeyPart> AsKey<V> for &V {
    fn pack_as(&self, key: &mut Vec<u8>) {
        self.pack(key);
    }
}

impl AsKey<String> for &str {
    fn pack_as(&self, key: &mut Vec<u8>) {
        pack_str(self, key);
    }
}

impl AsKey<Vec<u8>> for &[u8] {
    fn pack_as(&self, key: &mut Vec<u8>) {
        pack_bytes(self, key);
    }
}

macro_rules! pairs_with_text {
    ($($(<$param:ident>)? ($a:ty, $b:ty) as ($first:ty, $second:ty);)*) => {$(
        impl$(<$param: KeyPart>)? AsKey<($first, $second)> for ($a, $b) {
            fn pack_as(&self, key: &mut Vec<u8>) {
                AsKey::<$first>::pack_as(&self.0, key);
                AsKey::<$second>::pack_as(&self.1, key);
            }
        }

        impl$(<$param: KeyPart>)? KeyQuery<($first, $second)> for ($a, $b) {
            fn keys(self, prefix: &[u8]) -> KeyRange {
                let mut key = prefix.to_vec();
                self.pack_as(&mut key);
                KeyRange::tuples(&key)
            }
        }
    )*};
}

pairs_with_text! {
    (&str, &str) as (String, String);
    <B> (&str, B) as (String, B);
    <A> (A, &str) as (A, String);
}

/// A selection of keys that contain a `V`:
///
/// | | |
/// |---|---|
/// | a `V`, or what is looked up [as one](AsKey) | the value |
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
        let mut key = prefix.to_vec();
        pack_str(self, &mut key);
        KeyRange::tuples(&key)
    }
}

macro_rules! leading_text {
    ($(($($all:ident)*))*) => {$(
        impl<$($all: KeyPart),*> KeyQuery<(String, $($all),*)> for (&str,) {
            fn keys(self, prefix: &[u8]) -> KeyRange {
                self.0.keys(prefix)
            }
        }
    )*};
}

leading_text!((B) (B C) (B C D));

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
