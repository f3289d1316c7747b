//! The first pass: all rows, by what lies where they lie.

use super::{
    Event, Fault, Finding, Report, Stage, entry_fault,
    references::{self, Reference},
};
use crate::{
    Error, Result, Store,
    engine::{CheckedRow, KeyValue, View},
    entity::{Declaration, META},
    keyspace::{Located, Place, Readable, Root, unpack_all},
    model::{BlobId, Deleted, Deletion, Tenant, TenantId},
    repository::{
        self, CHUNKS, COUNTERS, Fault as EntryFault,
        blob::{self, BlobFault, BlobFinding},
    },
};

/// Rows are read in pages of about so many bytes.
const PAGE_BYTES: usize = 256 << 10;

/// Checks all rows under the store's root.
pub(super) async fn check(
    store: &Store,
    report: &mut Report,
    observe: &mut impl FnMut(Event<'_>),
) -> Result<()> {
    let view = store.database().view().await?;
    let mut rows = Rows { store, view, tenant: None, findings: Vec::new() };
    let mut pages = rows.view.stream(store.root().range(), PAGE_BYTES);
    while let Some(page) = pages.next_page().await? {
        for row in page {
            report.rows += 1;
            rows.check_row(row).await?;
            for finding in rows.findings.drain(..) {
                report.faults += 1;
                observe(Event::Found(&finding));
            }
        }
        observe(Event::Progress(Stage::Rows, report.rows));
    }
    Ok(())
}

struct Rows<'a> {
    store: &'a Store,
    view: View,
    /// The tenant whose rows these are, which was looked for.
    tenant: Option<TenantId>,
    /// Those of the present row.
    findings: Vec<Finding>,
}

impl Rows<'_> {
    async fn check_row(&mut self, row: CheckedRow) -> Result<()> {
        let CheckedRow { key, value } = row;
        let root = self.store.root();
        let Some(value) = value else {
            self.found(Fault::Damaged, &key, "the value is not what was written");
            return Ok(());
        };
        let row = KeyValue { key, value };
        let Some(located) = Located::of(root, &row.key) else {
            self.found(Fault::UnknownKey, &row.key, "the key begins with no name");
            return Ok(());
        };
        self.check_tenant(located.tenant, &row.key).await?;
        match (located.place(), located.name) {
            (Place::Global, META) => {
                let checked =
                    repository::check_meta(self.store.registry(), located.rest, &row.value);
                if let Err(error) = checked {
                    self.found(Fault::Meta, &row.key, error.to_string());
                }
                Ok(())
            }
            (Place::Tenant, name) if name == COUNTERS.name() => {
                if unpack_all::<String>(located.rest).is_err() {
                    self.found(Fault::UnknownKey, &row.key, "this is no counter's key");
                } else if row.value.len() != size_of::<i64>() {
                    self.found(Fault::UnreadableNumber, &row.key, "a counter holds no number");
                }
                Ok(())
            }
            (Place::Tenant, name) if name == CHUNKS.name() => {
                if unpack_all::<(BlobId, u64)>(located.rest).is_err() {
                    self.found(Fault::UnknownKey, &row.key, "this is no chunk's key");
                }
                Ok(())
            }
            _ => self.check_declared(located, &row).await,
        }
    }

    async fn check_declared(&mut self, located: Located<'_>, row: &KeyValue) -> Result<()> {
        let registry = self.store.registry();
        let declared = registry.named(located.name);
        let Some(declared) = declared.filter(|declared| declared.place == located.place()) else {
            self.found(Fault::UnknownKey, &row.key, "nothing is declared under this name here");
            return Ok(());
        };
        let Some(declaration) = registry.declaration(declared.space) else { return Ok(()) };
        if declared.is_log_index() {
            self.check_log_entry(declared.name, declaration, row).await
        } else if declared.is_index() {
            // Its verification does that.
            Ok(())
        } else {
            self.check_record(declaration, row).await
        }
    }

    async fn check_record(&mut self, declaration: &Declaration, row: &KeyValue) -> Result<()> {
        let root = self.store.root();
        let read = (declaration.entries)(root, row).and_then(|entries| {
            references::of(declaration.space, root, row).map(|needed| (entries, needed))
        });
        let (entries, needed) = match read {
            Ok(read) => read,
            Err(error) => {
                self.found(Fault::UnreadableRecord, &row.key, told(&error));
                return Ok(());
            }
        };
        if declaration.is_log {
            for entry in entries {
                let stored = self.stored(&entry.key).await?;
                if stored.as_ref() != Some(&entry.value) {
                    let fault =
                        if stored.is_some() { EntryFault::Wrong } else { EntryFault::Missing };
                    self.found_entry(entry.index, fault, &entry.key, stored, Some(entry.value));
                }
            }
        }
        for reference in needed {
            if !self.is_there(&reference).await? {
                let shown = Readable::key(root, &reference.key);
                let why = format!(
                    "it hangs on a record of {}, {shown}, that is not there",
                    reference.space
                );
                self.found(Fault::Hanging, &row.key, why);
            }
        }
        Ok(())
    }

    /// That an entry of a log is one that its record gives.
    async fn check_log_entry(
        &mut self,
        index: &'static str,
        declaration: &Declaration,
        row: &KeyValue,
    ) -> Result<()> {
        let root = self.store.root();
        let mut expected = None;
        if let Ok(key) = (declaration.record_key)(root, index, row)
            && let Some(value) = self.stored(&key).await?
        {
            // A record that cannot be read is a finding of its own.
            let Ok(given) = (declaration.entries)(root, &KeyValue { key, value }) else {
                return Ok(());
            };
            let own = given.into_iter().find(|given| given.index == index && given.key == row.key);
            expected = own.map(|own| own.value);
        }
        if expected.as_ref() != Some(&row.value) {
            let fault = if expected.is_some() { EntryFault::Wrong } else { EntryFault::Dangling };
            self.found_entry(index, fault, &row.key, Some(row.value.clone()), expected);
        }
        Ok(())
    }

    /// That the tenant is there whose row this is; once for all its rows.
    async fn check_tenant(&mut self, tenant: Option<TenantId>, key: &[u8]) -> Result<()> {
        let Some(id) = tenant.filter(|_| tenant != self.tenant) else { return Ok(()) };
        self.tenant = tenant;
        let record = references::to::<Tenant>(self.store.root(), id, &());
        if !self.is_there(&record).await? {
            let why = format!("this and what follows is a tenant's that is not there, {id}");
            self.found(Fault::Hanging, key, why);
        }
        if self.stored(&Deletion::key_of(self.root(), id, Deleted::Tenant)).await?.is_some() {
            // Its blobs go without a word.
            return Ok(());
        }
        let (view, store) = (self.view.clone(), self.store);
        let mut blobs = Vec::new();
        blob::check(&view, store.root(), store.registry(), id, |found| blobs.push(found)).await?;
        for BlobFinding { fault, blob, .. } in blobs {
            let key = CHUNKS.key(store.root(), id, &blob);
            self.found(Fault::Blob(fault), &key, blob_fault(fault));
        }
        Ok(())
    }

    /// Whether it is, or is gone by a deletion that is under way.
    async fn is_there(&self, reference: &Reference) -> Result<bool> {
        for key in [&reference.key].into_iter().chain(&reference.instead) {
            if self.stored(key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The value of `key`; of one that is damaged, which is a finding of its own, whatever is there.
    async fn stored(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let end = [key, &[0]].concat();
        let page = self.view.page(key, &end, 1).await?;
        Ok(page.rows.into_iter().next().map(|row| row.value.unwrap_or_default()))
    }

    fn found(&mut self, fault: Fault, key: &[u8], why: impl Into<String>) {
        let shown = Readable::key(self.root(), key);
        let (key, why) = (key.to_vec(), why.into());
        self.findings.push(Finding { fault, key, shown, stored: None, expected: None, why });
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

fn blob_fault(fault: BlobFault) -> &'static str {
    match fault {
        BlobFault::Damaged => "a record holds the blob, and its chunks are not what was uploaded",
        BlobFault::HeldTwice => "several records hold the blob",
        BlobFault::HeldAndDetached => "a record holds the blob, and it is marked to be collected",
        BlobFault::Lost => "nobody knows of the blob that these are chunks of",
    }
}

/// An error with what it came from.
fn told(error: &Error) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
