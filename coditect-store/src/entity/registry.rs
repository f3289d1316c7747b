//! Which entities a store holds, so that no two of them share a name.

use std::any::{TypeId, type_name};

use futures_util::future::BoxFuture;

use super::{Entity, Entry, Form, IndexOf, Indexed, Log, decode_at, log, short_name, show, typed};
use crate::{
    Blob, Error, ErrorKind, Result, Transaction,
    engine::KeyValue,
    keyspace::{KeyRange, Located, Place, Root, Scope as _, Shape, Space},
    model::{self, TenantId},
    repository::{CHUNKS, COUNTERS, PLAIN, SESSION_COUNTERS},
};

/// The entities that a [`Store`](crate::Store) holds: the product's, and those that were
/// [added](Self::with). A store refuses others, so what is declared here is all that it writes.
#[derive(Clone, Debug)]
pub struct Registry {
    declarations: Vec<Declaration>,
    /// The names of indexes that are given up.
    retired: Vec<&'static str>,
}

/// An entity, and what can be done with its rows by who doesn't know its type.
#[derive(Clone, Debug)]
pub(crate) struct Declaration {
    type_id: TypeId,
    type_name: &'static str,
    shapes: Vec<Shape>,
    declared: Vec<Declared>,
    pub(crate) space: &'static str,
    pub(crate) place: Place,
    /// Whether it is a log, whose records end with their positions.
    pub(crate) is_log: bool,
    /// The entries of all indexes of the record in a row.
    pub(crate) entries: fn(&Root, &KeyValue) -> Result<Vec<Entry>>,
    /// The key of the record that an entry of the index of this name is of.
    pub(crate) record_key: fn(&Root, &str, &KeyValue) -> Result<Vec<u8>>,
    /// The blobs that the record in a row holds, if such records can hold some.
    pub(crate) blobs: Option<Blobs>,
    /// Deletes the record under a key, of a log too, with its entries.
    pub(crate) delete: Delete,
    /// The record in a row for people to read, without what is secret.
    pub(crate) show: fn(&Root, &KeyValue) -> Result<serde_json::Value>,
}

/// How the blobs are told that the record in a row holds.
type Blobs = fn(&Root, &KeyValue) -> Result<Vec<Blob>>;

/// How the record under a key is deleted by who doesn't know its type.
type Delete = for<'a> fn(&'a Transaction, &'a [u8]) -> BoxFuture<'a, Result<()>>;

/// What a name is declared as.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    /// `records`, `log`, or the form of an index.
    pub(crate) what: &'static str,
    pub(crate) form: Option<Form>,
    pub(crate) place: Place,
    /// The elements of its keys, each as `label:type`, with commas between.
    pub(crate) elements: String,
    /// The space that it is, or is an index of.
    pub(crate) space: &'static str,
}

impl Declaration {
    /// Whether its records are a tenant's and have entries somewhere, and cannot go without them.
    pub(crate) fn is_indexed_in_tenants(&self) -> bool {
        self.place == Place::Tenant && self.declared.iter().any(|of| of.name != self.space)
    }

    /// Where the records of `tenant` lie.
    pub(crate) fn range(&self, root: &Root, tenant: TenantId) -> KeyRange {
        KeyRange::tuples(&root.named(&tenant, self.space))
    }
}

impl Declared {
    /// Whether it is an index of an entity, which has a state.
    pub(crate) fn is_index(&self) -> bool {
        self.form.is_some()
    }

    /// Whether it is an index of a log, which has none: it is there from the log's beginning.
    pub(crate) fn is_log_index(&self) -> bool {
        self.form.is_none() && self.name != self.space
    }
}

/// The space of what a store knows about itself.
pub(crate) const META: &str = "meta";

impl Default for Registry {
    fn default() -> Self {
        Self::product()
    }
}

impl Registry {
    /// The product's own entities.
    pub fn product() -> Self {
        Self { declarations: Vec::new(), retired: Vec::new() }
            .with::<model::Tenant>()
            .with::<model::User>()
            .with::<model::AuthSession>()
            .with::<model::Session>()
            .with::<model::SessionState>()
            .with::<model::SessionMemory>()
            .with::<model::ClientState>()
            .with::<model::ClientSequence>()
            .with::<model::File>()
            .with::<model::FileVersion>()
            .with::<model::Draft>()
            .with::<model::DetachedBlob>()
            .with::<model::Conversation>()
            .with_log::<model::Message>()
            .with::<model::Agent>()
            .with::<model::Setting>()
            .with_log::<model::AuditEntry>()
            .with::<model::Ticket>()
            .with::<model::Membership>()
            .with::<model::IdempotencyEntry>()
            .with::<model::Deletion>()
    }

    /// These and `E`; once, however often it is added.
    #[must_use]
    pub fn with<E: Entity>(self) -> Self {
        self.declare::<E>(|| Declaration {
            type_id: TypeId::of::<E>(),
            type_name: type_name::<E>(),
            shapes: shapes::<E>(),
            declared: declared::<E>(),
            space: E::SPACE.name(),
            place: E::Scope::PLACE,
            is_log: false,
            entries: entries::<E>,
            record_key: pointed_to::<E>,
            blobs: E::BLOBS.map(|_| blobs::<E> as Blobs),
            delete: |tx, key| Box::pin(tx.delete_at_key::<E>(key)),
            show: show::record::<E>,
        })
    }

    /// These and the log `L`; once, however often it is added.
    #[must_use]
    pub fn with_log<L: Log>(self) -> Self {
        self.declare::<L>(|| Declaration {
            type_id: TypeId::of::<L>(),
            type_name: type_name::<L>(),
            shapes: log::shapes::<L>(short_name::<L>().to_owned()),
            declared: log::declared::<L>(),
            space: L::SPACE.name(),
            place: L::Scope::PLACE,
            is_log: true,
            entries: log::entries::<L>,
            record_key: |root, index, entry| {
                log::pointed_to::<L>(root, index, entry).ok_or_else(|| undeclared(index))?
            },
            show: show::logged::<L>,
            blobs: None,
            delete: |tx, key| {
                Box::pin(async { tx.delete_logged_at_key::<L>(key).await.map(|_| ()) })
            },
        })
    }

    fn declare<T: 'static>(mut self, declaration: impl FnOnce() -> Declaration) -> Self {
        if !self.knows::<T>() {
            self.declarations.push(declaration());
        }
        self
    }

    /// How all keys look, entity by entity: its records, then its indexes.
    pub fn shapes(&self) -> Vec<Shape> {
        let records =
            self.declarations.iter().flat_map(|declaration| declaration.shapes.iter().cloned());
        let plain = [chunks(), counters(&COUNTERS), counters(&SESSION_COUNTERS)];
        records.chain(plain).chain(meta()).collect()
    }

    /// All entities and logs.
    pub(crate) fn declarations(&self) -> impl Iterator<Item = &Declaration> {
        self.declarations.iter()
    }

    /// Adds `index` to the indexes that are given up: see
    /// [`StoreOptions::retire`](crate::StoreOptions::retire).
    #[must_use]
    pub(crate) fn retire(mut self, index: &'static str) -> Self {
        self.retired.push(index);
        self
    }

    /// Returns the names of the indexes that are given up.
    pub(crate) fn retired(&self) -> &[&'static str] {
        &self.retired
    }

    /// All names, each space before its indexes.
    pub(crate) fn declared(&self) -> impl Iterator<Item = &Declared> {
        self.declarations.iter().flat_map(|declaration| &declaration.declared)
    }

    /// Returns the names of all indexes of entities, which have a state.
    pub(crate) fn index_names(&self) -> Vec<&'static str> {
        let indexes = self.declared().filter(|declared| declared.is_index());
        indexes.map(|declared| declared.name).collect()
    }

    /// The index named `name`.
    pub(crate) fn index(&self, name: &str) -> Result<&Declared> {
        let mut indexes = self.declared().filter(|declared| declared.is_index());
        indexes.find(|index| index.name == name).ok_or_else(|| undeclared(name))
    }

    /// What is declared under `name`.
    pub(crate) fn named(&self, name: &str) -> Option<&Declared> {
        self.declared().find(|declared| declared.name == name)
    }

    /// Whether what lies there is a record, of a log too, a counter, or a chunk of a blob, rather than
    /// derived from one.
    pub(crate) fn is_original(&self, located: Located<'_>) -> bool {
        if PLAIN.contains(&located.name) {
            return located.place() == Place::Tenant;
        }
        let declared = self.named(located.name);
        declared.is_some_and(|declared| {
            declared.name == declared.space && declared.place == located.place()
        })
    }

    /// The entity whose space is `space`.
    pub(crate) fn declaration(&self, space: &str) -> Option<&Declaration> {
        self.declarations.iter().find(|declaration| declaration.space == space)
    }

    fn knows<T: 'static>(&self) -> bool {
        self.declarations.iter().any(|declaration| declaration.type_id == TypeId::of::<T>())
    }

    /// Refuses an entity that was not added.
    pub(crate) fn require<E: Entity>(&self) -> Result<()> {
        self.require_type::<E>()
    }

    /// Refuses a log that was not added.
    pub(crate) fn require_log<L: Log>(&self) -> Result<()> {
        self.require_type::<L>()
    }

    fn require_type<T: 'static>(&self) -> Result<()> {
        if self.knows::<T>() {
            return Ok(());
        }
        let name = type_name::<T>();
        Err(Error::new(ErrorKind::Invalid, format!("{name} was not declared to the store")))
    }

    /// Refuses a name that is used twice.
    pub(crate) fn check(&self) -> Result<()> {
        let itself = "the store itself";
        let own = [META].into_iter().chain(PLAIN);
        let mut names: Vec<_> = own.map(|name| (name, itself)).collect();
        for declaration in &self.declarations {
            for shape in &declaration.shapes {
                if let Some((name, other)) = names.iter().find(|(name, _)| *name == shape.name) {
                    let own = declaration.type_name;
                    let message = format!("the name {name:?} is used by {other} and by {own}");
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                names.push((shape.name, declaration.type_name));
            }
        }
        if let Some(name) = self.retired.iter().find(|retired| self.named(retired).is_some()) {
            let message = format!("{name:?} is declared, and so cannot be retired");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(())
    }
}

fn declared<E: Entity>() -> Vec<Declared> {
    let space = E::SPACE.name();
    let records = Declared {
        name: space,
        what: "records",
        form: None,
        place: E::Scope::PLACE,
        elements: typed::<E::Key>(E::SPACE.labels()),
        space,
    };
    let index = |index: &&'static dyn IndexOf<E>| Declared {
        name: index.name(),
        what: index.form().name(),
        form: Some(index.form()),
        place: index.place(),
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
    Error::new(ErrorKind::Invalid, format!("no index {index:?} was declared to the store"))
}

fn shapes<E: Entity>() -> Vec<Shape> {
    let record = Shape {
        place: E::Scope::PLACE,
        name: E::SPACE.name(),
        elements: E::SPACE.labels().to_vec(),
        value: short_name::<E>().to_owned(),
        note: String::new(),
    };
    let indexes = <E as Indexed>::INDEXES.iter().map(|index| index.shape());
    [record].into_iter().chain(indexes).collect()
}

fn chunks() -> Shape {
    Shape {
        place: Place::Tenant,
        name: CHUNKS.name(),
        elements: CHUNKS.labels().to_vec(),
        value: "bytes".to_owned(),
        note: "10,000 of them, fewer in the last; written and read by `repository/blob`".to_owned(),
    }
}

fn counters(space: &Space<TenantId>) -> Shape {
    Shape {
        place: Place::Tenant,
        name: space.name(),
        elements: space.labels().to_vec(),
        value: "i64".to_owned(),
        note: "changed by atomic additions; kept within limits by `repository/quota.rs`".to_owned(),
    }
}

/// What the store keeps of itself.
fn meta() -> [Shape; 8] {
    let shape = |elements: &[&'static str], value: &str, note: &str| Shape {
        place: Place::Global,
        name: META,
        elements: elements.to_vec(),
        value: value.to_owned(),
        note: note.to_owned(),
    };
    [
        shape(&["\"format\""], "(name, version)", "what wrote the store, and in which layout"),
        shape(
            &["\"schema\"", "name"],
            "(what, place, \"label:type,…\", space)",
            "how each name is declared; changes only when an index is retired",
        ),
        shape(
            &["\"retired\"", "name"],
            "(position, removed)",
            "how far the entries of a retired index are removed; gone when all are",
        ),
        shape(&["\"index\"", "name"], "(state, position, examined)", "how far each index is built"),
        shape(
            &["\"recount\"", "name", "…"],
            "i64, a count",
            "what an index counts, counted anew while it is verified",
        ),
        shape(&["\"epoch\""], "u64", "counts the changes of schema and index states"),
        shape(
            &["\"last_append\""],
            "versionstamp",
            "of the last transaction that appended to a log; opening a store advances the versions past it",
        ),
        shape(
            &["\"import\""],
            "(archive, rows, whether of a tenant, tenant)",
            "how far an import is; while it is there, nobody opens the store",
        ),
    ]
}
