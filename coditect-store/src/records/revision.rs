//! Revisions: optimistic concurrency across transactions.
//!
//! A revision is a hash of a record's stored bytes. It is not stored, every record has one, and it
//! is fit for a strong `ETag`: equal revisions are of equal records. A record that is changed back
//! has its earlier revision again; a record that is deleted and created with other contents has
//! another.

use std::{fmt, ops::Deref, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use crate::{Error, ErrorKind};

/// The revision of a record: given back with an [update](crate::Transaction::update_at), it makes
/// the update fail if the record has changed.
///
/// Its text form is 22 characters of base64url, fit for an `ETag`: see [`Display`](fmt::Display)
/// and [`FromStr`]. It is a hash of the record, not a secret and not a capability.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision([u8; 16]);

impl Revision {
    /// Returns the revision of the record stored as `bytes`.
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

    /// Parses the text form.
    ///
    /// # Errors
    ///
    /// `Invalid` if the text is not a revision.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::new(ErrorKind::Invalid, "invalid revision");
        if text.len() != 22 {
            return Err(invalid());
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|cause| invalid().with_source(cause))?;
        bytes.try_into().map(Self).map_err(|_| invalid())
    }
}

/// A record with its revision. Returned by [`get_versioned`](crate::Transaction::get_versioned);
/// dereferences to the record.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned<E> {
    record: E,
    /// Stored bytes, from which the revision is computed on demand.
    bytes: Vec<u8>,
}

impl<E> Versioned<E> {
    pub(super) fn new(record: E, bytes: Vec<u8>) -> Self {
        Self { record, bytes }
    }

    /// Returns the revision at which the record was read. Hashes the record.
    pub fn revision(&self) -> Revision {
        Revision::of(&self.bytes)
    }

    /// Returns the record.
    pub fn into_record(self) -> E {
        self.record
    }
}

impl<E: fmt::Debug> fmt::Debug for Versioned<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = Revision::of(&self.bytes);
        f.debug_struct("Versioned")
            .field("record", &self.record)
            .field("revision", &revision)
            .finish()
    }
}

impl<E> Deref for Versioned<E> {
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
    fn revision_is_a_truncated_sha256() {
        assert_eq!(Revision::of(b"abc").to_string(), "ungWv48Bz-pBQUDeXa4iIw");
    }

    proptest! {
        #[test]
                fn revisions_round_trip_as_text(bytes: [u8; 16]) {
            let revision = Revision(bytes);
            prop_assert_eq!(revision.to_string().parse::<Revision>().unwrap(), revision);
        }

        #[test]
        fn arbitrary_text_parses_or_fails(text in "[A-Za-z0-9_=\"-]{20,24}") {
            if let Ok(revision) = text.parse::<Revision>() {
                prop_assert_eq!(revision.to_string(), text);
            }
        }
    }
}
