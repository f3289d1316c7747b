//! What a record is: its type, where it lies, what it can be found by, and how its bytes are read.
//!
//! All of it is declared in one place, beside the type, by an `impl` of [`Entity`] and a list of
//! [`indexes!`](crate::indexes). Types of another crate are declared with the same lines:
//!
//! ```
//! use coditect_store::{
//!     Entity, indexes,
//!     entity::{Multi, Unique},
//!     keyspace::Space,
//!     model::{TenantId, UserId},
//! };
//! use serde::{Deserialize, Serialize};
//!
//! /// An invoice, as a service of its own would keep it.
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
//!     const SPACE: Space<TenantId> = Space::tenant("invoices").keyed(&["number"]);
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
//!     /// No two invoices of a tenant bear the same reference.
//!     BY_REFERENCE ("invoices_by_reference", reference): Unique<String> = |i| Some(i.reference.clone());
//!     /// Paid ones only.
//!     BY_PAYER ("invoices_by_payer", user): Multi<UserId> = |i| i.paid_by;
//! }
//! ```
//!
//! What stays true:
//!
//! - A record's key and its index entries follow from the record alone.
//! - Two kinds of record never share a key: names that are used twice are refused, within one
//!   entity by the compiler, over several by the [`Registry`] when the store is opened.
//! - Whatever bytes are found, reading them gives a record or an error, never a panic, and takes
//!   memory in proportion to what is read.
//!
//! An entity without its list does not compile, so that none is forgotten; an empty list is
//! `indexes! { Invoice => }`.
//!
//! ```compile_fail
//! # use coditect_store::{Entity, keyspace::Space, model::TenantId};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! struct Invoice(TenantId, u64);
//!
//! impl Entity for Invoice {
//!     type Scope = TenantId;
//!     type Key = u64;
//!     const SPACE: Space<TenantId> = Space::tenant("invoices");
//!     const VERSION: u8 = 1;
//!     fn scope(&self) -> TenantId { self.0 }
//!     fn key(&self) -> u64 { self.1 }
//! }
//! ```

mod codec;
mod expiry;
mod index;
mod kind;
pub mod log;
mod registry;
mod show;
mod strict;

use serde::{Serialize, de::DeserializeOwned};

pub use codec::Older;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use codec::decode;
pub(crate) use codec::{decode_logged, encode, encode_logged};
pub use expiry::{Expiring, expiry_hour, hours_over};
pub use index::{Covered, CoveredBy, Entry, Index, IndexOf};
pub use kind::{
    Carried, Count, CountKind, Covering, CoveringKind, Each, Form, GlobalCount, GlobalCovering,
    GlobalEach, GlobalMulti, GlobalUnique, Kind, ListKind, Multi, Unique, UniqueKind,
};
pub use log::{Amendable, Log, LogIndex, LogIndexOf, LogIndexed, LogKind, Trimmed, check_log};
pub(crate) use log::{POSITION_BYTES, decode_logged_at, encode_logged_at, logged_key};
pub use registry::Registry;
pub(crate) use registry::{Declaration, Declared, META};

use crate::{
    Blob, Error, ErrorKind, Result,
    engine::limits,
    keyspace::{KeyPart, Root, Scope, Space, distinct},
};

/// A kind of record: see the [module](self) for how one is declared.
pub trait Entity: Indexed + Serialize + DeserializeOwned + Send + Sync {
    /// [`TenantId`](crate::model::TenantId) for what is a tenant's,
    /// [`Global`](crate::keyspace::Global) for what is no tenant's.
    type Scope: Scope;

    /// What tells one record from another within its scope; `()` if there is but one.
    type Key: KeyPart;

    /// Where its records lie. Persisted.
    const SPACE: Space<Self::Scope>;

    /// The version of its bytes, from 1 on, written with each record. It grows by one whenever the
    /// struct changes in a way that changes its bytes: any field more, less, or in another place.
    const VERSION: u8;

    /// The fields that are shown to nobody, as [`Serialize`] names them: hashes of passwords, say. Who
    /// [inspects](crate::Store::inspect) the store sees that they are there, and no more.
    const SECRETS: &'static [&'static str] = &[];

    /// Returns the [blobs](crate::Blob) that a record holds, if it can hold some. A transaction that
    /// writes the record [attaches](crate::Transaction::attach) new ones itself; one that deletes it,
    /// or writes it without them, detaches them by this.
    const BLOBS: Option<fn(&Self) -> Vec<Blob>> = None;

    /// Whose this record is. It never changes.
    fn scope(&self) -> Self::Scope;

    /// Its key. It never changes.
    fn key(&self) -> Self::Key;

    /// Makes one of what an older version of the program wrote. Needed from `VERSION` 2 on; the
    /// struct of each older version is kept, and a plain function leads from each to the next:
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
    ///         _ => Err(older.unknown()),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// The record is written in the present version at its next update. What it is found by must
    /// come out the same from the upgraded record as from the older one: an index over new fields
    /// is a new index.
    ///
    /// # Errors
    ///
    /// `Corrupt`, as [`Older`] gives it.
    fn upgrade(older: Older<'_>) -> Result<Self> {
        Err(older.unknown())
    }
}

/// The list of an entity's indexes, which [`indexes!`](crate::indexes) writes.
pub trait Indexed: Sized + 'static {
    /// All of them, in the order of their declaration.
    const INDEXES: &'static [&'static dyn IndexOf<Self>];

    /// Their names, in the same order.
    const NAMES: &'static [&'static str];
}

/// Declares what an entity can be found by. The constants become associated ones of the type, for
/// [`find`](crate::Transaction::find) and [`scan`](crate::Transaction::scan).
///
/// ```text
/// indexes! { Type =>
///     /// What it is for.
///     CONSTANT ("persisted_name", element, …): Kind<Value> = |record| Some(…);
/// }
/// ```
///
/// The parentheses show the key: the name, then what the elements of the value are called in
/// [the table](crate::keyspace::table). The kinds:
///
/// | within a tenant | over all tenants | a record gives | |
/// |---|---|---|---|
/// | [`Unique<V>`] | [`GlobalUnique<V>`] | `Option<V>` | each value is of one record at the most |
/// | [`Multi<V>`] | [`GlobalMulti<V>`] | `Option<V>` | a value may be of many records |
/// | [`Each<V>`] | [`GlobalEach<V>`] | `Vec<V>` | a record has several values: tags |
/// | [`Covering<V, C>`] | [`GlobalCovering<V, C>`] | `Option<(V, C)>` | entries carry fields, to be read without the records |
/// | [`Count<V>`] | [`GlobalCount<V>`] | `Option<V>` | how many records have a value |
///
/// A composite is a tuple, `Multi<(ProjectId, i64)>`. A record for which the closure gives `None` is
/// not in the index. The closure is a function of the record alone, and like name, kind and elements
/// it is persisted: give other values, and it is another index, with another name. Of these a store
/// keeps all but the closure, and refuses a change when it is opened.
///
/// A name that is used twice, or elements that are not as many as the value has, do not compile:
///
/// ```compile_fail
/// # use coditect_store::{Entity, entity::Multi, indexes, keyspace::Space, model::TenantId};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Invoice(TenantId, u64);
/// # impl Entity for Invoice {
/// #     type Scope = TenantId;
/// #     type Key = u64;
/// #     const SPACE: Space<TenantId> = Space::tenant("invoices");
/// #     const VERSION: u8 = 1;
/// #     fn scope(&self) -> TenantId { self.0 }
/// #     fn key(&self) -> u64 { self.1 }
/// # }
/// indexes! { Invoice =>
///     /// By the last digit.
///     BY_DIGIT ("invoices_by_digit", digit): Multi<u64> = |i| Some(i.1 % 10);
///     /// By the last two.
///     BY_DIGITS ("invoices_by_digit", digits): Multi<u64> = |i| Some(i.1 % 100);
/// }
/// ```
///
/// [`Unique<V>`]: crate::entity::Unique
/// [`GlobalUnique<V>`]: crate::entity::GlobalUnique
/// [`Multi<V>`]: crate::entity::Multi
/// [`GlobalMulti<V>`]: crate::entity::GlobalMulti
/// [`Each<V>`]: crate::entity::Each
/// [`GlobalEach<V>`]: crate::entity::GlobalEach
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
                <$crate::entity::Index<Self, $kind>>::new($name, &[$(stringify!($element)),+], $value)
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

/// What the compiler is asked of every declaration, by [`indexes!`](crate::indexes).
///
/// # Panics
///
/// If the declaration is not sound; in a `const`, that is an error of the compiler.
pub const fn check<E: Entity>() {
    assert!(E::VERSION > 0, "an entity's VERSION counts from 1");
    assert!(
        E::SPACE.labels().len() == E::Key::ELEMENTS,
        "a space is keyed by as many labels as its keys have elements"
    );
    let mut names = E::NAMES;
    while let Some((name, others)) = names.split_first() {
        assert!(distinct(name, others), "two indexes have the same name");
        assert!(distinct(name, &[E::SPACE.name()]), "an index has the name of the space");
        names = others;
    }
}

/// The key of the record `key` in `scope`.
pub(crate) fn record_key<E: Entity>(root: &Root, scope: E::Scope, key: &E::Key) -> Vec<u8> {
    E::SPACE.key(root, scope, key)
}

/// A record as it is written: `T` is the record that the bytes decode to.
pub(crate) struct Encoded<T> {
    pub(crate) key: Vec<u8>,
    pub(crate) bytes: Vec<u8>,
    /// What a reader gets: entries are made from this one, so that whoever deletes the record later
    /// finds the same.
    pub(crate) record: T,
}

/// Encodes `record`, and decodes what was encoded.
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

/// Refuses a record whose key or value is longer than an engine takes.
fn require_lengths(space: &str, key: usize, value: usize) -> Result<()> {
    limits::require_key(key, || format!("the key of a record of {space}"))?;
    limits::require_value(value, || format!("a record of {space}"))
}

/// Refuses an entry whose key or value is longer than an engine takes. `more` is how much the key
/// grows when it is written.
pub(crate) fn require_entry_lengths(entry: &Entry, space: &str, more: usize) -> Result<()> {
    let Entry { index, key, value, .. } = entry;
    limits::require_key(key.len() + more, || {
        format!("the key in index {index} of a record of {space}")
    })?;
    limits::require_value(value.len(), || {
        format!("the value in index {index} of a record of {space}")
    })
}

/// The elements of a key of the type `P`, called `labels`, as a store's schema keeps them.
fn typed<P: KeyPart>(labels: &[&str]) -> String {
    let types = P::element_types();
    let elements: Vec<String> =
        labels.iter().zip(&types).map(|(label, kind)| format!("{label}:{kind}")).collect();
    elements.join(",")
}

/// The name of a type without its module's.
fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    if name.starts_with(['(', '[', '&']) {
        return name;
    }
    // The path of a generic type is that in front of its parameters.
    let front = name.split('<').next().unwrap_or(name);
    name.get(front.rfind("::").map_or(0, |at| at + 2)..).unwrap_or(name)
}

/// The record under `key`, whose bytes are `bytes`.
///
/// # Errors
///
/// As those of the codec; `Corrupt` if the record is another's.
pub(crate) fn decode_at<E: Entity>(root: &Root, key: &[u8], bytes: &[u8]) -> Result<E> {
    let record: E = codec::decode(bytes)?;
    if record_key::<E>(root, record.scope(), &record.key()) != key {
        let message = format!("a record of {} lies under another's key", E::SPACE.name());
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(record)
}
