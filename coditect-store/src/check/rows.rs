//! Pass 1: checks every row against the declaration of its key and the rows that it refers to.
//!
//! **Cost.** Rows are read page by page; the rows that each hundred are compared with are read
//! together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Event, Fault, Finding, Repair, Report, Stage,
    counters::{self, Difference, Tally},
    entry_fault, meta,
    references::{self, Reference},
};
use crate::{
    Error, Result, Store, Transaction,
    batch::MAX_CONCURRENT,
    engine::{AtomicOp, CheckedRow, Consistency, KeyValue, View},
    entity::{BlobId, CHUNKS, COUNTERS, EntitySchema, Entry, META, SESSION_COUNTERS},
    keyspace::{Located, Readable, Root, ScopeKind, TenantId, unpack_all},
    model::{Deleted, Deletion, Tenant},
    records::{
        self, Fault as EntryFault,
        blob::{self, BlobFault, BlobFinding},
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
        for finding in self.findings.drain(..) {
            report.faults += 1;
            observe(Event::Found(&finding));
        }
    }

    /// Compares the counters of the last tenant with its records, after its last row. Those that differ
    /// are counted again if they were not read at one version.
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

    /// Checks `rows` of one tenant after the other, each group with all rows that it is compared with.
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

    /// Reads all rows that `pending` needs in one round, and completes the checks.
    async fn compare(&mut self, pending: Vec<(KeyValue, Pending)>) -> Result<()> {
        let mut keys = BTreeSet::new();
        for (_, check) in &pending {
            check.add_keys(&mut keys);
        }
        let values = self.read(keys.into_iter().collect()).await?;
        for (row, check) in pending {
            match check {
                Pending::Record { entries, references } => {
                    self.check_entries(entries, &values);
                    self.check_references(&row.key, &references, &values);
                }
                Pending::StreamEntry { index, declaration, record } => {
                    let record = record.and_then(|key| {
                        let value = values.get(&key)?.clone();
                        Some(KeyValue { key, value })
                    });
                    self.check_stream_entry(index, &declaration, row, record);
                }
            }
        }
        Ok(())
    }

    async fn read(&self, keys: Vec<Vec<u8>>) -> Result<Values> {
        let values = self.view.get_all(&keys).await?;
        let there = keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
        Ok(there.collect())
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
        let declaration = schema.entity(declared.space)?;
        if declared.is_stream_index() {
            let index = declared.name;
            let record = (declaration.record_key)(root, index, row).ok();
            return Some(Pending::StreamEntry { index, declaration: declaration.clone(), record });
        }
        if declared.is_index() {
            // The verification of the index checks it.
            return None;
        }
        if let Some(tally) = &mut self.tally {
            tally.add_record(root, declared.name, row);
        }
        let read = (declaration.entries)(root, row).and_then(|entries| {
            references::of(declaration.space, root, row).map(|references| (entries, references))
        });
        match read {
            Ok((mut entries, references)) => {
                entries.retain(|_| declaration.is_stream);
                Some(Pending::Record { entries, references })
            }
            Err(error) => {
                self.found(Fault::UnreadableRecord, &row.key, told(&error));
                None
            }
        }
    }

    /// Checks that the entries of an event exist, with the right values.
    fn check_entries(&mut self, entries: Vec<Entry>, values: &Values) {
        for entry in entries {
            let stored = values.get(&entry.key);
            if stored != Some(&entry.value) {
                let fault = if stored.is_some() { EntryFault::Wrong } else { EntryFault::Missing };
                let stored = stored.cloned();
                self.found_entry(entry.index, fault, &entry.key, stored, Some(entry.value));
            }
        }
    }

    /// Checks that the records that the row at `key` refers to exist.
    fn check_references(&mut self, key: &[u8], references: &[Reference], values: &Values) {
        for reference in references.iter().filter(|reference| !is_there(reference, values)) {
            let shown = Readable::key(self.root(), &reference.key);
            let why = format!(
                "a record of {}, {shown}, that this refers to does not exist",
                reference.space
            );
            self.found(Fault::DanglingReference, key, why);
        }
    }

    /// Checks that an entry belongs to its event.
    fn check_stream_entry(
        &mut self,
        index: &'static str,
        declaration: &EntitySchema,
        row: KeyValue,
        record: Option<KeyValue>,
    ) {
        let mut expected = None;
        if let Some(record) = record {
            // An undecodable event is a finding of its own.
            let Ok(given) = (declaration.entries)(self.root(), &record) else { return };
            let own = given.into_iter().find(|given| given.index == index && given.key == row.key);
            expected = own.map(|own| own.value);
        }
        if expected.as_ref() != Some(&row.value) {
            let fault = if expected.is_some() { EntryFault::Wrong } else { EntryFault::Dangling };
            self.found_entry(index, fault, &row.key, Some(row.value), expected);
        }
    }

    /// Checks the record and the blobs of the tenant whose first row is at `key`.
    async fn check_tenant(&mut self, tenant: Option<TenantId>, key: &[u8]) -> Result<()> {
        self.tenant = tenant;
        let Some(id) = tenant else { return Ok(()) };
        let (view, store) = (self.view.clone(), self.store);
        let record = references::to::<Tenant>(store.root(), id, &());
        let deletion = Deletion::key_of(store.root(), id, Deleted::Tenant);
        let values = self.read(vec![record.key.clone(), deletion.clone()]).await?;
        if !is_there(&record, &values) {
            let why = format!("tenant {id} of this and the following rows does not exist");
            self.found(Fault::DanglingReference, key, why);
        }
        if values.contains_key(&deletion) {
            // Its blobs are removed with it.
            return Ok(());
        }
        let mut blobs = Vec::new();
        let checked =
            blob::check(&view, store.root(), store.schema(), id, |found| blobs.push(found));
        let bytes = checked.await?;
        self.tally = Some(Tally::new(id, bytes));
        for BlobFinding { fault, blob, .. } in blobs {
            let key = CHUNKS.key(store.root(), id, &blob);
            self.found(Fault::Blob(fault), &key, blob_fault(fault));
        }
        Ok(())
    }

    fn found(&mut self, fault: Fault, key: &[u8], why: impl Into<String>) {
        let shown = Readable::key(self.root(), key);
        let (key, why) = (key.to_vec(), why.into());
        self.findings.push(Finding { fault, key, shown, stored: None, expected: None, why });
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

    fn found_entry(
        &mut self,
        index: &'static str,
        fault: EntryFault,
        key: &[u8],
        stored: Option<Vec<u8>>,
        expected: Option<Vec<u8>>,
    ) {
        let shown = Readable::key(self.root(), key);
        let why = entry_fault(index, fault);
        let fault = Fault::Index(index, fault);
        self.findings.push(Finding { fault, key: key.to_vec(), shown, stored, expected, why });
    }

    fn root(&self) -> &Root {
        self.store.root()
    }
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
