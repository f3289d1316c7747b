//! Records in a transaction: create, get, update, delete, find, scan.
//!
//! # Invariants
//!
//! - A record and its index entries are written together, from its old and new values. Only
//!   `index_maintainer.rs` writes index keys of entities, and `stream.rs` the ones of streams.
//! - A unique value is read, with a conflict, before it is written: of two concurrent writers
//!   exactly one succeeds.
//! - A record is written according to the declarations that hold at its commit: see `catalog.rs`.
//!   An index declared after its records is not read before it is built, by `build.rs`.
//! - A record stored under another record's key is `Corrupt`: tenants cannot be mixed up.
//!
//! Nothing here retries or commits: see [`Store::run`](crate::Store::run).

pub mod blob;
mod build;
mod catalog;
mod claims;
pub(crate) mod clear;
mod cursor;
mod high_water;
mod index_maintainer;
pub(crate) mod purge;
pub mod quota;
mod restore;
mod retire;
mod revision;
mod scan;
mod stream;
mod verify;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::AtomicU32},
};

use tokio::sync::OnceCell;

pub(crate) use blob::Readers;
pub use blob::{Blob, BlobReader, BlobUpload, OrphanBlob, Reservation};
pub use build::{BuildProgress, IndexBuild};
use catalog::CatalogSnapshot;
pub(crate) use catalog::{
    Catalog, RETIRED_KIND, admit as admit_declaration, check_index_state, index_states,
    reconcile_schema, retired_names, retired_with_entries, unpack_meta,
};
use claims::{Claim, Claims};
pub use cursor::Cursor;
pub(crate) use high_water::{
    MAX_IMPORTED_VERSION, check_mark, event_version, raise_to, rebuild as rebuild_high_water,
    version_ahead,
};
pub use quota::Counter;
pub(crate) use restore::{reject_rivals, require_all_built, restore, rollback};
pub use retire::{IndexRemoval, RemovalProgress};
pub use revision::{Revision, Versioned};
use scan::Source;
pub use scan::{MAX_PAGE_BYTES, MAX_PAGE_EXAMINED, MAX_PAGE_RECORDS, Page, Scan, Stopped};
pub use stream::{AppendHandle, Event};
pub use verify::{Fault, Finding, Report, Verification};

use crate::{
    Clock, Error, ErrorKind, Result, engine,
    engine::{KeyValue, Watch},
    entity::{
        self, BlobId, CountIndexType, CoveredBy, CoveringIndexType, Entity, EntitySchema, Index,
        IndexOf, ListIndexType, Schema, UniqueIndexType,
    },
    keyspace::{AsKey, KeyQuery, Root},
    telemetry,
};

/// Returns the schema of the store's own entities.
pub fn schema() -> Schema {
    Schema::new().with::<OrphanBlob>()
}

/// A transaction on records. A cheap handle: its clones are the same transaction, and their reads
/// can run concurrently. It sees its own writes. A transaction that is dropped without a
/// [commit](Self::commit) has no effect.
///
/// Calls can be joined: calls that write the same record, unique value or counter wait for each
/// other, with the effect of sequential calls. Do not keep a future that was polled without polling
/// or dropping it: calls on the same keys wait for it.
///
/// The documentation of each method states its reads; concurrent ones are one round, which is one
/// round trip on a cluster. The first method that writes a record also reads the catalog's epoch,
/// once per transaction. [`statistics`](engine::Transaction::statistics) counts the reads.
///
/// Every method can also fail with an error of the engine, and with `Invalid` for an entity that is
/// not [declared](crate::StoreOptions::entity).
#[derive(Clone, Debug)]
pub struct Transaction {
    engine: engine::Transaction,
    context: Arc<Context>,
    progress: Arc<Progress>,
}

/// Per-transaction state.
#[derive(Debug, Default)]
struct Progress {
    known: OnceCell<Arc<CatalogSnapshot>>,
    /// Number of appended events.
    appended: AtomicU32,
    claims: Claims,
    /// Blobs detached by this transaction, and whether explicitly, rather than with their record.
    detached: Mutex<BTreeMap<BlobId, bool>>,
    /// Blobs of the records written by this transaction, with the keys of the records.
    held: Mutex<BTreeMap<BlobId, Vec<u8>>>,
    /// Keys of the counters changed by this transaction.
    counted: Mutex<BTreeSet<Vec<u8>>>,
}

/// State shared by all transactions of a store.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) root: Root,
    pub(crate) schema: Schema,
    pub(crate) catalog: Catalog,
    /// The slot to charge next, round-robin, so that concurrent charges use different slots.
    pub(crate) next_slot: AtomicU32,
    /// Blobs that this process reads.
    pub(crate) readers: Arc<Readers>,
    pub(crate) clock: Clock,
}

impl Transaction {
    pub(crate) fn new(engine: engine::Transaction, context: Arc<Context>) -> Self {
        Self { engine, context, progress: Arc::default() }
    }

    /// Returns the record `key` in `scope`, or `None`. One read.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if the record cannot be decoded.
    pub async fn get<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
    ) -> Result<Option<E>> {
        self.get_versioned(scope, key).await.map(|stored| stored.map(Versioned::into_record))
    }

    /// Returns the record `key` in `scope`, which must exist. One read. A transaction that adds a
    /// dependent record reads its parent by this, and so conflicts with the parent's deletion.
    ///
    /// # Errors
    ///
    /// `NotFound` if the record does not exist; errors of [`get`](Self::get).
    pub async fn get_required<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
    ) -> Result<E> {
        self.get(scope, key).await?.ok_or_else(|| {
            let message = format!("no such record of {}", E::SPACE.name());
            Error::new(ErrorKind::NotFound, message)
        })
    }

    /// Makes this transaction conflict with every concurrent one that calls this for the same
    /// record, and with no other: such transactions commit one after another, without conflicting
    /// with readers and writers of the record. No read.
    ///
    /// # Errors
    ///
    /// `Limit` if the key is too long.
    #[expect(clippy::needless_pass_by_value, reason = "keys are passed as in the other methods")]
    pub fn serialize_on<E: Entity>(&self, scope: E::Scope, key: impl AsKey<E::Key>) -> Result<()> {
        // After the record's own key, where no row is.
        let mut begin = self.record_key::<E>(scope, &key)?;
        begin.push(0);
        let end = [begin.as_slice(), &[0]].concat();
        self.engine.add_read_conflict_range(&begin, &end)?;
        self.engine.add_write_conflict_range(&begin, &end)
    }

    /// Returns the record `key` in `scope` with its revision, or `None`. One read.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    pub async fn get_versioned<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
    ) -> Result<Option<Versioned<E>>> {
        let key = self.record_key::<E>(scope, &key)?;
        self.read_versioned(&key).await
    }

    /// Writes a new record and its index entries. One round of reads: the key, and each unique
    /// value.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if a record has its key, `UniqueViolation` with the index's name if another
    /// record has one of its unique values. This call writes nothing then, and the transaction can
    /// continue.
    pub async fn insert<E: Entity>(&self, record: &E) -> Result<()> {
        index_maintainer::insert(self, record).await
    }

    /// Replaces the record with the same key, and updates its index entries. Blobs that the record
    /// no longer has are detached, as by [`delete`](Self::delete). Two rounds of reads: the record,
    /// and each new unique value; one more if blobs are detached.
    ///
    /// # Errors
    ///
    /// `NotFound` if no record has its key, `UniqueViolation` with the index's name if another
    /// record has one of its unique values. This call writes nothing then, and the transaction can
    /// continue.
    pub async fn update<E: Entity>(&self, record: &E) -> Result<()> {
        index_maintainer::update(self, record, None).await
    }

    /// Writes a record, replacing one with the same key, and updates its index entries. Two rounds
    /// of reads: the record, and each new unique value.
    ///
    /// # Errors
    ///
    /// `UniqueViolation` with the index's name if another record has one of its unique values;
    /// `NewerFormat` if a newer version of the program wrote the record. This call writes nothing
    /// then, and the transaction can continue.
    pub async fn upsert<E: Entity>(&self, record: &E) -> Result<()> {
        index_maintainer::upsert(self, record).await
    }

    /// As [`upsert`](Self::upsert), without reading the record again: `before` is the record with
    /// the key of `record` as this transaction has read it, and not written since.
    pub(crate) async fn upsert_over<E: Entity>(
        &self,
        before: Option<&E>,
        record: &E,
    ) -> Result<()> {
        index_maintainer::upsert_over(self, before, record).await
    }

    /// As [`update`](Self::update), if the record is at `revision`: for a change based on a record
    /// that a client has read in an earlier transaction. Within one transaction a `get` and an
    /// `update` do not need it: if the record changes between them, the commit conflicts.
    ///
    /// ```
    /// # use coditect_store::{
    /// #     ErrorKind, Result, Store, engine::Database, model::{Tenant, TenantId},
    /// # };
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
    /// # let store = Store::open(Database::temporary()?).await?;
    /// # let (id, now) = (TenantId::new(), chrono::DateTime::UNIX_EPOCH);
    /// # let tx = store.begin();
    /// # tx.insert(&Tenant { id, name: "one".into(), created_at: now, updated_at: now }).await?;
    /// let read = tx.get_versioned::<Tenant>(id, ()).await?.expect("it was created");
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
    /// `RevisionMismatch` if the record has another revision; errors of [`update`](Self::update).
    /// This call writes nothing then, and the transaction can continue.
    pub async fn update_at<E: Entity>(&self, record: &E, revision: Revision) -> Result<()> {
        index_maintainer::update(self, record, Some(revision)).await
    }

    /// Applies `change` to the record `key` in `scope`, writes it with its index entries, and
    /// returns it. One read, and one for each new unique value.
    ///
    /// # Errors
    ///
    /// Errors of [`update`](Self::update), and `Invalid` if `change` changes the key. This call
    /// writes nothing then, and the transaction can continue.
    pub async fn modify<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
        change: impl FnOnce(&mut E),
    ) -> Result<E> {
        let key = self.record_key::<E>(scope, &key)?;
        index_maintainer::modify(self, &key, change).await
    }

    /// Deletes the record `key` in `scope` and its index entries, and returns it; `None` if there
    /// was none. One read, and one round for its [blobs](Entity::BLOBS), if any, which are
    /// [detached](Self::detach), except blobs of another record written by this transaction.
    ///
    /// # Errors
    ///
    /// `Corrupt` or `NewerFormat` if the record cannot be decoded: its entries are unknown.
    pub async fn delete<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
    ) -> Result<Option<E>> {
        let key = self.record_key::<E>(scope, &key)?;
        index_maintainer::delete(self, &key, None, Some(self.context.clock.now())).await
    }

    /// As [`delete`](Self::delete), for a caller that detaches the blobs.
    pub(crate) async fn delete_without_blobs<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
    ) -> Result<Option<E>> {
        let key = self.record_key::<E>(scope, &key)?;
        index_maintainer::delete(self, &key, None, None).await
    }

    /// As [`delete`](Self::delete), if the record is at `revision`.
    ///
    /// # Errors
    ///
    /// `RevisionMismatch` if the record has another revision, `NotFound` if there is none; errors
    /// of [`delete`](Self::delete).
    pub async fn delete_at<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
        revision: Revision,
    ) -> Result<E> {
        let key = self.record_key::<E>(scope, &key)?;
        let now = self.context.clock.now();
        let deleted = index_maintainer::delete(self, &key, Some(revision), Some(now)).await?;
        deleted.ok_or_else(index_maintainer::missing::<E>)
    }

    /// Returns the record with `value` in a unique index, or `None`. Two sequential reads. `scope`
    /// is that of the index: [`Global`](crate::keyspace::Global) for a global one.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the entry has no record, `IndexBuilding` if the index is not built.
    pub async fn find<E: Entity, K: UniqueIndexType>(
        &self,
        index: &Index<E, K>,
        scope: K::Scope<E::Scope>,
        value: impl AsKey<K::Value>,
    ) -> Result<Option<E>> {
        self.context.schema.require::<E>()?;
        let mut key = index.prefix(self.root(), scope);
        value.pack_as(&mut key);
        self.require_readable(index.name()).await?;
        let Some(value) = self.engine.get(&key).await? else {
            return Ok(None);
        };
        let record = index.record_key(self.root(), &KeyValue { key, value })?;
        let record = self.read_indexed(index.name(), record).await?;
        self.decode(&record.key, &record.value).map(Some)
    }

    /// Scans the records with the selected values in an index, in key order: by value, then by
    /// tenant in a global index, then by key. `values` is a value, a range, `..`, or the leading
    /// parts of a composite: see [`KeyQuery`]. Reads nothing until a [page](Scan::page) is
    /// requested.
    pub fn scan<'a, E: Entity, K: ListIndexType>(
        &self,
        index: &'static Index<E, K>,
        scope: K::Scope<E::Scope>,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, E> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        Scan::new(self.clone(), Source::pointers(index), prefix, range)
    }

    /// Scans the entries of a covering index, without reading the records: one range read per page.
    /// Reads nothing until a [page](Scan::page) is requested.
    pub fn scan_index_only<'a, E: Entity, K: CoveringIndexType>(
        &self,
        index: &'static Index<E, K>,
        scope: K::Scope<E::Scope>,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, CoveredBy<E, K>> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        let source = Source::entries(index, |tx, entry| index.covered(tx.root(), entry));
        Scan::new(self.clone(), source, prefix, range)
    }

    /// Returns the number of records with `value` in a counting index. One read, which conflicts
    /// with every change of the number.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the stored value is not a number, `IndexBuilding` if the index is not built.
    pub async fn count<E: Entity, K: CountIndexType>(
        &self,
        index: &Index<E, K>,
        scope: K::Scope<E::Scope>,
        value: impl AsKey<K::Value>,
    ) -> Result<i64> {
        self.context.schema.require::<E>()?;
        let mut key = index.prefix(self.root(), scope);
        value.pack_as(&mut key);
        self.require_readable(index.name()).await?;
        let sum = self.engine.get(&key).await?;
        sum.map_or(Ok(0), |sum| index.sum(&sum))
    }

    /// Scans the selected values of a counting index, each with its number of records, which is not
    /// zero. Reads nothing until a [page](Scan::page) is requested.
    pub fn scan_counts<'a, E: Entity, K: CountIndexType>(
        &self,
        index: &'static Index<E, K>,
        scope: K::Scope<E::Scope>,
        values: impl KeyQuery<K::Value>,
    ) -> Scan<'a, (K::Value, i64)> {
        let prefix = index.prefix(self.root(), scope);
        let range = values.keys(&prefix);
        let source = Source::entries(index, |tx, entry| index.counted(tx.root(), entry));
        Scan::new(self.clone(), source, prefix, range)
    }

    /// Scans all records in `scope`, in key order, which for ids is the order of creation. Reads
    /// nothing until a [page](Scan::page) is requested.
    pub fn list<'a, E: Entity>(&self, scope: E::Scope) -> Scan<'a, E> {
        self.list_keys(scope, ..)
    }

    /// Scans the records in `scope` with the selected keys, in key order: a range, or the leading
    /// parts of a composite key. Reads nothing until a [page](Scan::page) is requested.
    pub fn list_keys<'a, E: Entity>(
        &self,
        scope: E::Scope,
        keys: impl KeyQuery<E::Key>,
    ) -> Scan<'a, E> {
        let prefix = E::SPACE.prefix(self.root(), scope);
        let range = keys.keys(&prefix);
        Scan::new(self.clone(), Source::records(), prefix, range)
    }

    /// Returns a watch that fires when the record `key` in `scope` is written or deleted after this
    /// transaction's commit: see [`engine::Transaction::watch`]. Read the record again then.
    ///
    /// # Errors
    ///
    /// `Limit` if there are too many watches.
    pub async fn watch<E: Entity>(
        &self,
        scope: E::Scope,
        key: impl AsKey<E::Key>,
    ) -> Result<Watch> {
        let key = self.record_key::<E>(scope, &key)?;
        self.engine.watch(&key).await
    }

    /// Commits the transaction: see [`engine::Transaction::commit`]. Not for closures of
    /// [`Store::run`](crate::Store::run), which commits.
    pub async fn commit(&self) -> Result<()> {
        self.engine.commit().await
    }

    /// Returns the underlying transaction on bytes, for keys that are not records, and for conflict
    /// ranges. Writes through it bypass the indexes.
    pub fn engine(&self) -> &engine::Transaction {
        &self.engine
    }

    /// Returns the prefix of all keys.
    pub fn root(&self) -> &Root {
        &self.context.root
    }

    /// Claims `keys` within this transaction: see [`claims`].
    async fn claim(&self, keys: Vec<Vec<u8>>) -> Claim<'_> {
        self.progress.claims.claim(keys).await
    }

    fn record_key<E: Entity>(&self, scope: E::Scope, key: &impl AsKey<E::Key>) -> Result<Vec<u8>> {
        self.context.schema.require::<E>()?;
        Ok(entity::record_key::<E>(self.root(), scope, key))
    }

    /// Deletes the record or event of `entity` under `key`, if there is one, without detaching its
    /// blobs.
    pub(crate) async fn delete_row(&self, entity: &EntitySchema, key: &[u8]) -> Result<()> {
        index_maintainer::delete_row(self, entity, key).await
    }

    /// Fails if there may be records of another program, with indexes unknown to this one.
    pub(crate) async fn require_nothing_foreign(&self) -> Result<()> {
        self.known().await?.require_nothing_foreign()
    }

    async fn read_versioned<E: Entity>(&self, key: &[u8]) -> Result<Option<Versioned<E>>> {
        let bytes = self.engine.get(key).await?;
        bytes.map(|bytes| Ok(Versioned::new(self.decode(key, &bytes)?, bytes))).transpose()
    }

    /// Reads the record `key`, which an entry of `index` points to.
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

    /// Fails if the index is not built, or retired. No read, if the cache has it as readable.
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

    /// Returns the declared indexes that are not built.
    pub(crate) async fn pending_indexes(&self) -> Result<Vec<&'static str>> {
        let known = self.known().await?;
        let declared = self.context.schema.declared().map(|declared| declared.name);
        Ok(declared.filter(|name| !known.is_readable(name)).collect())
    }

    /// Returns the catalog snapshot of this transaction.
    async fn known(&self) -> Result<&CatalogSnapshot> {
        let context = &self.context;
        let known =
            self.progress.known.get_or_try_init(|| context.catalog.known(&self.engine, context));
        known.await.map(|known| &**known)
    }
}
