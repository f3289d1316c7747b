//! The kinds of index: who may have the same value, and whether each tenant has its own.

use std::marker::PhantomData;

use crate::keyspace::{Global, KeyPart, Scope};

/// A kind of index over values `Value`.
///
/// Its entries lie within one part of the record's scope, and tell the rest of it: those of an
/// index within a tenant lie in the tenant, and tell nothing more; those of one over all tenants
/// lie in none, and tell which tenant the record is of.
pub trait Kind: sealed::Sealed + Send + Sync + 'static {
    /// What is indexed: one element, or a tuple for a composite.
    type Value: KeyPart;

    /// What the closure gives: the values that a record is found by.
    type Values: IntoIterator<Item = Self::Value>;

    /// Whether each value is of one record at the most.
    const UNIQUE: bool;

    /// The scope that entries lie in.
    type Scope<S: Scope>: Scope;

    /// What entries tell of the record's scope.
    type Rest<S: Scope>: Scope;

    /// A record's scope as the two parts.
    fn split<S: Scope>(scope: S) -> (Self::Scope<S>, Self::Rest<S>);

    /// The record's scope from the two parts.
    fn join<S: Scope>(scope: Self::Scope<S>, rest: Self::Rest<S>) -> S;
}

/// A kind whose values are each of one record at the most.
pub trait UniqueKind: Kind {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $unique:literal, $place:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $kind<V>(PhantomData<fn() -> V>);

        impl<V> sealed::Sealed for $kind<V> {}

        impl<V: KeyPart> Kind for $kind<V> {
            type Value = V;
            type Values = Option<V>;
            const UNIQUE: bool = $unique;
            kinds!(@ $place);
        }
    )*};
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
}

kinds! {
    /// Each value is of one record at the most, in each scope: `(T, name, value)` → key.
    Unique: true, own;
    /// A value may be of many records: `(T, name, value, key)`.
    Multi: false, own;
    /// Each value is of one record at the most, over all tenants: `(name, value)` → (T, key).
    GlobalUnique: true, global;
    /// A value may be of many records, of all tenants: `(name, value, T, key)`.
    GlobalMulti: false, global;
}

impl<V: KeyPart> UniqueKind for Unique<V> {}
impl<V: KeyPart> UniqueKind for GlobalUnique<V> {}
