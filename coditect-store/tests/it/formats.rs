//! The encodings of every version of every record: they remain readable.
//!
//! A fixture of a released version is never changed. A new version of an entity adds a fixture.

use std::fmt::Debug;

use coditect_store::{
    Entity, Store,
    engine::Database,
    entity::EventStream,
    keyspace::{Global, KeyPart as _},
    model::{IdempotencyEntry, Message, Session, Tenant, User},
    records::Counter,
};

use crate::{planner::store, samples};

/// Writes `record`, compares its bytes with `fixture`, and reads `fixture` in its place.
async fn reads_and_writes<E: Entity + Debug + PartialEq>(store: &Store, record: &E, fixture: &str) {
    let fixture = bytes(fixture);
    let key = E::SPACE.key(store.root(), record.scope(), &record.key());
    let tx = store.begin();
    tx.insert(record).await.unwrap();
    let written = tx.engine().get(&key).await.unwrap().unwrap();
    assert_eq!(hex(&written), hex(&fixture), "{}", E::SPACE.name());

    tx.engine().set(&key, &fixture);
    let read = tx.get::<E>(record.scope(), record.key()).await.unwrap();
    assert_eq!(read.as_ref(), Some(record));
}

/// Reads `fixture`, of an older version, as `record`.
async fn reads<E: Entity + Debug + PartialEq>(store: &Store, record: &E, fixture: &str) {
    let key = E::SPACE.key(store.root(), record.scope(), &record.key());
    let tx = store.begin();
    tx.engine().set(&key, &bytes(fixture));
    let read = tx.get::<E>(record.scope(), record.key()).await.unwrap();
    assert_eq!(read.as_ref(), Some(record));
}

/// As [`reads_and_writes`], for an event of a stream.
async fn appends_and_reads<L: EventStream + Debug + PartialEq>(
    store: &Store,
    record: &L,
    fixture: &str,
) {
    let fixture = bytes(fixture);
    let appended = store.run(|tx| async move { tx.append(record).await }).await.unwrap();
    let stream = record.stream();
    let mut key = L::SPACE.key(store.root(), record.scope(), &stream);
    appended.position().unwrap().pack(&mut key);
    let tx = store.begin();
    let written = tx.engine().get(&key).await.unwrap().unwrap();
    assert_eq!(hex(&written), hex(&fixture), "{}", L::SPACE.name());

    tx.engine().set(&key, &fixture);
    let read = tx.events::<L>(record.scope(), stream, ..).page(1, None).await.unwrap();
    assert_eq!(&read.items[0].record, record);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.lines().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[tokio::test]
async fn every_version_of_every_entity_is_read_and_the_newest_is_written() {
    let store = store().await;
    let fixture = include_str!("../fixtures/records/tenant.v1.hex");
    reads_and_writes(&store, &samples::tenant(), fixture).await;
    let fixture = include_str!("../fixtures/records/user.v1.hex");
    reads_and_writes(&store, &samples::user(), fixture).await;
    let fixture = include_str!("../fixtures/records/auth_session.v1.hex");
    reads_and_writes(&store, &samples::auth_session(), fixture).await;
    let fixture = include_str!("../fixtures/records/membership.v1.hex");
    reads_and_writes(&store, &samples::membership(), fixture).await;
    let fixture = include_str!("../fixtures/records/session.v1.hex");
    reads_and_writes(&store, &samples::session(), fixture).await;
    let [editor, terminal, active_files, memory] = samples::session_states();
    let fixture = include_str!("../fixtures/records/session_state.editor.v1.hex");
    reads_and_writes(&store, &editor, fixture).await;
    let fixture = include_str!("../fixtures/records/session_state.terminal.v1.hex");
    reads_and_writes(&store, &terminal, fixture).await;
    let fixture = include_str!("../fixtures/records/session_state.active_files.v1.hex");
    reads_and_writes(&store, &active_files, fixture).await;
    let fixture = include_str!("../fixtures/records/session_state.memory.v1.hex");
    reads_and_writes(&store, &memory, fixture).await;
    let fixture = include_str!("../fixtures/records/session_memory.v1.hex");
    reads_and_writes(&store, &samples::session_memory(), fixture).await;
    let fixture = include_str!("../fixtures/records/client_state.v1.hex");
    reads_and_writes(&store, &samples::client_state(), fixture).await;
    let [file, directory] = samples::files();
    let fixture = include_str!("../fixtures/records/file.v1.hex");
    reads_and_writes(&store, &file, fixture).await;
    let fixture = include_str!("../fixtures/records/file.directory.v1.hex");
    reads_and_writes(&store, &directory, fixture).await;
    let fixture = include_str!("../fixtures/records/conversation.v1.hex");
    reads_and_writes(&store, &samples::conversation(), fixture).await;
    let fixture = include_str!("../fixtures/records/agent.v1.hex");
    reads_and_writes(&store, &samples::agent(), fixture).await;
    let [shared, own] = samples::settings();
    let fixture = include_str!("../fixtures/records/setting.tenant.v1.hex");
    reads_and_writes(&store, &shared, fixture).await;
    let fixture = include_str!("../fixtures/records/setting.user.v1.hex");
    reads_and_writes(&store, &own, fixture).await;
    let fixture = include_str!("../fixtures/records/message.v1.hex");
    appends_and_reads(&store, &samples::message(), fixture).await;
    let fixture = include_str!("../fixtures/records/audit_entry.v1.hex");
    appends_and_reads(&store, &samples::audit_entry(), fixture).await;
    let fixture = include_str!("../fixtures/records/file_version.v1.hex");
    reads_and_writes(&store, &samples::file_version(), fixture).await;
    let [uploading, released] = samples::orphan_blobs();
    let fixture = include_str!("../fixtures/records/orphan_blob.uploading.v1.hex");
    reads_and_writes(&store, &uploading, fixture).await;
    let fixture = include_str!("../fixtures/records/orphan_blob.released.v1.hex");
    reads_and_writes(&store, &released, fixture).await;
    let fixture = include_str!("../fixtures/records/ticket.v1.hex");
    reads_and_writes(&store, &samples::ticket(), fixture).await;
    let fixture = include_str!("../fixtures/records/idempotency_entry.v1.hex");
    let released = IdempotencyEntry { etag: None, ..samples::idempotency_entry() };
    reads(&store, &released, fixture).await;
    let fixture = include_str!("../fixtures/records/idempotency_entry.v2.hex");
    reads_and_writes(&store, &samples::idempotency_entry(), fixture).await;
    let fixture = include_str!("../fixtures/records/client_sequence.v1.hex");
    reads_and_writes(&store, &samples::client_sequence(), fixture).await;
    let fixture = include_str!("../fixtures/records/draft.v1.hex");
    reads_and_writes(&store, &samples::draft(), fixture).await;
    let [tenant, session, conversation, logins] = samples::deletions();
    let fixture = include_str!("../fixtures/records/deletion.tenant.v1.hex");
    reads_and_writes(&store, &tenant, fixture).await;
    let fixture = include_str!("../fixtures/records/deletion.session.v1.hex");
    reads_and_writes(&store, &session, fixture).await;
    let fixture = include_str!("../fixtures/records/deletion.conversation.v1.hex");
    reads_and_writes(&store, &conversation, fixture).await;
    let fixture = include_str!("../fixtures/records/deletion.logins.v1.hex");
    reads_and_writes(&store, &logins, fixture).await;
}

/// An archive of format 1 remains readable, with its records.
#[tokio::test]
async fn format_1_of_archives_is_imported() {
    let fixture = include_bytes!("../fixtures/archives/tenant.v1.archive");
    // Its versions are of its time of recording: a cluster would have to recover at them.
    let database = Database::memory().unwrap();
    Store::open(database.clone()).await.unwrap();
    let import =
        Store::options().schema(coditect_store::model::schema()).import(database.clone()).unwrap();
    let summary = import.run(fixture.as_slice(), |_| ()).await.unwrap();
    assert_eq!(summary.manifest.tenant, Some(samples::tenant().id));
    assert_eq!((summary.rows, summary.bytes), (5, fixture.len() as u64));

    let store = Store::open(database).await.unwrap();
    let tenant = samples::tenant().id;
    let tx = store.begin();
    assert_eq!(tx.get::<Tenant>(tenant, ()).await.unwrap(), Some(samples::tenant()));
    let user = tx.find(&User::BY_EMAIL, Global, samples::user().email_normalized).await.unwrap();
    assert_eq!(user, Some(samples::user()));
    let session = samples::session();
    assert_eq!(tx.get::<Session>(tenant, session.id).await.unwrap(), Some(session));
    let message = tx.find_event(&Message::BY_ID, tenant, samples::message().id).await.unwrap();
    assert_eq!(message.unwrap().record, samples::message());
    assert_eq!(tx.counter(tenant, Counter::SESSIONS).await.unwrap(), 3);
}
