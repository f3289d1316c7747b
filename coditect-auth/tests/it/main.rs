//! Identity over a store, from outside: what a server that links the crate relies on.

#![expect(clippy::unwrap_used, reason = "what helps a test may fail it")]

mod families;
mod installation;
mod keys;
mod signing_in;
mod signing_out;
