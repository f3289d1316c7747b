//! Pass 1: checks every row against the declaration of its key and the rows that it refers to.
//!
//! **Cost.** Rows are read page by page; of each hundred, all rows that they are compared with are
//! read together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Event, Fault, Finding, Repair, Report, Stage, entry_fault,
    references::{self, Reference},
};
use crate::{
    Entity as _, Error, Result, Store, Transaction,
    batch::MAX_CONCURRENT,
    engine::{AtomicOp, CheckedRow, KeyValue, View},
    entity::{Declaration, Entry, Log as _, META, decode_at, decode_logged_at},
    keyspace::{Located, Place, Readable, Root, unpack_all},
    model::{
        Agent, BlobId, Deleted, Deletion, File, IdempotencyEntry, Message, PartState, Session,
        SessionId, SessionState, Tenant, TenantId,
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
        let mut page = page.into_iter();
        loop {
            let chunk: Vec<CheckedRow> = page.by_ref().take(MAX_CONCURRENT).collect();
            if chunk.is_empty() {
                break;
            }
            report.rows += chunk.len() as u64;
            rows.check_rows(chunk).await?;
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
    /// The counted bytes of its sessions' memories and client states, its messages, and its answers
    /// to requests with an idempotency key.
    state_bytes: i64,
    files: i64,
    sessions: i64,
    agents: i64,
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

    /// Adds the bytes that a record is counted with. One that is unreadable is found as a record.
    fn add_counted(&mut self, counted: Result<i64>) {
        match counted {
            Ok(bytes) => self.state_bytes = self.state_bytes.saturating_add(bytes),
            Err(_) => self.bytes = None,
        }
    }
}

struct Rows<'a> {
    store: &'a Store,
    /// The names of retired indexes, whose entries may not be removed yet.
    retired: BTreeSet<String>,
    view: View,
    /// The tenant of the last row, whose own record was looked for.
    tenant: Option<TenantId>,
    /// That tenant's counters, unless it is being deleted.
    tally: Option<Tally>,
    /// Findings in the present chunk of rows.
    findings: Vec<Finding>,
    /// The keys of wrong counters, and what to add to them.
    differences: Vec<(Vec<u8>, i64)>,
}

/// A check of a row against others, which are read together with those of its neighbours.
enum Pending {
    /// The entries that a record of a log gives, and the records that it refers to.
    Record { entries: Vec<Entry>, references: Vec<Reference> },
    /// The record at this key gives the entry of a log.
    LogEntry { index: &'static str, declaration: Declaration, record: Option<Vec<u8>> },
}

impl Pending {
    /// Adds the keys whose values decide the check.
    fn add_keys(&self, keys: &mut BTreeSet<Vec<u8>>) {
        match self {
            Self::Record { entries, references } => {
                keys.extend(entries.iter().map(|entry| entry.key.clone()));
                for reference in references {
                    keys.extend(reference.instead.iter().chain([&reference.key]).cloned());
                }
            }
            Self::LogEntry { record, .. } => keys.extend(record.clone()),
        }
    }
}

/// The values of keys that were read together; of one that is damaged, which is a finding of its own,
/// an empty one.
type Values = BTreeMap<Vec<u8>, Vec<u8>>;

impl Rows<'_> {
    /// Reports the findings of the present chunk of rows.
    fn tell(&mut self, report: &mut Report, observe: &mut impl FnMut(Event<'_>)) {
        for finding in self.findings.drain(..) {
            report.faults += 1;
            observe(Event::Found(&finding));
        }
    }

    /// Compares the counters of the last tenant with its records, after its last row.
    fn check_counters(&mut self) {
        let Some(tally) = self.tally.take() else { return };
        let Tally { tenant, bytes, state_bytes, files, sessions, agents, stored } = tally;
        let bytes =
            bytes.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(state_bytes));
        let counters = [
            (Counter::BYTES, bytes),
            (Counter::FILES, Some(files)),
            (Counter::SESSIONS, Some(sessions)),
            (Counter::AGENTS, Some(agents)),
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

    /// Checks `rows` of one tenant after the other, each group with all rows that it is compared with.
    async fn check_rows(&mut self, rows: Vec<CheckedRow>) -> Result<()> {
        let mut pending = Vec::new();
        for CheckedRow { key, value } in rows {
            let Some(value) = value else {
                // It may be a counter, or something that is counted.
                self.tally = None;
                self.found(Fault::Damaged, &key, "the value is not what was written");
                continue;
            };
            let row = KeyValue { key, value };
            let Some(located) = Located::of(self.store.root(), &row.key) else {
                self.found(Fault::UnknownKey, &row.key, "the key begins with no name");
                continue;
            };
            if located.tenant != self.tenant {
                self.compare(std::mem::take(&mut pending)).await?;
                self.check_counters();
                self.check_tenant(located.tenant, &row.key).await?;
            }
            if let Some(check) = self.check_row(located, &row) {
                pending.push((row, check));
            }
        }
        self.compare(pending).await
    }

    /// Reads all rows that decide `pending` in one round, and decides them.
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
                Pending::LogEntry { index, declaration, record } => {
                    let record = record.and_then(|key| {
                        let value = values.get(&key)?.clone();
                        Some(KeyValue { key, value })
                    });
                    self.check_log_entry(index, &declaration, row, record);
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

    /// Checks a row by itself, and returns what it is to be compared with.
    fn check_row(&mut self, located: Located<'_>, row: &KeyValue) -> Option<Pending> {
        match (located.place(), located.name) {
            (Place::Global, META) => {
                let checked =
                    repository::check_meta(self.store.registry(), located.rest, &row.value);
                if let Err(error) = checked {
                    self.found(Fault::Meta, &row.key, error.to_string());
                }
                None
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
                None
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
                None
            }
            (Place::Tenant, name) if name == CHUNKS.name() => {
                if unpack_all::<(BlobId, u64)>(located.rest).is_err() {
                    self.found(Fault::UnknownKey, &row.key, "this is no chunk's key");
                }
                None
            }
            _ => self.check_declared(located, row),
        }
    }

    fn check_declared(&mut self, located: Located<'_>, row: &KeyValue) -> Option<Pending> {
        let (root, registry) = (self.store.root(), self.store.registry());
        let declared = registry.named(located.name);
        let Some(declared) = declared.filter(|declared| declared.place == located.place()) else {
            if self.retired.contains(located.name) {
                return None;
            }
            self.found(Fault::UnknownKey, &row.key, "nothing is declared under this name here");
            return None;
        };
        let declaration = registry.declaration(declared.space)?;
        if declared.is_log_index() {
            let index = declared.name;
            let record = (declaration.record_key)(root, index, row).ok();
            return Some(Pending::LogEntry { index, declaration: declaration.clone(), record });
        }
        if declared.is_index() {
            // Its verification does that.
            return None;
        }
        if let Some(tally) = &mut self.tally {
            tally.files += i64::from(declared.name == File::SPACE.name());
            tally.sessions += i64::from(declared.name == Session::SPACE.name());
            tally.agents += i64::from(declared.name == Agent::SPACE.name());
            if declared.name == SessionState::SPACE.name() {
                tally.add_state(root, row);
            }
            if declared.name == Message::SPACE.name() {
                let message = decode_logged_at::<Message>(root, &row.key, &row.value);
                tally.add_counted(message.map(|(_, message)| message.counted_bytes()));
            }
            if declared.name == IdempotencyEntry::SPACE.name() {
                let entry = decode_at::<IdempotencyEntry>(root, &row.key, &row.value);
                tally.add_counted(entry.map(|entry| entry.counted_bytes()));
            }
        }
        let read = (declaration.entries)(root, row).and_then(|entries| {
            references::of(declaration.space, root, row).map(|references| (entries, references))
        });
        match read {
            Ok((mut entries, references)) => {
                entries.retain(|_| declaration.is_log);
                Some(Pending::Record { entries, references })
            }
            Err(error) => {
                self.found(Fault::UnreadableRecord, &row.key, told(&error));
                None
            }
        }
    }

    /// Checks that the entries of a log's record are there, with the right values.
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

    /// Checks that the records are there that the row at `key` refers to.
    fn check_references(&mut self, key: &[u8], references: &[Reference], values: &Values) {
        for reference in references.iter().filter(|reference| !is_there(reference, values)) {
            let shown = Readable::key(self.root(), &reference.key);
            let why =
                format!("it hangs on a record of {}, {shown}, that is not there", reference.space);
            self.found(Fault::Hanging, key, why);
        }
    }

    /// Checks that an entry of a log is one that its record gives.
    fn check_log_entry(
        &mut self,
        index: &'static str,
        declaration: &Declaration,
        row: KeyValue,
        record: Option<KeyValue>,
    ) {
        let mut expected = None;
        if let Some(record) = record {
            // A record that cannot be read is a finding of its own.
            let Ok(given) = (declaration.entries)(self.root(), &record) else { return };
            let own = given.into_iter().find(|given| given.index == index && given.key == row.key);
            expected = own.map(|own| own.value);
        }
        if expected.as_ref() != Some(&row.value) {
            let fault = if expected.is_some() { EntryFault::Wrong } else { EntryFault::Dangling };
            self.found_entry(index, fault, &row.key, Some(row.value), expected);
        }
    }

    /// Checks that the tenant is there whose first row is at `key`, and its blobs.
    async fn check_tenant(&mut self, tenant: Option<TenantId>, key: &[u8]) -> Result<()> {
        self.tenant = tenant;
        let Some(id) = tenant else { return Ok(()) };
        let (view, store) = (self.view.clone(), self.store);
        let record = references::to::<Tenant>(store.root(), id, &());
        let deletion = Deletion::key_of(store.root(), id, Deleted::Tenant);
        let values = self.read(vec![record.key.clone(), deletion.clone()]).await?;
        if !is_there(&record, &values) {
            let why = format!("this and what follows is a tenant's that is not there, {id}");
            self.found(Fault::Hanging, key, why);
        }
        if values.contains_key(&deletion) {
            // Its blobs are removed with it.
            return Ok(());
        }
        let mut blobs = Vec::new();
        let checked =
            blob::check(&view, store.root(), store.registry(), id, |found| blobs.push(found));
        let bytes = checked.await?;
        self.tally = Some(Tally {
            tenant: id,
            bytes,
            state_bytes: 0,
            files: 0,
            sessions: 0,
            agents: 0,
            stored: Vec::new(),
        });
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

/// Returns whether it is there, or something that may be in its place.
fn is_there(reference: &Reference, values: &Values) -> bool {
    [&reference.key].into_iter().chain(&reference.instead).any(|key| values.contains_key(key))
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
