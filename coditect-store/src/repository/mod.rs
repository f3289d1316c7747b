//! Records in a transaction: create, get, update, delete, find, scan.
//!
//! What stays true:
//!
//! - A record and its index entries are written together, from the record as it was and as it is.
//!   Only `maintain.rs` writes index keys, and `log.rs` those of logs.
//! - A value of a unique index is looked at before it is taken, by a read that conflicts: of two
//!   racing writers exactly one gets it.
//! - A record is written by declarations that hold at its commit: `catalog.rs` says how. An index
//!   that came later than records is not read before it is built, by `build.rs`.
//! - A record that does not say the key it was found under is `Corrupt`: no mix-up of tenants in
//!   the store is passed on.
//!
//! Nothing here retries, and nothing here commits: see [`Store::run`](crate::Store::run).

pub mod blob;
mod build;
mod catalog;
mod claims;
mod clear;
mod cursor;
mod deletion;
mod high_water;
mod log;
mod maintain;
pub mod quota;
mod restore;
mod retire;
mod revision;
mod scan;
mod sweep;
mod tenant;
mod verify;
mod walk;

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::AtomicU32},
};

use tokio::sync::OnceCell;

pub(crate) use blob::CHUNKS;
pub(crate) use blob::Readers;
pub use blob::{Blob, BlobReader, BlobUpload, Reservation};
pub use build::{BuildProgress, IndexBuild};
use catalog::Known;
pub(crate) use catalog::{Catalog, index_states, retired_names, retired_with_entries, settle};
use claims::{Claim, Claims};
pub use cursor::Cursor;
pub(crate) use high_water::{raise_to, version_ahead};
pub use log::{Appended, LogScan, Logged};
pub use quota::Counter;
pub(crate) use quota::{COUNTERS, SESSION_COUNTERS};
pub(crate) use restore::{admit, check_meta, refuse_rivals, require_all_built, restore, take_back};
pub use retire::{IndexRemoval, RemovalProgress};
pub use revision::{Revision, Stored};
use scan::Source;
pub use scan::{EXAMINED_LIMIT, PAGE_BYTES, PAGE_LIMIT, Page, Scan, Stopped};
pub use sweep::Swept;
pub use tenant::TenantTransaction;
pub use verify::{Fault, Finding, Report, Verification};

use crate::{
    Clock, Error, ErrorKind, Result, engine,
    engine::{KeyValue, Watch},
    entity::{
        self, CountKind, CoveredBy, CoveringKind, Entity, Index, IndexOf, ListKind, Registry,
        UniqueKind,
    },
    keyspace::{KeyPart, Root, Select},
    model::BlobId,
    telemetry,
};

/// The spaces of each tenant that hold neither records nor their entries, and no declaration names.
pub(crate) const PLAIN: [&str; 3] = [COUNTERS.name(), SESSION_COUNTERS.name(), CHUNKS.name()];

/// One attempt at reading and writing records, all or nothing. A handle that is cheap to clone;
/// all its clones are the same transaction, and its reads may run together. It sees its own
/// writes. Dropping the last one without a [commit](Self::commit) leaves no trace.
///
/// Calls may run together (joined futures): those that write the same record, unique value or
/// counter wait for each other, as if they were made one after another. A future that was polled and
/// is then neither polled on nor dropped keeps such calls waiting.
///
/// The reads that are named at each method are what it costs; those that run together are one round,
/// which on a cluster is one round trip. Beside them the first method that writes a record reads the
/// epoch of the declarations, once in a transaction.
/// [`statistics`](engine::Transaction::statistics) has them counted.
///
/// Beside the errors named at each method, all of them give those of the engine, and `Invalid` for
/// an entity that was not [declared to the store](crate::StoreOptions::entity).
#[derive(Clone, Debug)]
pub struct Transaction {
    engine: engine::Transaction,
    context: Arc<Context>,
    progress: Arc<Progress>,
}

/// What a transaction has come to know, and done, so far.
#[derive(Debug, Default)]
struct Progress {
    known: OnceCell<Arc<Known>>,
    /// How many records of logs it has appended.
    appended: AtomicU32,
    claims: Claims,
    /// The blobs that it has detached, and whether that was asked for: a record that was deleted or
    /// changed detaches what it held.
    detached: Mutex<BTreeMap<BlobId, bool>>,
    /// The blobs of the records that it has written, with the keys of those.
    held: Mutex<BTreeMap<BlobId, Vec<u8>>>,
    /// The keys of the counters that it has changed.
    counted: Mutex<BTreeSet<Vec<u8>>>,
}

/// What all transactions of a store share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) root: Root,
    pub(crate) registry: Registry,
    pub(crate) catalog: Catalog,
    /// The slot that is charged next: they go round, so that those who charge together differ.
    pub(crate) next_slot: AtomicU32,
    /// The blobs that this process reads.
    pub(crate) readers: Arc<Readers>,
    pub(crate) clock: Clock,
}

impl Transaction {
    pub(crate) fn new(engine: engine::Transaction, context: Arc<Context>) -> Self {
        Self { engine, context, progress: Arc::default() }
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
        self.get_stored(scope, key).await.map(|stored| stored.map(Stored::into_record))
    }

    /// The record `key` in `scope`, which must be there. One read. Whoever hangs something on a record
    /// requires it in the same transaction, so that a deletion of it meanwhile is a conflict.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; those of [`get`](Self::get).
    pub async fn require<E: Entity>(&self, scope: E::Scope, key: impl Borrow<E::Key>) -> Result<E> {
        self.get(scope, key).await?.ok_or_else(|| {
            let message = format!("there is no such record of {}", E::SPACE.name());
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// Makes this transaction conflict with every concurrent one that does the same for the record
    /// `key`, and with no other: they commit one after the other, without conflicting with readers
    /// and writers of the record. No read.
    ///
    /// # Errors
    ///
    /// `Limit` if the key is too long.
    pub fn serialize_on<E: Entity>(&self, scope: E::Scope, key: impl Borrow<E::Key>) -> Result<()> {
        // Behind the record's own key, where no row is.
        let mut begin = self.record_key::<E>(scope, key.borrow())?;
        begin.push(0);
        let end = [begin.as_slice(), &[0]].concat();
        self.engine.add_read_conflict_range(&begin, &end)?;
        self.engine.add_write_conflict_range(&begin, &end)
    }

    /// The record `key` in `scope` with its revision, or `None`. One read.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_stored<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl Borrow<E::Key>,
    ) -> Result<Option<Stored<E>>> {
        let key = self.record_key::<E>(scope, key.borrow())?;
        self.read_stored(&key).await
    }

    /// Writes a record that is not there yet, and its index entries. One round of reads: the key,
    /// and each unique value.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if there is a record with its key, `UniqueViolation` with the name of the index if another
    /// record has one of its unique values. Nothing of this call is written then, and the
    /// transaction can go on.
    pub async fn create<E: Entity>(&self, record: &E) -> Result<()> {
        maintain::create(self, record).await
    }

    /// Writes a record over the one with its key, and moves its index entries to where its values
    /// are now. Blobs that it no longer holds are detached, as by [`delete`](Self::delete). Two rounds
    /// of reads: the record, and each unique value that is new; one more if blobs are detached.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no record with its key, `UniqueViolation` with the name of the index if
    /// another record has one of its unique values. Nothing of this call is written then, and the
    /// transaction can go on.
    pub async fn update<E: Entity>(&self, record: &E) -> Result<()> {
        maintain::update(self, record, None).await
    }

    /// Writes a record, over the one with its key if there is one, and moves its index entries to where
    /// its values are now. Two rounds of reads: the record, and each unique value that is new.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` with the name of the index if another record has one of its unique values. Nothing of
    /// this call is written then, and the transaction can go on.
    pub async fn upsert<E: Entity>(&self, record: &E) -> Result<()> {
        maintain::upsert(self, record).await
    }

    /// As [`update`](Self::update), if the record is still what it was at `revision`: for a change
    /// that was decided on outside of this transaction, by a client that had read the record before.
    /// Within one transaction a `get` and an `update` need none of this: if the record changes
    /// between them, the commit is a conflict.
    ///
    /// ```
    /// # use coditect_store::{ErrorKind, Result, Store, engine::Database, model::{Tenant, TenantId}};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// # let store = Store::open(Database::temporary()?).await?;
    /// # let (id, now) = (TenantId::new(), chrono::DateTime::UNIX_EPOCH);
    /// # let tx = store.begin();
    /// # tx.create(&Tenant { id, name: "one".into(), created_at: now, updated_at: now }).await?;
    /// let read = tx.get_stored::<Tenant>(id, ()).await?.expect("it was created");
    /// let etag = read.revision();
    /// let change = Tenant { name: "two".into(), ..read.into_record() };
    ///
    /// tx.update_at(&change, etag).await?;
    /// let again = tx.update_at(&change, etag).await.unwrap_err();
    /// assert_eq!(again.kind(), ErrorKind::RevisionMismatch);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// `RevisionMismatch` if it is not; and those of [`update`](Self::update). Nothing of this call is written
    /// then, and the transaction can go on.
    pub async fn update_at<E: Entity>(&self, record: &E, revision: Revision) -> Result<()> {
        maintain::update(self, record, Some(revision)).await
    }

    /// Changes the record `key` in `scope` as `change` says, writes it with its index entries, and
    /// gives it as it is then. One read, and one of each unique value that is new.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update), and `Invalid` if `change` gave it another key. Nothing of this
    /// call is written then, and the transaction can go on.
    pub async fn modify<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl Borrow<E::Key>,
        change: impl FnOnce(&mut E),
    ) -> Result<E> {
        let key = self.record_key::<E>(scope, key.borrow())?;
        maintain::modify(self, &key, change).await
    }

    /// Removes the record `key` in `scope` and its index entries, and gives it; `None` if there
    /// was none. One read; another for each [blob](Entity::BLOBS) that it holds, all in one round. The
    /// blobs are [detached](Self::detach), but for those that another record takes over, which this
    /// transaction has written before or writes later.
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
        maintain::delete(self, &key, None, Some(self.context.clock.now())).await
    }

    /// Deletes as [`delete`](Self::delete) does, for a caller that detaches the blobs by itself.
    pub(crate) async fn delete_without_blobs<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl Borrow<E::Key>,
    ) -> Result<Option<E>> {
        let key = self.record_key::<E>(scope, key.borrow())?;
        maintain::delete(self, &key, None, None).await
    }

    /// As [`delete`](Self::delete), if the record is still what it was at `revision`.
    ///
    /// # Errors
    ///
    /// `RevisionMismatch` if it is not, `NotFound` if there is none; and those of [`delete`](Self::delete).
    pub async fn delete_at<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl Borrow<E::Key>,
        revision: Revision,
    ) -> Result<E> {
        let key = self.record_key::<E>(scope, key.borrow())?;
        let now = self.context.clock.now();
        let deleted = maintain::delete(self, &key, Some(revision), Some(now)).await?;
        deleted.ok_or_else(maintain::missing::<E>)
    }

    /// The record that has `value` in a unique index, or `None`. Two reads, one after the other.
    /// `scope` is the index's: [`Global`](crate::keyspace::Global) for one over all tenants.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the index has an entry without its record, `IndexBuilding` if it is not built.
    pub async fn find<E: Entity, K: UniqueKind>(
        &self,
        index: &Index<E, K>,
        scope: K::Scope<E::Scope>,
        value: impl Borrow<K::Value>,
    ) -> Result<Option<E>> {
        self.context.registry.require::<E>()?;
        let mut key = index.prefix(self.root(), scope);
        value.borrow().pack(&mut key);
        self.require_readable(index.name()).await?;
        let Some(value) = self.engine.get(&key).await? else {
            return Ok(None);
        };
        let record = index.record_key(self.root(), &KeyValue { key, value })?;
        let record = self.read_indexed(index.name(), record).await?;
        self.decode(&record.key, &record.value).map(Some)
    }

    /// The records that `values` selects in an index, in the order of its keys: by value, then by
    /// tenant in an index over all of them, then by key. `values` is a value, a range of them, `..`,
    /// or the first parts of a composite: see [`Select`].
    ///
    /// Nothing is read until a [page](Scan::page) is asked for.
    pub fn scan<'a, E: Entity, K: ListKind>(
        &self,
        index: &'static Index<E, K>,
        scope: K::Scope<E::Scope>,
        values: impl Select<K::Value>,
    ) -> Scan<'a, E> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        Scan::new(self.clone(), Source::pointers(index), prefix, range)
    }

    /// What a covering index tells of the records that [`scan`](Self::scan) would give, without
    /// reading them: one range read a page.
    ///
    /// Nothing is read until a [page](Scan::page) is asked for.
    pub fn covered<'a, E: Entity, K: CoveringKind>(
        &self,
        index: &'static Index<E, K>,
        scope: K::Scope<E::Scope>,
        values: impl Select<K::Value>,
    ) -> Scan<'a, CoveredBy<E, K>> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        let source = Source::entries(index, |tx, entry| index.covered(tx.root(), entry));
        Scan::new(self.clone(), source, prefix, range)
    }

    /// How many records have `value` in an index that counts. One read, which conflicts with
    /// whoever changes that number.
    ///
    /// # Errors
    ///
    /// `Corrupt` if what is stored is no number, `IndexBuilding` if the index is not built.
    pub async fn count<E: Entity, K: CountKind>(
        &self,
        index: &Index<E, K>,
        scope: K::Scope<E::Scope>,
        value: impl Borrow<K::Value>,
    ) -> Result<i64> {
        self.context.registry.require::<E>()?;
        let mut key = index.prefix(self.root(), scope);
        value.borrow().pack(&mut key);
        self.require_readable(index.name()).await?;
        let sum = self.engine.get(&key).await?;
        sum.map_or(Ok(0), |sum| index.sum(&sum))
    }

    /// The values that `values` selects in an index that counts, in their order, each with how many
    /// records have it; never one that none has.
    ///
    /// Nothing is read until a [page](Scan::page) is asked for.
    pub fn counts<'a, E: Entity, K: CountKind>(
        &self,
        index: &'static Index<E, K>,
        scope: K::Scope<E::Scope>,
        values: impl Select<K::Value>,
    ) -> Scan<'a, (K::Value, i64)> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        let source = Source::entries(index, |tx, entry| index.counted(tx.root(), entry));
        Scan::new(self.clone(), source, prefix, range)
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
        Scan::new(self.clone(), Source::records(), prefix, range)
    }

    /// Waits for the record `key` in `scope` to be written or deleted after this transaction's commit:
    /// see [`engine::Transaction::watch`]. It tells that there is something new, not what: read again.
    ///
    /// # Errors
    ///
    /// `Limit` if too many watches are live.
    pub async fn watch<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl Borrow<E::Key>,
    ) -> Result<Watch> {
        let key = self.record_key::<E>(scope, key.borrow())?;
        self.engine.watch(&key).await
    }

    /// Writes all or nothing: see [`engine::Transaction::commit`]. Inside of
    /// [`Store::run`](crate::Store::run) it is not called: that commits.
    pub async fn commit(&self) -> Result<()> {
        self.engine.commit().await
    }

    /// The same transaction in bytes, for keys that are no records, and for conflict ranges. What is written through it bypasses the indexes.
    pub fn engine(&self) -> &engine::Transaction {
        &self.engine
    }

    /// The prefix of all keys.
    pub fn root(&self) -> &Root {
        &self.context.root
    }

    /// Waits until no other call in this transaction has one of `keys`, and keeps others from them.
    async fn claim(&self, keys: Vec<Vec<u8>>) -> Claim<'_> {
        self.progress.claims.claim(keys).await
    }

    fn record_key<E: Entity>(&self, scope: E::Scope, key: &E::Key) -> Result<Vec<u8>> {
        self.context.registry.require::<E>()?;
        Ok(entity::record_key::<E>(self.root(), scope, key))
    }

    /// Deletes the record of `E` under `key`, if there is one, of a tenant whose blobs go too.
    pub(crate) async fn delete_at_key<E: Entity>(&self, key: &[u8]) -> Result<()> {
        maintain::delete::<E>(self, key, None, None).await.map(|_| ())
    }

    async fn read_stored<E: Entity>(&self, key: &[u8]) -> Result<Option<Stored<E>>> {
        let bytes = self.engine.get(key).await?;
        bytes.map(|bytes| Ok(Stored::new(self.decode(key, &bytes)?, bytes))).transpose()
    }

    /// The row of the record `key`, which an entry of `index` points to.
    async fn read_indexed(&self, index: &str, key: Vec<u8>) -> Result<KeyValue> {
        let value = self.engine.get(&key).await?.ok_or_else(|| {
            let message = format!("index {index} has an entry without its record");
            Error::new(ErrorKind::Corrupt, message)
        })?;
        Ok(KeyValue { key, value })
    }

    fn decode<E: Entity>(&self, key: &[u8], bytes: &[u8]) -> Result<E> {
        telemetry::read(E::SPACE.name(), bytes.len());
        entity::decode_at(self.root(), key, bytes)
    }

    /// Refuses an index that has not all entries yet. No read, if it was readable before.
    async fn require_readable(&self, index: &'static str) -> Result<()> {
        if self.context.catalog.was_readable(index) {
            return Ok(());
        }
        let known = self.known().await?;
        if known.is_readable(index) {
            return Ok(());
        }
        Err(if known.is_retired(index) {
            catalog::retired(index)
        } else {
            catalog::not_built(index)
        })
    }

    /// The declared indexes that are not built yet.
    pub(crate) async fn unbuilt(&self) -> Result<Vec<&'static str>> {
        let known = self.known().await?;
        let declared = self.context.registry.declared().map(|declared| declared.name);
        Ok(declared.filter(|name| !known.is_readable(name)).collect())
    }

    /// The catalog that this transaction writes by.
    async fn known(&self) -> Result<&Known> {
        let context = &self.context;
        let known =
            self.progress.known.get_or_try_init(|| context.catalog.known(&self.engine, context));
        known.await.map(|known| &**known)
    }
}
