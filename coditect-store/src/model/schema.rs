//! The schema of the product.

use super::{
    Agent, AuditEntry, AuthSession, ClientSequence, ClientState, Conversation, Deleted, Deletion,
    Draft, File, FileVersion, IdempotencyEntry, Membership, Message, Session, SessionMemory,
    SessionState, Setting, Tenant, Ticket, User,
};
use crate::{Result, Store, engine::Database, entity::Schema, records};

/// Returns the schema of the product, for [`StoreOptions::schema`](crate::StoreOptions::schema).
pub fn schema() -> Schema {
    records::schema()
        .with::<Tenant>()
        .with::<User>()
        .with::<AuthSession>()
        .with::<Session>()
        .with::<SessionState>()
        .with::<SessionMemory>()
        .with::<ClientState>()
        .with::<ClientSequence>()
        .with::<File>()
        .with::<FileVersion>()
        .with::<Draft>()
        .with::<Conversation>()
        .with_stream::<Message>()
        .with::<Agent>()
        .with::<Setting>()
        .with_stream::<AuditEntry>()
        .with::<Ticket>()
        .with::<Membership>()
        .with::<IdempotencyEntry>()
        .with::<Deletion>()
        .with_tenant_deletion(|root, tenant| Deletion::key_of(root, tenant, Deleted::Tenant))
}

impl Store {
    /// Opens the store in `database` with the entities of the product, at the database's root.
    /// Creates it if the database is empty. One transaction.
    ///
    /// # Errors
    ///
    /// Errors of [`StoreOptions::open`](crate::StoreOptions::open).
    pub async fn open(database: Database) -> Result<Self> {
        Self::options().schema(schema()).open(database).await
    }
}
