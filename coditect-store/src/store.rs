//! The store: a database, a root, and a schema.

pub(crate) mod import_marker;

use std::sync::{Arc, atomic::AtomicU32};

use futures_util::future::try_join;

use crate::{
    BatchLimit, BatchSize, Clock, Error, ErrorKind, Result, RunError, Transaction,
    engine::{self, Database, RangeQuery},
    entity::{Entity, EventStream, META, Schema},
    keyspace::{KeyPart, Root, unpack_all},
    records::{self, Catalog, Context, IndexBuild, IndexRemoval, Readers, Verification},
    retry::{self, RetryPolicy},
};

/// Program name in the format record.
const PROGRAM: &str = "coditect-store";
/// Version of the key layout that this program writes. Incremented by changes that older programs
/// would misread, not by new entities and indexes.
pub(crate) const FORMAT: u64 = 1;

/// A store of records in a database. A cheap handle.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    context: Arc<Context>,
}

/// Options for opening a store: see [`Store::options`].
#[derive(Clone, Debug)]
pub struct StoreOptions {
    root: Root,
    schema: Schema,
    clock: Clock,
    repairs_high_water: bool,
}

impl Store {
    /// Returns options for opening a store, without entities.
    pub fn options() -> StoreOptions {
        StoreOptions {
            root: Root::default(),
            schema: records::schema(),
            clock: Clock::default(),
            repairs_high_water: false,
        }
    }

    /// Runs `body` in a transaction and commits it, with retries: see [`retry`]. `body` may run
    /// several times.
    ///
    /// ```
    /// # use coditect_store::{Error, Store, engine::Database, model::{Tenant, TenantId}};
    /// # async fn example(store: Store, tenant: TenantId, name: String) -> Result<(), Error> {
    /// let name = &name;
    /// let before = store.run(|tx| async move {
    ///     let Some(mut record) = tx.get::<Tenant>(tenant, ()).await? else {
    ///         return Ok(None);
    ///     };
    ///     let before = std::mem::replace(&mut record.name, name.clone());
    ///     tx.update(&record).await?;
    ///     Ok::<_, Error>(Some(before))
    /// }).await?;
    /// # let _ = before; Ok(()) }
    /// ```
    pub async fn run<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        E: RunError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.run_with(&RetryPolicy::default(), body).await
    }

    /// As [`run`](Self::run), for an idempotent `body`, which is also run again after an unknown
    /// outcome.
    pub async fn run_idempotent<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        E: RunError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.run_with(&RetryPolicy::idempotent(), body).await
    }

    /// As [`run_idempotent`](Self::run_idempotent), for one batch of a longer operation. `body`
    /// respects the given limit, which is smaller in each retry.
    pub async fn run_batch<T, E, F, Fut>(&self, size: &BatchSize, body: F) -> Result<T, E>
    where
        E: RunError,
        F: Fn(Transaction, BatchLimit) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let attempts = size.clone();
        let done = self.run_idempotent(move |tx| body(tx, attempts.attempt())).await?;
        size.committed();
        Ok(done)
    }

    /// As [`run`](Self::run), with another retry policy.
    pub async fn run_with<T, E, F, Fut>(&self, policy: &RetryPolicy, body: F) -> Result<T, E>
    where
        E: RunError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        retry::run(&self.database, policy, |tx| body(self.typed(tx))).await
    }

    /// Returns a handle whose transactions have batch priority: see
    /// [`Database::with_batch_priority`].
    #[must_use]
    pub fn with_batch_priority(&self, tag: &'static str) -> Self {
        Self {
            database: self.database.with_batch_priority(tag),
            context: Arc::clone(&self.context),
        }
    }

    /// Begins a transaction, which the caller commits and retries.
    pub fn begin(&self) -> Transaction {
        self.typed(self.database.begin())
    }

    /// Checks that the store responds, by one round of reads without conflicts.
    ///
    /// # Errors
    ///
    /// Errors of the engine; errors of [`open`](StoreOptions::open); `Corrupt` if the store was
    /// removed; `Unavailable` if the database was restored to a state with newer versions than it
    /// assigns: the store must be opened again.
    pub async fn ping(&self) -> Result<()> {
        let (tx, root) = (self.database.begin(), self.root());
        let snapshot = tx.snapshot();
        let (key, ahead) = (format_key(root), records::version_ahead(&tx, root));
        let (stored, ahead) = try_join(snapshot.get(&key), ahead).await?;
        check_format(&stored.ok_or_else(foreign)?)?;
        match ahead {
            None => Ok(()),
            Some(version) => {
                let message = format!(
                    "the store was restored to a database whose versions are before {version}: \
                     open it again, which advances them"
                );
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// Returns the indexes that are not built: declared when their entity already had records. Each
    /// needs a [build](Self::build).
    ///
    /// # Errors
    ///
    /// Errors of the engine.
    pub async fn pending_indexes(&self) -> Result<Vec<&'static str>> {
        self.begin().pending_indexes().await
    }

    /// Returns the build of the index `index`, which resumes an earlier one of any process. For a
    /// readable index it is already done.
    ///
    /// # Errors
    ///
    /// `Invalid` if the index is not declared.
    pub fn build(&self, index: &str) -> Result<IndexBuild> {
        IndexBuild::new(self.with_batch_priority("build"), self.schema().index(index)?)
    }

    /// Returns the names of the retired indexes with entries to be [removed](Self::remove_retired).
    ///
    /// # Errors
    ///
    /// Errors of the engine.
    pub async fn retired(&self) -> Result<Vec<String>> {
        records::retired_with_entries(&self.database, self.root()).await
    }

    /// Returns the removal of the entries of the retired index `index`, which resumes an earlier
    /// one of any process.
    pub fn remove_retired(&self, index: impl Into<String>) -> IndexRemoval {
        IndexRemoval::new(self.with_batch_priority("retire"), index.into())
    }

    /// Returns the verification of the index `index` against its records.
    ///
    /// # Errors
    ///
    /// `Invalid` if the index is not declared.
    pub fn verify(&self, index: &str) -> Result<Verification> {
        Verification::new(self.with_batch_priority("verify"), self.schema().index(index)?)
    }

    /// Returns the database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Returns the prefix of all keys.
    pub fn root(&self) -> &Root {
        &self.context.root
    }

    /// Returns the schema.
    pub fn schema(&self) -> &Schema {
        &self.context.schema
    }

    /// Returns the blobs that this process reads.
    pub(crate) fn readers(&self) -> &Arc<Readers> {
        &self.context.readers
    }

    /// Returns `tx` as a transaction on records, for [`transact!`](crate::transact).
    #[doc(hidden)]
    pub fn typed(&self, tx: engine::Transaction) -> Transaction {
        Transaction::new(tx, Arc::clone(&self.context))
    }
}

impl StoreOptions {
    /// Sets the prefix of all keys; empty by default.
    #[must_use]
    pub fn root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// Sets the clock, which determines the leases of detached blobs; the system's by default.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets whether opening the store rebuilds its high-water mark of versionstamps, from all
    /// events, if the mark is damaged; `false` by default: such a store is not opened.
    #[must_use]
    pub fn repair_high_water(mut self, repair: bool) -> Self {
        self.repairs_high_water = repair;
        self
    }

    /// Adds the entities of `schema`, such as [`model::schema()`](crate::model::schema()).
    #[must_use]
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = self.schema.extend(schema);
        self
    }

    /// Adds the entity `E`.
    #[must_use]
    pub fn entity<E: Entity>(mut self) -> Self {
        self.schema = self.schema.with::<E>();
        self
    }

    /// Retires the index `index`, which an earlier version of the program declared. Opening the
    /// store marks it as retired, once: from then on no program that declares it opens the store,
    /// writes records of its entity, or reads it. [`Store::remove_retired`] removes its entries.
    /// The name stays reserved: an index over other values needs another one. Keep this call until
    /// every store has been opened with it.
    ///
    /// A store with an index that is neither declared nor retired is not opened, because its
    /// entries would no longer be maintained.
    #[must_use]
    pub fn retire(mut self, index: &'static str) -> Self {
        self.schema = self.schema.retire(index);
        self
    }

    /// Adds the event stream `L`.
    #[must_use]
    pub fn stream<L: EventStream>(mut self) -> Self {
        self.schema = self.schema.with_stream::<L>();
        self
    }

    pub(crate) fn key_root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn declared(&self) -> &Schema {
        &self.schema
    }

    /// Opens the store in `database`. Creates it if the database is empty. One transaction.
    ///
    /// # Errors
    ///
    /// `NewerFormat` if a newer version of the program created it, or if an entity has an index
    /// that is neither declared nor [retired](StoreOptions::retire); `SchemaMismatch` with the name
    /// of a changed declaration; `ImportInProgress` if an import is unfinished; `Corrupt` if the
    /// keys are not a store's, or its metadata is damaged; `Invalid` if a name is declared twice;
    /// errors of the engine.
    pub async fn open(self, database: Database) -> Result<Store> {
        let Self { root, schema, clock, repairs_high_water } = self;
        schema.check()?;
        let (at, declared) = (&root, &schema);
        if repairs_high_water && records::rebuild_high_water(&database, at, declared).await? {
            tracing::warn!("rebuilt the damaged high-water mark of versionstamps from the events");
        }
        let settled = database.run(|tx| async move {
            import_marker::refuse_unfinished(&tx, at).await?;
            settle_format(&tx, at).await?;
            records::reconcile_schema(&tx, at, declared).await?;
            records::version_ahead(&tx, at).await
        });
        if let Some(version) = settled.await? {
            tracing::warn!(
                version,
                "advancing the versions of a database that the store was restored to"
            );
            database.advance_version(version).await?;
            // With a commit the advance is durable, and reads are at a later version.
            let commit = |tx: engine::Transaction| async move {
                records::raise_to(&tx, at, version);
                Ok::<_, Error>(())
            };
            database.run(commit).await?;
        }
        let context = Context {
            catalog: Catalog::new(&root),
            root,
            schema,
            next_slot: AtomicU32::new(0),
            readers: Arc::default(),
            clock,
        };
        Ok(Store { database, context: Arc::new(context) })
    }
}

/// Checks the stored format; writes it to an empty database.
async fn settle_format(tx: &engine::Transaction, root: &Root) -> Result<()> {
    let key = format_key(root);
    if let Some(stored) = tx.get(&key).await? {
        return check_format(&stored);
    }
    let all = root.range();
    let first = tx.get_range(&RangeQuery::new(all.begin, all.end).limit(1)).await?;
    if !first.rows.is_empty() {
        return Err(foreign());
    }
    let mut format = Vec::new();
    (PROGRAM.to_owned(), FORMAT).pack(&mut format);
    tx.set(&key, &format);
    Ok(())
}

/// Fails unless the stored format is one that this program reads.
pub(crate) async fn require_format(tx: &engine::Transaction, root: &Root) -> Result<()> {
    check_format(&tx.get(&format_key(root)).await?.ok_or_else(foreign)?)
}

pub(crate) fn check_format(stored: &[u8]) -> Result<()> {
    let (program, format): (String, u64) =
        unpack_all(stored).map_err(|cause| foreign().with_source(cause))?;
    if program != PROGRAM {
        return Err(foreign());
    }
    if format > FORMAT {
        let message = format!("the store is of format {format}; this program knows {FORMAT}");
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    Ok(())
}

fn format_key(root: &Root) -> Vec<u8> {
    root.key(&(META.to_owned(), "format".to_owned()))
}

fn foreign() -> Error {
    Error::new(ErrorKind::Corrupt, "the keys under this root are not a store's")
}
