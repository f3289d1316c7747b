//! The crate's one error type. Its [kind](Error::kind) says what the caller should do; its message
//! is for the log; its cause is kept as [`source`](std::error::Error::source), never as text.

use std::{borrow::Cow, error::Error as StdError, fmt};

use crate::engine;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, and what the caller can do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    code: Option<i32>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What the caller should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another transaction got in between. Nothing was written: run it again.
    Conflict,
    /// The transaction took longer than five seconds. Nothing was written: run it again, in
    /// smaller pieces if it happens again.
    TooOld,
    /// The outcome is unknown: it may be written or not. Running it again is right only when
    /// that cannot apply its effects twice.
    MaybeCommitted,
    /// The engine cannot be reached, or is in use by another process. Nothing was written.
    Unavailable,
    /// A key, value, transaction or number of watches is over its limit. Nothing was written.
    Limit,
    /// The call makes no sense as it is. Nothing was written.
    Invalid,
    /// What is stored is not what was written.
    Corrupt,
    /// What is stored was written by a newer version of the program, or is of another program.
    NewerFormat,
    /// The engine, or the transaction, has been closed.
    Closed,
    /// There is a record with this key already.
    Exists,
    /// There is no record with this key.
    NotFound,
    /// The record is not what the caller read before. Nothing was written: read it again, and
    /// decide anew.
    Stale,
    /// Another record has this value in the unique index of this name.
    Unique(&'static str),
    /// The index of this name is not built yet: run its
    /// [build](crate::repository::IndexBuild), or wait for who does.
    IndexBuilding(&'static str),
    /// What is declared under this name is not what the store has under it. Names are never changed,
    /// and never given to something else.
    Redeclared(&'static str),
    /// The counter of this name would exceed its limit.
    Quota(&'static str),
    /// An import into this store was begun and has not ended: run it again with the same archive.
    Importing,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), code: None, source: None }
    }

    /// An error that FoundationDB knows by `code`.
    pub(crate) const fn coded(kind: ErrorKind, code: i32, message: &'static str) -> Self {
        Self { kind, message: Cow::Borrowed(message), code: Some(code), source: None }
    }

    /// The same for another who is to hear of it; the cause stays with the first.
    pub(crate) fn same(&self) -> Self {
        Self { kind: self.kind, message: self.message.clone(), code: self.code, source: None }
    }

    /// The same, which FoundationDB knows by `code`.
    #[must_use]
    pub(crate) fn with_code(mut self, code: i32) -> Self {
        self.code = Some(code);
        self
    }

    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// FoundationDB's number for it, where FoundationDB has one (its error codes are listed in
    /// its manual, "Error codes"). The embedded engine gives the same.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// Whether nothing was written and the same transaction may be run again: it conflicted, was too
    /// old, or met a cluster that is busy with itself.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::Conflict | ErrorKind::TooOld => true,
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

/// An error that a transaction's closure may return: it can hold one of the store's, and then
/// says so, which is how [the retry loop](crate::engine::Database::run) learns what to do.
pub trait RunError: From<Error> {
    /// The store's error behind this one, if there is one.
    fn store_error(&self) -> Option<&Error>;
}

impl RunError for Error {
    fn store_error(&self) -> Option<&Error> {
        Some(self)
    }
}
