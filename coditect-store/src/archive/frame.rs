//! The encoding of an archive: header, frames and checksums. Decoded in `reader.rs`.

use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{FORMAT, Manifest, Progress, Summary};
use crate::{
    Error, ErrorKind, Result,
    engine::{KEY_SIZE_LIMIT, VALUE_SIZE_LIMIT},
};

pub(super) const MAGIC: &[u8; 16] = b"coditect archive";
/// Size of the header: magic, format, checksum.
pub(super) const HEAD: usize = MAGIC.len() + 8;
/// Size of a frame's kind and length, which precede its payload.
pub(super) const FRONT: usize = 5;
/// Size of the checksum after a payload.
pub(super) const SUM: usize = 4;
/// Size of the lengths that precede the key and value of a row.
pub(super) const ROW_FRONT: usize = 8;
/// Size of the last frame's payload: number of rows, version, hash.
pub(super) const END: usize = 8 + 8 + 32;

/// Size at which a frame of rows is written, in bytes.
const ROWS_TARGET: usize = 128 << 10;
/// Maximum size of a payload, in bytes.
pub(super) const PAYLOAD_LIMIT: usize = ROWS_TARGET + ROW_FRONT + KEY_SIZE_LIMIT + VALUE_SIZE_LIMIT;

/// The kind of a frame. Persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Manifest,
    Rows,
    End,
}

impl Kind {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Manifest => b'M',
            Self::Rows => b'R',
            Self::End => b'E',
        }
    }

    pub(super) fn of(code: u8) -> Option<Self> {
        [Self::Manifest, Self::Rows, Self::End].into_iter().find(|kind| kind.code() == code)
    }
}

/// Writes an archive.
pub(super) struct Writer<'a, W> {
    sink: &'a mut W,
    manifest: Manifest,
    hash: Sha256,
    chain: u32,
    /// Rows for the next frame.
    rows: Vec<u8>,
    progress: Progress,
}

impl<'a, W: AsyncWrite + Unpin> Writer<'a, W> {
    /// Writes the header and the manifest.
    pub(super) async fn begin(sink: &'a mut W, manifest: Manifest) -> Result<Self> {
        let mut writer = Self {
            sink,
            manifest,
            hash: Sha256::new(),
            chain: 0,
            rows: Vec::new(),
            progress: Progress::default(),
        };
        let head = head(FORMAT);
        writer.chain = crc32c::crc32c(&head);
        writer.put(&head).await?;
        let manifest = writer.manifest.pack();
        writer.frame(Kind::Manifest, &manifest).await?;
        Ok(writer)
    }

    pub(super) async fn row(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        for length in [key.len(), value.len()] {
            // The engine's limits fit a u32.
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            self.rows.extend_from_slice(&length.to_le_bytes());
        }
        self.rows.extend_from_slice(key);
        self.rows.extend_from_slice(value);
        self.progress.rows += 1;
        if self.rows.len() >= ROWS_TARGET { self.put_rows().await } else { Ok(()) }
    }

    pub(super) fn progress(&self) -> Progress {
        self.progress
    }

    /// Writes the last frame.
    pub(super) async fn end(mut self, version: u64) -> Result<Summary> {
        self.put_rows().await?;
        let mut payload = Vec::with_capacity(END);
        payload.extend_from_slice(&self.progress.rows.to_le_bytes());
        payload.extend_from_slice(&version.to_le_bytes());
        payload.extend_from_slice(&self.hash.clone().finalize());
        self.frame(Kind::End, &payload).await?;
        self.sink.flush().await.map_err(unwritable)?;
        let Progress { rows, bytes } = self.progress;
        Ok(Summary { manifest: self.manifest, rows, bytes, version })
    }

    async fn put_rows(&mut self) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.rows);
        self.frame(Kind::Rows, &rows).await?;
        rows.clear();
        self.rows = rows;
        Ok(())
    }

    async fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        let front = front(kind, payload.len());
        self.chain = sum(self.chain, &front, payload);
        self.put(&front).await?;
        self.put(payload).await?;
        self.put(&self.chain.to_le_bytes()).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.progress.bytes += bytes.len() as u64;
        self.sink.write_all(bytes).await.map_err(unwritable)
    }
}

/// Returns the header of an archive of `format`.
pub(super) fn head(format: u32) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    let (magic, rest) = head.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    rest[..4].copy_from_slice(&format.to_le_bytes());
    let sum = crc32c::crc32c(&head[..HEAD - SUM]);
    head[HEAD - SUM..].copy_from_slice(&sum.to_le_bytes());
    head
}

fn front(kind: Kind, length: usize) -> [u8; FRONT] {
    // The maximum size of a payload fits a u32.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    [kind.code(), a, b, c, d]
}

/// Returns the checksum of a frame that follows one with the checksum `chain`.
pub(super) fn sum(chain: u32, front: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(chain, front), payload)
}

pub(super) fn unwritable(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "cannot write the archive").with_source(cause)
}
