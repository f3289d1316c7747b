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
    Error::coded(ErrorKind::Limit, 2102, "key exceeds the limit of 10,000 bytes")
}

pub(crate) fn value_too_large() -> Error {
    Error::coded(ErrorKind::Limit, 2103, "value exceeds the limit of 100,000 bytes")
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
    Error::coded(ErrorKind::Limit, 2101, "transaction exceeds the limit of 10,000,000 bytes")
}

pub(crate) fn too_many_watches() -> Error {
    Error::coded(ErrorKind::Limit, 1032, "too many active watches: the limit is 10,000")
}

pub(crate) fn key_outside_legal_range() -> Error {
    Error::coded(ErrorKind::Invalid, 2004, "key outside of the user keyspace (before 0xff)")
}

pub(crate) fn inverted_range() -> Error {
    Error::coded(ErrorKind::Invalid, 2005, "inverted range: begin is after end")
}

pub(crate) fn invalid_versionstamp_offset() -> Error {
    Error::coded(
        ErrorKind::Invalid,
        2000,
        "invalid versionstamp offset: ten bytes do not fit there",
    )
}

pub(crate) fn accessed_unreadable() -> Error {
    Error::coded(
        ErrorKind::Invalid,
        1036,
        "key is unreadable until the commit: it depends on a versionstamp",
    )
}

pub(crate) fn used_during_commit() -> Error {
    Error::coded(ErrorKind::Invalid, 2017, "transaction was used during or after its commit")
}

pub(crate) fn cancelled() -> Error {
    Error::coded(ErrorKind::Closed, 1025, "transaction cancelled")
}

pub(crate) fn too_old() -> Error {
    Error::coded(
        ErrorKind::TransactionTooOld,
        1007,
        "transaction is too old: the limit is five seconds",
    )
}

pub(crate) fn future_version() -> Error {
    Error::coded(ErrorKind::Unavailable, 1009, "the read version is in the future")
}

pub(crate) fn conflict() -> Error {
    Error::coded(ErrorKind::Conflict, 1020, "transaction conflicts with another one")
}

pub(crate) fn maybe_committed() -> Error {
    Error::coded(ErrorKind::MaybeCommitted, 1021, "transaction may or may not have been committed")
}

/// Returns the error of using a database in a fork of `opener`, the process that opened it.
pub(crate) fn forked(opener: u32) -> Error {
    let message =
        format!("database was opened before a fork, by process {opener}: open it in this process");
    Error::new(ErrorKind::Closed, message)
}

/// Returns the error of using FoundationDB's client library in a fork of `starter`.
#[cfg(feature = "fdb")]
pub(crate) fn forked_library(starter: u32) -> Error {
    let message = format!(
        "FoundationDB's client library was started by process {starter} and cannot be used in a \
         fork: open the cluster after the fork, or execute a new program"
    );
    Error::new(ErrorKind::Closed, message)
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database is closed")
}
