//! What a store keeps of its own declarations: how each name is declared, and how far each index is.
//!
//! ```text
//! ("meta", "schema", name) → (what it is, place, "label:type,…", space)
//! ("meta", "retired", name) → (position, entries removed)   while a retired index has entries
//! ("meta", "index", name)  → (state, position, records examined)
//! ("meta", "epoch")        → counted up by every change of the above but a position's
//! ```
//!
//! What stays true:
//!
//! - Every transaction that writes a record reads the epoch, and conflicts with a change of it. What
//!   a store has cached is used only if it is of that epoch, and is read anew, in that transaction,
//!   if not. So no record is written by what was declared before: an index is maintained by all that
//!   commit after it was declared, whichever process they are in.
//! - A program that does not know an index of a space does not write there: an older one, still
//!   running, is refused instead of leaving entries out.
//! - An index that is readable stays so until it is retired. Readers may trust a cached state that
//!   says it, and read nothing; one that says it is not is read anew.
//! - A name keeps its declaration: place, form, space, and the names and types of its elements. An
//!   index is retired by a mark in front of its form, for good: programs that declare it are refused,
//!   and those that do not may write without it.
//! - A cached state is trusted by readers for [`CACHE_LIFETIME`] after a transaction has confirmed it;
//!   entries of a retired index are removed only when that is over everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::{Context, walk::Walk};
use crate::{
    BatchSize, Error, ErrorKind, Result, Store, archive,
    batch::map_concurrent,
    engine::{self, RangeQuery},
    entity::{Declared, META, Registry},
    keyspace::{KeyPart, KeyRange, Place, Position, Root, packed, unpack_all},
    store,
};

/// How far an index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has all entries.
    Readable,
    /// It is maintained, and its build has come to `position`.
    WriteOnly(Progress),
    /// It has all entries, and what it counts is being counted anew beside.
    Recount(Progress),
}

/// How far a walk through the records is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// All records before this key, without the root, are behind.
    pub(super) position: Vec<u8>,
    /// How many records those were.
    pub(super) examined: u64,
}

/// How long readers trust what is cached without looking at the epoch.
pub(super) const CACHE_LIFETIME: Duration = Duration::from_secs(30);

/// What stands in front of the form of a retired index, in its schema.
const RETIRED: &str = "retired ";

/// The position of a walk that is through: past all keys.
pub(super) const END: &[u8] = b"\xff";

/// What is cached of the catalog.
#[derive(Debug)]
pub(crate) struct Catalog {
    known: ArcSwapOption<Known>,
    /// When a transaction last found the epoch to be that of `known`.
    confirmed: Mutex<Option<Instant>>,
    /// Every transaction that writes reads it.
    epoch_key: Vec<u8>,
}

/// The catalog at one epoch, as far as it is of this program's declarations.
#[derive(Debug)]
pub(crate) struct Known {
    epoch: u64,
    /// Of each declared index that is not merely readable. Positions are as they were then.
    unsettled: BTreeMap<&'static str, State>,
    /// The spaces of this program's that have an index that it does not know, with its name.
    unknown: BTreeMap<&'static str, String>,
    /// The indexes of this program's that another one has retired, each after its space.
    retired: Vec<(&'static str, &'static str)>,
    /// An index of a tenant's space that is another program's alone, if there is one.
    foreign: Option<String>,
}

impl Catalog {
    pub(crate) fn new(root: &Root) -> Self {
        let confirmed = Mutex::default();
        Self { known: ArcSwapOption::empty(), confirmed, epoch_key: epoch_key(root) }
    }

    /// The catalog as `tx` sees it. One read, more if it has changed.
    pub(super) async fn known(
        &self,
        tx: &engine::Transaction,
        context: &Context,
    ) -> Result<Arc<Known>> {
        let asked = Instant::now();
        let epoch = read_epoch(tx, &self.epoch_key).await?;
        if let Some(cached) = self.known.load_full().filter(|cached| cached.epoch == epoch) {
            self.confirm(asked);
            return Ok(cached);
        }
        let known = Arc::new(load(tx, &context.root, &context.registry, epoch).await?);
        self.known.rcu(|cached| match cached {
            Some(cached) if cached.epoch >= epoch => Arc::clone(cached),
            _ => Arc::clone(&known),
        });
        self.confirm(asked);
        Ok(known)
    }

    /// Notes that what is cached was of the present epoch at `at`, or later.
    ///
    /// A transaction may have begun up to its lifetime ago: that is little beside the time by which
    /// a removal waits for longer than [`CACHE_LIFETIME`].
    fn confirm(&self, at: Instant) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *confirmed = confirmed.max(Some(at));
    }

    /// Returns whether an index is known to be readable without a read.
    pub(super) fn was_readable(&self, index: &'static str) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        confirmed.is_some_and(|at| at.elapsed() < CACHE_LIFETIME)
            && self.known.load().as_ref().is_some_and(|known| known.is_readable(index))
    }
}

impl Known {
    pub(super) fn is_readable(&self, index: &'static str) -> bool {
        !matches!(self.unsettled.get(index), Some(State::WriteOnly(_))) && !self.is_retired(index)
    }

    /// Returns whether another program has given the index up.
    pub(super) fn is_retired(&self, index: &'static str) -> bool {
        self.retired.iter().any(|(_, retired)| *retired == index)
    }

    pub(super) fn is_settled(&self, index: &'static str) -> bool {
        !self.unsettled.contains_key(index)
    }

    /// Refuses to write where there is an index that this program does not know, or should no longer
    /// declare.
    pub(super) fn require_known(&self, space: &'static str) -> Result<()> {
        if let Some((_, index)) = self.retired.iter().find(|(of, _)| *of == space) {
            return Err(retired(index));
        }
        self.unknown.get(space).map_or(Ok(()), |index| Err(unknown(space, index)))
    }

    /// Refuses to clear what may be another program's records.
    pub(super) fn require_nothing_foreign(&self) -> Result<()> {
        self.require_all_known()?;
        self.foreign.as_ref().map_or(Ok(()), |index| Err(unknown("another program's space", index)))
    }

    /// Refuses to write anywhere if there is an index that this program does not know.
    pub(super) fn require_all_known(&self) -> Result<()> {
        self.unknown.first_key_value().map_or(Ok(()), |(space, index)| Err(unknown(space, index)))
    }
}

/// Compares the declarations with those that are stored, and stores new ones: an index of a space
/// that may have records begins [`WriteOnly`](State::WriteOnly), any other readable.
///
/// # Errors
///
/// `SchemaMismatch` with the name of what was something else before, of an index that was retired, or of a
/// new index of a log that has records; `NewerFormat` if a space has an index that is neither declared
/// nor retired.
pub(crate) async fn settle(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
) -> Result<()> {
    let stored = schema(tx, root).await?;
    let mut changed = false;
    for declared in registry.declared() {
        match stored.get(declared.name) {
            Some(schema) if *schema == declared.schema() => continue,
            Some(stored) if stored.0.starts_with(RETIRED) => return Err(retired(declared.name)),
            Some(stored) => return Err(redeclared(declared, stored)),
            None => changed = true,
        }
        if declared.is_log_index()
            && stored.contains_key(declared.space)
            && has_records(tx, root, registry, declared.space).await?
        {
            let message = format!(
                "index {} is new, and log {} has records: an index of a log is there from its \
                 beginning, or not at all",
                declared.name, declared.space
            );
            return Err(Error::new(ErrorKind::SchemaMismatch(declared.name), message));
        }
        tx.set(&schema_key(root, declared.name), &packed(&declared.schema()));
        if declared.is_index() {
            let old = stored.contains_key(declared.space);
            let state = if old && has_records(tx, root, registry, declared.space).await? {
                State::WriteOnly(Progress::default())
            } else {
                State::Readable
            };
            write_state(tx, root, declared.name, &state);
        }
    }
    let given_up = |name: &str| registry.retired().contains(&name);
    if let Some((space, index)) = unknown_indexes(registry, &stored, given_up).into_iter().next() {
        return Err(unknown(space, &index));
    }
    for name in registry.retired() {
        changed |= retire(tx, root, registry, name, stored.get(*name))?;
    }
    if changed {
        advance_epoch(tx, root).await?;
    }
    Ok(())
}

/// Marks an index as retired; returns whether it was not yet. One that the store never had is left
/// alone.
fn retire(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
    name: &'static str,
    stored: Option<&Schema>,
) -> Result<bool> {
    let Some((what, place, elements, space)) = stored else { return Ok(false) };
    if name == space.as_str() || registry.declaration(space).is_none() {
        let message = format!("{name:?} is no index of an entity or log that is declared here");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if what.starts_with(RETIRED) {
        return Ok(false);
    }
    let schema = (format!("{RETIRED}{what}"), place.clone(), elements.clone(), space.clone());
    tx.set(&schema_key(root, name), &packed(&schema));
    tx.clear(&state_key(root, name));
    write_removal(tx, root, name, &Progress::default());
    Ok(true)
}

/// Returns the names of the retired indexes of which entries are left.
pub(crate) async fn retired_with_entries(
    database: &engine::Database,
    root: &Root,
) -> Result<Vec<String>> {
    let prefix = root.key(&(META.to_owned(), RETIRED_KIND.to_owned()));
    let (prefix, range) = (&prefix, &KeyRange::tuples(&prefix));
    let read = |tx: engine::Transaction| async move {
        let query = RangeQuery::new(range.begin.clone(), range.end.clone());
        let rows = tx.snapshot().get_range(&query).await?.rows;
        rows.iter().map(|row| unpack_all(&row.key[prefix.len()..])).collect()
    };
    database.run(read).await
}

/// Returns the names of all retired indexes, those whose entries are gone too.
pub(crate) async fn retired_names(
    database: &engine::Database,
    root: &Root,
) -> Result<BTreeSet<String>> {
    let stored = database.run(|tx| async move { schema(&tx, root).await }).await?;
    let retired = stored.into_iter().filter(|(_, (what, ..))| what.starts_with(RETIRED));
    Ok(retired.map(|(name, _)| name).collect())
}

/// Returns where the entries of a retired index lie, and how far their removal is; `None` if it has
/// none.
pub(super) async fn read_removal(
    tx: &engine::Transaction,
    root: &Root,
    name: &str,
) -> Result<Option<(Place, Progress)>> {
    let Some(progress) = tx.get(&removal_key(root, name)).await? else { return Ok(None) };
    let schema: Option<Schema> =
        tx.get(&schema_key(root, name)).await?.map(|schema| unpack_all(&schema)).transpose()?;
    let Some((_, place, ..)) = schema.filter(|(what, ..)| what.starts_with(RETIRED)) else {
        let message = format!("index {name} is being removed, and is not retired");
        return Err(Error::new(ErrorKind::Corrupt, message));
    };
    let place = if place == "tenant" { Place::Tenant } else { Place::Global };
    let (position, examined) = unpack_all(&progress)?;
    Ok(Some((place, Progress { position, examined })))
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

/// Refuses a row of another store's catalog, `("meta", …rest)`, that is not as this program declares
/// it.
///
/// # Errors
///
/// `SchemaMismatch` with the name; `NewerFormat` if it is an index of a space that is declared here, and
/// is not; `Corrupt` if it cannot be read.
pub(super) fn admit(registry: &Registry, rest: &[u8], value: &[u8]) -> Result<()> {
    let mut name = rest;
    if String::unpack(&mut name)? != "schema" {
        return Ok(());
    }
    let (name, stored): (String, Schema) = (unpack_all(name)?, unpack_all(value)?);
    match registry.named(&name) {
        Some(declared) if declared.schema() == stored => Ok(()),
        Some(declared) if stored.0.starts_with(RETIRED) => Err(retired(declared.name)),
        Some(declared) => Err(redeclared(declared, &stored)),
        None if stored.0.starts_with(RETIRED) => Ok(()),
        None => match registry.declaration(&stored.3) {
            Some(declaration) => Err(unknown(declaration.space, &name)),
            None => Ok(()),
        },
    }
}

/// Refuses a row `("meta", …rest)` that cannot be read, or contradicts what is declared.
///
/// # Errors
///
/// `Corrupt`, `SchemaMismatch` or `NewerFormat`.
pub(super) fn check_row(registry: &Registry, rest: &[u8], value: &[u8]) -> Result<()> {
    let mut after = rest;
    let kind = String::unpack(&mut after)?;
    let name = || unpack_all::<String>(after);
    let known = |name: String| {
        let index = registry.named(&name).filter(|declared| declared.is_index());
        index.map(|_| ()).ok_or_else(|| {
            Error::new(ErrorKind::NewerFormat, format!("no index {name:?} is declared"))
        })
    };
    match kind.as_str() {
        "format" => {
            unpack_all::<()>(after)?;
            store::check_format(value)
        }
        "schema" => {
            name()?;
            admit(registry, rest, value)
        }
        "index" => {
            State::unpack(value)?;
            known(name()?)
        }
        RETIRED_KIND => {
            name()?;
            unpack_all::<(Vec<u8>, u64)>(value).map(|_| ())
        }
        "recount" => {
            known(String::unpack(&mut after)?)?;
            let number = <[u8; 8]>::try_from(value).map(|_| ());
            number.map_err(|_| Error::new(ErrorKind::Corrupt, "a count is no number"))
        }
        "epoch" => {
            unpack_all::<()>(after)?;
            unpack_all::<u64>(value).map(|_| ())
        }
        "last_append" => {
            unpack_all::<()>(after)?;
            unpack_all::<Position>(value).map(|_| ())
        }
        "import" => {
            unpack_all::<()>(after)?;
            archive::check_marker(value)
        }
        other => {
            let message = format!("the store keeps nothing under {other:?}");
            Err(Error::new(ErrorKind::NewerFormat, message))
        }
    }
}

/// How far each declared index is, for people.
pub(crate) async fn index_states(store: &Store) -> Result<Vec<(&'static str, String)>> {
    let read = |tx: engine::Transaction| async move {
        let tx = &tx;
        let state = |index: &'static str| async move {
            Ok((index, read_state(tx, store.root(), index).await?))
        };
        map_concurrent(store.registry().index_names(), state).await
    };
    let shown = |state| match state {
        State::Readable => "readable".to_owned(),
        State::WriteOnly(at) => format!("being built: {} records so far", at.examined),
        State::Recount(at) => format!("being counted anew: {} records so far", at.examined),
    };
    let states = store.database().run(read).await?.into_iter();
    Ok(states.map(|(name, state)| (name, shown(state))).collect())
}

/// Whether a space has records, or may have: it is not looked for long.
async fn has_records(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
    space: &str,
) -> Result<bool> {
    let place = registry.declaration(space).map_or(Place::Tenant, |declaration| declaration.place);
    let first = BatchSize::new(1).attempt();
    let piece = Walk { root, place, name: space }.piece(tx, b"", first, 1).await?;
    Ok(!piece.rows.is_empty() || piece.next.is_some())
}

/// How an index is, in `tx`.
pub(super) async fn read_state(
    tx: &engine::Transaction,
    root: &Root,
    index: &str,
) -> Result<State> {
    State::of(tx.get(&state_key(root, index)).await?)
}

pub(super) fn write_state(tx: &engine::Transaction, root: &Root, index: &str, state: &State) {
    tx.set(&state_key(root, index), &state.pack());
}

/// Makes all that have read the epoch conflict, and all that come later read the catalog anew.
pub(super) async fn advance_epoch(tx: &engine::Transaction, root: &Root) -> Result<()> {
    let key = epoch_key(root);
    let epoch = read_epoch(tx, &key).await? + 1;
    tx.set(&key, &packed(&epoch));
    Ok(())
}

async fn read_epoch(tx: &engine::Transaction, epoch_key: &[u8]) -> Result<u64> {
    let bytes = tx.get(epoch_key).await?;
    bytes.map_or(Ok(0), |bytes| unpack_all(&bytes))
}

/// What is declared under a name: what it is, its place, its elements, its space.
type Schema = (String, String, String, String);

async fn schema(tx: &engine::Transaction, root: &Root) -> Result<BTreeMap<String, Schema>> {
    let prefix = root.key(&(META.to_owned(), "schema".to_owned()));
    let range = KeyRange::tuples(&prefix);
    let rows = tx.get_range(&RangeQuery::new(range.begin, range.end)).await?.rows;
    let read = |row: &engine::KeyValue| {
        let name = unpack_all(&row.key[prefix.len()..])?;
        Ok((name, unpack_all(&row.value)?))
    };
    rows.iter().map(read).collect()
}

async fn load(
    tx: &engine::Transaction,
    root: &Root,
    registry: &Registry,
    epoch: u64,
) -> Result<Known> {
    let stored = schema(tx, root).await?;
    let unknown = unknown_indexes(registry, &stored, |_| false);
    let is_retired = |declared: &&Declared| {
        stored.get(declared.name).is_some_and(|(what, ..)| what.starts_with(RETIRED))
    };
    let retired = registry.declared().filter(is_retired);
    let retired = retired.map(|declared| (declared.space, declared.name)).collect();
    let foreign = foreign_index(registry, &stored);
    let state = |index: &'static str| async move {
        // A position may change meanwhile: a caller that needs the present one reads it.
        let bytes = tx.snapshot().get(&state_key(root, index)).await?;
        Ok((index, State::of(bytes)?))
    };
    let states = map_concurrent(registry.index_names(), state).await?.into_iter();
    let unsettled = states.filter(|(_, state)| *state != State::Readable).collect();
    Ok(Known { epoch, unsettled, unknown, retired, foreign })
}

fn unknown_indexes(
    registry: &Registry,
    stored: &BTreeMap<String, Schema>,
    given_up: impl Fn(&str) -> bool,
) -> BTreeMap<&'static str, String> {
    let names: Vec<&str> = registry.declared().map(|declared| declared.name).collect();
    let others = stored.iter().filter(|(name, _)| !names.contains(&name.as_str()));
    let of_ours = |(name, schema): (&String, &Schema)| {
        if schema.0.starts_with(RETIRED) || given_up(name) {
            return None;
        }
        Some((registry.declaration(&schema.3)?.space, name.clone()))
    };
    others.filter_map(of_ours).collect()
}

fn foreign_index(registry: &Registry, stored: &BTreeMap<String, Schema>) -> Option<String> {
    let is_foreign = |(name, (what, _, _, space)): &(&String, &Schema)| {
        let of_tenants = stored.get(space).is_none_or(|(_, place, _, _)| place == "tenant");
        let is_maintained = *name != space && !what.starts_with(RETIRED);
        registry.declaration(space).is_none() && is_maintained && of_tenants
    };
    stored.iter().find(is_foreign).map(|(name, _)| name.clone())
}

impl Declared {
    fn schema(&self) -> Schema {
        let place = match self.place {
            Place::Tenant => "tenant",
            Place::Global => "global",
        };
        (self.what.to_owned(), place.to_owned(), self.elements.clone(), self.space.to_owned())
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

    /// The state that is stored; of which nothing is known, nothing is built.
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
                let message = format!("an index is in the state {name:?}");
                Err(Error::new(ErrorKind::NewerFormat, message))
            }
        }
    }
}

impl Progress {
    /// Whether the record `key` is behind.
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

/// What the keys of removals have in place of a kind.
const RETIRED_KIND: &str = "retired";

fn removal_key(root: &Root, index: &str) -> Vec<u8> {
    root.key(&(META.to_owned(), RETIRED_KIND.to_owned(), index.to_owned()))
}

fn state_key(root: &Root, index: &str) -> Vec<u8> {
    root.key(&(META.to_owned(), "index".to_owned(), index.to_owned()))
}

pub(super) fn not_built(index: &'static str) -> Error {
    Error::new(ErrorKind::IndexBuilding(index), format!("index {index} is not built yet"))
}

fn redeclared(declared: &Declared, stored: &Schema) -> Error {
    let Declared { name, .. } = declared;
    let shown = |(what, place, elements, space): &Schema| {
        format!("{what} ({place}) over ({elements}) in {space:?}")
    };
    let message = format!(
        "schema mismatch for {name:?}: the store has it as {}, this program declares {}; give what \
         has changed a new name",
        shown(stored),
        shown(&declared.schema())
    );
    Error::new(ErrorKind::SchemaMismatch(name), message)
}

/// Returns the error for an index that is declared here and was given up by another program.
pub(super) fn retired(index: &'static str) -> Error {
    let message = format!(
        "index {index} was retired by a newer version of the program, for good: remove its \
         declaration, or give the index a new name"
    );
    Error::new(ErrorKind::SchemaMismatch(index), message)
}

fn unknown(space: &str, index: &str) -> Error {
    let message = format!(
        "{space} has an index, {index}, that this program does not declare: to give it up, open the \
         store with StoreOptions::retire({index:?})"
    );
    Error::new(ErrorKind::NewerFormat, message)
}
