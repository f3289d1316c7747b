//! The tables of the B-tree file, and the `meta` table's record of the WAL.

use std::io;

use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition, TableError,
    WriteTransaction,
};

use super::super::wal::{LogPosition, Recorded};
use super::errors::{broken, corrupt};
use crate::{Error, ErrorKind, Result};

pub(super) const DATA: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const FORMAT: &str = "format";
pub(super) const STORE: &str = "store";
pub(super) const LAST_VERSION: &str = "last_version";
pub(super) const LOG: &str = "log";
pub(super) const SEGMENT: &str = "segment";
pub(super) const CLEAN: &str = "clean";
pub(super) const PARTIAL_CHECKPOINT_VERSION: &str = "partial_checkpoint_version";

/// Version of the format of the file. Other versions are refused.
pub(super) const FORMAT_VERSION: u64 = 4;

/// The content of the `meta` table.
pub(super) struct Meta {
    pub(super) recorded: Recorded,
    /// The version up to which the file contains parts of the WAL beyond the recorded position; 0
    /// for none.
    pub(super) partial_checkpoint_version: u64,
}

impl Meta {
    /// Reads the `meta` table, and checks the file's format version.
    pub(super) fn read(database: &Database) -> Result<Self> {
        let read = database.begin_read().map_err(broken)?;
        let names = [FORMAT, STORE, LAST_VERSION, LOG, SEGMENT, CLEAN, PARTIAL_CHECKPOINT_VERSION];
        let numbers = match read.open_table(META) {
            Ok(meta) => names.map(|name| value(&meta, name)),
            Err(TableError::TableDoesNotExist(_)) => names.map(|_| Ok(None)),
            Err(error) => {
                return Err(corrupt(
                    "the B-tree file is not a store: its table `meta` has another type",
                )
                .with_source(error));
            }
        };
        let has_other_tables = read.list_tables().map_err(broken)?.next().is_some();
        drop(read);
        let [format, store, last_version, log, segment, clean, partial] = numbers;
        match format? {
            Some(FORMAT_VERSION) => {}
            None if has_other_tables => {
                return Err(corrupt(
                    "the B-tree file is not a store: it has tables of another program",
                ));
            }
            None => return Err(corrupt("the B-tree file is not a store: it has no tables")),
            Some(newer) if newer > FORMAT_VERSION => {
                let message = format!(
                    "the store is of format {newer}; this program reads format {FORMAT_VERSION}: \
                     use a newer version"
                );
                return Err(Error::new(ErrorKind::NewerFormat, message));
            }
            Some(older) => {
                return Err(corrupt(format!(
                    "the store is of the development format {older}; this program reads format \
                     {FORMAT_VERSION}"
                )));
            }
        }
        let store = store?.ok_or_else(|| corrupt("the B-tree file has no store number"))?;
        let (version, checksum) = (last_version?.unwrap_or(0), log?.unwrap_or(0));
        let checksum = u32::try_from(checksum)
            .map_err(|_| corrupt("the B-tree file has an invalid checksum of its WAL"))?;
        let applied = LogPosition { version, checksum, segment: segment?.unwrap_or(0) };
        let recorded = Recorded { store, applied, is_clean: clean?.is_some() };
        Ok(Self { recorded, partial_checkpoint_version: partial?.unwrap_or(0) })
    }
}

/// Makes the commit of `transaction` sync, and a repair after a crash fast.
pub(super) fn make_durable(
    transaction: &mut WriteTransaction,
) -> Result<(), redb::SetDurabilityError> {
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    Ok(())
}

/// Creates the tables of an empty store.
pub(super) fn initialize(database: &Database) -> Result<(), Box<redb::Error>> {
    let write = |database: &Database| -> Result<(), redb::Error> {
        let mut transaction = database.begin_write()?;
        make_durable(&mut transaction)?;
        transaction.open_table(DATA)?;
        let random =
            getrandom::u64().map_err(|error| redb::Error::Io(io::Error::other(error.to_string())));
        let store = random?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(FORMAT, FORMAT_VERSION)?;
        meta.insert(STORE, store)?;
        meta.insert(CLEAN, 1)?;
        drop(meta);
        transaction.commit()?;
        Ok(())
    };
    write(database).map_err(Box::new)
}

fn value(meta: &ReadOnlyTable<&'static str, u64>, name: &str) -> Result<Option<u64>> {
    let found = meta.get(name).map_err(broken)?;
    Ok(found.map(|number| number.value()))
}
