//! The key prefix of a database, so that several can share a cluster: added to keys in requests,
//! removed from keys in results.
//!
//! The prefix is invisible to the user of the database: keys begin with `b""` and end before
//! `b"\xff"`, as in a whole cluster. Keys outside of that range are passed unchanged, for the
//! cluster to refuse them.

use std::borrow::Cow;

use super::{
    limits::MAX_KEY,
    range::KeySelector,
    versionstamp::{self, Versionstamp},
};
use crate::{Error, ErrorKind, Result};

/// The prefix, and the end of its range. Both are empty without a prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefix {
    begin: Vec<u8>,
    end: Vec<u8>,
}

impl Prefix {
    /// Returns the prefix.
    ///
    /// # Errors
    ///
    /// Returns `Invalid` if it begins with `0xff`, where the cluster's own keys are.
    pub(super) fn new(begin: &[u8]) -> Result<Self> {
        let mut end = begin.to_vec();
        while end.last() == Some(&0xff) {
            end.pop();
        }
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        if begin.first() == Some(&0xff) {
            return Err(Error::new(ErrorKind::Invalid, "a prefix cannot begin with 0xff"));
        }
        Ok(Self { begin: begin.to_vec(), end })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.begin.is_empty()
    }

    /// Returns the range of all keys; `None` for the whole cluster.
    pub(super) fn range(&self) -> Option<(&[u8], &[u8])> {
        (!self.is_empty()).then_some((&self.begin, &self.end))
    }

    /// Returns the key in the cluster for `key`.
    pub(super) fn key<'a>(&self, key: &'a [u8]) -> Cow<'a, [u8]> {
        if self.is_empty() || key >= MAX_KEY {
            return Cow::Borrowed(key);
        }
        Cow::Owned([&self.begin, key].concat())
    }

    /// Returns the key in the cluster for the end of a range, which may be after all keys.
    pub(super) fn bound<'a>(&'a self, key: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.is_empty() && key == MAX_KEY { Cow::Borrowed(&self.end) } else { self.key(key) }
    }

    /// Returns the key that a versionstamp is filled into, with its offset.
    pub(super) fn template<'a>(&self, template: &'a [u8]) -> Cow<'a, [u8]> {
        let place = versionstamp::split_template(template).filter(|_| !self.is_empty());
        let Some((bytes, offset)) = place.filter(|(bytes, _)| *bytes < MAX_KEY) else {
            return Cow::Borrowed(template);
        };
        let (before, after) = bytes.split_at(offset);
        let after = &after[Versionstamp::LEN..];
        Cow::Owned(versionstamp::template(&[&self.begin, before].concat(), after))
    }

    /// Returns the selector in the cluster for `selector`. It may resolve to a key outside of the
    /// prefix.
    pub(super) fn selector(&self, selector: &KeySelector) -> KeySelector {
        let key = self.bound(&selector.key).into_owned();
        // The key at the end of the prefix may exist in another database.
        let or_equal = selector.or_equal && (self.is_empty() || selector.key != MAX_KEY);
        KeySelector { key, or_equal, ..*selector }
    }

    /// Returns whether `selector` can bound a range without being resolved first: it selects the
    /// first key at or after its own, and no key of this database follows the prefix.
    pub(super) fn can_bound(&self, selector: &KeySelector) -> bool {
        self.is_empty() || selector.offset == 1
    }

    /// Returns the user's key for a key of the cluster: before or after all keys if it is outside
    /// of the prefix.
    pub(super) fn own(&self, key: &[u8]) -> Vec<u8> {
        match key.strip_prefix(self.begin.as_slice()) {
            Some(own) => own.to_vec(),
            None if key < self.begin.as_slice() => Vec::new(),
            None => MAX_KEY.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Prefix {
        Prefix::new(b"p\xff").unwrap()
    }

    #[test]
    fn prefix_is_added_and_removed() {
        for key in [&b""[..], b"a", b"a\xff", b"\xfe\xff\xff"] {
            let inside = prefix().key(key).into_owned();
            assert!(inside.starts_with(b"p\xff"));
            assert_eq!(prefix().own(&inside), key);
            assert_eq!(Prefix::default().own(&Prefix::default().key(key)), key);
        }
    }

    #[test]
    fn illegal_keys_are_passed_unchanged() {
        for key in [&b"\xff"[..], b"\xff\x01", b"\xff\xff"] {
            assert_eq!(prefix().key(key), key);
        }
        assert_eq!(prefix().bound(b"\xff\x01"), &b"\xff\x01"[..]);
    }

    #[test]
    fn end_of_the_keyspace_maps_to_the_end_of_the_prefix() {
        assert_eq!(prefix().bound(b"\xff"), &b"q"[..]);
        assert_eq!(prefix().bound(b"a"), &b"p\xffa"[..]);
        assert_eq!(prefix().range(), Some((&b"p\xff"[..], &b"q"[..])));
        assert_eq!(Prefix::default().bound(b"\xff"), &b"\xff"[..]);
        assert_eq!(Prefix::default().range(), None);
    }

    #[test]
    fn keys_outside_the_prefix_clamp_to_its_ends() {
        assert_eq!(prefix().own(b"o"), b"");
        assert_eq!(prefix().own(b"p"), b"");
        assert_eq!(prefix().own(b"q"), b"\xff");
        assert_eq!(prefix().own(b"\xff"), b"\xff");
    }

    #[test]
    fn selectors_are_prefixed_and_offsets_may_leave_the_prefix() {
        let first = |key: &[u8]| KeySelector::first_greater_or_equal(key);
        assert_eq!(prefix().selector(&first(b"a")), first(b"p\xffa"));
        assert_eq!(prefix().selector(&first(MAX_KEY)), first(b"q"));
        assert!(prefix().can_bound(&first(b"a")));
        assert!(prefix().can_bound(&KeySelector::first_greater_than(b"a")));
        assert!(!prefix().can_bound(&KeySelector::last_less_than(b"a")));
        assert!(Prefix::default().can_bound(&KeySelector::last_less_than(b"a")));
    }

    #[test]
    fn versionstamp_offset_includes_the_prefix() {
        let template = versionstamp::template(b"log/", b"!");
        let inside = prefix().template(&template).into_owned();
        let stamp = Versionstamp::new(1, 2);
        let filled = versionstamp::fill(&inside, stamp).unwrap();
        assert_eq!(prefix().own(&filled), versionstamp::fill(&template, stamp).unwrap());
        // Invalid keys stay invalid.
        assert_eq!(prefix().template(b"short"), &b"short"[..]);
        let system = versionstamp::template(b"\xff", b"");
        assert_eq!(prefix().template(&system), system);
    }

    #[test]
    fn prefix_in_the_system_keyspace_is_refused() {
        assert_eq!(Prefix::new(b"\xff/x").unwrap_err().kind(), ErrorKind::Invalid);
        assert!(Prefix::new(b"").unwrap().is_empty());
    }
}
