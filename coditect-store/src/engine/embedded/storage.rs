//! The B-tree under the engine: the only file that names the crate that keeps it.
//!
//! One file, `store.redb`, of two tables: `data`, the user's keys and values, and `meta`, the
//! format's version and the last commit's. A batch of commits is one redb transaction with one
//! sync. Quick repair is on, so that a store opens at once after a crash.

use std::{
    fmt, fs,
    io::{self, ErrorKind as Io},
    ops::Bound,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{
    Builder, Database, DatabaseError, Durability, OwnedRange, ReadOnlyTable, ReadableDatabase,
    ReadableTable, StorageError, Table, TableDefinition, TableError, WriteTransaction,
    backends::InMemoryBackend,
};

use super::super::range::{KeyValue, Order};
use crate::{Error, ErrorKind, Result};

const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const LAST_VERSION: &str = "last_version";

/// The version of the layout above. A store of a newer one is refused.
const FORMAT_VERSION: u64 = 1;

/// The name of the file within its folder.
const FILE_NAME: &str = "store.redb";

/// The writer's side; there is one.
pub(super) struct Storage {
    database: Database,
    /// The version of the last commit on disk.
    last_version: u64,
}

/// A state of the whole store that stays as it is while others are written. Cheap to clone.
#[derive(Clone)]
pub(super) struct Snapshot(Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>);

/// The rows of a range of a snapshot, in one order.
pub(super) struct Rows {
    range: OwnedRange<&'static [u8], &'static [u8]>,
    order: Order,
}

/// What is written before the next sync.
pub(super) struct Batch<'a> {
    data: Table<'a, &'static [u8], &'static [u8]>,
}

impl Storage {
    /// Opens the file in `folder`, or makes both.
    pub(super) fn open(folder: &Path, cache_bytes: usize) -> Result<Self> {
        make_folder(folder).map_err(|error| {
            unavailable(format!("the data folder {} cannot be made", folder.display()))
                .because(error)
        })?;
        let path = folder.join(FILE_NAME);
        let existed = match fs::metadata(&path) {
            Ok(file) => file.len() > 0,
            Err(error) if error.kind() == Io::NotFound => false,
            Err(error) => {
                return Err(
                    unavailable(format!("{} cannot be read", path.display())).because(error)
                );
            }
        };
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        builder.set_repair_callback(|session| {
            tracing::warn!(percent = session.progress() * 100.0, "repairing the store");
        });
        // A damaged file may make the crate panic while it opens it.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| {
            if existed { builder.open(&path) } else { builder.create(&path) }
        }));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(open_error(&path, error)),
            Err(_) => return Err(corrupt(format!("{} is damaged", path.display()))),
        };
        if !existed {
            // So that the file's name is on disk before anything is promised to be in it.
            sync_folder(folder)?;
        }
        let started = panic::catch_unwind(AssertUnwindSafe(|| Self::start(database)));
        started.unwrap_or_else(|_| Err(corrupt(format!("{} is damaged", path.display()))))
    }

    /// A store that is gone when it is dropped.
    pub(super) fn memory() -> Result<Self> {
        let database = Builder::new()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| open_error(&PathBuf::from("memory"), error))?;
        Self::start(database)
    }

    /// A store in memory whose syncs fail once `fails` is set.
    #[cfg(test)]
    pub(super) fn failing(fails: Arc<std::sync::atomic::AtomicBool>) -> Result<Self> {
        let disk = failing::Disk { inner: InMemoryBackend::new(), fails };
        Self::start(Builder::new().create_with_backend(disk).map_err(broken)?)
    }

    fn start(database: Database) -> Result<Self> {
        let read = database.begin_read().map_err(broken)?;
        let (format, last_version) = match read.open_table(META) {
            Ok(meta) => (value(&meta, FORMAT)?, value(&meta, LAST_VERSION)?.unwrap_or(0)),
            Err(TableError::TableDoesNotExist(_)) => (None, 0),
            Err(error) => return Err(corrupt("the store's meta table is not ours").because(error)),
        };
        let has_other_tables = read.list_tables().map_err(broken)?.next().is_some();
        drop(read);
        match format {
            Some(FORMAT_VERSION) => {}
            None if has_other_tables => {
                return Err(corrupt("the file is another program's: it has no format version"));
            }
            None => initialize(&database).map_err(|error| broken(*error))?,
            Some(newer) if newer > FORMAT_VERSION => {
                return Err(Error::new(
                    ErrorKind::NewerFormat,
                    format!(
                        "the store is of format {newer}; this program knows formats up to \
                         {FORMAT_VERSION}: use a newer one"
                    ),
                ));
            }
            Some(other) => return Err(corrupt(format!("the store is of unknown format {other}"))),
        }
        Ok(Self { database, last_version })
    }

    pub(super) fn last_version(&self) -> u64 {
        self.last_version
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let read = self.database.begin_read().map_err(broken)?;
        let table = read.open_table(DATA).map_err(broken)?;
        Ok(Snapshot(Arc::new(table)))
    }

    /// Lets `fill` write, and makes it durable as of `version`: all of it, or, if this fails,
    /// perhaps all of it, and the store must not be used any more.
    pub(super) fn write<T>(
        &mut self,
        version: u64,
        fill: impl FnOnce(&mut Batch<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut transaction = self.database.begin_write().map_err(broken)?;
        make_durable(&mut transaction).map_err(broken)?;
        let filled = {
            let data = transaction.open_table(DATA).map_err(broken)?;
            fill(&mut Batch { data })?
        };
        {
            let mut meta = transaction.open_table(META).map_err(broken)?;
            meta.insert(LAST_VERSION, version).map_err(broken)?;
        }
        transaction.commit().map_err(broken)?;
        self.last_version = version;
        Ok(filled)
    }
}

impl Snapshot {
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.0.get(key).map_err(broken)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    /// The rows from `begin` up to, and without, `end`.
    pub(super) fn rows(&self, begin: &[u8], end: &[u8], order: Order) -> Result<Rows> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
            (Bound::Included(begin), Bound::Excluded(end.max(begin)));
        let range = self.0.range_owned::<&[u8]>(bounds).map_err(broken)?;
        Ok(Rows { range, order })
    }
}

impl Iterator for Rows {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match self.order {
            Order::Ascending => self.range.next(),
            Order::Descending => self.range.next_back(),
        }?;
        Some(row.map_err(broken).map(|(key, value)| KeyValue {
            key: key.value().to_vec(),
            value: value.value().to_vec(),
        }))
    }
}

impl Batch<'_> {
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.data.get(key).map_err(broken)?;
        Ok(found.map(|value| value.value().to_vec()))
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.data.insert(key, value).map_err(broken)?;
        Ok(())
    }

    pub(super) fn clear(&mut self, key: &[u8]) -> Result<()> {
        self.data.remove(key).map_err(broken)?;
        Ok(())
    }

    pub(super) fn clear_range(&mut self, begin: &[u8], end: &[u8]) -> Result<()> {
        self.data.retain_in::<&[u8], _>(begin..end, |_, _| false).map_err(broken)
    }
}

fn make_durable(transaction: &mut WriteTransaction) -> Result<(), redb::SetDurabilityError> {
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(())
}

fn initialize(database: &Database) -> Result<(), Box<redb::Error>> {
    let write = |database: &Database| -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        make_durable(&mut transaction)?;
        transaction.open_table(DATA)?;
        transaction.open_table(META)?.insert(FORMAT, FORMAT_VERSION)?;
        transaction.commit()?;
        Ok(())
    };
    write(database).map_err(Box::new)
}

fn value(meta: &ReadOnlyTable<&'static str, u64>, name: &str) -> Result<Option<u64>> {
    let found = meta.get(name).map_err(broken)?;
    Ok(found.map(|number| number.value()))
}

/// Makes the folder, and those it lies in; what is made is for its owner's eyes only.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| {
        unavailable(format!("the data folder {} cannot be synced", folder.display())).because(error)
    })
}

fn open_error(path: &Path, error: DatabaseError) -> Error {
    let path = path.display();
    match &error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            unavailable(format!("{path} is in use by another process"))
        }
        DatabaseError::UpgradeRequired(version) => Error::new(
            ErrorKind::NewerFormat,
            format!("{path} is of B-tree format {version}, which this program does not read"),
        ),
        DatabaseError::Storage(StorageError::Io(cause)) if cause.kind() != Io::InvalidData => {
            unavailable(format!("{path} cannot be opened"))
        }
        _ => corrupt(format!("{path} is damaged, or is not a store")),
    }
    .because(error)
}

/// An error of the storage while it was in use.
fn broken(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Corrupted(_) => ErrorKind::Corrupt,
        redb::Error::DatabaseClosed => ErrorKind::Closed,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the store's file cannot be used").because(error)
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

fn corrupt(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}

#[cfg(test)]
mod failing {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use redb::{StorageBackend, backends::InMemoryBackend};

    /// Memory whose syncs fail once it is told so.
    #[derive(Debug)]
    pub(super) struct Disk {
        pub(super) inner: InMemoryBackend,
        pub(super) fails: Arc<AtomicBool>,
    }

    impl Disk {
        fn check(&self) -> io::Result<()> {
            if self.fails.load(Ordering::SeqCst) {
                Err(io::Error::other("the disk is gone"))
            } else {
                Ok(())
            }
        }
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.inner.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.inner.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.check()?;
            self.inner.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.inner.write(offset, data)
        }
    }
}
