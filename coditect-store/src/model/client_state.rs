//! Client state: bytes that a client keeps with a session, and the last few of what they were.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{Session, SessionId, StateQuota, TenantId};
use crate::{
    Counter, Entity, Error, ErrorKind, Page, Result, Scan, Transaction,
    engine::{KeySelector, VALUE_SIZE_LIMIT},
    entity, indexes,
    keyspace::{KeyRange, Space, unpack_all},
};

/// How many versions of the same key are kept: the newest ones.
pub const CLIENT_STATE_VERSIONS: u64 = 5;

/// One version of what a client keeps with a session under a key: bytes that nobody looks into. It
/// is never changed; another version is [saved](Self::save) after it.
///
/// A version is one value of the engine's, so what is longer than that (100,000 bytes, less a
/// hundred or so, and the key) is refused with `Limit`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientState {
    /// The session's tenant.
    pub tenant_id: TenantId,
    /// The session.
    pub session_id: SessionId,
    /// What it is kept under.
    pub key: String,
    /// Counts what was kept under this key, from 1 on without gaps.
    pub version: u64,
    /// What is kept.
    pub content: Vec<u8>,
    /// When it was saved.
    #[serde(with = "ts_microseconds")]
    pub saved_at: DateTime<Utc>,
}

impl Entity for ClientState {
    type Scope = TenantId;
    type Key = (SessionId, String, u64);
    const SPACE: Space<TenantId> = Space::tenant("client_state").keyed(&["id", "key", "version"]);
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
    /// Saves `content` as the next version under `key`, drops the oldest one beyond
    /// [`CLIENT_STATE_VERSIONS`], and returns the version. Four rounds of reads if that takes more
    /// room than before, three otherwise.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session; `Limit` if it is too long; `QuotaExceeded` if the session or
    /// the tenant has no room for it; those of [`Transaction::create`].
    pub async fn save(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        (key, content): (&str, Vec<u8>),
        quota: &StateQuota,
        now: DateTime<Utc>,
    ) -> Result<u64> {
        let of_session = tx.require::<Session>(tenant, session);
        let (_, newest) = try_join(of_session, Self::newest(tx, tenant, session, key)).await?;
        let version = newest.map_or(0, |newest| newest.version) + 1;
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
            let message = format!("a client's state is {over} bytes longer than can be kept");
            return Err(Error::new(ErrorKind::Limit, message));
        }
        tx.create(&next).await?;
        let mut growth = next.bytes();
        if let Some(oldest @ 1..) = version.checked_sub(CLIENT_STATE_VERSIONS) {
            let dropped = tx.delete::<Self>(tenant, (session, key, oldest)).await?;
            growth -= dropped.map_or(0, |dropped| dropped.bytes());
        }
        Self::count(tx, (tenant, session), growth, quota).await?;
        Ok(version)
    }

    /// Counts `growth` bytes more, or fewer, of the session and the tenant.
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

    /// Returns the bytes that it counts: of its content and its key.
    fn bytes(&self) -> i64 {
        i64::try_from(self.content.len() + self.key.len()).unwrap_or(i64::MAX)
    }

    /// The newest version under `key`. One read.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::page`].
    pub async fn newest(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        key: &str,
    ) -> Result<Option<Self>> {
        let Page { mut items, .. } =
            Self::versions(tx, tenant, session, key).newest_first().page(1, None).await?;
        Ok(items.pop())
    }

    /// The versions under `key` that are kept, oldest first.
    pub fn versions<'a>(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        key: &str,
    ) -> Scan<'a, Self> {
        tx.list_keys(tenant, (session, key.to_owned()))
    }

    /// Drops all versions under `key`, and says whether there was one. The next to be saved is
    /// version 1 again.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::all`] and [`Transaction::delete`].
    pub async fn discard(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
        key: &str,
    ) -> Result<bool> {
        let versions = Self::versions(tx, tenant, session, key);
        let kept = versions.all(usize::try_from(CLIENT_STATE_VERSIONS).unwrap_or(usize::MAX));
        let kept = kept.await?;
        for version in &kept {
            tx.delete::<Self>(tenant, version.key()).await?;
        }
        let freed: i64 = kept.iter().map(Self::bytes).sum();
        Self::count(tx, (tenant, session), -freed, &StateQuota::default()).await?;
        Ok(!kept.is_empty())
    }

    /// The first `at_most` keys that something is kept under in `session` after the key `after`, in
    /// their order, each with its newest version. One read a key; no content is read.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a key of the store is not one of these.
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
    /// Leaves the content out: it is the client's, and long.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientState")
            .field("session_id", &self.session_id)
            .field("key", &self.key)
            .field("version", &self.version)
            .field("length", &self.content.len())
            .finish_non_exhaustive()
    }
}
