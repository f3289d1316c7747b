//! Checks a whole store: that every row is undamaged, declared, and consistent with others.
//!
//! 1. *Rows*, in key order, at one version on the embedded engine: the value is undamaged, the key
//!    is declared, the record can be decoded and has this key, the index entries of an event exist
//!    and belong to it, and the records that a row refers to exist; for each tenant also its
//!    [blobs](crate::records::blob) and its counters of files, sessions and bytes.
//!    Without a single version, what seems faulty is compared again in one transaction.
//! 2. *Indexes*, one after another, by their [`Verification`](crate::records::Verification).
//!
//! # Invariants
//!
//! Each finding was true at one version: concurrent writes cause none. A faulty row is reported and
//! skipped, so that no fault hides another; memory is bounded, and findings are reported as they
//! are made. Only a [repair](Check::repairing) changes data, and only index entries and counters,
//! since the right contents of a record are unknown. (Counting indexes are recounted beside the
//! index, which writes and increments the catalog's epoch.)
//!
//! The file of the embedded engine has checksums of its own, which
//! [`Database::check_file`](crate::engine::Database::check_file) verifies while no process has it
//! open.

mod counters;
pub(crate) mod meta;
mod references;
mod rows;

use std::fmt;

use crate::{
    Error, ErrorKind, Result, Store,
    engine::{self, View},
    keyspace::Readable,
    records::{Fault as IndexFault, Report as Verified, blob::BlobFault},
    retry::{self, RetryPolicy},
};

/// Maximum number of transactions that are begun for a comparison at one version.
const MAX_ATTEMPTS: u32 = 3;

/// The check of a store. Created by [`Store::check`].
#[derive(Clone, Debug)]
pub struct Check {
    store: Store,
    repair: Repair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    No,
    /// Index entries and counters, which are derived from records.
    Derived,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A value has a wrong checksum.
    Damaged,
    /// A key is not declared.
    UnknownKey,
    /// A record cannot be decoded, or is stored under another key.
    UnreadableRecord,
    /// A counter is not a number.
    UnreadableNumber,
    /// The counter of this name differs from its records.
    Counter(&'static str),
    /// Metadata cannot be decoded, or contradicts the declarations.
    Meta,
    /// A row refers to a record that does not exist and is not being deleted.
    DanglingReference,
    /// A fault of a blob.
    Blob(BlobFault),
    /// A fault of an entry of the index of this name.
    Index(&'static str, IndexFault),
    /// The index of this name cannot be verified.
    Unverified(&'static str),
}

/// A fault, with its location and explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The fault.
    pub fault: Fault,
    /// Key of the row or of the expected entry; empty for an index that cannot be verified.
    pub key: Vec<u8>,
    /// The key without the root, for display.
    pub shown: Readable,
    /// Stored value, where one is concerned.
    pub stored: Option<Vec<u8>>,
    /// Expected value, if known.
    pub expected: Option<Vec<u8>>,
    /// Explanation, for display.
    pub why: String,
}

/// An event of a check.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Number of rows, or of rows of an index, examined so far.
    Progress(Stage, u64),
    /// A fault.
    Found(&'a Finding),
}

/// The stage of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// All rows.
    Rows,
    /// The index of this name.
    Index(&'static str),
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Number of rows.
    pub rows: u64,
    /// Number of faults. The verification of an index lists a thousand of its faults; all are
    /// counted.
    pub faults: u64,
    /// Number of repaired faults.
    pub repaired: u64,
    /// Number of counters, blobs and counting indexes that could not be compared with their
    /// records, because of concurrent writes or checks, and more records than one transaction can
    /// read.
    pub uncompared: u64,
    /// Indexes that are not built, which are not verified.
    pub pending_indexes: Vec<&'static str>,
}

impl Report {
    /// Returns whether no fault was found.
    pub fn is_sound(&self) -> bool {
        self.faults == 0
    }
}

impl Store {
    /// Returns a check of the whole store.
    pub fn check(&self) -> Check {
        Check::new(self.with_batch_priority("check"))
    }
}

impl Check {
    fn new(store: Store) -> Self {
        Self { store, repair: Repair::No }
    }

    /// Repairs index entries and counters.
    #[must_use]
    pub fn repairing(self) -> Self {
        Self { repair: Repair::Derived, ..self }
    }

    /// Runs the check. The store can be read and written meanwhile.
    ///
    /// # Errors
    ///
    /// Errors that end the check: errors of the engine, and `Corrupt` if rows cannot be separated.
    /// All others are findings.
    pub async fn run(&self, mut observe: impl FnMut(Event<'_>)) -> Result<Report> {
        let mut report = Report::default();
        rows::check(&self.store, self.repair, &mut report, &mut observe).await?;
        let schema = self.store.schema();
        let indexes: Vec<&'static str> = schema
            .declared()
            .filter(|declared| declared.is_index())
            .map(|declared| declared.name)
            .collect();
        for index in indexes {
            self.verify(index, &mut report, &mut observe).await?;
        }
        Ok(report)
    }

    async fn verify(
        &self,
        index: &'static str,
        report: &mut Report,
        observe: &mut impl FnMut(Event<'_>),
    ) -> Result<()> {
        let mut verification = self.store.verify(index)?;
        if self.repair == Repair::Derived {
            verification = verification.repairing();
        }
        let root = self.store.root();
        let mut told = 0;
        let mut faults = 0;
        let outcome = verification
            .run(|so_far: &Verified| {
                faults = so_far.faults;
                for found in so_far.findings.iter().skip(told) {
                    told += 1;
                    observe(Event::Found(&Finding {
                        fault: Fault::Index(index, found.fault),
                        key: found.key.clone(),
                        shown: Readable::key(root, &found.key),
                        stored: found.stored.clone(),
                        expected: found.expected.clone(),
                        why: entry_fault(index, found.fault),
                    }));
                }
                observe(Event::Progress(Stage::Index(index), so_far.examined));
            })
            .await;
        report.faults += faults;
        if self.repair == Repair::Derived {
            report.repaired += faults;
        }
        match outcome {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::IndexBuilding(index) => {
                report.pending_indexes.push(index);
                Ok(())
            }
            // A concurrent check has removed the recount.
            Err(error) if error.kind() == ErrorKind::RevisionMismatch => {
                report.uncompared += 1;
                Ok(())
            }
            Err(error) if stops_all(&error) => Err(error),
            Err(error) => {
                report.faults += 1;
                observe(Event::Found(&Finding {
                    fault: Fault::Unverified(index),
                    key: Vec::new(),
                    shown: Readable::new(b""),
                    stored: None,
                    expected: None,
                    why: format!("cannot verify index {index}: {error}"),
                }));
                Ok(())
            }
        }
    }
}

/// Runs `work` with a view of one version, in one transaction. Returns `None` if it takes longer
/// than a transaction lives.
async fn at_one_version<T, F, Fut>(store: &Store, work: F) -> Result<Option<T>>
where
    F: Fn(View) -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let policy = RetryPolicy::idempotent().max_attempts(MAX_ATTEMPTS);
    let work = &work;
    let read = |tx: engine::Transaction| async move { work(View::within(tx).await?).await };
    match retry::run(store.database(), &policy, read).await {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == ErrorKind::TransactionTooOld => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns whether an error is the engine's, rather than a fault of the data.
fn stops_all(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Closed
            | ErrorKind::Unavailable
            | ErrorKind::Conflict
            | ErrorKind::TransactionTooOld
            | ErrorKind::MaybeCommitted
    )
}

fn entry_fault(index: &str, fault: IndexFault) -> String {
    match fault {
        IndexFault::Missing => format!("the entry of a record is missing in index {index}"),
        IndexFault::Dangling => format!("an entry of index {index} has no record"),
        IndexFault::Wrong => {
            format!("an entry of index {index} differs from its record")
        }
    }
}

impl fmt::Display for Finding {
    /// Formats one line, with the lengths of values instead of the values, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.shown)?;
        }
        f.write_str(&self.why)?;
        let length = |value: &Option<Vec<u8>>| {
            value.as_ref().map_or("nothing".to_owned(), |value| format!("{} bytes", value.len()))
        };
        if self.stored.is_some() || self.expected.is_some() {
            let (stored, expected) = (length(&self.stored), length(&self.expected));
            write!(f, " (stored: {stored}; expected: {expected})")?;
        }
        Ok(())
    }
}
