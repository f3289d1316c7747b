//! Typed records, indexes and transactions on FoundationDB, or on an embedded engine with the
//! same semantics.

mod clock;
pub mod engine;
mod error;
pub mod model;
pub mod transaction;

pub use clock::{Clock, ManualClock};
pub use error::{Error, ErrorKind, Result, RunError};
