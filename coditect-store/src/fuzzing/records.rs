//! The bytes of records, and what is made of a record that nobody wrote.

use super::Input;
use crate::{
    Entity, ErrorKind,
    engine::KeyValue,
    entity::{Declaration, Log, Registry, decode, decode_logged, encode, encode_logged},
    entity::{logged_key, record_key},
    keyspace::{Position, Root},
    model::{
        Agent, AuditEntry, AuthSession, ClientSequence, ClientState, Conversation, Deletion,
        DetachedBlob, Draft, File, FileVersion, IdempotencyEntry, Membership, Message, Session,
        SessionMemory, SessionState, Setting, Tenant, Ticket, User,
    },
};

/// All kinds of records, in the order of the input's first byte: the corpus hangs on it.
const KINDS: [fn(&[u8], Position); 21] = [
    entity::<Tenant>,
    entity::<User>,
    entity::<AuthSession>,
    entity::<Session>,
    entity::<SessionState>,
    entity::<SessionMemory>,
    entity::<ClientState>,
    entity::<ClientSequence>,
    entity::<File>,
    entity::<FileVersion>,
    entity::<Draft>,
    entity::<DetachedBlob>,
    entity::<Conversation>,
    logged::<Message>,
    entity::<Agent>,
    entity::<Setting>,
    logged::<AuditEntry>,
    entity::<Ticket>,
    entity::<Membership>,
    entity::<IdempotencyEntry>,
    entity::<Deletion>,
];

/// The bytes are a record or are refused. One that is read is written as bytes that are the same record for
/// good, and can be indexed and shown.
pub fn record_codec(bytes: &[u8]) {
    let mut input = Input(bytes);
    let kind = KINDS[usize::from(input.byte()) % KINDS.len()];
    kind(input.0, Position::new([7; 10].into(), 3));
}

fn entity<E: Entity>(bytes: &[u8], _: Position) {
    let record = match decode::<E>(bytes) {
        Ok(record) => record,
        Err(error) => return is_refused(bytes, E::VERSION, error.kind()),
    };
    let written = encode(&record).unwrap();
    let again: E = decode(&written).unwrap();
    assert_eq!(encode(&again).unwrap(), written, "{}", E::SPACE.name());
    let root = Root::default();
    let key = record_key::<E>(&root, record.scope(), &record.key());
    is_usable(&root, E::SPACE.name(), KeyValue { key, value: bytes.to_vec() }, &written);
}

fn logged<L: Log>(bytes: &[u8], position: Position) {
    let record = match decode_logged::<L>(bytes) {
        Ok(record) => record,
        Err(error) => return is_refused(bytes, L::VERSION, error.kind()),
    };
    let written = encode_logged(&record).unwrap();
    let again: L = decode_logged(&written).unwrap();
    assert_eq!(encode_logged(&again).unwrap(), written, "{}", L::SPACE.name());
    let root = Root::default();
    let key = logged_key::<L>(&root, record.scope(), &record.stream(), position);
    is_usable(&root, L::SPACE.name(), KeyValue { key, value: bytes.to_vec() }, &written);
}

fn is_refused(bytes: &[u8], version: u8, kind: ErrorKind) {
    let is_newer = bytes.first().is_some_and(|given| *given > version);
    assert_eq!(kind, if is_newer { ErrorKind::NewerFormat } else { ErrorKind::Corrupt });
}

/// A row that was read is indexed, and shown; as what it is written as, too, and in the same way.
fn is_usable(root: &Root, space: &str, row: KeyValue, written: &[u8]) {
    let registry = Registry::product();
    let declaration = registry.declaration(space).unwrap();
    let before = of_row(declaration, root, &row);
    let row = KeyValue { value: written.to_vec(), ..row };
    assert_eq!(of_row(declaration, root, &row), before, "{space}");
}

fn of_row(declaration: &Declaration, root: &Root, row: &KeyValue) -> (String, serde_json::Value) {
    let entries = (declaration.entries)(root, row).unwrap();
    if let Some(blobs) = declaration.blobs {
        blobs(root, row).unwrap();
    }
    (format!("{entries:?}"), (declaration.show)(root, row).unwrap())
}
