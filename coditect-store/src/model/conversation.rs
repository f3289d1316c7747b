//! Conversations of users with agents.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{ConversationId, Session, SessionId, TenantId, UserId};
use crate::{Entity, Result, Transaction, entity::Multi, indexes, keyspace::Subspace};

/// A conversation. Messages are separate, so that appending one does not write this record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Id.
    pub id: ConversationId,
    /// Tenant of the user.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// Workspace session in which it was started, if any.
    pub session_id: Option<SessionId>,
    /// Title, for display.
    pub title: String,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change of this record, not of its messages.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for Conversation {
    type Scope = TenantId;
    type Key = ConversationId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("conversations");
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> ConversationId {
        self.id
    }
}

indexes! { Conversation =>
    /// Conversations of a user, oldest first.
    BY_USER ("conversations_by_user", user): Multi<UserId> =
        |conversation| Some(conversation.user_id);
    /// Conversations started in a session, oldest first.
    BY_SESSION ("conversations_by_session", session): Multi<SessionId> =
        |conversation| conversation.session_id;
}

impl Conversation {
    /// Inserts a new conversation. One read, and one of its session, if any.
    ///
    /// # Errors
    ///
    /// `NotFound` if the session does not exist; errors of [`Transaction::insert`].
    pub async fn insert(&self, tx: &Transaction) -> Result<()> {
        if let Some(session) = self.session_id {
            tx.get_required::<Session>(self.tenant_id, session).await?;
        }
        tx.insert(self).await
    }
}
