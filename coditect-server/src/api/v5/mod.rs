//! What the routes do, one file for each part of the API.
//!
//! A handler parses its request, calls the store or auth, and gives an answer or a
//! [`Problem`](crate::http::problem::Problem). It runs to its end even when its client leaves. It knows
//! no connection and chooses no status for an error.

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
