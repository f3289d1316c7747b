//! The memory of a workspace session: what agents want to know again.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Json, PartState, SessionId, SessionState, TenantId};
use crate::{Entity, Error, ErrorKind, Result, Transaction, indexes, keyspace::Space};

/// One thing that is remembered in a session: any JSON under a key. All of a session's are
/// `tx.list_keys::<SessionMemory>(tenant, (session,))`, in the order of their keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionMemory {
    /// The session's tenant.
    pub tenant_id: TenantId,
    /// The session.
    pub session_id: SessionId,
    /// What it is remembered under.
    pub key: String,
    /// What is remembered.
    pub value: Json,
    /// When it was last written.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for SessionMemory {
    type Scope = TenantId;
    type Key = (SessionId, String);
    const SPACE: Space<TenantId> = Space::tenant("session_memory").keyed(&["id", "key"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> (SessionId, String) {
        (self.session_id, self.key.clone())
    }
}

indexes! { SessionMemory => }

impl SessionMemory {
    /// The most keys of a session.
    pub const MOST: usize = 1_000;

    /// Writes it, over what was remembered under its key, and says whether that is new. The memory's
    /// [version](super::StatePart::Memory) goes on by one. Two rounds of reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session; those of [`Transaction::upsert`].
    pub async fn save(&self, tx: &Transaction) -> Result<bool> {
        let (tenant, session) = (self.tenant_id, self.session_id);
        let version = SessionState::save(tx, tenant, session, PartState::Memory, self.updated_at);
        let of_key = tx.get::<Self>(tenant, self.key());
        let is_new = try_join(version, of_key).await?.1.is_none();
        tx.upsert(self).await?;
        Ok(is_new)
    }

    /// All that a session remembers, by key. One read of one range.
    ///
    /// # Errors
    ///
    /// Those of [`Scan::all`](crate::Scan::all).
    pub async fn all(
        tx: &Transaction,
        tenant: TenantId,
        session: SessionId,
    ) -> Result<Map<String, Value>> {
        let all = tx.list_keys::<Self>(tenant, (session,)).all(Self::MOST).await?;
        Ok(all.into_iter().map(|memory| (memory.key, memory.value.0)).collect())
    }

    /// Makes what a session remembers, which was `before`, be `after`, writing what is different, and
    /// gives the memory's version. Two rounds of reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session, `Limit` if that is more than it may remember; those of
    /// [`Transaction::upsert`].
    pub async fn replace(
        tx: &Transaction,
        (tenant, session): (TenantId, SessionId),
        (before, after): (&Map<String, Value>, &Map<String, Value>),
        now: DateTime<Utc>,
    ) -> Result<u64> {
        if after.len() > Self::MOST {
            let message = "a session remembers a thousand keys at the most";
            return Err(Error::new(ErrorKind::Limit, message));
        }
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            tx.delete::<Self>(tenant, (session, key.clone())).await?;
        }
        for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
            let (key, value) = (key.clone(), Json(value.clone()));
            let memory =
                Self { tenant_id: tenant, session_id: session, key, value, updated_at: now };
            tx.upsert(&memory).await?;
        }
        SessionState::save(tx, tenant, session, PartState::Memory, now).await
    }
}
