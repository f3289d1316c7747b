//! The error type of the crate. Callers act on the [kind](Error::kind), the message is for logs,
//! and the cause is kept as [`source`](std::error::Error::source).

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::engine;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the store, with a [kind](ErrorKind) that a caller can act on.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    code: Option<i32>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kind of an [`Error`]. Nothing was written, except where a kind states otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The transaction conflicts with one that committed meanwhile. Retry it.
    Conflict,
    /// The transaction is older than five seconds. Retry it, with less work if it happens again.
    TransactionTooOld,
    /// The outcome is unknown: the transaction may have committed, or may commit later. Retry it
    /// only if it is idempotent.
    MaybeCommitted,
    /// The engine cannot be reached, is locked by another process, or is out of disk space.
    Unavailable,
    /// A key, value, transaction, result or number of watches exceeds its limit.
    Limit,
    /// An argument or declaration is invalid.
    Invalid,
    /// Stored data is damaged.
    Corrupt,
    /// Stored data was written by a newer version of the program.
    NewerFormat,
    /// The engine or the transaction is closed.
    Closed,
    /// A record with this key exists.
    AlreadyExists,
    /// No record has this key.
    NotFound,
    /// The record is not at the expected [revision](crate::Revision). Read it again.
    RevisionMismatch,
    /// Another record has this value in the unique index of this name.
    UniqueViolation(&'static str),
    /// The index of this name is not built. Run its [build](crate::records::IndexBuild), or wait
    /// until it completes.
    IndexBuilding(&'static str),
    /// The store has another declaration under this name. A changed declaration needs a new name.
    SchemaMismatch(&'static str),
    /// The counter of this name would exceed its limit.
    QuotaExceeded(&'static str),
    /// An import into this store is unfinished. Run it again with the same archive, or roll it
    /// back.
    ImportInProgress,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), code: None, source: None }
    }

    /// Returns an error with FoundationDB's error code `code`.
    pub(crate) const fn coded(kind: ErrorKind, code: i32, message: &'static str) -> Self {
        Self { kind, message: Cow::Borrowed(message), code: Some(code), source: None }
    }

    /// Returns a copy without the source, which cannot be cloned.
    pub(crate) fn clone_without_source(&self) -> Self {
        Self { kind: self.kind, message: self.message.clone(), code: self.code, source: None }
    }

    /// Sets FoundationDB's error code.
    #[must_use]
    pub(crate) fn with_code(mut self, code: i32) -> Self {
        self.code = Some(code);
        self
    }

    /// Sets the cause.
    #[must_use]
    pub(crate) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns FoundationDB's error code, if the error has one (FoundationDB's manual, "Error
    /// codes"). Both engines return the same codes.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// Returns whether the transaction wrote nothing and may be retried: it conflicted, was too
    /// old, or the cluster was temporarily unavailable.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Conflict | ErrorKind::TransactionTooOld => true,
            ErrorKind::Unavailable => self.code.is_some_and(engine::is_passing),
            _ => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// An error that a transaction's closure may return. It converts from the store's [`Error`], and
/// exposes it to [the retry loop](crate::retry).
pub trait RunError: From<Error> {
    /// Returns the store's error that this one wraps, if any.
    fn store_error(&self) -> Option<&Error>;
}

impl RunError for Error {
    fn store_error(&self) -> Option<&Error> {
        Some(self)
    }
}
