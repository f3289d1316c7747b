//! Errors of redb, as errors of the store.

use std::{
    borrow::Cow,
    io::{self, ErrorKind as Io},
    panic::{self, AssertUnwindSafe},
};

use redb::{DatabaseError, StorageError};

use super::super::vfs::Vfs;
use super::FILE_NAME;
use crate::{Error, ErrorKind, Result};

/// Runs `work` and maps a panic of redb, which a damaged file may cause, to an error.
pub(super) fn catch_redb_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(corrupt("the store's file is damaged")))
}

pub(super) fn open_error(disk: &dyn Vfs, error: DatabaseError) -> Error {
    let path = disk.show(FILE_NAME);
    match error {
        DatabaseError::UpgradeRequired(version) => Error::new(
            ErrorKind::NewerFormat,
            format!("{path} is of B-tree format {version}, which this program does not read"),
        )
        .with_source(error),
        DatabaseError::Storage(StorageError::Io(ref cause)) if !tells_of_damage(cause) => {
            unavailable(format!("{path} cannot be opened"), error)
        }
        _ => corrupt(format!("{path} is damaged, or is not a store")).with_source(error),
    }
}

/// Returns whether the file's content is the cause: pointers of a damaged page lead past its end.
pub(super) fn tells_of_damage(error: &io::Error) -> bool {
    matches!(error.kind(), Io::UnexpectedEof | Io::InvalidData | Io::InvalidInput)
}

/// Maps an error of redb during use.
pub(super) fn broken(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        // A lock is poisoned by an earlier panic, and only damage makes redb panic or find tables
        // of another type.
        redb::Error::Corrupted(_)
        | redb::Error::LockPoisoned(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => ErrorKind::Corrupt,
        redb::Error::Io(cause) if tells_of_damage(cause) => ErrorKind::Corrupt,
        redb::Error::DatabaseClosed => ErrorKind::Closed,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the store's file cannot be used").with_source(error)
}

pub(super) fn unavailable(
    message: impl Into<Cow<'static, str>>,
    cause: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_source(cause)
}

pub(super) fn corrupt(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}
