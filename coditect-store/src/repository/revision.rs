//! Revisions: telling whether a record is still the one that was read.
//!
//! A revision is a hash of a record's stored bytes. So it costs nothing to keep, every record that
//! was ever written has one, and it says exactly what a strong `ETag` should: two equal ones are of
//! equal records. A record that was changed and changed back has its old revision again, and one that
//! was deleted and made anew with other contents has another: who holds a revision knows the record
//! as it is, not how it came to be so.

use std::{fmt, ops::Deref, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind};

/// What a record is at one time: given back with a [change](crate::Transaction::update_at), it has
/// the change refused if the record is no longer so.
///
/// As text it is 22 characters of base64url, fit for an `ETag`: see [`Display`](fmt::Display) and
/// [`FromStr`]. It is a hash of the record, not a secret, and not a capability.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision([u8; 16]);

impl Revision {
    /// That of the record that is stored as `bytes`.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        let mut revision = [0; 16];
        revision.copy_from_slice(&hash[..16]);
        Self(revision)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}

impl FromStr for Revision {
    type Err = Error;

    /// The revision that was written as `text`.
    ///
    /// # Errors
    ///
    /// `Invalid` if none was.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::new(ErrorKind::Invalid, "this is no revision");
        if text.len() != 22 {
            return Err(invalid());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|cause| invalid().with_source(cause))?;
        bytes.try_into().map(Self).map_err(|_| invalid())
    }
}

/// A record with the revision that it was read at. Made by
/// [`get_stored`](crate::Transaction::get_stored); reads as the record itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored<E> {
    record: E,
    /// What its revision is made of, once somebody asks for that.
    bytes: Vec<u8>,
}

impl<E> Stored<E> {
    pub(super) fn new(record: E, bytes: Vec<u8>) -> Self {
        Self { record, bytes }
    }

    /// What it was when it was read. Costs a hash of the record.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.bytes)
    }

    /// The record alone.
    pub fn into_record(self) -> E {
        self.record
    }
}

impl<E: fmt::Debug> fmt::Debug for Stored<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = Revision::of(&self.bytes);
        f.debug_struct("Stored").field("record", &self.record).field("revision", &revision).finish()
    }
}

impl<E> Deref for Stored<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.record
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_revision_is_the_front_of_a_sha256() {
        assert_eq!(Revision::of(b"abc").to_string(), "ungWv48Bz-pBQUDeXa4iIw");
    }

    proptest! {
        #[test]
        fn a_revision_survives_being_text(bytes: [u8; 16]) {
            let revision = Revision(bytes);
            prop_assert_eq!(revision.to_string().parse::<Revision>().unwrap(), revision);
        }

        #[test]
        fn any_text_is_a_revision_or_refused(text in "[A-Za-z0-9_=\"-]{20,24}") {
            if let Ok(revision) = text.parse::<Revision>() {
                prop_assert_eq!(revision.to_string(), text);
            }
        }
    }
}
