//! Finding, and repairing, what is wrong in an index.
//!
//! An index is compared with its records page by page, each in a transaction of its own, so that
//! records are read and written meanwhile and every finding was true when it was made:
//!
//! 1. Records in the order of their keys: each entry is there, with the right value.
//! 2. Entries in the order of theirs: each is one that its record gives.
//!
//! What counts has no entry of one record, and no page says what the sum should be. So the records are
//! counted anew beside the index, by the protocol of a [build](super::build): writers keep up the new
//! count behind the position. When the walk is through, both are kept up alike, and are compared and,
//! if asked, made equal, page by page; then the new count is removed. A recount that was
//! interrupted goes on where it was, by whoever verifies next.
//!
//! A repair writes what a record gives and removes what none does, in the transaction that found it.
//! A record that cannot be read stops all: what it gives is not known.

use futures_util::future::try_join;

use super::{
    IndexBuild,
    catalog::{self, Progress, State},
    maintain,
    walk::{Piece, Walk},
};
use crate::{
    BatchLimit, BatchSize, Error, ErrorKind, Result, Store,
    batch::{MAX_CONCURRENT, map_concurrent},
    engine::{self, KeyValue, RangeQuery},
    entity::{Declaration, Declared, Entry, Form},
    keyspace::{KeyRange, Place},
};

/// Maximum number of rows that are compared in one transaction, if not set.
const ROWS: usize = 500;
/// A transaction ends with the row at which those read come to this many bytes.
const BYTES: usize = 1 << 20;
/// The most findings that a report lists; all are counted.
const LISTED: usize = 1_000;

/// The verification of one index: made by [`Store::verify`].
#[derive(Clone, Debug)]
pub struct Verification {
    store: Store,
    declaration: Declaration,
    index: Declared,
    rows: usize,
    repair: Repair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    No,
    Yes,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A record, or a group that has records, has no entry.
    Missing,
    /// There is an entry that no record gives: its record is gone, or has another value.
    Dangling,
    /// An entry says something else than its records: another record, other fields, another number.
    Wrong,
}

/// A fault, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// The entry's key.
    pub key: Vec<u8>,
    /// The value that is stored there, if there is one.
    pub stored: Option<Vec<u8>>,
    /// The value that should be, if there should be one.
    pub expected: Option<Vec<u8>>,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many rows were compared: records, then entries.
    pub examined: u64,
    /// How many faults there are.
    pub faults: u64,
    /// The first thousand of them.
    pub findings: Vec<Finding>,
    /// Whether they were repaired.
    pub repaired: bool,
}

impl Verification {
    pub(crate) fn new(store: Store, index: &Declared) -> Result<Self> {
        let declaration = store.registry().declaration(index.space).cloned();
        let declaration = declaration
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "an index of no space was declared"))?;
        let index = index.clone();
        Ok(Self { store, declaration, index, rows: ROWS, repair: Repair::No })
    }

    /// At most `rows` rows a transaction, and at least one; 500 if not said.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { rows: rows.max(1), ..self }
    }

    /// Repairs what it finds, too.
    #[must_use]
    pub fn repairing(self) -> Self {
        Self { repair: Repair::Yes, ..self }
    }

    /// Compares the whole index; `observe` is told the report as it grows, after each page.
    ///
    /// # Errors
    ///
    /// `IndexBuilding` if the index is not built; `Corrupt` or `NewerFormat` if a record cannot be
    /// read; `UniqueViolation`, in a repair, if two records have one value: which is right is not for a
    /// repair to say; `RevisionMismatch` if another verification of an index that counts came to its end
    /// meanwhile and took the new count away. What was repaired before stays so.
    pub async fn run(&self, mut observe: impl FnMut(&Report)) -> Result<Report> {
        let mut report = Report { repaired: self.repair == Repair::Yes, ..Report::default() };
        if self.index.form == Some(Form::Count) {
            self.count_anew().await?;
            self.pages(Pass::Counts, &mut report, &mut observe).await?;
            self.pages(Pass::NewCounts, &mut report, &mut observe).await?;
            self.end_count().await?;
        } else {
            self.pages(Pass::Records, &mut report, &mut observe).await?;
            self.pages(Pass::Entries, &mut report, &mut observe).await?;
        }
        Ok(report)
    }

    async fn pages(
        &self,
        pass: Pass,
        report: &mut Report,
        observe: &mut impl FnMut(&Report),
    ) -> Result<()> {
        let (mut from, size) = (Vec::new(), &BatchSize::new(self.rows));
        loop {
            let at = &from;
            let page = |tx| async move { self.page(&tx, pass, size.attempt(), at).await };
            let page = self.store.database().run(page).await?;
            size.committed();
            report.examined += page.examined;
            report.faults += page.findings.len() as u64;
            let room = LISTED - report.findings.len();
            report.findings.extend(page.findings.into_iter().take(room));
            observe(report);
            match page.next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    async fn page(
        &self,
        tx: &engine::Transaction,
        pass: Pass,
        limit: BatchLimit,
        from: &[u8],
    ) -> Result<Page> {
        let recount = self.require_built(tx).await?;
        let counted = recount.is_some_and(|progress| progress.position == catalog::END);
        if !counted && matches!(pass, Pass::Counts | Pass::NewCounts) {
            let message = format!("another verification ended the recount of {}", self.index.name);
            return Err(Error::new(ErrorKind::RevisionMismatch, message));
        }
        let bytes = limit.scale(BYTES);
        let piece = match pass {
            Pass::Records => {
                let Declaration { space, place, .. } = self.declaration;
                self.walk(place, space).piece(tx, from, limit, bytes).await?
            }
            Pass::Entries | Pass::Counts => {
                let Declared { name, place, .. } = self.index;
                self.walk(place, name).piece(tx, from, limit, bytes).await?
            }
            Pass::NewCounts => self.new_counts(tx, from, limit).await?,
        };
        let mut page = Page { examined: 0, next: piece.next, findings: Vec::new() };
        for rows in piece.rows.chunks(MAX_CONCURRENT) {
            if page.examined > 0 && limit.is_spent() {
                let first = rows.first().map(|row| row.key.as_slice()).unwrap_or_default();
                page.next = Some(first[self.store.root().as_bytes().len()..].to_vec());
                break;
            }
            let findings = map_concurrent(rows, |row| self.check(tx, pass, row)).await?;
            page.findings.extend(findings.into_iter().flatten());
            page.examined += rows.len() as u64;
        }
        if self.repair == Repair::Yes {
            for Finding { key, expected, .. } in &page.findings {
                match expected {
                    Some(value) => maintain::put(tx, key, value),
                    None => maintain::remove(tx, key),
                }
            }
        }
        Ok(page)
    }

    async fn check(
        &self,
        tx: &engine::Transaction,
        pass: Pass,
        row: &KeyValue,
    ) -> Result<Vec<Finding>> {
        match pass {
            Pass::Records => self.check_record(tx, row).await,
            Pass::Entries => self.check_entry(tx, row).await.map(Vec::from_iter),
            Pass::Counts => self.check_count(tx, &row.key).await.map(Vec::from_iter),
            Pass::NewCounts => {
                let shadows = maintain::shadows(self.store.root(), self.index.name);
                let group = row.key.strip_prefix(shadows.as_slice()).unwrap_or_default();
                let key = [self.store.root().as_bytes(), group].concat();
                self.check_count(tx, &key).await.map(Vec::from_iter)
            }
        }
    }

    /// Checks that all entries of a record are there.
    async fn check_record(&self, tx: &engine::Transaction, row: &KeyValue) -> Result<Vec<Finding>> {
        let check = |Entry { key, value, form, .. }: Entry| async move {
            let stored = tx.get(&key).await?;
            if stored.as_ref() == Some(&value) {
                return Ok(None);
            }
            if form == Form::Unique && self.repair == Repair::Yes {
                self.refuse_rival(tx, &key, stored.as_deref()).await?;
            }
            let fault = if stored.is_some() { Fault::Wrong } else { Fault::Missing };
            Ok(Some(Finding { fault, key, stored, expected: Some(value) }))
        };
        Ok(map_concurrent(self.entries(row)?, check).await?.into_iter().flatten().collect())
    }

    /// Refuses to take a unique value from a record that has it too.
    async fn refuse_rival(
        &self,
        tx: &engine::Transaction,
        key: &[u8],
        stored: Option<&[u8]>,
    ) -> Result<()> {
        let Some(stored) = stored else { return Ok(()) };
        let entry = KeyValue { key: key.to_vec(), value: stored.to_vec() };
        let rival = self.expected(tx, &entry).await?.is_some_and(|value| value == stored);
        maintain::refuse(rival.then_some(self.index.name))
    }

    /// Checks that an entry is one that its record gives, with that value.
    async fn check_entry(
        &self,
        tx: &engine::Transaction,
        row: &KeyValue,
    ) -> Result<Option<Finding>> {
        let expected = self.expected(tx, row).await?;
        if expected.as_ref() == Some(&row.value) {
            return Ok(None);
        }
        let fault = if expected.is_some() { Fault::Wrong } else { Fault::Dangling };
        let stored = Some(row.value.clone());
        Ok(Some(Finding { fault, key: row.key.clone(), stored, expected }))
    }

    /// The value under an entry's key by the record that the entry points to.
    async fn expected(
        &self,
        tx: &engine::Transaction,
        entry: &KeyValue,
    ) -> Result<Option<Vec<u8>>> {
        let root = self.store.root();
        // An entry that cannot be read is one that no record gives.
        let Ok(key) = (self.declaration.record_key)(root, self.index.name, entry) else {
            return Ok(None);
        };
        let Some(value) = tx.get(&key).await? else {
            return Ok(None);
        };
        let given = self.entries(&KeyValue { key, value })?;
        Ok(given.into_iter().find(|given| given.key == entry.key).map(|given| given.value))
    }

    /// Checks that the number of a group is the one that was counted anew.
    async fn check_count(&self, tx: &engine::Transaction, key: &[u8]) -> Result<Option<Finding>> {
        let root = self.store.root();
        let group = key.strip_prefix(root.as_bytes()).unwrap_or(key);
        let beside = [maintain::shadows(root, self.index.name).as_slice(), group].concat();
        let (stored, expected) = try_join(tx.get(key), tx.get(&beside)).await?;
        let fault = match (&stored, &expected) {
            (stored, expected) if stored == expected => return Ok(None),
            (None, _) => Fault::Missing,
            (Some(_), None) => Fault::Dangling,
            (Some(_), Some(_)) => Fault::Wrong,
        };
        Ok(Some(Finding { fault, key: key.to_vec(), stored, expected }))
    }

    /// Counts all records anew, beside what is counted; where another left off, if one did.
    async fn count_anew(&self) -> Result<()> {
        let (store, index) = (&self.store, self.index.name);
        let build = &IndexBuild::new(store.clone(), &self.index)?;
        let size = &BatchSize::new(self.rows);
        loop {
            let step = |tx| async move {
                let root = store.root();
                let begun = self.require_built(&tx).await?;
                let from = begun.clone().unwrap_or_default();
                let walked = build.walk_on(&tx, &from, size.attempt(), true).await?;
                let (mut progress, done) = walked;
                if done {
                    progress.position = catalog::END.to_vec();
                }
                catalog::write_state(&tx, root, index, &State::Recount(progress));
                if begun.is_none() {
                    catalog::advance_epoch(&tx, root).await?;
                }
                Ok::<_, Error>(done)
            };
            let done = store.database().run(step).await?;
            size.committed();
            if done {
                return Ok(());
            }
        }
    }

    /// Removes what was counted beside.
    async fn end_count(&self) -> Result<()> {
        let end = |tx: engine::Transaction| async move {
            let (root, index) = (self.store.root(), self.index.name);
            if self.require_built(&tx).await?.is_none() {
                return Ok(());
            }
            let range = KeyRange::tuples(&maintain::shadows(root, index));
            tx.clear_range(&range.begin, &range.end);
            catalog::write_state(&tx, root, index, &State::Readable);
            catalog::advance_epoch(&tx, root).await
        };
        self.store.database().run(end).await
    }

    /// How far a recount is, if there is one; an index that is not built is refused.
    async fn require_built(&self, tx: &engine::Transaction) -> Result<Option<Progress>> {
        let name = self.index.name;
        match catalog::read_state(tx, self.store.root(), name).await? {
            State::Readable => Ok(None),
            State::Recount(progress) => Ok(Some(progress)),
            State::WriteOnly(_) => Err(catalog::not_built(name)),
        }
    }

    async fn new_counts(
        &self,
        tx: &engine::Transaction,
        from: &[u8],
        limit: BatchLimit,
    ) -> Result<Piece> {
        let root = self.store.root().as_bytes();
        let range = KeyRange::tuples(&maintain::shadows(self.store.root(), self.index.name));
        let begin = range.begin.max([root, from].concat());
        let query = RangeQuery::new(begin, range.end).limit(limit.rows());
        let query = query.target_bytes(limit.scale(BYTES));
        let page = tx.get_range(&query).await?;
        let last = page.rows.last().filter(|_| page.stopped != engine::Stopped::End);
        let next = last.map(|last| [&last.key[root.len()..], &[0]].concat());
        Ok(Piece { rows: page.rows, next })
    }

    fn entries(&self, row: &KeyValue) -> Result<Vec<Entry>> {
        let mut entries = (self.declaration.entries)(self.store.root(), row)?;
        entries.retain(|entry| entry.index == self.index.name);
        Ok(entries)
    }

    fn walk<'a>(&'a self, place: Place, name: &'a str) -> Walk<'a> {
        Walk { root: self.store.root(), place, name }
    }
}

/// What is gone through, and compared.
#[derive(Clone, Copy, Debug)]
enum Pass {
    /// Records, with their entries.
    Records,
    /// Entries, with their records.
    Entries,
    /// Numbers, with the new ones.
    Counts,
    /// The new numbers, with those that there are.
    NewCounts,
}

/// What came of one page.
struct Page {
    examined: u64,
    next: Option<Vec<u8>>,
    findings: Vec<Finding>,
}
