//! Archives: a store, or one tenant of it, as one stream of bytes, to be kept or moved, and made a
//! store again.
//!
//! ```text
//! archive   head, manifest, rows …, end; nothing after it
//! head      "coditect archive" ‖ format version (u32) ‖ CRC-32C of both (u32)
//! frame     kind (1 byte) ‖ length (u32) ‖ payload ‖ CRC-32C (u32)
//! manifest  'M'  tuple: archive id, program's version, format of the store, engine;
//!                consistency, scope, tenant
//! rows      'R'  for each row: length of key (u32), of value (u32), key without the root, value
//! end       'E'  number of rows (u64) ‖ version (u64) ‖ SHA-256 of all before this frame
//! ```
//!
//! Numbers are little-endian. The sum of a frame goes on from the one before, so that frames cannot
//! change places.
//!
//! What stays true:
//!
//! - What is damaged, cut short or longer than it was is refused, with the offset where that shows; a
//!   newer format is refused by its number.
//! - Neither writing nor reading one takes more memory than a few frames.
//! - **A store's archive is its rows as they are**, index entries and declarations among them: what is
//!   restored is byte for byte what was saved, also what this program does not know, but for the mark of the
//!   newest version, which is raised. **A tenant's**
//!   holds what cannot be derived (records, logs, counters, deletions under way), since it goes into a store with records
//!   and declarations of its own: there its index entries are made anew, those outside of the tenant
//!   too, and a unique value that is taken is refused by the index's name.
//! - Logs keep their order, and what is appended later comes after them: an import makes the
//!   database's versions go on from [`Summary::version`].
//! - An [`Import`] that was stopped goes on where it was; until it has ended no program opens the
//!   store.
//!
//! An archive has all that the store has, hashes of passwords and sealed keys too: who has it has the
//! store. The master key, which opens those, is not in it.

mod export;
mod frame;
mod import;
mod marker;
mod reader;

use tokio::io::AsyncRead;
use uuid::Uuid;

pub use export::Export;
pub use import::{Import, Step};
pub(crate) use marker::{check_row as check_marker, refuse_unfinished};
pub use reader::copy;

use crate::{
    Error, ErrorKind, Result,
    engine::Consistency,
    keyspace::{KeyPart, unpack_all},
    model::TenantId,
};

/// The format of archives that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// What an archive is of, and who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The archive's own id: no two have the same.
    pub id: Uuid,
    /// The version of the program that wrote it.
    pub program: String,
    /// The format of the store.
    pub store_format: u64,
    /// The engine that the store was on.
    pub engine: String,
    /// Whether all of it is of one version.
    pub consistency: Consistency,
    /// The tenant that it is of; `None` if it is of the whole store.
    pub tenant: Option<TenantId>,
}

/// An archive that was written, read or imported to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// What it is of.
    pub manifest: Manifest,
    /// How many rows it has.
    pub rows: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// The database's version that it shows: no versionstamp in it is of a later one.
    pub version: u64,
}

/// How far an archive is written, read or imported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows so far.
    pub rows: u64,
    /// Bytes of the archive so far.
    pub bytes: u64,
}

/// Reads an archive to its end; `observe` is told how far that is. Nothing is kept of it, and whether
/// its rows make a store is not looked at: for that there is [`Import::verify`].
///
/// # Errors
///
/// `Corrupt` if it is not whole, with the offset; `NewerFormat`; `Unavailable` if it cannot be read.
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
            let message = format!("the archive is of what this program does not know: {what:?}");
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
