mod cache;
mod claims;
mod signature;

use chrono::TimeDelta;
use coditect_store::model::{AuthSession, AuthSessionId, TenantId, TokenFamilyId, UserId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::*;
use crate::{AccessSettings, KeyRing, RootKey, SealedKey};

const LEEWAY: i64 = 5;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn after(seconds: i64) -> DateTime<Utc> {
    now() + TimeDelta::seconds(seconds)
}

fn session() -> AuthSession {
    AuthSession {
        id: AuthSessionId::new(),
        tenant_id: TenantId::new(),
        user_id: UserId::new(),
        login_epoch: 0,
        token_family: TokenFamilyId::new(),
        generation: 0,
        secret_hash: [0; 32],
        previous_secret_hash: None,
        salt: [0; 32],
        rotated_at: now(),
        created_at: now(),
        last_used_at: now(),
        idle_expires_at: now() + TimeDelta::days(7),
        absolute_expires_at: now() + TimeDelta::days(30),
        revocation: None,
        user_agent: None,
        ip: None,
        name: None,
        active_membership: None,
        confirmed_at: None,
    }
}

/// Keys, settings and claims of a test token.
struct Fixture {
    tokens: AccessTokens,
    ring: KeyRing,
    session: AuthSession,
}

impl Fixture {
    fn new() -> Self {
        let root = RootKey::new(Zeroizing::new([1; 32]));
        let key = SealedKey::generate(&root, now()).unwrap();
        let settings =
            AccessSettings { leeway: TimeDelta::seconds(LEEWAY), ..AccessSettings::default() };
        Self {
            tokens: AccessTokens::new(settings).unwrap(),
            ring: KeyRing::open(&[key.activate(now()).unwrap()], &root).unwrap(),
            session: session(),
        }
    }

    fn token(&self) -> String {
        let minted = self
            .tokens
            .mint(&self.ring, &self.session, "a@example.com", TokenId::new(), now())
            .unwrap();
        minted.token.expose().to_owned()
    }

    fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        self.tokens.verify(self.ring.verifying(), token, now())
    }

    fn header(&self) -> Value {
        json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": self.ring.signing().kid().to_string() })
    }

    fn claims(&self) -> Value {
        part(&self.token(), 1)
    }

    /// Signs arbitrary text with the ring's key.
    fn signed(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encoded(header), encoded(claims));
        let signature = self.ring.signing().sign(message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn with_header(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = self.header();
        change(&mut header);
        self.signed(&header.to_string(), &self.claims().to_string())
    }

    fn with_claims(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.signed(&self.header().to_string(), &claims.to_string())
    }
}

fn encoded(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(text)
}

fn part(token: &str, index: usize) -> Value {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap());
    serde_json::from_slice(&bytes.unwrap()).unwrap()
}

/// Asserts that the expected check failed.
macro_rules! assert_refused {
    ($result:expr, $pattern:pat) => {{
        let result = $result;
        assert!(matches!(result, Err($pattern)), "{result:?}");
    }};
}

use assert_refused;
