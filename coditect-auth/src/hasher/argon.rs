//! Argon2id itself: how dear a hash may be, and the PHC strings. No other file names the crate.
//!
//! Parameters come from two sides, and both are bounded: what an operator configures is no cheaper than
//! the floor, and neither that nor what a stored hash asks for is dearer than the ceiling.

use argon2::{
    ARGON2ID_IDENT, Argon2, PasswordHash, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash,
};

use super::Verdict;
use crate::{Error, random::random};

/// The least, each as good as the others, in KiB of memory and passes over it (OWASP Password Storage
/// Cheat Sheet).
const FLOOR: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];

/// The most that is ever computed, be it configured or stored: 256 MiB, 10 passes, 8 lanes.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 8;

/// The most bytes of hash; a stored one may ask for no more.
const MAX_OUTPUT_BYTES: usize = 64;

/// How dear a hash is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashParams(argon2::Params);

impl HashParams {
    /// So many KiB of memory, so many passes over it, so many lanes.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for less than OWASP's least (19 MiB and two passes, or its equals), and for
    /// more than 256 MiB, 10 passes or 8 lanes.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, Error> {
        let enough = FLOOR.iter().any(|&(memory, time)| memory_kib >= memory && passes >= time);
        if !enough {
            return Err(Error::Setting(
                "Argon2id needs 19456 KiB and 2 passes, or 12288 and 3, 9216 and 4, 7168 and 5",
            ));
        }
        argon2::Params::new(memory_kib, passes, lanes, None)
            .ok()
            .filter(is_bearable)
            .map(Self)
            .ok_or(Error::Setting(
                "Argon2id takes at most 262144 KiB and 10 passes, and 1 to 8 lanes",
            ))
    }

    /// Parameters so cheap that they protect nothing, for tests that hash many passwords.
    pub fn weak_for_tests() -> Self {
        let weak = argon2::Params::new(argon2::Params::MIN_M_COST, 1, 1, None);
        Self(weak.unwrap_or(argon2::Params::DEFAULT))
    }
}

impl Default for HashParams {
    /// 19 MiB, two passes, one lane.
    fn default() -> Self {
        Self(argon2::Params::DEFAULT)
    }
}

/// A stored hash that may be computed.
pub(super) struct StoredHash {
    hash: PasswordHash,
    params: argon2::Params,
}

impl StoredHash {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let hash = PasswordHash::new(text).map_err(Error::internal)?;
        let version = Some(Version::V0x13 as u32);
        if hash.algorithm != ARGON2ID_IDENT || hash.version != version {
            return Err(Error::internal("a stored hash is not of Argon2id, version 19"));
        }
        let params = argon2::Params::try_from(&hash).map_err(Error::internal)?;
        if !is_bearable(&params) {
            return Err(Error::internal("a stored hash is too dear to compute"));
        }
        Ok(Self { hash, params })
    }

    /// Whether this is its password; `today` are the parameters that a new hash would have.
    pub(super) fn verify(&self, today: &HashParams, password: &[u8]) -> Result<Verdict, Error> {
        match Argon2::from(&self.params).verify_password(password, &self.hash) {
            Ok(()) => Ok(Verdict::Matches { needs_rehash: costs(&self.params) != costs(&today.0) }),
            Err(password_hash::Error::PasswordInvalid) => Ok(Verdict::Differs),
            Err(error) => Err(Error::internal(error)),
        }
    }
}

/// The password's hash with a new salt of 16 bytes, as a PHC string.
pub(super) fn hash(params: &HashParams, password: &[u8]) -> Result<String, Error> {
    let salt: [u8; 16] = *random()?;
    Argon2::from(&params.0)
        .hash_password_with_salt(password, &salt)
        .map(|hash| hash.to_string())
        .map_err(Error::internal)
}

fn is_bearable(params: &argon2::Params) -> bool {
    let (memory_kib, passes, lanes, output_bytes) = costs(params);
    memory_kib <= MAX_MEMORY_KIB
        && passes <= MAX_PASSES
        && lanes <= MAX_LANES
        && output_bytes <= MAX_OUTPUT_BYTES
}

fn costs(params: &argon2::Params) -> (u32, u32, u32, usize) {
    let output_bytes = params.output_len();
    (
        params.m_cost(),
        params.t_cost(),
        params.p_cost(),
        output_bytes.unwrap_or(argon2::Params::DEFAULT_OUTPUT_LEN),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_have_a_floor_and_a_ceiling() {
        for (memory_kib, passes, lanes) in
            [(19_456, 2, 1), (47_104, 1, 1), (7_168, 5, 1), (65_536, 3, 4), (262_144, 10, 8)]
        {
            assert!(HashParams::new(memory_kib, passes, lanes).is_ok());
        }
        for (memory_kib, passes, lanes) in [
            (19_455, 2, 1),
            (19_456, 1, 1),
            (8, 10, 1),
            (262_145, 2, 1),
            (19_456, 11, 1),
            (19_456, 2, 0),
            (19_456, 2, 9),
        ] {
            let params = HashParams::new(memory_kib, passes, lanes);
            assert!(matches!(params, Err(Error::Setting(_))));
        }
    }

    #[test]
    fn a_stored_hash_that_is_too_dear_or_no_argon2id_is_refused_unrun() {
        let stored = hash(&HashParams::weak_for_tests(), b"testpass123").unwrap();
        assert!(stored.contains("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
        for (from, to) in [
            ("m=8,", "m=4294967295,"),
            ("m=8,", "m=262145,"),
            ("t=1,", "t=11,"),
            ("m=8,t=1,p=1", "m=1024,t=1,p=9"),
            ("argon2id", "argon2i"),
            ("argon2id", "scrypt"),
            ("v=19", "v=16"),
            ("$argon2id", ""),
        ] {
            let planted = stored.replace(from, to);
            assert_ne!(planted, stored);
            let result = StoredHash::parse(&planted);
            assert!(matches!(result, Err(Error::Internal(_))), "{planted}");
        }
    }

    #[test]
    fn parameters_that_differ_in_anything_ask_for_a_new_hash() {
        let today = HashParams::new(19_456, 2, 1).unwrap();
        for (memory_kib, passes, lanes, needs_rehash) in [
            (19_456, 2, 1, false),
            (19_457, 2, 1, true),
            (19_456, 3, 1, true),
            (19_456, 2, 2, true),
        ] {
            let params = HashParams::new(memory_kib, passes, lanes).unwrap();
            let stored = StoredHash::parse(&hash(&params, b"testpass123").unwrap()).unwrap();
            let verdict = stored.verify(&today, b"testpass123").unwrap();
            assert_eq!(verdict, Verdict::Matches { needs_rehash });
        }
    }
}
