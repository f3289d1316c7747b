//! Rejects a record whose serialization omits a field.
//!
//! bincode writes the fields of a struct in order and without names. An omitted field
//! (`skip_serializing_if`) shifts all later fields: the bytes cannot be decoded, or decode to
//! another record. serde reports each omitted field to the serializer; the serializer here fails on
//! it.

use std::fmt::{self, Display};

use serde::ser::{self, Serialize};

/// Checks that `value` serializes all fields of all its structs.
pub(super) fn check(value: &(impl Serialize + ?Sized)) -> Result<(), Rejected> {
    value.serialize(Checker)
}

/// The reason why a value cannot be stored.
#[derive(Debug)]
pub(super) struct Rejected(String);

impl Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Rejected {}

impl ser::Error for Rejected {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A serializer without output.
#[derive(Clone, Copy)]
struct Checker;

fn omitted(field: &str) -> Rejected {
    Rejected(format!("field `{field}` is omitted, as by `skip_serializing_if`"))
}

macro_rules! accept {
    ($($method:ident($type:ty))*) => {$(
        fn $method(self, _: $type) -> Result<(), Rejected> {
            Ok(())
        }
    )*};
}

impl ser::Serializer for Checker {
    type Ok = ();
    type Error = Rejected;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    accept! {
        serialize_bool(bool) serialize_i8(i8) serialize_i16(i16) serialize_i32(i32)
        serialize_i64(i64) serialize_i128(i128) serialize_u8(u8) serialize_u16(u16)
        serialize_u32(u32) serialize_u64(u64) serialize_u128(u128) serialize_f32(f32)
        serialize_f64(f64) serialize_char(char) serialize_str(&str) serialize_bytes(&[u8])
        serialize_unit_struct(&'static str)
    }

    fn serialize_none(self) -> Result<(), Rejected> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Rejected> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Rejected> {
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<(), Rejected> {
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Rejected> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Rejected> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Rejected> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Rejected> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Rejected> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Rejected> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Rejected> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Rejected> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Rejected> {
        Ok(self)
    }

    /// Formats nothing: a formatting error is found when the value is encoded.
    fn collect_str<T: Display + ?Sized>(self, _: &T) -> Result<(), Rejected> {
        Ok(())
    }

    /// As in bincode: some types serialize differently for human-readable formats.
    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! compound {
    ($($trait:ident: $method:ident;)*) => {$(
        impl ser::$trait for Checker {
            type Ok = ();
            type Error = Rejected;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Rejected> {
                value.serialize(*self)
            }

            fn end(self) -> Result<(), Rejected> {
                Ok(())
            }
        }
    )*};
}

compound! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

impl ser::SerializeMap for Checker {
    type Ok = ();
    type Error = Rejected;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Rejected> {
        key.serialize(*self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Rejected> {
        value.serialize(*self)
    }

    fn end(self) -> Result<(), Rejected> {
        Ok(())
    }
}

macro_rules! fields {
    ($($trait:ident)*) => {$(
        impl ser::$trait for Checker {
            type Ok = ();
            type Error = Rejected;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                _: &'static str,
                value: &T,
            ) -> Result<(), Rejected> {
                value.serialize(*self)
            }

            fn skip_field(&mut self, field: &'static str) -> Result<(), Rejected> {
                Err(omitted(field))
            }

            fn end(self) -> Result<(), Rejected> {
                Ok(())
            }
        }
    )*};
}

fields! { SerializeStruct SerializeStructVariant }

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::check;

    #[derive(Serialize)]
    struct Row {
        #[serde(skip_serializing_if = "is_zero")]
        count: u8,
        tags: Vec<String>,
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
    fn is_zero(count: &u8) -> bool {
        *count == 0
    }

    #[derive(Serialize)]
    enum Shape {
        Row(Row),
        Named {
            #[serde(skip_serializing_if = "is_zero")]
            count: u8,
        },
    }

    fn row(count: u8) -> Row {
        Row { count, tags: vec![String::new()] }
    }

    #[test]
    fn omitted_field_is_rejected_at_any_depth() {
        for (whole, omitting) in [(1, 0), (255, 0)] {
            check(&row(whole)).unwrap();
            check(&Shape::Named { count: whole }).unwrap();
            let expected = "field `count` is omitted, as by `skip_serializing_if`";
            let nested = BTreeMap::from([(7, Some((Shape::Row(row(omitting)), true)))]);
            for rejected in [
                check(&row(omitting)),
                check(&[row(whole), row(omitting)].as_slice()),
                check(&nested),
                check(&Shape::Named { count: omitting }),
            ] {
                assert_eq!(rejected.unwrap_err().to_string(), expected);
            }
        }
    }
}
