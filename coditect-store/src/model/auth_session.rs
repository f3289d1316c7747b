//! A signed-in device: one login, and the refresh token family that came of it.

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
    keyspace::Space,
};

/// One login on one device. Its access tokens hold as long as it does; its refresh tokens are one
/// family, of which only the hash of the newest secret, and of the one before, is kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthSession {
    /// Its id, the `session_id` of access tokens.
    pub id: AuthSessionId,
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// Who signed in.
    pub user_id: UserId,
    /// The user's [login epoch](User::login_epoch) at the login. It is revoked once the user's is
    /// another.
    pub login_epoch: u64,
    /// The id that all its refresh tokens bear.
    pub token_family: TokenFamilyId,
    /// How many times the refresh token has been replaced.
    pub generation: u32,
    /// SHA-256 of the newest refresh secret.
    pub secret_hash: [u8; 32],
    /// SHA-256 of the refresh secret before; none before the first rotation.
    pub previous_secret_hash: Option<[u8; 32]>,
    /// The salt by which the newest secret was derived from the one before.
    pub salt: [u8; 32],
    /// When the newest secret replaced the one before.
    #[serde(with = "ts_microseconds")]
    pub rotated_at: DateTime<Utc>,
    /// When the login was.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When it was last refreshed.
    #[serde(with = "ts_microseconds")]
    pub last_used_at: DateTime<Utc>,
    /// It ends here unless it is refreshed before; a refresh moves this on.
    #[serde(with = "ts_microseconds")]
    pub idle_expires_at: DateTime<Utc>,
    /// It ends here whatever happens; never moved.
    #[serde(with = "ts_microseconds")]
    pub absolute_expires_at: DateTime<Utc>,
    /// Set when it was ended before its time.
    pub revocation: Option<Revocation>,
    /// The device, as its `User-Agent` header tells; at most 256 characters.
    pub user_agent: Option<String>,
    /// The address the login came from, if it is known.
    pub ip: Option<String>,
    /// What its user calls it; at most 100 characters.
    pub name: Option<String>,
    /// The membership by which its access tokens are for another tenant than the user's own.
    pub active_membership: Option<MembershipRef>,
    /// First use of an access token of the newest generation: proof that the client received the
    /// newest secret. `None` after a rotation until then. The grace counts from here.
    #[serde(with = "ts_microseconds_option")]
    pub confirmed_at: Option<DateTime<Utc>>,
}

impl Entity for AuthSession {
    type Scope = TenantId;
    type Key = AuthSessionId;
    const SPACE: Space<TenantId> = Space::tenant("auth_sessions");
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
    /// A user's that were not revoked one by one, by login epoch, the longest idle first; with the
    /// time at which they expire, in microseconds since 1970.
    BY_USER ("auth_sessions_by_user", user, epoch, last_used): Covering<(UserId, u64, i64), i64> =
        |session| session.revocation.is_none().then(|| {
            let last_used = session.last_used_at.timestamp_micros();
            let expires = session.expires_at().timestamp_micros();
            ((session.user_id, session.login_epoch, last_used), expires)
        });
    /// The one that a refresh token is of.
    BY_FAMILY ("token_families", family): GlobalUnique<TokenFamilyId> =
        |session| Some(session.token_family);
    /// By the hour in which they end by themselves, for the sweep.
    BY_EXPIRY ("auth_sessions_by_expiry", hour): GlobalMulti<i64> =
        |session| Some(expiry_hour(session.expires_at()));
}

/// When and why an [`AuthSession`] was ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// When.
    #[serde(with = "ts_microseconds")]
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: RevocationReason,
}

/// Why an [`AuthSession`] was ended by itself, rather than with all of its user's. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevocationReason {
    /// Its user signed out.
    Logout,
    /// An old refresh token came back: somebody else has one.
    Reuse,
    /// Its user signed out everywhere from it.
    LogoutEverywhere,
    /// Its user ended it from another device.
    Revoked,
}

impl AuthSession {
    /// When it ends by itself: the nearer of the two expiries.
    pub fn expires_at(&self) -> DateTime<Utc> {
        self.idle_expires_at.min(self.absolute_expires_at)
    }

    /// Returns whether it was revoked: by itself, or with all logins of `user`, whose it is.
    pub fn is_revoked(&self, user: &User) -> bool {
        self.revocation.is_some() || self.login_epoch != user.login_epoch
    }

    /// Returns the tenant that its access tokens are for.
    pub fn active_tenant(&self) -> TenantId {
        self.active_membership.map_or(self.tenant_id, |membership| membership.tenant_id)
    }

    /// Returns whether it was neither revoked by itself nor has expired at `now`. Whether it was
    /// revoked with all of its user's is for [`is_revoked`](Self::is_revoked) to say.
    pub fn holds_at(&self, now: DateTime<Utc>) -> bool {
        self.revocation.is_none() && now < self.expires_at()
    }
}

impl Expiring for AuthSession {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for AuthSession {
    /// Leaves hashes and salt out, so that they are in no log.
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
