//! Minting of access tokens.
//!
//! A token never outlives its session: its expiry is the earlier of the two.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use coditect_store::model::AuthSession;
use jsonwebtoken::Header;
use zeroize::Zeroizing;

use super::{AccessTokens, TYPE};
use crate::{AccessToken, Claims, Error, KeyRing, TokenId};

/// A new access token with its times.
#[derive(Clone, Debug)]
pub struct Minted {
    /// Token.
    pub token: AccessToken,
    /// Time of issue, in whole seconds.
    pub issued_at: DateTime<Utc>,
    /// Expiry, in whole seconds.
    pub expires_at: DateTime<Utc>,
}

impl AccessTokens {
    /// Returns a token for `session`, signed by the ring's active key. Does not check the session.
    pub fn mint(
        &self,
        ring: &KeyRing,
        session: &AuthSession,
        email: &str,
        jti: TokenId,
        now: DateTime<Utc>,
    ) -> Result<Minted, Error> {
        let ends = now
            .checked_add_signed(self.settings.ttl)
            .unwrap_or(DateTime::<Utc>::MAX_UTC)
            .min(session.expires_at());
        let claims = Claims {
            sub: session.user_id,
            tenant_id: session.active_tenant(),
            primary_tenant_id: session.active_membership.map(|_| session.tenant_id),
            membership_id: session.active_membership.map(|membership| membership.membership_id),
            email: email.to_owned(),
            session_id: session.id,
            token_family: session.token_family,
            token_generation: session.generation,
            iat: now.timestamp(),
            exp: ends.timestamp(),
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
            jti,
        };
        Ok(Minted {
            token: sign(ring, &claims)?,
            issued_at: DateTime::from_timestamp(claims.iat, 0).unwrap_or(now),
            expires_at: DateTime::from_timestamp(claims.exp, 0).unwrap_or(ends),
        })
    }
}

fn sign(ring: &KeyRing, claims: &Claims) -> Result<AccessToken, Error> {
    let key = ring.signing();
    let mut header = Header::new(key.algorithm().in_header());
    header.typ = Some(TYPE.to_owned());
    header.kid = Some(key.kid().to_string());

    let header = serde_json::to_vec(&header).map_err(Error::internal)?;
    let claims = serde_json::to_vec(claims).map_err(Error::internal)?;
    // Capacity for header, claims, signature and two dots, so that the string is never reallocated.
    let capacity = (header.len() + claims.len() + 64) * 4 / 3 + 8;
    let mut token = Zeroizing::new(String::with_capacity(capacity));
    BASE64_URL_SAFE_NO_PAD.encode_string(header, &mut token);
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = key.sign(token.as_bytes());
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(AccessToken::new(token))
}
