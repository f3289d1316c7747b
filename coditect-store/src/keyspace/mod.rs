//! Where things lie: the names, the tuples and the ranges that keys are made of.
//!
//! ```text
//! root ‖ (T, "users", user)                    a record of a tenant's
//! root ‖ ("users_by_email", email)             an entry of an index over all tenants
//!         │   └ a space's or an index's name, written out
//!         └ the tenant's id, for what is one tenant's
//! ```
//!
//! What stays true:
//!
//! - A key is a tuple (FoundationDB's tuple layer, the same bytes in every language), so the order
//!   of keys is the order of what they say, and any tool that knows tuples can read them.
//! - All that is one tenant's lies under one prefix, and nothing else does.
//! - Names are persisted: one that has been released is never renamed or given to something else.
//!
//! This module knows no record and no transaction. Only `part.rs`, and `element.rs` for people to read,
//! name the crate that packs.

mod element;
mod part;
mod position;
mod range;
mod root;
mod select;
mod shape;
mod space;

pub use element::{Readable, parse_elements};
pub use part::KeyPart;
pub use position::Position;
pub use range::KeyRange;
pub use root::Root;
pub use select::Select;
pub use shape::{Shape, table};
pub use space::{Global, Place, Scope, Space};

pub(crate) use element::{Located, digits};
pub(crate) use part::{packed, unpack_all};
pub(crate) use shape::TENANT;
pub(crate) use space::{distinct, is_name};
