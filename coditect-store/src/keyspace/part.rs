//! The parts that keys are put together from, as elements of one flat tuple.
//!
//! Packing parts one after the other gives the same bytes as packing one tuple of all their
//! elements. What was packed unpacks to itself; anything else is refused, never guessed at.

use foundationdb_tuple::{
    PackError, PackResult, TupleDepth, TupleUnpack, Uuid, Versionstamp, pack_into,
};

use super::Position;
use crate::{Error, ErrorKind, Result};

/// What a key can hold: one tuple element, or several in a row.
///
/// Two parts sort as their packed bytes do, element by element: integers by value, strings and
/// bytes by their bytes, UUIDs by theirs, `false` before `true`.
///
/// A newtype of one's own passes both calls on:
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
    /// How many tuple elements it is, always.
    const ELEMENTS: usize;

    /// Returns the types of its elements, in order. A store keeps them with the declaration of each
    /// key and index, and refuses to be opened with others: persisted, never change them for a type
    /// that is in use. A newtype has those of the type within it.
    fn element_types() -> Vec<String>;

    /// Appends its elements to `key`.
    fn pack(&self, key: &mut Vec<u8>);

    /// Takes its elements off the front of `rest`.
    ///
    /// # Errors
    ///
    /// `Corrupt` if `rest` does not begin with them.
    fn unpack(rest: &mut &[u8]) -> Result<Self>;
}

/// The bytes of `part` alone.
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
        bytes.try_into().map_err(|_| Error::new(ErrorKind::Corrupt, "a key's bytes are cut short"))
    }
}

/// One element, a versionstamp with the order within its transaction: twelve bytes.
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

/// No element at all: the key of what there is one of.
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

/// What is left of a key after the element in front.
struct Rest<'a>(&'a [u8]);

impl<'a> TupleUnpack<'a> for Rest<'a> {
    fn unpack(input: &'a [u8], _: TupleDepth) -> PackResult<(&'a [u8], Self)> {
        Ok((&[], Self(input)))
    }
}

/// Takes one element off the front of `rest`.
pub(super) fn element<'a, T: TupleUnpack<'a>>(rest: &mut &'a [u8]) -> Result<T> {
    if is_padded(rest) {
        return Err(unreadable(PackError::BadPrefix));
    }
    let (value, Rest(left)) = foundationdb_tuple::unpack(rest).map_err(unreadable)?;
    *rest = left;
    Ok(value)
}

/// Whether an integer is in front that has more bytes than it takes. What reads them would take it for the
/// shorter one, and one key must not have two spellings.
fn is_padded(rest: &[u8]) -> bool {
    const ZERO: u8 = 0x14;
    // Behind these two stands a length; no integer of ours is that long.
    const LONG: [u8; 2] = [0x0b, 0x1d];
    let [code, first, ..] = rest else { return false };
    let length = code.abs_diff(ZERO);
    // The digits of those below zero are turned around.
    let nothing = if *code > ZERO { 0 } else { 0xff };
    LONG.contains(code) || (1..=8).contains(&length) && *first == nothing
}

fn unreadable(cause: PackError) -> Error {
    Error::new(ErrorKind::Corrupt, "a key is not of the form that was declared").with_source(cause)
}

/// All of `bytes` as one part.
///
/// # Errors
///
/// `Corrupt` if it is not exactly that.
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
        fn parts_unpack_to_what_was_packed(parts in parts()) {
            prop_assert_eq!(unpack_all::<Parts>(&packed(&parts)).unwrap(), parts);
        }

        #[test]
        fn packed_parts_sort_as_the_parts_do(a in parts(), b in parts()) {
            prop_assert_eq!(packed(&a).cmp(&packed(&b)), a.cmp(&b));
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
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
    fn parts_in_a_row_are_one_flat_tuple() {
        let id = Uuid::from_u128(7);
        let flat = foundationdb_tuple::pack(&(id, "users", 300_u64, b"\0".as_slice()));
        assert_eq!(packed(&((id, "users".to_owned()), (300_u64, vec![0_u8]))), flat);
    }

    #[test]
    fn what_is_not_of_the_form_is_refused() {
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
    fn an_integer_with_more_bytes_than_it_takes_is_refused() {
        for padded in [b"\x15\0".as_slice(), b"\x16\0\x07", b"\x1c\0\0\0\0\0\0\0\x07"] {
            assert!(unpack_all::<u64>(padded).is_err() && unpack_all::<i16>(padded).is_err());
        }
        for padded in [b"\x12\xff\xf8".as_slice(), b"\x1d\x02\x13\x14", b"\x0b\xfd\xec\xeb"] {
            assert!(unpack_all::<i64>(padded).is_err());
        }
        assert_eq!(unpack_all::<i64>(b"\x13\xf8").unwrap(), -7);
    }
}
