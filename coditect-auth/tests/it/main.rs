//! Identity over a store, from outside: what a server that links the crate relies on.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail it")]

mod admin;
mod env;
mod epochs;
mod families;
mod formats;
mod interleavings;
mod keys;
mod logout;
mod purging;
mod rate_limit;
mod registration;
mod rotations;
mod second_factor;
mod sessions;
mod signing_in;
mod tenants;
mod tokens;
