//! The keyspace: names, tuples and ranges, of which keys consist.
//!
//! ```text
//! root ‖ (T, "users", user)                    a record of a tenant
//! root ‖ ("users_by_email", email)             an entry of a global index
//!         │   └ name of the subspace or index
//!         └ tenant id, for a tenant's data
//! ```
//!
//! # Invariants
//!
//! - A key is a tuple of FoundationDB's tuple layer, which has the same encoding in every language.
//!   Keys sort as their elements do.
//! - A tenant's data has one prefix, and nothing else has it.
//! - Names are persisted: a released name is never changed or reused.
//!
//! This module has no records and no transactions. Only `part.rs` and `element.rs` name the tuple
//! crate.

mod element;
mod id;
mod layout;
mod part;
mod position;
mod query;
mod range;
mod root;
mod subspace;

pub use coditect_store_derive::KeyPart;
pub use element::{Readable, parse_elements};
pub use id::TenantId;
pub use layout::{KeyLayout, table};
pub use part::KeyPart;
#[doc(hidden)]
pub use part::{pack_str, unknown_name};
pub use position::Position;
pub use query::{AsKey, KeyQuery};
pub use root::Root;
pub use subspace::{Global, Scope, ScopeKind, Subspace};

pub use crate::engine::KeyRange;

pub(crate) use element::{Located, digits};
pub(crate) use layout::TENANT;
pub(crate) use part::{packed, unpack_all};
pub(crate) use subspace::{distinct, is_name};
