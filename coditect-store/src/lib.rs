//! Typed records, indexes and transactions on FoundationDB, or on an embedded engine with the
//! same semantics.

mod clock;
pub mod model;

pub use clock::{Clock, ManualClock};
