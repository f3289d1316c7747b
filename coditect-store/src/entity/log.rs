//! Logs: records that are appended, and lie in the order of their commits.
//!
//! The key of such a record is completed by the commit itself, with the versionstamp that it gets;
//! so those who append to the same stream of it conflict with nobody. Its entries are stamped alike:
//!
//! ```text
//! record   root ‖ scope ‖ (space, stream, position)        → record
//! multi    root ‖ scope ‖ (name, value, position)          → stream
//! unique   root ‖ scope ‖ (name, value)                    → stream ‖ position
//! ```
//!
//! Like an [`Entity`](super::Entity), a log is declared by an `impl` and a list, from any crate:
//!
//! ```
//! use coditect_store::{
//!     entity::{Log, Multi}, keyspace::Space, log_indexes,
//!     model::{TenantId, UserId},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// What happened to an invoice.
//! #[derive(Serialize, Deserialize)]
//! struct InvoiceEvent {
//!     tenant: TenantId,
//!     invoice: u64,
//!     by: UserId,
//!     what: String,
//! }
//!
//! impl Log for InvoiceEvent {
//!     type Scope = TenantId;
//!     type Stream = u64;
//!     const SPACE: Space<TenantId> = Space::tenant("invoice_events").keyed(&["invoice"]);
//!     const VERSION: u8 = 1;
//!
//!     fn scope(&self) -> TenantId {
//!         self.tenant
//!     }
//!
//!     fn stream(&self) -> u64 {
//!         self.invoice
//!     }
//! }
//!
//! log_indexes! { InvoiceEvent =>
//!     /// What somebody did, in the order in which it was committed.
//!     BY_USER ("invoice_events_by_user", user): Multi<UserId> = |event| Some(event.by);
//! }
//! ```

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Declared, Encoded, Entry, Form, Multi, Older, Unique, codec, decode_logged, encode_logged,
    require_lengths, typed,
};
use crate::{
    Error, ErrorKind, Result,
    engine::KeyValue,
    keyspace::{KeyPart, Position, Root, Scope, Shape, Space, distinct, is_name, unpack_all},
};

/// The length of a position in a key, in bytes.
pub(crate) const POSITION_BYTES: usize = 13;

/// What the position is called in [the table](crate::keyspace::table).
const POSITION: &str = "versionstamp";

/// A kind of record that is appended: see the [module](self) for how one is declared.
pub trait Log: LogIndexed + Serialize + DeserializeOwned + Send + Sync {
    /// [`TenantId`](crate::model::TenantId) for what is a tenant's,
    /// [`Global`](crate::keyspace::Global) for what is no tenant's.
    type Scope: Scope;

    /// What tells one stream of records from another within a scope; `()` if there is but one.
    type Stream: KeyPart;

    /// Where its records lie, keyed by what the elements of the stream are called. Persisted.
    const SPACE: Space<Self::Scope>;

    /// The version of its bytes: see [`Entity::VERSION`](super::Entity::VERSION).
    const VERSION: u8;

    /// The fields that are shown to nobody: see [`Entity::SECRETS`](super::Entity::SECRETS).
    const SECRETS: &'static [&'static str] = &[];

    /// Whose this record is. It never changes.
    fn scope(&self) -> Self::Scope;

    /// The stream that it is in. It never changes.
    fn stream(&self) -> Self::Stream;

    /// Makes one of what an older version of the program wrote: see
    /// [`Entity::upgrade`](super::Entity::upgrade).
    ///
    /// # Errors
    ///
    /// `Corrupt`, as [`Older`] gives it.
    fn upgrade(older: Older<'_>) -> Result<Self> {
        Err(older.unknown())
    }
}

/// A log whose records may be changed in their places, and taken out. One that is not is
/// append-only: a program that changes its records does not compile.
pub trait Amendable: Log {}

/// A log whose oldest records are removed after a while. None of the others is changed or removed.
pub trait Trimmed: Log {}

/// The list of a log's indexes, which [`log_indexes!`](crate::log_indexes) writes.
pub trait LogIndexed: Sized + 'static {
    /// All of them, in the order of their declaration.
    const INDEXES: &'static [&'static dyn LogIndexOf<Self>];

    /// Their names, in the same order.
    const NAMES: &'static [&'static str];
}

/// A kind of index that a log can have: [`Multi`] or [`Unique`], within its scope.
pub trait LogKind: sealed::Sealed + Send + Sync + 'static {
    /// What is indexed: one element, or a tuple for a composite.
    type Value: KeyPart;

    /// Whether each value is of one record at the most.
    const UNIQUE: bool;
}

impl<V: KeyPart> LogKind for Multi<V> {
    type Value = V;
    const UNIQUE: bool = false;
}

impl<V: KeyPart> LogKind for Unique<V> {
    type Value = V;
    const UNIQUE: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl<V> Sealed for super::Multi<V> {}
    impl<V> Sealed for super::Unique<V> {}
    impl<L, K: super::LogKind> Sealed for super::LogIndex<L, K> {}
}

/// An index over the log `L`, of the kind `K`. Made by [`log_indexes!`](crate::log_indexes).
pub struct LogIndex<L, K: LogKind> {
    name: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
    value: fn(&L) -> Option<K::Value>,
}

/// An index over the log `L`, whatever its kind.
pub trait LogIndexOf<L>: sealed::Sealed + Send + Sync {
    /// Its name. Persisted.
    fn name(&self) -> &'static str;

    /// Whether each value is of one record at the most.
    fn is_unique(&self) -> bool;

    /// Returns the elements of its values, each as `label:type`, as a store's schema keeps them.
    fn elements(&self) -> String;

    /// How its keys look.
    fn shape(&self) -> Shape;

    /// The entry of `record`, if it has one, without its position: that goes to the end of the
    /// value of a unique one, to the end of the key of any other.
    fn entry(&self, root: &Root, record: &L) -> Option<Entry>;

    /// The key of the record that `entry` is of.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not an entry of this index.
    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>>;
}

impl<L, K: LogKind> LogIndex<L, K> {
    /// The index named `name`, over what `value` gives for a record, whose elements are called
    /// `labels`.
    ///
    /// # Panics
    ///
    /// If `name` is anything but lower-case letters, digits and `_`, or `labels` are not as many
    /// as the value has elements; in a `const`, that is an error of the compiler.
    pub const fn new(
        name: &'static str,
        labels: &'static [&'static str],
        value: fn(&L) -> Option<K::Value>,
    ) -> Self {
        assert!(is_name(name), "an index's name is lower-case letters, digits and `_`");
        assert!(
            labels.len() == K::Value::ELEMENTS,
            "an index has as many labels as its value has elements"
        );
        Self { name, labels, description: "", value }
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

impl<L: Log, K: LogKind> LogIndex<L, K> {
    /// What the keys of all its entries in `scope` begin with.
    pub(crate) fn prefix(&self, root: &Root, scope: L::Scope) -> Vec<u8> {
        root.named(&scope, self.name)
    }
}

impl<L: Log, K: LogKind> LogIndexOf<L> for LogIndex<L, K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_unique(&self) -> bool {
        K::UNIQUE
    }

    fn elements(&self) -> String {
        typed::<K::Value>(self.labels)
    }

    fn shape(&self) -> Shape {
        let stream = L::SPACE.labels();
        let (elements, value) = if K::UNIQUE {
            let pointer = [stream, &[POSITION]].concat();
            (self.labels.to_vec(), format!("({})", pointer.join(", ")))
        } else {
            let pointer = if stream.is_empty() {
                "∅".to_owned()
            } else {
                format!("({})", stream.join(", "))
            };
            ([self.labels, &[POSITION]].concat(), pointer)
        };
        let description = self.description.trim();
        let kind = if K::UNIQUE { "unique in the tenant: " } else { "" };
        let note = format!("{kind}{description}");
        Shape { place: L::Scope::PLACE, name: self.name, elements, value, note }
    }

    fn entry(&self, root: &Root, record: &L) -> Option<Entry> {
        let mut key = self.prefix(root, record.scope());
        (self.value)(record)?.pack(&mut key);
        let mut value = Vec::new();
        record.stream().pack(&mut value);
        let form = if K::UNIQUE { Form::Unique } else { Form::Multi };
        Some(Entry { index: self.name, key, value, form })
    }

    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>> {
        let corrupt = |why: &str| {
            let message = format!("an entry of index {} {why}", self.name);
            Error::new(ErrorKind::Corrupt, message)
        };
        let mut key = entry
            .key
            .strip_prefix(root.as_bytes())
            .ok_or_else(|| corrupt("lies outside the root"))?;
        let scope = L::Scope::unpack(&mut key)?;
        if String::unpack(&mut key)? != self.name {
            return Err(corrupt("has another name"));
        }
        K::Value::unpack(&mut key)?;
        let (stream, position) = if K::UNIQUE {
            unpack_all::<()>(key)?;
            unpack_all::<(L::Stream, Position)>(&entry.value)?
        } else {
            (unpack_all(&entry.value)?, unpack_all(key)?)
        };
        Ok(logged_key::<L>(root, scope, &stream, position))
    }
}

impl<L, K: LogKind> Clone for LogIndex<L, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, K: LogKind> Copy for LogIndex<L, K> {}

impl<L, K: LogKind> fmt::Debug for LogIndex<L, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogIndex({})", self.name)
    }
}

/// Declares what the records of a log can be found by, as [`indexes!`](crate::indexes) does for an
/// entity. The kinds are [`Unique`] and [`Multi`].
#[macro_export]
macro_rules! log_indexes {
    ($log:ty => $(
        $(#[doc = $doc:literal])*
        $index:ident ($name:literal $(, $element:ident)+): $kind:ty = $value:expr;
    )*) => {
        impl $log {$(
            $(#[doc = $doc])*
            pub const $index: $crate::entity::LogIndex<Self, $kind> =
                <$crate::entity::LogIndex<Self, $kind>>::new(
                    $name,
                    &[$(stringify!($element)),+],
                    $value,
                )
                .described(concat!($($doc),*));
        )*}

        impl $crate::entity::LogIndexed for $log {
            const INDEXES: &'static [&'static dyn $crate::entity::LogIndexOf<Self>] =
                &[$(&Self::$index),*];
            const NAMES: &'static [&'static str] = &[$($name),*];
        }

        const _: () = $crate::entity::check_log::<$log>();
    };
}

/// What the compiler is asked of every declaration, by [`log_indexes!`](crate::log_indexes).
///
/// # Panics
///
/// If the declaration is not sound; in a `const`, that is an error of the compiler.
pub const fn check_log<L: Log>() {
    assert!(L::VERSION > 0, "a log's VERSION counts from 1");
    assert!(
        L::SPACE.labels().len() == L::Stream::ELEMENTS,
        "a log's space is keyed by as many labels as its streams have elements"
    );
    let mut names = L::NAMES;
    while let Some((name, others)) = names.split_first() {
        assert!(distinct(name, others), "two indexes have the same name");
        assert!(distinct(name, &[L::SPACE.name()]), "an index has the name of the space");
        names = others;
    }
}

/// The key of the record at `position` of `stream` in `scope`.
pub(crate) fn logged_key<L: Log>(
    root: &Root,
    scope: L::Scope,
    stream: &L::Stream,
    position: Position,
) -> Vec<u8> {
    let mut key = L::SPACE.key(root, scope, stream);
    position.pack(&mut key);
    key
}

/// Encodes `record`, and decodes what was encoded. The key is that of its stream.
///
/// # Errors
///
/// `Invalid` if the bytes do not decode to a record of the same stream; `Limit` if the key or the
/// record is too long.
pub(crate) fn encode_logged_at<L: Log>(root: &Root, record: &L) -> Result<Encoded<L>> {
    let space = L::SPACE.name();
    let key_of = |record: &L| L::SPACE.key(root, record.scope(), &record.stream());
    let (key, bytes) = (key_of(record), encode_logged(record)?);
    require_lengths(space, key.len() + POSITION_BYTES, bytes.len())?;
    let record: L =
        decode_logged(&bytes).map_err(|cause| codec::unwritable::<L>(space).with_source(cause))?;
    if key_of(&record) != key {
        let cause = "what was decoded is of another stream";
        return Err(codec::unwritable::<L>(space).with_source(cause));
    }
    Ok(Encoded { key, bytes, record })
}

/// The record under `key`, whose bytes are `bytes`, and its position.
///
/// # Errors
///
/// As those of the codec; `Corrupt` if the record is another stream's.
pub(crate) fn decode_logged_at<L: Log>(
    root: &Root,
    key: &[u8],
    bytes: &[u8],
) -> Result<(Position, L)> {
    let record: L = decode_logged(bytes)?;
    let stream = L::SPACE.key(root, record.scope(), &record.stream());
    let position = key.strip_prefix(stream.as_slice()).map(unpack_all).transpose()?;
    let position = position.ok_or_else(|| {
        let message = format!("a record of {} lies in another's stream", L::SPACE.name());
        Error::new(ErrorKind::Corrupt, message)
    })?;
    Ok((position, record))
}

/// The entries of all indexes of the record in a row.
pub(super) fn entries<L: Log>(root: &Root, row: &KeyValue) -> Result<Vec<Entry>> {
    let (position, record): (Position, L) = decode_logged_at(root, &row.key, &row.value)?;
    let entries = L::INDEXES.iter().filter_map(|index| {
        let mut entry = index.entry(root, &record)?;
        let end = if index.is_unique() { &mut entry.value } else { &mut entry.key };
        position.pack(end);
        Some(entry)
    });
    Ok(entries.collect())
}

/// The key of the record that an entry of the index of this name is of; `None` if the log has none
/// of this name.
pub(super) fn pointed_to<L: Log>(
    root: &Root,
    index: &str,
    entry: &KeyValue,
) -> Option<Result<Vec<u8>>> {
    let found = L::INDEXES.iter().find(|of| of.name() == index);
    found.map(|index| index.record_key(root, entry))
}

/// The names of a log and of its indexes, and what they are.
pub(super) fn declared<L: Log>() -> Vec<Declared> {
    let space = L::SPACE.name();
    let place = L::Scope::PLACE;
    let elements = typed::<L::Stream>(L::SPACE.labels());
    let records = Declared { name: space, what: "log", form: None, place, elements, space };
    let index = |index: &&'static dyn LogIndexOf<L>| Declared {
        name: index.name(),
        what: if index.is_unique() { "log unique" } else { "log multi" },
        form: None,
        place,
        elements: index.elements(),
        space,
    };
    [records].into_iter().chain(L::INDEXES.iter().map(index)).collect()
}

/// How the keys of a log and of its indexes look.
pub(super) fn shapes<L: Log>(value: String) -> Vec<Shape> {
    let record = Shape {
        place: L::Scope::PLACE,
        name: L::SPACE.name(),
        elements: [L::SPACE.labels(), &[POSITION]].concat(),
        value,
        note: "appended, in the order of commits".to_owned(),
    };
    [record].into_iter().chain(L::INDEXES.iter().map(|index| index.shape())).collect()
}
