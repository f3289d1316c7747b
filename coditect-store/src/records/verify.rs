//! Verifies and repairs an index.
//!
//! An index is compared with its records page by page, each in its own transaction, so that records
//! can be read and written meanwhile, and each finding was true when it was made:
//!
//! 1. Records in key order: each of their entries exists, with the right value.
//! 2. Entries in key order: each belongs to its record.
//!
//! A counting index has no entry per record, and no page can compute the sums. Its records are
//! recounted beside the index, by the protocol of a [build](super::build): writers maintain the new
//! count behind the position. After the walk, both counts are maintained alike, compared and, in a
//! repair, equalized page by page; then the new count is removed. An interrupted recount is resumed
//! by the next verification.
//!
//! A repair writes missing entries and removes dangling ones, in the transaction that finds them. A
//! record that cannot be decoded stops the verification, since its entries are unknown.

use futures_util::future::try_join;

use super::{
    IndexBuild,
    catalog::{self, Progress, State},
    index_maintainer,
    walk::{Piece, Walk},
};
use crate::{
    BatchLimit, BatchSize, Error, ErrorKind, Result, Store,
    batch::{MAX_CONCURRENT, map_concurrent},
    engine::{self, KeyValue, RangeQuery},
    entity::{EntitySchema, Entry, IndexKind, SchemaEntry},
    keyspace::{KeyRange, ScopeKind},
};

/// Maximum number of rows per transaction, by default.
const ROWS: usize = 500;
/// Size of the rows read at which a transaction ends, in bytes.
const BYTES: usize = 1 << 20;
/// Maximum number of findings in a report; all are counted.
const LISTED: usize = 1_000;

/// The verification of one index. Created by [`Store::verify`].
#[derive(Clone, Debug)]
pub struct Verification {
    store: Store,
    declaration: EntitySchema,
    index: SchemaEntry,
    rows: usize,
    repair: Repair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    No,
    Yes,
}

/// A fault of an index entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A record, or a value of a counting index, has no entry.
    Missing,
    /// An entry has no record: it is deleted, or has another value.
    Dangling,
    /// An entry has a wrong pointer, fields or number.
    Wrong,
}

/// A fault, with its location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The fault.
    pub fault: Fault,
    /// Key of the entry.
    pub key: Vec<u8>,
    /// Stored value, if any.
    pub stored: Option<Vec<u8>>,
    /// Expected value, if any.
    pub expected: Option<Vec<u8>>,
}

/// The result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of rows compared: records, then entries.
    pub examined: u64,
    /// Number of faults.
    pub faults: u64,
    /// The first thousand faults.
    pub findings: Vec<Finding>,
    /// Whether the faults were repaired.
    pub repaired: bool,
}

impl Verification {
    pub(crate) fn new(store: Store, index: &SchemaEntry) -> Result<Self> {
        let declaration = store.schema().entity(index.space).cloned();
        let declaration = declaration
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "an index of no space was declared"))?;
        let index = index.clone();
        Ok(Self { store, declaration, index, rows: ROWS, repair: Repair::No })
    }

    /// Sets the maximum number of rows per transaction, at least 1; 500 by default.
    #[must_use]
    pub fn rows(self, rows: usize) -> Self {
        Self { rows: rows.max(1), ..self }
    }

    /// Repairs the faults found.
    #[must_use]
    pub fn repairing(self) -> Self {
        Self { repair: Repair::Yes, ..self }
    }

    /// Compares the whole index, and calls `observe` with the report so far after each page.
    ///
    /// # Errors
    ///
    /// `IndexBuilding` if the index is not built; `Corrupt` or `NewerFormat` if a record cannot be
    /// decoded; `UniqueViolation`, in a repair, if two records have one value, which a repair
    /// cannot resolve; `RevisionMismatch` if another verification of a counting index has completed
    /// and removed the new count. Completed repairs are kept.
    pub async fn run(&self, mut observe: impl FnMut(&Report)) -> Result<Report> {
        let mut report = Report { repaired: self.repair == Repair::Yes, ..Report::default() };
        if self.index.kind == Some(IndexKind::Count) {
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
            let message =
                format!("another verification completed the recount of {}", self.index.name);
            return Err(Error::new(ErrorKind::RevisionMismatch, message));
        }
        let bytes = limit.scale(BYTES);
        let piece = match pass {
            Pass::Records => {
                let EntitySchema { space, scope_kind, .. } = self.declaration;
                self.walk(scope_kind, space).piece(tx, from, limit, bytes).await?
            }
            Pass::Entries | Pass::Counts => {
                let SchemaEntry { name, scope_kind, .. } = self.index;
                self.walk(scope_kind, name).piece(tx, from, limit, bytes).await?
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
                    Some(value) => index_maintainer::put(tx, key, value),
                    None => index_maintainer::remove(tx, key),
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
                let shadows = index_maintainer::shadows(self.store.root(), self.index.name);
                let group = row.key.strip_prefix(shadows.as_slice()).unwrap_or_default();
                let key = [self.store.root().as_bytes(), group].concat();
                self.check_count(tx, &key).await.map(Vec::from_iter)
            }
        }
    }

    /// Checks that all entries of a record exist.
    async fn check_record(&self, tx: &engine::Transaction, row: &KeyValue) -> Result<Vec<Finding>> {
        let check = |Entry { key, value, kind, .. }: Entry| async move {
            let stored = tx.get(&key).await?;
            if stored.as_ref() == Some(&value) {
                return Ok(None);
            }
            if kind == IndexKind::Unique && self.repair == Repair::Yes {
                self.refuse_rival(tx, &key, stored.as_deref()).await?;
            }
            let fault = if stored.is_some() { Fault::Wrong } else { Fault::Missing };
            Ok(Some(Finding { fault, key, stored, expected: Some(value) }))
        };
        Ok(map_concurrent(self.entries(row)?, check).await?.into_iter().flatten().collect())
    }

    /// Fails with `UniqueViolation` if another record has the unique value, too.
    async fn refuse_rival(
        &self,
        tx: &engine::Transaction,
        key: &[u8],
        stored: Option<&[u8]>,
    ) -> Result<()> {
        let Some(stored) = stored else { return Ok(()) };
        let entry = KeyValue { key: key.to_vec(), value: stored.to_vec() };
        let rival = self.expected(tx, &entry).await?.is_some_and(|value| value == stored);
        index_maintainer::reject(rival.then_some(self.index.name))
    }

    /// Checks that an entry belongs to its record.
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

    /// Returns the value of the entry according to the record that it points to.
    async fn expected(
        &self,
        tx: &engine::Transaction,
        entry: &KeyValue,
    ) -> Result<Option<Vec<u8>>> {
        let root = self.store.root();
        // An entry that cannot be decoded has no record.
        let Ok(key) = (self.declaration.record_key)(root, self.index.name, entry) else {
            return Ok(None);
        };
        let Some(value) = tx.get(&key).await? else {
            return Ok(None);
        };
        let given = self.entries(&KeyValue { key, value })?;
        Ok(given.into_iter().find(|given| given.key == entry.key).map(|given| given.value))
    }

    /// Compares the number of a value with its recount.
    async fn check_count(&self, tx: &engine::Transaction, key: &[u8]) -> Result<Option<Finding>> {
        let root = self.store.root();
        let group = key.strip_prefix(root.as_bytes()).unwrap_or(key);
        let beside = [index_maintainer::shadows(root, self.index.name).as_slice(), group].concat();
        let (stored, expected) = try_join(tx.get(key), tx.get(&beside)).await?;
        let fault = match (&stored, &expected) {
            (stored, expected) if stored == expected => return Ok(None),
            (None, _) => Fault::Missing,
            (Some(_), None) => Fault::Dangling,
            (Some(_), Some(_)) => Fault::Wrong,
        };
        Ok(Some(Finding { fault, key: key.to_vec(), stored, expected }))
    }

    /// Recounts all records; resumes an interrupted recount.
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

    /// Removes the recount.
    async fn end_count(&self) -> Result<()> {
        let end = |tx: engine::Transaction| async move {
            let (root, index) = (self.store.root(), self.index.name);
            if self.require_built(&tx).await?.is_none() {
                return Ok(());
            }
            let range = KeyRange::tuples(&index_maintainer::shadows(root, index));
            tx.clear_range(&range.begin, &range.end);
            catalog::write_state(&tx, root, index, &State::Readable);
            catalog::advance_epoch(&tx, root).await
        };
        self.store.database().run(end).await
    }

    /// Returns the progress of a recount, if there is one. Fails with `IndexBuilding` if the index
    /// is not built.
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
        let range =
            KeyRange::tuples(&index_maintainer::shadows(self.store.root(), self.index.name));
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

    fn walk<'a>(&'a self, scope_kind: ScopeKind, name: &'a str) -> Walk<'a> {
        Walk { root: self.store.root(), scope_kind, name }
    }
}

/// A pass of a verification.
#[derive(Clone, Copy, Debug)]
enum Pass {
    /// Records, compared with their entries.
    Records,
    /// Entries, compared with their records.
    Entries,
    /// Numbers, compared with the recount.
    Counts,
    /// The recount, compared with the numbers.
    NewCounts,
}

/// The result of one page.
struct Page {
    examined: u64,
    next: Option<Vec<u8>>,
    findings: Vec<Finding>,
}
