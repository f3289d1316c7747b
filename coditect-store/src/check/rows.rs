//! The first pass: all rows, by what lies where they lie.

use std::collections::BTreeSet;

use super::{
    Event, Fault, Finding, Repair, Report, Stage, entry_fault,
    references::{self, Reference},
};
use crate::{
    Entity as _, Error, Result, Store, Transaction,
    engine::{AtomicOp, CheckedRow, KeyValue, View},
    entity::{Declaration, META, decode_at},
    keyspace::{Located, Place, Readable, Root, unpack_all},
    model::{
        BlobId, Deleted, Deletion, File, PartState, Session, SessionId, SessionState, Tenant,
        TenantId,
    },
    repository::{
        self, CHUNKS, COUNTERS, Counter, Fault as EntryFault, SESSION_COUNTERS,
        blob::{self, BlobFault, BlobFinding},
    },
};

/// Rows are read in pages of about so many bytes.
const PAGE_BYTES: usize = 256 << 10;

/// Checks all rows under the store's root, and sets counters right if `repair` says so.
pub(super) async fn check(
    store: &Store,
    repair: Repair,
    report: &mut Report,
    observe: &mut impl FnMut(Event<'_>),
) -> Result<()> {
    let retired = repository::retired_names(store.database(), store.root()).await?;
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
        for row in page {
            report.rows += 1;
            rows.check_row(row).await?;
            rows.tell(report, observe);
        }
        observe(Event::Progress(Stage::Rows, report.rows));
    }
    rows.check_counters();
    rows.tell(report, observe);
    if repair == Repair::Derived {
        for (key, difference) in rows.differences {
            let add = difference.to_le_bytes();
            let key = &key;
            // An addition, so what is charged meanwhile stays counted.
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

/// What a tenant's counters should be, and what they are.
struct Tally {
    tenant: TenantId,
    /// The bytes of its blobs; `None` if they are unknown.
    bytes: Option<u64>,
    /// The bytes that its sessions count for their memories and client states.
    state_bytes: i64,
    files: i64,
    sessions: i64,
    /// The stored counters, by name.
    stored: Vec<(String, i64)>,
}

impl Tally {
    /// Adds what a part of a session's state counts. One that is unreadable is found as a record.
    fn add_state(&mut self, root: &Root, row: &KeyValue) {
        match decode_at::<SessionState>(root, &row.key, &row.value).map(|saved| saved.state) {
            Ok(PartState::Memory(usage)) => {
                let bytes = i64::try_from(usage.bytes).unwrap_or(i64::MAX);
                self.state_bytes = self.state_bytes.saturating_add(bytes);
            }
            Ok(_) => {}
            Err(_) => self.bytes = None,
        }
    }
}

struct Rows<'a> {
    store: &'a Store,
    /// The names of retired indexes, whose entries may not be removed yet.
    retired: BTreeSet<String>,
    view: View,
    /// The tenant whose rows these are, which was looked for.
    tenant: Option<TenantId>,
    /// That tenant's counters, unless it is being deleted.
    tally: Option<Tally>,
    /// Those of the present row.
    findings: Vec<Finding>,
    /// The keys of wrong counters, and what to add to them.
    differences: Vec<(Vec<u8>, i64)>,
}

impl Rows<'_> {
    /// Reports the findings of the present row.
    fn tell(&mut self, report: &mut Report, observe: &mut impl FnMut(Event<'_>)) {
        for finding in self.findings.drain(..) {
            report.faults += 1;
            observe(Event::Found(&finding));
        }
    }

    /// Compares the counters of the tenant whose rows are through with its records.
    fn check_counters(&mut self) {
        let Some(Tally { tenant, bytes, state_bytes, files, sessions, stored }) = self.tally.take()
        else {
            return;
        };
        let bytes =
            bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(state_bytes));
        let counters = [
            (Counter::BYTES, bytes),
            (Counter::FILES, Some(files)),
            (Counter::SESSIONS, Some(sessions)),
        ];
        for (counter, expected) in counters {
            let Some(expected) = expected else { continue };
            let name = counter.name();
            let of_name = stored.iter().find(|(stored, _)| stored == name);
            let value = of_name.map_or(0, |(_, value)| *value);
            if value != expected {
                let key = COUNTERS.key(self.root(), tenant, &name.to_owned());
                let why = format!("counter {name} is {value}, and its records come to {expected}");
                self.found(Fault::Counter(name), &key, why);
                self.differences.push((key, expected.wrapping_sub(value)));
            }
        }
    }

    async fn check_row(&mut self, row: CheckedRow) -> Result<()> {
        let CheckedRow { key, value } = row;
        let root = self.store.root();
        let Some(value) = value else {
            // It may be a counter, or something that is counted.
            self.tally = None;
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
                let value = row.value.as_slice().try_into().map(i64::from_le_bytes);
                match (unpack_all::<String>(located.rest), value) {
                    (Err(_), _) => {
                        self.found(Fault::UnknownKey, &row.key, "this is no counter's key");
                    }
                    (Ok(_), Err(_)) => {
                        // It cannot be compared.
                        self.tally = None;
                        self.found(Fault::UnreadableNumber, &row.key, "a counter holds no number");
                    }
                    (Ok(name), Ok(value)) => {
                        self.tally.iter_mut().for_each(|tally| {
                            tally.stored.push((name.clone(), value));
                        });
                    }
                }
                Ok(())
            }
            (Place::Tenant, name) if name == SESSION_COUNTERS.name() => {
                let value = row.value.as_slice().try_into().map(i64::from_le_bytes);
                match (unpack_all::<(SessionId, String)>(located.rest), value) {
                    (Err(_), _) => {
                        self.found(Fault::UnknownKey, &row.key, "this is no counter's key");
                    }
                    (Ok(_), Err(_)) => {
                        self.tally = None;
                        self.found(Fault::UnreadableNumber, &row.key, "a counter holds no number");
                    }
                    (Ok((_, name)), Ok(value)) => {
                        if let Some(tally) = &mut self.tally
                            && name == Counter::CLIENT_STATE_BYTES.name()
                        {
                            tally.state_bytes = tally.state_bytes.saturating_add(value);
                        }
                    }
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
            if self.retired.contains(located.name) {
                return Ok(());
            }
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
            if let Some(tally) = &mut self.tally {
                tally.files += i64::from(declared.name == File::SPACE.name());
                tally.sessions += i64::from(declared.name == Session::SPACE.name());
                if declared.name == SessionState::SPACE.name() {
                    tally.add_state(self.store.root(), row);
                }
            }
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
        if tenant == self.tenant {
            return Ok(());
        }
        self.check_counters();
        self.tenant = tenant;
        let Some(id) = tenant else { return Ok(()) };
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
        let checked =
            blob::check(&view, store.root(), store.registry(), id, |found| blobs.push(found));
        let bytes = checked.await?;
        let (state_bytes, files, sessions, stored) = (0, 0, 0, Vec::new());
        self.tally = Some(Tally { tenant: id, bytes, state_bytes, files, sessions, stored });
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
