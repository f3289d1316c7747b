//! Checks of the store's metadata.

use crate::{
    Error, ErrorKind, Result,
    entity::Schema,
    keyspace::{KeyPart, Position, unpack_all},
    records::{self, RETIRED_KIND},
    store,
};

/// Checks a row `("meta", …rest)`: that it can be decoded, and agrees with the declarations.
///
/// # Errors
///
/// `Corrupt`, `SchemaMismatch` or `NewerFormat`.
pub(super) fn check(schema: &Schema, rest: &[u8], value: &[u8]) -> Result<()> {
    let mut after = rest;
    let kind = String::unpack(&mut after)?;
    let name = || unpack_all::<String>(after);
    let known = |name: String| {
        let index = schema.named(&name).filter(|declared| declared.is_index());
        index.map(|_| ()).ok_or_else(|| {
            Error::new(ErrorKind::NewerFormat, format!("no index {name:?} is declared"))
        })
    };
    match kind.as_str() {
        "format" => {
            unpack_all::<()>(after)?;
            store::check_format(value)
        }
        "schema" => {
            name()?;
            records::admit_declaration(schema, rest, value)
        }
        "index" => {
            records::check_index_state(value)?;
            known(name()?)
        }
        RETIRED_KIND => {
            name()?;
            unpack_all::<(Vec<u8>, u64)>(value).map(|_| ())
        }
        "recount" => {
            known(String::unpack(&mut after)?)?;
            let number = <[u8; 8]>::try_from(value).map(|_| ());
            number.map_err(|_| {
                Error::new(ErrorKind::Corrupt, "a recount is not an eight-byte number")
            })
        }
        "epoch" => {
            unpack_all::<()>(after)?;
            unpack_all::<u64>(value).map(|_| ())
        }
        "last_append" => {
            unpack_all::<()>(after)?;
            unpack_all::<Position>(value).map(|_| ())
        }
        "import" => {
            unpack_all::<()>(after)?;
            store::import_marker::check(value)
        }
        other => {
            let message = format!("unknown metadata {other:?}");
            Err(Error::new(ErrorKind::NewerFormat, message))
        }
    }
}
