//! What an access token says.
//!
//! [`Claims`] is made in two places only: when a token is minted, and when one has passed every check
//! of [`AccessTokens::verify`](crate::AccessTokens::verify). It has no `Deserialize`, so nobody reads
//! claims past the checks by accident.

use std::fmt;

use coditect_store::model::{AuthSessionId, MembershipId, TenantId, TokenFamilyId, UserId};
use serde::Serialize;
use uuid::Uuid;

/// An access token's own id, its `jti`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct TokenId(pub Uuid);

impl TokenId {
    /// A new one, version 7 (RFC 9562).
    #[expect(clippy::new_without_default, reason = "each call gives another one")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

/// The claims of an access token. All but the user's own tenant are present in every token; times
/// are whole seconds since 1970.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The user.
    pub sub: UserId,
    /// The tenant that it is for: the user's own, or one that they are a member of.
    pub tenant_id: TenantId,
    /// The user's own tenant, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_tenant_id: Option<TenantId>,
    /// The membership that it is for, where that is another: the token ends with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub membership_id: Option<MembershipId>,
    /// The user's e-mail address, for display.
    pub email: String,
    /// The signed-in device: the token holds only as long as this session does.
    pub session_id: AuthSessionId,
    /// The family of that session's refresh tokens.
    pub token_family: TokenFamilyId,
    /// The generation of the refresh token that was issued with it: its use proves that the client
    /// received that one.
    pub token_generation: u32,
    /// When it was made.
    pub iat: i64,
    /// When it ends; at this second it is over.
    pub exp: i64,
    /// Who made it.
    pub iss: String,
    /// For whom it was made: one audience, never a list.
    pub aud: String,
    /// Its own id.
    pub jti: TokenId,
}

impl Claims {
    /// The user's own tenant, where their record and their sessions are.
    pub fn primary_tenant(&self) -> TenantId {
        self.primary_tenant_id.unwrap_or(self.tenant_id)
    }
}

impl fmt::Debug for Claims {
    /// Leaves the e-mail address out, so that it is in no log.
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
