//! The file system interface of the engine: a folder, or memory.
//!
//! All disk access goes through this module, so that tests can replace the disk by one that fails,
//! tears writes and drops unsynced bytes. A write is durable once [`File::sync`] has returned after
//! it, a name once [`Vfs::sync_dir`] has. Unsynced writes and names may survive a crash completely,
//! in part, or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, ErrorKind as Io},
    num::NonZeroU64,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    super::process::Owner,
    names::{Calls, SYSTEM},
};

/// A flat set of named files.
pub(super) trait Vfs: fmt::Debug + Send + Sync {
    /// Returns the path of a file, for messages.
    fn show(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Returns the path of the folder, for messages.
    fn folder(&self) -> String {
        "memory".to_owned()
    }

    /// Returns the names of all files.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file. Fails with `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Creates an empty file, and replaces any of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Renames the file `draft` to `name`. Fails with `AlreadyExists` if there is a file of that
    /// name.
    fn publish(&self, draft: &str, name: &str) -> io::Result<()>;

    /// Removes a file. Open handles stay usable.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns whether recent reads were slow, so that reads should not block an async thread.
    fn is_slow(&self) -> bool {
        false
    }
}

/// A file with positioned reads and writes, usable from any thread.
pub(super) trait File: fmt::Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset`. Fails with `UnexpectedEof` if the file is too short.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`, and extends the file if necessary.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Truncates the file, or extends it with zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Allocates blocks for `length` bytes from `offset`, also after the end of the file, so that
    /// writes there find space. Changes neither content nor length. Fails with `Unsupported` if the
    /// file system cannot.
    fn allocate(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(Io::Unsupported.into())
    }

    /// Returns the available space of the file system, in bytes.
    fn available(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Makes all writes and the length durable.
    fn sync(&self) -> io::Result<()>;

    /// Starts the writeback of a short range without waiting, so that a later [`sync`](Self::sync)
    /// takes less time. Only `sync` reports errors.
    fn start_writeback(&self, _offset: u64, _length: usize) {}

    /// Locks the file exclusively until it is unlocked or dropped.
    fn try_lock(&self) -> io::Result<Locked> {
        Ok(Locked::Here)
    }

    /// Releases the lock of [`try_lock`](Self::try_lock).
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The outcome of an attempt to lock a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// The attempt succeeded.
    Here,
    /// This process holds the lock already.
    ThisProcess,
    AnotherProcess,
}

/// Reads the whole file into `bytes`.
pub(super) fn read_all(file: &dyn File, bytes: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::try_from(file.len()?).map_err(|_| io::Error::from(Io::FileTooLarge))?;
    bytes.resize(length, 0);
    file.read(0, bytes)
}

/// Returns whether `error` is a lack of space rather than a failing disk.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded)
}

/// A folder whose files only their owner can access.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    pace: Arc<Pace>,
    calls: Calls,
}

impl Directory {
    /// Returns the folder at `path`, after creating it and its missing ancestors.
    pub(super) fn make(path: &Path) -> io::Result<Self> {
        Self::make_with(path, SYSTEM)
    }

    /// Creates the folder as [`make`](Self::make) does, with the given system calls.
    pub(super) fn make_with(path: &Path, calls: Calls) -> io::Result<Self> {
        Ok(Self { path: calls.create_folder(path)?, pace: Arc::default(), calls })
    }

    /// Returns the folder at `path`, whether it exists or not.
    pub(super) fn at(path: &Path) -> Self {
        let resolved = fs::canonicalize(path).or_else(|_| std::path::absolute(path));
        let path = resolved.unwrap_or_else(|_| path.to_owned());
        Self { path, pace: Arc::default(), calls: SYSTEM }
    }

    #[cfg(test)]
    pub(super) fn set_calls(&mut self, calls: Calls) {
        self.calls = calls;
    }

    fn file(&self, file: fs::File) -> Arc<dyn File> {
        Arc::new(DirectoryFile {
            file,
            pace: Arc::clone(&self.pace),
            lock: OnceLock::new(),
            is_unlocked: AtomicBool::new(false),
        })
    }
}

impl Vfs for Directory {
    fn show(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn folder(&self) -> String {
        self.path.display().to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        // The names of the engine's files are ASCII.
        names.filter_map(|name| name.map(|name| name.into_string().ok()).transpose()).collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(self.file(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        options.mode(0o600);
        Ok(self.file(options.open(self.path.join(name))?))
    }

    fn publish(&self, draft: &str, name: &str) -> io::Result<()> {
        self.calls.rename_new(&self.path.join(draft), &self.path.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.calls.sync_folder(&self.path)
    }

    fn is_slow(&self) -> bool {
        self.pace.is_slow()
    }
}

#[derive(Debug)]
struct DirectoryFile {
    file: fs::File,
    pace: Arc<Pace>,
    /// Identity of the file, once this handle has locked it.
    lock: OnceLock<Identity>,
    is_unlocked: AtomicBool,
}

impl Drop for DirectoryFile {
    fn drop(&mut self) {
        let _ = self.unlock();
    }
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(file: &fs::File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The files that a process has locked.
struct LockedFiles {
    owner: Option<Owner>,
    files: BTreeSet<Identity>,
}

/// Returns the files that this process has locked. Empty after a fork.
fn locked_here() -> MutexGuard<'static, LockedFiles> {
    static LOCKED: Mutex<LockedFiles> =
        Mutex::new(LockedFiles { owner: None, files: BTreeSet::new() });
    let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
    let owner = Some(Owner::current());
    if locked.owner != owner {
        *locked = LockedFiles { owner, files: BTreeSet::new() };
    }
    locked
}

impl File for DirectoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let started = Instant::now();
        self.file.read_exact_at(out, offset)?;
        self.pace.read_took(started.elapsed());
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        use rustix::{
            fs::{FallocateFlags, fallocate},
            io::retry_on_intr,
        };

        retry_on_intr(|| fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, length))
            .map_err(Into::into)
    }

    #[cfg(target_os = "linux")]
    fn available(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.file)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    #[cfg(target_os = "linux")]
    fn start_writeback(&self, offset: u64, length: usize) {
        use rustix::fs::{Advice, fadvise};

        // Linux starts the writeback of ranges that are advised as not needed, and drops the pages
        // that are completely inside. A range shorter than a page contains none.
        if let Some(length) = NonZeroU64::new(length as u64).filter(|length| length.get() < PAGE) {
            let _ = fadvise(&self.file, offset, Some(length), Advice::DontNeed);
        }
    }

    fn try_lock(&self) -> io::Result<Locked> {
        let id = identity(&self.file)?;
        let mut locked = locked_here();
        match self.file.try_lock() {
            Ok(()) => {
                locked.files.insert(id);
                let _ = self.lock.set(id);
                Ok(Locked::Here)
            }
            Err(fs::TryLockError::WouldBlock) if locked.files.contains(&id) => {
                Ok(Locked::ThisProcess)
            }
            Err(fs::TryLockError::WouldBlock) => Ok(Locked::AnotherProcess),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        let Some(id) = self.lock.get() else { return Ok(()) };
        if self.is_unlocked.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let mut locked = locked_here();
        // A fork shares the lock of the original process, and must not release it.
        if !locked.files.remove(id) {
            return Ok(());
        }
        self.file.unlock()
    }
}

/// Minimum size of a page of the page cache, in bytes.
#[cfg(target_os = "linux")]
const PAGE: u64 = 4_096;

/// Duration above which a read counts as slow. Reads from the page cache take a few microseconds.
const SLOW_READ_THRESHOLD: Duration = Duration::from_micros(300);
/// Duration for which the disk counts as slow after a slow read.
const SLOW_INTERVAL: Duration = Duration::from_secs(1);

/// Tracks whether recent reads were slow.
#[derive(Debug)]
struct Pace {
    since: Instant,
    /// End of the slow interval, in microseconds since `since`; 0 if no read was slow.
    slow_until: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), slow_until: AtomicU64::new(0) }
    }
}

impl Pace {
    fn read_took(&self, took: Duration) {
        if took > SLOW_READ_THRESHOLD {
            self.slow_until.store(self.micros(SLOW_INTERVAL), Ordering::Relaxed);
        }
    }

    fn is_slow(&self) -> bool {
        let until = self.slow_until.load(Ordering::Relaxed);
        // Avoids reading the clock in the common case.
        until != 0 && self.micros(Duration::ZERO) < until
    }

    /// Returns the time `ahead` of now, in microseconds since `since`.
    fn micros(&self, ahead: Duration) -> u64 {
        u64::try_from((self.since.elapsed() + ahead).as_micros()).unwrap_or(u64::MAX)
    }
}

/// A disk in memory, dropped with its last handle.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<BTreeMap<String, Arc<MemoryFile>>>);

impl Memory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Vfs for Memory {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let found = self.files().get(name).cloned().ok_or(Io::NotFound)?;
        Ok(found)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = Arc::new(MemoryFile::default());
        self.files().insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn publish(&self, draft: &str, name: &str) -> io::Result<()> {
        let mut files = self.files();
        if files.contains_key(name) {
            return Err(Io::AlreadyExists.into());
        }
        let file = files.remove(draft).ok_or(Io::NotFound)?;
        files.insert(name.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(|| Io::NotFound.into())
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct MemoryFile(RwLock<Vec<u8>>);

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryFile")
    }
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = place(offset)?;
        let found = bytes.get(from..from.saturating_add(out.len()));
        out.copy_from_slice(found.ok_or(Io::UnexpectedEof)?);
        Ok(())
    }

    fn write(&self, offset: u64, new: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let from = place(offset)?;
        let end = from + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(new);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).resize(place(length)?, 0);
        Ok(())
    }

    fn allocate(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| Io::FileTooLarge.into())
}
