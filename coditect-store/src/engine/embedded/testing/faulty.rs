//! A simulated disk with faults. From its n-th mutating operation it fails, tears a write, is full,
//! or ignores syncs; a power loss drops unsynced bytes, completely or in part.
//!
//! Space is modelled after ext4, xfs and tmpfs: extending a file creates a hole without blocks; a
//! write into a hole, an allocation and a new file need blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::super::vfs::{File, Memory, Vfs};

/// The fault at the n-th mutating operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The operation and all later ones fail.
    Stop,
    /// Half of a write is applied, and all later operations fail.
    Tear,
    /// No block is free until some are freed, and no file can be created.
    Full,
    /// Syncs succeed without effect, as on a disk that acknowledges writes falsely.
    IgnoreSyncs,
}

/// What remains of unsynced writes after a power loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsynced {
    Kept,
    Dropped,
    /// Every other sector of 512 bytes.
    Mixed,
}

/// An in-memory disk with faults.
#[derive(Clone, Debug)]
pub(crate) struct Faulty(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Never locked before a file or the state.
    space: Mutex<Space>,
    is_full: AtomicBool,
}

#[derive(Debug, Default)]
struct Space {
    /// Blocks of all files.
    used: u64,
    /// Blocks of all files when the disk became full.
    capacity: Option<u64>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Bytes>>>,
    /// The durable names with their files.
    synced_names: BTreeMap<String, Arc<Mutex<Bytes>>>,
    operations: u64,
    fault: Option<(u64, Fault)>,
}

#[derive(Debug, Default)]
struct Bytes {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync: begin and end.
    writes: Vec<(usize, usize)>,
    /// Allocated blocks; the others are holes.
    blocks: BTreeSet<u64>,
}

/// Size of a block, in bytes.
const BLOCK: u64 = 4_096;

/// A mutating operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Write,
    Create,
    Allocate,
    Sync,
    Name,
}

/// The effect of an operation.
enum Effect {
    Apply,
    ApplyHalf,
    Ignore,
}

impl Faulty {
    pub(crate) fn new(fault: Option<(u64, Fault)>) -> Self {
        let state = State { fault, ..State::default() };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            space: Mutex::default(),
            is_full: AtomicBool::new(false),
        }))
    }

    /// Returns the number of mutating operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Returns a sound disk with the content after a power loss.
    pub(crate) fn after_power_loss(&self, unsynced: Unsynced) -> Memory {
        let state = self.state();
        let names = if unsynced == Unsynced::Kept { &state.files } else { &state.synced_names };
        let after = Memory::default();
        for (name, bytes) in names {
            let bytes = lock(bytes);
            let left = match unsynced {
                Unsynced::Kept => bytes.now.clone(),
                Unsynced::Dropped => bytes.synced.clone(),
                Unsynced::Mixed => {
                    let mut left = bytes.synced.clone();
                    left.resize(bytes.now.len(), 0);
                    for &(from, to) in &bytes.writes {
                        for at in (from..to.min(bytes.now.len())).filter(|at| at / 512 % 2 == 0) {
                            left[at] = bytes.now[at];
                        }
                    }
                    left
                }
            };
            after.create(name).unwrap().write(0, &left).unwrap();
        }
        after
    }

    /// Makes the next operation fail.
    pub(crate) fn fail_now(&self, fault: Fault) {
        self.fail_after(0, fault);
    }

    /// Makes the operation after the given number of others fail.
    pub(crate) fn fail_after(&self, operations: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.operations + operations, fault));
    }

    /// Ends all faults. Keeps unsynced content, as after a kill of the process.
    pub(crate) fn repair(&self) {
        self.state().fault = None;
        self.0.is_full.store(false, Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// Counts an operation, and returns its effect.
    fn begin(&self, operation: Operation) -> io::Result<Effect> {
        let mut state = self.state();
        let at = state.operations;
        state.operations += 1;
        let is_full = state.fault.is_some_and(|(from, fault)| fault == Fault::Full && at >= from);
        self.0.is_full.store(is_full, Ordering::SeqCst);
        match state.fault {
            Some((from, fault)) if at >= from => match fault {
                Fault::IgnoreSyncs if operation == Operation::Sync => Ok(Effect::Ignore),
                Fault::Full if operation == Operation::Create => {
                    Err(io::ErrorKind::StorageFull.into())
                }
                Fault::Tear if at == from && operation == Operation::Write => Ok(Effect::ApplyHalf),
                Fault::Stop | Fault::Tear => Err(io::Error::other("the disk is gone")),
                Fault::IgnoreSyncs | Fault::Full => Ok(Effect::Apply),
            },
            _ => Ok(Effect::Apply),
        }
    }

    /// Returns the usage of blocks, with the capacity if the disk is full.
    fn space(&self) -> MutexGuard<'_, Space> {
        let mut space = lock(&self.0.space);
        let is_full = self.0.is_full.load(Ordering::SeqCst);
        let used = space.used;
        space.capacity = is_full.then(|| space.capacity.unwrap_or(used));
        space
    }

    /// Allocates the missing blocks of `length` bytes of `file` from `offset`.
    fn allocate_blocks(&self, file: &mut Bytes, offset: u64, length: u64) -> io::Result<()> {
        let mut space = self.space();
        let wanted = offset / BLOCK..(offset + length).div_ceil(BLOCK);
        let wanted: Vec<_> = wanted.filter(|block| !file.blocks.contains(block)).collect();
        let used = space.used + wanted.len() as u64;
        if space.capacity.is_some_and(|capacity| used > capacity) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        space.used = used;
        file.blocks.extend(wanted);
        Ok(())
    }

    /// Frees the blocks of `file` after `length`.
    fn free_blocks(&self, file: &mut Bytes, length: u64) {
        let freed = file.blocks.split_off(&length.div_ceil(BLOCK));
        self.space().used -= freed.len() as u64;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vfs for Faulty {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let bytes = self.state().files.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile { disk: self.clone(), bytes }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.begin(Operation::Create)?;
        let bytes = Arc::<Mutex<Bytes>>::default();
        self.state().files.insert(name.to_owned(), Arc::clone(&bytes));
        Ok(Arc::new(FaultyFile { disk: self.clone(), bytes }))
    }

    fn publish(&self, draft: &str, name: &str) -> io::Result<()> {
        self.begin(Operation::Name)?;
        let mut state = self.state();
        let file = state.files.remove(draft).ok_or(io::ErrorKind::NotFound)?;
        assert!(state.files.insert(name.to_owned(), file).is_none());
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.begin(Operation::Name)?;
        let removed = self.state().files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.free_blocks(&mut lock(&removed), 0);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        if let Effect::Apply = self.begin(Operation::Sync)? {
            let mut state = self.state();
            state.synced_names = state.files.clone();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Faulty,
    bytes: Arc<Mutex<Bytes>>,
}

impl File for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(lock(&self.bytes).now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = lock(&self.bytes);
        let from = usize::try_from(offset).unwrap();
        let found = bytes.now.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn write(&self, offset: u64, new: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).unwrap();
        let (new, whole) = match self.disk.begin(Operation::Write)? {
            Effect::ApplyHalf => (&new[..new.len() / 2], false),
            Effect::Apply | Effect::Ignore => (new, true),
        };
        let mut bytes = lock(&self.bytes);
        self.disk.allocate_blocks(&mut bytes, offset, new.len() as u64)?;
        let to = from + new.len();
        if bytes.now.len() < to {
            bytes.now.resize(to, 0);
        }
        bytes.now[from..to].copy_from_slice(new);
        bytes.writes.push((from, to));
        if whole { Ok(()) } else { Err(io::Error::other("the disk is gone")) }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let length = usize::try_from(length).unwrap();
        self.disk.begin(Operation::Write)?;
        let mut bytes = lock(&self.bytes);
        bytes.now.resize(length, 0);
        self.disk.free_blocks(&mut bytes, length as u64);
        Ok(())
    }

    fn available(&self) -> io::Result<u64> {
        let space = self.disk.space();
        Ok((space.capacity.unwrap_or(u64::MAX) - space.used).saturating_mul(BLOCK))
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.begin(Operation::Allocate)?;
        self.disk.allocate_blocks(&mut lock(&self.bytes), offset, length)
    }

    fn sync(&self) -> io::Result<()> {
        if let Effect::Apply = self.disk.begin(Operation::Sync)? {
            let mut bytes = lock(&self.bytes);
            let Bytes { now, synced, writes, .. } = &mut *bytes;
            synced.resize(now.len(), 0);
            for (from, to) in writes.drain(..) {
                let to = to.min(now.len());
                synced[from.min(to)..to].copy_from_slice(&now[from.min(to)..to]);
            }
        }
        Ok(())
    }
}
