//! A conversation: what a user and the agents said to each other.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{ConversationId, Session, SessionId, TenantId, UserId};
use crate::{Entity, Result, Transaction, entity::Multi, indexes, keyspace::Space};

/// A conversation. Its messages are kept apart from it, so that saying something doesn't contend
/// with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// Whose it is.
    pub user_id: UserId,
    /// The workspace session that it was begun in, where it was in one.
    pub session_id: Option<SessionId>,
    /// What it is about, for people.
    pub title: String,
    /// When it was begun.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When the record was last changed; a message doesn't change it.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for Conversation {
    type Scope = TenantId;
    type Key = ConversationId;
    const SPACE: Space<TenantId> = Space::tenant("conversations");
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> ConversationId {
        self.id
    }
}

indexes! { Conversation =>
    /// A user's, oldest first.
    BY_USER ("conversations_by_user", user): Multi<UserId> =
        |conversation| Some(conversation.user_id);
    /// By session, oldest first.
    BY_SESSION ("conversations_by_session", session): Multi<SessionId> =
        |conversation| conversation.session_id;
}

impl Conversation {
    /// Writes it as a new one. Two reads, one of them only of one that is begun in a session.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such session; those of [`Transaction::create`].
    pub async fn begin(&self, tx: &Transaction) -> Result<()> {
        if let Some(session) = self.session_id {
            tx.require::<Session>(self.tenant_id, session).await?;
        }
        tx.create(self).await
    }
}
