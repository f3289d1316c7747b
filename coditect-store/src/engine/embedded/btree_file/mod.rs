//! The B-tree file, the only module that names redb.
//!
//! One file, `store.redb`, with two tables: `data` holds the user's keys and values, `meta` the
//! state of the file. A checkpoint writes one memtable in one redb transaction with one sync. Quick
//! repair is enabled, so that a store opens at once after a crash. A new file is created completely
//! under another name and then renamed, so that a crash leaves none.
//!
//! redb verifies the checksums of its pages when it repairs, not when it reads. So each value has
//! its own:
//!
//! ```text
//! data   key → CRC-32C of key and value (4 bytes, little-endian) ‖ value
//! meta   "format"       → 4
//!        "store"        → a random number that the WAL segments repeat
//!        "last_version" → the version of the last commit that the file contains
//!        "log"          → the checksum of that commit's WAL frame
//!        "segment"      → the number of the segment with that frame, or in which the WAL begins
//!        "clean"        → 1 after a clean shutdown: the file contains the whole WAL
//!        "partial_checkpoint_version"
//!                       → the version up to which the file contains parts of the WAL, if any
//! ```
//!
//! "clean" is removed, and "segment" written, before the first commit after opening is
//! acknowledged. So without "clean" the recorded segment exists, or acknowledged commits are
//! missing.
//!
//! A value with a wrong checksum, or a page that makes redb panic, is `Corrupt`. A page that lost
//! keys but is otherwise intact is not detected here.

mod errors;
mod meta;
mod opening;

use std::{fmt, io::ErrorKind as Io, ops::Bound, sync::Arc};

use redb::{Builder, Database, OwnedRange, ReadOnlyTable, ReadableDatabase, StorageError, Table};

pub(super) use self::opening::{refuse_orphaned_log, sync_often};
use self::{
    errors::{broken, catch_redb_panic, corrupt, open_error, unavailable},
    meta::{
        CLEAN, DATA, LAST_VERSION, LOG, META, Meta, PARTIAL_CHECKPOINT_VERSION, SEGMENT,
        make_durable,
    },
    opening::{SharedBackend, create, open_backend},
};
use super::{
    super::range::Order,
    backend::Backend,
    memtable::Memtable,
    vfs::Vfs,
    wal::{LogPosition, Mutation, Recorded},
};
use crate::{Error, ErrorKind, Result};

/// Name of the file.
const FILE_NAME: &str = "store.redb";

/// Cache size during a check, in bytes; a check reads each page once.
const CHECK_CACHE_BYTES: usize = 64 << 20;

/// The B-tree file, open for writing; there is one writer.
pub(super) struct BTreeFile {
    database: Database,
    backend: Arc<Backend>,
    recorded: Recorded,
    partial_checkpoint_version: u64,
    /// Maximum size of a transaction's data in redb until it commits, in bytes.
    buffer_bytes: u64,
}

/// An immutable state of the whole file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Snapshot(Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>);

/// A key, and its value unless that is damaged.
pub(super) type CheckedRow = (Vec<u8>, Option<Vec<u8>>);

/// The rows of a range of a snapshot, in one order.
pub(super) struct Rows {
    range: OwnedRange<&'static [u8], &'static [u8]>,
    order: Order,
}

/// A write transaction.
pub(super) struct Batch<'a> {
    data: Table<'a, &'static [u8], &'static [u8]>,
    backend: &'a Backend,
}

impl BTreeFile {
    /// Opens the file on `disk`, or creates it.
    pub(super) fn open(disk: &dyn Vfs, cache_bytes: usize) -> Result<Self> {
        if !Self::is_on(disk)? {
            refuse_orphaned_log(disk)?;
            create(disk)?;
        }
        // A crash may have come between creating the file and making its name durable.
        disk.sync_dir().map_err(|error| unavailable("cannot sync the data folder", error))?;
        let mut builder = Builder::new();
        builder.set_cache_size(cache_bytes);
        builder.set_repair_callback(|session| {
            tracing::warn!(percent = session.progress() * 100.0, "repairing the B-tree file");
        });
        let backend = open_backend(disk)?;
        catch_redb_panic(|| {
            let shared = SharedBackend(Arc::clone(&backend));
            let database =
                builder.create_with_backend(shared).map_err(|error| open_error(disk, error))?;
            Self::start(database, backend, cache_bytes)
        })
    }

    /// Returns whether there is a file on `disk`.
    pub(super) fn is_on(disk: &dyn Vfs) -> Result<bool> {
        match disk.names() {
            Ok(names) => Ok(names.iter().any(|name| name == FILE_NAME)),
            Err(error) if error.kind() == Io::NotFound => Ok(false),
            Err(error) => Err(unavailable("cannot read the data folder", error)),
        }
    }

    /// Verifies the checksums of all pages of the file on `disk`, and repairs what redb can repair.
    /// The file must not be open elsewhere. Returns whether it was intact.
    pub(super) fn check(disk: &dyn Vfs) -> Result<bool> {
        let backend = SharedBackend(open_backend(disk)?);
        catch_redb_panic(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(CHECK_CACHE_BYTES);
            let open_error = |error| open_error(disk, error);
            let mut database = builder.create_with_backend(backend).map_err(open_error)?;
            database.check_integrity().map_err(open_error)
        })
    }

    fn start(database: Database, backend: Arc<Backend>, cache_bytes: usize) -> Result<Self> {
        let Meta { recorded, partial_checkpoint_version } = Meta::read(&database)?;
        let buffer_bytes = cache_bytes as u64 / 2;
        Ok(Self { database, backend, recorded, partial_checkpoint_version, buffer_bytes })
    }

    /// Returns the file's record of its WAL.
    pub(super) fn recorded(&self) -> Recorded {
        self.recorded
    }

    /// Returns the last WAL frame that the file contains.
    pub(super) fn applied(&self) -> LogPosition {
        self.recorded.applied
    }

    /// Returns the version up to which it may contain parts of the WAL beyond
    /// [`applied`](Self::applied), or 0.
    pub(super) fn partial_checkpoint_version(&self) -> u64 {
        self.partial_checkpoint_version
    }

    pub(super) fn snapshot(&self) -> Result<Snapshot> {
        let read = self.database.begin_read().map_err(broken)?;
        let table = read.open_table(DATA).map_err(broken)?;
        Ok(Snapshot(Arc::new(table)))
    }

    /// Writes `memtable`, after which the file contains the WAL up to `applied`; atomic and
    /// durable. `is_clean` records that the WAL may be missing from now on. After an error the file
    /// must not be used.
    pub(super) fn apply(
        &mut self,
        memtable: &Memtable,
        applied: LogPosition,
        is_clean: bool,
    ) -> Result<Written> {
        let written = self.write(memtable, |meta| {
            meta.insert(LAST_VERSION, applied.version)?;
            meta.insert(LOG, u64::from(applied.checksum))?;
            meta.insert(SEGMENT, applied.segment)?;
            if is_clean {
                meta.insert(CLEAN, 1)?;
            } else {
                meta.remove(CLEAN)?;
            }
            meta.remove(PARTIAL_CHECKPOINT_VERSION).map(drop)
        })?;
        if written == Written::Durably {
            self.recorded = Recorded { applied, is_clean, ..self.recorded };
            self.partial_checkpoint_version = 0;
        }
        Ok(written)
    }

    /// Records that the WAL begins in `segment`, which exists, and that it must not be missing from
    /// now on.
    pub(super) fn require_log(&mut self, segment: u64) -> Result<Written> {
        let written = self.write(&Memtable::default(), |meta| {
            meta.insert(SEGMENT, segment)?;
            meta.remove(CLEAN).map(drop)
        })?;
        if written == Written::Durably {
            self.recorded.applied.segment = segment;
            self.recorded.is_clean = false;
        }
        Ok(written)
    }

    /// Writes `memtable`, a part of the WAL up to `version`; the file is then ahead of the recorded
    /// position.
    pub(super) fn apply_partial(&mut self, memtable: &Memtable, version: u64) -> Result<Written> {
        let written = self
            .write(memtable, |meta| meta.insert(PARTIAL_CHECKPOINT_VERSION, version).map(drop))?;
        if written == Written::Durably {
            self.partial_checkpoint_version = version;
        }
        Ok(written)
    }

    /// Returns whether there is space for the most that `memtable` may need, assuming that no page
    /// of the file is free, with `kept` bytes left over.
    pub(super) fn has_space(&self, memtable: &Memtable, kept: u64) -> bool {
        let needed = memtable.changes().map(page_bytes).sum::<u64>().min(self.buffer_bytes);
        let length = self.backend.len().unwrap_or(0);
        self.backend.available() >= needed + kept + SYSTEM_BYTES + length / 4_096
    }

    /// Writes a memtable and the state in one transaction. Without space nothing is written, or, if
    /// that was noticed late, the write is flushed before the next one begins.
    fn write(
        &self,
        memtable: &Memtable,
        note: impl FnOnce(&mut Table<'_, &'static str, u64>) -> Result<(), StorageError>,
    ) -> Result<Written> {
        let flush = || self.backend.flush().map_err(|error| broken(redb::Error::Io(error)));
        catch_redb_panic(|| {
            if !flush()? {
                return Ok(Written::NoSpace);
            }
            let mut transaction = self.database.begin_write().map_err(broken)?;
            make_durable(&mut transaction).map_err(broken)?;
            let filled = {
                let data = transaction.open_table(DATA).map_err(broken)?;
                Batch { data, backend: &self.backend }.apply(memtable)
            };
            if !self.backend.is_spilling() {
                filled?;
                note(&mut transaction.open_table(META).map_err(broken)?).map_err(broken)?;
            }
            if self.backend.is_spilling() {
                transaction.abort().map_err(broken)?;
                self.backend.discard().map_err(|error| broken(redb::Error::Io(error)))?;
                return Ok(Written::NoSpace);
            }
            transaction.commit().map_err(broken)?;
            Ok(if flush()? { Written::Durably } else { Written::NoSpace })
        })
    }
}

/// Maximum size of the pages of redb's own tables that a commit writes, in bytes, without the part
/// that grows with the file.
const SYSTEM_BYTES: u64 = 512 << 10;
/// Size of a page, in bytes.
const PAGE_BYTES: u64 = 4_096;

/// Returns the maximum size of new pages that `change` needs: its own, whose number is a power of
/// two, and the path to it.
pub(super) fn page_bytes(change: Mutation<'_>) -> u64 {
    match change {
        Mutation::Set { key, value } => 2 * ((key.len() + value.len()) as u64 + PAGE_BYTES),
        Mutation::Clear { .. } => 2 * PAGE_BYTES,
        Mutation::ClearRange { .. } => 8 * PAGE_BYTES,
    }
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Durably,
    /// There is no space; the file is unchanged.
    NoSpace,
}

impl Snapshot {
    pub(super) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        catch_redb_panic(|| {
            let found = self.0.get(key).map_err(broken)?;
            found.map(|stored| verified_value(key, stored.value())).transpose()
        })
    }

    /// Returns the rows from `begin` (inclusive) to `end` (exclusive).
    pub(super) fn rows(&self, begin: &[u8], end: &[u8], order: Order) -> Result<Rows> {
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) =
            (Bound::Included(begin), Bound::Excluded(end.max(begin)));
        catch_redb_panic(|| {
            let range = self.0.range_owned::<&[u8]>(bounds).map_err(broken)?;
            Ok(Rows { range, order })
        })
    }
}

impl Rows {
    /// Returns the next row. A row with a damaged value is returned as such, and does not end the
    /// range.
    pub(super) fn next_checked(&mut self) -> Result<Option<CheckedRow>> {
        catch_redb_panic(|| {
            let row = match self.order {
                Order::Ascending => self.range.next(),
                Order::Descending => self.range.next_back(),
            };
            let Some((key, stored)) = row.transpose().map_err(broken)? else { return Ok(None) };
            let value = verified_value(key.value(), stored.value()).ok();
            Ok(Some((key.value().to_vec(), value)))
        })
    }
}

impl Batch<'_> {
    /// Fails once there is no space, since more would only fill memory.
    fn check_space(&self) -> Result<()> {
        if self.backend.is_spilling() {
            return Err(Error::new(ErrorKind::Unavailable, "no space left for the B-tree file"));
        }
        Ok(())
    }

    /// Applies all mutations of `memtable`.
    fn apply(&mut self, memtable: &Memtable) -> Result<()> {
        for change in memtable.changes() {
            match change {
                Mutation::Set { key, value } => self.set(key, value)?,
                Mutation::Clear { key } => self.clear(key)?,
                Mutation::ClearRange { begin, end } => self.clear_range(begin, end)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.check_space()?;
        let length = CHECKSUM_BYTES + value.len();
        let mut stored = self.data.insert_reserve(key, length).map_err(broken)?;
        let (sum, content) = stored.as_mut().split_at_mut(CHECKSUM_BYTES);
        sum.copy_from_slice(&checksum(key, value).to_le_bytes());
        content.copy_from_slice(value);
        Ok(())
    }

    fn clear(&mut self, key: &[u8]) -> Result<()> {
        self.check_space()?;
        self.data.remove(key).map_err(broken)?;
        Ok(())
    }

    fn clear_range(&mut self, begin: &[u8], end: &[u8]) -> Result<()> {
        self.check_space()?;
        self.data.retain_in::<&[u8], _>(begin..end, |_, _| false).map_err(broken)
    }
}

/// Size of a stored value's checksum, in bytes.
const CHECKSUM_BYTES: usize = 4;

fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), value)
}

/// Returns the value stored under `key`, if its checksum matches.
fn verified_value(key: &[u8], stored: &[u8]) -> Result<Vec<u8>> {
    match stored.split_first_chunk::<CHECKSUM_BYTES>() {
        Some((sum, value)) if u32::from_le_bytes(*sum) == checksum(key, value) => {
            Ok(value.to_vec())
        }
        _ => Err(damaged()),
    }
}

pub(super) fn damaged() -> Error {
    corrupt("stored value is damaged: checksum mismatch")
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Snapshot")
    }
}
