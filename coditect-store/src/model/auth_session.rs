//! Login sessions, with their refresh token family.

use std::fmt;

use chrono::{
    DateTime, Utc,
    serde::{ts_microseconds, ts_microseconds_option},
};
use serde::{Deserialize, Serialize};

use super::{AuthSessionId, MembershipRef, TenantId, TokenFamilyId, User, UserId};
use crate::{
    Entity,
    entity::{Covering, Expiring, GlobalMulti, GlobalUnique, Index, expiry_hour},
    indexes,
    keyspace::Subspace,
};

/// A login on one device. Its access tokens are valid as long as it is. Its refresh tokens are one
/// family, of which the hashes of the newest and the previous secret are stored.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthSession {
    /// Id, the `session_id` of access tokens.
    pub id: AuthSessionId,
    /// Tenant of the user.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// The user's [login epoch](User::login_epoch) at the login. A user with another epoch has
    /// revoked the session.
    pub login_epoch: u64,
    /// Id shared by all of its refresh tokens.
    pub token_family: TokenFamilyId,
    /// Number of rotations of the refresh token.
    pub generation: u32,
    /// SHA-256 of the newest refresh secret.
    pub secret_hash: [u8; 32],
    /// SHA-256 of the previous refresh secret; `None` before the first rotation.
    pub previous_secret_hash: Option<[u8; 32]>,
    /// Salt from which the newest secret was derived.
    pub salt: [u8; 32],
    /// Time of the last rotation.
    #[serde(with = "ts_microseconds")]
    pub rotated_at: DateTime<Utc>,
    /// Time of the login.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last refresh.
    #[serde(with = "ts_microseconds")]
    pub last_used_at: DateTime<Utc>,
    /// Expiry without use; a refresh extends it.
    #[serde(with = "ts_microseconds")]
    pub idle_expires_at: DateTime<Utc>,
    /// Expiry regardless of use; never extended.
    #[serde(with = "ts_microseconds")]
    pub absolute_expires_at: DateTime<Utc>,
    /// Revocation, if any.
    pub revocation: Option<Revocation>,
    /// `User-Agent` header of the login; at most 256 characters.
    pub user_agent: Option<String>,
    /// Client address of the login, if known.
    pub ip: Option<String>,
    /// Name given by the user; at most 100 characters.
    pub name: Option<String>,
    /// The membership of its access tokens, if they are for another tenant than the user's.
    pub active_membership: Option<MembershipRef>,
    /// First use of an access token of the newest generation, which proves that the client received
    /// the newest secret. `None` from a rotation until then. The grace period starts here.
    #[serde(with = "ts_microseconds_option")]
    pub confirmed_at: Option<DateTime<Utc>>,
}

impl Entity for AuthSession {
    type Scope = TenantId;
    type Key = AuthSessionId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("auth_sessions");
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["secret_hash", "previous_secret_hash", "salt"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> AuthSessionId {
        self.id
    }
}

indexes! { AuthSession =>
    /// A user's sessions that are not individually revoked, by login epoch, longest idle first;
    /// with their expiry, in microseconds since 1970.
    BY_USER ("auth_sessions_by_user", user, epoch, last_used): Covering<(UserId, u64, i64), i64> =
        |session| session.revocation.is_none().then(|| {
            let last_used = session.last_used_at.timestamp_micros();
            let expires = session.expires_at().timestamp_micros();
            ((session.user_id, session.login_epoch, last_used), expires)
        });
    /// By refresh token family.
    BY_FAMILY ("token_families", family): GlobalUnique<TokenFamilyId> =
        |session| Some(session.token_family);
    /// By hour of expiry, for the purge.
    BY_EXPIRY ("auth_sessions_by_expiry", hour): GlobalMulti<i64> =
        |session| Some(expiry_hour(session.expires_at()));
}

/// The revocation of one [`AuthSession`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Time.
    #[serde(with = "ts_microseconds")]
    pub at: DateTime<Utc>,
    /// Reason.
    pub reason: RevocationReason,
}

/// Reason for the revocation of one [`AuthSession`], rather than all of a user's. Persisted: add at
/// the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevocationReason {
    /// The user signed out.
    Logout,
    /// An old refresh token was used: a copy of it exists.
    Reuse,
    /// The user signed out everywhere from this session.
    LogoutEverywhere,
    /// The user revoked it from another session.
    Revoked,
}

impl AuthSession {
    /// Returns the expiry: the earlier of the two.
    pub fn expires_at(&self) -> DateTime<Utc> {
        self.idle_expires_at.min(self.absolute_expires_at)
    }

    /// Returns whether it was revoked, individually or with all sessions of its `user`.
    pub fn is_revoked(&self, user: &User) -> bool {
        self.revocation.is_some() || self.login_epoch != user.login_epoch
    }

    /// Returns the tenant of its access tokens.
    pub fn active_tenant(&self) -> TenantId {
        self.active_membership.map_or(self.tenant_id, |membership| membership.tenant_id)
    }

    /// Returns whether it is neither individually revoked nor expired at `now`. Use
    /// [`is_revoked`](Self::is_revoked) for a revocation of all of a user's sessions.
    pub fn holds_at(&self, now: DateTime<Utc>) -> bool {
        self.revocation.is_none() && now < self.expires_at()
    }
}

impl Expiring for AuthSession {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for AuthSession {
    /// Omits hashes and salt, so that they are not logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthSession")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("token_family", &self.token_family)
            .field("generation", &self.generation)
            .field("revocation", &self.revocation)
            .finish_non_exhaustive()
    }
}
