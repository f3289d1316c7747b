//! Opaque tokens: random text held by a client; the store holds its SHA-256.
//!
//! ```text
//! token   prefix ‖ base64url(secret: 32 bytes), 47 characters
//! ```
//!
//! The prefix names the purpose, so that no token is accepted for another one and secret scanners
//! recognize it. The secret has 256 random bits: it cannot be guessed, and needs neither salt nor
//! stretching.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{Error, OpaqueToken, random::random};

/// Purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Acts for a user.
    Personal,
    /// Resets a password.
    Reset,
    /// Accepts an invitation.
    Invitation,
    /// Opens a WebSocket.
    Ticket,
}

/// Length of 32 bytes in Base64, without padding.
const ENCODED_LENGTH: usize = 43;

impl Kind {
    /// Returns the prefix. Part of the format: never change or reuse one.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Personal => "cpt_",
            Self::Reset => "cpr_",
            Self::Invitation => "cin_",
            Self::Ticket => "ctk_",
        }
    }

    /// Returns a new random token and its hash.
    pub(crate) fn generate(self) -> Result<(OpaqueToken, [u8; 32]), Error> {
        let secret = random::<32>()?;
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(self.prefix());
        BASE64_URL_SAFE_NO_PAD.encode_string(secret.as_slice(), &mut text);
        Ok((OpaqueToken::new(text), Sha256::digest(secret.as_slice()).into()))
    }

    /// Returns the hash of `text` if it is a token of this kind. A token has exactly one encoding.
    pub(crate) fn hash_of(self, text: &str) -> Option<[u8; 32]> {
        let encoded = text.strip_prefix(self.prefix())?;
        if encoded.len() != ENCODED_LENGTH {
            return None;
        }
        let secret = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(encoded).ok()?);
        Some(Sha256::digest(secret.as_slice()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 4] = [Kind::Personal, Kind::Reset, Kind::Invitation, Kind::Ticket];

    #[test]
    fn token_is_found_by_its_hash_and_kind_only() {
        for kind in KINDS {
            let (text, hash) = kind.generate().unwrap();
            for other in KINDS {
                let found = other.hash_of(text.expose());
                assert_eq!(found, (other == kind).then_some(hash));
            }
            assert_ne!(kind.generate().unwrap().1, hash);
        }
    }

    #[test]
    fn encoding_is_unique() {
        let (text, _) = Kind::Reset.generate().unwrap();
        let text = text.expose();
        let padded = format!("{text}=");
        // The last character has two bits that are not the secret's.
        let last = text.chars().last().unwrap();
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let at = alphabet.find(last).unwrap();
        let other = alphabet.chars().nth(at ^ 1).unwrap();
        let loose = format!("{}{other}", &text[..text.len() - 1]);
        for changed in [&padded, &loose, &text.to_uppercase(), &text[4..], "", "cpr_"] {
            assert_eq!(Kind::Reset.hash_of(changed), None, "{changed}");
        }
    }
}
