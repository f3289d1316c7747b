//! A workspace session: what a user has open.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{ConversationId, Json, SessionId, TenantId, UserId};
use crate::{Counter, Entity, Result, Transaction, entity::Multi, indexes, keyspace::Space};

/// A workspace that a user has open. What changes often (editor, terminal, memory) is kept apart
/// from it, so that saving doesn't contend with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its name, for people.
    pub name: String,
    /// What it is open in.
    pub session_type: SessionType,
    /// The folder it works in, where it has one.
    pub workspace_path: Option<String>,
    /// What the client wants remembered with it: a JSON object.
    pub settings: Json,
    /// The conversation that goes with it.
    pub conversation_id: Option<ConversationId>,
    /// When it was made.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
    /// When it was last opened, to the minute.
    #[serde(with = "ts_microseconds")]
    pub last_accessed_at: DateTime<Utc>,
}

impl Entity for Session {
    type Scope = TenantId;
    type Key = SessionId;
    const SPACE: Space<TenantId> = Space::tenant("workspace_sessions");
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> SessionId {
        self.id
    }
}

indexes! { Session =>
    /// A user's, oldest first.
    BY_USER ("workspace_sessions_by_user", user): Multi<UserId> = |session| Some(session.user_id);
    /// By workspace path.
    BY_WORKSPACE ("sessions_by_workspace", workspace_path): Multi<String> =
        |session| session.workspace_path.clone();
    /// By conversation, for its deletion.
    BY_CONVERSATION ("sessions_by_conversation", conversation): Multi<ConversationId> =
        |session| session.conversation_id;
}

impl Session {
    /// Writes it as a new one, and counts it: a tenant has at most `limit`. What is opened so is
    /// deleted by [`delete_session`](Transaction::delete_session).
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if the tenant has as many; those of [`create`](Transaction::create).
    pub async fn open(&self, tx: &Transaction, limit: i64) -> Result<()> {
        tx.create(self).await?;
        tx.charge(self.tenant_id, Counter::SESSIONS, 1, limit).await
    }
}

/// What a [`Session`] is open in. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionType {
    /// The plain workspace.
    #[default]
    Workspace,
    /// The AI studio.
    AiStudio,
    /// The Theia IDE.
    Theia,
}
