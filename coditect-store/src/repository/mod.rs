//! Records in a transaction: create, get, update, delete, find, scan.
//!
//! What stays true:
//!
//! - A record and its index entries are written together, from the record as it was and as it is.
//!   Only `maintain.rs` writes index keys, and `log.rs` those of logs.
//! - A value of a unique index is looked at before it is taken, by a read that conflicts: of two
//!   racing writers exactly one gets it.
//! - A record that does not say the key it was found under is `Corrupt`: no mix-up of tenants in
//!   the store is passed on.
//!
//! Nothing here retries, and nothing here commits: see [`Store::run`](crate::Store::run).

mod cursor;
mod log;
mod maintain;
pub mod quota;
mod scan;
mod tenant;

use std::{
    borrow::Borrow,
    collections::HashSet,
    sync::{Arc, Mutex, atomic::AtomicU32},
};

pub use cursor::Cursor;
pub use log::{Appended, LogScan, Logged};
pub(crate) use quota::COUNTERS;
pub use quota::Counter;
pub use scan::{EXAMINED_LIMIT, PAGE_BYTES, PAGE_LIMIT, Page, Scan, Stopped};
pub use tenant::TenantTransaction;

use crate::{
    Error, ErrorKind, Result, engine,
    engine::KeyValue,
    entity::{self, Entity, Index, IndexOf, Kind, Registry, UniqueKind},
    keyspace::{KeyPart, Root, Select},
};

/// One attempt at reading and writing records, all or nothing. A handle that is cheap to clone;
/// all its clones are the same transaction, and its reads may run together. It sees its own
/// writes. Dropping the last one without a [commit](Self::commit) leaves no trace.
///
/// Calls that write look first and write then, so they are made one after another: two that run
/// together in one transaction don't see each other.
///
/// Beside the errors named at each method, all of them give those of the engine, and `Invalid` for
/// an entity that was not [declared to the store](crate::StoreOptions::entity).
#[derive(Clone, Debug)]
pub struct Transaction {
    engine: engine::Transaction,
    context: Arc<Context>,
    /// How many records of logs it has appended.
    appended: Arc<AtomicU32>,
    /// The keys of the counters that it has changed.
    counted: Arc<Mutex<HashSet<Vec<u8>>>>,
}

/// What all transactions of a store share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) root: Root,
    pub(crate) registry: Registry,
    /// The slot that is charged next: they go round, so that those who charge together differ.
    pub(crate) next_slot: AtomicU32,
}

impl Transaction {
    pub(crate) fn new(engine: engine::Transaction, context: Arc<Context>) -> Self {
        Self { engine, context, appended: Arc::default(), counted: Arc::default() }
    }

    /// The record `key` in `scope`, or `None`. One read.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if there is one that this program cannot read.
    pub async fn get<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl Borrow<E::Key>,
    ) -> Result<Option<E>> {
        let key = self.record_key::<E>(scope, key.borrow())?;
        self.read(&key).await
    }

    /// Writes a record that is not there yet, and its index entries. One round of reads: the key,
    /// and each unique value.
    ///
    /// # Errors
    ///
    /// `Exists` if there is a record with its key, `Unique` with the name of the index if another
    /// record has one of its unique values. Nothing of this call is written then, and the
    /// transaction can go on.
    pub async fn create<E: Entity>(&self, record: &E) -> Result<()> {
        maintain::create(self, record).await
    }

    /// Writes a record over the one with its key, and moves its index entries to where its values
    /// are now. Two rounds of reads: the record, and each unique value that is new.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no record with its key, `Unique` with the name of the index if
    /// another record has one of its unique values. Nothing of this call is written then, and the
    /// transaction can go on.
    pub async fn update<E: Entity>(&self, record: &E) -> Result<()> {
        maintain::update(self, record).await
    }

    /// Removes the record `key` in `scope` and its index entries, and gives it; `None` if there
    /// was none. One read.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if there is one that this program cannot read: its entries
    /// cannot be known.
    pub async fn delete<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl Borrow<E::Key>,
    ) -> Result<Option<E>> {
        let key = self.record_key::<E>(scope, key.borrow())?;
        maintain::delete(self, key).await
    }

    /// The record that has `value` in a unique index, or `None`. Two reads, one after the other.
    /// `scope` is the index's: [`Global`](crate::keyspace::Global) for one over all tenants.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the index has an entry without its record.
    pub async fn find<E: Entity, K: UniqueKind>(
        &self,
        index: &Index<E, K>,
        scope: K::Scope<E::Scope>,
        value: impl Borrow<K::Value>,
    ) -> Result<Option<E>> {
        self.context.registry.require::<E>()?;
        let mut key = index.prefix(self.root(), scope);
        value.borrow().pack(&mut key);
        let Some(value) = self.engine.get(&key).await? else {
            return Ok(None);
        };
        let record = index.record_key(self.root(), &KeyValue { key, value })?;
        let (record, _) = self.read_indexed(index.name(), &record).await?;
        Ok(Some(record))
    }

    /// The records that `values` selects in an index, in the order of its keys: by value, then by
    /// tenant in an index over all of them, then by key. `values` is a value, a range of them, `..`,
    /// or the first parts of a composite: see [`Select`].
    ///
    /// Nothing is read until a [page](Scan::page) is asked for.
    pub fn scan<'a, E: Entity, K: Kind>(
        &self,
        index: &'static Index<E, K>,
        scope: K::Scope<E::Scope>,
        values: impl Select<K::Value>,
    ) -> Scan<'a, E> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        Scan::new(self.clone(), Some(index), prefix, range)
    }

    /// All records in `scope`, in the order of their keys; ids are made so that this is the order
    /// of creation.
    ///
    /// Nothing is read until a [page](Scan::page) is asked for.
    pub fn list<'a, E: Entity>(&self, scope: E::Scope) -> Scan<'a, E> {
        self.list_keys(scope, ..)
    }

    /// The records in `scope` whose keys `keys` selects, in their order: a range of keys, or those
    /// that begin with the first parts of a composite key.
    ///
    /// Nothing is read until a [page](Scan::page) is asked for.
    pub fn list_keys<'a, E: Entity>(
        &self,
        scope: E::Scope,
        keys: impl Select<E::Key>,
    ) -> Scan<'a, E> {
        let prefix = E::SPACE.prefix(self.root(), scope);
        let range = keys.keys(&prefix);
        Scan::new(self.clone(), None, prefix, range)
    }

    /// Writes all or nothing: see [`engine::Transaction::commit`]. Inside of
    /// [`Store::run`](crate::Store::run) it is not called: that commits.
    pub async fn commit(&self) -> Result<()> {
        self.engine.commit().await
    }

    /// The same transaction in bytes, for keys that are no records: counters, chunks, watches,
    /// conflict ranges. What is written through it bypasses the indexes.
    pub fn engine(&self) -> &engine::Transaction {
        &self.engine
    }

    /// The prefix of all keys.
    pub fn root(&self) -> &Root {
        &self.context.root
    }

    fn record_key<E: Entity>(&self, scope: E::Scope, key: &E::Key) -> Result<Vec<u8>> {
        self.context.registry.require::<E>()?;
        Ok(entity::record_key::<E>(self.root(), scope, key))
    }

    async fn read<E: Entity>(&self, key: &[u8]) -> Result<Option<E>> {
        let bytes = self.engine.get(key).await?;
        bytes.map(|bytes| self.decode(key, &bytes)).transpose()
    }

    /// The record that an entry of `index` points to, and how many bytes it is.
    async fn read_indexed<E: Entity>(&self, index: &str, key: &[u8]) -> Result<(E, usize)> {
        let bytes = self.engine.get(key).await?.ok_or_else(|| {
            let message = format!("index {index} has an entry without its record");
            Error::new(ErrorKind::Corrupt, message)
        })?;
        Ok((self.decode(key, &bytes)?, bytes.len()))
    }

    fn decode<E: Entity>(&self, key: &[u8], bytes: &[u8]) -> Result<E> {
        let record: E = entity::decode(bytes)?;
        if entity::record_key::<E>(self.root(), record.scope(), &record.key()) != key {
            let message = format!("a record of {} lies under another's key", E::SPACE.name());
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(record)
    }
}
