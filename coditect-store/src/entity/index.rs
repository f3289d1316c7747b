//! Index entries: their keys and values, from a record and back.
//!
//! ```text
//! unique    root ‖ scope ‖ (name, value)               → rest of the scope ‖ key
//! multi     root ‖ scope ‖ (name, value) ‖ rest ‖ key  → ∅
//! covering  root ‖ scope ‖ (name, value) ‖ rest ‖ key  → fields
//! count     root ‖ scope ‖ (name, value)               → i64, the number of records
//! ```
//!
//! Entries are made here, and written by `index_maintainer.rs` only.

use std::fmt;

use super::{
    CountIndexType, CoveringIndexType, Entity, IndexKind, IndexType, UniqueIndexType, codec,
    record_key, typed,
};
use crate::{
    Error, ErrorKind, Result,
    engine::KeyValue,
    keyspace::{KeyLayout, KeyPart, Root, Scope, ScopeKind, TENANT, is_name, unpack_all},
};

/// An index of type `K` over the entity `E`. Declared by [`indexes!`](crate::indexes).
pub struct Index<E, K: IndexType> {
    name: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
    extract: fn(&E) -> K::Extracted,
}

/// An entry of one record in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name of the index.
    pub index: &'static str,
    /// Key of the entry.
    pub key: Vec<u8>,
    /// Value: a pointer, fields, or empty. Empty for a counting index, which stores a sum.
    pub value: Vec<u8>,
    /// Kind of the index: how the entry is written, and whether its key must be free.
    pub kind: IndexKind,
}

/// An entry of a covering index: the fields and the key of its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Covered<S, P, V, C> {
    /// Scope of the record.
    pub scope: S,
    /// Key of the record.
    pub key: P,
    /// Indexed value.
    pub value: V,
    /// Included fields.
    pub fields: C,
}

/// The entry type of a covering index of type `K` over the entity `E`.
pub type CoveredBy<E, K> = Covered<
    <E as Entity>::Scope,
    <E as Entity>::Key,
    <K as IndexType>::Value,
    <K as IndexType>::Included,
>;

/// An index over the entity `E`, of any type.
pub trait IndexOf<E>: sealed::Sealed + Send + Sync {
    /// Returns the name. Persisted.
    fn name(&self) -> &'static str;

    /// Returns the kind.
    fn kind(&self) -> IndexKind;

    /// Returns the scope that the entries belong to.
    fn scope_kind(&self) -> ScopeKind;

    /// Returns the elements of the indexed values, each as `label:type`, as the catalog stores
    /// them.
    fn elements(&self) -> String;

    /// Returns the layout of the keys.
    fn layout(&self) -> KeyLayout;

    /// Appends the entries of `record`, without duplicates.
    ///
    /// # Errors
    ///
    /// `Invalid` if the included fields cannot be encoded.
    fn entries(&self, root: &Root, record: &E, entries: &mut Vec<Entry>) -> Result<()>;

    /// Returns the key of the record that `entry` points to.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not an entry of this index; also for a counting index.
    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>>;
}

mod sealed {
    pub trait Sealed {}
    impl<E, K: super::IndexType> Sealed for super::Index<E, K> {}
}

/// Start of an entry's key, beside the index's name: scope and value.
type Front<E, K> = (<K as IndexType>::Scope<<E as Entity>::Scope>, <K as IndexType>::Value);

impl<E, K: IndexType> Index<E, K> {
    /// Creates the index `name` over the values that `extract` returns for a record. `labels` names
    /// the elements of a value.
    ///
    /// # Panics
    ///
    /// If `name` has characters other than lower-case letters, digits and `_`, or the number of
    /// `labels` differs from the number of elements of a value. In a `const` this is a compile
    /// error.
    pub const fn new(
        name: &'static str,
        labels: &'static [&'static str],
        extract: fn(&E) -> K::Extracted,
    ) -> Self {
        assert!(is_name(name), "an index's name is lower-case letters, digits and `_`");
        assert!(
            labels.len() == K::Value::ELEMENTS,
            "an index has as many labels as its value has elements"
        );
        Self { name, labels, description: "", extract }
    }

    /// Sets the description, shown in [the keyspace table](crate::keyspace::table).
    #[must_use]
    pub const fn described(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Returns the name. Persisted.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<E: Entity, K: IndexType> Index<E, K> {
    /// Returns the prefix of all entries in `scope`.
    pub(crate) fn prefix(&self, root: &Root, scope: K::Scope<E::Scope>) -> Vec<u8> {
        root.named(&scope, self.name)
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("an entry of index {} {why}", self.name))
    }

    /// Splits scope and value from the front of an entry's `key`.
    fn front(&self, root: &Root, key: &mut &[u8]) -> Result<Front<E, K>> {
        *key = key
            .strip_prefix(root.as_bytes())
            .ok_or_else(|| self.unreadable("is outside of the root"))?;
        let scope = K::Scope::<E::Scope>::unpack(key)?;
        if String::unpack(key)? != self.name {
            return Err(self.unreadable("has another name"));
        }
        Ok((scope, K::Value::unpack(key)?))
    }

    /// Returns the scope and key of the entry's record, and the indexed value.
    fn pointer(&self, root: &Root, entry: &KeyValue) -> Result<(E::Scope, E::Key, K::Value)> {
        type Pointer<E, K> = (<K as IndexType>::Rest<<E as Entity>::Scope>, <E as Entity>::Key);

        let mut after = entry.key.as_slice();
        let (scope, value) = self.front(root, &mut after)?;
        let pointer = match K::KIND {
            IndexKind::Unique => {
                unpack_all::<()>(after)?;
                entry.value.as_slice()
            }
            IndexKind::Multi | IndexKind::Covering => after,
            IndexKind::Count => return Err(self.unreadable("is a count, without a record")),
        };
        let (rest, key) = unpack_all::<Pointer<E, K>>(pointer)?;
        Ok((K::join(scope, rest), key, value))
    }
}

impl<E: Entity, K: CoveringIndexType> Index<E, K> {
    /// Decodes an entry of a covering index.
    pub(crate) fn covered(&self, root: &Root, entry: &KeyValue) -> Result<CoveredBy<E, K>> {
        let (scope, key, value) = self.pointer(root, entry)?;
        let fields = codec::decode_fields(self.name, &entry.value)?;
        Ok(Covered { scope, key, value, fields })
    }
}

impl<E: Entity, K: CountIndexType> Index<E, K> {
    /// Decodes an entry of a counting index: the value, and its number of records.
    pub(crate) fn counted(&self, root: &Root, entry: &KeyValue) -> Result<(K::Value, i64)> {
        let mut after = entry.key.as_slice();
        let (_, value) = self.front(root, &mut after)?;
        unpack_all::<()>(after)?;
        Ok((value, self.sum(&entry.value)?))
    }

    /// Decodes a stored sum.
    pub(crate) fn sum(&self, value: &[u8]) -> Result<i64> {
        let bytes = value.try_into().map_err(|_| self.unreadable("is not an eight-byte number"))?;
        Ok(i64::from_le_bytes(bytes))
    }
}

impl<E: Entity, K: IndexType> IndexOf<E> for Index<E, K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> IndexKind {
        K::KIND
    }

    fn scope_kind(&self) -> ScopeKind {
        <K::Scope<E::Scope> as Scope>::KIND
    }

    fn elements(&self) -> String {
        typed::<K::Value>(self.labels)
    }

    fn layout(&self) -> KeyLayout {
        let rest = match <K::Rest<E::Scope> as Scope>::KIND {
            ScopeKind::Tenant => &[TENANT][..],
            ScopeKind::Global => &[],
        };
        let pointer = [rest, E::SPACE.labels()].concat();
        let scope_kind = self.scope_kind();
        let kind = match (K::KIND, scope_kind) {
            (IndexKind::Unique, ScopeKind::Tenant) => "unique in the tenant",
            (IndexKind::Unique, ScopeKind::Global) => "unique, global",
            (_, ScopeKind::Tenant) => "",
            (_, ScopeKind::Global) => "global",
        };
        let description = self.description.trim();
        let gap = if kind.is_empty() || description.is_empty() { "" } else { ": " };
        let with_pointer = || [self.labels, &pointer].concat();
        let (elements, value) = match K::KIND {
            IndexKind::Unique => (self.labels.to_vec(), format!("({})", pointer.join(", "))),
            IndexKind::Multi => (with_pointer(), "∅".to_owned()),
            IndexKind::Covering => (with_pointer(), "fields".to_owned()),
            IndexKind::Count => (self.labels.to_vec(), "i64, a count".to_owned()),
        };
        let note = format!("{kind}{gap}{description}");
        KeyLayout { scope_kind, name: self.name, elements, value, note }
    }

    fn entries(&self, root: &Root, record: &E, entries: &mut Vec<Entry>) -> Result<()> {
        let (scope, rest) = K::split(record.scope());
        let first = entries.len();
        for (value, fields) in K::values((self.extract)(record)) {
            let mut key = self.prefix(root, scope);
            value.pack(&mut key);
            let mut pointer = Vec::new();
            (rest, record.key()).pack(&mut pointer);
            let value = match K::KIND {
                IndexKind::Unique => pointer,
                IndexKind::Multi => {
                    key.append(&mut pointer);
                    Vec::new()
                }
                IndexKind::Covering => {
                    key.append(&mut pointer);
                    codec::encode_fields(self.name, &fields)?
                }
                IndexKind::Count => Vec::new(),
            };
            if entries[first..].iter().all(|entry| entry.key != key) {
                entries.push(Entry { index: self.name, key, value, kind: K::KIND });
            }
        }
        Ok(())
    }

    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>> {
        let (scope, key, _) = self.pointer(root, entry)?;
        Ok(record_key::<E>(root, scope, &key))
    }
}

impl Error {
    /// Returns whether a write was refused because another record has the same value in `index`.
    ///
    /// ```
    /// # use coditect_store::{Result, Transaction, model::User};
    /// # async fn example(tx: Transaction, user: User) -> Result<()> {
    /// match tx.insert(&user).await {
    ///     Err(error) if error.violates(&User::BY_EMAIL) => println!("the address is taken"),
    ///     inserted => inserted?,
    /// }
    /// # Ok(()) }
    /// ```
    pub fn violates<E, K: UniqueIndexType>(&self, index: &Index<E, K>) -> bool {
        self.kind() == ErrorKind::UniqueViolation(index.name)
    }
}

impl<E, K: IndexType> Clone for Index<E, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, K: IndexType> Copy for Index<E, K> {}

impl<E, K: IndexType> fmt::Debug for Index<E, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({})", self.name)
    }
}
