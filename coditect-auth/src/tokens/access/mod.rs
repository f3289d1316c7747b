//! Access tokens: minting and verifying.
//!
//! A token is a JWT of type `at+jwt` (RFC 9068), signed by the active key of a
//! [`KeyRing`](crate::KeyRing).
//!
//! # Invariants
//!
//! - A token that verifies was signed by a key of the ring, with that key's algorithm, for this
//!   issuer and this audience, and all its claims are present and of their types.
//! - Verification does **not** check the session behind a token. Read it from the store on each
//!   request.
//!
//! **Use of `jsonwebtoken`.** Its header and algorithm types are used; its `encode` and `decode`
//! are not. They take the cryptography from a process-wide provider that can neither be read nor
//! replaced: another library could make this crate panic, or receive its private key. And `decode`
//! reads the system clock, treats a wrong type of `iss` or `aud` as absent, accepts a list of
//! audiences, and ignores `typ`, `crit` and `iat`. Signatures are therefore made and checked by the
//! ring's keys, strictly, and each claim is checked in the order given in `verify`.

mod cache;
mod jwks;
mod mint;
mod verify;

use chrono::TimeDelta;

use cache::SignatureCache;
pub use jwks::JwksVerifier;
pub use mint::Minted;

use crate::Error;

/// Value of `typ` (RFC 9068), which no other JWT of this service has.
const TYPE: &str = "at+jwt";

/// Maximum length of a token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

const MAX_TTL: TimeDelta = TimeDelta::hours(24);

const MAX_LEEWAY: TimeDelta = TimeDelta::seconds(30);

/// Settings of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessSettings {
    /// Issuer (`iss`).
    pub issuer: String,
    /// Audience (`aud`).
    pub audience: String,
    /// Lifetime of a token, from one second to 24 hours.
    pub ttl: TimeDelta,
    /// Tolerated clock difference between servers, at most 30 seconds.
    pub leeway: TimeDelta,
    /// Maximum number of cached signature verifications; zero disables the cache. An entry takes
    /// less than 1 KiB.
    pub signature_cache_size: usize,
}

impl AccessSettings {
    /// Sets `issuer`.
    #[must_use]
    pub fn issuer(mut self, issuer: String) -> Self {
        self.issuer = issuer;
        self
    }

    /// Sets `audience`.
    #[must_use]
    pub fn audience(mut self, audience: String) -> Self {
        self.audience = audience;
        self
    }

    /// Sets `ttl`.
    #[must_use]
    pub fn ttl(mut self, ttl: TimeDelta) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets `leeway`.
    #[must_use]
    pub fn leeway(mut self, leeway: TimeDelta) -> Self {
        self.leeway = leeway;
        self
    }

    /// Sets `signature_cache_size`.
    #[must_use]
    pub fn signature_cache_size(mut self, signature_cache_size: usize) -> Self {
        self.signature_cache_size = signature_cache_size;
        self
    }
}

impl Default for AccessSettings {
    /// A lifetime of 15 minutes, 5 seconds of leeway, and 10,000 cached signatures.
    fn default() -> Self {
        Self {
            issuer: "coditect".to_owned(),
            audience: "coditect".to_owned(),
            ttl: TimeDelta::minutes(15),
            leeway: TimeDelta::seconds(5),
            signature_cache_size: 10_000,
        }
    }
}

/// Mints and verifies access tokens.
#[derive(Clone, Debug)]
pub struct AccessTokens {
    settings: AccessSettings,
    verified: SignatureCache,
}

impl AccessTokens {
    /// Creates it from valid settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for a value out of its bounds.
    pub fn new(settings: AccessSettings) -> Result<Self, Error> {
        if settings.issuer.is_empty() || settings.audience.is_empty() {
            return Err(Error::Setting("issuer and audience must not be empty"));
        }
        if settings.ttl < TimeDelta::seconds(1) || settings.ttl > MAX_TTL {
            return Err(Error::Setting(
                "the lifetime of access tokens must be 1 second to 24 hours",
            ));
        }
        if settings.leeway < TimeDelta::zero() || settings.leeway > MAX_LEEWAY {
            return Err(Error::Setting("the leeway must be 0 to 30 seconds"));
        }
        let verified = SignatureCache::new(settings.signature_cache_size);
        Ok(Self { settings, verified })
    }

    /// Returns the maximum time for which a token may be accepted after it was signed, with the
    /// largest leeway of other services. A retired key is [kept](crate::SealedKey::destroy) for
    /// this time.
    pub fn max_lifetime(&self) -> TimeDelta {
        self.settings.ttl + MAX_LEEWAY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut AccessSettings)) -> Result<AccessTokens, Error> {
        let mut settings = AccessSettings::default();
        change(&mut settings);
        AccessTokens::new(settings)
    }

    #[test]
    fn defaults_are_within_bounds() {
        assert!(with(|_| {}).is_ok());
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        for refused in [
            with(|settings| settings.issuer.clear()),
            with(|settings| settings.audience.clear()),
            with(|settings| settings.ttl = TimeDelta::zero()),
            with(|settings| settings.ttl = TimeDelta::hours(24) + TimeDelta::seconds(1)),
            with(|settings| settings.leeway = TimeDelta::seconds(31)),
            with(|settings| settings.leeway = TimeDelta::seconds(-1)),
        ] {
            assert!(matches!(refused, Err(Error::Setting(_))));
        }
        assert!(with(|settings| settings.ttl = TimeDelta::hours(24)).is_ok());
        assert!(with(|settings| settings.leeway = TimeDelta::seconds(30)).is_ok());
    }
}
