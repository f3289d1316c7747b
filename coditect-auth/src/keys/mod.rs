//! The keys that sign access tokens.
//!
//! ```text
//!   store: SealedKey ──open, with the master key──► SigningKey ──┐
//!                                                                ├─► KeyRing: one signs, all verify
//!   next ──► active ──► retired ──► gone                         │
//!   └────── published in the JWKS, verify ─────┘                 └─► JWKS document
//! ```
//!
//! - [`SealedKey`] is the record: state, times, and the private part sealed under the master key. The
//!   public part is not in it; it is computed from the private one. So whoever can write to the store,
//!   but hasn't the master key, cannot put a key of their own into the ring.
//! - [`KeyRing`] is what a running server holds.
//! - [`rotate`] says which records to write so that the next key signs. A key is published one rotation
//!   before it signs, so every verifier that reads the JWKS now and then has it in time.

mod error;
mod ring;
mod rotation;
mod sealed;
mod signing;

pub use error::KeyError;
pub use ring::KeyRing;
pub use rotation::rotate;
pub use sealed::{KeyState, Sealed, SealedKey};
pub use signing::{Algorithm, Kid, SigningKey, VerifyingKey};
