//! What a request with an `Idempotency-Key` was answered, for when it comes again.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{TenantId, UserId};
use crate::{
    Entity,
    entity::{Expiring, GlobalMulti, Index, expiry_hour},
    indexes,
    keyspace::Space,
};

/// The first answer to a request that bore a key of the client's. Written in the transaction of what
/// the request did, so that the one is there if and only if the other is.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyEntry {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// Who asked.
    pub user_id: UserId,
    /// The client's key.
    pub key: String,
    /// SHA-256 of what was asked: the same key with another request is a mistake.
    pub request: [u8; 32],
    /// The answer's HTTP status.
    pub status: u16,
    /// Where the answer says that what was made is.
    pub location: Option<String>,
    /// The answer's body.
    pub body: Vec<u8>,
    /// When it was answered.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Until when the answer is given again.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for IdempotencyEntry {
    type Scope = TenantId;
    type Key = (UserId, String);
    const SPACE: Space<TenantId> = Space::tenant("idempotency").keyed(&["user", "key"]);
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["body"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (UserId, String) {
        (self.user_id, self.key.clone())
    }
}

indexes! { IdempotencyEntry =>
    /// By the hour in which they end by themselves, for the sweep.
    BY_EXPIRY ("idempotency_by_expiry", hour): GlobalMulti<i64> =
        |entry| Some(expiry_hour(entry.expires_at));
}

impl Expiring for IdempotencyEntry {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for IdempotencyEntry {
    /// Leaves the body out: it is the user's, and long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyEntry")
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("key", &self.key)
            .field("status", &self.status)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
