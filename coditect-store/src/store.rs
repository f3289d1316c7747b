//! The store: a database, a root, and the entities that lie under it.

use std::sync::{Arc, atomic::AtomicU32};

use futures_util::future::try_join;

use crate::{
    BatchLimit, BatchSize, Clock, Error, ErrorKind, Result, RunError, Transaction,
    archive::{self, Export, Import},
    check::Check,
    engine::{self, Database, RangeQuery},
    entity::{Entity, Log, META, Registry},
    inspect::Inspect,
    keyspace::{KeyPart, Root, unpack_all},
    repository::{self, Catalog, Context, IndexBuild, IndexRemoval, Readers, Verification},
    retry::{self, RetryPolicy},
};

/// What the format's key says beside the version: whose keys these are.
const PROGRAM: &str = "coditect-store";
/// The layout of keys that this program writes. A change that older programs would misread counts
/// it up; a new entity or index does not.
pub(crate) const FORMAT: u64 = 1;

/// Records in a database: a handle that is cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    database: Database,
    context: Arc<Context>,
}

/// How a store is opened: see [`Store::options`].
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    root: Root,
    registry: Registry,
    clock: Clock,
}

impl Store {
    /// Opens the store in `database`, at its root, with the product's entities; makes it if the
    /// database is empty. One transaction. If the store was restored to a database whose versions are
    /// behind its own, they are [advanced](Database::advance_version), so that logs keep their order.
    ///
    /// # Errors
    ///
    /// `NewerFormat` if a newer version of this program made it, or has given one of its entities
    /// an index that is neither declared here nor [retired](StoreOptions::retire); `SchemaMismatch` with a name that was declared otherwise
    /// before; `ImportInProgress` if an import into it has not ended; `Corrupt` if there are keys that no
    /// version made; `Invalid` if a name is declared
    /// twice; those of the engine.
    pub async fn open(database: Database) -> Result<Self> {
        Self::options().open(database).await
    }

    /// To open it elsewhere than at the database's root, or with further entities.
    pub fn options() -> StoreOptions {
        StoreOptions::default()
    }

    /// Runs `body` in a transaction and commits it, again while it conflicts: see
    /// [`retry`] for what is retried, how often, and what `body` must heed.
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

    /// As [`run`](Self::run), for what is right to do twice: if the outcome of an attempt is unknown,
    /// `body` is run again.
    pub async fn run_idempotent<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        E: RunError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        self.run_with(&RetryPolicy::idempotent(), body).await
    }

    /// As [`run_idempotent`](Self::run_idempotent), for one batch of a longer operation: `body` heeds
    /// the limit that it is given, which is smaller in each further attempt.
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

    /// As [`run`](Self::run), with another budget, or a marker.
    pub async fn run_with<T, E, F, Fut>(&self, policy: &RetryPolicy, body: F) -> Result<T, E>
    where
        E: RunError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        retry::run(&self.database, policy, |tx| body(self.typed(tx))).await
    }

    /// The same store, whose transactions are work that can wait: see [`Database::with_batch_priority`].
    #[must_use]
    pub fn with_batch_priority(&self, tag: &'static str) -> Self {
        Self {
            database: self.database.with_batch_priority(tag),
            context: Arc::clone(&self.context),
        }
    }

    /// Begins a transaction that the caller commits, and tries again, by itself.
    pub fn begin(&self) -> Transaction {
        self.typed(self.database.begin())
    }

    /// Returns whether it answers: one round of reads, which conflict with nothing.
    ///
    /// # Errors
    ///
    /// Those of the engine; those of [`open`](Self::open), `Corrupt` too if the store is gone, and
    /// `Unavailable` if the database was restored to a state with newer versions than it gives: the store
    /// has to be opened again.
    pub async fn probe(&self) -> Result<()> {
        let (tx, root) = (self.database.begin(), self.root());
        let snapshot = tx.snapshot();
        let (key, ahead) = (format_key(root), repository::version_ahead(&tx, root));
        let (stored, ahead) = try_join(snapshot.get(&key), ahead).await?;
        check_format(&stored.ok_or_else(foreign)?)?;
        match ahead {
            None => Ok(()),
            Some(version) => {
                let message = format!(
                    "the store was restored to a database whose versions are before {version}: open it \
                     again, which advances them"
                );
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }

    /// The indexes that are not built yet: those that were declared when their entity had records
    /// already. Each wants its [build](Self::build).
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub async fn unbuilt(&self) -> Result<Vec<&'static str>> {
        self.begin().unbuilt().await
    }

    /// The build of the index named `index`, which may have been begun before, by any process. An
    /// index that is readable is found to be done.
    ///
    /// # Errors
    ///
    /// `Invalid` if no such index was declared.
    pub fn build(&self, index: &str) -> Result<IndexBuild> {
        IndexBuild::new(self.with_batch_priority("build"), self.registry().index(index)?)
    }

    /// Returns the names of the retired indexes that still have entries to be
    /// [removed](Self::remove_retired).
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub async fn retired(&self) -> Result<Vec<String>> {
        repository::retired_with_entries(&self.database, self.root()).await
    }

    /// Returns the removal of the entries of the retired index `index`, which may have been begun
    /// before, by any process.
    pub fn remove_retired(&self, index: impl Into<String>) -> IndexRemoval {
        IndexRemoval::new(self.with_batch_priority("retire"), index.into())
    }

    /// To compare the index named `index` with its records.
    ///
    /// # Errors
    ///
    /// `Invalid` if no such index was declared.
    pub fn verify(&self, index: &str) -> Result<Verification> {
        Verification::new(self.with_batch_priority("verify"), self.registry().index(index)?)
    }

    /// To write all that it has, or one tenant's, into an archive.
    pub fn export(&self) -> Export {
        Export::new(self.with_batch_priority("export"))
    }

    /// To check all that it has.
    pub fn check(&self) -> Check {
        Check::new(self.with_batch_priority("check"))
    }

    /// To look at what it has.
    pub fn inspect(&self) -> Inspect {
        Inspect::new(self.with_batch_priority("inspect"))
    }

    /// The database that it lies in.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The prefix of all its keys.
    pub fn root(&self) -> &Root {
        &self.context.root
    }

    /// What it holds.
    pub fn registry(&self) -> &Registry {
        &self.context.registry
    }

    /// The blobs that this process reads.
    pub(crate) fn readers(&self) -> &Arc<Readers> {
        &self.context.readers
    }

    fn typed(&self, tx: engine::Transaction) -> Transaction {
        Transaction::new(tx, Arc::clone(&self.context))
    }
}

impl StoreOptions {
    /// Keeps all keys under `root`; at the database's root, if not said.
    #[must_use]
    pub fn root(mut self, root: Root) -> Self {
        self.root = root;
        self
    }

    /// Takes the time from `clock`, by which the blobs of deleted records are kept for their readers;
    /// the system's clock if not said.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Holds `E` too, beside the product's entities.
    #[must_use]
    pub fn entity<E: Entity>(mut self) -> Self {
        self.registry = self.registry.with::<E>();
        self
    }

    /// Gives up the index named `index`, which an earlier version of the program declared. Opening
    /// the store marks it as retired, once: from then on no program that still declares it opens the
    /// store, writes records of its entity, or reads by it. Its entries are removed by
    /// [`Store::remove_retired`]. The name stays reserved: an index over other values has another
    /// one. The call may be dropped once every store has been opened with it.
    ///
    /// Without it a store that has an index which is not declared is not opened: its entries would
    /// no longer be maintained.
    #[must_use]
    pub fn retire(mut self, index: &'static str) -> Self {
        self.registry = self.registry.retire(index);
        self
    }

    /// Holds the log `L` too.
    #[must_use]
    pub fn log<L: Log>(mut self) -> Self {
        self.registry = self.registry.with_log::<L>();
        self
    }

    /// To make a store in `database`, or a tenant of one, of an archive. Roots and entities are as they
    /// will be when it is opened.
    ///
    /// # Errors
    ///
    /// `Invalid` if a name is declared twice.
    pub fn import(self, database: Database) -> Result<Import> {
        Import::new(database, self)
    }

    pub(crate) fn key_root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Opens it: see [`Store::open`].
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub async fn open(self, database: Database) -> Result<Store> {
        let Self { root, registry, clock } = self;
        registry.check()?;
        let (at, declared) = (&root, &registry);
        let settled = database.run(|tx| async move {
            archive::refuse_unfinished(&tx, at).await?;
            settle_format(&tx, at).await?;
            repository::settle(&tx, at, declared).await?;
            repository::version_ahead(&tx, at).await
        });
        if let Some(version) = settled.await? {
            tracing::warn!(
                version,
                "advancing the versions of a database that the store was restored to"
            );
            database.advance_version(version).await?;
            // With a commit the advance is durable, and reads are at a later version.
            let commit = |tx: engine::Transaction| async move {
                repository::raise_to(&tx, at, version);
                Ok::<_, Error>(())
            };
            database.run(commit).await?;
        }
        let context = Context {
            catalog: Catalog::new(&root),
            root,
            registry,
            next_slot: AtomicU32::new(0),
            readers: Arc::default(),
            clock,
        };
        Ok(Store { database, context: Arc::new(context) })
    }
}

/// Checks the format that is stored; stores ours where nothing is.
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

/// Refuses what is no store's that this program knows.
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
