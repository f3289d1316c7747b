//! Index types: entry layout, uniqueness, and scope.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use crate::keyspace::{Global, KeyPart, Scope};

/// A type of index over values of type `Value`.
///
/// Entries belong to a part of the record's scope and contain the rest: an index within a tenant
/// has its entries in the tenant; a global index has them outside of tenants, with the record's
/// tenant in each entry.
pub trait IndexType: sealed::Sealed + Send + Sync + 'static {
    /// The indexed value: one element, or a tuple for a composite.
    type Value: KeyPart;

    /// Fields in each entry beside the record's key; `()` except for covering indexes.
    type Included: Included;

    /// Return type of the index's closure.
    type Extracted;

    /// The kind.
    const KIND: IndexKind;

    /// The scope that entries belong to.
    type Scope<S: Scope>: Scope;

    /// The part of the record's scope that entries contain.
    type Rest<S: Scope>: Scope;

    /// Returns the indexed values of a record, each with the included fields.
    fn values(extracted: Self::Extracted) -> impl Iterator<Item = (Self::Value, Self::Included)>;

    /// Splits a record's scope into the two parts.
    fn split<S: Scope>(scope: S) -> (Self::Scope<S>, Self::Rest<S>);

    /// Joins the two parts to the record's scope.
    fn join<S: Scope>(scope: Self::Scope<S>, rest: Self::Rest<S>) -> S;
}

/// The layout of an index's entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IndexKind {
    /// One entry for each value, which points to its record.
    Unique,
    /// One entry for each value and record.
    Multi,
    /// As [`Multi`](Self::Multi), with fields of the record in each entry.
    Covering,
    /// One number for each value: its count of records.
    Count,
}

impl IndexKind {
    /// Returns the name, as the catalog stores it. Persisted.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Multi => "multi",
            Self::Covering => "covering",
            Self::Count => "count",
        }
    }
}

/// Fields that a covering index can include: any owned, serializable type.
pub trait Included: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<C: Serialize + DeserializeOwned + Send + Sync + 'static> Included for C {}

/// An index type whose entries point to records.
pub trait ListIndexType: IndexType {}

/// An index type in which each value belongs to at most one record.
pub trait UniqueIndexType: ListIndexType {}

/// An index type whose entries include fields of their records.
pub trait CoveringIndexType: ListIndexType {}

/// An index type that counts records.
pub trait CountIndexType: IndexType {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! kinds {
    ($(
        $(#[$doc:meta])*
        $type:ident<V $(, $included:ident)?>: $kind:ident, $extracted:ident, $scope:ident;
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $type<V $(, $included)?>(PhantomData<fn() -> (V, $($included)?)>);

        impl<V $(, $included)?> sealed::Sealed for $type<V $(, $included)?> {}

        impl<V: KeyPart $(, $included: Included)?> IndexType for $type<V $(, $included)?> {
            type Value = V;
            const KIND: IndexKind = IndexKind::$kind;
            kinds!(@ $extracted);
            kinds!(@ $scope);
        }

        kinds!(@ $kind $type<V $(, $included)?>);
    )*};
    (@ one) => {
        type Included = ();
        type Extracted = Option<V>;

        fn values(extracted: Option<V>) -> impl Iterator<Item = (V, ())> {
            extracted.into_iter().map(|value| (value, ()))
        }
    };
    (@ many) => {
        type Included = ();
        type Extracted = Vec<V>;

        fn values(extracted: Vec<V>) -> impl Iterator<Item = (V, ())> {
            extracted.into_iter().map(|value| (value, ()))
        }
    };
    (@ covered) => {
        type Included = C;
        type Extracted = Option<(V, C)>;

        fn values(extracted: Option<(V, C)>) -> impl Iterator<Item = (V, C)> {
            extracted.into_iter()
        }
    };
    (@ own) => {
        type Scope<S: Scope> = S;
        type Rest<S: Scope> = Global;

        fn split<S: Scope>(scope: S) -> (S, Global) {
            (scope, Global)
        }

        fn join<S: Scope>(scope: S, _: Global) -> S {
            scope
        }
    };
    (@ global) => {
        type Scope<S: Scope> = Global;
        type Rest<S: Scope> = S;

        fn split<S: Scope>(scope: S) -> (Global, S) {
            (Global, scope)
        }

        fn join<S: Scope>(_: Global, rest: S) -> S {
            rest
        }
    };
    (@ Unique $type:ident<V>) => {
        impl<V: KeyPart> ListIndexType for $type<V> {}
        impl<V: KeyPart> UniqueIndexType for $type<V> {}
    };
    (@ Multi $type:ident<V>) => {
        impl<V: KeyPart> ListIndexType for $type<V> {}
    };
    (@ Covering $type:ident<V, C>) => {
        impl<V: KeyPart, C: Included> ListIndexType for $type<V, C> {}
        impl<V: KeyPart, C: Included> CoveringIndexType for $type<V, C> {}
    };
    (@ Count $type:ident<V>) => {
        impl<V: KeyPart> CountIndexType for $type<V> {}
    };
}

kinds! {
    /// At most one record has each value, per scope: `(T, name, value)` → key.
    Unique<V>: Unique, one, own;
    /// Any number of records have a value: `(T, name, value, key)`.
    Multi<V>: Multi, one, own;
    /// A record has several values: `(T, name, value, key)`. The closure returns a `Vec`;
    /// duplicates are ignored.
    FanOut<V>: Multi, many, own;
    /// As [`Multi`], with fields `C` of the record in each entry: `(T, name, value, key)` → C. The
    /// closure returns `Some((value, fields))`. `C` is persisted: other fields need a new index.
    Covering<V, C>: Covering, covered, own;
    /// The number of records with a value: `(T, name, value)` → i64.
    Count<V>: Count, one, own;
    /// At most one record of all tenants has each value: `(name, value)` → (T, key).
    GlobalUnique<V>: Unique, one, global;
    /// Any number of records of all tenants have a value: `(name, value, T, key)`.
    GlobalMulti<V>: Multi, one, global;
    /// As [`FanOut`], over all tenants: `(name, value, T, key)`.
    GlobalFanOut<V>: Multi, many, global;
    /// As [`Covering`], over all tenants: `(name, value, T, key)` → C.
    GlobalCovering<V, C>: Covering, covered, global;
    /// The number of records of all tenants with a value: `(name, value)` → i64.
    GlobalCount<V>: Count, one, global;
}
