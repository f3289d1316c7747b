//! FoundationDB's limits, enforced on both engines (manual: "Known limitations").

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// Maximum length of a key, in bytes.
pub const KEY_SIZE_LIMIT: usize = 10_000;
/// Maximum length of a value, in bytes.
pub const VALUE_SIZE_LIMIT: usize = 100_000;
/// Maximum size of a transaction, in bytes of written keys and values and of conflict ranges.
pub const TRANSACTION_SIZE_LIMIT: usize = 10_000_000;
/// Maximum age of a transaction, from its first read.
pub const LIFETIME: Duration = Duration::from_secs(5);
/// Maximum number of active watches of a database.
pub const WATCH_LIMIT: usize = 10_000;

/// The first key outside of the user's keyspace.
pub(crate) const MAX_KEY: &[u8] = b"\xff";

/// Size of a written key or range beside its bytes.
pub(crate) const OVERHEAD: usize = 40;

pub(crate) fn key_too_large() -> Error {
    Error::coded(ErrorKind::Limit, 2102, "a key is longer than 10,000 bytes")
}

pub(crate) fn value_too_large() -> Error {
    Error::coded(ErrorKind::Limit, 2103, "a value is longer than 100,000 bytes")
}

/// Fails if `what`, a key of `length` bytes, is too long.
pub(crate) fn require_key(length: usize, what: impl FnOnce() -> String) -> Result<()> {
    require(length, KEY_SIZE_LIMIT, 2102, what)
}

/// Fails if `what`, a value of `length` bytes, is too long.
pub(crate) fn require_value(length: usize, what: impl FnOnce() -> String) -> Result<()> {
    require(length, VALUE_SIZE_LIMIT, 2103, what)
}

fn require(length: usize, limit: usize, code: i32, what: impl FnOnce() -> String) -> Result<()> {
    if length <= limit {
        return Ok(());
    }
    let message = format!("{} is {length} bytes long; the limit is {limit} bytes", what());
    Err(Error::new(ErrorKind::Limit, message).with_code(code))
}

pub(crate) fn transaction_too_large() -> Error {
    Error::coded(ErrorKind::Limit, 2101, "the transaction is larger than 10,000,000 bytes")
}

pub(crate) fn too_many_watches() -> Error {
    Error::coded(ErrorKind::Limit, 1032, "too many watches are live at once")
}

pub(crate) fn key_outside_legal_range() -> Error {
    Error::coded(ErrorKind::Invalid, 2004, "a key is outside of the user's key space")
}

pub(crate) fn inverted_range() -> Error {
    Error::coded(ErrorKind::Invalid, 2005, "a range begins past its end")
}

pub(crate) fn invalid_versionstamp_offset() -> Error {
    Error::coded(ErrorKind::Invalid, 2000, "a versionstamp does not fit where it should go")
}

pub(crate) fn accessed_unreadable() -> Error {
    Error::coded(ErrorKind::Invalid, 1036, "a versionstamp was read before its commit")
}

pub(crate) fn used_during_commit() -> Error {
    Error::coded(ErrorKind::Invalid, 2017, "the transaction was committed before")
}

pub(crate) fn cancelled() -> Error {
    Error::coded(ErrorKind::Closed, 1025, "the transaction was cancelled")
}

pub(crate) fn too_old() -> Error {
    Error::coded(ErrorKind::TransactionTooOld, 1007, "the transaction is older than five seconds")
}

pub(crate) fn future_version() -> Error {
    Error::coded(ErrorKind::Unavailable, 1009, "the read version is in the future")
}

pub(crate) fn conflict() -> Error {
    Error::coded(ErrorKind::Conflict, 1020, "the transaction conflicts with another one")
}

pub(crate) fn maybe_committed() -> Error {
    Error::coded(ErrorKind::MaybeCommitted, 1021, "the transaction may be committed or not")
}

/// The error of a process that was forked from `opener`, which has the database open.
pub(crate) fn forked(opener: u32) -> Error {
    let message = format!(
        "the database was opened by process {opener}, and this one was forked from it: open it here"
    );
    Error::new(ErrorKind::Closed, message)
}

/// The error of a process that was forked from `starter`, which uses FoundationDB's library.
#[cfg(feature = "fdb")]
pub(crate) fn forked_library(starter: u32) -> Error {
    let message = format!(
        "FoundationDB's library was started by process {starter}, and cannot be used in a fork of it: \
         open the cluster after the fork, or execute a program of its own"
    );
    Error::new(ErrorKind::Closed, message)
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}
