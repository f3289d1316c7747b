//! Claims of access tokens.
//!
//! [`Claims`] are created only when a token is minted, and after every check of
//! [`AccessTokens::verify`](crate::AccessTokens::verify). They have no `Deserialize`, so that
//! unchecked claims cannot be read by accident.

use std::fmt;

use coditect_store::model::{AuthSessionId, MembershipId, TenantId, TokenFamilyId, UserId};
use serde::Serialize;
use uuid::Uuid;

/// Id of an access token, its `jti`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct TokenId(pub Uuid);

impl TokenId {
    /// Returns a new id, version 7 (RFC 9562).
    #[expect(clippy::new_without_default, reason = "each call returns a different id")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

/// Claims of an access token. All but `primary_tenant_id` and `membership_id` are always present.
/// Times are in whole seconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// User.
    pub sub: UserId,
    /// Active tenant.
    pub tenant_id: TenantId,
    /// Primary tenant of the user, if it is not the active one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_tenant_id: Option<TenantId>,
    /// Membership in the active tenant, if it is not the primary one. The token is valid only as
    /// long as the membership.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership_id: Option<MembershipId>,
    /// E-mail address of the user, for display.
    pub email: String,
    /// Session of the login. The token is valid only as long as the session.
    pub session_id: AuthSessionId,
    /// Token family of the session.
    pub token_family: TokenFamilyId,
    /// Generation of the refresh token that was issued with it. Its use proves that the client
    /// received that refresh token.
    pub token_generation: u32,
    /// Time of issue.
    pub iat: i64,
    /// Expiry, exclusive.
    pub exp: i64,
    /// Issuer.
    pub iss: String,
    /// Audience; never a list.
    pub aud: String,
    /// Token id.
    pub jti: TokenId,
}

impl Claims {
    /// Returns the primary tenant of the user, which holds their record and their sessions.
    pub fn primary_tenant(&self) -> TenantId {
        self.primary_tenant_id.unwrap_or(self.tenant_id)
    }
}

impl fmt::Debug for Claims {
    /// Omits the e-mail address, to keep it out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("sub", &self.sub)
            .field("tenant_id", &self.tenant_id)
            .field("session_id", &self.session_id)
            .field("exp", &self.exp)
            .field("jti", &self.jti)
            .finish_non_exhaustive()
    }
}
