//! WAL segments: files of a fixed length, allocated before they are needed.

use std::{io, sync::Arc};

use super::super::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc, thread,
    },
    vfs::{File, Vfs},
};
use crate::{Error, ErrorKind, Result};

const MAGIC: [u8; 8] = *b"CDTLOG\0\0";
/// Version of the WAL's format. Other versions are refused.
pub(super) const FORMAT: u32 = 3;
/// Size of a copy of the header, in bytes; there are two copies.
const HEADER_BYTES: usize = 4_096;
/// Offset of the successor record in each copy, in bytes: a sector of its own, so that writing it
/// cannot tear the header.
const SUCCESSOR: usize = 512;
/// Offset of the first frame, in bytes.
pub(super) const FRAMES: u64 = 2 * HEADER_BYTES as u64;

/// Minimum length of a segment, in bytes.
pub(super) const MIN_SEGMENT_BYTES: u64 = 1 << 20;
/// Maximum length of a segment, in bytes, except for a longer frame.
pub(super) const MAX_SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of a new segment that are written and synced at once, so that syncs of commits are not
/// delayed for long.
const FILL_BYTES: u64 = 1 << 20;

const PREFIX: &str = "log-";
const SUFFIX: &str = ".wal";
/// Suffix of the name of an incomplete file.
const DRAFT: &str = ".draft";

/// The header of a segment, which distinguishes the current use of a file from earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Random number of the store.
    pub(super) store: u64,
    /// Position in the WAL.
    pub(super) number: u64,
    /// Random number that the checksums of the frames cover.
    pub(super) salt: u64,
}

/// A file of the WAL, in use or free.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) name: String,
    pub(super) file: Arc<dyn File>,
    pub(super) length: u64,
}

/// A file in use as a segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) slot: SegmentFile,
    pub(super) header: Header,
}

impl Header {
    /// Returns the first bytes of each frame, by which a replay finds frames after damage. They
    /// depend on the salt, so that neither old frames nor stored values match.
    pub(super) fn magic(self) -> [u8; 4] {
        crc32c::crc32c(&self.salt.to_le_bytes()).to_le_bytes()
    }

    fn encode(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        for number in [self.store, self.number, self.salt] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    /// Decodes a copy of the header. Returns `None` if it is not intact.
    fn decode(copy: &[u8]) -> Option<Result<Self>> {
        let (summed, rest) = copy.split_at_checked(36)?;
        let (sum, _) = rest.split_first_chunk()?;
        let rest = summed.strip_prefix(&MAGIC)?;
        let (format, rest) = rest.split_first_chunk()?;
        let (store, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (salt, _) = rest.split_first_chunk()?;
        if crc32c::crc32c(summed) != u32::from_le_bytes(*sum) {
            return None;
        }
        let format = u32::from_le_bytes(*format);
        if format > FORMAT {
            let message = format!(
                "the WAL is of format {format}; this program reads format {FORMAT}: use a newer \
                 version"
            );
            return Some(Err(Error::new(ErrorKind::NewerFormat, message)));
        }
        if format < FORMAT {
            let message = format!(
                "the WAL is of the development format {format}; this program reads format {FORMAT}"
            );
            return Some(Err(Error::new(ErrorKind::Corrupt, message)));
        }
        Some(Ok(Self {
            store: u64::from_le_bytes(*store),
            number: u64::from_le_bytes(*number),
            salt: u64::from_le_bytes(*salt),
        }))
    }

    /// Returns the record that names the segment `number` as this segment's successor. The salt in
    /// its checksum ties it to the present use of the file.
    fn encode_successor(self, number: u64) -> [u8; 12] {
        let mut record = [0; 12];
        record[..8].copy_from_slice(&number.to_le_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(&self.salt.to_le_bytes()), &record[..8]);
        record[8..].copy_from_slice(&sum.to_le_bytes());
        record
    }

    /// Returns the number of the segment that `bytes`, which begin with this header, name as its
    /// successor. One of the two copies is enough.
    pub(super) fn successor(self, bytes: &[u8]) -> Option<u64> {
        bytes.chunks(HEADER_BYTES).take(2).find_map(|copy| {
            let record = copy.get(SUCCESSOR..SUCCESSOR + 12)?;
            let number = u64::from_le_bytes(*record.first_chunk()?);
            (record == self.encode_successor(number) && number > self.number).then_some(number)
        })
    }

    /// Returns the header of a segment. If the two copies differ, a crash interrupted the update,
    /// and the later one is valid.
    pub(super) fn of(bytes: &[u8]) -> Option<Result<Self>> {
        let copies = bytes.chunks(HEADER_BYTES).take(2).filter_map(Self::decode);
        copies.reduce(|a, b| match (a, b) {
            (Ok(a), Ok(b)) => Ok(if a.number < b.number { b } else { a }),
            (Err(error), _) | (_, Err(error)) => Err(error),
        })
    }
}

impl SegmentFile {
    /// Opens all segment files on `disk`.
    pub(super) fn all(disk: &dyn Vfs) -> io::Result<Vec<Self>> {
        let mut names = disk.names()?;
        names.retain(|name| number_of(name).is_some());
        names.sort_unstable_by_key(|name| number_of(name));
        names
            .into_iter()
            .map(|name| {
                let file = disk.open(&name)?;
                let length = file.len()?;
                Ok(Self { name, file, length })
            })
            .collect()
    }

    /// Creates a file of `length` bytes, which gets its name once it is complete. Stops when
    /// `is_wanted` returns false.
    fn create(
        disk: &dyn Vfs,
        name: String,
        length: u64,
        header: Header,
        is_wanted: impl Fn() -> bool,
    ) -> io::Result<Segment> {
        let draft = format!("{name}{DRAFT}");
        let create = || {
            let file = disk.create(&draft)?;
            let zeros = vec![0; usize::try_from(FILL_BYTES.min(length)).unwrap_or(usize::MAX)];
            let mut at = 0;
            while at < length {
                if !is_wanted() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                let chunk = FILL_BYTES.min(length - at);
                file.write(at, &zeros[..usize::try_from(chunk).unwrap_or(usize::MAX)])?;
                at += chunk;
                file.sync()?;
            }
            let slot = Self { name, file, length };
            slot.write_header(header)?;
            disk.publish(&draft, &slot.name)?;
            disk.sync_dir()?;
            Ok(Segment { slot, header })
        };
        create().inspect_err(|_| {
            // Frees its space.
            let _ = disk.remove(&draft);
        })
    }

    /// Writes the header, so that one of the two copies is intact at any time.
    fn write_header(&self, header: Header) -> io::Result<()> {
        let bytes = header.encode();
        self.file.write(0, &bytes)?;
        self.file.sync()?;
        self.file.write(HEADER_BYTES as u64, &bytes)?;
        self.file.sync()
    }
}

/// The record that names a segment's successor, to be written to that segment. It is durable before
/// the first frame of the successor is written, so a missing successor is noticed.
#[derive(Clone, Debug)]
pub(super) struct Link {
    file: Arc<dyn File>,
    record: [u8; 12],
}

impl Link {
    /// Returns the link from the segment of `header` in `file` to the segment `successor`.
    pub(super) fn new(file: Arc<dyn File>, header: Header, successor: u64) -> Self {
        Self { file, record: header.encode_successor(successor) }
    }

    /// Writes the record durably.
    pub(super) fn write(&self) -> io::Result<()> {
        for copy in [0, HEADER_BYTES] {
            self.file.write((copy + SUCCESSOR) as u64, &self.record)?;
        }
        self.file.sync()
    }
}

/// Returns whether `name` is the name of a segment file.
pub(crate) fn is_segment(name: &str) -> bool {
    number_of(name).is_some()
}

/// Returns the number in the name of a segment file. It differs from the number in the header,
/// since files are recycled.
fn number_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// Allocates segments, from recycled files or new ones. A background thread prepares the next
/// segment before it is needed. Dropping the pool waits for that thread, so that nothing writes to
/// the folder afterwards.
#[derive(Debug)]
pub(super) struct SegmentPool {
    disk: Arc<dyn Vfs>,
    store: u64,
    next_number: u64,
    next_name: u32,
    free: Vec<SegmentFile>,
    ready: Option<mpsc::Receiver<io::Result<Segment>>>,
    /// The prepared segment.
    next: Option<Segment>,
    /// Error of the last preparation.
    failed: Option<io::Error>,
    is_wanted: Arc<AtomicBool>,
}

impl Drop for SegmentPool {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
        if let Some(ready) = self.ready.take() {
            // An error means that the thread has ended, too.
            let _ = ready.recv();
        }
    }
}

/// Maximum number of free files to keep.
const MAX_FREE: usize = 2;

impl SegmentPool {
    /// Returns a pool. `taken` are all existing files, `free` the recyclable ones.
    pub(super) fn new(
        disk: Arc<dyn Vfs>,
        store: u64,
        next_number: u64,
        taken: &[SegmentFile],
        free: Vec<SegmentFile>,
    ) -> Self {
        let next_name = taken.iter().filter_map(|slot| number_of(&slot.name)).max();
        let next_name = next_name.map_or(0, |last| last + 1);
        let is_wanted = Arc::new(AtomicBool::new(true));
        let mut pool = Self {
            disk,
            store,
            next_number,
            next_name,
            free: Vec::new(),
            ready: None,
            next: None,
            failed: None,
            is_wanted,
        };
        pool.remove_drafts();
        for slot in free {
            pool.recycle(slot);
        }
        pool
    }

    /// Makes a file whose frames are in the B-tree available for a later segment.
    pub(super) fn recycle(&mut self, slot: SegmentFile) {
        if slot.length > MAX_SEGMENT_BYTES {
            return self.remove(&slot.name);
        }
        self.free.push(slot);
        self.remove_surplus();
    }

    /// Removes the shortest free files beyond [`MAX_FREE`].
    fn remove_surplus(&mut self) {
        while self.free.len() > MAX_FREE {
            let shortest = self.free.iter().enumerate().min_by_key(|(_, slot)| slot.length);
            let Some(at) = shortest.map(|(at, _)| at) else { return };
            let slot = self.free.swap_remove(at);
            self.remove(&slot.name);
        }
    }

    /// Removes incomplete files that a crash left.
    fn remove_drafts(&self) {
        let names = self.disk.names().unwrap_or_default();
        let is_draft = |name: &&String| name.strip_suffix(DRAFT).and_then(number_of).is_some();
        names.iter().filter(is_draft).for_each(|name| self.remove(name));
    }

    /// Removes a file whose frames are in the B-tree. A failure is harmless.
    fn remove(&self, name: &str) {
        if let Err(error) = self.disk.remove(name) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(file = name, error, "cannot delete WAL segment");
        }
    }

    /// Starts to prepare the next segment: a free file of at least `length` bytes, or a new one.
    pub(super) fn prepare(&mut self, length: u64) {
        self.poll();
        if self.ready.is_some() || self.next.is_some() {
            return;
        }
        let salt = getrandom::u64();
        let header = salt.map(|salt| {
            let (store, number) = (self.store, self.next_number);
            let header = Header { store, number, salt };
            self.next_number += 1;
            header
        });
        let slot = self.longest_free(length);
        let name = format!("{PREFIX}{:04}{SUFFIX}", self.next_name);
        if slot.is_none() {
            self.next_name += 1;
        }
        let (disk, is_wanted) = (Arc::clone(&self.disk), Arc::clone(&self.is_wanted));
        let (done, ready) = mpsc::sync_channel(1);
        let work = move || {
            let made =
                header.map_err(|error| io::Error::other(error.to_string())).and_then(|header| {
                    match slot {
                        Some(slot) => {
                            slot.write_header(header)?;
                            Ok(Segment { slot, header })
                        }
                        None => SegmentFile::create(&*disk, name, length, header, || {
                            is_wanted.load(Ordering::Relaxed)
                        }),
                    }
                });
            // An error means that the engine has stopped.
            let _ = done.send(made);
        };
        self.ready = Some(ready);
        // If no thread can be started, the channel closes, and the next call tries again.
        let _ = thread::Builder::new().name("coditect-segment".to_owned()).spawn(work);
    }

    /// Takes the longest free file, if it has at least `length` bytes.
    fn longest_free(&mut self, length: u64) -> Option<SegmentFile> {
        let (at, slot) = self.free.iter().enumerate().max_by_key(|(_, slot)| slot.length)?;
        (slot.length >= length).then_some(at).map(|at| self.free.swap_remove(at))
    }

    /// Takes the prepared segment if it is complete, without waiting.
    fn poll(&mut self) {
        let Some(made) = self.ready.as_ref().map(mpsc::Receiver::try_recv) else { return };
        match made {
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => self.ready = None,
            Ok(made) => self.made(made),
        }
    }

    fn made(&mut self, made: io::Result<Segment>) {
        self.ready = None;
        match made {
            Ok(segment) => {
                self.next = Some(segment);
                self.remove_surplus();
            }
            Err(error) => self.failed = Some(error),
        }
    }

    /// Returns whether the next segment is ready.
    pub(super) fn is_ready(&mut self) -> bool {
        self.poll();
        self.next.is_some()
    }

    /// Returns whether the next segment is ready; starts to prepare it otherwise.
    pub(super) fn has_next(&mut self, length: u64) -> bool {
        self.poll();
        if self.next.is_none() && self.ready.is_none() {
            let length = if self.failed.take().is_some() { FRAMES } else { length };
            self.prepare(length.max(MIN_SEGMENT_BYTES));
        }
        self.next.is_some()
    }

    /// Returns a segment with room for `room` bytes of frames. Waits for the segment in
    /// preparation; tries a shorter one if that fails.
    pub(super) fn acquire(&mut self, room: u64, length: u64) -> io::Result<Segment> {
        let needed = FRAMES + room;
        let mut length = length.max(needed);
        loop {
            self.prepare(length);
            if let Some(ready) = self.ready.take() {
                let lost = |_| io::Error::other("the thread of the preparation failed");
                self.made(ready.recv().map_err(lost).and_then(|made| made));
            }
            match (self.next.take(), self.failed.take()) {
                (Some(segment), _) if segment.slot.length >= needed => return Ok(segment),
                (Some(segment), _) => self.free.push(segment.slot),
                (None, Some(_)) if length > needed => length = needed,
                (None, Some(error)) => return Err(error),
                (None, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{
            testing::faulty::{Fault, Faulty},
            vfs::Memory,
        },
        *,
    };

    const HEADER: Header = Header { store: 1, number: 2, salt: 3 };

    #[test]
    fn header_and_successor_record_have_these_bytes() {
        let fixture = include_str!("../../../../tests/fixtures/log/header-3.hex");
        let record = HEADER.encode_successor(7);
        let mut bytes = HEADER.encode();
        assert_eq!(format!("{}\n{}\n", hex(&bytes[..40]), hex(&record)), fixture);
        assert!(bytes[40..].iter().all(|byte| *byte == 0));
        assert_eq!(Header::of(&bytes).unwrap().unwrap(), HEADER);
        assert_eq!(HEADER.successor(&bytes), None);
        bytes[512..524].copy_from_slice(&record);
        assert_eq!(HEADER.successor(&bytes), Some(7));
    }

    #[test]
    fn stale_or_damaged_successor_record_is_ignored() {
        let disk = Memory::default();
        let file = disk.create("log-0000.wal").unwrap();
        SegmentFile { name: String::new(), file: Arc::clone(&file), length: 0 }
            .write_header(HEADER)
            .unwrap();
        Link::new(Arc::clone(&file), HEADER, 7).write().unwrap();
        let mut bytes = vec![0; usize::try_from(FRAMES).unwrap()];
        file.read(0, &mut bytes).unwrap();
        for salt in [4, 5] {
            assert_eq!(Header { salt, ..HEADER }.successor(&bytes), None);
        }
        for at in 512..524 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(HEADER.successor(&damaged), Some(7), "the other copy is enough");
            damaged[HEADER_BYTES + at] ^= 1;
            assert_eq!(HEADER.successor(&damaged), None);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    #[test]
    fn later_of_two_intact_headers_is_used() {
        let (old, new) = (HEADER.encode(), Header { number: 7, ..HEADER }.encode());
        let number = |bytes: &[u8]| Header::of(bytes).unwrap().unwrap().number;
        assert_eq!(number(&[old.clone(), old.clone()].concat()), 2);
        assert_eq!(number(&[new.clone(), old.clone()].concat()), 7);
        let mut torn = new.clone();
        torn[20] ^= 1;
        assert_eq!(number(&[torn.clone(), old].concat()), 2);
        assert_eq!(number(&[torn.clone(), new].concat()), 7);
        assert!(Header::of(&torn).is_none());
    }

    #[test]
    fn header_of_another_format_is_refused_by_name() {
        let mut bytes = HEADER.encode();
        for (format, kind) in [(4, ErrorKind::NewerFormat), (2, ErrorKind::Corrupt)] {
            bytes[8] = format;
            let sum = crc32c::crc32c(&bytes[..36]);
            bytes[36..40].copy_from_slice(&sum.to_le_bytes());
            let error = Header::of(&bytes).unwrap().unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(&format!("format {format}")), "{error}");
        }
    }

    #[test]
    fn files_are_recycled_and_surplus_is_removed() {
        let disk = Arc::new(Memory::default());
        let mut pool = SegmentPool::new(Arc::clone(&disk) as Arc<dyn Vfs>, 1, 1, &[], Vec::new());
        let segments: Vec<_> =
            (0..5).map(|_| pool.acquire(100, MIN_SEGMENT_BYTES).unwrap()).collect();
        assert_eq!(disk.names().unwrap().len(), 5);
        let numbers: Vec<_> = segments.iter().map(|segment| segment.header.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        for segment in segments {
            pool.recycle(segment.slot);
        }
        assert_eq!(disk.names().unwrap().len(), MAX_FREE);
        let again = pool.acquire(100, MIN_SEGMENT_BYTES).unwrap();
        assert_eq!((again.header.number, disk.names().unwrap().len()), (6, MAX_FREE));
        let long = pool.acquire(3 * MIN_SEGMENT_BYTES, MIN_SEGMENT_BYTES).unwrap();
        assert!(long.slot.length >= FRAMES + 3 * MIN_SEGMENT_BYTES);
    }

    #[test]
    fn dropped_pool_stops_the_preparation() {
        let disk = Arc::new(Memory::default());
        let mut pool = SegmentPool::new(Arc::clone(&disk) as Arc<dyn Vfs>, 1, 1, &[], Vec::new());
        pool.prepare(16 * MAX_SEGMENT_BYTES);
        drop(pool);
        assert!(disk.names().unwrap().is_empty(), "{:?}", disk.names());
    }

    #[test]
    fn only_incomplete_files_are_removed_on_start() {
        let disk = Arc::new(Memory::default());
        for name in ["log-0007.wal.draft", "log-0001.wal", "other.draft"] {
            disk.create(name).unwrap();
        }
        drop(SegmentPool::new(Arc::clone(&disk) as Arc<dyn Vfs>, 1, 1, &[], Vec::new()));
        assert_eq!(disk.names().unwrap(), ["log-0001.wal", "other.draft"]);
    }

    #[test]
    fn failed_preparation_frees_its_space() {
        for at in 0..8 {
            let disk = Faulty::new(Some((at, Fault::Full)));
            let of_supply = Arc::new(disk.clone()) as Arc<dyn Vfs>;
            let mut pool = SegmentPool::new(of_supply, 1, 1, &[], Vec::new());
            let error = pool.acquire(100, 2 * MAX_SEGMENT_BYTES).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            assert!(disk.names().unwrap().is_empty(), "{:?}", disk.names());
            disk.repair();
            pool.acquire(100, MIN_SEGMENT_BYTES).unwrap();
        }
    }
}
