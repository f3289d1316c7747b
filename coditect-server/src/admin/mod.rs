//! The admin socket of a running server: a Unix socket in the data directory, its protocol and its
//! client.

pub(crate) mod client;
pub(crate) mod protocol;
pub(crate) mod socket;
