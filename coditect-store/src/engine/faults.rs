//! Failing on purpose, on either engine: one step of many meets one of the errors that a cluster may
//! answer with, so that a test can see to it that every step copes with each.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Database, Transaction,
    codes::{self, During},
};
use crate::{Error, Result};

/// How long after its answer a commit comes in that was given up.
const LATE: Duration = Duration::from_millis(5);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The transaction is too old (1007).
    TooOld,
    /// The server that is asked lags behind (1009).
    Lagging,
    /// Another transaction got in between (1020): at commits only.
    Conflict,
    /// There is too much to do (1213).
    Throttled,
    /// The cluster does not answer, and nothing was written: at reads only.
    Silent,
    /// The outcome is unknown (1021), and nothing was written: at commits only.
    LostCommit,
    /// The outcome is unknown (1021), and it was written: at commits only.
    LostAnswer,
    /// The cluster has changed (1039): at a commit that was written, at a read too.
    Changed,
    /// The outcome is unknown (1031), and it is written a moment later: at commits only.
    Late,
}

/// When a commit that is answered with a fault is written all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    Never,
    Before,
    After,
}

impl Fault {
    /// All of them.
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

    /// Whether whoever meets it cannot know if something was written.
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

    fn comes_at(self, step: Step) -> bool {
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
        Error::coded(kind, self.code(), "a fault that a test asked for")
    }
}

/// What a fault may come at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read,
    Commit,
}

/// What fails, and when: see [`Database::with_faults`]. A handle; its clones are one plan. Nothing fails
/// until it is [planned](Self::plan).
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Mutex<Plan>>);

#[derive(Debug, Default)]
struct Plan {
    next: Option<(u64, Fault)>,
    steps: u64,
    has_come: bool,
}

impl Faults {
    /// Has `fault` come at the step `at`: a read, or a commit, counted from 0 and from now on. It does not
    /// come if it is none that comes at such a step.
    pub fn plan(&self, at: u64, fault: Fault) {
        *self.lock() = Plan { next: Some((at, fault)), ..Plan::default() };
    }

    /// Has nothing fail from now on, and counts from 0 again.
    pub fn clear(&self) {
        *self.lock() = Plan::default();
    }

    /// How many steps there have been since.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// Whether it has come.
    pub fn has_come(&self) -> bool {
        self.lock().has_come
    }

    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `step`; the fault that comes at it.
    fn comes(&self, step: Step) -> Option<Fault> {
        let mut plan = self.lock();
        let number = plan.steps;
        plan.steps += 1;
        let (_, fault) = plan.next.filter(|(at, fault)| *at == number && fault.comes_at(step))?;
        plan.has_come = true;
        Some(fault)
    }

    /// Fails the step, if it is its turn.
    pub(super) fn at(&self, step: Step) -> Result<()> {
        self.comes(step).map_or(Ok(()), |fault| Err(fault.error(During::Read)))
    }

    /// Commits `tx`, or does as if.
    pub(super) async fn commit(&self, tx: &Transaction) -> Result<()> {
        let Some(fault) = self.comes(Step::Commit) else { return tx.commit_now().await };
        match fault.written() {
            Written::Never => tx.cancel(),
            Written::Before => tx.commit_now().await?,
            Written::After => {
                let tx = tx.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(LATE).await;
                    // If it conflicts by then, it is as if it had been lost.
                    let _ = tx.commit_now().await;
                });
            }
        }
        Err(fault.error(During::Commit))
    }
}

impl Database {
    /// The same database, whose transactions that begin from now on heed `faults`.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self { faults: Some(faults), ..self.clone() }
    }
}
