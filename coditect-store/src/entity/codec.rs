//! The bytes of a record: one byte of schema version, then bincode 2 in its standard
//! configuration. Those of the fields that a covering index carries: one byte, [`FIELDS`], then the
//! same. This is the only file that names bincode.
//!
//! What stays true:
//!
//! - What is written reads back: [`strict`] refuses a record whose serialization leaves fields out,
//!   and every writer decodes what it has encoded. Bytes left over are refused.
//! - A version older than the program's is upgraded by the entity's own functions; a newer one is
//!   refused by its name and number, and nothing of it is looked at.
//! - Any bytes give a record or an error. What is allocated meanwhile is bounded: a length inside
//!   them is believed only up to a [limit](decode_body) that grows with their own.

use bincode::config;
use serde::{Serialize, de::DeserializeOwned};

use super::{Entity, Log, short_name, strict};
use crate::{Error, ErrorKind, Result, engine::VALUE_SIZE_LIMIT};

/// Encodes `record`.
///
/// # Errors
///
/// `Invalid` if its serialization leaves a field out, or has a sequence of unknown length.
pub(crate) fn encode<E: Entity>(record: &E) -> Result<Vec<u8>> {
    encode_as(record, E::SPACE.name(), E::VERSION)
}

/// Encodes a record of a log, as [`encode`] does.
pub(crate) fn encode_logged<L: Log>(record: &L) -> Result<Vec<u8>> {
    encode_as(record, L::SPACE.name(), L::VERSION)
}

/// Decodes a record.
///
/// # Errors
///
/// `NewerFormat` if a newer version of the program wrote it, `Corrupt` if `bytes` are no record.
pub(crate) fn decode<E: Entity>(bytes: &[u8]) -> Result<E> {
    decode_as(bytes, E::SPACE.name(), E::VERSION, E::upgrade)
}

/// Decodes a record of a log, as [`decode`] does.
pub(crate) fn decode_logged<L: Log>(bytes: &[u8]) -> Result<L> {
    decode_as(bytes, L::SPACE.name(), L::VERSION, L::upgrade)
}

fn encode_as<T: Serialize>(record: &T, space: &str, version: u8) -> Result<Vec<u8>> {
    strict::check(record).map_err(|cause| unwritable::<T>(space).with_source(cause))?;
    let mut bytes = vec![version];
    bincode::serde::encode_into_std_write(record, &mut bytes, config::standard())
        .map_err(|cause| unwritable::<T>(space).with_source(cause))?;
    Ok(bytes)
}

/// Returns the error for a record of the type `T` that could not be read back.
pub(super) fn unwritable<T>(space: &str) -> Error {
    let message = format!(
        "a record of {space} was not written, since it could not be read back: bincode stores the \
         fields of {} in order and without names, so serde attributes that omit or rearrange fields \
         (skip_serializing_if, flatten, tag, untagged) cannot be used",
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
        return Err(Error::new(ErrorKind::Corrupt, format!("a record of {space} has no bytes")));
    };
    if version > known {
        let message = format!(
            "a record of {space} is of version {version}; this program knows them up to {known}"
        );
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    let older = Older { space, version, known, body };
    if version == known { older.read() } else { upgrade(older) }
}

/// The version of the layout of fields that an index carries.
const FIELDS: u8 = 1;

/// The bytes of what an entry of `index` carries.
///
/// # Errors
///
/// `Invalid` if it holds what cannot be written.
pub(super) fn encode_fields<C>(index: &str, fields: &C) -> Result<Vec<u8>>
where
    C: Serialize + DeserializeOwned,
{
    let unwritable = || {
        let message = format!(
            "the fields for index {index} were not written, since they could not be read back as \
             {}",
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

/// What an entry of `index` whose value is `bytes` carries.
///
/// # Errors
///
/// `NewerFormat` if a newer version of the program wrote it, `Corrupt` if it is not of this type.
pub(super) fn decode_fields<C: DeserializeOwned>(index: &str, bytes: &[u8]) -> Result<C> {
    let corrupt = || {
        let message = format!("the fields in an entry of index {index} cannot be read");
        Error::new(ErrorKind::Corrupt, message)
    };
    let (&version, body) = bytes.split_first().ok_or_else(corrupt)?;
    if version > FIELDS {
        let message = format!(
            "an entry of index {index} is of layout {version}; this program knows up to {FIELDS}"
        );
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    let (fields, read) = decode_body(body).map_err(|cause| corrupt().with_source(cause))?;
    if version < FIELDS || read != body.len() {
        return Err(corrupt());
    }
    Ok(fields)
}

/// The bytes of a record that an older version of the program wrote: see [`Entity::upgrade`].
#[derive(Clone, Copy, Debug)]
pub struct Older<'a> {
    space: &'static str,
    version: u8,
    /// The version that the program writes.
    known: u8,
    body: &'a [u8],
}

impl Older<'_> {
    /// The version it was written in.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Decodes the record as the struct of that version.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not one.
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

    /// Returns the error for bytes that are not those of the struct named `name`.
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

    /// The error that says that there never was such a version.
    pub fn unknown(&self) -> Error {
        let Self { space, version, .. } = self;
        Error::new(ErrorKind::Corrupt, format!("a record of {space} is of no version: {version}"))
    }
}

/// How much more memory than bytes bincode may count for what is read: an integer of sixteen bytes
/// can be written in one, and is counted as sixteen.
const COUNTED: usize = 16;
/// What most records are shorter than.
const SHORT: usize = 4 << 10;

/// The record in front of `body`, and how many bytes it took. The limit is a constant of bincode's
/// configuration, so there are two: of short bodies, and of all that a value can hold.
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
        keyspace::{Global, Space},
        model::{
            Agent, AuditEntry, AuthSession, ClientState, Conversation, File, Json, Message,
            Session, SessionMemory, SessionState, Setting, Tenant, User,
        },
    };

    /// All shapes of fields that records have.
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
        const SPACE: Space<Global> = Space::global("tasks");
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
                _ => Err(older.unknown()),
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
        let said = "a record of tasks is of version 4; this program knows them up to 3";
        assert_eq!(error.to_string(), said);
    }

    #[test]
    fn a_record_of_no_version_is_refused() {
        assert_eq!(decode::<Task>(&[]).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(decode::<Task>(&[0, 7]).unwrap_err().kind(), ErrorKind::Corrupt);
        let without_upgrade = decode::<Tenant>(&[0, 7]).unwrap_err();
        assert_eq!(without_upgrade.to_string(), "a record of tenant is of no version: 0");
    }

    #[test]
    fn bytes_that_are_cut_short_or_left_over_are_refused() {
        let bytes = encode(&task()).unwrap();
        for length in 0..bytes.len() {
            let error = decode::<Task>(&bytes[..length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "the first {length} bytes");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(decode::<Task>(&longer).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_length_beyond_the_bytes_is_not_believed() {
        // Version, id, and a title that claims to be 2^60 bytes long.
        let bytes = [&[3, 7, 253], (1_u64 << 60).to_le_bytes().as_slice(), b"short"].concat();
        assert_eq!(decode::<Task>(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn the_largest_value_that_the_engine_takes_can_be_read() {
        // The worst case: each number is one byte long, and counted as sixteen.
        let numbers = vec![1_u128; VALUE_SIZE_LIMIT - 6];
        let bytes = written(1, &numbers);
        assert_eq!(bytes.len(), VALUE_SIZE_LIMIT);
        assert_eq!(decode_body::<Vec<u128>>(&bytes[1..]).unwrap().0, numbers);
    }

    #[test]
    fn fields_that_an_index_carries_read_back_and_anything_else_is_refused() {
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
        fn what_was_written_reads_back(task in tasks()) {
            prop_assert_eq!(decode::<Task>(&encode(&task).unwrap()).unwrap(), task);
        }

        #[test]
        fn any_bytes_are_a_record_or_refused(
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
            let _ = decode_logged::<Message>(&bytes);
            let _ = decode_logged::<AuditEntry>(&bytes);
        }

        #[test]
        fn a_damaged_record_is_a_record_or_refused(
            task in tasks(), at in any::<prop::sample::Index>(), byte: u8,
        ) {
            let mut bytes = encode(&task).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode::<Task>(&bytes);
        }
    }
}
