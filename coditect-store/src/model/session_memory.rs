//! The memory of a workspace session: what agents want to know again.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::{Json, Session, SessionId, TenantId};
use crate::{Entity, Result, Transaction, indexes, keyspace::Space};

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
    /// Writes it, over what was remembered under its key, and says whether that is new. Two
    /// rounds of reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session; those of [`Transaction::upsert`].
    pub async fn save(&self, tx: &Transaction) -> Result<bool> {
        let of_session = tx.require::<Session>(self.tenant_id, self.session_id);
        let of_key = tx.get::<Self>(self.tenant_id, self.key());
        let is_new = try_join(of_session, of_key).await?.1.is_none();
        tx.upsert(self).await?;
        Ok(is_new)
    }
}
