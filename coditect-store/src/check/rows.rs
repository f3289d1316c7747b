//! Pass 1: checks every row against the declaration of its key and the rows that it refers to.
//!
//! **Cost.** Rows are read page by page; the rows that each hundred are compared with are read
//! together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Event, Fault, Finding, Repair, Report, Stage, at_one_version,
    counters::{self, Difference, Tally},
    entry_fault, meta,
    references::{self, Reference},
};
use crate::{
    Error, Result, Store, Transaction,
    batch::MAX_CONCURRENT,
    engine::{AtomicOp, CheckedRow, Consistency, KeyValue, View},
    entity::{BlobId, CHUNKS, COUNTERS, EntitySchema, Entry, META, SESSION_COUNTERS},
    keyspace::{KeyRange, Located, Readable, Root, ScopeKind, TenantId, unpack_all},
    model::{Deleted, Deletion, Tenant},
    records::{
        self, Fault as EntryFault,
        blob::{self, BlobFault},
    },
};

/// Approximate size of a page of rows, in bytes.
const PAGE_BYTES: usize = 256 << 10;

/// Checks all rows under the store's root, and repairs counters if `repair` requests it.
pub(super) async fn check(
    store: &Store,
    repair: Repair,
    report: &mut Report,
    observe: &mut impl FnMut(Event<'_>),
) -> Result<()> {
    let retired = records::retired_names(store.database(), store.root()).await?;
    let view = store.database().view().await?;
    let mut rows = Rows {
        store,
        retired,
        view,
        tenant: None,
        tally: None,
        findings: Vec::new(),
        uncompared: 0,
        differences: Vec::new(),
    };
    let mut pages = rows.view.stream(store.root().range(), PAGE_BYTES);
    while let Some(page) = pages.next_page().await? {
        let mut page = page.into_iter();
        loop {
            let chunk: Vec<CheckedRow> = page.by_ref().take(MAX_CONCURRENT).collect();
            if chunk.is_empty() {
                break;
            }
            report.rows += chunk.len() as u64;
            rows.check_rows(chunk, report).await?;
            rows.tell(report, observe);
        }
        observe(Event::Progress(Stage::Rows, report.rows));
    }
    rows.check_counters(report).await?;
    rows.tell(report, observe);
    if repair == Repair::Derived {
        for (key, difference) in rows.differences {
            let add = difference.to_le_bytes();
            let key = &key;
            // An addition, so that concurrent charges stay counted.
            let correct = |tx: Transaction| async move {
                tx.engine().atomic(AtomicOp::Add, key, &add);
                Ok::<_, Error>(())
            };
            store.run(correct).await?;
            report.repaired += 1;
        }
    }
    Ok(())
}

struct Rows<'a> {
    store: &'a Store,
    /// Names of retired indexes, which may still have entries.
    retired: BTreeSet<String>,
    view: View,
    /// Tenant of the last row, whose record was checked.
    tenant: Option<TenantId>,
    /// Counters of that tenant, unless it is being deleted.
    tally: Option<Tally>,
    /// Findings in the current chunk of rows.
    findings: Vec<Finding>,
    /// Number of rows and blobs of the current chunk that could not be compared at one version.
    uncompared: u64,
    /// Keys of wrong counters, with their corrections.
    differences: Vec<(Vec<u8>, i64)>,
}

/// A check of a row against other rows, which are read together for several checks.
enum Pending {
    /// The entries and the references of a record or event.
    Record { entries: Vec<Entry>, references: Vec<Reference> },
    /// The entry of an event, with the key of its event.
    StreamEntry { index: &'static str, declaration: EntitySchema, record: Option<Vec<u8>> },
}

impl Pending {
    /// Adds the keys that the check reads.
    fn add_keys(&self, keys: &mut BTreeSet<Vec<u8>>) {
        match self {
            Self::Record { entries, references } => {
                keys.extend(entries.iter().map(|entry| entry.key.clone()));
                for reference in references {
                    keys.extend(reference.instead.iter().chain([&reference.key]).cloned());
                }
            }
            Self::StreamEntry { record, .. } => keys.extend(record.clone()),
        }
    }
}

/// Values by key. A damaged value, which is a finding of its own, is empty.
type Values = BTreeMap<Vec<u8>, Vec<u8>>;

impl Rows<'_> {
    /// Reports the findings of the current chunk of rows.
    fn tell(&mut self, report: &mut Report, observe: &mut impl FnMut(Event<'_>)) {
        report.uncompared += std::mem::take(&mut self.uncompared);
        for finding in self.findings.drain(..) {
            report.faults += 1;
            observe(Event::Found(&finding));
        }
    }

    /// Compares the counters of the last tenant with its records, after its last row. Recounts
    /// differing counters if the rows were not read at one version.
    async fn check_counters(&mut self, report: &mut Report) -> Result<()> {
        let Some(tally) = self.tally.take() else { return Ok(()) };
        let mut differences = tally.differences();
        if !differences.is_empty() && self.view.consistency() != Consistency::OneVersion {
            let Some(again) = counters::recount(self.store, tally.tenant).await? else {
                report.uncompared += differences.len() as u64;
                return Ok(());
            };
            differences = again.differences();
        }
        for Difference { counter, value, expected } in differences {
            let name = counter.name();
            let key = COUNTERS.key(self.root(), tally.tenant, &name.to_owned());
            let why = format!("counter {name} is {value}, and its records come to {expected}");
            self.found(Fault::Counter(name), &key, why);
            self.differences.push((key, expected.wrapping_sub(value)));
        }
        Ok(())
    }

    /// Checks `rows` of one tenant after the other, each group with all rows that it is compared
    /// with.
    async fn check_rows(&mut self, rows: Vec<CheckedRow>, report: &mut Report) -> Result<()> {
        let mut pending = Vec::new();
        for CheckedRow { key, value } in rows {
            let Some(value) = value else {
                // It may be a counter, or counted.
                self.tally = None;
                self.found(Fault::Damaged, &key, "the value has a wrong checksum");
                continue;
            };
            let row = KeyValue { key, value };
            let Some(located) = Located::of(self.store.root(), &row.key) else {
                self.found(Fault::UnknownKey, &row.key, "the key has no name");
                continue;
            };
            if located.tenant != self.tenant {
                self.compare(std::mem::take(&mut pending)).await?;
                self.check_counters(report).await?;
                self.check_tenant(located.tenant, &row.key).await?;
            }
            if let Some(check) = self.check_row(located, &row) {
                pending.push((row, check));
            }
        }
        self.compare(pending).await
    }

    /// Reads all rows that `pending` needs in one round, and completes the checks. Rows that seem
    /// faulty are checked again if they were not read at one version.
    async fn compare(&mut self, pending: Vec<(KeyValue, Pending)>) -> Result<()> {
        let suspects = compare_in(&self.view, self.store, pending).await?;
        if suspects.is_empty() || self.view.consistency() == Consistency::OneVersion {
            self.findings.extend(suspects.into_values().flatten());
            return Ok(());
        }
        let store = self.store;
        let keys = &suspects.into_keys().collect::<Vec<_>>();
        let again = |view: View| async move {
            let values = view.get_all(keys).await?;
            let rows = keys.iter().zip(values);
            let pending = rows.filter_map(|(key, value)| {
                let row = KeyValue { key: key.clone(), value: value? };
                let pending = comparison(store, Located::of(store.root(), key)?, &row).ok()??;
                Some((row, pending))
            });
            compare_in(&view, store, pending.collect()).await
        };
        match at_one_version(store, again).await? {
            Some(found) => self.findings.extend(found.into_values().flatten()),
            None => self.uncompared += keys.len() as u64,
        }
        Ok(())
    }

    /// Checks a row by itself, and returns its check against other rows, if any.
    fn check_row(&mut self, located: Located<'_>, row: &KeyValue) -> Option<Pending> {
        match (located.scope_kind(), located.name) {
            (ScopeKind::Global, META) => {
                let checked = meta::check(self.store.schema(), located.rest, &row.value);
                if let Err(error) = checked {
                    self.found(Fault::Meta, &row.key, error.to_string());
                }
                None
            }
            (ScopeKind::Tenant, name) if name == COUNTERS.name() => {
                match counters::of_tenant(located.rest, &row.value) {
                    Ok((name, value)) => {
                        self.tally.iter_mut().for_each(|tally| tally.add_stored(&name, value));
                    }
                    Err(fault) => self.found_counter(fault, &row.key),
                }
                None
            }
            (ScopeKind::Tenant, name) if name == SESSION_COUNTERS.name() => {
                match counters::of_session(located.rest, &row.value) {
                    Ok((name, value)) => {
                        self.tally.iter_mut().for_each(|tally| tally.add_session(&name, value));
                    }
                    Err(fault) => self.found_counter(fault, &row.key),
                }
                None
            }
            (ScopeKind::Tenant, name) if name == CHUNKS.name() => {
                if unpack_all::<(BlobId, u64)>(located.rest).is_err() {
                    self.found(Fault::UnknownKey, &row.key, "malformed key of a blob chunk");
                }
                None
            }
            _ => self.check_declared(located, row),
        }
    }

    fn check_declared(&mut self, located: Located<'_>, row: &KeyValue) -> Option<Pending> {
        let (root, schema) = (self.store.root(), self.store.schema());
        let declared = schema.named(located.name);
        let Some(declared) =
            declared.filter(|declared| declared.scope_kind == located.scope_kind())
        else {
            if self.retired.contains(located.name) {
                return None;
            }
            self.found(Fault::UnknownKey, &row.key, "the name of the key is not declared");
            return None;
        };
        if let Some(tally) = &mut self.tally
            && declared.name == declared.space
        {
            tally.add_record(root, declared.name, row);
        }
        match comparison(self.store, located, row) {
            Ok(pending) => pending,
            Err(error) => {
                self.found(Fault::UnreadableRecord, &row.key, told(&error));
                None
            }
        }
    }

    /// Checks the record and the blobs of the tenant whose first row is at `key`.
    async fn check_tenant(&mut self, tenant: Option<TenantId>, key: &[u8]) -> Result<()> {
        self.tenant = tenant;
        let Some(id) = tenant else { return Ok(()) };
        let (view, store) = (self.view.clone(), self.store);
        let (mut is_there, is_deleted) = tenant_state(&view, store, id).await?;
        if !is_there && view.consistency() != Consistency::OneVersion {
            let again = |view: View| async move {
                let KeyRange { begin, end } = store.root().tenant(id);
                let has_rows = !view.page(&begin, &end, 1).await?.rows.is_empty();
                Ok(tenant_state(&view, store, id).await?.0 || !has_rows)
            };
            is_there = at_one_version(store, again).await?.unwrap_or(true);
        }
        if !is_there {
            let why = format!("tenant {id} of this and the following rows does not exist");
            self.found(Fault::DanglingReference, key, why);
        }
        if is_deleted {
            // Its blobs are removed with it.
            return Ok(());
        }
        let mut suspects = Vec::new();
        let checked =
            blob::check(&view, store.root(), store.schema(), id, |found| suspects.push(found));
        let bytes = checked.await?;
        self.tally = Some(Tally::new(id, bytes));
        let mut found = Vec::new();
        if view.consistency() == Consistency::OneVersion {
            found.extend(suspects.iter().map(|suspect| (suspect.fault, suspect.blob)));
        } else {
            for suspects in suspects.chunks(MAX_CONCURRENT) {
                let again = |view: View| async move {
                    if tenant_state(&view, store, id).await?.1 {
                        return Ok(Vec::new());
                    }
                    blob::confirm(&view, store.root(), store.schema(), id, suspects).await
                };
                match at_one_version(store, again).await? {
                    Some(confirmed) => found.extend(confirmed),
                    None => self.uncompared += suspects.len() as u64,
                }
            }
        }
        for (fault, blob) in found {
            let key = CHUNKS.key(store.root(), id, &blob);
            self.found(Fault::Blob(fault), &key, blob_fault(fault));
        }
        Ok(())
    }

    fn found(&mut self, fault: Fault, key: &[u8], why: impl Into<String>) {
        let found = finding(self.root(), fault, key, why.into());
        self.findings.push(found);
    }

    /// Reports a counter that cannot be compared.
    fn found_counter(&mut self, fault: Fault, key: &[u8]) {
        if fault == Fault::UnknownKey {
            self.found(fault, key, "this is no counter's key");
        } else {
            self.tally = None;
            self.found(fault, key, "a counter holds no number");
        }
    }

    fn root(&self) -> &Root {
        self.store.root()
    }
}

/// Returns the check of the row of a declared name against other rows, if it has one.
fn comparison(store: &Store, located: Located<'_>, row: &KeyValue) -> Result<Option<Pending>> {
    let (root, schema) = (store.root(), store.schema());
    let Some(declared) = schema.named(located.name) else { return Ok(None) };
    let Some(declaration) = schema.entity(declared.space) else { return Ok(None) };
    if declared.is_stream_index() {
        let index = declared.name;
        let record = (declaration.record_key)(root, index, row).ok();
        return Ok(Some(Pending::StreamEntry { index, declaration: declaration.clone(), record }));
    }
    if declared.is_index() {
        // The verification of the index checks it.
        return Ok(None);
    }
    let mut entries = (declaration.entries)(root, row)?;
    let references = references::of(declaration.space, root, row)?;
    entries.retain(|_| declaration.is_stream);
    Ok(Some(Pending::Record { entries, references }))
}

/// Reads all rows that `pending` needs in one round, completes the checks, and returns the findings
/// by the keys of their rows.
async fn compare_in(
    view: &View,
    store: &Store,
    pending: Vec<(KeyValue, Pending)>,
) -> Result<BTreeMap<Vec<u8>, Vec<Finding>>> {
    let mut keys = BTreeSet::new();
    for (_, check) in &pending {
        check.add_keys(&mut keys);
    }
    let (values, root) = (read(view, keys.into_iter().collect()).await?, store.root());
    let mut findings = BTreeMap::new();
    for (row, check) in pending {
        let key = row.key.clone();
        let found = match check {
            Pending::Record { entries, references } => {
                let mut found = check_entries(root, entries, &values);
                found.extend(check_references(root, &row.key, &references, &values));
                found
            }
            Pending::StreamEntry { index, declaration, record } => {
                let record = record.and_then(|key| {
                    let value = values.get(&key)?.clone();
                    Some(KeyValue { key, value })
                });
                Vec::from_iter(check_stream_entry(root, index, &declaration, row, record))
            }
        };
        if !found.is_empty() {
            findings.insert(key, found);
        }
    }
    Ok(findings)
}

async fn read(view: &View, keys: Vec<Vec<u8>>) -> Result<Values> {
    let values = view.get_all(&keys).await?;
    let there = keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
    Ok(there.collect())
}

/// Returns whether `tenant` exists, or is being deleted, and whether it is being deleted.
async fn tenant_state(view: &View, store: &Store, tenant: TenantId) -> Result<(bool, bool)> {
    let record = references::to::<Tenant>(store.root(), tenant, &());
    let deletion = Deletion::key_of(store.root(), tenant, Deleted::Tenant);
    let values = read(view, vec![record.key.clone(), deletion.clone()]).await?;
    Ok((is_there(&record, &values), values.contains_key(&deletion)))
}

/// Checks that the entries of an event exist, with the right values.
fn check_entries(root: &Root, entries: Vec<Entry>, values: &Values) -> Vec<Finding> {
    let check = |entry: Entry| {
        let stored = values.get(&entry.key);
        if stored == Some(&entry.value) {
            return None;
        }
        let fault = if stored.is_some() { EntryFault::Wrong } else { EntryFault::Missing };
        let stored = stored.cloned();
        Some(entry_finding(root, entry.index, fault, &entry.key, stored, Some(entry.value)))
    };
    entries.into_iter().filter_map(check).collect()
}

/// Checks that the records that the row at `key` refers to exist.
fn check_references(
    root: &Root,
    key: &[u8],
    references: &[Reference],
    values: &Values,
) -> Vec<Finding> {
    let missing = references.iter().filter(|reference| !is_there(reference, values));
    let finding = |reference: &Reference| {
        let shown = Readable::key(root, &reference.key);
        let why =
            format!("a record of {}, {shown}, that this refers to does not exist", reference.space);
        finding(root, Fault::DanglingReference, key, why)
    };
    missing.map(finding).collect()
}

/// Checks that an entry belongs to its event.
fn check_stream_entry(
    root: &Root,
    index: &'static str,
    declaration: &EntitySchema,
    row: KeyValue,
    record: Option<KeyValue>,
) -> Option<Finding> {
    let mut expected = None;
    if let Some(record) = record {
        // An undecodable event is a finding of its own.
        let given = (declaration.entries)(root, &record).ok()?;
        let own = given.into_iter().find(|given| given.index == index && given.key == row.key);
        expected = own.map(|own| own.value);
    }
    if expected.as_ref() == Some(&row.value) {
        return None;
    }
    let fault = if expected.is_some() { EntryFault::Wrong } else { EntryFault::Dangling };
    Some(entry_finding(root, index, fault, &row.key, Some(row.value), expected))
}

fn finding(root: &Root, fault: Fault, key: &[u8], why: String) -> Finding {
    let shown = Readable::key(root, key);
    Finding { fault, key: key.to_vec(), shown, stored: None, expected: None, why }
}

fn entry_finding(
    root: &Root,
    index: &'static str,
    fault: EntryFault,
    key: &[u8],
    stored: Option<Vec<u8>>,
    expected: Option<Vec<u8>>,
) -> Finding {
    let found = finding(root, Fault::Index(index, fault), key, entry_fault(index, fault));
    Finding { stored, expected, ..found }
}

/// Returns whether the record or one of its alternatives exists.
fn is_there(reference: &Reference, values: &Values) -> bool {
    [&reference.key].into_iter().chain(&reference.instead).any(|key| values.contains_key(key))
}

fn blob_fault(fault: BlobFault) -> &'static str {
    match fault {
        BlobFault::Damaged => "the chunks of a record's blob are missing or damaged",
        BlobFault::HeldTwice => "several records have the blob",
        BlobFault::HeldAndDetached => "a record has the blob, which is marked for collection",
        BlobFault::Lost => "the chunks belong to no record, and are not marked for collection",
    }
}

/// Formats an error with its sources.
fn told(error: &Error) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
