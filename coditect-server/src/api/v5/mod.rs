//! Handlers of the routes, one file per resource.
//!
//! A handler parses its request, calls the store or auth, and returns a response or a
//! [`Problem`](crate::http::Problem). It runs to completion even if its client disconnects. It
//! does not access connections and does not choose the status of an error.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod auth;
mod checks;
pub(crate) mod conversations;
pub(crate) mod files;
pub(crate) mod holdings;
pub(crate) mod memory;
pub(crate) mod owned;
pub(crate) mod parts;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod socket;
pub(crate) mod state;
