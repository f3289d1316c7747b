//! Record encoding: one byte of schema version, then bincode 2 in its standard configuration. The
//! fields in a covering index's entry have the same layout, with [`FIELDS`] as their version. No
//! other file names bincode.
//!
//! # Invariants
//!
//! - Encoded records decode to themselves: [`strict`] rejects a record whose serialization omits
//!   fields, and every writer decodes the bytes it has encoded. Trailing bytes are rejected.
//! - Older versions are upgraded by the entity's own functions. A newer version is rejected by its
//!   number, and its body is not read.
//! - Any bytes decode to a record or an error. A length in them is trusted only up to a
//!   [limit](decode_body) proportional to their size, which bounds allocation.

use bincode::config;
use serde::{Serialize, de::DeserializeOwned};

use super::{Entity, EventStream, short_name, strict};
use crate::{Error, ErrorKind, Result, engine::VALUE_SIZE_LIMIT};

/// Encodes `record`.
///
/// # Errors
///
/// `Invalid` if the serialization omits a field, or has a sequence of unknown length.
pub(crate) fn encode<E: Entity>(record: &E) -> Result<Vec<u8>> {
    encode_as(record, E::SPACE.name(), E::VERSION)
}

/// Encodes an event of a stream, as [`encode`] does.
pub(crate) fn encode_event<L: EventStream>(record: &L) -> Result<Vec<u8>> {
    encode_as(record, L::SPACE.name(), L::VERSION)
}

/// Decodes a record.
///
/// # Errors
///
/// `NewerFormat` if a newer version of the program wrote it, `Corrupt` if `bytes` are not a record.
pub(crate) fn decode<E: Entity>(bytes: &[u8]) -> Result<E> {
    decode_as(bytes, E::SPACE.name(), E::VERSION, E::upgrade)
}

/// Decodes an event of a stream, as [`decode`] does.
pub(crate) fn decode_event<L: EventStream>(bytes: &[u8]) -> Result<L> {
    decode_as(bytes, L::SPACE.name(), L::VERSION, L::upgrade)
}

fn encode_as<T: Serialize>(record: &T, space: &str, version: u8) -> Result<Vec<u8>> {
    strict::check(record).map_err(|cause| unwritable::<T>(space).with_source(cause))?;
    let mut bytes = vec![version];
    bincode::serde::encode_into_std_write(record, &mut bytes, config::standard())
        .map_err(|cause| unwritable::<T>(space).with_source(cause))?;
    Ok(bytes)
}

/// Returns the error for a record of type `T` that does not decode to itself.
pub(super) fn unwritable<T>(space: &str) -> Error {
    let message = format!(
        "cannot store a record of {space}: it does not decode to itself. bincode stores the \
         fields of {} in order and without names, so serde attributes that omit or rearrange \
         fields (skip_serializing_if, flatten, tag, untagged) cannot be used",
        short_name::<T>()
    );
    Error::new(ErrorKind::Invalid, message)
}

fn decode_as<T: DeserializeOwned>(
    bytes: &[u8],
    space: &'static str,
    known: u8,
    upgrade: fn(Older<'_>) -> Result<T>,
) -> Result<T> {
    let Some((&version, body)) = bytes.split_first() else {
        return Err(Error::new(ErrorKind::Corrupt, format!("a record of {space} is empty")));
    };
    if version > known {
        let message = format!(
            "a record of {space} has version {version}; this program reads versions up to {known}"
        );
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    let older = Older { space, version, known, body };
    if version == known { older.read() } else { upgrade(older) }
}

/// Version of the encoding of a covering index's fields.
const FIELDS: u8 = 1;

/// Encodes the fields of an entry of `index`.
///
/// # Errors
///
/// `Invalid` if the fields do not decode to themselves.
pub(super) fn encode_fields<C>(index: &str, fields: &C) -> Result<Vec<u8>>
where
    C: Serialize + DeserializeOwned,
{
    let unwritable = || {
        let message = format!(
            "cannot store the fields of index {index}: they do not decode as {}",
            short_name::<C>()
        );
        Error::new(ErrorKind::Invalid, message)
    };
    strict::check(fields).map_err(|cause| unwritable().with_source(cause))?;
    let mut bytes = vec![FIELDS];
    bincode::serde::encode_into_std_write(fields, &mut bytes, config::standard())
        .map_err(|cause| unwritable().with_source(cause))?;
    decode_fields::<C>(index, &bytes).map_err(|cause| unwritable().with_source(cause))?;
    Ok(bytes)
}

/// Decodes the fields of an entry of `index` from its value.
///
/// # Errors
///
/// `NewerFormat` if a newer version of the program wrote it, `Corrupt` if it is not a `C`.
pub(super) fn decode_fields<C: DeserializeOwned>(index: &str, bytes: &[u8]) -> Result<C> {
    let corrupt = || {
        let message = format!("cannot decode the fields of an entry of index {index}");
        Error::new(ErrorKind::Corrupt, message)
    };
    let (&version, body) = bytes.split_first().ok_or_else(corrupt)?;
    if version > FIELDS {
        let message = format!(
            "an entry of index {index} has layout {version}; this program reads up to {FIELDS}"
        );
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    let (fields, read) = decode_body(body).map_err(|cause| corrupt().with_source(cause))?;
    if version < FIELDS || read != body.len() {
        return Err(corrupt());
    }
    Ok(fields)
}

/// The bytes of a record written by an older version of the program: see [`Entity::upgrade`].
#[derive(Clone, Copy, Debug)]
pub struct Older<'a> {
    space: &'static str,
    version: u8,
    /// The version that the program writes.
    known: u8,
    body: &'a [u8],
}

impl Older<'_> {
    /// Returns the version of the record.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Decodes the record as the struct of its version.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the bytes are not a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let unreadable = || self.unreadable(short_name::<T>());
        let (record, read) =
            decode_body(self.body).map_err(|cause| unreadable().with_source(cause))?;
        if read != self.body.len() {
            let left = self.body.len() - read;
            return Err(unreadable().with_source(format!("{left} bytes are left over")));
        }
        Ok(record)
    }

    /// Returns the error for bytes that do not decode to the struct `name`.
    fn unreadable(&self, name: &str) -> Error {
        let Self { space, version, known, .. } = self;
        let hint = if version == known {
            format!(
                "if the fields of {name} have changed since it was written, raise its VERSION and \
                 read version {version} in `upgrade`"
            )
        } else {
            format!("`upgrade` must read version {version} by the struct that wrote it")
        };
        let message = format!(
            "a record of {space}, stored in version {version}, cannot be read as {name}: {hint}"
        );
        Error::new(ErrorKind::Corrupt, message)
    }

    /// Returns the error for a version that never existed.
    pub fn unknown_version(&self) -> Error {
        let Self { space, version, .. } = self;
        Error::new(ErrorKind::Corrupt, format!("a record of {space} has unknown version {version}"))
    }
}

/// Bytes that bincode may account for each byte read: a `u128` takes one byte encoded, and is
/// accounted as sixteen.
const COUNTED: usize = 16;
/// Length that most records do not exceed.
const SHORT: usize = 4 << 10;

/// Decodes the record at the start of `body`, and returns it with its length. bincode's limit is a
/// compile-time constant, so there are two: one for short bodies, one for the largest value.
fn decode_body<T: DeserializeOwned>(
    body: &[u8],
) -> Result<(T, usize), bincode::error::DecodeError> {
    const SHORT_LIMIT: usize = COUNTED * SHORT;
    const LIMIT: usize = COUNTED * VALUE_SIZE_LIMIT;

    let config = config::standard();
    if body.len() <= SHORT {
        bincode::serde::decode_from_slice(body, config.with_limit::<SHORT_LIMIT>())
    } else {
        bincode::serde::decode_from_slice(body, config.with_limit::<LIMIT>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{
        indexes,
        keyspace::{Global, Subspace},
        model::{
            Agent, AuditEntry, AuthSession, ClientState, Conversation, File, Json, Message,
            Session, SessionMemory, SessionState, Setting, Tenant, User,
        },
    };

    /// Has every kind of field that records have.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Task {
        id: u64,
        title: String,
        done: bool,
        tags: Vec<String>,
        effort: Option<u128>,
        bytes: [u8; 4],
        settings: Json,
    }

    #[derive(Serialize, Deserialize)]
    struct TaskV1 {
        id: u64,
        title: String,
    }

    #[derive(Serialize, Deserialize)]
    struct TaskV2 {
        id: u64,
        title: String,
        done: bool,
    }

    fn second(old: TaskV1) -> TaskV2 {
        TaskV2 { id: old.id, title: old.title, done: false }
    }

    fn third(old: TaskV2) -> Task {
        Task {
            id: old.id,
            title: old.title,
            done: old.done,
            tags: Vec::new(),
            effort: None,
            bytes: [0; 4],
            settings: Json::default(),
        }
    }

    impl Entity for Task {
        type Scope = Global;
        type Key = u64;
        const SPACE: Subspace<Global> = Subspace::global("tasks");
        const VERSION: u8 = 3;

        fn scope(&self) -> Global {
            Global
        }

        fn key(&self) -> u64 {
            self.id
        }

        fn upgrade(older: Older<'_>) -> Result<Self> {
            match older.version() {
                1 => older.read().map(second).map(third),
                2 => older.read().map(third),
                _ => Err(older.unknown_version()),
            }
        }
    }

    indexes! { Task => }

    fn written(version: u8, body: &impl Serialize) -> Vec<u8> {
        let body = bincode::serde::encode_to_vec(body, config::standard()).unwrap();
        [&[version], body.as_slice()].concat()
    }

    fn task() -> Task {
        third(second(TaskV1 { id: 7, title: "write it down".into() }))
    }

    #[test]
    fn records_of_older_versions_are_upgraded_step_by_step() {
        let first = written(1, &TaskV1 { id: 7, title: "write it down".into() });
        assert_eq!(decode::<Task>(&first).unwrap(), task());
        let second = written(2, &TaskV2 { id: 7, title: "write it down".into(), done: true });
        assert_eq!(decode::<Task>(&second).unwrap(), Task { done: true, ..task() });
    }

    #[test]
    fn a_record_of_a_newer_version_is_refused_by_name() {
        let error = decode::<Task>(&[4, 1, 2, 3]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat);
        let expected = "a record of tasks has version 4; this program reads versions up to 3";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_record_of_an_unknown_version_is_rejected() {
        assert_eq!(decode::<Task>(&[]).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(decode::<Task>(&[0, 7]).unwrap_err().kind(), ErrorKind::Corrupt);
        let without_upgrade = decode::<Tenant>(&[0, 7]).unwrap_err();
        assert_eq!(without_upgrade.to_string(), "a record of tenant has unknown version 0");
    }

    #[test]
    fn truncated_or_trailing_bytes_are_rejected() {
        let bytes = encode(&task()).unwrap();
        for length in 0..bytes.len() {
            let error = decode::<Task>(&bytes[..length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "the first {length} bytes");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode::<Task>(&longer).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_length_beyond_the_input_is_rejected() {
        // Version, id, and a title that claims to be 2^60 bytes long.
        let bytes = [&[3, 7, 253], (1_u64 << 60).to_le_bytes().as_slice(), b"short"].concat();
        assert_eq!(decode::<Task>(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn the_largest_value_can_be_decoded() {
        // The worst case: each number takes one byte, and is accounted as sixteen.
        let numbers = vec![1_u128; VALUE_SIZE_LIMIT - 6];
        let bytes = written(1, &numbers);
        assert_eq!(bytes.len(), VALUE_SIZE_LIMIT);
        assert_eq!(decode_body::<Vec<u128>>(&bytes[1..]).unwrap().0, numbers);
    }

    #[test]
    fn index_fields_round_trip_and_malformed_ones_are_rejected() {
        let fields = ("title".to_owned(), Some(7_u64));
        let bytes = encode_fields("i", &fields).unwrap();
        assert_eq!(bytes, b"\x01\x05title\x01\x07", "persisted: layout, then bincode");
        assert_eq!(decode_fields::<(String, Option<u64>)>("i", &bytes).unwrap(), fields);
        let kind =
            |bytes: &[u8]| decode_fields::<(String, Option<u64>)>("i", bytes).unwrap_err().kind();
        for length in 0..bytes.len() {
            assert_eq!(kind(&bytes[..length]), ErrorKind::Corrupt, "the first {length} bytes");
        }
        assert_eq!(kind(&[bytes.as_slice(), &[0]].concat()), ErrorKind::Corrupt);
        assert_eq!(kind(&[&[0], &bytes[1..]].concat()), ErrorKind::Corrupt);
        assert_eq!(kind(&[&[2], &bytes[1..]].concat()), ErrorKind::NewerFormat);
    }

    fn tasks() -> impl Strategy<Value = Task> {
        let tags = prop::collection::vec(".{0,6}", 0..4);
        let settings = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(serde_json::Value::from),
            ".{0,8}".prop_map(|text| serde_json::json!({ "a": [text, true] })),
        ];
        let rest = (any::<Option<u128>>(), any::<[u8; 4]>(), settings.prop_map(Json));
        (any::<u64>(), ".{0,20}", any::<bool>(), tags, rest).prop_map(
            |(id, title, done, tags, (effort, bytes, settings))| Task {
                id,
                title,
                done,
                tags,
                effort,
                bytes,
                settings,
            },
        )
    }

    proptest! {
        #[test]
                fn records_round_trip(task in tasks()) {
            prop_assert_eq!(decode::<Task>(&encode(&task).unwrap()).unwrap(), task);
        }

        #[test]
        fn arbitrary_bytes_decode_or_fail(
            version in 0_u8..5, body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [&[version], body.as_slice()].concat();
            let _ = decode::<Task>(&bytes);
            let _ = decode::<Tenant>(&bytes);
            let _ = decode::<User>(&bytes);
            let _ = decode::<AuthSession>(&bytes);
            let _ = decode::<Session>(&bytes);
            let _ = decode::<SessionState>(&bytes);
            let _ = decode::<SessionMemory>(&bytes);
            let _ = decode::<ClientState>(&bytes);
            let _ = decode::<File>(&bytes);
            let _ = decode::<Conversation>(&bytes);
            let _ = decode::<Agent>(&bytes);
            let _ = decode::<Setting>(&bytes);
            let _ = decode_event::<Message>(&bytes);
            let _ = decode_event::<AuditEntry>(&bytes);
        }

        #[test]
                fn a_damaged_record_decodes_or_fails(
            task in tasks(), at in any::<prop::sample::Index>(), byte: u8,
        ) {
            let mut bytes = encode(&task).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode::<Task>(&bytes);
        }
    }
}
