//! Detection of forks. A forked process inherits the memory and open files of the process that
//! opened a database, but neither its threads nor its locks, so it must not use the database.

use std::process;

use super::limits;
use crate::Result;

/// The process that opened a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner(u32);

impl Owner {
    /// Returns this process.
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

    /// Fails in a fork of the process that started FoundationDB's client library.
    #[cfg(feature = "fdb")]
    pub(super) fn check_library(self) -> Result<()> {
        if self.is_current() { Ok(()) } else { Err(limits::forked_library(self.0)) }
    }
}
