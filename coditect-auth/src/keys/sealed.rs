//! The record of a signing key, and its states.
//!
//! The private part is sealed with XChaCha20-Poly1305 under a key derived from the root key, with
//! key id and algorithm as associated data: it does not open in another record. States follow a
//! fixed order, each transition returns a new record, and a destroyed key has no private part.

use chrono::{DateTime, TimeDelta, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity, indexes,
    keyspace::{Global, Subspace},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Algorithm, SigningKey};
use crate::{
    Error, KeyError, KeyId, RootKey, random::random, seal::Sealed, secret::Subkey, subkey::Purpose,
};

/// Record of a signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// Id.
    pub kid: KeyId,
    /// Algorithm.
    pub algorithm: Algorithm,
    /// State.
    pub state: KeyState,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Sealed private part; `None` once destroyed.
    pub sealed: Option<Sealed>,
}

impl Entity for SealedKey {
    type Scope = Global;
    type Key = KeyId;
    const SPACE: Subspace<Global> = Subspace::global("signing_keys").keyed(&["kid"]);
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["sealed"];

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> KeyId {
        self.kid
    }
}

indexes! { SealedKey => }

/// State of a signing key. Persisted: append only, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyState {
    /// Published, so that verifiers have it before it signs. Verifies too, since another server may
    /// be ahead.
    Next,
    /// Signs and verifies.
    Active {
        /// Time of activation.
        #[serde(with = "ts_microseconds")]
        activated_at: DateTime<Utc>,
    },
    /// Verifies only.
    Retired {
        /// Time of activation.
        #[serde(with = "ts_microseconds")]
        activated_at: DateTime<Utc>,
        /// Time of retirement.
        #[serde(with = "ts_microseconds")]
        retired_at: DateTime<Utc>,
    },
    /// All its tokens have expired; the private part is erased.
    Destroyed {
        /// Time of destruction.
        #[serde(with = "ts_microseconds")]
        destroyed_at: DateTime<Utc>,
    },
}

impl KeyState {
    /// Returns the state's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Active { .. } => "active",
            Self::Retired { .. } => "retired",
            Self::Destroyed { .. } => "destroyed",
        }
    }
}

impl SealedKey {
    /// Returns a new random key in state [`Next`](KeyState::Next).
    pub fn generate(root: &RootKey, now: DateTime<Utc>) -> Result<Self, Error> {
        Self::seal(KeyId::new(), &random()?, *random()?, root, now)
    }

    /// Seals the key derived from `seed`.
    fn seal(
        kid: KeyId,
        seed: &Zeroizing<[u8; 32]>,
        nonce: [u8; 24],
        root: &RootKey,
        now: DateTime<Utc>,
    ) -> Result<Self, Error> {
        let algorithm = Algorithm::EdDsa;
        let (key, belongs_to) = (seal_key(root), bound_data(kid, algorithm));
        let sealed = Sealed::seal_with(&key, nonce, seed.as_slice(), &belongs_to)?;
        Ok(Self { kid, algorithm, state: KeyState::Next, created_at: now, sealed: Some(sealed) })
    }

    /// Decrypts the private part.
    ///
    /// # Errors
    ///
    /// [`KeyError::DoesNotOpen`] for another root key, a damaged record, or a destroyed key.
    pub fn open(&self, root: &RootKey) -> Result<SigningKey, KeyError> {
        let refused = || KeyError::DoesNotOpen { kid: self.kid };
        let sealed = self.sealed.as_ref().ok_or_else(refused)?;
        let belongs_to = bound_data(self.kid, self.algorithm);
        let opened = sealed.open(&seal_key(root), &belongs_to).map_err(|_| refused())?;
        let seed = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| refused())?;
        Ok(SigningKey::from_seed(self.kid, &Zeroizing::new(seed)))
    }

    /// Returns the time of the last transition.
    pub fn since(&self) -> DateTime<Utc> {
        match self.state {
            KeyState::Next => self.created_at,
            KeyState::Active { activated_at } => activated_at,
            KeyState::Retired { retired_at, .. } => retired_at,
            KeyState::Destroyed { destroyed_at } => destroyed_at,
        }
    }

    /// Next → active: the key signs from now on.
    pub fn activate(&self, now: DateTime<Utc>) -> Result<Self, KeyError> {
        match self.state {
            KeyState::Next => Ok(self.in_state(KeyState::Active { activated_at: now })),
            _ => Err(self.illegal("active")),
        }
    }

    /// Active → retired: the key only verifies.
    pub fn retire(&self, now: DateTime<Utc>) -> Result<Self, KeyError> {
        match self.state {
            KeyState::Active { activated_at } => {
                Ok(self.in_state(KeyState::Retired { activated_at, retired_at: now }))
            }
            _ => Err(self.illegal("retired")),
        }
    }

    /// Retired → destroyed: erases the private part. `token_life` is the maximum time for which a
    /// token may be accepted after it was signed, leeway included.
    ///
    /// # Errors
    ///
    /// [`KeyError::StillNeeded`] until the last token that it signed has expired.
    pub fn destroy(&self, now: DateTime<Utc>, token_life: TimeDelta) -> Result<Self, KeyError> {
        let KeyState::Retired { retired_at, .. } = self.state else {
            return Err(self.illegal("destroyed"));
        };
        let until = retired_at.checked_add_signed(token_life).unwrap_or(DateTime::<Utc>::MAX_UTC);
        if now < until {
            return Err(KeyError::StillNeeded { kid: self.kid, until });
        }
        Ok(Self { sealed: None, ..self.in_state(KeyState::Destroyed { destroyed_at: now }) })
    }

    fn in_state(&self, state: KeyState) -> Self {
        Self { state, ..self.clone() }
    }

    fn illegal(&self, to: &'static str) -> KeyError {
        KeyError::IllegalTransition { kid: self.kid, from: self.state.name(), to }
    }
}

fn seal_key(root: &RootKey) -> Subkey {
    root.subkey(Purpose::SealSigningKeys)
}

/// Returns the associated data of the seal. Persisted: never change it.
fn bound_data(kid: KeyId, algorithm: Algorithm) -> Vec<u8> {
    format!("{}:{kid}", algorithm.name()).into_bytes()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn root(byte: u8) -> RootKey {
        RootKey::new(Zeroizing::new([byte; 32]))
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn key() -> SealedKey {
        SealedKey::generate(&root(1), at(0)).unwrap()
    }

    #[test]
    fn key_opens_with_its_root_key_only() {
        let key = key();
        let opened = key.open(&root(1)).unwrap();
        assert_eq!(opened.kid(), key.kid);
        let error = key.open(&root(2)).unwrap_err();
        assert!(matches!(error, KeyError::DoesNotOpen { kid } if kid == key.kid));
        assert!(error.to_string().contains(&key.kid.to_string()));
    }

    #[test]
    fn sealed_part_does_not_open_in_another_record_or_modified() {
        let (key, other) = (key(), key());
        let moved = SealedKey { sealed: other.sealed, ..key.clone() };
        assert!(moved.open(&root(1)).is_err());

        for at in 0..48 {
            let mut changed = key.clone();
            changed.sealed.as_mut().unwrap().ciphertext[at] ^= 1;
            assert!(changed.open(&root(1)).is_err());
        }
    }

    #[test]
    fn record_does_not_reveal_the_private_part() {
        let seed = Zeroizing::new([0xab; 32]);
        let key = SealedKey::seal(KeyId::new(), &seed, [0; 24], &root(1), at(0)).unwrap();
        let json = serde_json::to_string(&key).unwrap();
        assert!(!json.contains("171,171"), "{json}");
    }

    #[test]
    fn key_of_the_fixture_opens() {
        let fixture = include_str!("../../fixtures/signing_key_v1.json");
        let kept: SealedKey = serde_json::from_str(fixture).unwrap();
        let seed = Zeroizing::new([0xab; 32]);
        let expected = SigningKey::from_seed(KeyId(Uuid::nil()), &seed).verifying_key();
        assert_eq!(kept.open(&root(1)).unwrap().verifying_key(), expected);

        let now = SealedKey::seal(KeyId(Uuid::nil()), &seed, [5; 24], &root(1), at(0)).unwrap();
        assert_eq!(serde_json::to_string(&now).unwrap(), fixture.trim());
    }

    #[test]
    fn illegal_transitions_are_rejected() {
        let hour = TimeDelta::hours(1);
        let next = key();
        let active = next.activate(at(1)).unwrap();
        let retired = active.retire(at(2)).unwrap();
        let gone = retired.destroy(at(2) + hour, hour).unwrap();

        for key in [&active, &retired, &gone] {
            assert!(key.activate(at(9)).is_err(), "{:?}", key.state);
        }
        for key in [&next, &retired, &gone] {
            assert!(key.retire(at(9)).is_err(), "{:?}", key.state);
        }
        for key in [&next, &active, &gone] {
            assert!(key.destroy(at(9_999), hour).is_err(), "{:?}", key.state);
        }
        let error = gone.activate(at(9)).unwrap_err().to_string();
        assert!(error.contains("is destroyed and cannot become active"), "{error}");
    }

    #[test]
    fn retired_key_is_kept_until_its_last_token_expires() {
        let life = TimeDelta::minutes(15);
        let retired = key().activate(at(0)).unwrap().retire(at(100)).unwrap();
        assert!(matches!(
            retired.destroy(at(999), life),
            Err(KeyError::StillNeeded { until, .. }) if until == at(1000)
        ));
        assert!(retired.destroy(at(1000), life).is_ok());
        assert!(retired.destroy(at(1000), TimeDelta::MAX).is_err());
    }

    #[test]
    fn destroyed_key_has_no_private_part() {
        let retired = key().activate(at(0)).unwrap().retire(at(0)).unwrap();
        let gone = retired.destroy(at(1), TimeDelta::seconds(1)).unwrap();
        assert_eq!(gone.sealed, None);
        assert!(matches!(gone.open(&root(1)), Err(KeyError::DoesNotOpen { .. })));
    }
}
