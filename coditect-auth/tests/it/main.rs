//! Identity over a store, from outside: what a server that links the crate relies on.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail it")]

mod devices;
mod epochs;
mod families;
mod formats;
mod installation;
mod interleavings;
mod keys;
mod operating;
mod purging;
mod registration;
mod rotations;
mod second_factor;
mod signing_in;
mod signing_out;
mod tenants;
mod throttling;
mod tokens;
