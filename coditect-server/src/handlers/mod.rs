//! What the routes do, one file for each part of the API.
//!
//! A handler parses its request, calls the store or auth, and gives an answer or a
//! [`Problem`](crate::problem::Problem). It runs to its end even when its client leaves. It knows
//! no connection and chooses no status for an error.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod caller;
mod checks;
pub(crate) mod conversations;
pub(crate) mod files;
pub(crate) mod health;
pub(crate) mod holdings;
pub(crate) mod memory;
pub(crate) mod merge_patch;
mod once;
pub(crate) mod parts;
pub(crate) mod sessions;
pub(crate) mod settings;
pub(crate) mod state;
