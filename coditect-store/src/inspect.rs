//! Inspection of a store: its subspaces, and its rows for display.
//!
//! Keys are shown element by element, records as JSON. [Secrets](crate::Entity::SECRETS) and values
//! of undeclared keys, which may be secret, are never shown.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    Error, ErrorKind, Result, Store,
    engine::{CheckedRow, KeyValue, View},
    entity::{CHUNKS, COUNTERS, IndexKind, META, PLAIN, SESSION_COUNTERS},
    keyspace::{KeyPart, KeyRange, Located, Readable, ScopeKind, TenantId},
    records,
};

/// Approximate size of a page of rows, in bytes.
const PAGE_BYTES: usize = 256 << 10;

/// The inspection of a store. Created by [`Store::inspect`].
#[derive(Clone, Debug)]
pub struct Inspect {
    store: Store,
    tenant: Option<TenantId>,
    space: Option<String>,
    key: Vec<u8>,
}

/// A row for display.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Key, without the root.
    pub key: Readable,
    /// Name of the subspace or index, if it is declared.
    pub space: Option<&'static str>,
    /// Value: a record, a number, or the pointer of an entry.
    pub value: Value,
    /// Size of the value, in bytes.
    pub value_bytes: usize,
}

/// The contents of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Name of the engine.
    pub engine: &'static str,
    /// Version of the database.
    pub version: u64,
    /// Format version of the store.
    pub format: u64,
    /// Number of tenants with rows.
    pub tenants: u64,
    /// Size of each declared subspace and index, of `meta`, the counters, and the blob chunks.
    pub spaces: Vec<Size>,
    /// Size of undeclared rows.
    pub unknown: Size,
    /// State of each index, by name: `readable`, or its progress.
    pub indexes: Vec<(&'static str, String)>,
}

/// The size of a subspace or index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Name.
    pub name: String,
    /// Number of rows.
    pub rows: u64,
    /// Total size of the keys, in bytes.
    pub key_bytes: u64,
    /// Total size of the values, in bytes.
    pub value_bytes: u64,
}

impl Store {
    /// Returns an inspection of the store's keys and records.
    pub fn inspect(&self) -> Inspect {
        Inspect::new(self.with_batch_priority("inspect"))
    }
}

impl Inspect {
    fn new(store: Store) -> Self {
        Self { store, tenant: None, space: None, key: Vec::new() }
    }

    /// Shows rows of `tenant` only.
    #[must_use]
    pub fn tenant(self, tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), ..self }
    }

    /// Shows rows of the subspace or index `name` only.
    #[must_use]
    pub fn space(self, name: impl Into<String>) -> Self {
        Self { space: Some(name.into()), ..self }
    }

    /// Shows rows only whose key continues, after the name of the [subspace](Self::space), with
    /// these [elements](crate::keyspace::parse_elements).
    #[must_use]
    pub fn key(self, elements: Vec<u8>) -> Self {
        Self { key: elements, ..self }
    }

    /// Calls `show` for the first `limit` rows in key order, and returns their number.
    ///
    /// # Errors
    ///
    /// `Invalid` if the subspace is not declared, or a key is given without one; errors of the
    /// engine. A row that cannot be decoded is shown with the error.
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

    /// Returns the next selected range from the key `at` on.
    async fn next_range(&self, view: &View, at: &[u8]) -> Result<Option<KeyRange>> {
        let root = self.store.root();
        let Some(space) = &self.space else {
            if !self.key.is_empty() {
                let message = "a key filter needs a subspace";
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
        match (self.scope_kind(space)?, self.tenant) {
            (ScopeKind::Global, None) => Ok(at.is_empty().then(|| within(root.as_bytes()))),
            (ScopeKind::Global, Some(_)) => {
                let message = format!("{space} is global, and has no rows of a tenant");
                Err(Error::new(ErrorKind::Invalid, message))
            }
            (ScopeKind::Tenant, Some(tenant)) => {
                Ok(at.is_empty().then(|| within(&root.key(&tenant))))
            }
            (ScopeKind::Tenant, None) => {
                let all = root.range();
                let next = next_tenant(view, root, at.max(&all.begin), &all.end).await?;
                // The end of a tenant's range is within the tenant: continue after it.
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

    fn scope_kind(&self, name: &str) -> Result<ScopeKind> {
        if name == META {
            return Ok(ScopeKind::Global);
        }
        if PLAIN.contains(&name) {
            return Ok(ScopeKind::Tenant);
        }
        let declared = self.store.schema().named(name);
        declared.map(|declared| declared.scope_kind).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("no subspace or index {name:?} is declared"))
        })
    }

    fn shown(&self, row: CheckedRow) -> Row {
        let root = self.store.root();
        let CheckedRow { key, value } = row;
        let shown = Readable::key(root, &key);
        let Some(value) = value else {
            let value = json!({ "unreadable": "the value has a wrong checksum" });
            return Row { key: shown, space: None, value, value_bytes: 0 };
        };
        let value_bytes = value.len();
        let row = KeyValue { key, value };
        let located = Located::of(root, &row.key);
        let (space, value) = located.map_or((None, Value::Null), |at| self.value(at, &row));
        Row { key: shown, space, value, value_bytes }
    }

    fn value(&self, at: Located<'_>, row: &KeyValue) -> (Option<&'static str>, Value) {
        let schema = self.store.schema();
        if at.scope_kind() == ScopeKind::Global && at.name == META {
            let counted = Readable::new(at.rest).to_string().starts_with("(\"recount\"");
            return (Some(META), if counted { number(&row.value) } else { pointer(&row.value) });
        }
        for counters in [COUNTERS, SESSION_COUNTERS] {
            if at.scope_kind() == ScopeKind::Tenant && at.name == counters.name() {
                return (Some(counters.name()), number(&row.value));
            }
        }
        if at.scope_kind() == ScopeKind::Tenant && at.name == CHUNKS.name() {
            return (Some(CHUNKS.name()), json!({ "bytes": row.value.len() }));
        }
        let declared =
            schema.named(at.name).filter(|declared| declared.scope_kind == at.scope_kind());
        let Some(declared) = declared else {
            return (None, json!({ "undeclared": format!("{} bytes", row.value.len()) }));
        };
        let value = match declared.kind {
            Some(IndexKind::Unique | IndexKind::Multi) => pointer(&row.value),
            Some(IndexKind::Count) => number(&row.value),
            Some(IndexKind::Covering) => json!({ "fields": format!("{} bytes", row.value.len()) }),
            None if declared.is_stream_index() => pointer(&row.value),
            None => {
                let declaration = schema.entity(declared.space);
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

    /// Counts all rows, and returns the states of the indexes. Reads the whole store.
    ///
    /// # Errors
    ///
    /// Errors of the engine.
    pub async fn overview(&self) -> Result<Overview> {
        let (store, root) = (&self.store, self.store.root());
        let view = store.database().view().await?;
        let plain = PLAIN.into_iter().map(|name| (name, ScopeKind::Tenant));
        let itself = [(META, ScopeKind::Global)].into_iter().chain(plain);
        let declared =
            store.schema().declared().map(|declared| (declared.name, declared.scope_kind));
        let names: Vec<_> = itself.chain(declared).collect();
        let size = |&(name, scope_kind): &(&'static str, ScopeKind)| {
            (name, (scope_kind, Size { name: name.to_owned(), ..Size::default() }))
        };
        let mut sizes: BTreeMap<&'static str, (ScopeKind, Size)> = names.iter().map(size).collect();
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
                    let (scope_kind, size) = sizes.get_mut(at.name)?;
                    (*scope_kind == at.scope_kind()).then_some(size)
                });
                let size = size.unwrap_or(&mut unknown);
                size.rows += 1;
                size.key_bytes += row.key.len() as u64;
                size.value_bytes += row.value.as_ref().map_or(0, |value| value.len() as u64);
            }
        }
        let spaces = names.iter().filter_map(|(name, _)| sizes.remove(name)).map(|(_, size)| size);
        let spaces = spaces.collect();
        let indexes = records::index_states(store).await?;
        let engine = store.database().engine();
        let (version, format) = (view.version(), crate::store::FORMAT);
        Ok(Overview { engine, version, format, tenants, spaces, unknown, indexes })
    }
}

/// Returns the first tenant with a row from the key `from` on.
async fn next_tenant(
    view: &View,
    root: &crate::keyspace::Root,
    from: &[u8],
    end: &[u8],
) -> Result<Option<TenantId>> {
    // Keys of tenants follow global ones.
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
        Err(_) => json!({ "unreadable": "not an eight-byte number" }),
    }
}
