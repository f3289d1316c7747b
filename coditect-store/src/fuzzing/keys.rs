//! Keys: their parts, and the decoding of arbitrary bytes.

use std::fmt::Debug;

use uuid::Uuid;

use super::Input;
use crate::{
    ErrorKind,
    keyspace::{
        Global, KeyPart, KeyRange, Located, Position, Readable, Root, packed, parse_elements,
        unpack_all,
    },
    model::TenantId,
};

type Numbers = (i64, u64, (i16, u16), (i32, u32));
type Texts = (String, Vec<u8>, (bool, [u8; 4]));
type Record = (TenantId, String, (Uuid, Vec<u8>), u64);
type Event = (String, String, Position);

/// Keys sort as their values do, and decode to them; other bytes are rejected, and can be
/// displayed.
pub fn tuple_keys(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 4 {
        0 => alike(&numbers(&mut input), &numbers(&mut input)),
        1 => alike(&texts(&mut input), &texts(&mut input)),
        2 => is_read_or_refused(input.0),
        _ => is_made_of_text(&String::from_utf8_lossy(input.0)),
    }
}

fn numbers(input: &mut Input<'_>) -> Numbers {
    let (a, b) = (input.number(), input.number());
    let short = (i16::from_be_bytes(input.array()), u16::from_be_bytes(input.array()));
    let middle = (i32::from_be_bytes(input.array()), u32::from_be_bytes(input.array()));
    (a.cast_signed(), b, short, middle)
}

fn texts(input: &mut Input<'_>) -> Texts {
    (input.text(), input.bytes().to_vec(), (input.byte().is_multiple_of(2), input.array()))
}

/// Compares two values and their keys.
fn alike<P: KeyPart + Ord + Debug>(a: &P, b: &P) {
    let (key_a, key_b) = (packed(a), packed(b));
    assert_eq!(unpack_all::<P>(&key_a).unwrap(), *a);
    assert_eq!(a.cmp(b), key_a.cmp(&key_b), "{a:?} and {b:?}");
    assert!(Readable::new(&key_a).is_tuple());
    // Longer keys that start with a key are in its range, others are not.
    let range = KeyRange::tuples(&key_a);
    assert_eq!(range.contains(&key_b), a == b, "{a:?} and {b:?}");
    assert!(range.contains(&packed(&(a.clone(), u64::MAX))));
    let (least, most) = if a <= b { (a, b) } else { (b, a) };
    let between = KeyRange::between(b"p", &(least.clone()..=most.clone()));
    for key in [&key_a, &key_b] {
        assert!(between.contains(&[b"p", key.as_slice()].concat()));
    }
    let without_last = KeyRange::between(b"p", &(least.clone()..most.clone()));
    assert!(!without_last.contains(&[b"p".as_slice(), &packed(most)].concat()));
}

fn is_read_or_refused(bytes: &[u8]) {
    is_as::<Numbers>(bytes);
    is_as::<Texts>(bytes);
    is_as::<Record>(bytes);
    is_as::<Event>(bytes);
    is_as::<bool>(bytes);
    is_as::<()>(bytes);
    let shown = Readable::new(bytes);
    // Displayed as a tuple or as bytes, distinguishably.
    assert_eq!(shown.to_string().starts_with('('), shown.is_tuple());
    let root = Root::default();
    if let Some(Located { tenant, name, rest }) = Located::of(&root, bytes) {
        let front = match tenant {
            Some(tenant) => root.named(&tenant, name),
            None => root.named(&Global, name),
        };
        assert_eq!([front.as_slice(), rest].concat(), bytes);
    }
}

fn is_as<P: KeyPart + PartialEq + Debug>(bytes: &[u8]) {
    match unpack_all::<P>(bytes) {
        // A value has one key.
        Ok(part) => assert_eq!(packed(&part), bytes, "{part:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
    }
}

/// Text entered by people is a tuple, and parses as it is displayed.
fn is_made_of_text(text: &str) {
    let key = parse_elements(text);
    let shown = Readable::new(&key);
    assert!(shown.is_tuple(), "{text:?}");
}
