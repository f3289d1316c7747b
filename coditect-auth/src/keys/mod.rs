//! The keys that sign access tokens.
//!
//! ```text
//!   store: WrappedRootKey ──open, with the master key──► RootKey, of which all other keys are derived
//!
//!   store: SealedKey ──open, with the root key────► SigningKey ──┐
//!                                                                ├─► KeyRing: one signs, all verify
//!   next ──► active ──► retired ──► gone                         │
//!   └────── published in the JWKS, verify ─────┘                 └─► JWKS document
//! ```
//!
//! - [`WrappedRootKey`] is the one record that the master key opens: another master key seals that anew, and
//!   ends nothing.
//! - [`SealedKey`] is a signing key's record: state, times, and the private part, sealed. The public part
//!   is not in it; it is computed from the private one. So whoever can write to the store, but hasn't
//!   the master key, cannot put a key of their own into the ring.
//! - [`KeyRing`] is what a running server holds.
//! - [`rotate`] says which records to write so that the next key signs. A key is published one rotation
//!   before it signs, so every verifier that reads the JWKS now and then has it in time.

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
