//! Argon2id parameters and PHC strings. The only file that names the `argon2` crate.
//!
//! Configured parameters are at least the floor; configured and stored ones are at most the
//! ceiling.

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, Block, PasswordHash, Version,
    password_hash::phc::{Output, ParamsString, Salt},
};

use super::{
    Verdict,
    pepper::{Pepper, Peppers},
};
use crate::{Error, random::random};

/// Minimum parameters, equivalent to each other: KiB of memory and passes (OWASP Password Storage
/// Cheat Sheet).
const FLOOR: [(u32, u32); 5] = [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)];

/// Maximum parameters, configured or stored: 256 MiB, 10 passes, 8 lanes.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 10;
const MAX_LANES: u32 = 8;

/// Maximum length of a hash, in bytes.
const MAX_OUTPUT_BYTES: usize = 64;

/// Argon2id cost parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashParams(argon2::Params);

impl HashParams {
    /// Creates parameters from KiB of memory, passes and lanes.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] below OWASP's minimum (19 MiB and two passes, or an equivalent), or above
    /// 256 MiB, 10 passes or 8 lanes.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, Error> {
        let enough = FLOOR.iter().any(|&(memory, time)| memory_kib >= memory && passes >= time);
        if !enough {
            return Err(Error::Setting(
                "Argon2id needs 19456 KiB and 2 passes, or 12288 and 3, 9216 and 4, 7168 and 5",
            ));
        }
        argon2::Params::new(memory_kib, passes, lanes, None)
            .ok()
            .filter(is_within_limits)
            .map(Self)
            .ok_or(Error::Setting(
                "Argon2id takes at most 262144 KiB and 10 passes, and 1 to 8 lanes",
            ))
    }

    /// Returns parameters that protect nothing, for tests that hash many passwords.
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

/// Reusable buffer of a hash: an allocator need not return memory to the system, and 19 MiB for
/// each of many threads are too many.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    /// Returns blocks for a hash of these parameters.
    fn of(&mut self, params: &argon2::Params) -> &mut [Block] {
        let blocks = params.block_count();
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::new());
        }
        &mut self.0[..blocks]
    }

    /// Shrinks the buffer to the current parameters.
    pub(super) fn shrink(&mut self, today: &HashParams) {
        self.0.truncate(today.0.block_count());
        self.0.shrink_to_fit();
    }
}

/// A stored hash within the limits.
pub(super) struct StoredHash {
    hash: PasswordHash,
    params: argon2::Params,
}

impl StoredHash {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let hash = PasswordHash::new(text).map_err(Error::internal)?;
        let version = Some(Version::V0x13 as u32);
        if hash.algorithm != ARGON2ID_IDENT || hash.version != version {
            return Err(Error::internal("stored password hash is not Argon2id version 19"));
        }
        let params = argon2::Params::try_from(&hash).map_err(Error::internal)?;
        if !is_within_limits(&params) {
            return Err(Error::internal("stored password hash exceeds the cost limits"));
        }
        Ok(Self { hash, params })
    }

    /// Verifies a password. `today` and the first of `peppers` are the parameters of new hashes.
    pub(super) fn verify(
        &self,
        today: &HashParams,
        peppers: &Peppers,
        memory: &mut Memory,
        password: &[u8],
    ) -> Result<Verdict, Error> {
        let keyid = self.params.keyid();
        let pepper = match keyid {
            [] => None,
            id => Some(peppers.get(id).ok_or_else(|| {
                Error::internal("the pepper of a stored password hash is not configured")
            })?),
        };
        let (Some(salt), Some(expected)) = (&self.hash.salt, &self.hash.hash) else {
            return Err(Error::internal("stored password hash has no salt or no output"));
        };
        let length = expected.as_bytes().len();
        let computed = compute(&self.params, pepper, memory, (password, salt), length)?;
        // `Output` compares in constant time.
        if computed != *expected {
            return Ok(Verdict::Differs);
        }
        let present = peppers.current().map_or(&[][..], |pepper| pepper.id.as_bytes());
        let needs_rehash = costs(&self.params) != costs(&today.0) || keyid != present;
        Ok(Verdict::Matches { needs_rehash })
    }
}

/// Hashes a password with a new 16-byte salt, and returns the PHC string.
pub(super) fn hash(
    params: &HashParams,
    peppers: &Peppers,
    memory: &mut Memory,
    password: &[u8],
) -> Result<String, Error> {
    let salt: [u8; 16] = *random()?;
    let salt = Salt::new(&salt).map_err(Error::internal)?;
    let (params, pepper) = (with_keyid(&params.0, peppers.current())?, peppers.current());
    let length = params.output_len().unwrap_or(argon2::Params::DEFAULT_OUTPUT_LEN);
    let hash = compute(&params, pepper, memory, (password, &salt), length)?;
    let phc = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(Error::internal)?,
        salt: Some(salt),
        hash: Some(hash),
    };
    Ok(phc.to_string())
}

/// Computes a hash of `length` bytes.
fn compute(
    params: &argon2::Params,
    pepper: Option<&Pepper>,
    memory: &mut Memory,
    (password, salt): (&[u8], &Salt),
    length: usize,
) -> Result<Output, Error> {
    let mut bytes = [0; MAX_OUTPUT_BYTES];
    let out = bytes
        .get_mut(..length)
        .ok_or_else(|| Error::internal("password hash output is too long"))?;
    argon2(params, pepper)?
        .hash_password_into_with_memory(password, salt, out, memory.of(params))
        .map_err(Error::internal)?;
    Output::new(out).map_err(Error::internal)
}

fn argon2<'a>(params: &argon2::Params, pepper: Option<&'a Pepper>) -> Result<Argon2<'a>, Error> {
    match pepper {
        None => Ok(Argon2::from(params)),
        Some(Pepper { key, .. }) => Argon2::new_with_secret(
            key.expose(),
            Algorithm::Argon2id,
            Version::V0x13,
            params.clone(),
        )
        .map_err(Error::internal),
    }
}

/// Returns the parameters with the pepper's id in `keyid`.
fn with_keyid(params: &argon2::Params, pepper: Option<&Pepper>) -> Result<argon2::Params, Error> {
    let Some(Pepper { id, .. }) = pepper else { return Ok(params.clone()) };
    let mut with = argon2::ParamsBuilder::new();
    with.m_cost(params.m_cost()).t_cost(params.t_cost()).p_cost(params.p_cost());
    with.keyid(argon2::KeyId::new(id.as_bytes()).map_err(Error::internal)?);
    with.build().map_err(Error::internal)
}

fn is_within_limits(params: &argon2::Params) -> bool {
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
    fn excessive_or_foreign_stored_hash_is_rejected_uncomputed() {
        let stored = hash(
            &HashParams::weak_for_tests(),
            &Peppers::default(),
            &mut Memory::default(),
            b"testpass123",
        )
        .unwrap();
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
    fn any_differing_parameter_needs_rehash() {
        let today = HashParams::new(19_456, 2, 1).unwrap();
        for (memory_kib, passes, lanes, needs_rehash) in [
            (19_456, 2, 1, false),
            (19_457, 2, 1, true),
            (19_456, 3, 1, true),
            (19_456, 2, 2, true),
        ] {
            let params = HashParams::new(memory_kib, passes, lanes).unwrap();
            let none = Peppers::default();
            let stored = hash(&params, &none, &mut Memory::default(), b"testpass123").unwrap();
            let stored = StoredHash::parse(&stored).unwrap();
            let verdict =
                stored.verify(&today, &none, &mut Memory::default(), b"testpass123").unwrap();
            assert_eq!(verdict, Verdict::Matches { needs_rehash });
        }
    }

    #[test]
    fn hash_needs_its_pepper_and_is_rehashed_with_the_first() {
        const KEYS: [&str; 2] = ["MDEyMzQ1Njc4OWFiY2RlZg==", "ZmVkY2JhOTg3NjU0MzIxMA=="];

        let params = HashParams::weak_for_tests();
        let peppers = |text: &str| Peppers::parse(text).unwrap();
        let old = peppers(&format!("2025:{}", KEYS[0]));
        let new = peppers(&format!("2026:{},2025:{}", KEYS[1], KEYS[0]));
        let another = peppers(&format!("2025:{}", KEYS[1]));
        let stored = hash(&params, &old, &mut Memory::default(), b"testpass123").unwrap();
        assert!(stored.contains("keyid="), "{stored}");
        let stored = StoredHash::parse(&stored).unwrap();
        let verify = |peppers: &Peppers| {
            stored.verify(&params, peppers, &mut Memory::default(), b"testpass123")
        };
        assert_eq!(verify(&old).unwrap(), Verdict::Matches { needs_rehash: false });
        assert_eq!(verify(&new).unwrap(), Verdict::Matches { needs_rehash: true });
        assert_eq!(verify(&another).unwrap(), Verdict::Differs);
        assert!(matches!(verify(&Peppers::default()), Err(Error::Internal(_))));

        let plain =
            hash(&params, &Peppers::default(), &mut Memory::default(), b"testpass123").unwrap();
        let plain = StoredHash::parse(&plain).unwrap().verify(
            &params,
            &old,
            &mut Memory::default(),
            b"testpass123",
        );
        assert_eq!(plain.unwrap(), Verdict::Matches { needs_rehash: true });
    }
}
