//! Key ranges and their ends.
//!
//! Two kinds of end are easily confused:
//!
//! - A *byte prefix* ends at the next byte string of the same length (`strinc` in FoundationDB). It
//!   is for a root or a tenant.
//! - A *tuple prefix* ends at the byte `ff`, with which no element starts. `ff` after a prefix
//!   occurs in longer values: `"a"` is packed as `02 61 00`, and `"a\0b"` as `02 61 00 ff 62 00`.
//!   With the first kind of end, the range of `"a"` would contain the rows of `"a\0b"`.

use std::ops::{Bound, RangeBounds};

use super::KeyPart;
use crate::engine::KeyRange;

/// The first byte that no tuple element starts with.
const PAST_ALL: u8 = 0xff;

impl KeyRange {
    /// Returns the range of all tuples that start with the elements of `prefix`, including itself.
    pub fn tuples(prefix: &[u8]) -> Self {
        Self { begin: prefix.to_vec(), end: past_tuples(prefix.to_vec()) }
    }

    /// Returns the range of all tuples that continue, after the elements of `prefix`, with a part
    /// within `bounds`. It is empty if the bounds are.
    pub fn between<P: KeyPart>(prefix: &[u8], bounds: &impl RangeBounds<P>) -> Self {
        let with = |part: &P| {
            let mut key = prefix.to_vec();
            part.pack(&mut key);
            key
        };
        let begin = match bounds.start_bound() {
            Bound::Included(first) => with(first),
            Bound::Excluded(before) => past_tuples(with(before)),
            Bound::Unbounded => prefix.to_vec(),
        };
        let end = match bounds.end_bound() {
            Bound::Included(last) => past_tuples(with(last)),
            Bound::Excluded(past) => with(past),
            Bound::Unbounded => past_tuples(prefix.to_vec()),
        };
        let end = end.max(begin.clone());
        Self { begin, end }
    }

    /// Returns the part of the range after `key`, including longer keys that start with `key`.
    #[must_use]
    pub(crate) fn after(mut self, mut key: Vec<u8>) -> Self {
        key.push(0);
        self.begin = key;
        self
    }

    /// Returns the part of the range before `key`.
    #[must_use]
    pub(crate) fn before(mut self, key: Vec<u8>) -> Self {
        self.end = key;
        self
    }
}

fn past_tuples(mut prefix: Vec<u8>) -> Vec<u8> {
    prefix.push(PAST_ALL);
    prefix
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::packed;

    #[test]
    fn byte_prefix_ends_at_the_next_byte_string() {
        assert_eq!(KeyRange::prefix(b"ab").end, b"ac");
        assert_eq!(KeyRange::prefix(b"a\xff").end, b"b", "the last byte has no next");
        assert_eq!(KeyRange::prefix(b"").end, b"\xff");
        assert!(KeyRange::prefix(b"a").contains(b"a\xff\xff"), "not cut off at ff");
    }

    #[test]
    fn tuple_range_excludes_values_that_continue_after_a_nul() {
        let range = KeyRange::tuples(&packed(&"a".to_owned()));
        assert!(range.contains(&packed(&("a".to_owned(), 1_u64))));
        assert!(range.contains(&packed(&("a".to_owned(), u64::MAX, "\u{10ffff}".to_owned()))));
        assert!(!range.contains(&packed(&("a\0b".to_owned(), 1_u64))));
        let up_to = KeyRange::between(b"", &(..="a".to_owned()));
        assert!(!up_to.contains(&packed(&("a\0b".to_owned(), 1_u64))));
    }

    #[test]
    fn longer_keys_are_after_their_prefix() {
        let range = KeyRange::prefix(b"k").after(b"ka".to_vec());
        assert!(!range.contains(b"ka"));
        assert!(range.contains(b"ka\0"));
    }

    #[test]
    fn empty_bounds_give_an_empty_range() {
        #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
        let range = KeyRange::between(b"p", &(9_u64..3));
        assert_eq!(range.begin, range.end);
    }

    proptest! {
        #[test]
                fn range_contains_the_values_within_its_bounds(
            at in "[\\x00ab]{0,3}", from in "[\\x00ab]{0,3}", to in "[\\x00ab]{0,3}",
            from_inclusive: bool, to_inclusive: bool, further: u64,
        ) {
            let bound = |text: String, inclusive| {
                if inclusive { Bound::Included(text) } else { Bound::Excluded(text) }
            };
            let bounds = (bound(from, from_inclusive), bound(to, to_inclusive));
            let range = KeyRange::between(b"p", &bounds);
            let key = [b"p".as_slice(), &packed(&(at.clone(), further))].concat();
            prop_assert_eq!(range.contains(&key), bounds.contains(&at));
        }
    }
}
