//! Stored responses to requests with an `Idempotency-Key`.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{TenantId, UserId};
use crate::{
    Entity, Result, Transaction,
    entity::{Expiring, GlobalMulti, Index, Older, expiry_hour},
    indexes,
    keyspace::Subspace,
    records::Counter,
};

/// The response to a request with an idempotency key. Written in the transaction of the request's
/// effect, so that either both exist or neither.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct IdempotencyEntry {
    /// Tenant of the user.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// Key, chosen by the client.
    pub key: String,
    /// SHA-256 of the request: the same key with another request is an error.
    pub request: [u8; 32],
    /// HTTP status of the response.
    pub status: u16,
    /// `Location` of the response, if any.
    pub location: Option<String>,
    /// Body of the response.
    pub body: Vec<u8>,
    /// Time of the response.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time until which the response is replayed.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
    /// `ETag` of the response, if any.
    pub etag: Option<String>,
}

impl Entity for IdempotencyEntry {
    type Scope = TenantId;
    type Key = (UserId, String);
    const SPACE: Subspace<TenantId> = Subspace::tenant("idempotency").keyed(&["user", "key"]);
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
            _ => Err(older.unknown_version()),
        }
    }
}

/// Version 1 of the record.
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
    /// Time for which a response is replayed.
    pub const LIFE: TimeDelta = TimeDelta::hours(24);

    /// Bytes that each entry is counted with beside its body.
    pub const OVERHEAD_BYTES: i64 = 500;

    /// Writes the entry in place of an expired one with its key, and counts its bytes until it is
    /// swept: a tenant has at most `limit_bytes`. Four rounds of reads at the most.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if the tenant has no room; errors of [`Transaction::upsert`].
    pub async fn keep(&self, tx: &Transaction, limit_bytes: i64) -> Result<()> {
        let before = tx.get::<Self>(self.tenant_id, self.key()).await?;
        tx.upsert_over(before.as_ref(), self).await?;
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
    /// By hour of expiry, for the purge.
    BY_EXPIRY ("idempotency_by_expiry", hour): GlobalMulti<i64> =
        |entry| Some(expiry_hour(entry.expires_at));
}

impl Expiring for IdempotencyEntry {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for IdempotencyEntry {
    /// Omits the body, which is private and long.
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
