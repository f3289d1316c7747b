//! Fault injection for both engines: a chosen step fails with an error that a cluster may return,
//! so that tests can check the handling of each error at every step.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Database, Transaction,
    codes::{self, During},
};
use crate::{Error, Result};

/// Delay after which an abandoned commit is applied.
const LATE_COMMIT_DELAY: Duration = Duration::from_millis(5);

/// The kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The transaction is too old (1007).
    TooOld,
    /// The storage server lags behind (1009).
    Lagging,
    /// A conflict (1020); commits only.
    Conflict,
    /// The cluster is overloaded (1213).
    Throttled,
    /// The cluster does not answer, and nothing was written; reads only.
    Silent,
    /// The outcome is unknown (1021), and nothing was written; commits only.
    LostCommit,
    /// The outcome is unknown (1021), and the commit was applied; commits only.
    LostAnswer,
    /// The cluster has changed (1039): reads, and commits that were applied.
    Changed,
    /// The outcome is unknown (1031), and the commit is applied a moment later; commits only.
    Late,
}

/// The time at which a failed commit is applied nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Never,
    Before,
    After,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::TooOld,
        Self::Lagging,
        Self::Conflict,
        Self::Throttled,
        Self::Silent,
        Self::LostCommit,
        Self::LostAnswer,
        Self::Changed,
        Self::Late,
    ];

    /// Returns whether the outcome is unknown to the caller.
    pub fn is_unknown_outcome(self) -> bool {
        matches!(self, Self::LostCommit | Self::LostAnswer | Self::Changed | Self::Late)
    }

    fn code(self) -> i32 {
        match self {
            Self::TooOld => 1007,
            Self::Lagging => 1009,
            Self::Conflict => 1020,
            Self::Throttled => 1213,
            Self::LostCommit | Self::LostAnswer => 1021,
            Self::Silent | Self::Late => 1031,
            Self::Changed => 1039,
        }
    }

    fn applies_to(self, step: Step) -> bool {
        match self {
            Self::TooOld | Self::Lagging | Self::Throttled | Self::Changed => true,
            Self::Silent => step == Step::Read,
            Self::Conflict | Self::LostCommit | Self::LostAnswer | Self::Late => {
                step == Step::Commit
            }
        }
    }

    fn written(self) -> Written {
        match self {
            Self::LostAnswer | Self::Changed => Written::Before,
            Self::Late => Written::After,
            _ => Written::Never,
        }
    }

    fn error(self, during: During) -> Error {
        let kind = codes::kind(self.code(), during);
        Error::coded(kind, self.code(), "injected fault")
    }
}

/// A step at which a fault may occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Commit,
}

/// A plan of faults: see [`Database::with_faults`]. A handle; its clones share the plan. Nothing
/// fails until it is [planned](Self::plan).
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    next: Option<(u64, Fault)>,
    steps: u64,
    has_occurred: bool,
}

impl Faults {
    /// Plans `fault` for the step `at`: a read or a commit, counted from 0 and from now on. Ignored
    /// if the fault does not apply to that step.
    pub fn plan(&self, at: u64, fault: Fault) {
        *self.lock() = Plan { next: Some((at, fault)), ..Plan::default() };
    }

    /// Removes the planned fault and resets the counter.
    pub fn clear(&self) {
        *self.lock() = Plan::default();
    }

    /// Returns the number of steps since the last [`plan`](Self::plan) or [`clear`](Self::clear).
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Returns whether the fault has occurred.
    pub fn has_occurred(&self) -> bool {
        self.lock().has_occurred
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `step` and returns its fault.
    fn next(&self, step: Step) -> Option<Fault> {
        let mut plan = self.lock();
        let number = plan.steps;
        plan.steps += 1;
        let (_, fault) = plan.next.filter(|(at, fault)| *at == number && fault.applies_to(step))?;
        plan.has_occurred = true;
        Some(fault)
    }

    /// Fails the step if its fault is due.
    pub(super) fn at(&self, step: Step) -> Result<()> {
        self.next(step).map_or(Ok(()), |fault| Err(fault.error(During::Read)))
    }

    /// Commits `tx`, or simulates the fault.
    pub(super) async fn commit(&self, tx: &Transaction) -> Result<()> {
        let Some(fault) = self.next(Step::Commit) else { return tx.commit_now().await };
        match fault.written() {
            Written::Never => tx.cancel(),
            Written::Before => tx.commit_now().await?,
            Written::After => {
                let tx = tx.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(LATE_COMMIT_DELAY).await;
                    // The commit is lost if it conflicts by then.
                    let _ = tx.commit_now().await;
                });
            }
        }
        Err(fault.error(During::Commit))
    }
}

impl Database {
    /// Returns the same database; transactions that begin from now on are subject to `faults`.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self { faults: Some(faults), ..self.clone() }
    }
}
