//! Identifiers of signing keys.

use std::fmt;

use coditect_store::keyspace::KeyPart;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Id of a signing key, the `kid` of a token's header.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub Uuid);

impl KeyPart for KeyId {
    const ELEMENTS: usize = 1;

    fn element_types() -> Vec<String> {
        Uuid::element_types()
    }

    fn pack(&self, key: &mut Vec<u8>) {
        self.0.pack(key);
    }

    fn unpack(rest: &mut &[u8]) -> coditect_store::Result<Self> {
        Uuid::unpack(rest).map(Self)
    }
}

impl KeyId {
    /// Returns a new id, version 7 (RFC 9562): ids are ordered by creation.
    #[expect(clippy::new_without_default, reason = "each call returns a different id")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.0)
    }
}
