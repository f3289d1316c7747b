//! Records: decoding of arbitrary bytes, and use of the decoded records.

use super::Input;
use crate::{
    Entity, ErrorKind,
    engine::KeyValue,
    entity::{EntitySchema, EventStream, decode, decode_event, encode, encode_event},
    entity::{event_key, record_key},
    keyspace::{Position, Root},
    model::{
        Agent, AuditEntry, AuthSession, ClientSequence, ClientState, Conversation, Deletion, Draft,
        File, FileVersion, IdempotencyEntry, Membership, Message, OrphanBlob, Session,
        SessionMemory, SessionState, Setting, Tenant, Ticket, User,
    },
};

/// All entities, in the order of the input's first byte, which the corpus depends on.
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
    entity::<OrphanBlob>,
    entity::<Conversation>,
    event::<Message>,
    entity::<Agent>,
    entity::<Setting>,
    event::<AuditEntry>,
    entity::<Ticket>,
    entity::<Membership>,
    entity::<IdempotencyEntry>,
    entity::<Deletion>,
];

/// The bytes decode to a record or are rejected. A decoded record encodes to bytes that decode to
/// the same record, and can be indexed and displayed.
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

fn event<L: EventStream>(bytes: &[u8], position: Position) {
    let record = match decode_event::<L>(bytes) {
        Ok(record) => record,
        Err(error) => return is_refused(bytes, L::VERSION, error.kind()),
    };
    let written = encode_event(&record).unwrap();
    let again: L = decode_event(&written).unwrap();
    assert_eq!(encode_event(&again).unwrap(), written, "{}", L::SPACE.name());
    let root = Root::default();
    let key = event_key::<L>(&root, record.scope(), &record.stream(), position);
    is_usable(&root, L::SPACE.name(), KeyValue { key, value: bytes.to_vec() }, &written);
}

fn is_refused(bytes: &[u8], version: u8, kind: ErrorKind) {
    let is_newer = bytes.first().is_some_and(|given| *given > version);
    assert_eq!(kind, if is_newer { ErrorKind::NewerFormat } else { ErrorKind::Corrupt });
}

/// A decoded row can be indexed and displayed; encoded again, with the same result.
fn is_usable(root: &Root, space: &str, row: KeyValue, written: &[u8]) {
    let schema = crate::model::schema();
    let declaration = schema.entity(space).unwrap();
    let before = of_row(declaration, root, &row);
    let row = KeyValue { value: written.to_vec(), ..row };
    assert_eq!(of_row(declaration, root, &row), before, "{space}");
}

fn of_row(declaration: &EntitySchema, root: &Root, row: &KeyValue) -> (String, serde_json::Value) {
    let entries = (declaration.entries)(root, row).unwrap();
    if let Some(blobs) = declaration.blobs {
        blobs(root, row).unwrap();
    }
    (format!("{entries:?}"), (declaration.show)(root, row).unwrap())
}
