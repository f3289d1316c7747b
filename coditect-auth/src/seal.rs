//! Authenticated encryption of secrets at rest.
//!
//! XChaCha20-Poly1305 with a random 24-byte nonce, which makes collisions negligible. The
//! associated data binds a ciphertext to its record: it opens neither under another key, nor
//! modified, nor in another record.

use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{Error, random::random, secret::Subkey};

/// An encrypted secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Random nonce.
    pub nonce: [u8; 24],
    /// Ciphertext with its 16-byte tag.
    pub ciphertext: Vec<u8>,
}

impl Sealed {
    /// Encrypts `secret`, with `belongs_to` as associated data.
    pub(crate) fn seal(key: &Subkey, secret: &[u8], belongs_to: &[u8]) -> Result<Self, Error> {
        Self::seal_with(key, *random()?, secret, belongs_to)
    }

    /// Encrypts as [`seal`](Self::seal) does, with a nonce that was never used with this key.
    pub(crate) fn seal_with(
        key: &Subkey,
        nonce: [u8; 24],
        secret: &[u8],
        belongs_to: &[u8],
    ) -> Result<Self, Error> {
        let ciphertext = cipher(key)
            .encrypt(&XNonce::from(nonce), Payload { msg: secret, aad: belongs_to })
            .map_err(|_| Error::internal("cannot seal a secret"))?;
        Ok(Self { nonce, ciphertext })
    }

    /// Decrypts the secret.
    ///
    /// # Errors
    ///
    /// [`Error::Internal`] if the record is damaged, or the key or the associated data differs.
    pub(crate) fn open(
        &self,
        key: &Subkey,
        belongs_to: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let payload = Payload { msg: self.ciphertext.as_slice(), aad: belongs_to };
        cipher(key)
            .decrypt(&XNonce::from(self.nonce), payload)
            .map(Zeroizing::new)
            .map_err(|_| Error::internal("sealed secret does not decrypt"))
    }
}

fn cipher(key: &Subkey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Subkey {
        Subkey::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn secret_opens_only_with_its_key_owner_and_bytes() {
        let sealed = Sealed::seal(&key(1), b"secret", b"ada").unwrap();
        assert_eq!(sealed.open(&key(1), b"ada").unwrap().as_slice(), b"secret");
        assert!(sealed.open(&key(2), b"ada").is_err());
        assert!(sealed.open(&key(1), b"bob").is_err());
        for at in 0..sealed.ciphertext.len() {
            let mut changed = sealed.clone();
            changed.ciphertext[at] ^= 1;
            assert!(changed.open(&key(1), b"ada").is_err());
        }
    }

    #[test]
    fn nonces_differ() {
        let seal = || Sealed::seal(&key(1), b"secret", b"ada").unwrap();
        assert_ne!(seal(), seal());
    }
}
