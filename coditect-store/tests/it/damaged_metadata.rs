//! Damaged or crafted metadata: archives with it are refused before anything is written, and a
//! store with it is opened, or refused with the record's name and what to do.

use coditect_store::{
    Error, ErrorKind, Store, StoreOptions,
    archive::Summary,
    engine::{Database, Versionstamp},
    keyspace::Root,
};
use sha2::{Digest as _, Sha256};

use crate::{archives, samples, verify::write};

fn options() -> StoreOptions {
    Store::options().schema(coditect_store::model::schema())
}

fn meta(kind: &str) -> Vec<u8> {
    Root::default().key(&("meta".to_owned(), kind.to_owned()))
}

/// The bytes of a high-water mark of `version`.
fn mark(version: u64) -> Vec<u8> {
    let stamp = [version.to_be_bytes().as_slice(), &[0; Versionstamp::LEN + 2 - 8]].concat();
    [&[0x33], stamp.as_slice()].concat()
}

/// A store with a record of every kind, among them messages and audit entries.
async fn filled() -> Store {
    let store = options().open(Database::temporary().unwrap()).await.unwrap();
    let tx = store.begin();
    samples::write(&tx).await;
    tx.commit().await.unwrap();
    store
}

async fn import(database: &Database, archive: &[u8]) -> Result<Summary, Error> {
    options().import(database.clone()).unwrap().run(archive, |_| ()).await
}

#[tokio::test]
async fn archive_with_damaged_metadata_is_refused_by_the_name_of_the_record() {
    let index = Root::default()
        .key(&(("meta".to_owned(), "index".to_owned()), "agents_by_name".to_owned()));
    let table = [
        (meta("last_append"), b"\x33 late".to_vec(), "\"last_append\""),
        (meta("last_append"), mark(u64::MAX), "\"last_append\""),
        (meta("last_append"), mark(1 << 60), "\"last_append\""),
        (meta("epoch"), b"many".to_vec(), "\"epoch\""),
        (meta("format"), b"\xff".to_vec(), "\"format\""),
        (index, b"readable".to_vec(), "\"agents_by_name\""),
    ];
    let store = filled().await;
    for (key, bad, name) in table {
        let before = store.begin().engine().get(&key).await.unwrap().unwrap();
        write(&store, &key, Some(&bad)).await;
        let archive = archives::exported(&store).await;
        write(&store, &key, Some(&before)).await;
        let database = Database::temporary().unwrap();
        let error = import(&database, &archive).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
        let verified = options().import(database.clone()).unwrap();
        assert_eq!(
            verified.verify(archive.as_slice(), |_| ()).await.unwrap_err().kind(),
            ErrorKind::Corrupt,
        );
        options().open(database).await.expect("nothing was written");
    }
}

/// Replaces `from` by `to`, of the same length, and makes all checksums right again.
fn replaced(archive: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    const HEAD: usize = 24;
    let mut archive = archive.to_vec();
    let at = archive.windows(from.len()).position(|bytes| bytes == from).unwrap();
    archive[at..at + to.len()].copy_from_slice(to);
    let (mut sealed, mut rest) = (archive[..HEAD].to_vec(), &archive[HEAD..]);
    let mut chain = crc32c::crc32c(&sealed);
    while let Some((front, after)) = rest.split_at_checked(5) {
        let length = u32::from_le_bytes(front[1..].try_into().unwrap()) as usize;
        let mut frame = [front, &after[..length]].concat();
        if front[0] == b'E' {
            let hash = frame.len() - 32;
            frame[hash..].copy_from_slice(&Sha256::digest(&sealed));
        }
        chain = crc32c::crc32c_append(chain, &frame);
        sealed.extend(frame);
        sealed.extend(chain.to_le_bytes());
        rest = &after[length + 4..];
    }
    sealed
}

#[tokio::test]
async fn archive_with_the_marker_of_an_import_is_refused() {
    let store = filled().await;
    write(&store, &meta("jmport"), Some(b"")).await;
    let archive = archives::exported(&store).await;
    import(&Database::temporary().unwrap(), &archive).await.expect("unknown metadata is kept");
    let crafted = replaced(&archive, b"\x02jmport\0", b"\x02import\0");
    let database = Database::temporary().unwrap();
    let error = import(&database, &crafted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("marker of an import"), "{error}");
    options().open(database).await.expect("nothing was written");
}

#[tokio::test]
async fn store_with_a_damaged_high_water_mark_is_refused_and_can_be_repaired() {
    for bad in [b"\x33 late".to_vec(), b"".to_vec(), mark(u64::MAX), mark(u64::MAX / 2)] {
        let store = filled().await;
        let events = mark_of(&store).await;
        write(&store, &meta("last_append"), Some(&bad)).await;
        let database = store.database().clone();
        let error = options().open(database.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("last_append"), "{error}");
        assert!(error.to_string().contains("check --repair"), "{error}");
        assert_eq!(mark_of(&store).await, bad, "nothing was changed");

        let repaired = options().repair_high_water(true).open(database.clone()).await.unwrap();
        assert_eq!(mark_of(&repaired).await[..9], events[..9], "the newest event's version");
        options().open(database).await.unwrap();
    }
}

#[tokio::test]
async fn repair_leaves_an_undamaged_high_water_mark() {
    let store = filled().await;
    let before = mark_of(&store).await;
    let repaired = options().repair_high_water(true).open(store.database().clone()).await.unwrap();
    assert_eq!(mark_of(&repaired).await, before);
}

async fn mark_of(store: &Store) -> Vec<u8> {
    store.begin().engine().get(&meta("last_append")).await.unwrap().unwrap()
}

#[tokio::test]
async fn damaged_metadata_is_named_when_a_store_is_opened() {
    let declaration =
        Root::default().key(&(("meta".to_owned(), "schema".to_owned()), "agents".to_owned()));
    for (key, name) in [(declaration, "\"agents\""), (meta("import"), "\"import\"")] {
        let store = filled().await;
        write(&store, &key, Some(b"\xff")).await;
        let error = options().open(store.database().clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[tokio::test]
async fn damaged_epoch_is_named_when_a_record_is_written() {
    let store = filled().await;
    write(&store, &meta("epoch"), Some(b"\xff")).await;
    let store = options().open(store.database().clone()).await.unwrap();
    let agent = &samples::agent();
    let error = store.run(|tx| async move { tx.upsert(agent).await }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("\"epoch\""), "{error}");
}

#[tokio::test]
async fn greatest_epoch_is_followed_by_another() {
    let store = filled().await;
    write(&store, &meta("epoch"), Some(b"\x1c\xff\xff\xff\xff\xff\xff\xff\xff")).await;
    options()
        .entity::<crate::planner::Task>()
        .open(store.database().clone())
        .await
        .expect("a new declaration increments the epoch");
}

#[tokio::test]
async fn archive_with_an_event_newer_than_itself_is_refused() {
    let store = filled().await;
    let rows = archives::rows(store.database()).await;
    let of_tenant = Root::default().tenant(samples::tenant().id);
    let name = b"\x02messages\0";
    let is_message = |key: &&Vec<u8>| {
        of_tenant.contains(key) && key.windows(name.len()).any(|bytes| bytes == name)
    };
    let (key, value) = rows.keys().find(is_message).map(|key| (key, &rows[key])).unwrap();
    let later = [&key[..key.len() - mark(0).len()], &mark(1 << 57)].concat();
    write(&store, &later, Some(value)).await;
    let archive = archives::exported(&store).await;
    let import = options().import(Database::temporary().unwrap()).unwrap();
    let error = import.verify(archive.as_slice(), |_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("has an event of the later"), "{error}");
}
