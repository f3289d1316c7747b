//! Checks of the store's metadata.

use crate::{
    Error, ErrorKind, Result,
    entity::{META, Schema, SchemaEntry},
    keyspace::{KeyPart, Readable, packed, unpack_all},
    records::{self, RETIRED_KIND},
    store,
};

/// A decoded row of metadata.
enum Meta {
    /// A row of the store.
    OfStore,
    /// A row of the index of this name.
    OfIndex(String),
    /// A row of a kind that this program does not know.
    Unknown(String),
}

/// Checks a row `("meta", …rest)`: that it can be decoded, and agrees with the declarations.
///
/// # Errors
///
/// `Corrupt`, `SchemaMismatch` or `NewerFormat`.
pub(super) fn check(schema: &Schema, rest: &[u8], value: &[u8]) -> Result<()> {
    let newer = |message| Err(Error::new(ErrorKind::NewerFormat, message));
    match decode(schema, rest, value)? {
        Meta::OfStore => Ok(()),
        Meta::OfIndex(name) if schema.named(&name).is_some_and(SchemaEntry::is_index) => Ok(()),
        Meta::OfIndex(name) => newer(format!("no index {name:?} is declared")),
        Meta::Unknown(kind) => newer(format!("unknown metadata {kind:?}")),
    }
}

/// Checks a row `("meta", …rest)` of the archive of a store, which may have indexes of entities
/// that this program does not declare.
///
/// # Errors
///
/// `Corrupt` with the row's key, `SchemaMismatch` or `NewerFormat`.
pub(crate) fn admit(schema: &Schema, rest: &[u8], value: &[u8]) -> Result<()> {
    if rest == packed(&"import".to_owned()) {
        let message = "the archive has the marker of an import, which no export writes";
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    decode(schema, rest, value).map(|_| ()).map_err(|error| match error.kind() {
        ErrorKind::Corrupt => {
            let row = Readable::new(&[&packed(&META.to_owned()), rest].concat());
            let message = format!("the archive's row {row} cannot be imported");
            Error::new(ErrorKind::Corrupt, message).with_source(error)
        }
        _ => error,
    })
}

/// Decodes a row `("meta", …rest)`.
fn decode(schema: &Schema, rest: &[u8], value: &[u8]) -> Result<Meta> {
    let mut after = rest;
    let kind = String::unpack(&mut after)?;
    let name = || unpack_all::<String>(after);
    match kind.as_str() {
        "format" => {
            unpack_all::<()>(after)?;
            store::check_format(value)?;
        }
        "schema" => {
            name()?;
            records::admit_declaration(schema, rest, value)?;
        }
        "index" => {
            records::check_index_state(value)?;
            return name().map(Meta::OfIndex);
        }
        RETIRED_KIND => {
            name()?;
            unpack_all::<(Vec<u8>, u64)>(value)?;
        }
        "recount" => {
            let name = String::unpack(&mut after)?;
            <[u8; 8]>::try_from(value).map_err(|_| {
                Error::new(ErrorKind::Corrupt, "a recount is not an eight-byte number")
            })?;
            return Ok(Meta::OfIndex(name));
        }
        "epoch" => {
            unpack_all::<()>(after)?;
            unpack_all::<u64>(value)?;
        }
        "last_append" => {
            unpack_all::<()>(after)?;
            records::check_mark(value)?;
        }
        "import" => {
            unpack_all::<()>(after)?;
            store::import_marker::check(value)?;
        }
        _ => return Ok(Meta::Unknown(kind)),
    }
    Ok(Meta::OfStore)
}
