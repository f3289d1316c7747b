//! Archives: arbitrary bytes, and archives of arbitrary rows with valid checksums.

use std::{collections::BTreeMap, io::Cursor};

use sha2::{Digest as _, Sha256};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::Input;
use crate::{
    Error, ErrorKind, Result, Store,
    archive::{self, Summary},
    check::{Event, Fault},
    engine::{Database, RangeQuery},
    keyspace::KeyPart as _,
};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// An archive yields its rows or is rejected, and so is one that does not make a store.
///
/// The first byte selects the rest: an archive, or the rows of a store or a tenant.
pub fn export_file(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.byte() % 4 {
        0 => is_whole_or_refused(input.0),
        1 => is_imported_or_refused(&archive_of("store", &mut input), None),
        2 => is_imported_or_refused(&archive_of("tenant", &mut input), Some(TENANT)),
        _ => is_read_as_its_frames_say(&mut input),
    }
}

/// The tenant of the tenant's archives.
const TENANT: Uuid = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0002);

fn is_whole_or_refused(bytes: &[u8]) {
    let mut copy = Vec::new();
    let read = runtime().block_on(archive::copy(bytes, Cursor::new(&mut copy), |_| {}));
    match read {
        Ok(summary) => {
            assert_eq!(copy, bytes);
            assert_eq!(summary.bytes, bytes.len() as u64);
            is_imported_or_refused(bytes, summary.manifest.tenant.map(|tenant| tenant.0));
        }
        Err(error) => {
            assert!(is_of_the_archive(&error), "{error:?}");
            assert!(bytes.starts_with(&copy), "something else was copied");
        }
    }
}

fn is_of_the_archive(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NewerFormat)
}

/// Frames, some of them invalid, with valid checksums.
fn is_read_as_its_frames_say(input: &mut Input<'_>) {
    let mut draft = Draft::new(u32::from(input.byte() % 4 != 1));
    draft.manifest(["store", "tenant", "cosmos"][usize::from(input.byte() % 3)]);
    while !input.is_empty() {
        let kind = [b'R', b'R', b'M', b'E', input.byte()][usize::from(input.byte() % 5)];
        draft.frame(kind, input.bytes());
    }
    let rows = draft.rows;
    draft.end(rows, 7);
    is_whole_or_refused(&draft.bytes);
}

/// Returns an archive of the rows in the input: length of key, key, length of value in two bytes,
/// value.
fn archive_of(scope: &str, input: &mut Input<'_>) -> Vec<u8> {
    let mut draft = Draft::new(1);
    draft.manifest(scope);
    let mut rows = Vec::new();
    while !input.is_empty() {
        let key = input.bytes();
        let length = usize::from(u16::from_be_bytes(input.array()));
        let value = input.take(length);
        for length in [key.len(), value.len()] {
            rows.extend(u32::try_from(length).unwrap().to_le_bytes());
        }
        rows.extend([key, value].concat());
        draft.rows += 1;
    }
    if !rows.is_empty() {
        draft.frame(b'R', &rows);
    }
    let rows = draft.rows;
    draft.end(rows, 7);
    draft.bytes
}

/// A complete archive becomes a store with its rows, or is rejected, and the rest can be rolled
/// back.
fn is_imported_or_refused(archive: &[u8], tenant: Option<Uuid>) {
    runtime().block_on(async {
        let database = Database::memory().unwrap();
        if tenant.is_some() {
            Store::open(database.clone()).await.unwrap();
        }
        let before = rows(&database).await;
        let import =
            Store::options().schema(crate::model::schema()).import(database.clone()).unwrap();
        let verified = import.verify(archive, |_| {}).await;
        let imported = import.run(archive, |_| {}).await;
        match imported {
            Ok(imported) => {
                assert_eq!(verified.unwrap(), imported);
                is_a_store(&database, &imported).await;
            }
            Err(error) => {
                assert!(is_expected(&error, tenant), "{error:?}");
                let rolled_back = import.rollback().await;
                assert!(rolled_back.is_ok(), "{rolled_back:?}");
                assert_eq!(rows(&database).await, before, "after {error:?}");
            }
        }
    });
}

/// Returns whether an import documents such an error.
fn is_expected(error: &Error, tenant: Option<Uuid>) -> bool {
    match error.kind() {
        ErrorKind::SchemaMismatch(_) => true,
        ErrorKind::UniqueViolation(_) => tenant.is_some(),
        _ => is_of_the_archive(error),
    }
}

async fn is_a_store(database: &Database, imported: &Summary) {
    let store = Store::open(database.clone()).await.unwrap();
    let mut wrong = Vec::new();
    let check = store.check();
    let checked = check.run(|event| {
        if let Event::Found(found) = event {
            wrong.push(found.clone());
        }
    });
    let checked: Result<_> = checked.await;
    if imported.manifest.tenant.is_some() {
        // The importer made its entries.
        checked.unwrap();
        let index = wrong.iter().find(|found| matches!(found.fault, Fault::Index(..)));
        assert!(index.is_none(), "{}", index.unwrap());
        return;
    }
    assert!(checked.as_ref().map_or_else(is_of_the_archive, |_| true), "{checked:?}");
    let mut again = Vec::new();
    store.export().run(&mut again, |_| {}).await.unwrap();
    let copied = Database::memory().unwrap();
    Store::options()
        .schema(crate::model::schema())
        .import(copied.clone())
        .unwrap()
        .run(&*again, |_| {})
        .await
        .unwrap();
    // An import raises the high-water mark of versionstamps.
    let mark = store.root().key(&("meta".to_owned(), "last_append".to_owned()));
    let [mut of_copy, mut of_store] = [rows(&copied).await, rows(database).await];
    of_copy.remove(&mark);
    of_store.remove(&mark);
    assert_eq!(of_copy, of_store);
}

async fn rows(database: &Database) -> Rows {
    let mut stream = database.begin().stream(RangeQuery::new(b"", b"\xff"));
    let mut rows = Rows::new();
    while let Some(page) = stream.next_page().await.unwrap() {
        rows.extend(page.into_iter().map(|row| (row.key, row.value)));
    }
    rows
}

/// Encodes an archive, as documented in its module.
struct Draft {
    bytes: Vec<u8>,
    chain: u32,
    rows: u64,
}

impl Draft {
    fn new(format: u32) -> Self {
        let mut bytes = [b"coditect archive".as_slice(), &format.to_le_bytes()].concat();
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        Self { chain: crc32c::crc32c(&bytes), bytes, rows: 0 }
    }

    fn manifest(&mut self, scope: &str) {
        let mut payload = Vec::new();
        (Uuid::nil(), "0".to_owned(), 1_u64, "memory".to_owned()).pack(&mut payload);
        ("one version".to_owned(), scope.to_owned(), TENANT).pack(&mut payload);
        self.frame(b'M', &payload);
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let frame = [&[kind], length.as_slice(), payload].concat();
        self.chain = crc32c::crc32c_append(self.chain, &frame);
        self.bytes.extend(frame);
        self.bytes.extend(self.chain.to_le_bytes());
    }

    fn end(&mut self, rows: u64, version: u64) {
        let mut payload = [rows.to_le_bytes(), version.to_le_bytes()].concat();
        payload.extend(Sha256::digest(&self.bytes));
        self.frame(b'E', &payload);
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_row_is_rejected_before_any_write() {
        let key = [0xff, 2];
        let archive = archive_of("store", &mut Input(&[&[2], key.as_slice(), &[0, 0]].concat()));
        let import = Store::options()
            .schema(crate::model::schema())
            .import(Database::memory().unwrap())
            .unwrap();
        let verified = runtime().block_on(import.verify(&*archive, |_| {}));
        assert_eq!(verified.unwrap_err().kind(), ErrorKind::Corrupt);
        is_imported_or_refused(&archive, None);
    }
}
