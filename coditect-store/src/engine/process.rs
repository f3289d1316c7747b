//! The process that opened a database. A process that is forked from it has the memory, and the
//! open files, and neither the engine's threads nor its locks: it must not use them.

use std::process;

use super::limits;
use crate::Result;

/// The process that opened a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u32);

impl Owner {
    /// This process.
    pub(super) fn current() -> Self {
        Self(process::id())
    }

    /// Returns whether this is the process that opened the database, rather than a fork of it.
    pub(super) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Fails in a fork of the process that opened the database.
    pub(super) fn check(self) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(limits::forked(self.0)) }
    }

    /// As [`check`](Self::check), of the process that started FoundationDB's library.
    #[cfg(feature = "fdb")]
    pub(super) fn check_library(self) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(limits::forked_library(self.0)) }
    }
}
