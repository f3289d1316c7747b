//! A transaction scoped to one tenant.
//!
//! # Invariants
//!
//! - It reads and writes keys under the tenant's prefix, and the entries of its records in global
//!   indexes. Writing a unique value to one reveals whether another tenant has it.
//! - It rejects records of another tenant.

use std::borrow::Borrow;

use super::{AppendHandle, Event, Revision, Scan, Transaction, Versioned};
use crate::{
    Error, ErrorKind, Result,
    engine::Watch,
    entity::{
        CountIndexType, CoveredBy, CoveringIndexType, Entity, EventStream, Index, IndexType,
        ListIndexType, Mutable, StreamIndex, StreamIndexType, Unique, UniqueIndexType,
    },
    keyspace::{AsKey, KeyPart, KeyQuery, Position, TenantId},
};

/// A transaction scoped to one tenant, so that no call names the scope. Created by
/// [`Transaction::tenant`]; a handle to that transaction, which its creator commits. It does not
/// expose the underlying transaction.
///
/// Its methods are errors of [`Transaction`] without the scope, with the same errors; methods that
/// take a record also fail with `Invalid` if it belongs to another tenant. Global indexes are
/// maintained, but cannot be read:
///
/// ```compile_fail
/// # use coditect_store::{Result, Store, model::{TenantId, User}};
/// # async fn example(store: Store, tenant: TenantId) -> Result<()> {
/// let tx = store.begin().tenant(tenant);
/// tx.find(&User::BY_EMAIL, "somebody@example.org".to_owned()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TenantTransaction {
    pub(crate) tx: Transaction,
    pub(crate) tenant: TenantId,
}

impl Transaction {
    /// Returns this transaction, scoped to `tenant`.
    pub fn tenant(&self, tenant: TenantId) -> TenantTransaction {
        TenantTransaction { tx: self.clone(), tenant }
    }
}

impl TenantTransaction {
    /// Returns the tenant.
    pub fn id(&self) -> TenantId {
        self.tenant
    }

    /// As [`Transaction::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get<E>(&self, key: impl AsKey<E::Key>) -> Result<Option<E>>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.get(self.tenant, key).await
    }

    /// As [`Transaction::get_versioned`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get_versioned<E>(&self, key: impl AsKey<E::Key>) -> Result<Option<Versioned<E>>>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.get_versioned(self.tenant, key).await
    }

    /// As [`Transaction::watch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn watch<E>(&self, key: impl AsKey<E::Key>) -> Result<Watch>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.watch::<E>(self.tenant, key).await
    }

    /// As [`Transaction::insert`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn insert<E: Entity<Scope = TenantId>>(&self, record: &E) -> Result<()> {
        self.require(record.scope())?;
        self.tx.insert(record).await
    }

    /// As [`Transaction::update`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn update<E: Entity<Scope = TenantId>>(&self, record: &E) -> Result<()> {
        self.require(record.scope())?;
        self.tx.update(record).await
    }

    /// As [`Transaction::upsert`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn upsert<E: Entity<Scope = TenantId>>(&self, record: &E) -> Result<()> {
        self.require(record.scope())?;
        self.tx.upsert(record).await
    }

    /// As [`Transaction::update_at`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn update_at<E>(&self, record: &E, revision: Revision) -> Result<()>
    where
        E: Entity<Scope = TenantId>,
    {
        self.require(record.scope())?;
        self.tx.update_at(record, revision).await
    }

    /// As [`Transaction::modify`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if `change` moves the record to another tenant.
    pub async fn modify<E>(&self, key: impl AsKey<E::Key>, change: impl FnOnce(&mut E)) -> Result<E>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.modify(self.tenant, key, change).await
    }

    /// As [`Transaction::delete`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn delete<E>(&self, key: impl AsKey<E::Key>) -> Result<Option<E>>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.delete(self.tenant, key).await
    }

    /// As [`Transaction::delete_at`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn delete_at<E>(&self, key: impl AsKey<E::Key>, revision: Revision) -> Result<E>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.delete_at(self.tenant, key, revision).await
    }

    /// As [`Transaction::find`], for an index within the tenant.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn find<E, K>(
        &self,
        index: &Index<E, K>,
        value: impl AsKey<K::Value>,
    ) -> Result<Option<E>>
    where
        E: Entity<Scope = TenantId>,
        K: UniqueIndexType + IndexType<Scope<TenantId> = TenantId>,
    {
        self.tx.find(index, self.tenant, value).await
    }

    /// As [`Transaction::scan`], for an index within the tenant.
    pub fn scan<'a, E, K>(
        &self,
        index: &'static Index<E, K>,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, E>
    where
        E: Entity<Scope = TenantId>,
        K: ListIndexType + IndexType<Scope<TenantId> = TenantId>,
    {
        self.tx.scan(index, self.tenant, values)
    }

    /// As [`Transaction::scan_index_only`], for an index within the tenant.
    pub fn scan_index_only<'a, E, K>(
        &self,
        index: &'static Index<E, K>,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, CoveredBy<E, K>>
    where
        E: Entity<Scope = TenantId>,
        K: CoveringIndexType + IndexType<Scope<TenantId> = TenantId>,
    {
        self.tx.scan_index_only(index, self.tenant, values)
    }

    /// As [`Transaction::count`], for an index within the tenant.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn count<E, K>(&self, index: &Index<E, K>, value: impl AsKey<K::Value>) -> Result<i64>
    where
        E: Entity<Scope = TenantId>,
        K: CountIndexType + IndexType<Scope<TenantId> = TenantId>,
    {
        self.tx.count(index, self.tenant, value).await
    }

    /// As [`Transaction::scan_counts`], for an index within the tenant.
    pub fn scan_counts<'a, E, K>(
        &self,
        index: &'static Index<E, K>,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, (K::Value, i64)>
    where
        E: Entity<Scope = TenantId>,
        K: CountIndexType + IndexType<Scope<TenantId> = TenantId>,
    {
        self.tx.scan_counts(index, self.tenant, values)
    }

    /// As [`Transaction::list`].
    pub fn list<'a, E: Entity<Scope = TenantId>>(&self) -> Scan<'a, E> {
        self.tx.list(self.tenant)
    }

    /// As [`Transaction::list_keys`].
    pub fn list_keys<'a, E: Entity<Scope = TenantId>>(
        &self,
        keys: impl KeyQuery<E::Key>,
    ) -> Scan<'a, E> {
        self.tx.list_keys(self.tenant, keys)
    }

    /// As [`Transaction::append`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn append<L: EventStream<Scope = TenantId>>(
        &self,
        record: &L,
    ) -> Result<AppendHandle> {
        self.require(record.scope())?;
        self.tx.append(record).await
    }

    /// As [`Transaction::get_event`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get_event<L: EventStream<Scope = TenantId>>(
        &self,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        self.tx.get_event(self.tenant, stream, position).await
    }

    /// As [`Transaction::find_event`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn find_event<L: EventStream<Scope = TenantId>, V: KeyPart>(
        &self,
        index: &StreamIndex<L, Unique<V>>,
        value: impl Borrow<V>,
    ) -> Result<Option<Event<L>>> {
        self.tx.find_event(index, self.tenant, value).await
    }

    /// As [`Transaction::events`].
    pub fn events<'a, L: EventStream<Scope = TenantId>>(
        &self,
        stream: impl Borrow<L::Stream>,
        positions: impl KeyQuery<Position>,
    ) -> Scan<'a, Event<L>> {
        self.tx.events(self.tenant, stream, positions)
    }

    /// As [`Transaction::scan_events`].
    pub fn scan_events<'a, L: EventStream<Scope = TenantId>, K: StreamIndexType>(
        &self,
        index: &'static StreamIndex<L, K>,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, Event<L>> {
        self.tx.scan_events(index, self.tenant, values)
    }

    /// As [`Transaction::update_event`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn update_event<L>(&self, position: Position, record: &L) -> Result<()>
    where
        L: Mutable<Scope = TenantId>,
    {
        self.require(record.scope())?;
        self.tx.update_event(position, record).await
    }

    /// As [`Transaction::remove_event`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn remove_event<L: Mutable<Scope = TenantId>>(
        &self,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        self.tx.remove_event(self.tenant, stream, position).await
    }

    /// Fails with `Invalid` if the record belongs to another tenant.
    fn require(&self, scope: TenantId) -> Result<()> {
        if scope == self.tenant {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, "the record belongs to another tenant"))
    }
}
