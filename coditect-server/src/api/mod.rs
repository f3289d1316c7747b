//! The HTTP API: the route table, its handlers, its OpenAPI document, and the one map from errors to
//! statuses.
//!
//! `v5` has one file for each resource. Beside it are the routes outside of `/api/v5`: health, metrics,
//! and the frontend as the fallback.

mod errors;
mod fallback;
pub(crate) mod health;
mod metrics;
pub mod openapi;
pub mod router;
pub(crate) mod v5;
