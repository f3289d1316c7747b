//! Key parts: the types that keys consist of, as elements of one flat tuple.
//!
//! Packing several parts in sequence gives the same bytes as packing one tuple of all their
//! elements. Packed parts unpack to themselves; other bytes are rejected.

use foundationdb_tuple::{
    PackError, PackResult, TupleDepth, TupleUnpack, Uuid, Versionstamp, pack_into,
};

use super::Position;
use crate::{Error, ErrorKind, Result};

/// A part of a key: one tuple element, or several in sequence.
///
/// Parts sort as their packed bytes do, element by element: integers by value, strings, bytes and
/// UUIDs bytewise, `false` before `true`.
///
/// A newtype forwards all calls:
///
/// ```
/// use coditect_store::{Result, keyspace::KeyPart};
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct InvoiceNumber(u64);
///
/// impl KeyPart for InvoiceNumber {
///     const ELEMENTS: usize = 1;
///
///     fn element_types() -> Vec<String> {
///         u64::element_types()
///     }
///
///     fn pack(&self, key: &mut Vec<u8>) {
///         self.0.pack(key);
///     }
///
///     fn unpack(rest: &mut &[u8]) -> Result<Self> {
///         u64::unpack(rest).map(Self)
///     }
/// }
///
/// let mut key = Vec::new();
/// InvoiceNumber(7).pack(&mut key);
/// assert_eq!(InvoiceNumber::unpack(&mut key.as_slice())?, InvoiceNumber(7));
/// # Ok::<(), coditect_store::Error>(())
/// ```
pub trait KeyPart: Clone + Send + Sync + 'static {
    /// Number of tuple elements.
    const ELEMENTS: usize;

    /// Returns the types of the elements, in order. The catalog has them for each key and index,
    /// and a store is not opened with others: persisted, never change them for a type in use. A
    /// newtype returns the types of its inner type.
    fn element_types() -> Vec<String>;

    /// Appends the elements to `key`.
    fn pack(&self, key: &mut Vec<u8>);

    /// Takes the elements from the front of `rest`.
    ///
    /// # Errors
    ///
    /// `Corrupt` if `rest` does not start with them.
    fn unpack(rest: &mut &[u8]) -> Result<Self>;
}

/// Returns the packed bytes of `part`.
pub(crate) fn packed(part: &impl KeyPart) -> Vec<u8> {
    let mut bytes = Vec::new();
    part.pack(&mut bytes);
    bytes
}

macro_rules! elements {
    ($($type:ty: $name:literal),*) => {$(
        impl KeyPart for $type {
            const ELEMENTS: usize = 1;

            fn element_types() -> Vec<String> {
                vec![$name.to_owned()]
            }

            fn pack(&self, key: &mut Vec<u8>) {
                pack_into(self, key);
            }

            fn unpack(rest: &mut &[u8]) -> Result<Self> {
                element(rest)
            }
        }
    )*};
}

elements! {
    bool: "bool", i16: "i16", i32: "i32", i64: "i64", u16: "u16", u32: "u32", u64: "u64",
    String: "string", Vec<u8>: "bytes", Uuid: "uuid"
}

/// A hash or another value of fixed length: one element of bytes.
impl<const N: usize> KeyPart for [u8; N] {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        vec![format!("bytes[{N}]")]
    }

    fn pack(&self, key: &mut Vec<u8>) {
        pack_into(&self.as_slice(), key);
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        let bytes: Vec<u8> = element(rest)?;
        bytes
            .try_into()
            .map_err(|_| Error::new(ErrorKind::Corrupt, "a key has bytes of wrong length"))
    }
}

/// One element: a versionstamp with the order within its transaction, twelve bytes.
impl KeyPart for Position {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        vec!["versionstamp".to_owned()]
    }

    fn pack(&self, key: &mut Vec<u8>) {
        key.push(Self::CODE);
        key.extend_from_slice(&self.to_bytes());
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        let stamp: Versionstamp = element(rest)?;
        Ok(Self::from_bytes(*stamp.as_bytes()))
    }
}

macro_rules! tuples {
    ($(($($name:ident $at:tt)*))*) => {$(
        impl<$($name: KeyPart),*> KeyPart for ($($name,)*) {
            const ELEMENTS: usize = 0 $(+ $name::ELEMENTS)*;

            fn element_types() -> Vec<String> {
                [$($name::element_types()),*].concat()
            }

            fn pack(&self, key: &mut Vec<u8>) {
                $(self.$at.pack(key);)*
            }

            fn unpack(rest: &mut &[u8]) -> Result<Self> {
                Ok(($($name::unpack(rest)?,)*))
            }
        }
    )*};
}

/// No elements: the key of a single record.
impl KeyPart for () {
    const ELEMENTS: usize = 0;

    fn element_types() -> Vec<String> {
        Vec::new()
    }

    fn pack(&self, _: &mut Vec<u8>) {}

    fn unpack(_: &mut &[u8]) -> Result<Self> {
        Ok(())
    }
}

tuples! {
    (A 0)
    (A 0 B 1)
    (A 0 B 1 C 2)
    (A 0 B 1 C 2 D 3)
}

/// The bytes after an element.
struct Rest<'a>(&'a [u8]);

impl<'a> TupleUnpack<'a> for Rest<'a> {
    fn unpack(input: &'a [u8], _: TupleDepth) -> PackResult<(&'a [u8], Self)> {
        Ok((&[], Self(input)))
    }
}

/// Takes one element from the front of `rest`.
pub(super) fn element<'a, T: TupleUnpack<'a>>(rest: &mut &'a [u8]) -> Result<T> {
    if is_padded(rest) {
        return Err(unreadable(PackError::BadPrefix));
    }
    let (value, Rest(left)) = foundationdb_tuple::unpack(rest).map_err(unreadable)?;
    *rest = left;
    Ok(value)
}

/// Returns whether an integer at the front has leading padding. The decoder would accept it as the
/// shorter one, and a key must not have two encodings.
fn is_padded(rest: &[u8]) -> bool {
    const ZERO: u8 = 0x14;
    // These two codes are followed by a length; no integer of ours is that long.
    const LONG: [u8; 2] = [0x0b, 0x1d];
    let [code, first, ..] = rest else { return false };
    let length = code.abs_diff(ZERO);
    // The bytes of negative integers are complemented.
    let nothing = if *code > ZERO { 0 } else { 0xff };
    LONG.contains(code) || (1..=8).contains(&length) && *first == nothing
}

fn unreadable(cause: PackError) -> Error {
    Error::new(ErrorKind::Corrupt, "a key does not match its declared layout").with_source(cause)
}

/// Unpacks all of `bytes` as one part.
///
/// # Errors
///
/// `Corrupt` if the bytes are not exactly that part.
pub(crate) fn unpack_all<P: KeyPart>(mut bytes: &[u8]) -> Result<P> {
    let part = P::unpack(&mut bytes)?;
    if !bytes.is_empty() {
        return Err(unreadable(PackError::TrailingBytes));
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    type Parts = (i64, String, Vec<u8>, (bool, [u8; 4]));

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = prop::collection::vec(prop_oneof![Just(0), Just(255), any::<u8>()], 0..6);
        let text = "[\\x00ab\u{ff}]{0,5}";
        (any::<i64>(), text, bytes, (any::<bool>(), any::<[u8; 4]>()))
    }

    proptest! {
        #[test]
                fn packed_parts_round_trip(parts in parts()) {
            prop_assert_eq!(unpack_all::<Parts>(&packed(&parts)).unwrap(), parts);
        }

        #[test]
                fn packed_parts_sort_like_the_parts(a in parts(), b in parts()) {
            prop_assert_eq!(packed(&a).cmp(&packed(&b)), a.cmp(&b));
        }

        #[test]
        fn arbitrary_bytes_unpack_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(parts) = unpack_all::<Parts>(&bytes) {
                prop_assert!(unpack_all::<Parts>(&packed(&parts)).is_ok());
            }
        }
    }

    #[test]
    fn a_position_is_the_tuple_layers_versionstamp() {
        let position = Position::from_bytes(*b"\0\x01stamped\xff\x02\x03");
        let stamp = Versionstamp::complete(*b"\0\x01stamped\xff", 0x0203);
        assert_eq!(packed(&position), foundationdb_tuple::pack(&stamp));
        assert_eq!(unpack_all::<Position>(&packed(&position)).unwrap(), position);
        let last = Position::from_bytes([0xff; 12]);
        assert_eq!(unpack_all::<Position>(&packed(&last)).unwrap(), last);
        assert!(unpack_all::<Position>(&packed(&position)[..12]).is_err());
        assert!(unpack_all::<Position>(&packed(&7_u64)).is_err());
    }

    #[test]
    fn parts_in_sequence_are_one_flat_tuple() {
        let id = Uuid::from_u128(7);
        let flat = foundationdb_tuple::pack(&(id, "users", 300_u64, b"\0".as_slice()));
        assert_eq!(packed(&((id, "users".to_owned()), (300_u64, vec![0_u8]))), flat);
    }

    #[test]
    fn mismatched_bytes_are_rejected() {
        fn refused<P: KeyPart + Debug>(bytes: &[u8]) {
            assert_eq!(unpack_all::<P>(bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        refused::<u64>(&packed(&"text".to_owned()));
        refused::<u64>(&packed(&(1_u64, 2_u64)));
        refused::<(u64, u64)>(&packed(&1_u64));
        refused::<[u8; 4]>(&packed(&[0_u8; 5]));
        refused::<Uuid>(&packed(&Uuid::nil())[..16]);
        refused::<()>(b"\x14");
    }

    #[test]
    fn padded_integers_are_rejected() {
        for padded in [b"\x15\0".as_slice(), b"\x16\0\x07", b"\x1c\0\0\0\0\0\0\0\x07"] {
            assert!(unpack_all::<u64>(padded).is_err() && unpack_all::<i16>(padded).is_err());
        }
        for padded in [b"\x12\xff\xf8".as_slice(), b"\x1d\x02\x13\x14", b"\x0b\xfd\xec\xeb"] {
            assert!(unpack_all::<i64>(padded).is_err());
        }
        assert_eq!(unpack_all::<i64>(b"\x13\xf8").unwrap(), -7);
    }
}
