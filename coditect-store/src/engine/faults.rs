//! Failing on purpose, on either engine: one step of many meets one of the errors that a cluster may
//! answer with, so that a test can see to it that every step copes with each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Database, Transaction,
    codes::{self, During},
};
use crate::{Error, Result};

/// How long after its answer a commit comes in that was given up.
const LATE: Duration = Duration::from_millis(20);

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

/// A plan that one step fails: see [`Database::with_faults`]. A handle; its clones count together.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Plan>);

#[derive(Debug)]
struct Plan {
    at: u64,
    fault: Fault,
    steps: AtomicU64,
    has_come: AtomicBool,
}

impl Faults {
    /// `fault` comes at the step `at`, counted from 0: a read, or a commit. Not at all, if it is none that
    /// comes at such a step.
    pub fn at_step(at: u64, fault: Fault) -> Self {
        let (steps, has_come) = (AtomicU64::new(0), AtomicBool::new(false));
        Self(Arc::new(Plan { at, fault, steps, has_come }))
    }

    /// How many steps there have been.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::SeqCst)
    }

    /// Whether it has come.
    pub fn has_come(&self) -> bool {
        self.0.has_come.load(Ordering::SeqCst)
    }

    fn comes(&self, step: Step) -> bool {
        let is_now = self.0.steps.fetch_add(1, Ordering::SeqCst) == self.0.at;
        let comes = is_now && self.0.fault.comes_at(step);
        if comes {
            self.0.has_come.store(true, Ordering::SeqCst);
        }
        comes
    }

    /// Fails the step, if it is its turn.
    pub(super) fn at(&self, step: Step) -> Result<()> {
        if self.comes(step) { Err(self.0.fault.error(During::Read)) } else { Ok(()) }
    }

    /// Commits `tx`, or does as if.
    pub(super) async fn commit(&self, tx: &Transaction) -> Result<()> {
        if !self.comes(Step::Commit) {
            return tx.commit_now().await;
        }
        match self.0.fault.written() {
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
        Err(self.0.fault.error(During::Commit))
    }
}

impl Database {
    /// The same database, whose transactions that begin from now on heed `faults`.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self { engine: self.engine.clone(), faults: Some(faults) }
    }
}
