//! Workspace sessions.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{ConversationId, Json, SessionId, TenantId, UserId};
use crate::{Counter, Entity, Result, Transaction, entity::Multi, indexes, keyspace::Subspace};

/// A workspace session of a user. Frequently changed state (editor, terminal, memory) is separate,
/// so that saving it does not write this record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Id.
    pub id: SessionId,
    /// Tenant of the user.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// Name, for display.
    pub name: String,
    /// Client that the session is open in.
    pub session_type: SessionType,
    /// Workspace directory, if any.
    pub workspace_path: Option<String>,
    /// Settings of the client: a JSON object.
    pub settings: Json,
    /// Linked conversation, if any.
    pub conversation_id: Option<ConversationId>,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
    /// Time of the last access, to the minute.
    #[serde(with = "ts_microseconds")]
    pub last_accessed_at: DateTime<Utc>,
}

impl Entity for Session {
    type Scope = TenantId;
    type Key = SessionId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("workspace_sessions");
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> SessionId {
        self.id
    }
}

indexes! { Session =>
    /// Sessions of a user, oldest first.
    BY_USER ("workspace_sessions_by_user", user): Multi<UserId> = |session| Some(session.user_id);
    /// Sessions with a workspace.
    BY_WORKSPACE ("sessions_by_workspace", workspace_path): Multi<String> =
        |session| session.workspace_path.clone();
    /// Sessions linked to a conversation.
    BY_CONVERSATION ("sessions_by_conversation", conversation): Multi<ConversationId> =
        |session| session.conversation_id;
}

impl Session {
    /// Inserts a new session, and counts it: a tenant has at most `limit`.
    /// [`delete_session`](Transaction::delete_session) deletes it.
    ///
    /// # Errors
    ///
    /// `QuotaExceeded` if the tenant has `limit` sessions; errors of
    /// [`insert`](Transaction::insert).
    pub async fn insert(&self, tx: &Transaction, limit: i64) -> Result<()> {
        tx.insert(self).await?;
        tx.charge(self.tenant_id, Counter::SESSIONS, 1, limit).await
    }
}

/// The client of a [`Session`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionType {
    /// The workspace.
    #[default]
    Workspace,
    /// The AI studio.
    AiStudio,
    /// The Theia IDE.
    Theia,
}
