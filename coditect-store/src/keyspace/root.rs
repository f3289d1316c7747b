//! The root: the one prefix that a store keeps all its keys under.

use std::sync::Arc;

use super::{KeyPart, KeyRange};
use crate::model::TenantId;

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
        let mut key = self.0.to_vec();
        part.pack(&mut key);
        key
    }
}
