//! Client state: opaque bytes that a client stores with a session, with recent versions.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{Session, SessionId, StateQuota, TenantId};
use crate::{
    Counter, Entity, Error, ErrorKind, Page, Result, Scan, Transaction,
    engine::{KeySelector, VALUE_SIZE_LIMIT},
    entity, indexes,
    keyspace::{KeyRange, Subspace, unpack_all},
};

/// Number of versions kept per key.
pub const CLIENT_STATE_VERSIONS: u64 = 5;

/// One version of the bytes that a client stores with a session under a key. Immutable; a change
/// [saves](Self::save) another version.
///
/// A version is one value of the engine: content longer than 100,000 bytes, less the key and about
/// a hundred bytes, fails with `Limit`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientState {
    /// Tenant of the session.
    pub tenant_id: TenantId,
    /// Session.
    pub session_id: SessionId,
    /// Key, chosen by the client.
    pub key: String,
    /// Version, consecutive per key from 1.
    pub version: u64,
    /// Content.
    pub content: Vec<u8>,
    /// Time of the save.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
}

impl Entity for ClientState {
    type Scope = TenantId;
    type Key = (SessionId, String, u64);
    const SPACE: Subspace<TenantId> =
        Subspace::tenant("client_state").keyed(&["id", "key", "version"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SessionId, String, u64) {
        (self.session_id, self.key.clone(), self.version)
    }
}

indexes! { ClientState => }

impl ClientState {
    /// Saves `content` as the next version of `key`, deletes the oldest version beyond
    /// [`CLIENT_STATE_VERSIONS`], and returns the version. Four rounds of reads if the total size
    /// grows, three otherwise. A caller that reads the session and the newest version anyway calls
    /// [`save_after`](Self::save_after).
    ///
    /// # Errors
    ///
    /// `NotFound` if the session does not exist; errors of [`save_after`](Self::save_after).
    pub async fn save(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        (key, content): (&str, Vec<u8>),
        quota: &StateQuota,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let of_session = tx.get_required::<Session>(tenant, session);
        let (_, newest) = try_join(of_session, Self::newest(tx, tenant, session, key)).await?;
        let before = newest.map_or(0, |newest| newest.version);
        Self::save_after(tx, (tenant, session), (key, before, content), quota, now).await
    }

    /// As [`save`](Self::save), after the version `before`, 0 for none: the newest one as `tx` has
    /// read it, in a session that `tx` has read. Neither is read again.
    ///
    /// # Errors
    ///
    /// `Limit` if the content is too long; `QuotaExceeded` if the session or the tenant would
    /// exceed its quota; errors of [`Transaction::insert`].
    pub async fn save_after(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        (key, before, content): (&str, u64, Vec<u8>),
        quota: &StateQuota,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let version = before + 1;
        let key = key.to_owned();
        let next = Self {
            tenant_id: tenant,
            session_id: session,
            key: key.clone(),
            version,
            content,
            saved_at: now,
        };
        let length = entity::encode(&next)?.len();
        if length > VALUE_SIZE_LIMIT {
            let over = length - VALUE_SIZE_LIMIT;
            let message = format!("client state exceeds its maximum size by {over} bytes");
            return Err(Error::new(ErrorKind::Limit, message));
        }
        tx.insert(&next).await?;
        let mut growth = next.bytes();
        if let Some(oldest @ 1..) = version.checked_sub(CLIENT_STATE_VERSIONS) {
            let dropped = tx.delete::<Self>(tenant, (session, key, oldest)).await?;
            growth -= dropped.map_or(0, |dropped| dropped.bytes());
        }
        Self::count(tx, (tenant, session), growth, quota).await?;
        Ok(version)
    }

    /// Adds `growth` bytes, which may be negative, to the counters of the session and the tenant.
    async fn count(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        growth: i64,
        quota: &StateQuota,
    ) -> Result<()> {
        const OF_SESSION: Counter = Counter::CLIENT_STATE_BYTES;
        match growth {
            1.. => {
                let StateQuota { client_bytes, tenant_bytes, .. } = *quota;
                let of = (tenant, session);
                let session = tx.charge_session(of, OF_SESSION, growth, client_bytes);
                let tenant = tx.charge(tenant, Counter::BYTES, growth, tenant_bytes);
                try_join(session, tenant).await.map(|_| ())
            }
            0 => Ok(()),
            less => {
                tx.release_session((tenant, session), OF_SESSION, -less)?;
                tx.release(tenant, Counter::BYTES, -less)
            }
        }
    }

    /// Returns the bytes counted: content and key.
    fn bytes(&self) -> i64 {
        i64::try_from(self.content.len() + self.key.len()).unwrap_or(i64::MAX)
    }

    /// Returns the newest version of `key`. One read.
    ///
    /// # Errors
    ///
    /// Errors of [`Scan::page`].
    pub async fn newest(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        key: &str,
    ) -> Result<Option<Self>> {
        let Page { mut items, .. } =
            Self::versions(tx, tenant, session, key).rev().page(1, None).await?;
        Ok(items.pop())
    }

    /// Scans the kept versions of `key`, oldest first.
    pub fn versions<'a>(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        key: &str,
    ) -> Scan<'a, Self> {
        tx.list_keys(tenant, (session, key.to_owned()))
    }

    /// Deletes all versions of `key`, and returns whether there were any. The next save is version
    /// 1.
    ///
    /// # Errors
    ///
    /// Errors of [`Scan::all`] and [`Transaction::delete`].
    pub async fn discard(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        key: &str,
    ) -> Result<bool> {
        let versions = Self::versions(tx, tenant, session, key);
        let kept = versions.all(usize::try_from(CLIENT_STATE_VERSIONS).unwrap_or(usize::MAX));
        let kept = kept.await?;
        tx.clear_keys::<Self>(tenant, &(session, key.to_owned())).await?;
        let freed: i64 = kept.iter().map(Self::bytes).sum();
        Self::count(tx, (tenant, session), -freed, &StateQuota::default()).await?;
        Ok(!kept.is_empty())
    }

    /// Returns the first `at_most` keys of `session` after `after`, in order, each with its newest
    /// version. One round of reads per key; no content is read.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a stored key is malformed.
    pub async fn keys(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        after: Option<&str>,
        at_most: usize,
    ) -> Result<Vec<(String, u64)>> {
        let versions = |key: &str| {
            KeyRange::tuples(&Self::SPACE.key(tx.root(), tenant, &(session, key.to_owned())))
        };
        let of_session = KeyRange::tuples(&Self::SPACE.key(tx.root(), tenant, &session));
        let space = Self::SPACE.prefix(tx.root(), tenant);
        let mut begin = after.map_or(of_session.begin.clone(), |after| versions(after).end);
        let mut keys = Vec::new();
        while keys.len() < at_most {
            let first = KeySelector::first_greater_or_equal(begin);
            let found = tx.engine().get_key(&first).await?;
            if !of_session.contains(&found) {
                break;
            }
            let (_, key, _): (SessionId, String, u64) = unpack_all(&found[space.len()..])?;
            begin = versions(&key).end;
            let last = tx.engine().get_key(&KeySelector::last_less_than(begin.clone())).await?;
            let (_, _, newest): (SessionId, String, u64) = unpack_all(&last[space.len()..])?;
            keys.push((key, newest));
        }
        Ok(keys)
    }
}

impl std::fmt::Debug for ClientState {
    /// Omits the content, which is private and long.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientState")
            .field("session_id", &self.session_id)
            .field("key", &self.key)
            .field("version", &self.version)
            .field("length", &self.content.len())
            .finish_non_exhaustive()
    }
}
