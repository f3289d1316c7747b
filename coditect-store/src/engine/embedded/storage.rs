//! The B-tree under the engine: the only file that names the crate that keeps it.
//!
//! One file, `store.redb`, of two tables: `data`, the user's keys and values, and `meta`, the
//! format's version and the last commit's. A batch of commits is one redb transaction with one
//! sync. Quick repair is on, so that a store opens at once after a crash. The file is made whole
//! under another name first, so that a crash while it is made leaves none.
//!
//! redb checks its pages' sums when it repairs, not when it reads. So each value bears its own:
//!
//! ```text
//! data   key → CRC-32C of key and value (4 bytes, little-endian) ‖ value
//! meta   "format" → 1, "last_version" → the version of the last commit
//! ```
//!
//! A value that is not what was written, or a page that makes redb panic, is `Corrupt`. A page that
//! lost keys, and is otherwise whole, is not noticed here.

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

/// The memory that caches the file while its pages are compared, each of which is read once.
const CHECK_CACHE_BYTES: usize = 64 << 20;

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

/// A key, and its value unless that is damaged.
pub(super) type CheckedRow = (Vec<u8>, Option<Vec<u8>>);

/// The rows of a range of a snapshot, in one order.
pub(super) struct Rows {
    range: OwnedRange<&'static [u8], &'static [u8]>,
    order: Order,
}

/// What is written before the next sync.
pub(super) struct Batch<'a> {
    data: Table<'a, &'static [u8], &'static [u8]>,
}

/// A batch that was not written.
pub(super) enum WriteError {
    /// It failed before the commit: nothing of it is there.
    NotWritten(Error),
    /// The commit failed: all of it may be there, or nothing.
    Unknown(Error),
}

impl Storage {
    /// Opens the file in `folder`, or makes both.
    pub(super) fn open(folder: &Path, cache_bytes: usize) -> Result<Self> {
        make_folder(folder).map_err(|error| {
            unavailable(format!("the data folder {} cannot be made", folder.display()))
                .because(error)
        })?;
        let path = folder.join(FILE_NAME);
        if !Self::is_in(folder)? {
            create(&path)?;
        }
        // The names of the file and of its folder are on disk before anything is promised to be in
        // them; a crash may have come between making and syncing them.
        sync_folder(folder)?;
        folder.parent().map_or(Ok(()), sync_folder)?;
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        builder.set_repair_callback(|session| {
            tracing::warn!(percent = session.progress() * 100.0, "repairing the store");
        });
        guarded(|| {
            let database = builder.open(&path).map_err(|error| open_error(&path, error))?;
            Self::start(database)
        })
    }

    /// Whether there is a file in `folder`.
    pub(super) fn is_in(folder: &Path) -> Result<bool> {
        let path = folder.join(FILE_NAME);
        path.try_exists().map_err(|error| {
            unavailable(format!("{} cannot be read", path.display())).because(error)
        })
    }

    /// Compares all pages of the file in `folder` with their sums, and puts right what redb can.
    /// Nobody else may have it open. True if it was sound.
    pub(super) fn check(folder: &Path) -> Result<bool> {
        let path = folder.join(FILE_NAME);
        guarded(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(CHECK_CACHE_BYTES);
            let mut database = builder.open(&path).map_err(|error| open_error(&path, error))?;
            database.check_integrity().map_err(|error| open_error(&path, error))
        })
    }

    /// A store that is gone when it is dropped.
    pub(super) fn memory() -> Result<Self> {
        let database = Builder::new()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| open_error(&PathBuf::from("memory"), error))?;
        initialize(&database).map_err(|error| broken(*error))?;
        Self::start(database)
    }

    /// A store in memory of whose syncs one fails: the one that finds `syncs_left` at zero.
    #[cfg(test)]
    pub(super) fn failing(
        syncs_left: Arc<std::sync::atomic::AtomicI64>,
        failure: failing::Failure,
    ) -> Result<Self> {
        let disk = failing::Disk { inner: InMemoryBackend::new(), syncs_left, failure };
        let database = Builder::new().create_with_backend(disk).map_err(broken)?;
        initialize(&database).map_err(|error| broken(*error))?;
        Self::start(database)
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
            None => return Err(corrupt("the file is empty: it is not a store")),
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

    /// Lets `fill` write, and makes it durable as of `version`: all or nothing. After an outcome
    /// that is unknown the store must not be used any more.
    pub(super) fn write<T>(
        &mut self,
        version: u64,
        fill: impl FnOnce(&mut Batch<'_>) -> Result<T>,
    ) -> Result<T, WriteError> {
        let filled = guarded(|| {
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
            Ok((transaction, filled))
        });
        let (transaction, filled) = filled.map_err(WriteError::NotWritten)?;
        guarded(|| transaction.commit().map_err(broken)).map_err(WriteError::Unknown)?;
        self.last_version = version;
        Ok(filled)
    }
}

impl Snapshot {
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        guarded(|| {
            let found = self.0.get(key).map_err(broken)?;
            found.map(|stored| unsealed(key, stored.value())).transpose()
        })
    }

    /// The rows from `begin` up to, and without, `end`.
    pub(super) fn rows(&self, begin: &[u8], end: &[u8], order: Order) -> Result<Rows> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
            (Bound::Included(begin), Bound::Excluded(end.max(begin)));
        guarded(|| {
            let range = self.0.range_owned::<&[u8]>(bounds).map_err(broken)?;
            Ok(Rows { range, order })
        })
    }
}

impl Rows {
    /// The next row; one whose value is damaged is not passed over, nor does it end the rows.
    pub(super) fn next_checked(&mut self) -> Result<Option<CheckedRow>> {
        guarded(|| {
            let row = match self.order {
                Order::Ascending => self.range.next(),
                Order::Descending => self.range.next_back(),
            };
            let Some((key, stored)) = row.transpose().map_err(broken)? else { return Ok(None) };
            let value = unsealed(key.value(), stored.value()).ok();
            Ok(Some((key.value().to_vec(), value)))
        })
    }
}

impl Iterator for Rows {
    type Item = Result<KeyValue>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_checked().transpose()?;
        Some(row.and_then(|(key, value)| match value {
            Some(value) => Ok(KeyValue { key, value }),
            None => Err(damaged()),
        }))
    }
}

impl Batch<'_> {
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let found = self.data.get(key).map_err(broken)?;
        found.map(|stored| unsealed(key, stored.value())).transpose()
    }

    pub(super) fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let length = SUM_BYTES + value.len();
        let mut stored = self.data.insert_reserve(key, length).map_err(broken)?;
        let (sum, place) = stored.as_mut().split_at_mut(SUM_BYTES);
        sum.copy_from_slice(&checksum(key, value).to_le_bytes());
        place.copy_from_slice(value);
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

/// Makes the file in one step: whole under a name of its own, then by its own. If another process
/// was faster, its file stays.
fn create(path: &Path) -> Result<()> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    let cannot =
        |error: io::Error| unavailable(format!("{} cannot be made", path.display())).because(error);
    let made = guarded(|| {
        let database = Builder::new().create(&draft).map_err(|error| open_error(&draft, error))?;
        initialize(&database).map_err(|error| broken(*error))?;
        keep_from_others(&draft).map_err(cannot)
    });
    let linked = made.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != Io::AlreadyExists => Err(cannot(error)),
        _ => Ok(()),
    });
    // One that stays behind is in nobody's way.
    let _ = fs::remove_file(&draft);
    linked
}

/// A stored value's checksum, in bytes.
const SUM_BYTES: usize = 4;

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// The value that was stored under `key`, if it is still what it was.
fn unsealed(key: &[u8], stored: &[u8]) -> Result<Vec<u8>> {
    match stored.split_first_chunk::<SUM_BYTES>() {
        Some((sum, value)) if u32::from_le_bytes(*sum) == checksum(key, value) => {
            Ok(value.to_vec())
        }
        _ => Err(damaged()),
    }
}

fn damaged() -> Error {
    corrupt("a stored value is damaged")
}

/// Does `work`; a damaged file may make the storage crate panic on the way.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    done.unwrap_or_else(|_| Err(corrupt("the store's file is damaged")))
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

/// Makes the file one for its owner's eyes only, whatever folder it lies in.
fn keep_from_others(file: &Path) -> io::Result<()> {
    #[cfg(unix)]
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}

fn sync_folder(folder: &Path) -> Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
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
        DatabaseError::Storage(StorageError::Io(cause)) if !tells_of_damage(cause) => {
            unavailable(format!("{path} cannot be opened"))
        }
        _ => corrupt(format!("{path} is damaged, or is not a store")),
    }
    .because(error)
}

/// Whether it comes of what is in the file: pointers of a damaged page lead past its end.
fn tells_of_damage(error: &io::Error) -> bool {
    matches!(error.kind(), Io::UnexpectedEof | Io::InvalidData | Io::InvalidInput)
}

/// An error of the storage while it was in use.
fn broken(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        // A lock is poisoned by a panic before, and only damage makes the crate panic.
        redb::Error::Corrupted(_) | redb::Error::LockPoisoned(_) => ErrorKind::Corrupt,
        redb::Error::Io(cause) if tells_of_damage(cause) => ErrorKind::Corrupt,
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
pub(super) mod failing {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicI64, Ordering},
        },
    };

    use redb::{StorageBackend, backends::InMemoryBackend};

    /// What a sync does instead of its work.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) enum Failure {
        Error,
        Panic,
    }

    /// Memory of whose syncs one fails.
    #[derive(Debug)]
    pub(super) struct Disk {
        pub(super) inner: InMemoryBackend,
        pub(super) syncs_left: Arc<AtomicI64>,
        pub(super) failure: Failure,
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
            match (self.syncs_left.fetch_sub(1, Ordering::SeqCst), self.failure) {
                (0, Failure::Error) => Err(io::Error::other("the disk is gone")),
                (0, Failure::Panic) => panic!("the disk is gone"),
                _ => self.inner.sync_data(),
            }
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.inner.write(offset, data)
        }
    }
}
