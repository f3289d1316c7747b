//! Checking a whole store: that every row is what was written, lies where something is declared, and
//! agrees with the others.
//!
//! 1. *Rows*, all of them in the order of their keys, as of one version on the embedded engine: the
//!    value is undamaged, the key is a declared one, the record can be read and says its own key, the
//!    entries of a log's record are there and are its own, and what a row hangs on is
//!    there; of each tenant the [blobs](crate::repository::blob), with who holds them, and the counters
//!    of files, sessions and bytes. Where rows are not of one version, a counter that differs is compared
//!    again in one transaction.
//! 2. *Indexes*, one after the other, by their [`Verification`](crate::repository::Verification).
//!
//! What stays true: a row that is wrong is told and passed over, so that one fault hides no other;
//! memory is bounded, and findings are told as they are made. Nothing is changed but by a
//! [repair](Check::repairing), which sets index entries and counters right and touches nothing else:
//! what a record should have been is not known here. (An index that counts is counted anew beside, which writes, and
//! moves the epoch of the declarations.)
//!
//! The file under the embedded engine has sums of its own:
//! [`Database::check_file`](crate::engine::Database::check_file) compares them, while nobody has it open.

mod counters;
mod references;
mod rows;

use std::fmt;

use crate::{
    Error, ErrorKind, Result, Store,
    keyspace::Readable,
    repository::{Fault as IndexFault, Report as Verified, blob::BlobFault},
};

/// The check of a store: made by [`Store::check`].
#[derive(Clone, Debug)]
pub struct Check {
    store: Store,
    repair: Repair,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repair {
    No,
    /// What is derived from records: index entries and counters.
    Derived,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// A value is not what was written: its checksum differs.
    Damaged,
    /// A key lies where nothing is declared.
    UnknownKey,
    /// A record cannot be read, or lies under another's key.
    UnreadableRecord,
    /// A counter is no number.
    UnreadableNumber,
    /// The counter of this name differs from the records that it counts.
    Counter(&'static str),
    /// What the store keeps of itself cannot be read, or contradicts what is declared.
    Meta,
    /// Something hangs on a record that is not there, and that is not being deleted.
    Hanging,
    /// A blob and who holds it.
    Blob(BlobFault),
    /// An entry of the index of this name.
    Index(&'static str, IndexFault),
    /// The index of this name could not be verified.
    Unverified(&'static str),
}

/// A fault, where it is, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub fault: Fault,
    /// The key of the row, or of the entry that should be there; of an index that could not be
    /// verified, none.
    pub key: Vec<u8>,
    /// The same for people, without the root.
    pub shown: Readable,
    /// The value that is stored there, where a single one is in question.
    pub stored: Option<Vec<u8>>,
    /// The value that should be, where that is known.
    pub expected: Option<Vec<u8>>,
    /// Why it is a fault, for people.
    pub why: String,
}

/// What a check tells on its way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// So many rows, or so many of an index's rows, have been looked at.
    Progress(Stage, u64),
    /// A fault.
    Found(&'a Finding),
}

/// What is being looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// All rows.
    Rows,
    /// The index of this name.
    Index(&'static str),
}

/// What a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many rows there are.
    pub rows: u64,
    /// How many faults were found. Of an index, its verification lists a thousand; all are counted.
    pub faults: u64,
    /// How many of them were repaired.
    pub repaired: u64,
    /// The number of counters that could not be compared with their records: others wrote meanwhile, and
    /// the records of their tenant take longer to read than a transaction lives. Always 0 on the embedded
    /// engine.
    pub uncompared: u64,
    /// The indexes that are not built yet, and so have nothing to be compared.
    pub unbuilt: Vec<&'static str>,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_sound(&self) -> bool {
        self.faults == 0
    }
}

impl Check {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, repair: Repair::No }
    }

    /// Repairs index entries and counters, too.
    #[must_use]
    pub fn repairing(self) -> Self {
        Self { repair: Repair::Derived, ..self }
    }

    /// Checks all. Reads and writes of the store may go on meanwhile.
    ///
    /// # Errors
    ///
    /// Those that keep the check from going on: of the engine, and `Corrupt` if rows cannot be told
    /// from each other any more. All else is a finding.
    pub async fn run(&self, mut observe: impl FnMut(Event<'_>)) -> Result<Report> {
        let mut report = Report::default();
        rows::check(&self.store, self.repair, &mut report, &mut observe).await?;
        let registry = self.store.registry();
        let indexes: Vec<&'static str> = registry
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
                report.unbuilt.push(index);
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
                    why: format!("index {index} cannot be compared with its records: {error}"),
                }));
                Ok(())
            }
        }
    }
}

/// Whether an error is of the engine rather than of what is stored.
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
        IndexFault::Dangling => format!("index {index} has an entry that no record gives"),
        IndexFault::Wrong => {
            format!("an entry of index {index} says something else than its record")
        }
    }
}

impl fmt::Display for Finding {
    /// As a line for people; of values no more than their lengths, since they may be secret.
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
