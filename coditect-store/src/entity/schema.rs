//! The schema of a store: its entities, event streams and indexes.

use std::any::{TypeId, type_name};

use super::{
    Blob, CHUNKS, COUNTERS, Entity, Entry, EventStream, IndexKind, IndexOf, Indexed, META, PLAIN,
    SESSION_COUNTERS, decode_at, short_name, show, stream, typed,
};
use crate::{
    Error, ErrorKind, Result,
    engine::KeyValue,
    keyspace::{KeyLayout, KeyRange, Located, Root, Scope as _, ScopeKind, Subspace, TenantId},
};

/// The entities and event streams of a [`Store`](crate::Store). Operations on others fail. Names
/// are unique within a schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    entities: Vec<EntitySchema>,
    /// Names of retired indexes.
    retired: Vec<&'static str>,
    tenant_deletion: Option<TenantDeletion>,
}

/// Returns the key that exists while a tenant is being deleted.
type TenantDeletion = fn(&Root, TenantId) -> Vec<u8>;

/// A declared entity or stream, with type-erased access to its rows.
#[derive(Clone, Debug)]
pub(crate) struct EntitySchema {
    type_id: TypeId,
    type_name: &'static str,
    layouts: Vec<KeyLayout>,
    declared: Vec<SchemaEntry>,
    pub(crate) space: &'static str,
    pub(crate) scope_kind: ScopeKind,
    /// Whether it is an event stream, whose keys end with a position.
    pub(crate) is_stream: bool,
    /// Returns the entries of the record in a row, in all indexes.
    pub(crate) entries: fn(&Root, &KeyValue) -> Result<Vec<Entry>>,
    /// Returns the key of the record that an entry of the named index points to.
    pub(crate) record_key: fn(&Root, &str, &KeyValue) -> Result<Vec<u8>>,
    /// Returns the blobs of the record in a row, if the entity has any.
    pub(crate) blobs: Option<Blobs>,
    /// Returns the record in a row as JSON, without its secrets.
    pub(crate) show: fn(&Root, &KeyValue) -> Result<serde_json::Value>,
}

/// Returns the blobs of the record in a row.
type Blobs = fn(&Root, &KeyValue) -> Result<Vec<Blob>>;

/// The declaration of one name.
#[derive(Clone, Debug)]
pub(crate) struct SchemaEntry {
    pub(crate) name: &'static str,
    /// `records`, `stream`, or the kind of an index.
    pub(crate) kind_name: &'static str,
    pub(crate) kind: Option<IndexKind>,
    pub(crate) scope_kind: ScopeKind,
    /// Elements of its keys, each as `label:type`, separated by commas.
    pub(crate) elements: String,
    /// The subspace itself, or the one that it indexes.
    pub(crate) space: &'static str,
}

impl EntitySchema {
    /// Returns its indexes of an entity, which have a build state: names and kinds.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = (&'static str, IndexKind)> {
        self.declared.iter().filter_map(|entry| Some((entry.name, entry.kind?)))
    }

    /// Returns whether its records belong to tenants and have index entries.
    pub(crate) fn is_indexed_in_tenants(&self) -> bool {
        self.scope_kind == ScopeKind::Tenant && self.declared.iter().any(|of| of.name != self.space)
    }

    /// Returns the range of the records of `tenant`.
    pub(crate) fn range(&self, root: &Root, tenant: TenantId) -> KeyRange {
        KeyRange::tuples(&root.named(&tenant, self.space))
    }
}

impl SchemaEntry {
    /// Returns whether it is an index of an entity, which has a build state.
    pub(crate) fn is_index(&self) -> bool {
        self.kind.is_some()
    }

    /// Returns whether it is an index of a stream, which has no build state: it exists from the
    /// stream's first event.
    pub(crate) fn is_stream_index(&self) -> bool {
        self.kind.is_none() && self.name != self.space
    }
}

impl Schema {
    /// Returns an empty schema.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the entity `E`. Idempotent.
    #[must_use]
    pub fn with<E: Entity>(self) -> Self {
        self.declare::<E>(|| EntitySchema {
            type_id: TypeId::of::<E>(),
            type_name: type_name::<E>(),
            layouts: layouts::<E>(),
            declared: declared::<E>(),
            space: E::SPACE.name(),
            scope_kind: E::Scope::KIND,
            is_stream: false,
            entries: entries::<E>,
            record_key: pointed_to::<E>,
            blobs: E::BLOBS.map(|_| blobs::<E> as Blobs),
            show: show::record::<E>,
        })
    }

    /// Adds the event stream `L`. Idempotent.
    #[must_use]
    pub fn with_stream<L: EventStream>(self) -> Self {
        self.declare::<L>(|| EntitySchema {
            type_id: TypeId::of::<L>(),
            type_name: type_name::<L>(),
            layouts: stream::layouts::<L>(short_name::<L>().to_owned()),
            declared: stream::declared::<L>(),
            space: L::SPACE.name(),
            scope_kind: L::Scope::KIND,
            is_stream: true,
            entries: stream::entries::<L>,
            record_key: |root, index, entry| {
                stream::pointed_to::<L>(root, index, entry).ok_or_else(|| undeclared(index))?
            },
            show: show::event::<L>,
            blobs: None,
        })
    }

    /// Adds the entities, streams and retired indexes of `other`.
    #[must_use]
    pub fn extend(mut self, other: Self) -> Self {
        for entity in other.entities {
            if self.entities.iter().all(|own| own.type_id != entity.type_id) {
                self.entities.push(entity);
            }
        }
        self.retired.extend(other.retired);
        self.tenant_deletion = self.tenant_deletion.or(other.tenant_deletion);
        self
    }

    /// Sets the function that returns the key which exists while a tenant is being deleted.
    #[must_use]
    pub(crate) fn with_tenant_deletion(self, key: TenantDeletion) -> Self {
        Self { tenant_deletion: Some(key), ..self }
    }

    /// Returns the key that exists while `tenant` is being deleted, if the schema has one.
    pub(crate) fn tenant_deletion(&self, root: &Root, tenant: TenantId) -> Option<Vec<u8>> {
        self.tenant_deletion.map(|key| key(root, tenant))
    }

    fn declare<T: 'static>(mut self, declaration: impl FnOnce() -> EntitySchema) -> Self {
        if !self.knows::<T>() {
            self.entities.push(declaration());
        }
        self
    }

    /// Returns the layouts of all keys: for each entity its records, then its indexes.
    pub fn layouts(&self) -> Vec<KeyLayout> {
        let records =
            self.entities.iter().flat_map(|declaration| declaration.layouts.iter().cloned());
        let plain = [chunks(), counters(&COUNTERS), counters(&SESSION_COUNTERS)];
        records.chain(plain).chain(meta()).collect()
    }

    /// Returns all entities and streams.
    pub(crate) fn entities(&self) -> impl Iterator<Item = &EntitySchema> {
        self.entities.iter()
    }

    /// Adds `index` to the retired indexes: see
    /// [`StoreOptions::retire`](crate::StoreOptions::retire).
    #[must_use]
    pub(crate) fn retire(mut self, index: &'static str) -> Self {
        self.retired.push(index);
        self
    }

    /// Returns the names of the retired indexes.
    pub(crate) fn retired(&self) -> &[&'static str] {
        &self.retired
    }

    /// Returns all names, each subspace before its indexes.
    pub(crate) fn declared(&self) -> impl Iterator<Item = &SchemaEntry> {
        self.entities.iter().flat_map(|declaration| &declaration.declared)
    }

    /// Returns the names of all indexes of entities, which have a build state.
    pub(crate) fn index_names(&self) -> Vec<&'static str> {
        let indexes = self.declared().filter(|declared| declared.is_index());
        indexes.map(|declared| declared.name).collect()
    }

    /// Returns the index `name`.
    pub(crate) fn index(&self, name: &str) -> Result<&SchemaEntry> {
        let mut indexes = self.declared().filter(|declared| declared.is_index());
        indexes.find(|index| index.name == name).ok_or_else(|| undeclared(name))
    }

    /// Returns the declaration of `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&SchemaEntry> {
        self.declared().find(|declared| declared.name == name)
    }

    /// Returns whether a key holds primary data: a record, an event, a counter or a blob chunk.
    /// Index entries and metadata are derived.
    pub(crate) fn is_original(&self, located: Located<'_>) -> bool {
        if PLAIN.contains(&located.name) {
            return located.scope_kind() == ScopeKind::Tenant;
        }
        let declared = self.named(located.name);
        declared.is_some_and(|declared| {
            declared.name == declared.space && declared.scope_kind == located.scope_kind()
        })
    }

    /// Returns the entity of the subspace `space`.
    pub(crate) fn entity(&self, space: &str) -> Option<&EntitySchema> {
        self.entities.iter().find(|declaration| declaration.space == space)
    }

    fn knows<T: 'static>(&self) -> bool {
        self.entities.iter().any(|declaration| declaration.type_id == TypeId::of::<T>())
    }

    /// Fails with `Invalid` if the entity is not declared.
    pub(crate) fn require<E: Entity>(&self) -> Result<()> {
        self.require_type::<E>()
    }

    /// Fails with `Invalid` if the stream is not declared.
    pub(crate) fn require_stream<L: EventStream>(&self) -> Result<()> {
        self.require_type::<L>()
    }

    fn require_type<T: 'static>(&self) -> Result<()> {
        if self.knows::<T>() {
            return Ok(());
        }
        let name = type_name::<T>();
        Err(Error::new(ErrorKind::Invalid, format!("{name} is not declared in the store's schema")))
    }

    /// Fails with `Invalid` if a name is declared twice.
    pub(crate) fn check(&self) -> Result<()> {
        let itself = "the store itself";
        let own = [META].into_iter().chain(PLAIN);
        let mut names: Vec<_> = own.map(|name| (name, itself)).collect();
        for declaration in &self.entities {
            for layout in &declaration.layouts {
                if let Some((name, other)) = names.iter().find(|(name, _)| *name == layout.name) {
                    let own = declaration.type_name;
                    let message = format!("name {name:?} is declared by both {other} and {own}");
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                names.push((layout.name, declaration.type_name));
            }
        }
        if let Some(name) = self.retired.iter().find(|retired| self.named(retired).is_some()) {
            let message = format!("index {name:?} is both declared and retired");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(())
    }
}

fn declared<E: Entity>() -> Vec<SchemaEntry> {
    let space = E::SPACE.name();
    let records = SchemaEntry {
        name: space,
        kind_name: "records",
        kind: None,
        scope_kind: E::Scope::KIND,
        elements: typed::<E::Key>(E::SPACE.labels()),
        space,
    };
    let index = |index: &&'static dyn IndexOf<E>| SchemaEntry {
        name: index.name(),
        kind_name: index.kind().name(),
        kind: Some(index.kind()),
        scope_kind: index.scope_kind(),
        elements: index.elements(),
        space,
    };
    [records].into_iter().chain(E::INDEXES.iter().map(index)).collect()
}

fn entries<E: Entity>(root: &Root, row: &KeyValue) -> Result<Vec<Entry>> {
    let record: E = decode_at(root, &row.key, &row.value)?;
    let mut entries = Vec::new();
    for index in E::INDEXES {
        index.entries(root, &record, &mut entries)?;
    }
    Ok(entries)
}

fn blobs<E: Entity>(root: &Root, row: &KeyValue) -> Result<Vec<Blob>> {
    let record: E = decode_at(root, &row.key, &row.value)?;
    Ok(E::BLOBS.map_or(Vec::new(), |blobs| blobs(&record)))
}

fn pointed_to<E: Entity>(root: &Root, index: &str, entry: &KeyValue) -> Result<Vec<u8>> {
    let found = E::INDEXES.iter().find(|of| of.name() == index);
    found.ok_or_else(|| undeclared(index))?.record_key(root, entry)
}

fn undeclared(index: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("index {index:?} is not declared in the store's schema"))
}

fn layouts<E: Entity>() -> Vec<KeyLayout> {
    let record = KeyLayout {
        scope_kind: E::Scope::KIND,
        name: E::SPACE.name(),
        elements: E::SPACE.labels().to_vec(),
        value: short_name::<E>().to_owned(),
        note: String::new(),
    };
    let indexes = <E as Indexed>::INDEXES.iter().map(|index| index.layout());
    [record].into_iter().chain(indexes).collect()
}

fn chunks() -> KeyLayout {
    KeyLayout {
        scope_kind: ScopeKind::Tenant,
        name: CHUNKS.name(),
        elements: CHUNKS.labels().to_vec(),
        value: "bytes".to_owned(),
        note: "10,000 bytes, fewer in the last chunk".to_owned(),
    }
}

fn counters(space: &Subspace<TenantId>) -> KeyLayout {
    KeyLayout {
        scope_kind: ScopeKind::Tenant,
        name: space.name(),
        elements: space.labels().to_vec(),
        value: "i64".to_owned(),
        note: "changed by atomic additions; limits are enforced by `records/quota.rs`".to_owned(),
    }
}

/// Returns the layouts of the store's metadata.
fn meta() -> [KeyLayout; 8] {
    let layout = |elements: &[&'static str], value: &str, note: &str| KeyLayout {
        scope_kind: ScopeKind::Global,
        name: META,
        elements: elements.to_vec(),
        value: value.to_owned(),
        note: note.to_owned(),
    };
    [
        layout(&["\"format\""], "(name, version)", "program and format version"),
        layout(
            &["\"schema\"", "name"],
            "(kind, scope, \"label:type,…\", subspace)",
            "declaration of each name; changes only when an index is retired",
        ),
        layout(
            &["\"retired\"", "name"],
            "(position, removed)",
            "progress of removing a retired index's entries; cleared when none are left",
        ),
        layout(&["\"index\"", "name"], "(state, position, examined)", "build state of each index"),
        layout(
            &["\"recount\"", "name", "…"],
            "i64, a count",
            "a counting index's recount during its verification",
        ),
        layout(
            &["\"epoch\""],
            "u64",
            "incremented by each change of declarations and index states",
        ),
        layout(
            &["\"last_append\""],
            "versionstamp",
            "of the last append to a stream; opening a store advances the versions beyond it",
        ),
        layout(
            &["\"import\""],
            "(archive, rows, has tenant, tenant)",
            "progress of an import; a store with it cannot be opened",
        ),
    ]
}
