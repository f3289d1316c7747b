//! Event streams: records that are appended, in commit order.
//!
//! The commit completes the key of an event with its versionstamp, so concurrent appends to one
//! stream do not conflict. Index entries have the same stamp:
//!
//! ```text
//! event    root ‖ scope ‖ (subspace, stream, position)     → event
//! multi    root ‖ scope ‖ (name, value, position)          → stream
//! unique   root ‖ scope ‖ (name, value)                    → stream ‖ position
//! ```
//!
//! Like an [`Entity`](super::Entity), a stream is declared in any crate by an `impl` and a list of
//! indexes:
//!
//! ```
//! use coditect_store::{
//!     entity::{EventStream, Multi}, keyspace::Subspace, stream_indexes,
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
//! impl EventStream for InvoiceEvent {
//!     type Scope = TenantId;
//!     type Stream = u64;
//!     const SPACE: Subspace<TenantId> = Subspace::tenant("invoice_events").keyed(&["invoice"]);
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
//! stream_indexes! { InvoiceEvent =>
//!     /// Events of a user, in commit order.
//!     BY_USER ("invoice_events_by_user", user): Multi<UserId> = |event| Some(event.by);
//! }
//! ```

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Encoded, Entry, IndexKind, Multi, Older, SchemaEntry, Unique, codec, decode_event,
    encode_event, require_lengths, typed,
};
use crate::{
    Error, ErrorKind, Result,
    engine::KeyValue,
    keyspace::{
        KeyLayout, KeyPart, Position, Root, Scope, Subspace, distinct, is_name, unpack_all,
    },
};

/// Length of a position in a key, in bytes.
pub(crate) const POSITION_BYTES: usize = 13;

/// Label of the position in [the keyspace table](crate::keyspace::table).
const POSITION: &str = "versionstamp";

/// A type of event, which is appended to streams: see the [module](self).
pub trait EventStream: StreamIndexed + Serialize + DeserializeOwned + Send + Sync {
    /// [`TenantId`](crate::keyspace::TenantId) for streams of a tenant,
    /// [`Global`](crate::keyspace::Global) for others.
    type Scope: Scope;

    /// Identifies a stream within its scope; `()` if there is one only.
    type Stream: KeyPart;

    /// Subspace of the events, with a label for each element of the stream. Persisted.
    const SPACE: Subspace<Self::Scope>;

    /// Version of the encoding: see [`Entity::VERSION`](super::Entity::VERSION).
    const VERSION: u8;

    /// Names of secret fields: see [`Entity::SECRETS`](super::Entity::SECRETS).
    const SECRETS: &'static [&'static str] = &[];

    /// Returns the scope of this event, which never changes.
    fn scope(&self) -> Self::Scope;

    /// Returns the stream of this event, which never changes.
    fn stream(&self) -> Self::Stream;

    /// Upgrades an event of an older version: see [`Entity::upgrade`](super::Entity::upgrade).
    ///
    /// # Errors
    ///
    /// `Corrupt`, from [`Older`].
    fn upgrade(older: Older<'_>) -> Result<Self> {
        Err(older.unknown_version())
    }
}

/// A stream whose events can be replaced and removed. Other streams are append-only, which the
/// compiler checks.
pub trait Mutable: EventStream {}

/// A stream whose oldest events are removed after their retention.
pub trait Trimmed: EventStream {}

/// The indexes of a stream, implemented by [`stream_indexes!`](crate::stream_indexes).
pub trait StreamIndexed: Sized + 'static {
    /// All indexes, in the order of declaration.
    const INDEXES: &'static [&'static dyn StreamIndexOf<Self>];

    /// Their names, in the same order.
    const NAMES: &'static [&'static str];
}

/// A type of index for streams: [`Multi`] or [`Unique`], within the scope.
pub trait StreamIndexType: sealed::Sealed + Send + Sync + 'static {
    /// The indexed value: one element, or a tuple for a composite.
    type Value: KeyPart;

    /// Whether at most one event has each value.
    const UNIQUE: bool;
}

impl<V: KeyPart> StreamIndexType for Multi<V> {
    type Value = V;
    const UNIQUE: bool = false;
}

impl<V: KeyPart> StreamIndexType for Unique<V> {
    type Value = V;
    const UNIQUE: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl<V> Sealed for super::Multi<V> {}
    impl<V> Sealed for super::Unique<V> {}
    impl<L, K: super::StreamIndexType> Sealed for super::StreamIndex<L, K> {}
}

/// An index of type `K` over the stream `L`. Declared by
/// [`stream_indexes!`](crate::stream_indexes).
pub struct StreamIndex<L, K: StreamIndexType> {
    name: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
    value: fn(&L) -> Option<K::Value>,
}

/// An index over the stream `L`, of any type.
pub trait StreamIndexOf<L>: sealed::Sealed + Send + Sync {
    /// Returns the name. Persisted.
    fn name(&self) -> &'static str;

    /// Returns whether at most one event has each value.
    fn is_unique(&self) -> bool;

    /// Returns the elements of the indexed values, each as `label:type`, as the catalog stores
    /// them.
    fn elements(&self) -> String;

    /// Returns the layout of the keys.
    fn layout(&self) -> KeyLayout;

    /// Returns the entry of `record`, if it has one, without its position, which is appended to the
    /// value of a unique entry and to the key of any other.
    fn entry(&self, root: &Root, record: &L) -> Option<Entry>;

    /// Returns the key of the event that `entry` points to.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not an entry of this index.
    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>>;
}

impl<L, K: StreamIndexType> StreamIndex<L, K> {
    /// Creates the index `name` over the value that `value` returns for an event. `labels` names
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
        value: fn(&L) -> Option<K::Value>,
    ) -> Self {
        assert!(is_name(name), "an index's name is lower-case letters, digits and `_`");
        assert!(
            labels.len() == K::Value::ELEMENTS,
            "an index has as many labels as its value has elements"
        );
        Self { name, labels, description: "", value }
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

impl<L: EventStream, K: StreamIndexType> StreamIndex<L, K> {
    /// Returns the prefix of all entries in `scope`.
    pub(crate) fn prefix(&self, root: &Root, scope: L::Scope) -> Vec<u8> {
        root.named(&scope, self.name)
    }
}

impl<L: EventStream, K: StreamIndexType> StreamIndexOf<L> for StreamIndex<L, K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is_unique(&self) -> bool {
        K::UNIQUE
    }

    fn elements(&self) -> String {
        typed::<K::Value>(self.labels)
    }

    fn layout(&self) -> KeyLayout {
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
        KeyLayout { scope_kind: L::Scope::KIND, name: self.name, elements, value, note }
    }

    fn entry(&self, root: &Root, record: &L) -> Option<Entry> {
        let mut key = self.prefix(root, record.scope());
        (self.value)(record)?.pack(&mut key);
        let mut value = Vec::new();
        record.stream().pack(&mut value);
        let kind = if K::UNIQUE { IndexKind::Unique } else { IndexKind::Multi };
        Some(Entry { index: self.name, key, value, kind })
    }

    fn record_key(&self, root: &Root, entry: &KeyValue) -> Result<Vec<u8>> {
        let corrupt = |why: &str| {
            let message = format!("an entry of index {} {why}", self.name);
            Error::new(ErrorKind::Corrupt, message)
        };
        let mut key = entry
            .key
            .strip_prefix(root.as_bytes())
            .ok_or_else(|| corrupt("is outside of the root"))?;
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
        Ok(event_key::<L>(root, scope, &stream, position))
    }
}

impl<L, K: StreamIndexType> Clone for StreamIndex<L, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L, K: StreamIndexType> Copy for StreamIndex<L, K> {}

impl<L, K: StreamIndexType> fmt::Debug for StreamIndex<L, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamIndex({})", self.name)
    }
}

/// Declares the indexes of an event stream, as [`indexes!`](crate::indexes) does for an entity. The
/// types are [`Unique`] and [`Multi`].
#[macro_export]
macro_rules! stream_indexes {
    ($log:ty => $(
        $(#[doc = $doc:literal])*
        $index:ident ($name:literal $(, $element:ident)+): $kind:ty = $value:expr;
    )*) => {
        impl $log {$(
            $(#[doc = $doc])*
            pub const $index: $crate::entity::StreamIndex<Self, $kind> =
                <$crate::entity::StreamIndex<Self, $kind>>::new(
                    $name,
                    &[$(stringify!($element)),+],
                    $value,
                )
                .described(concat!($($doc),*));
        )*}

        impl $crate::entity::StreamIndexed for $log {
            const INDEXES: &'static [&'static dyn $crate::entity::StreamIndexOf<Self>] =
                &[$(&Self::$index),*];
            const NAMES: &'static [&'static str] = &[$($name),*];
        }

        const _: () = $crate::entity::check_stream::<$log>();
    };
}

/// Checks a declaration at compile time, for [`stream_indexes!`](crate::stream_indexes).
///
/// # Panics
///
/// If the declaration is invalid. In a `const` this is a compile error.
pub const fn check_stream<L: EventStream>() {
    assert!(L::VERSION > 0, "an event stream's VERSION starts at 1");
    assert!(
        L::SPACE.labels().len() == L::Stream::ELEMENTS,
        "a stream's subspace has as many labels as its stream key has elements"
    );
    let mut names = L::NAMES;
    while let Some((name, others)) = names.split_first() {
        assert!(distinct(name, others), "two indexes have the same name");
        assert!(distinct(name, &[L::SPACE.name()]), "an index has the name of its subspace");
        names = others;
    }
}

/// Returns the key of the event at `position` of `stream` in `scope`.
pub(crate) fn event_key<L: EventStream>(
    root: &Root,
    scope: L::Scope,
    stream: &L::Stream,
    position: Position,
) -> Vec<u8> {
    let mut key = L::SPACE.key(root, scope, stream);
    position.pack(&mut key);
    key
}

/// Encodes `record`, and decodes the bytes. The returned key is that of its stream, without
/// position.
///
/// # Errors
///
/// `Invalid` if the bytes do not decode to an event of the same stream; `Limit` if the key or the
/// event is too long.
pub(crate) fn encode_event_at<L: EventStream>(root: &Root, record: &L) -> Result<Encoded<L>> {
    let space = L::SPACE.name();
    let key_of = |record: &L| L::SPACE.key(root, record.scope(), &record.stream());
    let (key, bytes) = (key_of(record), encode_event(record)?);
    require_lengths(space, key.len() + POSITION_BYTES, bytes.len())?;
    let record: L =
        decode_event(&bytes).map_err(|cause| codec::unwritable::<L>(space).with_source(cause))?;
    if key_of(&record) != key {
        let cause = "the decoded event belongs to another stream";
        return Err(codec::unwritable::<L>(space).with_source(cause));
    }
    Ok(Encoded { key, bytes, record })
}

/// Decodes the event under `key`, and returns it with its position.
///
/// # Errors
///
/// Errors of the codec; `Corrupt` if the event belongs to another stream.
pub(crate) fn decode_event_at<L: EventStream>(
    root: &Root,
    key: &[u8],
    bytes: &[u8],
) -> Result<(Position, L)> {
    let record: L = decode_event(bytes)?;
    let stream = L::SPACE.key(root, record.scope(), &record.stream());
    let position = key.strip_prefix(stream.as_slice()).map(unpack_all).transpose()?;
    let position = position.ok_or_else(|| {
        let message = format!("an event of {} is stored in another stream", L::SPACE.name());
        Error::new(ErrorKind::Corrupt, message)
    })?;
    Ok((position, record))
}

/// Returns the entries of the event in a row, in all indexes.
pub(super) fn entries<L: EventStream>(root: &Root, row: &KeyValue) -> Result<Vec<Entry>> {
    let (position, record): (Position, L) = decode_event_at(root, &row.key, &row.value)?;
    let entries = L::INDEXES.iter().filter_map(|index| {
        let mut entry = index.entry(root, &record)?;
        let end = if index.is_unique() { &mut entry.value } else { &mut entry.key };
        position.pack(end);
        Some(entry)
    });
    Ok(entries.collect())
}

/// Returns the key of the event that an entry of the index `index` points to; `None` if the stream
/// has no such index.
pub(super) fn pointed_to<L: EventStream>(
    root: &Root,
    index: &str,
    entry: &KeyValue,
) -> Option<Result<Vec<u8>>> {
    let found = L::INDEXES.iter().find(|of| of.name() == index);
    found.map(|index| index.record_key(root, entry))
}

/// Returns the catalog entries of a stream and its indexes.
pub(super) fn declared<L: EventStream>() -> Vec<SchemaEntry> {
    let space = L::SPACE.name();
    let scope_kind = L::Scope::KIND;
    let elements = typed::<L::Stream>(L::SPACE.labels());
    let records =
        SchemaEntry { name: space, kind_name: "stream", kind: None, scope_kind, elements, space };
    let index = |index: &&'static dyn StreamIndexOf<L>| SchemaEntry {
        name: index.name(),
        kind_name: if index.is_unique() { "stream unique" } else { "stream multi" },
        kind: None,
        scope_kind,
        elements: index.elements(),
        space,
    };
    [records].into_iter().chain(L::INDEXES.iter().map(index)).collect()
}

/// Returns the layouts of the keys of a stream and its indexes.
pub(super) fn layouts<L: EventStream>(value: String) -> Vec<KeyLayout> {
    let record = KeyLayout {
        scope_kind: L::Scope::KIND,
        name: L::SPACE.name(),
        elements: [L::SPACE.labels(), &[POSITION]].concat(),
        value,
        note: "appended, in commit order".to_owned(),
    };
    [record].into_iter().chain(L::INDEXES.iter().map(|index| index.layout())).collect()
}
