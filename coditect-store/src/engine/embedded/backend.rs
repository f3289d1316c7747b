//! The file below redb, in which no write fails for lack of space: after one failed write redb
//! refuses everything, reads included.
//!
//! # Allocation
//!
//! redb extends the file far ahead of its writes; the extension is a hole. Blocks are allocated
//! here before the write that needs them: some ahead where the file is filled in order, which is
//! the usual case, and only the extent of a distant write.
//!
//! # Spilling
//!
//! A write without space goes to memory, and so does everything after it, with syncs as barriers.
//! Reads see it. The B-tree file then [aborts](Backend::discard) the transaction, or, if that was
//! committing already, the commit counts once the same operations were [replayed](Backend::flush)
//! in order. Until then the file contains the previous commit, intact. The spill is at most what
//! redb buffers, half of its cache.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind as Io},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use super::vfs::{File, is_no_space};

/// Bytes written between two syncs. A concurrent sync of the WAL waits for at most this amount.
pub(super) const SYNC_BYTES: usize = 1 << 20;
/// Minimum and maximum allocation ahead, in bytes; in between it is a sixteenth of the file.
const MIN_AHEAD: u64 = 1 << 20;
const MAX_AHEAD: u64 = 16 << 20;
/// Available space below which nothing is allocated ahead, in bytes.
const SCARCE_BYTES: u64 = 2 * MAX_AHEAD;
/// Unit of extents, in bytes.
const EXTENT: u64 = 64 << 10;
/// Stands for the allocated length if the file system cannot allocate ahead.
const NOT_ALLOCATED: u64 = u64::MAX;

/// The file, with the writes that found no space.
#[derive(Debug)]
pub(super) struct Backend {
    file: Arc<dyn File>,
    /// Approximate number of bytes written since the last sync.
    unsynced: AtomicUsize,
    /// Whether a sync has failed: the content of the disk is unknown, although the system may
    /// consider it synced. redb does not notice if it happens to a reader.
    is_lost: AtomicBool,
    /// End of the allocated blocks, in bytes.
    allocated: AtomicU64,
    is_spilling: AtomicBool,
    spill: Mutex<Spill>,
}

/// Operations that are pending until there is space.
#[derive(Debug, Default)]
struct Spill {
    operations: Vec<Operation>,
    /// Spilled bytes by offset, for reads; no two extents overlap.
    extents: BTreeMap<u64, Arc<[u8]>>,
    /// The pending length of the file, in bytes.
    length: u64,
}

#[derive(Debug)]
enum Operation {
    Write(u64, Arc<[u8]>),
    SetLen(u64),
    Sync,
}

impl Backend {
    pub(super) fn new(file: Arc<dyn File>) -> Self {
        Self {
            file,
            unsynced: AtomicUsize::new(0),
            is_lost: AtomicBool::new(false),
            allocated: AtomicU64::new(0),
            is_spilling: AtomicBool::new(false),
            spill: Mutex::default(),
        }
    }

    /// Returns whether a write found no space and is in memory only.
    pub(super) fn is_spilling(&self) -> bool {
        self.is_spilling.load(Ordering::SeqCst)
    }

    /// Returns the space available for the file, in bytes.
    pub(super) fn available(&self) -> u64 {
        self.file.available().unwrap_or(u64::MAX)
    }

    fn check(&self) -> io::Result<()> {
        if self.is_lost.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier sync of the file failed"));
        }
        Ok(())
    }

    fn spill(&self) -> MutexGuard<'_, Spill> {
        self.spill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        if self.is_spilling() { Ok(self.spill().length) } else { self.file.len() }
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.is_spilling() {
            return self.file.read(offset, out);
        }
        let spill = self.spill();
        if !self.is_spilling() {
            return self.file.read(offset, out);
        }
        let end = offset.saturating_add(out.len() as u64);
        if end > spill.length {
            return Err(Io::UnexpectedEof.into());
        }
        let in_file = self.file.len()?.clamp(offset, end) - offset;
        let (stored, beyond) = out.split_at_mut(usize::try_from(in_file).unwrap_or(usize::MAX));
        self.file.read(offset, stored)?;
        beyond.fill(0);
        spill.read(offset, out);
        Ok(())
    }

    pub(super) fn set_len(&self, length: u64) -> io::Result<()> {
        self.check()?;
        if !self.is_spilling() {
            let shrinks = length < self.file.len()?;
            match self.file.set_len(length) {
                Err(error) if is_no_space(&error) => self.begin_spilling()?,
                Err(error) => return Err(error),
                Ok(()) => {
                    if shrinks {
                        self.has_shrunk(length);
                    }
                    return Ok(());
                }
            }
        }
        let mut spill = self.spill();
        spill.set_len(length);
        spill.operations.push(Operation::SetLen(length));
        Ok(())
    }

    /// Records that the blocks after `length` were freed.
    fn has_shrunk(&self, length: u64) {
        if self.allocated.load(Ordering::SeqCst) != NOT_ALLOCATED {
            self.allocated.fetch_min(length, Ordering::SeqCst);
        }
    }

    pub(super) fn write(&self, offset: u64, data: &[u8], syncs_often: bool) -> io::Result<()> {
        self.check()?;
        if !self.is_spilling() {
            let end = offset.saturating_add(data.len() as u64);
            if self.has_room(offset, end) {
                match self.file.write(offset, data) {
                    Err(error) if is_no_space(&error) => {}
                    Err(error) => return Err(error),
                    Ok(()) => {
                        let unsynced = self.unsynced.fetch_add(data.len(), Ordering::Relaxed);
                        let is_much = unsynced + data.len() >= SYNC_BYTES;
                        return if is_much && syncs_often { self.sync() } else { Ok(()) };
                    }
                }
            }
            self.begin_spilling()?;
        }
        let mut spill = self.spill();
        let data = Arc::<[u8]>::from(data);
        spill.write(offset, &data);
        spill.operations.push(Operation::Write(offset, data));
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.check()?;
        if self.is_spilling() {
            self.spill().operations.push(Operation::Sync);
            return Ok(());
        }
        self.sync_file()
    }

    fn sync_file(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.file.sync().inspect_err(|_| self.is_lost.store(true, Ordering::SeqCst))
    }

    /// Unlocks the file for other processes.
    pub(super) fn close(&self) -> io::Result<()> {
        self.file.unlock()
    }

    fn begin_spilling(&self) -> io::Result<()> {
        let mut spill = self.spill();
        *spill = Spill { length: self.file.len()?, ..Spill::default() };
        self.is_spilling.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Returns whether a write from `offset` to `end` has blocks, which are allocated first.
    fn has_room(&self, offset: u64, end: u64) -> bool {
        let allocated = self.allocated.load(Ordering::SeqCst);
        if end <= allocated {
            return true;
        }
        let ahead = (end / 16).clamp(MIN_AHEAD, MAX_AHEAD);
        if offset <= allocated + ahead {
            // The reserve is released for this write, not for allocation ahead.
            let is_scarce = self.available() < SCARCE_BYTES;
            let preferred = if is_scarce { end } else { end + ahead };
            return self.allocate(&[preferred, end]);
        }
        let (from, to) = (offset / EXTENT * EXTENT, end.next_multiple_of(EXTENT));
        !matches!(self.file.allocate(from, to - from), Err(error) if is_no_space(&error))
    }

    /// Allocates blocks up to the first of `ends` that has space; returns false if none has.
    /// Succeeds on file systems that cannot allocate: there the write itself fails.
    fn allocate(&self, ends: &[u64]) -> bool {
        let least = ends.iter().copied().min().unwrap_or(0);
        if least <= self.allocated.load(Ordering::SeqCst) {
            return true;
        }
        let _one_at_a_time = self.spill();
        let from = self.allocated.load(Ordering::SeqCst);
        for end in ends.iter().copied().filter(|end| *end > from) {
            match self.file.allocate(from, end - from) {
                Ok(()) => {
                    self.allocated.store(end, Ordering::SeqCst);
                    return true;
                }
                Err(error) if is_no_space(&error) => {}
                Err(_) => {
                    self.allocated.store(NOT_ALLOCATED, Ordering::SeqCst);
                    return true;
                }
            }
        }
        false
    }

    /// Applies the spilled operations to the file. Returns false if there is still no space; all of
    /// them stay spilled then.
    pub(super) fn flush(&self) -> io::Result<bool> {
        if !self.is_spilling() {
            return Ok(true);
        }
        self.check()?;
        let mut spill = self.spill();
        for operation in &spill.operations {
            let done = match operation {
                Operation::Write(offset, data) => self.file.write(*offset, data),
                Operation::SetLen(length) => self.file.set_len(*length),
                Operation::Sync => self.sync_file(),
            };
            match done {
                Err(error) if is_no_space(&error) && !self.is_lost.load(Ordering::SeqCst) => {
                    return Ok(false);
                }
                outcome => outcome?,
            }
        }
        self.sync_file()?;
        *spill = Spill::default();
        self.is_spilling.store(false, Ordering::SeqCst);
        Ok(true)
    }

    /// Drops the operations of an aborted transaction, which nothing refers to.
    pub(super) fn discard(&self) -> io::Result<()> {
        if !self.is_spilling() {
            return Ok(());
        }
        let mut spill = self.spill();
        let length = spill.length;
        if length != self.file.len()? {
            self.file.set_len(length)?;
        }
        *spill = Spill::default();
        self.is_spilling.store(false, Ordering::SeqCst);
        drop(spill);
        self.has_shrunk(length);
        Ok(())
    }
}

impl Spill {
    fn write(&mut self, offset: u64, data: &Arc<[u8]>) {
        self.remove(offset, offset + data.len() as u64);
        self.extents.insert(offset, Arc::clone(data));
        self.length = self.length.max(offset + data.len() as u64);
    }

    fn set_len(&mut self, length: u64) {
        if length < self.length {
            // The bytes read as zeros if the file grows again; redb writes before it reads.
            self.remove(length, u64::MAX);
        }
        self.length = length;
    }

    /// Removes the extents from `begin` to `end`, and keeps the parts outside.
    fn remove(&mut self, begin: u64, end: u64) {
        let overlapping = |(offset, data): (&u64, &Arc<[u8]>)| {
            (offset + data.len() as u64 > begin).then_some(*offset)
        };
        // The first one may begin before.
        let first = self.extents.range(..begin).next_back().and_then(overlapping);
        let others = self.extents.range(begin..end).filter_map(overlapping);
        for offset in first.into_iter().chain(others).collect::<Vec<_>>() {
            let Some(data) = self.extents.remove(&offset) else { continue };
            let to = offset + data.len() as u64;
            if offset < begin {
                self.extents.insert(offset, data[..index(begin - offset)].into());
            }
            if to > end {
                self.extents.insert(end, data[index(end - offset)..].into());
            }
        }
    }

    /// Copies spilled bytes over `out`, which was read from `offset`.
    fn read(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        let first = self.extents.range(..offset).next_back();
        for (&from, data) in first.into_iter().chain(self.extents.range(offset..end)) {
            let to = from + data.len() as u64;
            let (begin, end) = (from.max(offset), to.min(end));
            if begin < end {
                let found = &data[index(begin - from)..index(end - from)];
                out[index(begin - offset)..index(end - offset)].copy_from_slice(found);
            }
        }
    }
}

/// Returns an offset in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            testing::faulty::{Fault, Faulty},
            vfs::Vfs,
        },
        *,
    };

    fn backend(disk: &Faulty) -> Backend {
        Backend::new(disk.create("file").unwrap())
    }

    fn read(backend: &Backend, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0xee; length];
        backend.read(offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn failed_sync_is_never_retried() {
        let disk = Faulty::new(None);
        let backend = backend(&disk);
        backend.write(0, b"1", false).unwrap();
        disk.fail_now(Fault::Stop);
        backend.sync().unwrap_err();
        disk.repair();
        let operations = disk.operations();
        backend.sync().unwrap_err();
        backend.write(0, b"2", false).unwrap_err();
        backend.set_len(1).unwrap_err();
        assert_eq!(disk.operations(), operations, "the disk was asked again");
    }

    #[test]
    fn only_the_checkpoint_thread_syncs_between_writes() {
        let disk = Faulty::new(None);
        let backend = backend(&disk);
        backend.write(0, &vec![1; SYNC_BYTES + 4], false).unwrap();
        let write_much = |often| {
            let before = disk.operations();
            (0..4).for_each(|at| backend.write(at, &vec![1; SYNC_BYTES], often).unwrap());
            disk.operations() - before
        };
        assert_eq!(write_much(false), 4);
        assert_eq!(write_much(true), 8);
    }

    #[test]
    fn writes_without_space_are_read_from_memory_and_flushed_once_there_is() {
        let disk = Faulty::new(None);
        let backend = backend(&disk);
        backend.write(0, &[1; 8_192], false).unwrap();
        disk.fail_now(Fault::Full);
        // A hole, as file systems create it.
        backend.set_len(64 << 20).unwrap();
        let far = 32 << 20;
        backend.write(far, &[2; 8_192], false).unwrap();
        assert!(backend.is_spilling());
        backend.sync().unwrap();
        backend.write(4_096, &[3; 4_096], false).unwrap();
        backend.write(far + 4_096, &[4; 100], false).unwrap();
        let check = || {
            assert_eq!(read(&backend, 0, 8_192), [[1; 4_096], [3; 4_096]].concat());
            assert_eq!(read(&backend, far, 4_196), [&[2; 4_096][..], &[4; 100]].concat());
            assert_eq!(read(&backend, far + 4_100, 200), [&[4; 96][..], &[2; 104]].concat());
            assert_eq!(read(&backend, (64 << 20) - 2, 2), [0, 0]);
        };
        check();
        assert!(!backend.flush().unwrap());
        assert!(backend.is_spilling());
        check();
        disk.repair();
        assert!(backend.flush().unwrap());
        assert!(!backend.is_spilling());
        check();
    }

    #[test]
    fn discarded_writes_leave_the_file_as_it_was() {
        let disk = Faulty::new(None);
        let backend = backend(&disk);
        backend.write(0, &[1; 4_096], false).unwrap();
        disk.fail_now(Fault::Full);
        backend.set_len(16 << 20).unwrap();
        backend.write(8 << 20, &[2; 4_096], false).unwrap();
        backend.set_len(4_096).unwrap();
        backend.discard().unwrap();
        assert!(!backend.is_spilling());
        assert_eq!((backend.len().unwrap(), read(&backend, 0, 4_096)), (4_096, vec![1; 4_096]));
    }

    #[test]
    fn holes_are_allocated_before_they_are_written_to() {
        let disk = Faulty::new(None);
        let backend = backend(&disk);
        backend.write(0, &[1; 4_096], false).unwrap();
        disk.fail_now(Fault::Full);
        let end = 4_096 + MIN_AHEAD;
        (4_096..end).step_by(4_096).for_each(|at| backend.write(at, &[2; 4_096], false).unwrap());
        assert!(!backend.is_spilling(), "what is allocated ahead was not used");
        backend.write(end, &[2; 4_096], false).unwrap();
        assert!(backend.is_spilling());
        backend.discard().unwrap();
        disk.repair();
        backend.write(end, &[2; 4_096], false).unwrap();
        disk.fail_now(Fault::Full);
        backend.write(64 << 20, &[2; 4_096], false).unwrap();
        assert!(backend.is_spilling(), "a far write found blocks");
    }
}
