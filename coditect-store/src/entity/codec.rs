//! The bytes of a record: one byte of schema version, then bincode 2 in its standard
//! configuration. This is the only file that names bincode.
//!
//! What stays true:
//!
//! - What was written reads back as it was; bytes left over are refused.
//! - A version older than the program's is upgraded by the entity's own functions; a newer one is
//!   refused by its name and number, and nothing of it is looked at.
//! - Any bytes give a record or an error. What is allocated meanwhile is bounded: a length inside
//!   them is believed only up to a [limit](decode_body) that grows with their own.

use bincode::config;
use serde::de::DeserializeOwned;

use super::Entity;
use crate::{Error, ErrorKind, Result, engine::VALUE_SIZE_LIMIT};

/// The bytes of `record`.
///
/// # Errors
///
/// `Invalid` if it holds what cannot be written: a sequence of unknown length, say. That it is too
/// large for a value is found by the engine.
pub(crate) fn encode<E: Entity>(record: &E) -> Result<Vec<u8>> {
    let mut bytes = vec![E::VERSION];
    bincode::serde::encode_into_std_write(record, &mut bytes, config::standard()).map_err(
        |cause| {
            let message = format!("a record of {} cannot be written", E::SPACE.name());
            Error::new(ErrorKind::Invalid, message).because(cause)
        },
    )?;
    Ok(bytes)
}

/// The record whose bytes are `bytes`.
///
/// # Errors
///
/// `NewerFormat` if a newer version of the program wrote them, `Corrupt` if they are no record.
pub(crate) fn decode<E: Entity>(bytes: &[u8]) -> Result<E> {
    let space = E::SPACE.name();
    let Some((&version, body)) = bytes.split_first() else {
        return Err(Error::new(ErrorKind::Corrupt, format!("a record of {space} has no bytes")));
    };
    if version > E::VERSION {
        let known = E::VERSION;
        let message = format!(
            "a record of {space} is of version {version}; this program knows them up to {known}"
        );
        return Err(Error::new(ErrorKind::NewerFormat, message));
    }
    let older = Older { space, version, body };
    if version == E::VERSION { older.read() } else { E::upgrade(older) }
}

/// The bytes of a record that an older version of the program wrote: see [`Entity::upgrade`].
#[derive(Clone, Copy, Debug)]
pub struct Older<'a> {
    space: &'static str,
    version: u8,
    body: &'a [u8],
}

impl Older<'_> {
    /// The version it was written in.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// The record as the struct of that version.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not one.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        let Self { space, version, body } = self;
        let corrupt = || {
            let message = format!("a record of {space}, version {version}, cannot be read");
            Error::new(ErrorKind::Corrupt, message)
        };
        let (record, read) = decode_body(body).map_err(|cause| corrupt().because(cause))?;
        if read != body.len() {
            return Err(corrupt().because(format!("{} bytes are left over", body.len() - read)));
        }
        Ok(record)
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
