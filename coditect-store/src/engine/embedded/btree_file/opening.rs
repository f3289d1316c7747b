//! Opening, locking and creating the B-tree file.

use std::{
    cell::Cell,
    io::{self, ErrorKind as Io},
    sync::Arc,
};

use redb::{Builder, StorageBackend};

use super::super::{
    backend::Backend,
    space::no_space,
    vfs::{Locked, Vfs},
    wal,
};
use super::{
    FILE_NAME,
    errors::{broken, catch_redb_panic, corrupt, open_error, unavailable},
    meta::initialize,
};
use crate::{Error, ErrorKind, Result};

thread_local! {
    /// Whether this thread writes checkpoints. redb lets readers write, too, when its cache is
    /// full; they should not wait for the disk longer than necessary.
    static SYNCS_OFTEN: Cell<bool> = const { Cell::new(false) };
}

/// Makes writes of this thread sync in small steps, so that syncs of the WAL are not delayed for
/// long.
pub(crate) fn sync_often() {
    SYNCS_OFTEN.set(true);
}

/// Opens and locks the file on `disk`.
pub(super) fn open_backend(disk: &dyn Vfs) -> Result<Arc<Backend>> {
    let path = disk.show(FILE_NAME);
    let cannot = |error| unavailable(format!("cannot open {path}"), error);
    let file = disk.open(FILE_NAME).map_err(cannot)?;
    let holder = match file.try_lock().map_err(cannot)? {
        Locked::Here => None,
        Locked::ThisProcess => Some("this process, which has not closed it"),
        Locked::AnotherProcess => Some("another process"),
    };
    if let Some(holder) = holder {
        let message = format!("cannot open {path}: it is in use by {holder}");
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    // redb would create a store in an empty file.
    if file.len().map_err(cannot)? == 0 {
        return Err(corrupt(format!("{path} is empty: it is not a store")));
    }
    Ok(Arc::new(Backend::new(file)))
}

/// The backend of a redb database, shared with its `BTreeFile`.
#[derive(Debug)]
pub(super) struct SharedBackend(pub(super) Arc<Backend>);

impl StorageBackend for SharedBackend {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data, SYNCS_OFTEN.get())
    }

    /// Called when the database is closed; transactions may keep the file open for longer.
    fn close(&self) -> Result<(), io::Error> {
        self.0.close()
    }
}

/// Fails if there is a WAL without a B-tree file, since a new store would lack its commits.
pub(crate) fn refuse_orphaned_log(disk: &dyn Vfs) -> Result<()> {
    let names = disk.names().map_err(|error| unavailable("cannot read the data folder", error))?;
    let Some(name) = names.iter().find(|name| wal::is_segment(name)) else { return Ok(()) };
    let folder = disk.folder();
    Err(corrupt(format!(
        "{FILE_NAME} is missing in {folder}, but its WAL exists ({name}): put the file back, or \
         restore a backup into an empty folder; do not delete the WAL, which may have the only \
         copy of the last commits"
    )))
}

/// Creates the file under another name, and renames it once it is complete. Keeps the file of
/// another process that was faster.
pub(super) fn create(disk: &dyn Vfs) -> Result<()> {
    let cannot = |error| unavailable(format!("cannot create {}", disk.show(FILE_NAME)), error);
    // Processes in different containers may share a folder and a process id.
    let random = getrandom::u64().map_err(|error| cannot(io::Error::other(error.to_string())))?;
    let draft = format!("store.{random:016x}.draft");
    let file = disk.create(&draft).map_err(cannot)?;
    let backend = Arc::new(Backend::new(file));
    let made = catch_redb_panic(|| {
        let database = Builder::new()
            .create_with_backend(SharedBackend(Arc::clone(&backend)))
            .map_err(|error| open_error(disk, error))?;
        initialize(&database).map_err(|error| broken(*error))?;
        if backend.is_spilling() { Err(no_space(&disk.folder())) } else { Ok(()) }
    });
    let published = made.and_then(|()| match disk.publish(&draft, FILE_NAME) {
        Err(error) if error.kind() != Io::AlreadyExists => Err(cannot(error)),
        outcome => Ok(outcome.is_ok()),
    });
    if !matches!(published, Ok(true)) {
        // A leftover draft does no harm.
        let _ = disk.remove(&draft);
    }
    published.map(drop)
}
