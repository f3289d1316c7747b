//! Indexes: how the entries of a record are made, and read back.
//!
//! An entry is a key, and a value that depends on the [form](Form):
//!
//! ```text
//! unique    root ‖ scope ‖ (name, value)               → rest of the scope ‖ key
//! multi     root ‖ scope ‖ (name, value) ‖ rest ‖ key  → ∅
//! covering  root ‖ scope ‖ (name, value) ‖ rest ‖ key  → fields
//! count     root ‖ scope ‖ (name, value)               → i64, how many records give this entry
//! ```
//!
//! Entries are made here and written in one place only, `repository/maintain.rs`.

use std::fmt;

use super::{CountKind, CoveringKind, Entity, Form, Kind, codec, record_key, typed};
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
    given: fn(&E) -> K::Given,
}

/// What one record puts into an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The index.
    pub index: &'static str,
    /// The key.
    pub key: Vec<u8>,
    /// The value: a pointer, fields, or empty. That of a count is empty: what is stored is the sum.
    pub value: Vec<u8>,
    /// How it is written, and whether another record's with this key is a violation.
    pub form: Form,
}

/// What an entry of a covering index tells of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered<S, P, V, C> {
    /// The record's scope.
    pub scope: S,
    /// Its key.
    pub key: P,
    /// The value that it was found by.
    pub value: V,
    /// The fields.
    pub fields: C,
}

/// What an entry of the index kind `K` over the entities `E` tells.
pub type CoveredBy<E, K> =
    Covered<<E as Entity>::Scope, <E as Entity>::Key, <K as Kind>::Value, <K as Kind>::Carried>;

/// An index over the entities `E`, whatever its kind.
pub trait IndexOf<E>: sealed::Sealed + Send + Sync {
    /// Its name. Persisted.
    fn name(&self) -> &'static str;

    /// How its entries look.
    fn form(&self) -> Form;

    /// Where its entries lie.
    fn place(&self) -> Place;

    /// Returns the elements of its values, each as `label:type`, as a store's schema keeps them.
    fn elements(&self) -> String;

    /// How its keys look.
    fn shape(&self) -> Shape;

    /// Appends the entries of `record`, each key once.
    ///
    /// # Errors
    ///
    /// `Invalid` if what an entry carries cannot be written.
    fn entries(&self, root: &Root, record: &E, entries: &mut Vec<Entry>) -> Result<()>;

    /// The key of the record that `entry` is of.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not an entry of this index, or one that counts.
    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>>;
}

mod sealed {
    pub trait Sealed {}
    impl<E, K: super::Kind> Sealed for super::Index<E, K> {}
}

/// What the key of an entry begins with, beside the index's name: scope and value.
type Front<E, K> = (<K as Kind>::Scope<<E as Entity>::Scope>, <K as Kind>::Value);

impl<E, K: Kind> Index<E, K> {
    /// The index named `name`, over what `given` gives for a record, whose elements are called
    /// `labels`.
    ///
    /// # Panics
    ///
    /// If `name` is anything but lower-case letters, digits and `_`, or `labels` are not as many
    /// as the value has elements; in a `const`, that is an error of the compiler.
    pub const fn new(
        name: &'static str,
        labels: &'static [&'static str],
        given: fn(&E) -> K::Given,
    ) -> Self {
        assert!(is_name(name), "an index's name is lower-case letters, digits and `_`");
        assert!(
            labels.len() == K::Value::ELEMENTS,
            "an index has as many labels as its value has elements"
        );
        Self { name, labels, description: "", given }
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
        root.named(&scope, self.name)
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("an entry of index {} {why}", self.name))
    }

    /// Takes scope and value off the front of an entry's `key`.
    fn front(&self, root: &Root, key: &mut &[u8]) -> Result<Front<E, K>> {
        *key = key
            .strip_prefix(root.as_bytes())
            .ok_or_else(|| self.unreadable("lies outside the root"))?;
        let scope = K::Scope::<E::Scope>::unpack(key)?;
        if String::unpack(key)? != self.name {
            return Err(self.unreadable("has another name"));
        }
        Ok((scope, K::Value::unpack(key)?))
    }

    /// The record that an entry is of, with the value that led to it.
    fn pointer(&self, root: &Root, entry: &KeyValue) -> Result<(E::Scope, E::Key, K::Value)> {
        type Pointer<E, K> = (<K as Kind>::Rest<<E as Entity>::Scope>, <E as Entity>::Key);

        let mut after = entry.key.as_slice();
        let (scope, value) = self.front(root, &mut after)?;
        let pointer = match K::FORM {
            Form::Unique => {
                unpack_all::<()>(after)?;
                entry.value.as_slice()
            }
            Form::Multi | Form::Covering => after,
            Form::Count => return Err(self.unreadable("is a count, of no one record")),
        };
        let (rest, key) = unpack_all::<Pointer<E, K>>(pointer)?;
        Ok((K::join(scope, rest), key, value))
    }
}

impl<E: Entity, K: CoveringKind> Index<E, K> {
    /// What `entry` tells of its record.
    pub(crate) fn covered(&self, root: &Root, entry: &KeyValue) -> Result<CoveredBy<E, K>> {
        let (scope, key, value) = self.pointer(root, entry)?;
        let fields = codec::decode_fields(self.name, &entry.value)?;
        Ok(Covered { scope, key, value, fields })
    }
}

impl<E: Entity, K: CountKind> Index<E, K> {
    /// The group that `entry` counts, and how many records are in it.
    pub(crate) fn counted(&self, root: &Root, entry: &KeyValue) -> Result<(K::Value, i64)> {
        let mut after = entry.key.as_slice();
        let (_, value) = self.front(root, &mut after)?;
        unpack_all::<()>(after)?;
        Ok((value, self.sum(&entry.value)?))
    }

    /// The number that is stored as `value`.
    pub(crate) fn sum(&self, value: &[u8]) -> Result<i64> {
        let bytes = value.try_into().map_err(|_| self.unreadable("is no number of eight bytes"))?;
        Ok(i64::from_le_bytes(bytes))
    }
}

impl<E: Entity, K: Kind> IndexOf<E> for Index<E, K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn form(&self) -> Form {
        K::FORM
    }

    fn place(&self) -> Place {
        <K::Scope<E::Scope> as Scope>::PLACE
    }

    fn elements(&self) -> String {
        typed::<K::Value>(self.labels)
    }

    fn shape(&self) -> Shape {
        let rest = match <K::Rest<E::Scope> as Scope>::PLACE {
            Place::Tenant => &[TENANT][..],
            Place::Global => &[],
        };
        let pointer = [rest, E::SPACE.labels()].concat();
        let place = self.place();
        let kind = match (K::FORM, place) {
            (Form::Unique, Place::Tenant) => "unique in the tenant",
            (Form::Unique, Place::Global) => "unique, global",
            (_, Place::Tenant) => "",
            (_, Place::Global) => "global",
        };
        let description = self.description.trim();
        let gap = if kind.is_empty() || description.is_empty() { "" } else { ": " };
        let with_pointer = || [self.labels, &pointer].concat();
        let (elements, value) = match K::FORM {
            Form::Unique => (self.labels.to_vec(), format!("({})", pointer.join(", "))),
            Form::Multi => (with_pointer(), "∅".to_owned()),
            Form::Covering => (with_pointer(), "fields".to_owned()),
            Form::Count => (self.labels.to_vec(), "i64, a count".to_owned()),
        };
        let note = format!("{kind}{gap}{description}");
        Shape { place, name: self.name, elements, value, note }
    }

    fn entries(&self, root: &Root, record: &E, entries: &mut Vec<Entry>) -> Result<()> {
        let (scope, rest) = K::split(record.scope());
        let first = entries.len();
        for (value, fields) in K::values((self.given)(record)) {
            let mut key = self.prefix(root, scope);
            value.pack(&mut key);
            let mut pointer = Vec::new();
            (rest, record.key()).pack(&mut pointer);
            let value = match K::FORM {
                Form::Unique => pointer,
                Form::Multi => {
                    key.append(&mut pointer);
                    Vec::new()
                }
                Form::Covering => {
                    key.append(&mut pointer);
                    codec::encode_fields(self.name, &fields)?
                }
                Form::Count => Vec::new(),
            };
            if entries[first..].iter().all(|entry| entry.key != key) {
                entries.push(Entry { index: self.name, key, value, form: K::FORM });
            }
        }
        Ok(())
    }

    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>> {
        let (scope, key, _) = self.pointer(root, entry)?;
        Ok(record_key::<E>(root, scope, &key))
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
