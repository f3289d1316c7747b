//! What a request with an `Idempotency-Key` was answered, for when it comes again.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{TenantId, UserId};
use crate::{
    Entity, Result, Transaction,
    entity::{Expiring, GlobalMulti, Index, Older, expiry_hour},
    indexes,
    keyspace::Space,
    repository::Counter,
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
    /// The answer's entity tag.
    pub etag: Option<String>,
}

impl Entity for IdempotencyEntry {
    type Scope = TenantId;
    type Key = (UserId, String);
    const SPACE: Space<TenantId> = Space::tenant("idempotency").keyed(&["user", "key"]);
    const VERSION: u8 = 2;
    const SECRETS: &'static [&'static str] = &["body"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (UserId, String) {
        (self.user_id, self.key.clone())
    }

    fn upgrade(older: Older<'_>) -> Result<Self> {
        match older.version() {
            1 => older.read().map(Self::untagged),
            _ => Err(older.unknown()),
        }
    }
}

/// As it was in version 1.
#[derive(Deserialize)]
struct Untagged {
    tenant_id: TenantId,
    user_id: UserId,
    key: String,
    request: [u8; 32],
    status: u16,
    location: Option<String>,
    body: Vec<u8>,
    #[serde(with = "ts_microseconds")]
    created_at: DateTime<Utc>,
    #[serde(with = "ts_microseconds")]
    expires_at: DateTime<Utc>,
}

impl IdempotencyEntry {
    /// How long an answer is given again.
    pub const LIFE: TimeDelta = TimeDelta::hours(24);

    /// Bytes that each entry is counted with beside its body.
    pub const OVERHEAD_BYTES: i64 = 500;

    /// Writes the entry in place of an expired one with its key, and counts its bytes until it is
    /// swept: a tenant has at most `limit_bytes`. Four rounds of reads at the most.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if the tenant has no room; those of [`Transaction::upsert`].
    pub async fn keep(&self, tx: &Transaction, limit_bytes: i64) -> Result<()> {
        let before = tx.get::<Self>(self.tenant_id, self.key()).await?;
        tx.upsert(self).await?;
        if let Some(before) = before {
            tx.release(self.tenant_id, Counter::BYTES, before.counted_bytes())?;
        }
        tx.charge(self.tenant_id, Counter::BYTES, self.counted_bytes(), limit_bytes).await
    }

    /// Returns its bytes in the counter of its tenant.
    pub fn counted_bytes(&self) -> i64 {
        let bytes = i64::try_from(self.body.len()).unwrap_or(i64::MAX);
        bytes.saturating_add(Self::OVERHEAD_BYTES)
    }

    fn untagged(older: Untagged) -> Self {
        let Untagged { tenant_id, user_id, key, request, status, location, body, .. } = older;
        let Untagged { created_at, expires_at, .. } = older;
        Self {
            tenant_id,
            user_id,
            key,
            request,
            status,
            location,
            body,
            created_at,
            expires_at,
            etag: None,
        }
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
