//! Messages of conversations.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{AgentId, Conversation, ConversationId, Json, MessageId, TenantId, UserId};
use crate::{
    Result, Transaction,
    entity::{EventStream, Mutable, Unique},
    keyspace::Subspace,
    records::{AppendHandle, Counter},
    stream_indexes,
};

/// A message of a conversation, in commit order. Concurrent appends do not conflict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Id.
    pub id: MessageId,
    /// Tenant of the conversation.
    pub tenant_id: TenantId,
    /// Conversation.
    pub conversation_id: ConversationId,
    /// Author.
    pub author: Author,
    /// Content.
    pub content: String,
    /// Metadata (tool calls, attachments, models): a JSON object.
    pub metadata: Json,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

/// The author of a [`Message`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Author {
    /// A user.
    User(UserId),
    /// An agent.
    Agent(AgentId),
    /// The system.
    System,
}

impl EventStream for Message {
    type Scope = TenantId;
    type Stream = ConversationId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("messages").keyed(&["conversation"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn stream(&self) -> ConversationId {
        self.conversation_id
    }
}

impl Mutable for Message {}

stream_indexes! { Message =>
    /// By id.
    BY_ID ("messages_by_id", id): Unique<MessageId> = |message| Some(message.id);
}

impl Message {
    /// Appends the message to its conversation, and counts its bytes: a tenant has at most
    /// `limit_bytes`. Three rounds of reads.
    ///
    /// # Errors
    ///
    /// `NotFound` if the conversation does not exist; `QuotaExceeded` if the tenant has no room;
    /// errors of [`Transaction::append`].
    pub async fn insert(&self, tx: &Transaction, limit_bytes: i64) -> Result<AppendHandle> {
        tx.get_required::<Conversation>(self.tenant_id, self.conversation_id).await?;
        let appended = tx.append(self).await?;
        tx.charge(self.tenant_id, Counter::BYTES, self.counted_bytes(), limit_bytes).await?;
        Ok(appended)
    }

    /// Returns its bytes in the counter of its tenant: the content, the metadata, and
    /// [`OVERHEAD_BYTES`](Self::OVERHEAD_BYTES).
    pub fn counted_bytes(&self) -> i64 {
        let bytes = self.content.len() + self.metadata.0.to_string().len();
        i64::try_from(bytes).unwrap_or(i64::MAX).saturating_add(Self::OVERHEAD_BYTES)
    }

    /// Bytes that each message is counted with beside its content and its metadata.
    pub const OVERHEAD_BYTES: i64 = 200;
}
