//! Refresh tokens: encoding and successor.
//!
//! ```text
//! crt_ + base64url, no padding, of 69 bytes:
//!
//!   0        1             17           21            53         69
//!   ├────────┼─────────────┼────────────┼─────────────┼──────────┤
//!   │version │ family      │ generation │ secret      │ tag      │
//!   │ = 1    │ 16 bytes    │ u32, big-  │ 32 bytes    │ 16 bytes │
//!   │        │             │ endian     │             │          │
//!   └────────┴─────────────┴────────────┴─────────────┴──────────┘
//!    tag = the first 16 bytes of HMAC-SHA-256(K_tag, all before it)
//! ```
//!
//! The tag is checked before the store is read, so a guessed token costs no read. A valid tag
//! proves only that this installation issued the token; [`family`](crate::tokens::family) decides
//! whether it is still valid.
//!
//! The successor of a secret is HMAC-SHA-256(`K_next`, secret ‖ salt). It is recomputed from the
//! secret and the stored salt, so it is never stored; the store alone does not suffice, as it holds
//! only the secret's hash.
//!
//! A token has exactly one encoding: 69 is a multiple of three, so the Base64 has no spare bits,
//! and other alphabets, padding, white space and lengths are rejected.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use coditect_store::model::TokenFamilyId;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    EncodedRefreshToken, Error, RefreshSecret, RootKey,
    random::random,
    secret::Subkey,
    subkey::{Purpose, mac},
};

/// Prefix of refresh tokens, for people and secret scanners.
const PREFIX: &str = "crt_";

const VERSION: u8 = 1;

const FAMILY: usize = 1;
const GENERATION: usize = 17;
const SECRET: usize = 21;
const TAG: usize = 53;
const LENGTH: usize = 69;

/// Length of `LENGTH` bytes in Base64.
const ENCODED_LENGTH: usize = LENGTH / 3 * 4;

/// Public randomness, new for each rotation and stored with the session.
pub type Salt = [u8; 32];

/// A refresh token issued by this installation.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// Token family, one per login.
    pub family: TokenFamilyId,
    /// Number of rotations before this token.
    pub generation: u32,
    /// Secret known to the holder.
    pub secret: RefreshSecret,
}

/// Keys of refresh tokens, derived from the root key.
#[derive(Debug)]
pub struct RefreshKeys {
    tag: Subkey,
    successor: Subkey,
}

impl RefreshSecret {
    /// Returns a new random secret, the first of a family.
    pub fn generate() -> Result<Self, Error> {
        random().map(Self::new)
    }

    /// Returns the SHA-256 of the secret, which the store holds. It needs neither salt nor
    /// stretching, as the secret has 256 random bits.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.expose()).into()
    }
}

/// Returns a new random salt. Draw it once per request, outside of the transaction: by its salt a
/// retried request [recognizes its own rotation](crate::tokens::family::is_own_rotation).
pub fn fresh_salt() -> Result<Salt, Error> {
    random().map(|salt| *salt)
}

impl RefreshKeys {
    /// Derives the keys from the root key.
    pub fn derive(root: &RootKey) -> Self {
        Self {
            tag: root.subkey(Purpose::RefreshTag),
            successor: root.subkey(Purpose::RefreshSuccessor),
        }
    }

    /// Encodes a token.
    pub fn encode(&self, token: &RefreshToken) -> EncodedRefreshToken {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        bytes[0] = VERSION;
        bytes[FAMILY..GENERATION].copy_from_slice(token.family.0.as_bytes());
        bytes[GENERATION..SECRET].copy_from_slice(&token.generation.to_be_bytes());
        bytes[SECRET..TAG].copy_from_slice(token.secret.expose());
        let tag = self.tag_of(&bytes);
        bytes[TAG..].copy_from_slice(&tag);

        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + ENCODED_LENGTH));
        text.push_str(PREFIX);
        BASE64_URL_SAFE_NO_PAD.encode_string(bytes.as_slice(), &mut text);
        EncodedRefreshToken::new(text)
    }

    /// Decodes a token that [`encode`](Self::encode) returned under the same root key.
    ///
    /// # Errors
    ///
    /// [`Error::RefreshInvalid`] for any other text.
    pub fn parse(&self, text: &str) -> Result<RefreshToken, Error> {
        self.parsed(text).ok_or(Error::RefreshInvalid)
    }

    /// Returns the successor of `token` for `salt`, deterministically; `None` if the generations
    /// are exhausted, after 2^32 rotations.
    pub fn successor(&self, token: &RefreshToken, salt: &Salt) -> Option<RefreshToken> {
        Some(RefreshToken {
            family: token.family,
            generation: token.generation.checked_add(1)?,
            secret: RefreshSecret::new(mac(
                self.successor.expose(),
                &[token.secret.expose(), salt],
            )),
        })
    }

    fn parsed(&self, text: &str) -> Option<RefreshToken> {
        let encoded = text.strip_prefix(PREFIX)?;
        // Rejected before decoding, so that exactly `LENGTH` bytes result.
        if encoded.len() != ENCODED_LENGTH {
            return None;
        }
        let mut bytes = Zeroizing::new([0; LENGTH]);
        BASE64_URL_SAFE_NO_PAD.decode_slice(encoded, bytes.as_mut_slice()).ok()?;
        let tag_holds = bool::from(bytes[TAG..].ct_eq(&self.tag_of(&bytes)));
        if !tag_holds || bytes[0] != VERSION {
            return None;
        }
        Some(RefreshToken {
            family: TokenFamilyId(Uuid::from_slice(&bytes[FAMILY..GENERATION]).ok()?),
            generation: u32::from_be_bytes(bytes[GENERATION..SECRET].try_into().ok()?),
            secret: RefreshSecret::new(Zeroizing::new(bytes[SECRET..TAG].try_into().ok()?)),
        })
    }

    fn tag_of(&self, bytes: &[u8; LENGTH]) -> [u8; LENGTH - TAG] {
        let full = mac(self.tag.expose(), &[&bytes[..TAG]]);
        let mut tag = [0; LENGTH - TAG];
        tag.copy_from_slice(&full[..LENGTH - TAG]);
        tag
    }
}

impl fmt::Debug for RefreshToken {
    /// Omits the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshToken")
            .field("family", &self.family)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    fn keys(seed: u8) -> RefreshKeys {
        RefreshKeys::derive(&RootKey::new(Zeroizing::new([seed; 32])))
    }

    fn token(generation: u32, secret: [u8; 32]) -> RefreshToken {
        RefreshToken {
            family: TokenFamilyId(Uuid::from_bytes([0xfe; 16])),
            generation,
            secret: RefreshSecret::new(Zeroizing::new(secret)),
        }
    }

    /// The token's bytes, changed, with a tag that fits them again.
    fn forged(change: impl FnOnce(&mut [u8; LENGTH]), keys: &RefreshKeys) -> String {
        let text = keys.encode(&token(3, [9; 32]));
        let mut bytes = [0; LENGTH];
        BASE64_URL_SAFE_NO_PAD.decode_slice(&text.expose()[PREFIX.len()..], &mut bytes).unwrap();
        change(&mut bytes);
        let tag = keys.tag_of(&bytes);
        bytes[TAG..].copy_from_slice(&tag);
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
    }

    #[test]
    fn encoding_matches_the_fixture() {
        let text = keys(1).encode(&token(0x0102_0304, [0x11; 32]));
        assert_eq!(text.expose(), include_str!("../../fixtures/refresh_token_v1.txt").trim());
    }

    #[test]
    fn successor_matches_the_fixture() {
        let next = keys(1).successor(&token(7, [0x11; 32]), &[0x22; 32]).unwrap();
        assert_eq!(next.generation, 8);
        assert_eq!(
            keys(1).encode(&next).expose(),
            include_str!("../../fixtures/refresh_successor_v1.txt").trim()
        );
    }

    #[test]
    fn debug_omits_secrets() {
        let shown = format!("{:?} {:?}", token(1, [0xab; 32]), keys(1));
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("abab"), "{shown}");
    }

    #[test]
    fn token_of_another_root_key_is_rejected() {
        let text = keys(1).encode(&token(0, [1; 32]));
        assert!(matches!(keys(2).parse(text.expose()), Err(Error::RefreshInvalid)));
    }

    #[test]
    fn unknown_version_with_a_valid_tag_is_rejected() {
        assert!(keys(1).parse(&forged(|_| {}, &keys(1))).is_ok());
        assert!(keys(1).parse(&forged(|bytes| bytes[0] = 2, &keys(1))).is_err());
    }

    #[test]
    fn encoding_is_unique() {
        let keys = keys(1);
        // Its text has `-` and `_`, so that the other alphabet differs.
        let text = keys.encode(&token(0, [0xff; 32])).expose().to_owned();
        let encoded = &text[PREFIX.len()..];
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).unwrap();
        let other_alphabet = format!("{PREFIX}{}", BASE64_STANDARD_NO_PAD.encode(bytes));
        assert_ne!(other_alphabet, text);
        for changed in [
            other_alphabet,
            format!("{text}="),
            format!("{text}===="),
            format!("{text}\n"),
            format!(" {text}"),
            format!("{text}A"),
            format!("{text}AAAA"),
            text[..text.len() - 1].to_owned(),
            encoded.to_owned(),
            format!("CRT_{encoded}"),
            format!("crt-{encoded}"),
            format!("{PREFIX}{PREFIX}{encoded}"),
            String::new(),
            PREFIX.to_owned(),
        ] {
            assert!(keys.parse(&changed).is_err(), "{changed:?}");
        }
        assert!(keys.parse(&text).is_ok());
    }

    #[test]
    fn exhausted_family_has_no_successor() {
        assert!(keys(1).successor(&token(u32::MAX, [1; 32]), &[0; 32]).is_none());
    }

    proptest! {
        #[test]
        fn encoding_round_trips(
            family in any::<[u8; 16]>(),
            generation in any::<u32>(),
            secret in any::<[u8; 32]>(),
        ) {
            let token = RefreshToken {
                family: TokenFamilyId(Uuid::from_bytes(family)),
                generation,
                secret: RefreshSecret::new(Zeroizing::new(secret)),
            };
            let text = keys(1).encode(&token);
            prop_assert_eq!(keys(1).parse(text.expose()).unwrap(), token);
        }

        #[test]
        fn token_with_any_changed_bit_is_rejected(at in 0..LENGTH, bit in 0..8_u32) {
            let text = keys(1).encode(&token(5, [3; 32]));
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&text.expose()[PREFIX.len()..]).unwrap();
            bytes[at] ^= 1_u8 << bit;
            let changed = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
            prop_assert!(keys(1).parse(&changed).is_err());
        }

        #[test]
        fn garbage_is_refused(text in any::<String>(), bytes in any::<[u8; 32]>()) {
            prop_assert!(keys(1).parse(&text).is_err());
            let prefixed = format!("{PREFIX}{text}");
            prop_assert!(keys(1).parse(&prefixed).is_err());
            let of_the_right_length = [bytes, bytes, bytes].concat();
            let encoded = BASE64_URL_SAFE_NO_PAD.encode(&of_the_right_length[..LENGTH]);
            let tagless = format!("{PREFIX}{encoded}");
            prop_assert!(keys(1).parse(&tagless).is_err());
        }

        #[test]
        fn secrets_and_salts_that_differ_have_successors_that_differ(
            secrets in any::<[[u8; 32]; 2]>(),
            salts in any::<[Salt; 2]>(),
        ) {
            let next = |secret, salt| keys(1).successor(&token(0, secret), &salt).unwrap().secret;
            let first = next(secrets[0], salts[0]);
            prop_assert_eq!(&first, &next(secrets[0], salts[0]));
            prop_assume!(secrets[0] != secrets[1] && salts[0] != salts[1]);
            prop_assert_ne!(&first, &next(secrets[1], salts[0]));
            prop_assert_ne!(&first, &next(secrets[0], salts[1]));
        }
    }
}
