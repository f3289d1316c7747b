//! A transaction that is one tenant's: it can make no key of another.
//!
//! What stays true, of all that is done through it:
//!
//! - It reads and writes keys under the tenant's prefix, and the entries of its own records in
//!   indexes over all tenants. To take a value there, it also learns whether somebody has it.
//! - A record that says it is another tenant's is refused.

use std::borrow::Borrow;

use super::{Appended, LogScan, Logged, Revision, Scan, Stored, Transaction};
use crate::{
    Error, ErrorKind, Result,
    engine::Watch,
    entity::{
        Amendable, CountKind, CoveredBy, CoveringKind, Entity, Index, Kind, ListKind, Log,
        LogIndex, LogKind, Unique, UniqueKind,
    },
    keyspace::{KeyPart, Position, Select},
    model::TenantId,
};

/// A transaction in which everything is one tenant's, so that no call says whose, and none can say
/// another's. Made by [`Transaction::tenant`]; it is a handle on that transaction, which whoever
/// made it commits. It gives no way back to it.
///
/// Its calls are those of [`Transaction`] without their scope, and fail as they do; those that take
/// a record are `Invalid` besides if it is another tenant's. Indexes over all tenants are kept, but
/// cannot be asked:
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
    pub(super) tx: Transaction,
    pub(super) tenant: TenantId,
}

impl Transaction {
    /// This transaction, for what is `tenant`'s only.
    pub fn tenant(&self, tenant: TenantId) -> TenantTransaction {
        TenantTransaction { tx: self.clone(), tenant }
    }
}

impl TenantTransaction {
    /// Whose it is.
    pub fn id(&self) -> TenantId {
        self.tenant
    }

    /// As [`Transaction::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get<E>(&self, key: impl Borrow<E::Key>) -> Result<Option<E>>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.get(self.tenant, key).await
    }

    /// As [`Transaction::get_stored`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn get_stored<E>(&self, key: impl Borrow<E::Key>) -> Result<Option<Stored<E>>>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.get_stored(self.tenant, key).await
    }

    /// As [`Transaction::watch`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn watch<E>(&self, key: impl Borrow<E::Key>) -> Result<Watch>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.watch::<E>(self.tenant, key).await
    }

    /// As [`Transaction::create`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn create<E: Entity<Scope = TenantId>>(&self, record: &E) -> Result<()> {
        self.require(record.scope())?;
        self.tx.create(record).await
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
    /// As there; `Invalid` if `change` gave the record to another tenant.
    pub async fn modify<E>(
        &self,
        key: impl Borrow<E::Key>,
        change: impl FnOnce(&mut E),
    ) -> Result<E>
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
    pub async fn delete<E>(&self, key: impl Borrow<E::Key>) -> Result<Option<E>>
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
    pub async fn delete_at<E>(&self, key: impl Borrow<E::Key>, revision: Revision) -> Result<E>
    where
        E: Entity<Scope = TenantId>,
    {
        self.tx.delete_at(self.tenant, key, revision).await
    }

    /// As [`Transaction::find`], in an index within the tenant.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn find<E, K>(
        &self,
        index: &Index<E, K>,
        value: impl Borrow<K::Value>,
    ) -> Result<Option<E>>
    where
        E: Entity<Scope = TenantId>,
        K: UniqueKind + Kind<Scope<TenantId> = TenantId>,
    {
        self.tx.find(index, self.tenant, value).await
    }

    /// As [`Transaction::scan`], in an index within the tenant.
    pub fn scan<'a, E, K>(
        &self,
        index: &'static Index<E, K>,
        values: impl Select<K::Value>,
    ) -> Scan<'a, E>
    where
        E: Entity<Scope = TenantId>,
        K: ListKind + Kind<Scope<TenantId> = TenantId>,
    {
        self.tx.scan(index, self.tenant, values)
    }

    /// As [`Transaction::covered`], in an index within the tenant.
    pub fn covered<'a, E, K>(
        &self,
        index: &'static Index<E, K>,
        values: impl Select<K::Value>,
    ) -> Scan<'a, CoveredBy<E, K>>
    where
        E: Entity<Scope = TenantId>,
        K: CoveringKind + Kind<Scope<TenantId> = TenantId>,
    {
        self.tx.covered(index, self.tenant, values)
    }

    /// As [`Transaction::count`], in an index within the tenant.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn count<E, K>(
        &self,
        index: &Index<E, K>,
        value: impl Borrow<K::Value>,
    ) -> Result<i64>
    where
        E: Entity<Scope = TenantId>,
        K: CountKind + Kind<Scope<TenantId> = TenantId>,
    {
        self.tx.count(index, self.tenant, value).await
    }

    /// As [`Transaction::counts`], in an index within the tenant.
    pub fn counts<'a, E, K>(
        &self,
        index: &'static Index<E, K>,
        values: impl Select<K::Value>,
    ) -> Scan<'a, (K::Value, i64)>
    where
        E: Entity<Scope = TenantId>,
        K: CountKind + Kind<Scope<TenantId> = TenantId>,
    {
        self.tx.counts(index, self.tenant, values)
    }

    /// As [`Transaction::list`].
    pub fn list<'a, E: Entity<Scope = TenantId>>(&self) -> Scan<'a, E> {
        self.tx.list(self.tenant)
    }

    /// As [`Transaction::list_keys`].
    pub fn list_keys<'a, E: Entity<Scope = TenantId>>(
        &self,
        keys: impl Select<E::Key>,
    ) -> Scan<'a, E> {
        self.tx.list_keys(self.tenant, keys)
    }

    /// As [`Transaction::append`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn append<L: Log<Scope = TenantId>>(&self, record: &L) -> Result<Appended> {
        self.require(record.scope())?;
        self.tx.append(record).await
    }

    /// As [`Transaction::logged`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn logged<L: Log<Scope = TenantId>>(
        &self,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        self.tx.logged(self.tenant, stream, position).await
    }

    /// As [`Transaction::find_logged`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn find_logged<L: Log<Scope = TenantId>, V: KeyPart>(
        &self,
        index: &LogIndex<L, Unique<V>>,
        value: impl Borrow<V>,
    ) -> Result<Option<Logged<L>>> {
        self.tx.find_logged(index, self.tenant, value).await
    }

    /// As [`Transaction::log`].
    pub fn log<'a, L: Log<Scope = TenantId>>(
        &self,
        stream: impl Borrow<L::Stream>,
        positions: impl Select<Position>,
    ) -> LogScan<'a, L> {
        self.tx.log(self.tenant, stream, positions)
    }

    /// As [`Transaction::scan_log`].
    pub fn scan_log<'a, L: Log<Scope = TenantId>, K: LogKind>(
        &self,
        index: &'static LogIndex<L, K>,
        values: impl Select<K::Value>,
    ) -> LogScan<'a, L> {
        self.tx.scan_log(index, self.tenant, values)
    }

    /// As [`Transaction::amend`].
    ///
    /// # Errors
    ///
    /// As there; `Invalid` if the record is another tenant's.
    pub async fn amend<L>(&self, position: Position, record: &L) -> Result<()>
    where
        L: Amendable<Scope = TenantId>,
    {
        self.require(record.scope())?;
        self.tx.amend(position, record).await
    }

    /// As [`Transaction::take_out`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn take_out<L: Amendable<Scope = TenantId>>(
        &self,
        stream: impl Borrow<L::Stream>,
        position: Position,
    ) -> Result<Option<L>> {
        self.tx.take_out(self.tenant, stream, position).await
    }

    /// Refuses what is another tenant's.
    fn require(&self, scope: TenantId) -> Result<()> {
        if scope == self.tenant {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, "the record is another tenant's"))
    }
}
