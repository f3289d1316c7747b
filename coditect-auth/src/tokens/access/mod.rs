//! Access tokens: minting and verifying.
//!
//! A token is a JWT of type `at+jwt`, signed by the active key of a [`KeyRing`](crate::KeyRing). What
//! stays true: a token that verifies was signed by a key of the ring, with that key's algorithm, for
//! this issuer and this audience, and all its claims are present and of their types. What verifying
//! does **not** say: that the session behind it still exists. Ask the store, each time.
//!
//! **What `jsonwebtoken` does here, and what it doesn't.** It has the header's and the algorithms' types,
//! and reads both. Its `encode` and `decode` are not used, for two reasons. They take the cryptography
//! from a provider that is set once a process and can be neither read nor changed: some other library's
//! call could make ours panic, or hand our private key to a provider we don't know. And `decode` takes
//! the hour from the system, lets a wrong type of `iss` or `aud` pass as absent, takes a list where one
//! audience is meant, and knows nothing of `typ`, `crit` and `iat`. So signatures are made and checked
//! by the ring's keys, strictly, and each claim is checked here, in an order that is written down.

mod cache;
mod jwks;
mod mint;
mod verify;

use chrono::TimeDelta;

use cache::SignatureCache;
pub use jwks::JwksVerifier;
pub use mint::Minted;

use crate::Error;

/// The `typ` of our tokens (RFC 9068), so that no other JWT of ours is taken for one.
const TYPE: &str = "at+jwt";

/// No token is longer, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

const MAX_TTL: TimeDelta = TimeDelta::hours(24);

const MAX_LEEWAY: TimeDelta = TimeDelta::seconds(30);

/// How access tokens are made and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessSettings {
    /// Who makes the tokens: their `iss`.
    pub issuer: String,
    /// For whom they are made: their `aud`.
    pub audience: String,
    /// How long a token holds; from one second to 24 hours.
    pub ttl: TimeDelta,
    /// How much the clocks of servers may differ; at most 30 seconds.
    pub leeway: TimeDelta,
    /// Of how many tokens it is remembered that their signatures hold; zero of none. Each takes less
    /// than a kibibyte.
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
    /// Fifteen minutes, five seconds of leeway, and ten thousand signatures.
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

/// Mints and verifies access tokens by settings that have been checked.
#[derive(Clone, Debug)]
pub struct AccessTokens {
    settings: AccessSettings,
    verified: SignatureCache,
}

impl AccessTokens {
    /// Checks the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for one out of its bounds.
    pub fn new(settings: AccessSettings) -> Result<Self, Error> {
        if settings.issuer.is_empty() || settings.audience.is_empty() {
            return Err(Error::Setting("issuer and audience must not be empty"));
        }
        if settings.ttl < TimeDelta::seconds(1) || settings.ttl > MAX_TTL {
            return Err(Error::Setting("access tokens hold for 1 second to 24 hours"));
        }
        if settings.leeway < TimeDelta::zero() || settings.leeway > MAX_LEEWAY {
            return Err(Error::Setting("the leeway is 0 to 30 seconds"));
        }
        let verified = SignatureCache::new(settings.signature_cache_size);
        Ok(Self { settings, verified })
    }

    /// How long after its signing a token may hold somewhere: for so long its key is
    /// [needed](crate::SealedKey::forget). Other services may allow the greatest leeway.
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
    fn the_defaults_are_within_bounds() {
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
