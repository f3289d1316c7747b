//! The files under the engine: a folder of the system's, or memory.
//!
//! Everything that the engine has on disk goes through here, so that tests can put a disk in its
//! place that fails, tears and forgets. What a disk must do: a write is there after a crash if
//! [`File::sync`] returned after it, a name if [`Vfs::sync_dir`] did; what was not synced may be
//! there, in part, or not.

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
    /// Where a file is, for people.
    fn show(&self, name: &str) -> String {
        name.to_owned()
    }

    /// Returns where the files are, for people.
    fn folder(&self) -> String {
        "memory".to_owned()
    }

    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file; `NotFound` if it is not there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Makes an empty file, in place of any of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Gives a file the name `name`; `AlreadyExists` if another has it.
    fn publish(&self, draft: &str, name: &str) -> io::Result<()>;

    /// Removes a file; it lives on for whoever has it open.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all names durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Whether reads have lately been so slow that they had better not be done on a thread that
    /// serves others.
    fn is_slow(&self) -> bool {
        false
    }
}

/// A file that can be read and written anywhere, from any thread.
pub(super) trait File: fmt::Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on; `UnexpectedEof` if the file ends before.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes`; past the end the file grows.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or lengthens it by zeros.
    fn set_len(&self, length: u64) -> io::Result<()>;

    /// Allocates blocks for `length` bytes from `offset` on, also behind the file's end, so that
    /// writes there find space. Neither content nor length changes. `Unsupported` if the file
    /// system cannot.
    fn allocate(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(Io::Unsupported.into())
    }

    /// Returns the space that is available where it is stored, in bytes.
    fn available(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Makes what was written, and the length, durable.
    fn sync(&self) -> io::Result<()>;

    /// Has the disk begin with that for a short place, if it can without anybody waiting: who has
    /// something else to do then waits for less in [`sync`](Self::sync), which alone says that it
    /// is done.
    fn start_writeback(&self, _offset: u64, _length: usize) {}

    /// Keeps others from locking it too, until it is unlocked or dropped.
    fn try_lock(&self) -> io::Result<Locked> {
        Ok(Locked::Here)
    }

    /// Undoes [`try_lock`](Self::try_lock).
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The outcome of an attempt to lock a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locked {
    /// It is locked by this attempt.
    Here,
    /// An earlier attempt of this process has it.
    ThisProcess,
    AnotherProcess,
}

/// Makes `bytes` all of a file's.
pub(super) fn read_all(file: &dyn File, bytes: &mut Vec<u8>) -> io::Result<()> {
    let length = usize::try_from(file.len()?).map_err(|_| io::Error::from(Io::FileTooLarge))?;
    bytes.resize(length, 0);
    file.read(0, bytes)
}

/// Returns whether `error` is a lack of space rather than a failing disk.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), Io::StorageFull | Io::QuotaExceeded)
}

/// A folder; its files are for their owner's eyes only.
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

    /// As [`make`](Self::make), with other system calls.
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
        // Files of ours have names in ASCII.
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
    /// The file's identity, once it has been locked here.
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

/// The files that this process has locked, and not the one that it was forked from.
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

        // Linux begins to write what is advised not to be needed, and drops those pages that are
        // named as a whole: a place that is shorter has none. A sync finds out what went wrong.
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
        // In a fork the lock is the other process's, which shares it.
        if !locked.files.remove(id) {
            return Ok(());
        }
        self.file.unlock()
    }
}

/// The shortest page of the system's cache, in bytes.
#[cfg(target_os = "linux")]
const PAGE: u64 = 4_096;

/// How long a read may take before it counts as one that waited for the device: what comes from the
/// system's cache takes a few microseconds.
const SLOW: Duration = Duration::from_micros(300);
/// For how long more such reads are expected after one.
const SLOW_FOR: Duration = Duration::from_secs(1);

/// Whether reads have waited for the device lately.
#[derive(Debug)]
struct Pace {
    since: Instant,
    /// Until when reads are expected to be slow, in microseconds from `since`; 0 if never.
    slow_until: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), slow_until: AtomicU64::new(0) }
    }
}

impl Pace {
    fn read_took(&self, took: Duration) {
        if took > SLOW {
            self.slow_until.store(self.micros(SLOW_FOR), Ordering::Relaxed);
        }
    }

    fn is_slow(&self) -> bool {
        let until = self.slow_until.load(Ordering::Relaxed);
        // As a rule no read was slow, and then the clock is not asked either.
        until != 0 && self.micros(Duration::ZERO) < until
    }

    /// The time that is `ahead` of now.
    fn micros(&self, ahead: Duration) -> u64 {
        u64::try_from((self.since.elapsed() + ahead).as_micros()).unwrap_or(u64::MAX)
    }
}

/// Files in memory, which are gone with their disk.
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
