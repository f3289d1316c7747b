//! Archives: a store, or one tenant, as a byte stream, for backup and transfer.
//!
//! ```text
//! archive   header, manifest, rows …, end; nothing after it
//! header    "coditect archive" ‖ format version (u32) ‖ CRC-32C of both (u32)
//! frame     kind (1 byte) ‖ length (u32) ‖ payload ‖ CRC-32C (u32)
//! manifest  'M'  tuple: archive id, program's version, format of the store, engine;
//!                consistency, scope, tenant
//! rows      'R'  for each row: length of key (u32), of value (u32), key without the root, value
//! end       'E'  number of rows (u64) ‖ version (u64) ‖ SHA-256 of all before this frame
//! ```
//!
//! Integers are little-endian. Each checksum continues the one of the frame before, so that frames
//! cannot be reordered.
//!
//! # Invariants
//!
//! - A damaged, truncated or extended archive is rejected, with the offset; a newer format by its
//!   number.
//! - Writing and reading use the memory of a few frames.
//! - **The archive of a store has its rows unchanged**, including index entries, declarations, and
//!   rows that this program does not declare: a restored store is identical byte for byte, except
//!   for the high-water mark of versionstamps, which is raised. **The archive of a tenant** has
//!   primary data only (records, events, counters, pending deletions), since it goes into a store
//!   with other records and declarations: its index entries are made anew, including global ones,
//!   and a unique value that is taken fails with the index's name.
//! - Events keep their order, and later events follow them: an import advances the database's
//!   version to [`Summary::version`].
//! - An interrupted [`Import`] can be resumed; until it completes, the store cannot be opened.
//!
//! An archive contains password hashes and encrypted keys: protect it like the store. It does not
//! contain the master key, which decrypts them.

mod export;
mod frame;
mod import;
mod reader;

use tokio::io::AsyncRead;
use uuid::Uuid;

pub use export::Export;
pub use import::{Import, Step};
pub use reader::copy;

use crate::{
    Error, ErrorKind, Result,
    engine::Consistency,
    keyspace::{KeyPart, TenantId, unpack_all},
};

/// Format version of written archives, and the newest one that can be read.
pub const FORMAT: u32 = 1;

/// The contents and the origin of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Id of the archive, unique.
    pub id: Uuid,
    /// Version of the program that wrote it.
    pub program: String,
    /// Format version of the store.
    pub store_format: u64,
    /// Engine of the store.
    pub engine: String,
    /// Whether all rows have one version.
    pub consistency: Consistency,
    /// Tenant of the archive; `None` for a whole store.
    pub tenant: Option<TenantId>,
}

/// A complete archive that was written, read or imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Manifest.
    pub manifest: Manifest,
    /// Number of rows.
    pub rows: u64,
    /// Size, in bytes.
    pub bytes: u64,
    /// Version of the database: no versionstamp in the archive is newer.
    pub version: u64,
}

/// The progress of writing, reading or importing an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Number of rows.
    pub rows: u64,
    /// Bytes of the archive.
    pub bytes: u64,
}

/// Reads and verifies an archive, and calls `observe` after each frame. Does not check the rows
/// against a schema: see [`Import::verify`].
///
/// # Errors
///
/// `Corrupt` if the archive is damaged, with the offset; `NewerFormat`; `Unavailable` if it cannot
/// be read.
pub async fn verify<R: AsyncRead + Unpin>(
    source: R,
    observe: impl FnMut(Progress),
) -> Result<Summary> {
    copy(source, tokio::io::sink(), observe).await
}

impl Manifest {
    fn pack(&self) -> Vec<u8> {
        let consistency = match self.consistency {
            Consistency::OneVersion => "one version",
            Consistency::EachPage => "each page",
        };
        let scope = if self.tenant.is_some() { "tenant" } else { "store" };
        let tenant = self.tenant.map_or(Uuid::nil(), |tenant| tenant.0);
        let mut bytes = Vec::new();
        (self.id, self.program.clone(), self.store_format, self.engine.clone()).pack(&mut bytes);
        (consistency.to_owned(), scope.to_owned(), tenant).pack(&mut bytes);
        bytes
    }

    fn unpack(bytes: &[u8]) -> Result<Self> {
        type Packed = ((Uuid, String, u64, String), (String, String, Uuid));

        let ((id, program, store_format, engine), (consistency, scope, tenant)): Packed =
            unpack_all(bytes)?;
        let unknown = |what: &str| {
            let message = format!("the manifest has an unknown value {what:?}");
            Error::new(ErrorKind::NewerFormat, message)
        };
        let consistency = match consistency.as_str() {
            "one version" => Consistency::OneVersion,
            "each page" => Consistency::EachPage,
            other => return Err(unknown(other)),
        };
        let tenant = match scope.as_str() {
            "store" => None,
            "tenant" => Some(TenantId(tenant)),
            other => return Err(unknown(other)),
        };
        Ok(Self { id, program, store_format, engine, consistency, tenant })
    }
}
