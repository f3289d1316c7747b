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
    done.unwrap_or_else(|_| Err(corrupt("the B-tree file is damaged")))
}

/// Maps an error of redb while opening the file.
pub(super) fn open_error(disk: &dyn Vfs, error: DatabaseError) -> Error {
    let path = disk.show(FILE_NAME);
    match error {
        DatabaseError::UpgradeRequired(version) => Error::new(
            ErrorKind::NewerFormat,
            format!("{path} is of redb format {version}: use a newer version of this program"),
        )
        .with_source(error),
        DatabaseError::Storage(StorageError::Io(ref cause)) if !indicates_damage(cause) => {
            unavailable(format!("cannot open {path}"), error)
        }
        _ => corrupt(format!("{path} is damaged or not a store")).with_source(error),
    }
}

/// Returns whether the content of the file is the cause: pointers of a damaged page may exceed the
/// file.
pub(super) fn indicates_damage(error: &io::Error) -> bool {
    matches!(error.kind(), Io::UnexpectedEof | Io::InvalidData | Io::InvalidInput)
}

/// Maps an error of redb during use.
pub(super) fn broken(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        // An earlier panic poisons a lock. redb panics, or finds tables of another type, only if
        // the file is damaged.
        redb::Error::Corrupted(_)
        | redb::Error::LockPoisoned(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => ErrorKind::Corrupt,
        redb::Error::Io(cause) if indicates_damage(cause) => ErrorKind::Corrupt,
        redb::Error::DatabaseClosed => ErrorKind::Closed,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "B-tree file operation failed").with_source(error)
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
