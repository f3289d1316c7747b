//! Errors of the catalog.

use super::{SchemaEntry, StoredEntry};
use crate::{Error, ErrorKind};

/// Returns the error for a read of an index that is not built.
pub(crate) fn not_built(index: &'static str) -> Error {
    Error::new(ErrorKind::IndexBuilding(index), format!("index {index} is not built"))
}

/// Returns the error for a declaration that differs from the stored one.
pub(crate) fn redeclared(declared: &SchemaEntry, stored: &StoredEntry) -> Error {
    let SchemaEntry { name, .. } = declared;
    let shown = |(what, scope_kind, elements, space): &StoredEntry| {
        format!("{what} ({scope_kind}) over ({elements}) in {space:?}")
    };
    let message = format!(
        "schema mismatch for {name:?}: the stored declaration is {}, this program's is {}; \
         use a new name for the changed one",
        shown(stored),
        shown(&declared.to_stored())
    );
    Error::new(ErrorKind::SchemaMismatch(name), message)
}

/// Returns the error for a declared index that another program has retired.
pub(crate) fn retired(index: &'static str) -> Error {
    let message = format!(
        "index {index} was retired by a newer version of the program: remove its declaration, or \
         give the index a new name",
    );
    Error::new(ErrorKind::SchemaMismatch(index), message)
}

/// Returns the error for an index that this program does not declare.
pub(crate) fn unknown(space: &str, index: &str) -> Error {
    let message = format!(
        "{space} has index {index}, which this program does not declare: to retire it, open the \
         store with StoreOptions::retire({index:?})",
    );
    Error::new(ErrorKind::NewerFormat, message)
}
