//! Keys derived for one purpose each, so that a leaked key reveals nothing about another.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{MasterKey, RootKey, secret::Subkey};

/// Purpose of a [`Subkey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Wrapping the root key, the only use of the master key.
    SealRootKey,
    /// Sealing the private parts of signing keys.
    SealSigningKeys,
    /// The tags of refresh tokens.
    RefreshTag,
    /// Derivation of successors of refresh secrets.
    RefreshSuccessor,
    /// Keys of failed-login counters.
    Throttle,
    /// Sealing TOTP secrets.
    SealFactors,
    /// CSRF tokens.
    Csrf,
    /// E-mail verification tokens.
    Verification,
}

impl Purpose {
    /// Returns the label. Persisted through derived keys: never change or reuse one.
    const fn label(self) -> &'static str {
        match self {
            Self::SealRootKey => "coditect/v1/seal-root-key",
            Self::SealSigningKeys => "coditect/v1/seal-signing-keys",
            Self::RefreshTag => "coditect/v1/refresh-tag",
            Self::RefreshSuccessor => "coditect/v1/refresh-successor",
            Self::Throttle => "coditect/v1/throttle",
            Self::SealFactors => "coditect/v1/seal-second-factors",
            Self::Csrf => "coditect/v1/csrf",
            Self::Verification => "coditect/v1/verification",
        }
    }
}

impl MasterKey {
    /// Derives the key for a purpose: HMAC-SHA-256 of its label under this key.
    pub(crate) fn subkey(&self, purpose: Purpose) -> Subkey {
        derive(self.expose(), purpose)
    }
}

impl RootKey {
    /// Derives the key for a purpose: HMAC-SHA-256 of its label under this key.
    pub(crate) fn subkey(&self, purpose: Purpose) -> Subkey {
        derive(self.expose(), purpose)
    }
}

fn derive(key: &[u8; 32], purpose: Purpose) -> Subkey {
    Subkey::new(mac(key, &[purpose.label().as_bytes()]))
}

/// Returns the HMAC-SHA-256 of the concatenated parts. There must be one part, or all of fixed
/// length.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    // A key shorter than the hash's block is padded with zeros (RFC 2104).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subkeys_are_distinct_and_deterministic() {
        let root = RootKey::new(Zeroizing::new([1; 32]));
        let seal = root.subkey(Purpose::SealSigningKeys);
        assert_ne!(seal, root.subkey(Purpose::RefreshTag));
        assert_ne!(seal, root.subkey(Purpose::RefreshSuccessor));
        assert_eq!(seal, root.subkey(Purpose::SealSigningKeys));
    }

    #[test]
    fn mac_is_hmac_sha_256_of_the_concatenation() {
        let whole = mac(&[0xaa; 32], &[b"what do ya want for nothing?"]);
        let parts = mac(&[0xaa; 32], &[b"what do ya ", b"want for nothing?"]);
        assert_eq!(whole, parts);
        let reference = Hmac::<Sha256>::new_from_slice(&[0xaa; 32])
            .unwrap()
            .chain_update(b"what do ya want for nothing?")
            .finalize()
            .into_bytes();
        assert_eq!(whole.as_slice(), reference.as_slice());
    }
}
