//! The kinds of index: what an entry says, who may have the same value, and whether each tenant has
//! its own.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};

use crate::keyspace::{Global, KeyPart, Scope};

/// A kind of index over values `Value`.
///
/// Its entries lie within one part of the record's scope, and tell the rest of it: those of an
/// index within a tenant lie in the tenant, and tell nothing more; those of one over all tenants
/// lie in none, and tell which tenant the record is of.
pub trait Kind: sealed::Sealed + Send + Sync + 'static {
    /// What is indexed: one element, or a tuple for a composite.
    type Value: KeyPart;

    /// What an entry holds of its record beside the key: `()` but for a covering index.
    type Carried: Carried;

    /// What the closure gives for a record.
    type Given;

    /// How its entries look.
    const FORM: Form;

    /// The scope that entries lie in.
    type Scope<S: Scope>: Scope;

    /// What entries tell of the record's scope.
    type Rest<S: Scope>: Scope;

    /// The values that a record is found by, with what each entry carries.
    fn values(given: Self::Given) -> impl Iterator<Item = (Self::Value, Self::Carried)>;

    /// A record's scope as the two parts.
    fn split<S: Scope>(scope: S) -> (Self::Scope<S>, Self::Rest<S>);

    /// The record's scope from the two parts.
    fn join<S: Scope>(scope: Self::Scope<S>, rest: Self::Rest<S>) -> S;
}

/// How the entries of an index look, and what they are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// One entry a value, which points to its record.
    Unique,
    /// One entry for each value and record.
    Multi,
    /// As [`Multi`](Self::Multi), each entry with some fields of its record.
    Covering,
    /// One number a value: how many records have it.
    Count,
}

impl Form {
    /// Its name, as the store's schema keeps it. Persisted.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Multi => "multi",
            Self::Covering => "covering",
            Self::Count => "count",
        }
    }
}

/// What a covering index may carry: any type of data of its own.
pub trait Carried: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<C: Serialize + DeserializeOwned + Send + Sync + 'static> Carried for C {}

/// A kind that leads to records.
pub trait ListKind: Kind {}

/// A kind whose values are each of one record at the most.
pub trait UniqueKind: ListKind {}

/// A kind whose entries carry fields of their records.
pub trait CoveringKind: ListKind {}

/// A kind that counts records.
pub trait CountKind: Kind {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident<V $(, $carried:ident)?>: $form:ident, $given:ident, $place:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $kind<V $(, $carried)?>(PhantomData<fn() -> (V, $($carried)?)>);

        impl<V $(, $carried)?> sealed::Sealed for $kind<V $(, $carried)?> {}

        impl<V: KeyPart $(, $carried: Carried)?> Kind for $kind<V $(, $carried)?> {
            type Value = V;
            const FORM: Form = Form::$form;
            kinds!(@ $given);
            kinds!(@ $place);
        }

        kinds!(@ $form $kind<V $(, $carried)?>);
    )*};
    (@ one) => {
        type Carried = ();
        type Given = Option<V>;

        fn values(given: Option<V>) -> impl Iterator<Item = (V, ())> {
            given.into_iter().map(|value| (value, ()))
        }
    };
    (@ many) => {
        type Carried = ();
        type Given = Vec<V>;

        fn values(given: Vec<V>) -> impl Iterator<Item = (V, ())> {
            given.into_iter().map(|value| (value, ()))
        }
    };
    (@ covered) => {
        type Carried = C;
        type Given = Option<(V, C)>;

        fn values(given: Option<(V, C)>) -> impl Iterator<Item = (V, C)> {
            given.into_iter()
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
    (@ Unique $kind:ident<V>) => {
        impl<V: KeyPart> ListKind for $kind<V> {}
        impl<V: KeyPart> UniqueKind for $kind<V> {}
    };
    (@ Multi $kind:ident<V>) => {
        impl<V: KeyPart> ListKind for $kind<V> {}
    };
    (@ Covering $kind:ident<V, C>) => {
        impl<V: KeyPart, C: Carried> ListKind for $kind<V, C> {}
        impl<V: KeyPart, C: Carried> CoveringKind for $kind<V, C> {}
    };
    (@ Count $kind:ident<V>) => {
        impl<V: KeyPart> CountKind for $kind<V> {}
    };
}

kinds! {
    /// Each value is of one record at the most, in each scope: `(T, name, value)` → key.
    Unique<V>: Unique, one, own;
    /// A value may be of many records: `(T, name, value, key)`.
    Multi<V>: Multi, one, own;
    /// A record has several values, each of which may be of many records: `(T, name, value, key)`.
    /// The closure gives a `Vec`; a value that is in it twice counts once.
    Each<V>: Multi, many, own;
    /// As [`Multi`], and entries carry fields `C` of their records: `(T, name, value, key)` → C.
    /// The closure gives `Some((value, fields))`. Like the value, `C` is persisted: with other
    /// fields it is another index.
    Covering<V, C>: Covering, covered, own;
    /// How many records have a value: `(T, name, value)` → i64.
    Count<V>: Count, one, own;
    /// Each value is of one record at the most, over all tenants: `(name, value)` → (T, key).
    GlobalUnique<V>: Unique, one, global;
    /// A value may be of many records, of all tenants: `(name, value, T, key)`.
    GlobalMulti<V>: Multi, one, global;
    /// As [`Each`], over all tenants: `(name, value, T, key)`.
    GlobalEach<V>: Multi, many, global;
    /// As [`Covering`], over all tenants: `(name, value, T, key)` → C.
    GlobalCovering<V, C>: Covering, covered, global;
    /// How many records of all tenants have a value: `(name, value)` → i64.
    GlobalCount<V>: Count, one, global;
}
