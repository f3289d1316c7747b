//! Keys for display: the elements of any tuple, declared or not. Keys that are not tuples are shown
//! as bytes.

use std::fmt::{self, Write as _};

use foundationdb_tuple::{Element as Packed, Versionstamp, pack};
use uuid::Uuid;

use super::{
    KeyPart, Position, Root, ScopeKind, TenantId,
    part::{self, packed},
};

/// The decoded elements of a packed tuple, or bytes that are not a tuple, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable(Shown);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Shown {
    Elements(Vec<String>),
    Bytes(Vec<u8>),
}

/// A key split into tenant, name and remaining elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located<'a> {
    pub(crate) tenant: Option<TenantId>,
    pub(crate) name: &'a str,
    /// The elements after the name, packed.
    pub(crate) rest: &'a [u8],
}

impl Readable {
    /// Decodes `packed`.
    pub fn new(packed: &[u8]) -> Self {
        let mut rest = packed;
        let mut elements = Vec::new();
        while !rest.is_empty() {
            let Some(element) = first(&mut rest) else {
                return Self(Shown::Bytes(packed.to_vec()));
            };
            elements.push(element);
        }
        Self(Shown::Elements(elements))
    }

    /// Decodes `key` without `root`; a key outside of `root` is decoded whole.
    pub fn key(root: &Root, key: &[u8]) -> Self {
        Self::new(key.strip_prefix(root.as_bytes()).unwrap_or(key))
    }

    /// Returns whether the bytes are a tuple.
    pub fn is_tuple(&self) -> bool {
        matches!(self.0, Shown::Elements(_))
    }
}

impl fmt::Display for Readable {
    /// Formats a tuple as `(0195…, "users", 7)`: text in quotes, bytes as `x'00ff'`, a versionstamp
    /// as `@` and hexadecimal digits. Bytes that are not a tuple are formatted as `x'00ff'`,
    /// without parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shown::Elements(elements) => write!(f, "({})", elements.join(", ")),
            Shown::Bytes(bytes) => f.write_str(&hexadecimal(bytes)),
        }
    }
}

impl<'a> Located<'a> {
    /// Splits `key`, which starts with `root`; returns `None` if it has no name.
    pub(crate) fn of(root: &Root, key: &'a [u8]) -> Option<Self> {
        let mut rest = key.strip_prefix(root.as_bytes())?;
        let mut after = rest;
        let tenant = TenantId::unpack(&mut after).ok();
        if tenant.is_some() {
            rest = after;
        }
        let mut after = rest;
        let name = String::unpack(&mut after).ok()?;
        // The bytes of a name are packed without escapes, so it can be borrowed from the key.
        let packed = &rest[..rest.len() - after.len()];
        let name = packed.get(1..1 + name.len()).and_then(|name| str::from_utf8(name).ok())?;
        Some(Self { tenant, name, rest: after })
    }

    pub(crate) fn scope_kind(&self) -> ScopeKind {
        if self.tenant.is_some() { ScopeKind::Tenant } else { ScopeKind::Global }
    }
}

/// Takes the first element from the front of `rest`, and formats it.
fn first(rest: &mut &[u8]) -> Option<String> {
    let mut after = *rest;
    let (again, text) = if let Ok(element) = part::element::<Packed<'_>>(&mut after) {
        (pack(&element), shown(&element))
    } else {
        // `Element` has signed integers only, and fails for larger ones.
        let number = u64::unpack(&mut after).ok()?;
        (packed(&number), number.to_string())
    };
    // The decoder accepts encodings that the encoder does not produce.
    let is_own = rest[..rest.len() - after.len()] == again;
    *rest = after;
    is_own.then_some(text)
}

fn shown(element: &Packed<'_>) -> String {
    match element {
        Packed::Nil => "nil".to_owned(),
        Packed::Bytes(bytes) => hexadecimal(bytes),
        Packed::String(text) => format!("{text:?}"),
        Packed::Tuple(elements) => {
            let elements: Vec<String> = elements.iter().map(shown).collect();
            format!("({})", elements.join(", "))
        }
        Packed::Int(number) => number.to_string(),
        Packed::Float(number) => number.to_string(),
        Packed::Double(number) => number.to_string(),
        Packed::Bool(truth) => truth.to_string(),
        Packed::Uuid(uuid) => uuid.to_string(),
        Packed::Versionstamp(stamp) => stamp_shown(stamp),
    }
}

fn stamp_shown(stamp: &Versionstamp) -> String {
    format!("@{}", digits(stamp.as_bytes()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    format!("x'{}'", digits(bytes))
}

/// Returns `bytes` as hexadecimal digits.
pub(crate) fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Packs the comma-separated elements of `text`: UUIDs, integers, versionstamps as `@` and
/// hexadecimal digits, and otherwise text. Quoted text is always text.
pub fn parse_elements(text: &str) -> Vec<u8> {
    let mut packed = Vec::new();
    for element in text.split(',').map(str::trim).filter(|element| !element.is_empty()) {
        if let Ok(uuid) = Uuid::parse_str(element) {
            uuid.pack(&mut packed);
        } else if let Ok(number) = element.parse::<i64>() {
            number.pack(&mut packed);
        } else if let Ok(number) = element.parse::<u64>() {
            number.pack(&mut packed);
        } else if let Some(position) = element.strip_prefix('@').and_then(position) {
            position.pack(&mut packed);
        } else {
            let quoted = element.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            quoted.unwrap_or(element).to_owned().pack(&mut packed);
        }
    }
    packed
}

fn position(digits: &str) -> Option<Position> {
    let digits = digits.as_bytes();
    let mut bytes = [0; 12];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(Position::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::packed;

    #[test]
    fn keys_are_formatted_element_by_element() {
        let id = Uuid::from_u128(7);
        let key = packed(&((id, "users".to_owned()), (-3_i64, true), vec![0_u8, 255]));
        let shown = Readable::key(&Root::default(), &key).to_string();
        assert_eq!(shown, "(00000000-0000-0000-0000-000000000007, \"users\", -3, true, x'00ff')");
        let stamped = packed(&("m".to_owned(), Position::from_bytes([0xab; 12])));
        assert_eq!(Readable::new(&stamped).to_string(), "(\"m\", @abababababababababababab)");
    }

    #[test]
    fn integers_beyond_i64_are_formatted() {
        let key = packed(&("n".to_owned(), u64::MAX, 1_u64));
        let shown = Readable::new(&key).to_string();
        assert_eq!(shown, "(\"n\", 18446744073709551615, 1)");
        assert_eq!(parse_elements("n, 18446744073709551615, 1"), key);
    }

    #[test]
    fn bytes_that_are_not_a_tuple_are_formatted_as_bytes() {
        for bytes in [b"\xff\x00".as_slice(), b"\x02open", b"text"] {
            let shown = Readable::new(bytes);
            assert!(!shown.is_tuple());
            assert_eq!(shown.to_string(), hexadecimal(bytes));
        }
    }

    #[test]
    fn formatted_elements_can_be_parsed() {
        let id = Uuid::from_u128(7);
        let stamp = Position::from_bytes([0xab; 12]);
        let parts = ((id, 7_u64), ("plan".to_owned(), "7".to_owned()), stamp);
        let text = format!("{id}, 7, plan, \"7\", @{}", "ab".repeat(12));
        assert_eq!(parse_elements(&text), packed(&parts));
        assert_eq!(parse_elements(""), b"");
    }

    #[test]
    fn keys_split_into_tenant_and_name() {
        let root = Root::new(&"root".to_owned());
        let tenant = TenantId(Uuid::from_u128(7));
        let key = root.key(&(tenant, "users".to_owned(), 3_u64));
        let located = Located::of(&root, &key).unwrap();
        assert_eq!((located.tenant, located.name), (Some(tenant), "users"));
        assert_eq!(located.rest, packed(&3_u64));
        let key = root.key(&("users_by_email".to_owned(), "ada".to_owned()));
        let located = Located::of(&root, &key).unwrap();
        assert_eq!((located.tenant, located.name), (None, "users_by_email"));
        assert_eq!(Located::of(&root, &root.key(&7_u64)), None);
        assert_eq!(Located::of(&root, b"elsewhere"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_format(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Readable::new(&bytes).to_string();
            let _ = Located::of(&Root::default(), &bytes);
        }
    }
}
