//! Opaque tokens: random text that a client holds, and whose SHA-256 the store has.
//!
//! ```text
//! token   prefix ‖ base64url(secret: 32 bytes), 47 characters
//! ```
//!
//! The prefix says what it is for, so that one is never taken for another, and so that one that is
//! found where it should not be (in a repository, say) is told for what it is. The secret has 256
//! random bits: nobody finds another's by trying, and a plain hash of it is enough.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{Error, OpaqueToken, random::random};

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To act for a user.
    Personal,
    /// To set a password anew.
    Reset,
    /// To become a member.
    Invitation,
    /// To open a WebSocket.
    Ticket,
}

/// Base64 of 32 bytes, without padding.
const ENCODED_LENGTH: usize = 43;

impl Kind {
    /// What its tokens begin with. Part of the format: never changed, never given away twice.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Personal => "cpt_",
            Self::Reset => "cpr_",
            Self::Invitation => "cin_",
            Self::Ticket => "ctk_",
        }
    }

    /// A new random token, and what is kept of it.
    pub(crate) fn generate(self) -> Result<(OpaqueToken, [u8; 32]), Error> {
        let secret = random::<32>()?;
        let mut text = Zeroizing::new(String::with_capacity(64));
        text.push_str(self.prefix());
        BASE64_URL_SAFE_NO_PAD.encode_string(secret.as_slice(), &mut text);
        Ok((OpaqueToken::new(text), Sha256::digest(secret.as_slice()).into()))
    }

    /// What would be kept of `text`, if it is a token of this kind. One token has one text.
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
    fn a_token_is_known_by_its_hash_and_as_nothing_else() {
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
    fn only_one_text_stands_for_a_token() {
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
