//! Reads an archive, frame by frame. Frames are verified before they are used, and lengths are
//! bounded before memory is allocated.

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{
    FORMAT, Manifest, Progress, Summary,
    frame::{self, END, FRONT, HEAD, Kind, MAGIC, PAYLOAD_LIMIT, ROW_FRONT, SUM, unwritable},
};
use crate::{Error, ErrorKind, Result, engine::KeyValue};

/// Reads an archive.
pub(super) struct Reader<R> {
    source: R,
    hash: Sha256,
    chain: u32,
    /// Bytes of the current frame, or of the header.
    frame: Vec<u8>,
    /// Offset of the current frame.
    frame_at: u64,
    progress: Progress,
    manifest: Option<Manifest>,
    version: Option<u64>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads the header.
    pub(super) async fn open(source: R) -> Result<Self> {
        let mut reader = Self {
            source,
            hash: Sha256::new(),
            chain: 0,
            frame: Vec::new(),
            frame_at: 0,
            progress: Progress::default(),
            manifest: None,
            version: None,
        };
        reader.fill(HEAD).await?;
        let head = reader.frame.as_slice();
        if !head.starts_with(MAGIC) {
            return Err(Error::new(ErrorKind::Corrupt, "not an archive of a store"));
        }
        let format = head.get(MAGIC.len()..HEAD - SUM).map(<[u8; 4]>::try_from);
        let Some(Ok(format)) = format else {
            return Err(reader.damaged("the header is too short"));
        };
        let format = u32::from_le_bytes(format);
        if head != frame::head(format) {
            return Err(reader.damaged("the header has a wrong checksum"));
        }
        if format > FORMAT {
            let message = format!(
                "the archive has format {format}; this program reads formats up to {FORMAT}: use a \
                 newer version"
            );
            return Err(Error::new(ErrorKind::NewerFormat, message));
        }
        if format == 0 {
            return Err(reader.damaged("format 0 does not exist"));
        }
        reader.chain = crc32c::crc32c(head);
        Ok(reader)
    }

    /// Reads the manifest, which follows the header.
    pub(super) async fn manifest(&mut self) -> Result<Manifest> {
        let kind = self.next_frame().await?;
        if kind != Kind::Manifest {
            return Err(self.damaged("the manifest is missing"));
        }
        let manifest = Manifest::unpack(self.payload())?;
        self.manifest = Some(manifest.clone());
        Ok(manifest)
    }

    /// Returns the next rows; `None` at the end of a verified archive.
    pub(super) async fn rows(&mut self) -> Result<Option<Vec<KeyValue>>> {
        if self.version.is_some() {
            return Ok(None);
        }
        let hash = self.hash.clone();
        match self.next_frame().await? {
            Kind::Rows => {
                let rows = self.unpack_rows()?;
                self.progress.rows += rows.len() as u64;
                Ok(Some(rows))
            }
            Kind::Manifest => Err(self.damaged("there is a second manifest")),
            Kind::End => self.end(&hash).await,
        }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// Returns the summary, after the last frame.
    pub(super) fn summary(&self) -> Result<Summary> {
        match (&self.manifest, self.version) {
            (Some(manifest), Some(version)) => {
                let Progress { rows, bytes } = self.progress;
                Ok(Summary { manifest: manifest.clone(), rows, bytes, version })
            }
            _ => Err(self.damaged("the archive was not read to its end")),
        }
    }

    pub(super) fn damaged(&self, why: &str) -> Error {
        let at = self.frame_at;
        Error::new(ErrorKind::Corrupt, format!("the archive is damaged at byte {at}: {why}"))
    }

    async fn end(&mut self, hash: &Sha256) -> Result<Option<Vec<KeyValue>>> {
        let mut expected = self.progress.rows.to_le_bytes().to_vec();
        let payload = self.payload();
        let version = match payload.get(8..16).map(<[u8; 8]>::try_from) {
            Some(Ok(version)) if payload.len() == END => u64::from_le_bytes(version),
            _ => return Err(self.damaged("the last frame has a wrong length")),
        };
        expected.extend_from_slice(&version.to_le_bytes());
        expected.extend_from_slice(&hash.clone().finalize());
        if payload != expected {
            return Err(self.damaged("the last frame does not match the archive"));
        }
        let mut more = [0];
        if self.source.read(&mut more).await.map_err(unreadable)? > 0 {
            self.frame_at = self.progress.bytes;
            return Err(self.damaged("there are bytes after the last frame"));
        }
        self.version = Some(version);
        Ok(None)
    }

    async fn next_frame(&mut self) -> Result<Kind> {
        self.frame_at = self.progress.bytes;
        self.frame.clear();
        self.fill(FRONT).await?;
        let Some(([code], length)) = self.frame.split_first_chunk::<1>() else {
            return Err(self.damaged("a frame is too short"));
        };
        let kind = Kind::of(*code).ok_or_else(|| self.damaged("a frame has an unknown kind"))?;
        let length = length.try_into().map_or(usize::MAX, |length| {
            usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)
        });
        if length > PAYLOAD_LIMIT {
            return Err(self.damaged("a frame is too long"));
        }
        self.fill(length + SUM).await?;
        let (front, rest) = self.frame.split_at(FRONT);
        let (payload, stored) = rest.split_at(length);
        let sum = frame::sum(self.chain, front, payload);
        if stored != sum.to_le_bytes() {
            return Err(self.damaged("a frame has a wrong checksum"));
        }
        self.chain = sum;
        Ok(kind)
    }

    fn payload(&self) -> &[u8] {
        self.frame.get(FRONT..self.frame.len() - SUM).unwrap_or_default()
    }

    fn unpack_rows(&self) -> Result<Vec<KeyValue>> {
        let mut rest = self.payload();
        let mut rows = Vec::new();
        while !rest.is_empty() {
            let row = split_row(rest).ok_or_else(|| self.damaged("a row is truncated"))?;
            let (key, value, after) = row;
            rows.push(KeyValue { key: key.to_vec(), value: value.to_vec() });
            rest = after;
        }
        Ok(rows)
    }

    /// Reads `length` more bytes of the frame.
    async fn fill(&mut self, length: usize) -> Result<()> {
        let begin = self.frame.len();
        self.frame.resize(begin + length, 0);
        let mut read = begin;
        while let Some(room) = self.frame.get_mut(read..).filter(|room| !room.is_empty()) {
            let more = self.source.read(room).await.map_err(unreadable)?;
            if more == 0 {
                let at = self.frame_at + read as u64;
                let message = format!("the archive is truncated at byte {at}");
                return Err(Error::new(ErrorKind::Corrupt, message));
            }
            read += more;
        }
        self.hash.update(&self.frame[begin..]);
        self.progress.bytes += length as u64;
        Ok(())
    }
}

/// Returns the key and the value of the first row, and the rest.
fn split_row(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (front, rest) = bytes.split_first_chunk::<ROW_FRONT>()?;
    let length = |bytes: &[u8]| {
        let bytes = bytes.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let (key, value) = front.split_at(ROW_FRONT / 2);
    let (key, value) = (length(key)?, length(value)?);
    let (key, rest) = rest.split_at_checked(key)?;
    let (value, rest) = rest.split_at_checked(value)?;
    Some((key, value, rest))
}

/// Copies an archive frame by frame, and verifies it: damaged frames are not copied.
///
/// # Errors
///
/// `Corrupt` if the archive is damaged, with the offset; `NewerFormat`; `Unavailable` if it cannot
/// be read or written. The incomplete copy has no end, and is rejected by readers.
pub async fn copy<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    source: R,
    mut sink: W,
    mut observe: impl FnMut(Progress),
) -> Result<Summary> {
    let mut reader = Reader::open(source).await?;
    sink.write_all(&reader.frame).await.map_err(unwritable)?;
    reader.manifest().await?;
    sink.write_all(&reader.frame).await.map_err(unwritable)?;
    loop {
        let rows = reader.rows().await?;
        sink.write_all(&reader.frame).await.map_err(unwritable)?;
        observe(reader.progress());
        if rows.is_none() {
            sink.flush().await.map_err(unwritable)?;
            return reader.summary();
        }
    }
}

fn unreadable(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot read the archive").with_source(cause)
}
