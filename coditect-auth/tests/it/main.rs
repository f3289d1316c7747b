//! Tests of identity over a store, through the public API.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admin;
mod env;
mod epochs;
mod families;
mod formats;
mod interleavings;
mod keys;
mod login;
mod logout;
mod purging;
mod rate_limit;
mod registration;
mod rotations;
mod second_factor;
mod sessions;
mod tenants;
mod tokens;
