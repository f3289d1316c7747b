//! The HTTP API: route table, handlers, OpenAPI document, and the only map from errors to statuses.
//!
//! `v5` has a file per resource. The other modules have the routes outside of `/api/v5`: health,
//! metrics, and the frontend as fallback.

mod errors;
mod fallback;
pub(crate) mod health;
mod metrics;
pub mod openapi;
pub mod router;
pub(crate) mod v5;
