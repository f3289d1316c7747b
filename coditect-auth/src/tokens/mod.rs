//! Tokens: their bytes, their signatures, and the life of a refresh token family. Pure: no I/O, no
//! clock; records and the time are arguments.

pub mod access;
pub mod claims;
pub mod family;
pub(crate) mod opaque;
pub mod refresh;
