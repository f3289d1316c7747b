//! The admin socket of a running server: a Unix socket in the data directory, its protocol and its
//! client.

#[cfg(unix)]
pub(crate) mod client;
pub(crate) mod protocol;
#[cfg(unix)]
pub(crate) mod socket;
