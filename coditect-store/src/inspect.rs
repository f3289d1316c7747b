//! Looking into a store: what it has in which spaces, and its rows for people to read.
//!
//! Keys are shown element by element, records as JSON by their declarations. What is
//! [secret](crate::Entity::SECRETS) is never shown, nor are the values of what is not declared here: it
//! might be.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Error, ErrorKind, Result, Store,
    engine::{CheckedRow, KeyValue, View},
    entity::{Form, META},
    keyspace::{KeyPart, KeyRange, Located, Place, Readable},
    model::TenantId,
    repository::{self, CHUNKS, COUNTERS, PLAIN, SESSION_COUNTERS},
};

/// Rows are read in pages of about so many bytes.
const PAGE_BYTES: usize = 256 << 10;

/// A look into a store: made by [`Store::inspect`].
#[derive(Clone, Debug)]
pub struct Inspect {
    store: Store,
    tenant: Option<TenantId>,
    space: Option<String>,
    key: Vec<u8>,
}

/// A row for people to read.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The key, without the root.
    pub key: Readable,
    /// The name of the space or index that it lies in, if that is declared.
    pub space: Option<&'static str>,
    /// What the value says: a record, a number, what an entry points to.
    pub value: Value,
    /// How long the value is, in bytes.
    pub value_bytes: usize,
}

/// What there is in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The engine's name.
    pub engine: &'static str,
    /// The version that was looked at.
    pub version: u64,
    /// The format of the store.
    pub format: u64,
    /// How many tenants have rows.
    pub tenants: u64,
    /// Each declared space and index, and what there is in it; and `meta`, the counters, and the chunks of blobs.
    pub spaces: Vec<Size>,
    /// Rows of what is not declared here.
    pub unknown: Size,
    /// How far each index is, by its name: `readable`, or what it is waiting for.
    pub indexes: Vec<(&'static str, String)>,
}

/// How much there is under a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// The name.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// How long their keys are together, in bytes.
    pub key_bytes: u64,
    /// How long their values are together, in bytes.
    pub value_bytes: u64,
}

impl Inspect {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, tenant: None, space: None, key: Vec::new() }
    }

    /// Rows of `tenant` alone.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Rows of the space or index named `name` alone.
    #[must_use]
    pub fn space(self, name: impl Into<String>) -> Self {
        Self { space: Some(name.into()), ..self }
    }

    /// Rows alone whose key goes on, after the name of the [space](Self::space), with these
    /// [elements](crate::keyspace::parse_elements).
    #[must_use]
    pub fn key(self, elements: Vec<u8>) -> Self {
        Self { key: elements, ..self }
    }

    /// Shows the first `limit` rows in the order of their keys; gives how many that were.
    ///
    /// # Errors
    ///
    /// `Invalid` if the space is not declared, or a key is asked for without one; those of the engine.
    /// A row that cannot be read is shown with why.
    pub async fn rows(&self, limit: u64, mut show: impl FnMut(Row)) -> Result<u64> {
        let view = self.store.database().view().await?;
        let mut shown = 0;
        let mut at = Vec::new();
        while shown < limit
            && let Some(range) = self.next_range(&view, &at).await?
        {
            at.clone_from(&range.end);
            let mut pages = view.stream(range, PAGE_BYTES);
            while let Some(rows) = pages.next_page().await? {
                for row in rows {
                    if shown == limit {
                        return Ok(shown);
                    }
                    shown += 1;
                    show(self.shown(row));
                }
            }
        }
        Ok(shown)
    }

    /// The next range of what is asked for, from the key `at` on.
    async fn next_range(&self, view: &View, at: &[u8]) -> Result<Option<KeyRange>> {
        let root = self.store.root();
        let Some(space) = &self.space else {
            if !self.key.is_empty() {
                let message = "a key is looked for in a space: say which";
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            let all = self.tenant.map_or_else(|| root.range(), |tenant| root.tenant(tenant));
            return Ok(at.is_empty().then_some(all));
        };
        let within = |scope: &[u8]| {
            let mut key = scope.to_vec();
            space.pack(&mut key);
            key.extend_from_slice(&self.key);
            KeyRange::tuples(&key)
        };
        match (self.place(space)?, self.tenant) {
            (Place::Global, None) => Ok(at.is_empty().then(|| within(root.as_bytes()))),
            (Place::Global, Some(_)) => {
                let message = format!("{space} is no tenant's");
                Err(Error::new(ErrorKind::Invalid, message))
            }
            (Place::Tenant, Some(tenant)) => Ok(at.is_empty().then(|| within(&root.key(&tenant)))),
            (Place::Tenant, None) => {
                let all = root.range();
                let next = next_tenant(view, root, at.max(&all.begin), &all.end).await?;
                // The end of one tenant's range lies in the tenant: on from there.
                let next = match next {
                    Some(tenant) if !at.is_empty() && root.tenant(tenant).contains(at) => {
                        let past = root.tenant(tenant).end;
                        next_tenant(view, root, &past, &all.end).await?
                    }
                    next => next,
                };
                Ok(next.map(|tenant| within(&root.key(&tenant))))
            }
        }
    }

    fn place(&self, name: &str) -> Result<Place> {
        if name == META {
            return Ok(Place::Global);
        }
        if PLAIN.contains(&name) {
            return Ok(Place::Tenant);
        }
        let declared = self.store.registry().named(name);
        declared.map(|declared| declared.place).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("nothing is declared under the name {name:?}"))
        })
    }

    fn shown(&self, row: CheckedRow) -> Row {
        let root = self.store.root();
        let CheckedRow { key, value } = row;
        let shown = Readable::key(root, &key);
        let Some(value) = value else {
            let value = json!({ "unreadable": "the value is not what was written" });
            return Row { key: shown, space: None, value, value_bytes: 0 };
        };
        let value_bytes = value.len();
        let row = KeyValue { key, value };
        let located = Located::of(root, &row.key);
        let (space, value) = located.map_or((None, Value::Null), |at| self.value(at, &row));
        Row { key: shown, space, value, value_bytes }
    }

    fn value(&self, at: Located<'_>, row: &KeyValue) -> (Option<&'static str>, Value) {
        let registry = self.store.registry();
        if at.place() == Place::Global && at.name == META {
            let counted = Readable::new(at.rest).to_string().starts_with("(\"recount\"");
            return (Some(META), if counted { number(&row.value) } else { pointer(&row.value) });
        }
        for counters in [COUNTERS, SESSION_COUNTERS] {
            if at.place() == Place::Tenant && at.name == counters.name() {
                return (Some(counters.name()), number(&row.value));
            }
        }
        if at.place() == Place::Tenant && at.name == CHUNKS.name() {
            return (Some(CHUNKS.name()), json!({ "bytes": row.value.len() }));
        }
        let declared = registry.named(at.name).filter(|declared| declared.place == at.place());
        let Some(declared) = declared else {
            return (None, json!({ "undeclared": format!("{} bytes", row.value.len()) }));
        };
        let value = match declared.form {
            Some(Form::Unique | Form::Multi) => pointer(&row.value),
            Some(Form::Count) => number(&row.value),
            Some(Form::Covering) => json!({ "fields": format!("{} bytes", row.value.len()) }),
            None if declared.is_log_index() => pointer(&row.value),
            None => {
                let declaration = registry.declaration(declared.space);
                let record = declaration.map(|of| (of.show)(self.store.root(), row));
                match record {
                    Some(Ok(record)) => record,
                    Some(Err(error)) => json!({ "unreadable": error.to_string() }),
                    None => Value::Null,
                }
            }
        };
        (Some(declared.name), value)
    }

    /// Counts all rows, and says how far the indexes are. Reads the whole store.
    ///
    /// # Errors
    ///
    /// Those of the engine.
    pub async fn overview(&self) -> Result<Overview> {
        let (store, root) = (&self.store, self.store.root());
        let view = store.database().view().await?;
        let plain = PLAIN.into_iter().map(|name| (name, Place::Tenant));
        let itself = [(META, Place::Global)].into_iter().chain(plain);
        let declared = store.registry().declared().map(|declared| (declared.name, declared.place));
        let names: Vec<_> = itself.chain(declared).collect();
        let size = |&(name, place): &(&'static str, Place)| {
            (name, (place, Size { name: name.to_owned(), ..Size::default() }))
        };
        let mut sizes: BTreeMap<&'static str, (Place, Size)> = names.iter().map(size).collect();
        let mut unknown = Size { name: "undeclared".to_owned(), ..Size::default() };
        let (mut tenants, mut tenant) = (0, None);
        let mut pages = view.stream(root.range(), PAGE_BYTES);
        while let Some(rows) = pages.next_page().await? {
            for row in &rows {
                let located = Located::of(root, &row.key);
                let of = located.and_then(|at| at.tenant);
                if of.is_some() && of != tenant {
                    tenants += 1;
                    tenant = of;
                }
                let size = located.and_then(|at| {
                    let (place, size) = sizes.get_mut(at.name)?;
                    (*place == at.place()).then_some(size)
                });
                let size = size.unwrap_or(&mut unknown);
                size.rows += 1;
                size.key_bytes += row.key.len() as u64;
                size.value_bytes += row.value.as_ref().map_or(0, |value| value.len() as u64);
            }
        }
        let spaces = names.iter().filter_map(|(name, _)| sizes.remove(name)).map(|(_, size)| size);
        let spaces = spaces.collect();
        let indexes = repository::index_states(store).await?;
        let engine = store.database().engine();
        let (version, format) = (view.version(), crate::store::FORMAT);
        Ok(Overview { engine, version, format, tenants, spaces, unknown, indexes })
    }
}

/// The first tenant that has a row from the key `from` on.
async fn next_tenant(
    view: &View,
    root: &crate::keyspace::Root,
    from: &[u8],
    end: &[u8],
) -> Result<Option<TenantId>> {
    // Tenants' keys follow those that are no tenant's.
    let first = root.key(&TenantId(uuid::Uuid::nil()));
    let page = view.page(from.max(&first), end, 1).await?;
    let key = page.rows.first().and_then(|row| row.key.strip_prefix(root.as_bytes()));
    Ok(key.and_then(|mut key| TenantId::unpack(&mut key).ok()))
}

fn pointer(value: &[u8]) -> Value {
    if value.is_empty() { Value::Null } else { Readable::new(value).to_string().into() }
}

fn number(value: &[u8]) -> Value {
    match <[u8; 8]>::try_from(value) {
        Ok(bytes) => i64::from_le_bytes(bytes).into(),
        Err(_) => json!({ "unreadable": "this is no number of eight bytes" }),
    }
}
