//! Cursors: the end of a page, where the next one starts.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{
    Error, ErrorKind, Result,
    engine::{KEY_SIZE_LIMIT, Order},
    keyspace::KeyRange,
};

/// The end of a page. Given to the same scan, it continues after the last examined row, regardless
/// of rows written meanwhile: no remaining row is returned twice or skipped.
///
/// A cursor is bound to its scan: index, scope, values, order and filters. It contains the key of a
/// row, so it is for clients that may read that row. It is not a capability: it only leads to rows
/// of the scan it is given to.
///
/// Its text form is short base64url: see [`Display`](fmt::Display) and [`FromStr`].
#[derive(Clone, PartialEq, Eq)]
pub struct Cursor {
    binding: Binding,
    position: Vec<u8>,
}

/// Hash of the scan that a cursor is bound to.
pub(super) type Binding = [u8; 16];

/// Version of the text form: this byte, the binding, the position. Cursors of another version are
/// rejected, and the client starts over.
const VERSION: u8 = 1;

/// Returns the binding of a scan of `range`, which includes root, scope, index and values.
pub(super) fn binding(range: &KeyRange, order: Order, filters: &[&str]) -> Binding {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    };
    add(&range.begin);
    add(&range.end);
    add(match order {
        Order::Ascending => b"ascending",
        Order::Descending => b"descending",
    });
    for filter in filters {
        add(filter.as_bytes());
    }
    let mut binding = Binding::default();
    let length = binding.len();
    binding.copy_from_slice(&hash.finalize()[..length]);
    binding
}

impl Cursor {
    /// Creates a cursor after `key`, the last examined row of a scan with keys under `prefix`.
    pub(super) fn behind(key: &[u8], prefix: &[u8], binding: Binding) -> Self {
        let position = key.strip_prefix(prefix).unwrap_or(key).to_vec();
        Self { binding, position }
    }

    /// Returns whether the cursor is bound to a scan with `binding`.
    pub(super) fn is_bound_to(&self, binding: Binding) -> bool {
        self.binding == binding
    }

    /// Returns the part of `range` after the cursor.
    ///
    /// # Errors
    ///
    /// `Invalid` if the cursor is bound to another scan.
    pub(super) fn rest(
        &self,
        range: KeyRange,
        prefix: &[u8],
        order: Order,
        binding: Binding,
    ) -> Result<KeyRange> {
        let key = [prefix, &self.position].concat();
        let is_key = key.len() <= KEY_SIZE_LIMIT && range.contains(&key);
        if self.binding != binding || !is_key {
            return Err(Error::new(ErrorKind::Invalid, "the cursor belongs to another list"));
        }
        Ok(match order {
            Order::Ascending => range.after(key),
            Order::Descending => range.before(key),
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[VERSION], self.binding.as_slice(), &self.position].concat();
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for Cursor {
    /// Formats the text form: no key is readable in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cursor({self})")
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// Parses the text form.
    ///
    /// # Errors
    ///
    /// `Invalid` if the text is not a cursor of this version.
    fn from_str(text: &str) -> Result<Self> {
        /// Length that the text of a cursor after the longest key does not exceed.
        const LONGEST: usize = 2 * KEY_SIZE_LIMIT;

        let invalid = || Error::new(ErrorKind::Invalid, "invalid cursor");
        if text.len() > LONGEST {
            return Err(invalid());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|cause| invalid().with_source(cause))?;
        let (&binding, position) = bytes
            .strip_prefix(&[VERSION])
            .and_then(<[u8]>::split_first_chunk)
            .ok_or_else(invalid)?;
        Ok(Self { binding, position: position.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bound_to(range: &KeyRange) -> Binding {
        binding(range, Order::Ascending, &[])
    }

    #[test]
    fn cursor_continues_after_its_row_in_both_orders() {
        let range = KeyRange::prefix(b"p");
        let cursor = Cursor::behind(b"pk", b"p", bound_to(&range));
        let rest = |order| cursor.rest(range.clone(), b"p", order, bound_to(&range)).unwrap();
        assert_eq!(rest(Order::Ascending), KeyRange { begin: b"pk\0".into(), end: b"q".into() });
        assert_eq!(rest(Order::Descending), KeyRange { begin: b"p".into(), end: b"pk".into() });
    }

    #[test]
    fn cursor_of_another_scan_is_rejected() {
        let (own, other) = (KeyRange::prefix(b"p"), KeyRange::prefix(b"q"));
        let cursor = Cursor::behind(b"pk", b"p", bound_to(&own));
        let refused = |range: &KeyRange, prefix: &[u8], binding| {
            let rest = cursor.rest(range.clone(), prefix, Order::Ascending, binding);
            assert_eq!(rest.unwrap_err().kind(), ErrorKind::Invalid);
        };
        refused(&other, b"q", bound_to(&other));
        refused(&own, b"p", binding(&own, Order::Descending, &[]));
        refused(&own, b"p", binding(&own, Order::Ascending, &["type=theia"]));
        refused(&other, b"p", bound_to(&own));
    }

    #[test]
    fn concatenated_filters_have_distinct_bindings() {
        let of = |filters| binding(&KeyRange::prefix(b"p"), Order::Ascending, filters);
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["abc"]), of(&["ab", "c"]));
    }

    #[test]
    fn invalid_text_is_rejected() {
        let long = "A".repeat(100_000);
        for text in ["", "A", "====", "AQ", "\u{e9}", "Ag".repeat(20).as_str(), long.as_str()] {
            assert_eq!(text.parse::<Cursor>().unwrap_err().kind(), ErrorKind::Invalid, "{text}");
        }
    }

    proptest! {
        #[test]
                fn cursors_round_trip_as_text(
            key in prop::collection::vec(any::<u8>(), 0..200), binding: Binding,
        ) {
            let cursor = Cursor::behind(&key, b"", binding);
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn arbitrary_text_parses_or_fails(text in "[A-Za-z0-9_=+/-]{0,60}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
