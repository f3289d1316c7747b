//! A message: something that was said in a conversation.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{AgentId, Conversation, ConversationId, Json, MessageId, TenantId, UserId};
use crate::{
    Result, Transaction,
    entity::{Amendable, Log, Unique},
    keyspace::Space,
    log_indexes,
    repository::{Appended, Counter},
};

/// Something that was said in a conversation. A conversation's messages lie in the order in which
/// they were committed; saying something conflicts with nobody who says something too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// The conversation's tenant.
    pub tenant_id: TenantId,
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Who said it.
    pub author: Author,
    /// What was said.
    pub content: String,
    /// What goes with it (tool calls, attachments, models): a JSON object.
    pub metadata: Json,
    /// When it was said.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

/// Who said a [`Message`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Author {
    /// A person.
    User(UserId),
    /// An agent.
    Agent(AgentId),
    /// The program.
    System,
}

impl Log for Message {
    type Scope = TenantId;
    type Stream = ConversationId;
    const SPACE: Space<TenantId> = Space::tenant("messages").keyed(&["conversation"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn stream(&self) -> ConversationId {
        self.conversation_id
    }
}

impl Amendable for Message {}

log_indexes! { Message =>
    /// The one of that id.
    BY_ID ("messages_by_id", id): Unique<MessageId> = |message| Some(message.id);
}

impl Message {
    /// Appends it to its conversation, and counts its bytes: a tenant has at most `limit_bytes`.
    /// Three rounds of reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such conversation; `QuotaExceeded` if the tenant has no room;
    /// those of [`Transaction::append`].
    pub async fn say(&self, tx: &Transaction, limit_bytes: i64) -> Result<Appended> {
        tx.require::<Conversation>(self.tenant_id, self.conversation_id).await?;
        let appended = tx.append(self).await?;
        tx.charge(self.tenant_id, Counter::BYTES, self.counted_bytes(), limit_bytes).await?;
        Ok(appended)
    }

    /// Returns its bytes in the counter of its tenant: those of its content and its metadata, and
    /// [`OVERHEAD_BYTES`](Self::OVERHEAD_BYTES).
    pub fn counted_bytes(&self) -> i64 {
        let bytes = self.content.len() + self.metadata.0.to_string().len();
        i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(Self::OVERHEAD_BYTES)
    }

    /// Bytes that each message is counted with beside its content and its metadata.
    pub const OVERHEAD_BYTES: i64 = 200;
}
