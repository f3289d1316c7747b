//! Spaces: the named parts of the keyspace that records lie in, a tenant's or everybody's.

use std::{fmt, marker::PhantomData};

use super::{KeyPart, Root};
use crate::{Result, model::TenantId};

/// Whose something is: a [`TenantId`], or [`Global`] for what is no tenant's.
pub trait Scope: KeyPart + Copy + Eq + fmt::Debug + sealed::Sealed {
    /// Which of the two.
    const PLACE: Place;

    /// Returns the tenant, if it is one's.
    fn tenant(self) -> Option<TenantId>;
}

/// The scope of what is no tenant's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Global;

/// A part of the keyspace: one prefix a tenant, or one prefix in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Within each tenant.
    Tenant,
    /// Over all tenants.
    Global,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::TenantId {}
    impl Sealed for super::Global {}
}

impl Scope for TenantId {
    const PLACE: Place = Place::Tenant;

    fn tenant(self) -> Option<TenantId> {
        Some(self)
    }
}

impl Scope for Global {
    const PLACE: Place = Place::Global;

    fn tenant(self) -> Option<TenantId> {
        None
    }
}

/// No element: what is no tenant's begins with its name.
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

/// The space that one kind of record lies in, within the scope `S`. Its name is persisted: never
/// rename it, never give it to something else.
///
/// ```
/// use coditect_store::{keyspace::{Global, Space}, model::TenantId};
///
/// const INVOICES: Space<TenantId> = Space::tenant("invoices"); //   (T, "invoices", id)
/// const COUNTRIES: Space<Global> = Space::global("countries").keyed(&["code"]); // ("countries", code)
/// ```
///
/// A name that no key should hold does not compile:
///
/// ```compile_fail
/// use coditect_store::{keyspace::Space, model::TenantId};
///
/// const INVOICES: Space<TenantId> = Space::tenant("Invoices\0");
/// ```
pub struct Space<S = TenantId> {
    name: &'static str,
    labels: &'static [&'static str],
    scope: PhantomData<fn() -> S>,
}

impl Space<TenantId> {
    /// A space within each tenant, named `name`: lower-case letters, digits and `_`.
    ///
    /// # Panics
    ///
    /// On any other name; in a `const`, where it belongs, that is an error of the compiler.
    pub const fn tenant(name: &'static str) -> Self {
        Self::named(name)
    }
}

impl Space<Global> {
    /// A space that is no tenant's, named `name`: lower-case letters, digits and `_`.
    ///
    /// # Panics
    ///
    /// On any other name; in a `const`, where it belongs, that is an error of the compiler.
    pub const fn global(name: &'static str) -> Self {
        Self::named(name)
    }
}

impl<S> Space<S> {
    const fn named(name: &'static str) -> Self {
        assert!(is_name(name), "a space's name is lower-case letters, digits and `_`");
        Self { name, labels: &["id"], scope: PhantomData }
    }

    /// What the elements of its keys are called in [the table](super::table): `id`, if not said.
    /// Persisted: a store keeps it with the declaration, and refuses another.
    #[must_use]
    pub const fn keyed(self, labels: &'static [&'static str]) -> Self {
        Self { name: self.name, labels, scope: PhantomData }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What the elements of its keys are called.
    pub const fn labels(&self) -> &'static [&'static str] {
        self.labels
    }
}

impl<S: Scope> Space<S> {
    /// What all its keys in `scope` begin with.
    pub fn prefix(&self, root: &Root, scope: S) -> Vec<u8> {
        root.named(&scope, self.name)
    }

    /// The key that `key` is in `scope`.
    pub fn key(&self, root: &Root, scope: S, key: &impl KeyPart) -> Vec<u8> {
        let mut bytes = self.prefix(root, scope);
        key.pack(&mut bytes);
        bytes
    }
}

impl<S> Clone for Space<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Space<S> {}

impl<S> fmt::Debug for Space<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({})", self.name)
    }
}

/// Whether `name` may name a space or an index.
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

/// Whether `name` is none of `others`.
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
