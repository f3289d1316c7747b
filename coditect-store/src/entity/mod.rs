//! Entities: the type of a record, its key, its indexes, and its encoding.
//!
//! An entity is declared beside its type, in any crate. `#[derive(Entity)]` declares it by
//! attributes:
//!
//! ```
//! use coditect_store::{
//!     Entity,
//!     model::{TenantId, UserId},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// An invoice of a billing service.
//! #[derive(Serialize, Deserialize, Entity)]
//! #[entity(subspace = "invoices", version = 1)]
//! struct Invoice {
//!     #[entity(scope)]
//!     tenant: TenantId,
//!     #[entity(key)]
//!     number: u64,
//!     #[index(unique, name = "invoices_by_reference")]
//!     reference: String,
//!     /// Paid invoices have entries, others have none.
//!     #[index(multi, name = "invoices_by_payer")]
//!     paid_by: Option<UserId>,
//! }
//!
//! assert_eq!(Invoice::BY_PAID_BY.name(), "invoices_by_payer");
//! ```
//!
//! The names of subspaces and indexes are persisted, so they are written out. Labels, the types of
//! the key and of indexed values, and the version are persisted, too: see [`Schema`].
//!
//! | attribute | of | |
//! |---|---|---|
//! | `#[entity(subspace = "…")]` | the struct | name of the [subspace](Entity::SPACE) |
//! | `#[entity(version = 1)]` | the struct | [version](Entity::VERSION) of the encoding |
//! | `#[entity(upgrade = function)]` | the struct | [`Entity::upgrade`], from version 2 on |
//! | `#[entity(global)]` | the struct | the records belong to no tenant |
//! | `#[entity(crate = path)]` | the struct | path of this crate, if it is renamed |
//! | `#[entity(scope)]` | a field | the tenant |
//! | `#[entity(key)]`, `#[entity(key = "label")]` | fields | the key; of several fields, a composite in their order |
//! | `#[entity(secret)]` | a field | one of the [`SECRETS`](Entity::SECRETS) |
//! | `#[entity(blob)]` | a field of type `Blob`, `Option<Blob>` or `Vec<Blob>` | one of the [`BLOBS`](Entity::BLOBS) |
//! | `#[index(…)]` | a field | an index over the field |
//! | `#[index(…, constant = NAME, on(a, b))]` | the struct | an index over several fields |
//! | `#[index(…, constant = NAME, label = "…", value = function, type = V)]` | the struct | an index over values that a function of the record returns |
//!
//! An index has a type, `unique`, `multi`, `fan_out`, `count` or `covering(field, …)`; a persisted
//! `name = "…"`; `global` if it is over all tenants; and optionally `label = "…"`, by default the
//! name of the field. Its constant is `BY_` and the name of the field, or `constant = NAME`. A
//! record whose indexed field is `None` has no entry. `fan_out` is over the values of a collection.
//! `value` is a function as the closure in [`indexes!`](crate::indexes).
//!
//! The derive expands to the explicit form, an `impl` of [`Entity`] and a list of
//! [`indexes!`](crate::indexes):
//!
//! ```
//! use coditect_store::{
//!     Entity, indexes,
//!     entity::{Multi, Unique},
//!     keyspace::Subspace,
//!     model::{TenantId, UserId},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// An invoice of a billing service.
//! #[derive(Serialize, Deserialize)]
//! struct Invoice {
//!     tenant: TenantId,
//!     number: u64,
//!     reference: String,
//!     paid_by: Option<UserId>,
//! }
//!
//! impl Entity for Invoice {
//!     type Scope = TenantId;
//!     type Key = u64;
//!     const SPACE: Subspace<TenantId> = Subspace::tenant("invoices").keyed(&["number"]);
//!     const VERSION: u8 = 1;
//!
//!     fn scope(&self) -> TenantId {
//!         self.tenant
//!     }
//!
//!     fn key(&self) -> u64 {
//!         self.number
//!     }
//! }
//!
//! indexes! { Invoice =>
//!     /// References are unique within a tenant.
//!     BY_REFERENCE ("invoices_by_reference", reference): Unique<String> =
//!         |invoice| Some(invoice.reference.clone());
//!     /// Paid invoices, by payer.
//!     BY_PAYER ("invoices_by_payer", user): Multi<UserId> = |invoice| invoice.paid_by;
//! }
//! ```
//!
//! # Invariants
//!
//! - The key and the index entries of a record are functions of the record alone.
//! - Two entities never share a key: duplicate names are rejected, within one entity by the
//!   compiler, across entities by the [`Schema`] when the store is opened.
//! - Decoding any bytes returns a record or an error, never panics, and allocates memory in
//!   proportion to the input.
//!
//! An entity without indexes declares an empty list, `indexes! { Invoice => }`. Without any list it
//! does not compile:
//!
//! ```compile_fail
//! # use coditect_store::{Entity, keyspace::Subspace, model::TenantId};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! struct Invoice(TenantId, u64);
//!
//! impl Entity for Invoice {
//!     type Scope = TenantId;
//!     type Key = u64;
//!     const SPACE: Subspace<TenantId> = Subspace::tenant("invoices");
//!     const VERSION: u8 = 1;
//!     fn scope(&self) -> TenantId { self.0 }
//!     fn key(&self) -> u64 { self.1 }
//! }
//! ```

mod blob;
mod builtin;
mod codec;
mod expiry;
mod index;
mod index_type;
mod schema;
mod show;
pub mod stream;
mod strict;

use serde::{Serialize, de::DeserializeOwned};

pub use blob::{Blob, BlobId, CHUNK_BYTES};
pub(crate) use builtin::{CHUNKS, COUNTERS, META, PLAIN, SESSION_COUNTERS};
pub use codec::Older;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use codec::decode;
pub(crate) use codec::{decode_event, encode, encode_event};
pub use expiry::{Expiring, expiry_hour, hours_over};
pub use index::{Covered, CoveredBy, Entry, Index, IndexOf};
pub use index_type::{
    Count, CountIndexType, Covering, CoveringIndexType, FanOut, GlobalCount, GlobalCovering,
    GlobalFanOut, GlobalMulti, GlobalUnique, Included, IndexKind, IndexType, ListIndexType, Multi,
    Unique, UniqueIndexType,
};
pub use schema::Schema;
pub(crate) use schema::{EntitySchema, SchemaEntry};
pub use stream::{
    EventStream, Mutable, StreamIndex, StreamIndexOf, StreamIndexType, StreamIndexed, Trimmed,
    check_stream,
};
pub(crate) use stream::{POSITION_BYTES, decode_event_at, encode_event_at, event_key};

use crate::{
    Error, ErrorKind, Result,
    engine::limits,
    keyspace::{AsKey, KeyPart, Root, Scope, Subspace, distinct},
};

/// A type of record: see the [module](self).
pub trait Entity: Indexed + Serialize + DeserializeOwned + Send + Sync {
    /// [`TenantId`](crate::keyspace::TenantId) for records of a tenant,
    /// [`Global`](crate::keyspace::Global) for others.
    type Scope: Scope;

    /// Identifies a record within its scope; `()` if there is one only.
    type Key: KeyPart;

    /// Subspace of the records. Persisted.
    const SPACE: Subspace<Self::Scope>;

    /// Version of the encoding, from 1, stored with each record. Increment it when the struct
    /// changes in a way that changes its bytes: a field added, removed or moved.
    const VERSION: u8;

    /// Names of secret fields, as [`Serialize`] names them, such as password hashes.
    /// [Inspection](crate::Store::inspect) shows that they are present, but not their values.
    const SECRETS: &'static [&'static str] = &[];

    /// Returns the [blobs](crate::Blob) of a record, if the entity has any. A transaction that
    /// writes a record [attaches](crate::Transaction::attach) new blobs itself; one that deletes
    /// the record, or writes it without a blob, detaches the blob by this function.
    const BLOBS: Option<fn(&Self) -> Vec<Blob>> = None;

    /// Returns the scope of this record, which never changes.
    fn scope(&self) -> Self::Scope;

    /// Returns the key of this record, which never changes.
    fn key(&self) -> Self::Key;

    /// Upgrades a record of an older version. Needed from `VERSION` 2 on. Keep the struct of each
    /// older version, with a function from each to the next:
    ///
    /// ```
    /// # use coditect_store::{Result, entity::Older};
    /// # use serde::Deserialize;
    /// # #[derive(Deserialize)] struct TaskV1 { title: String }
    /// # #[derive(Deserialize)] struct TaskV2 { title: String, done: bool }
    /// # struct Task { title: String, done: bool, tags: Vec<String> }
    /// fn second(old: TaskV1) -> TaskV2 {
    ///     TaskV2 { title: old.title, done: false }
    /// }
    ///
    /// fn third(old: TaskV2) -> Task {
    ///     Task { title: old.title, done: old.done, tags: Vec::new() }
    /// }
    ///
    /// # impl Task {
    /// fn upgrade(older: Older<'_>) -> Result<Task> {
    ///     match older.version() {
    ///         1 => older.read().map(second).map(third),
    ///         2 => older.read().map(third),
    ///         _ => Err(older.unknown_version()),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// The record is stored in the current version at its next update. The indexed values must be
    /// the same for the upgraded record as for the older one: an index over new fields needs a new
    /// name.
    ///
    /// # Errors
    ///
    /// `Corrupt`, from [`Older`].
    fn upgrade(older: Older<'_>) -> Result<Self> {
        Err(older.unknown_version())
    }
}

/// The indexes of an entity, implemented by [`indexes!`](crate::indexes).
pub trait Indexed: Sized + 'static {
    /// All indexes, in the order of declaration.
    const INDEXES: &'static [&'static dyn IndexOf<Self>];

    /// Their names, in the same order.
    const NAMES: &'static [&'static str];
}

/// Declares the indexes of an entity. The constants become associated constants of the type, for
/// [`find`](crate::Transaction::find) and [`scan`](crate::Transaction::scan).
///
/// ```text
/// indexes! { Type =>
///     /// Description.
///     CONSTANT ("persisted_name", element, …): Type<Value> = |record| Some(…);
/// }
/// ```
///
/// The parentheses contain the key: the name, then a label for each element of the value, shown in
/// [the keyspace table](crate::keyspace::table). The types:
///
/// | within a tenant | over all tenants | closure returns | |
/// |---|---|---|---|
/// | [`Unique<V>`] | [`GlobalUnique<V>`] | `Option<V>` | at most one record has each value |
/// | [`Multi<V>`] | [`GlobalMulti<V>`] | `Option<V>` | any number of records have a value |
/// | [`FanOut<V>`] | [`GlobalFanOut<V>`] | `Vec<V>` | a record has several values, such as tags |
/// | [`Covering<V, C>`] | [`GlobalCovering<V, C>`] | `Option<(V, C)>` | entries include fields of the record |
/// | [`Count<V>`] | [`GlobalCount<V>`] | `Option<V>` | the number of records with a value |
///
/// A composite is a tuple, `Multi<(ProjectId, i64)>`. A record for which the closure returns `None`
/// has no entry. The closure is a function of the record alone. Name, type, elements and closure
/// are persisted: an index over other values needs a new name. The store's catalog has all of them
/// except the closure, and a store is not opened with a changed declaration.
///
/// Duplicate names, and a number of elements that differs from the value's, do not compile:
///
/// ```compile_fail
/// # use coditect_store::{Entity, entity::Multi, indexes, keyspace::Subspace, model::TenantId};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Invoice(TenantId, u64);
/// # impl Entity for Invoice {
/// #     type Scope = TenantId;
/// #     type Key = u64;
/// #     const SPACE: Subspace<TenantId> = Subspace::tenant("invoices");
/// #     const VERSION: u8 = 1;
/// #     fn scope(&self) -> TenantId { self.0 }
/// #     fn key(&self) -> u64 { self.1 }
/// # }
/// indexes! { Invoice =>
///     /// By the last digit.
///     BY_DIGIT ("invoices_by_digit", digit): Multi<u64> = |i| Some(i.1 % 10);
///     /// By the last two digits.
///     BY_DIGITS ("invoices_by_digit", digits): Multi<u64> = |i| Some(i.1 % 100);
/// }
/// ```
///
/// [`Unique<V>`]: crate::entity::Unique
/// [`GlobalUnique<V>`]: crate::entity::GlobalUnique
/// [`Multi<V>`]: crate::entity::Multi
/// [`GlobalMulti<V>`]: crate::entity::GlobalMulti
/// [`FanOut<V>`]: crate::entity::FanOut
/// [`GlobalFanOut<V>`]: crate::entity::GlobalFanOut
/// [`Covering<V, C>`]: crate::entity::Covering
/// [`GlobalCovering<V, C>`]: crate::entity::GlobalCovering
/// [`Count<V>`]: crate::entity::Count
/// [`GlobalCount<V>`]: crate::entity::GlobalCount
#[macro_export]
macro_rules! indexes {
    ($entity:ty => $(
        $(#[doc = $doc:literal])*
        $index:ident ($name:literal $(, $element:ident)+): $kind:ty = $value:expr;
    )*) => {
        impl $entity {$(
            $(#[doc = $doc])*
            pub const $index: $crate::entity::Index<Self, $kind> =
                <$crate::entity::Index<Self, $kind>>::new(
                    $name,
                    &[$(stringify!($element)),+],
                    $value,
                )
                .described(concat!($($doc),*));
        )*}

        impl $crate::entity::Indexed for $entity {
            const INDEXES: &'static [&'static dyn $crate::entity::IndexOf<Self>] =
                &[$(&Self::$index),*];
            const NAMES: &'static [&'static str] = &[$($name),*];
        }

        const _: () = $crate::entity::check::<$entity>();
    };
}

/// Checks a declaration at compile time, for [`indexes!`](crate::indexes).
///
/// # Panics
///
/// If the declaration is invalid. In a `const` this is a compile error.
pub const fn check<E: Entity>() {
    assert!(E::VERSION > 0, "an entity's VERSION starts at 1");
    assert!(
        E::SPACE.labels().len() == E::Key::ELEMENTS,
        "a subspace has as many labels as its keys have elements"
    );
    let mut names = E::NAMES;
    while let Some((name, others)) = names.split_first() {
        assert!(distinct(name, others), "two indexes have the same name");
        assert!(distinct(name, &[E::SPACE.name()]), "an index has the name of its subspace");
        names = others;
    }
}

/// Returns the key of the record `key` in `scope`.
pub(crate) fn record_key<E: Entity>(
    root: &Root,
    scope: E::Scope,
    key: &impl AsKey<E::Key>,
) -> Vec<u8> {
    let mut bytes = E::SPACE.prefix(root, scope);
    key.pack_as(&mut bytes);
    bytes
}

/// An encoded record.
pub(crate) struct Encoded<T> {
    pub(crate) key: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
    /// The record that the bytes decode to. Index entries are made from it, so that they match
    /// the entries that a later delete computes.
    pub(crate) record: T,
}

/// Encodes `record`, and decodes the bytes.
///
/// # Errors
///
/// `Invalid` if the bytes do not decode to a record with the same key; `Limit` if the key or the
/// record is too long.
pub(crate) fn encode_at<E: Entity>(root: &Root, record: &E) -> Result<Encoded<E>> {
    let key = record_key::<E>(root, record.scope(), &record.key());
    let bytes = encode(record)?;
    require_lengths(E::SPACE.name(), key.len(), bytes.len())?;
    let read = decode_at(root, &key, &bytes);
    let record =
        read.map_err(|cause| codec::unwritable::<E>(E::SPACE.name()).with_source(cause))?;
    Ok(Encoded { key, bytes, record })
}

/// Fails with `Limit` if a record's key or value exceeds the engine's limit.
fn require_lengths(space: &str, key: usize, value: usize) -> Result<()> {
    limits::require_key(key, || format!("the key of a record of {space}"))?;
    limits::require_value(value, || format!("a record of {space}"))
}

/// Fails with `Limit` if an entry's key, with `more` bytes, or its value exceeds the engine's
/// limit.
pub(crate) fn require_entry_lengths(entry: &Entry, space: &str, more: usize) -> Result<()> {
    let Entry { index, key, value, .. } = entry;
    limits::require_key(key.len() + more, || {
        format!("the key in index {index} of a record of {space}")
    })?;
    limits::require_value(value.len(), || {
        format!("the value in index {index} of a record of {space}")
    })
}

/// Returns the elements of a key of type `P` as `label:type`, as the catalog stores them.
fn typed<P: KeyPart>(labels: &[&str]) -> String {
    let types = P::element_types();
    let elements: Vec<String> =
        labels.iter().zip(&types).map(|(label, kind)| format!("{label}:{kind}")).collect();
    elements.join(",")
}

/// Returns the name of a type without its module.
fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    if name.starts_with(['(', '[', '&']) {
        return name;
    }
    // The path of a generic type precedes its parameters.
    let front = name.split('<').next().unwrap_or(name);
    name.get(front.rfind("::").map_or(0, |at| at + 2)..).unwrap_or(name)
}

/// Decodes the record stored under `key`.
///
/// # Errors
///
/// Errors of the codec; `Corrupt` if the record has another key.
pub(crate) fn decode_at<E: Entity>(root: &Root, key: &[u8], bytes: &[u8]) -> Result<E> {
    let record: E = codec::decode(bytes)?;
    if record_key::<E>(root, record.scope(), &record.key()) != key {
        let message = format!("a record of {} is stored under another key", E::SPACE.name());
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(record)
}
