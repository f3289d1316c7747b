//! Key parts: the types that keys consist of, as elements of one flat tuple.
//!
//! Packing several parts in sequence gives the same bytes as packing one tuple of all their
//! elements. Packed parts unpack to themselves; other bytes are rejected.

use chrono::{DateTime, Utc};
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
/// `#[derive(KeyPart)]` implements it for a newtype, for a struct of several parts, and for an enum
/// without fields, whose variants have persisted names. The layout is persisted: a type in use
/// keeps its parts and names.
///
/// ```
/// use coditect_store::keyspace::KeyPart;
///
/// #[derive(Clone, Debug, PartialEq, KeyPart)]
/// struct InvoiceNumber(u64);
///
/// /// Sorts by name, as strings do.
/// #[derive(Clone, Debug, PartialEq, KeyPart)]
/// enum State {
///     #[key(name = "open")]
///     Open,
///     #[key(name = "paid")]
///     Paid,
/// }
///
/// let mut key = Vec::new();
/// InvoiceNumber(7).pack(&mut key);
/// State::Paid.pack(&mut key);
/// let mut rest = key.as_slice();
/// assert_eq!(InvoiceNumber::unpack(&mut rest)?, InvoiceNumber(7));
/// assert_eq!(State::unpack(&mut rest)?, State::Paid);
/// # Ok::<(), coditect_store::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a part of a key or the value of an index",
    label = "not a key part",
    note = "derive `KeyPart` for a newtype or an enum without fields, or use an integer, `bool`, \
            `String`, `Vec<u8>`, `[u8; N]`, `Uuid`, `DateTime<Utc>`, or a tuple of these"
)]
pub trait KeyPart: Clone + Send + Sync + 'static {
    /// Number of tuple elements.
    const ELEMENTS: usize;

    /// Whether an element can be null, as in an `Option`.
    const IS_NULLABLE: bool = false;

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

macro_rules! small_integers {
    ($($type:ty: $name:literal, $wider:ty;)*) => {$(
        /// One element: an integer.
        impl KeyPart for $type {
            const ELEMENTS: usize = 1;

            fn element_types() -> Vec<String> {
                vec![$name.to_owned()]
            }

            fn pack(&self, key: &mut Vec<u8>) {
                <$wider>::from(*self).pack(key);
            }

            fn unpack(rest: &mut &[u8]) -> Result<Self> {
                let number = <$wider as KeyPart>::unpack(rest)?;
                let small = number.try_into();
                let message = "a key has an integer out of range";
                small.map_err(|_| Error::new(ErrorKind::Corrupt, message))
            }
        }
    )*};
}

small_integers! {
    i8: "i8", i16;
    u8: "u8", u16;
}

/// One element: the microseconds since 1970-01-01T00:00Z, an integer. Parts of a microsecond are
/// dropped, so a field in a key or an index is stored in microseconds as well:
/// `#[serde(with = "chrono::serde::ts_microseconds")]`.
impl KeyPart for DateTime<Utc> {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        vec!["time".to_owned()]
    }

    fn pack(&self, key: &mut Vec<u8>) {
        self.timestamp_micros().pack(key);
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        let micros = <i64 as KeyPart>::unpack(rest)?;
        Self::from_timestamp_micros(micros)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a key has a time out of range"))
    }
}

/// The elements of the value, or a null for each. `None` sorts before all values. The value itself
/// contains no `Option`, and at least one element.
///
/// An index over an optional value needs this only to find the records without one: an index whose
/// closure returns `None` has no entry for the record.
impl<P: KeyPart> KeyPart for Option<P> {
    const ELEMENTS: usize = {
        assert!(P::ELEMENTS > 0, "an optional part of a key has elements");
        assert!(!P::IS_NULLABLE, "an optional part of a key has no optional parts");
        P::ELEMENTS
    };
    const IS_NULLABLE: bool = true;

    fn element_types() -> Vec<String> {
        P::element_types().into_iter().map(|kind| format!("{kind}?")).collect()
    }

    fn pack(&self, key: &mut Vec<u8>) {
        match self {
            Some(part) => part.pack(key),
            None => key.resize(key.len() + Self::ELEMENTS, NULL),
        }
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        if rest.first() != Some(&NULL) {
            return P::unpack(rest).map(Some);
        }
        let nulls = [NULL].repeat(Self::ELEMENTS);
        *rest = rest.strip_prefix(&*nulls).ok_or_else(|| unreadable(PackError::BadPrefix))?;
        Ok(None)
    }
}

/// The null of the tuple layer at the top level of a key.
const NULL: u8 = 0;

/// Appends a string as one element, for derived implementations.
#[doc(hidden)]
pub fn pack_str(text: &str, key: &mut Vec<u8>) {
    pack_into(&text, key);
}

/// Appends bytes as one element.
pub(super) fn pack_bytes(bytes: &[u8], key: &mut Vec<u8>) {
    pack_into(&bytes, key);
}

/// Returns the error for an unknown name of a variant, for derived implementations.
#[doc(hidden)]
pub fn unknown_name(message: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, message)
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
            const IS_NULLABLE: bool = false $(|| $name::IS_NULLABLE)*;

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
    fn optional_parts_have_a_null_for_each_element() {
        type Optional = (Option<(u8, String)>, Option<DateTime<Utc>>, i8);
        let time = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap();
        for parts in [
            (None, None, -1),
            (Some((255, String::new())), None, i8::MIN),
            (Some((0, "a".to_owned())), Some(time), i8::MAX),
        ] {
            assert_eq!(unpack_all::<Optional>(&packed(&parts)).unwrap(), parts);
        }
        let nulls = packed(&(None::<(u8, String)>, 7_u8));
        assert_eq!(nulls, foundationdb_tuple::pack(&(None::<u64>, None::<u64>, 7_u64)));
        assert!(packed(&None::<i64>) < packed(&Some(i64::MIN)));
        assert_eq!(Optional::element_types(), ["u8?", "string?", "time?", "i8"]);
        assert!(unpack_all::<Option<(u8, u8)>>(&[NULL]).is_err());
        assert!(unpack_all::<u8>(&packed(&256_u16)).is_err());
        assert!(unpack_all::<i8>(&packed(&-129_i16)).is_err());
        assert!(unpack_all::<DateTime<Utc>>(&packed(&i64::MAX)).is_err());
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
