//! The catalog: the declarations and the index states that a store keeps.
//!
//! ```text
//! ("meta", "schema", name) → (kind, scope, "label:type,…", subspace)
//! ("meta", "retired", name) → (position, entries removed)   while a retired index has entries
//! ("meta", "index", name)  → (state, position, records examined)
//! ("meta", "epoch")        → incremented by every change of the above except of positions
//! ```
//!
//! # Invariants
//!
//! - Every transaction that writes a record reads the epoch, and conflicts with a change of it. A
//!   cached snapshot is used only at its epoch, and is otherwise reloaded in that transaction. So
//!   an index is maintained by every transaction that commits after its declaration, in every
//!   process.
//! - A program does not write to a subspace that has an index unknown to it: an older program that
//!   still runs gets an error instead of omitting entries.
//! - A readable index stays readable until it is retired. Readers trust a cached state of
//!   *readable* without a read, and reload any other.
//! - A declaration never changes: kind, scope, subspace, and the names and types of its elements.
//!   Retiring an index prefixes its kind with a mark, permanently: programs that declare it are
//!   rejected, others write without it.
//! - Readers trust a cached state for [`CACHE_LIFETIME`] after a transaction has confirmed it. The
//!   entries of a retired index are removed only after that time.

mod errors;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::{Context, walk::Walk};
use crate::{
    BatchSize, Error, ErrorKind, Result, Store,
    batch::map_concurrent,
    engine::{self, RangeQuery},
    entity::{META, Schema, SchemaEntry},
    keyspace::{KeyPart, KeyRange, Readable, Root, ScopeKind, packed, unpack_all},
};
pub(super) use errors::{not_built, retired};
use errors::{redeclared, unknown};

/// The state of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Complete.
    Readable,
    /// Maintained by writers; built up to the position.
    WriteOnly(Progress),
    /// Complete, with a recount in progress up to the position.
    Recount(Progress),
}

/// The progress of a walk through records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Key, without the root, before which all records are processed.
    pub(super) position: Vec<u8>,
    /// Number of records processed.
    pub(super) examined: u64,
}

/// Time for which readers trust the cache without reading the epoch.
pub(super) const CACHE_LIFETIME: Duration = Duration::from_secs(30);

/// Prefix of the kind of a retired index.
const RETIRED: &str = "retired ";

/// Position of a completed walk: after all keys.
pub(super) const END: &[u8] = b"\xff";

/// The cached catalog of a store.
#[derive(Debug)]
pub(crate) struct Catalog {
    known: ArcSwapOption<CatalogSnapshot>,
    /// Time at which a transaction last found the epoch to be that of `known`.
    confirmed: Mutex<Option<Instant>>,
    /// Read by every transaction that writes.
    epoch_key: Vec<u8>,
}

/// The catalog at one epoch, for this program's declarations.
#[derive(Debug)]
pub(crate) struct CatalogSnapshot {
    epoch: u64,
    /// The declared indexes whose state is not `Readable`. Positions may be outdated.
    unsettled: BTreeMap<&'static str, State>,
    /// Declared subspaces with an index that this program does not declare, with the index's name.
    unknown: BTreeMap<&'static str, String>,
    /// Declared indexes that another program has retired, each with its subspace.
    retired: Vec<(&'static str, &'static str)>,
    /// An index of a tenant's subspace that only another program declares, if any.
    foreign: Option<String>,
}

impl Catalog {
    pub(crate) fn new(root: &Root) -> Self {
        let confirmed = Mutex::default();
        Self { known: ArcSwapOption::empty(), confirmed, epoch_key: epoch_key(root) }
    }

    /// Returns the catalog as `tx` sees it. One read, more if the epoch has changed.
    pub(super) async fn known(
        &self,
        tx: &engine::Transaction,
        context: &Context,
    ) -> Result<Arc<CatalogSnapshot>> {
        let asked = Instant::now();
        let epoch = read_epoch(tx, &context.root, &self.epoch_key).await?;
        if let Some(cached) = self.known.load_full().filter(|cached| cached.epoch == epoch) {
            self.confirm(asked);
            return Ok(cached);
        }
        let known = Arc::new(load(tx, &context.root, &context.schema, epoch).await?);
        self.known.rcu(|cached| match cached {
            Some(cached) if cached.epoch >= epoch => Arc::clone(cached),
            _ => Arc::clone(&known),
        });
        self.confirm(asked);
        Ok(known)
    }

    /// Records that the cache was at the current epoch at `at`. A transaction may have begun up to
    /// its lifetime earlier, which is little beside the margin by which a removal exceeds
    /// [`CACHE_LIFETIME`].
    fn confirm(&self, at: Instant) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *confirmed = confirmed.max(Some(at));
    }

    /// Returns whether the index is readable according to the cache, without a read.
    pub(super) fn was_readable(&self, index: &'static str) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.is_some_and(|at| at.elapsed() < CACHE_LIFETIME)
            && self.known.load().as_ref().is_some_and(|known| known.is_readable(index))
    }
}

impl CatalogSnapshot {
    pub(super) fn is_readable(&self, index: &'static str) -> bool {
        !matches!(self.unsettled.get(index), Some(State::WriteOnly(_))) && !self.is_retired(index)
    }

    /// Returns whether another program has retired the index.
    pub(super) fn is_retired(&self, index: &'static str) -> bool {
        self.retired.iter().any(|(_, retired)| *retired == index)
    }

    pub(super) fn is_settled(&self, index: &'static str) -> bool {
        !self.unsettled.contains_key(index)
    }

    /// Fails if the subspace has an index that this program does not declare, or that is retired.
    pub(super) fn require_known(&self, space: &'static str) -> Result<()> {
        if let Some((_, index)) = self.retired.iter().find(|(of, _)| *of == space) {
            return Err(retired(index));
        }
        self.unknown.get(space).map_or(Ok(()), |index| Err(unknown(space, index)))
    }

    /// Fails if there may be records of another program, with indexes unknown to this one.
    pub(super) fn require_nothing_foreign(&self) -> Result<()> {
        self.require_all_known()?;
        self.foreign.as_ref().map_or(Ok(()), |index| Err(unknown("another program's space", index)))
    }

    /// Fails if any declared subspace has an index that this program does not declare.
    pub(super) fn require_all_known(&self) -> Result<()> {
        self.unknown.first_key_value().map_or(Ok(()), |(space, index)| Err(unknown(space, index)))
    }
}

/// Compares the declarations with the stored ones, and stores new ones. An index of a subspace that
/// may have records starts as [`WriteOnly`](State::WriteOnly), any other as readable.
///
/// # Errors
///
/// `SchemaMismatch` with the name of a changed declaration, of a retired index, or of a new index
/// of a stream that has events; `NewerFormat` if a subspace has an index that is neither declared
/// nor retired.
pub(crate) async fn reconcile_schema(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
) -> Result<()> {
    let stored = stored_entries(tx, root).await?;
    let mut changed = false;
    for declared in schema.declared() {
        match stored.get(declared.name) {
            Some(stored) if *stored == declared.to_stored() => continue,
            Some(stored) if stored.0.starts_with(RETIRED) => return Err(retired(declared.name)),
            Some(stored) => return Err(redeclared(declared, stored)),
            None => changed = true,
        }
        if declared.is_stream_index()
            && stored.contains_key(declared.space)
            && has_records(tx, root, schema, declared.space).await?
        {
            let message = format!(
                "cannot add index {} to stream {}, which has events: an index of a stream must be \
                 declared before its first event",
                declared.name, declared.space
            );
            return Err(Error::new(ErrorKind::SchemaMismatch(declared.name), message));
        }
        tx.set(&schema_key(root, declared.name), &packed(&declared.to_stored()));
        if declared.is_index() {
            let old = stored.contains_key(declared.space);
            let state = if old && has_records(tx, root, schema, declared.space).await? {
                State::WriteOnly(Progress::default())
            } else {
                State::Readable
            };
            write_state(tx, root, declared.name, &state);
        }
    }
    let given_up = |name: &str| schema.retired().contains(&name);
    if let Some((space, index)) = unknown_indexes(schema, &stored, given_up).into_iter().next() {
        return Err(unknown(space, &index));
    }
    for name in schema.retired() {
        changed |= retire(tx, root, schema, name, stored.get(*name))?;
    }
    if changed {
        advance_epoch(tx, root).await?;
    }
    Ok(())
}

/// Marks an index as retired, and returns whether it was not before. Ignores an index that the
/// store never had.
fn retire(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
    name: &'static str,
    stored: Option<&StoredEntry>,
) -> Result<bool> {
    let Some((what, scope_kind, elements, space)) = stored else { return Ok(false) };
    if name == space.as_str() || schema.entity(space).is_none() {
        let message =
            format!("cannot retire {name:?}: not an index of a declared entity or stream");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if what.starts_with(RETIRED) {
        return Ok(false);
    }
    let entry = (format!("{RETIRED}{what}"), scope_kind.clone(), elements.clone(), space.clone());
    tx.set(&schema_key(root, name), &packed(&entry));
    tx.clear(&state_key(root, name));
    write_removal(tx, root, name, &Progress::default());
    Ok(true)
}

/// Returns the names of the retired indexes that have entries.
pub(crate) async fn retired_with_entries(
    database: &engine::Database,
    root: &Root,
) -> Result<Vec<String>> {
    let prefix = root.key(&(META.to_owned(), RETIRED_KIND.to_owned()));
    let (prefix, range) = (&prefix, &KeyRange::tuples(&prefix));
    let read = |tx: engine::Transaction| async move {
        let query = RangeQuery::new(range.begin.clone(), range.end.clone());
        let rows = tx.snapshot().get_range(&query).await?.rows;
        let name = |row: &engine::KeyValue| unpack_meta(root, &row.key, &row.key[prefix.len()..]);
        rows.iter().map(name).collect()
    };
    database.run(read).await
}

/// Returns the names of all retired indexes.
pub(crate) async fn retired_names(
    database: &engine::Database,
    root: &Root,
) -> Result<BTreeSet<String>> {
    let stored = database.run(|tx| async move { stored_entries(&tx, root).await }).await?;
    let retired = stored.into_iter().filter(|(_, (what, ..))| what.starts_with(RETIRED));
    Ok(retired.map(|(name, _)| name).collect())
}

/// Returns the scope of a retired index's entries and the progress of their removal; `None` if it
/// has no entries.
pub(super) async fn read_removal(
    tx: &engine::Transaction,
    root: &Root,
    name: &str,
) -> Result<Option<(ScopeKind, Progress)>> {
    let Some((position, examined)) = read_meta(tx, root, &removal_key(root, name)).await? else {
        return Ok(None);
    };
    let stored: Option<StoredEntry> = read_meta(tx, root, &schema_key(root, name)).await?;
    let Some((_, scope_kind, ..)) = stored.filter(|(what, ..)| what.starts_with(RETIRED)) else {
        let message = format!("index {name} has a removal record, but is not retired");
        return Err(Error::new(ErrorKind::Corrupt, message));
    };
    let scope_kind = if scope_kind == "tenant" { ScopeKind::Tenant } else { ScopeKind::Global };
    Ok(Some((scope_kind, Progress { position, examined })))
}

pub(super) fn write_removal(
    tx: &engine::Transaction,
    root: &Root,
    name: &str,
    progress: &Progress,
) {
    let value = packed(&(progress.position.clone(), progress.examined));
    tx.set(&removal_key(root, name), &value);
}

pub(super) fn end_removal(tx: &engine::Transaction, root: &Root, name: &str) {
    tx.clear(&removal_key(root, name));
}

/// Checks a row `("meta", …rest)` of another store against this program's declarations.
///
/// # Errors
///
/// `SchemaMismatch` with the name; `NewerFormat` if it is an undeclared index of a declared
/// subspace; `Corrupt` if it cannot be decoded.
pub(crate) fn admit(schema: &Schema, rest: &[u8], value: &[u8]) -> Result<()> {
    let mut name = rest;
    if String::unpack(&mut name)? != "schema" {
        return Ok(());
    }
    let (name, stored): (String, StoredEntry) = (unpack_all(name)?, unpack_all(value)?);
    match schema.named(&name) {
        Some(declared) if declared.to_stored() == stored => Ok(()),
        Some(declared) if stored.0.starts_with(RETIRED) => Err(retired(declared.name)),
        Some(declared) => Err(redeclared(declared, &stored)),
        None if stored.0.starts_with(RETIRED) => Ok(()),
        None => match schema.entity(&stored.3) {
            Some(declaration) => Err(unknown(declaration.space, &name)),
            None => Ok(()),
        },
    }
}

/// Checks that the state of an index can be decoded.
pub(crate) fn check_index_state(value: &[u8]) -> Result<()> {
    State::unpack(value).map(|_| ())
}

/// Returns the state of each declared index, for display.
pub(crate) async fn index_states(store: &Store) -> Result<Vec<(&'static str, String)>> {
    let read = |tx: engine::Transaction| async move {
        let tx = &tx;
        let state = |index: &'static str| async move {
            Ok((index, read_state(tx, store.root(), index).await?))
        };
        map_concurrent(store.schema().index_names(), state).await
    };
    let shown = |state| match state {
        State::Readable => "readable".to_owned(),
        State::WriteOnly(at) => format!("building: {} records examined", at.examined),
        State::Recount(at) => format!("recounting: {} records examined", at.examined),
    };
    let states = store.database().run(read).await?.into_iter();
    Ok(states.map(|(name, state)| (name, shown(state))).collect())
}

/// Returns whether a subspace has records, or may have: the search is bounded.
async fn has_records(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
    space: &str,
) -> Result<bool> {
    let scope_kind =
        schema.entity(space).map_or(ScopeKind::Tenant, |declaration| declaration.scope_kind);
    let first = BatchSize::new(1).attempt();
    let piece = Walk { root, scope_kind, name: space }.piece(tx, b"", first, 1).await?;
    Ok(!piece.rows.is_empty() || piece.next.is_some())
}

/// Reads the state of an index.
pub(super) async fn read_state(
    tx: &engine::Transaction,
    root: &Root,
    index: &str,
) -> Result<State> {
    let key = state_key(root, index);
    State::of(tx.get(&key).await?).map_err(|cause| damaged_meta(root, &key, cause))
}

pub(super) fn write_state(tx: &engine::Transaction, root: &Root, index: &str, state: &State) {
    tx.set(&state_key(root, index), &state.pack());
}

/// Increments the epoch: transactions that have read it conflict, and later ones reload the
/// catalog.
pub(super) async fn advance_epoch(tx: &engine::Transaction, root: &Root) -> Result<()> {
    let key = epoch_key(root);
    // Only a changed value matters, and an archive can have any.
    let epoch = read_epoch(tx, root, &key).await?.wrapping_add(1);
    tx.set(&key, &packed(&epoch));
    Ok(())
}

async fn read_epoch(tx: &engine::Transaction, root: &Root, epoch_key: &[u8]) -> Result<u64> {
    let bytes = tx.get(epoch_key).await?;
    bytes.map_or(Ok(0), |bytes| unpack_meta(root, epoch_key, &bytes))
}

/// Reads and decodes a record of the store's metadata.
async fn read_meta<P: KeyPart>(
    tx: &engine::Transaction,
    root: &Root,
    key: &[u8],
) -> Result<Option<P>> {
    tx.get(key).await?.map(|value| unpack_meta(root, key, &value)).transpose()
}

/// Decodes a record of the store's metadata.
///
/// # Errors
///
/// `Corrupt` with the record's key.
pub(crate) fn unpack_meta<P: KeyPart>(root: &Root, key: &[u8], value: &[u8]) -> Result<P> {
    unpack_all(value).map_err(|cause| damaged_meta(root, key, cause))
}

fn damaged_meta(root: &Root, key: &[u8], cause: Error) -> Error {
    if cause.kind() != ErrorKind::Corrupt {
        return cause;
    }
    let message = format!(
        "the store's record {} cannot be decoded: restore the store from an archive",
        Readable::key(root, key)
    );
    Error::new(ErrorKind::Corrupt, message).with_source(cause)
}

/// A stored declaration: kind, scope, elements, subspace.
type StoredEntry = (String, String, String, String);

async fn stored_entries(
    tx: &engine::Transaction,
    root: &Root,
) -> Result<BTreeMap<String, StoredEntry>> {
    let prefix = root.key(&(META.to_owned(), "schema".to_owned()));
    let range = KeyRange::tuples(&prefix);
    let rows = tx.get_range(&RangeQuery::new(range.begin, range.end)).await?.rows;
    let read = |row: &engine::KeyValue| {
        let name = unpack_meta(root, &row.key, &row.key[prefix.len()..])?;
        Ok((name, unpack_meta(root, &row.key, &row.value)?))
    };
    rows.iter().map(read).collect()
}

async fn load(
    tx: &engine::Transaction,
    root: &Root,
    schema: &Schema,
    epoch: u64,
) -> Result<CatalogSnapshot> {
    let stored = stored_entries(tx, root).await?;
    let unknown = unknown_indexes(schema, &stored, |_| false);
    let is_retired = |declared: &&SchemaEntry| {
        stored.get(declared.name).is_some_and(|(what, ..)| what.starts_with(RETIRED))
    };
    let retired = schema.declared().filter(is_retired);
    let retired = retired.map(|declared| (declared.space, declared.name)).collect();
    let foreign = foreign_index(schema, &stored);
    let state = |index: &'static str| async move {
        // The position may change later: callers that need the current one read it.
        let key = state_key(root, index);
        let bytes = tx.snapshot().get(&key).await?;
        Ok((index, State::of(bytes).map_err(|cause| damaged_meta(root, &key, cause))?))
    };
    let states = map_concurrent(schema.index_names(), state).await?.into_iter();
    let unsettled = states.filter(|(_, state)| *state != State::Readable).collect();
    Ok(CatalogSnapshot { epoch, unsettled, unknown, retired, foreign })
}

fn unknown_indexes(
    schema: &Schema,
    stored: &BTreeMap<String, StoredEntry>,
    given_up: impl Fn(&str) -> bool,
) -> BTreeMap<&'static str, String> {
    let names: Vec<&str> = schema.declared().map(|declared| declared.name).collect();
    let others = stored.iter().filter(|(name, _)| !names.contains(&name.as_str()));
    let of_ours = |(name, stored): (&String, &StoredEntry)| {
        if stored.0.starts_with(RETIRED) || given_up(name) {
            return None;
        }
        Some((schema.entity(&stored.3)?.space, name.clone()))
    };
    others.filter_map(of_ours).collect()
}

fn foreign_index(schema: &Schema, stored: &BTreeMap<String, StoredEntry>) -> Option<String> {
    let is_foreign = |(name, (what, _, _, space)): &(&String, &StoredEntry)| {
        let of_tenants =
            stored.get(space).is_none_or(|(_, scope_kind, _, _)| scope_kind == "tenant");
        let is_maintained = *name != space && !what.starts_with(RETIRED);
        schema.entity(space).is_none() && is_maintained && of_tenants
    };
    stored.iter().find(is_foreign).map(|(name, _)| name.clone())
}

impl SchemaEntry {
    fn to_stored(&self) -> StoredEntry {
        let scope_kind = match self.scope_kind {
            ScopeKind::Tenant => "tenant",
            ScopeKind::Global => "global",
        };
        (
            self.kind_name.to_owned(),
            scope_kind.to_owned(),
            self.elements.clone(),
            self.space.to_owned(),
        )
    }
}

impl State {
    fn pack(&self) -> Vec<u8> {
        let (name, progress) = match self {
            Self::Readable => ("readable", &Progress::default()),
            Self::WriteOnly(progress) => ("write-only", progress),
            Self::Recount(progress) => ("recount", progress),
        };
        packed(&(name.to_owned(), progress.position.clone(), progress.examined))
    }

    /// Decodes a stored state; an index without one is not built.
    fn of(stored: Option<Vec<u8>>) -> Result<Self> {
        stored.map_or(Ok(Self::WriteOnly(Progress::default())), |bytes| Self::unpack(&bytes))
    }

    fn unpack(bytes: &[u8]) -> Result<Self> {
        let (name, position, examined): (String, Vec<u8>, u64) = unpack_all(bytes)?;
        let progress = Progress { position, examined };
        match name.as_str() {
            "readable" => Ok(Self::Readable),
            "write-only" => Ok(Self::WriteOnly(progress)),
            "recount" => Ok(Self::Recount(progress)),
            _ => {
                let message = format!("an index has unknown state {name:?}");
                Err(Error::new(ErrorKind::NewerFormat, message))
            }
        }
    }
}

impl Progress {
    /// Returns whether the record `key` is processed.
    pub(super) fn is_past(&self, root: &Root, key: &[u8]) -> bool {
        key.strip_prefix(root.as_bytes()).is_some_and(|key| key < self.position.as_slice())
    }
}

fn epoch_key(root: &Root) -> Vec<u8> {
    root.key(&(META.to_owned(), "epoch".to_owned()))
}

fn schema_key(root: &Root, name: &str) -> Vec<u8> {
    root.key(&(META.to_owned(), "schema".to_owned(), name.to_owned()))
}

/// Element of the keys of removals.
pub(crate) const RETIRED_KIND: &str = "retired";

fn removal_key(root: &Root, index: &str) -> Vec<u8> {
    root.key(&(META.to_owned(), RETIRED_KIND.to_owned(), index.to_owned()))
}

fn state_key(root: &Root, index: &str) -> Vec<u8> {
    root.key(&(META.to_owned(), "index".to_owned(), index.to_owned()))
}
