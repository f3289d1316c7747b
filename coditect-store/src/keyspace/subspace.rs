//! Subspaces: the named parts of the keyspace, per tenant or global.

use std::{fmt, marker::PhantomData};

use super::{KeyPart, Root, TenantId};
use crate::Result;

/// The owner of data: a [`TenantId`], or [`Global`].
pub trait Scope: KeyPart + Copy + Eq + fmt::Debug + sealed::Sealed {
    /// The kind of scope.
    const KIND: ScopeKind;

    /// Returns the tenant, if the scope is one.
    fn tenant(self) -> Option<TenantId>;
}

/// The scope of data that belongs to no tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Global;

/// The kind of scope: one prefix per tenant, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScopeKind {
    /// One per tenant.
    Tenant,
    /// One in all.
    Global,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::TenantId {}
    impl Sealed for super::Global {}
}

impl Scope for TenantId {
    const KIND: ScopeKind = ScopeKind::Tenant;

    fn tenant(self) -> Option<TenantId> {
        Some(self)
    }
}

impl Scope for Global {
    const KIND: ScopeKind = ScopeKind::Global;

    fn tenant(self) -> Option<TenantId> {
        None
    }
}

/// No element: a global key starts with its name.
impl KeyPart for Global {
    const ELEMENTS: usize = 0;

    fn element_types() -> Vec<String> {
        Vec::new()
    }

    fn pack(&self, _: &mut Vec<u8>) {}

    fn unpack(_: &mut &[u8]) -> Result<Self> {
        Ok(Self)
    }
}

/// The subspace of one entity, within the scope `S`. Its name is persisted: never change or reuse
/// it.
///
/// ```
/// use coditect_store::{keyspace::{Global, Subspace}, model::TenantId};
///
/// // (T, "invoices", id)
/// const INVOICES: Subspace<TenantId> = Subspace::tenant("invoices");
/// // ("countries", code)
/// const COUNTRIES: Subspace<Global> = Subspace::global("countries").keyed(&["code"]);
/// ```
///
/// An invalid name does not compile:
///
/// ```compile_fail
/// use coditect_store::{keyspace::Subspace, model::TenantId};
///
/// const INVOICES: Subspace<TenantId> = Subspace::tenant("Invoices\0");
/// ```
pub struct Subspace<S = TenantId> {
    name: &'static str,
    labels: &'static [&'static str],
    scope: PhantomData<fn() -> S>,
}

impl Subspace<TenantId> {
    /// Creates a subspace per tenant, named `name`: lower-case letters, digits and `_`.
    ///
    /// # Panics
    ///
    /// If the name is invalid. In a `const` this is a compile error.
    pub const fn tenant(name: &'static str) -> Self {
        Self::named(name)
    }
}

impl Subspace<Global> {
    /// Creates a global subspace, named `name`: lower-case letters, digits and `_`.
    ///
    /// # Panics
    ///
    /// If the name is invalid. In a `const` this is a compile error.
    pub const fn global(name: &'static str) -> Self {
        Self::named(name)
    }
}

impl<S> Subspace<S> {
    const fn named(name: &'static str) -> Self {
        assert!(is_name(name), "a subspace's name is lower-case letters, digits and `_`");
        Self { name, labels: &["id"], scope: PhantomData }
    }

    /// Sets the labels of the key's elements, shown in [the keyspace table](super::table); `["id"]`
    /// by default. Persisted: the catalog has them, and a store is not opened with others.
    #[must_use]
    pub const fn keyed(self, labels: &'static [&'static str]) -> Self {
        Self { name: self.name, labels, scope: PhantomData }
    }

    /// Returns the name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the labels of the key's elements.
    pub const fn labels(&self) -> &'static [&'static str] {
        self.labels
    }
}

impl<S: Scope> Subspace<S> {
    /// Returns the prefix of all keys in `scope`.
    pub fn prefix(&self, root: &Root, scope: S) -> Vec<u8> {
        root.named(&scope, self.name)
    }

    /// Returns the key `key` in `scope`.
    pub fn key(&self, root: &Root, scope: S, key: &impl KeyPart) -> Vec<u8> {
        let mut bytes = self.prefix(root, scope);
        key.pack(&mut bytes);
        bytes
    }
}

impl<S> Clone for Subspace<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Subspace<S> {}

impl<S> fmt::Debug for Subspace<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subspace({})", self.name)
    }
}

/// Returns whether `name` is valid for a subspace or index.
pub(crate) const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if !matches!(bytes[at], b'a'..=b'z' | b'0'..=b'9' | b'_') {
            return false;
        }
        at += 1;
    }
    !bytes.is_empty()
}

/// Returns whether `name` differs from all `others`.
pub(crate) const fn distinct(name: &str, others: &[&str]) -> bool {
    let mut at = 0;
    while at < others.len() {
        if equal(name.as_bytes(), others[at].as_bytes()) {
            return false;
        }
        at += 1;
    }
    true
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
