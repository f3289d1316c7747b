//! The root: the prefix of all keys of a store.

use std::sync::Arc;

use foundationdb_tuple::pack_into;

use super::{KeyPart, KeyRange, TenantId};

/// Length that most keys do not exceed, in bytes.
const USUAL_LENGTH: usize = 80;

/// The prefix of all keys of a [`Store`](crate::Store): a tuple, empty by default. Several stores
/// share one database under roots of which none is a prefix of another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root(Arc<[u8]>);

impl Root {
    /// Returns the root of the elements of `prefix`, such as `Root::new(&"coditect".to_owned())`.
    pub fn new(prefix: &impl KeyPart) -> Self {
        let mut bytes = Vec::new();
        prefix.pack(&mut bytes);
        Self(bytes.into())
    }

    /// Returns its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the range of all keys under it.
    pub fn range(&self) -> KeyRange {
        KeyRange::prefix(&self.0)
    }

    /// Returns the range of all keys of `tenant`: its records and the entries of its own indexes.
    /// Entries of global indexes are not part of it.
    pub fn tenant(&self, tenant: TenantId) -> KeyRange {
        KeyRange::prefix(&self.key(&tenant))
    }

    /// Returns the key of the elements of `part` under this root.
    pub fn key(&self, part: &impl KeyPart) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.0.len() + USUAL_LENGTH);
        key.extend_from_slice(&self.0);
        part.pack(&mut key);
        key
    }

    /// Returns the prefix of all keys of the subspace or index `name` in `scope`.
    pub(crate) fn named(&self, scope: &impl KeyPart, name: &str) -> Vec<u8> {
        let mut key = self.key(scope);
        pack_into(&name, &mut key);
        key
    }
}
