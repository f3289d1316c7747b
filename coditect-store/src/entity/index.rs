//! Indexes: how the entries of a record are made, and read back.
//!
//! An entry is a key, and a value that is empty or a pointer:
//!
//! ```text
//! unique   root ‖ scope ‖ (name, value)               → rest of the scope ‖ key
//! multi    root ‖ scope ‖ (name, value) ‖ rest ‖ key  → ∅
//! ```
//!
//! Entries are made here and written in one place only, `repository/maintain.rs`.

use std::fmt;

use super::{Entity, Kind, record_key};
use crate::{
    Error, ErrorKind, Result,
    engine::KeyValue,
    keyspace::{KeyPart, Place, Root, Scope, Shape, TENANT, is_name, unpack_all},
};

/// An index over the entities `E`, of the kind `K`. Made by [`indexes!`](crate::indexes).
pub struct Index<E, K: Kind> {
    name: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
    values: fn(&E) -> K::Values,
}

/// What one record puts into an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The index.
    pub index: &'static str,
    /// The key.
    pub key: Vec<u8>,
    /// The value: a pointer, or empty.
    pub value: Vec<u8>,
    /// Whether another record's entry with this key is a violation.
    pub unique: bool,
}

/// An index over the entities `E`, whatever its kind.
pub trait IndexOf<E>: sealed::Sealed + Send + Sync {
    /// Its name. Persisted.
    fn name(&self) -> &'static str;

    /// How its keys look.
    fn shape(&self) -> Shape;

    /// Appends the entries of `record`.
    fn entries(&self, root: &Root, record: &E, entries: &mut Vec<Entry>);

    /// The key of the record that `entry` is of.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not an entry of this index.
    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>>;
}

mod sealed {
    pub trait Sealed {}
    impl<E, K: super::Kind> Sealed for super::Index<E, K> {}
}

impl<E, K: Kind> Index<E, K> {
    /// The index named `name`, over what `values` gives for a record, whose elements are called
    /// `labels`.
    ///
    /// # Panics
    ///
    /// If `name` is anything but lower-case letters, digits and `_`, or `labels` are not as many
    /// as the value has elements; in a `const`, that is an error of the compiler.
    pub const fn new(
        name: &'static str,
        labels: &'static [&'static str],
        values: fn(&E) -> K::Values,
    ) -> Self {
        assert!(is_name(name), "an index's name is lower-case letters, digits and `_`");
        assert!(
            labels.len() == K::Value::ELEMENTS,
            "an index has as many labels as its value has elements"
        );
        Self { name, labels, description: "", values }
    }

    /// Says what it is for, in [the table](crate::keyspace::table).
    #[must_use]
    pub const fn described(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Its name. Persisted.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<E: Entity, K: Kind> Index<E, K> {
    /// What the keys of all its entries in `scope` begin with.
    pub(crate) fn prefix(&self, root: &Root, scope: K::Scope<E::Scope>) -> Vec<u8> {
        root.key(&(scope, self.name.to_owned()))
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("an entry of index {} {why}", self.name))
    }
}

impl<E: Entity, K: Kind> IndexOf<E> for Index<E, K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shape(&self) -> Shape {
        let rest = match <K::Rest<E::Scope> as Scope>::PLACE {
            Place::Tenant => &[TENANT][..],
            Place::Global => &[],
        };
        let pointer = [rest, E::SPACE.labels()].concat();
        let place = <K::Scope<E::Scope> as Scope>::PLACE;
        let kind = match (K::UNIQUE, place) {
            (true, Place::Tenant) => "unique in the tenant",
            (true, Place::Global) => "unique, global",
            (false, Place::Tenant) => "",
            (false, Place::Global) => "global",
        };
        let description = self.description.trim();
        let gap = if kind.is_empty() || description.is_empty() { "" } else { ": " };
        let (elements, value) = if K::UNIQUE {
            (self.labels.to_vec(), format!("({})", pointer.join(", ")))
        } else {
            ([self.labels, &pointer].concat(), "∅".to_owned())
        };
        let note = format!("{kind}{gap}{description}");
        Shape { place, name: self.name, elements, value, note }
    }

    fn entries(&self, root: &Root, record: &E, entries: &mut Vec<Entry>) {
        let (scope, rest) = K::split(record.scope());
        for value in (self.values)(record) {
            let mut key = self.prefix(root, scope);
            value.pack(&mut key);
            let mut pointer = Vec::new();
            (rest, record.key()).pack(&mut pointer);
            if !K::UNIQUE {
                key.append(&mut pointer);
            }
            entries.push(Entry { index: self.name, key, value: pointer, unique: K::UNIQUE });
        }
    }

    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>> {
        type Pointer<E, K> = (<K as Kind>::Rest<<E as Entity>::Scope>, <E as Entity>::Key);

        let mut key = entry
            .key
            .strip_prefix(root.as_bytes())
            .ok_or_else(|| self.unreadable("lies outside the root"))?;
        let scope = K::Scope::<E::Scope>::unpack(&mut key)?;
        if String::unpack(&mut key)? != self.name {
            return Err(self.unreadable("has another name"));
        }
        K::Value::unpack(&mut key)?;
        let pointer = if K::UNIQUE {
            unpack_all::<()>(key)?;
            entry.value.as_slice()
        } else {
            key
        };
        let (rest, key) = unpack_all::<Pointer<E, K>>(pointer)?;
        Ok(record_key::<E>(root, K::join(scope, rest), &key))
    }
}

impl<E, K: Kind> Clone for Index<E, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, K: Kind> Copy for Index<E, K> {}

impl<E, K: Kind> fmt::Debug for Index<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({})", self.name)
    }
}
