//! Ranges of keys, and where they end.
//!
//! Two ends look alike and are not the same:
//!
//! - *All keys that begin with these bytes* end at the next string of the same length (`strinc` in
//!   FoundationDB's words). That is for prefixes of bytes: a root, a tenant.
//! - *All tuples that begin with these elements* end before the byte `ff`. No element begins with
//!   it; what has it there is another, longer value: `"a"` is packed `02 61 00`, and `"a\0b"` is
//!   `02 61 00 ff 62 00`. That is for values in keys: ending them the first way would give the
//!   rows of `"a\0b"` to who asks for those of `"a"`.

use std::ops::{Bound, RangeBounds};

use super::KeyPart;

/// The first byte that no key of a user's, and no tuple element, begins with.
const PAST_ALL: u8 = 0xff;

/// All keys from `begin` up to, and without, `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in it.
    pub begin: Vec<u8>,
    /// The first key past it; never before `begin`.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// All keys that begin with `prefix`, itself too. With no prefix: all keys of the user's.
    pub fn prefix(prefix: &[u8]) -> Self {
        let end = match prefix.iter().rposition(|&byte| byte != u8::MAX) {
            None => vec![PAST_ALL],
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                end
            }
        };
        Self { begin: prefix.to_vec(), end }
    }

    /// All tuples that begin with the elements of `prefix`, which is whole elements; itself too.
    pub fn tuples(prefix: &[u8]) -> Self {
        Self { begin: prefix.to_vec(), end: past_tuples(prefix.to_vec()) }
    }

    /// All tuples that go on, after the elements of `prefix`, with a part within `bounds`. Bounds
    /// that exclude each other give a range that is empty.
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

    /// Whether `key` is in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begin.as_slice() <= key && key < self.end.as_slice()
    }

    /// The part of it after `key`: whatever begins with `key` and goes on is after it.
    #[must_use]
    pub(crate) fn after(mut self, mut key: Vec<u8>) -> Self {
        key.push(0);
        self.begin = key;
        self
    }

    /// The part of it before `key`.
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
    fn a_prefix_ends_at_the_next_string_of_its_length() {
        assert_eq!(KeyRange::prefix(b"ab").end, b"ac");
        assert_eq!(KeyRange::prefix(b"a\xff").end, b"b", "the last byte has no next");
        assert_eq!(KeyRange::prefix(b"").end, b"\xff");
        assert!(KeyRange::prefix(b"a").contains(b"a\xff\xff"), "not cut off at ff");
    }

    #[test]
    fn a_value_that_continues_another_after_a_nul_is_not_in_its_range() {
        let range = KeyRange::tuples(&packed(&"a".to_owned()));
        assert!(range.contains(&packed(&("a".to_owned(), 1_u64))));
        assert!(range.contains(&packed(&("a".to_owned(), u64::MAX, "\u{10ffff}".to_owned()))));
        assert!(!range.contains(&packed(&("a\0b".to_owned(), 1_u64))));
        let up_to = KeyRange::between(b"", &(..="a".to_owned()));
        assert!(!up_to.contains(&packed(&("a\0b".to_owned(), 1_u64))));
    }

    #[test]
    fn what_goes_on_from_a_key_is_after_it() {
        let range = KeyRange::prefix(b"k").after(b"ka".to_vec());
        assert!(!range.contains(b"ka"));
        assert!(range.contains(b"ka\0"));
    }

    #[test]
    fn bounds_that_exclude_each_other_give_an_empty_range() {
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is asked here")]
        let range = KeyRange::between(b"p", &(9_u64..3));
        assert_eq!(range.begin, range.end);
    }

    proptest! {
        #[test]
        fn a_range_holds_what_its_bounds_hold(
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
