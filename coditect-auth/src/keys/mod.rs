//! The keys that sign access tokens.
//!
//! ```text
//!   store: WrappedRootKey ──open with the master key──► RootKey, from which the others derive
//!
//!   store: SealedKey ──open, with the root key────► SigningKey ──┐
//!                                                                ├─► KeyRing: one signs, all
//!                                                                verify
//!   next ──► active ──► retired ──► gone                         │
//!   └────── published in the JWKS, verify ─────┘                 └─► JWKS document
//! ```
//!
//! - [`WrappedRootKey`] is the only record that the master key opens. Replacing the master key
//!   rewraps it and invalidates nothing.
//! - [`SealedKey`] is the record of a signing key: state, times and the sealed private part. The
//!   public part is computed from it, so write access to the store without the root key does not
//!   suffice to add a key to the ring.
//! - [`KeyRing`] is the opened ring of a running server.
//! - [`rotate`] returns the records to write so that the next key signs. A key is published one
//!   rotation before it signs, so that verifiers that poll the JWKS have it in time.

pub(crate) mod master;
mod ring;
mod root;
mod rotation;
mod sealed;
mod signing;

pub use ring::{KeyRing, VerifyingKeys};
pub use root::WrappedRootKey;
pub use rotation::rotate;
pub use sealed::{KeyState, SealedKey};
pub use signing::{Algorithm, SigningKey, VerifyingKey};
