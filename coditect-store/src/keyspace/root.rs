//! The root: the one prefix that a store keeps all its keys under.

use std::sync::Arc;

use foundationdb_tuple::pack_into;

use super::{KeyPart, KeyRange};
use crate::model::TenantId;

/// Few keys are longer, in bytes: one that is grows on the way.
const USUAL_LENGTH: usize = 80;

/// The prefix of all keys of a [`Store`](crate::Store): a tuple, empty by default. Several stores
/// share one database by having roots of which none begins another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root(Arc<[u8]>);

impl Root {
    /// The root made of the elements of `prefix`: `Root::new(&"coditect".to_owned())`, say.
    pub fn new(prefix: &impl KeyPart) -> Self {
        let mut bytes = Vec::new();
        prefix.pack(&mut bytes);
        Self(bytes.into())
    }

    /// Its bytes, with which every key begins.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// All keys under it.
    pub fn range(&self) -> KeyRange {
        KeyRange::prefix(&self.0)
    }

    /// All keys that are `tenant`'s: its records, and the entries of indexes within it. Entries of
    /// indexes over all tenants lie elsewhere.
    pub fn tenant(&self, tenant: TenantId) -> KeyRange {
        KeyRange::prefix(&self.key(&tenant))
    }

    /// The key of the elements of `part`, under this root.
    pub fn key(&self, part: &impl KeyPart) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.0.len() + USUAL_LENGTH);
        key.extend_from_slice(&self.0);
        part.pack(&mut key);
        key
    }

    /// What all keys of the space or the index `name` in `scope` begin with.
    pub(crate) fn named(&self, scope: &impl KeyPart, name: &str) -> Vec<u8> {
        let mut key = self.key(scope);
        pack_into(&name, &mut key);
        key
    }
}
