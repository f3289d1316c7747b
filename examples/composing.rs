//! Several repositories in one transaction: a new user with all initial records, or none of them.
//!
//! `cargo run -p coditect-examples --bin composing`

use coditect_store::{
    Clock, Counter, Error, ErrorKind, Store, Transaction,
    engine::Database,
    keyspace::Global,
    model::{
        AuditEntry, Author, Conversation, ConversationId, EditorState, Json, Message, MessageId,
        Session, SessionId, SessionState, SessionType, Tenant, TenantId, User, UserId, UserStatus,
    },
};

/// Ids, generated outside of the transaction, which may run several times.
#[derive(Clone, Copy)]
struct Ids {
    tenant: TenantId,
    user: UserId,
    session: SessionId,
    conversation: ConversationId,
    greeting: MessageId,
}

impl Ids {
    fn new() -> Self {
        Self {
            tenant: TenantId::new(),
            user: UserId::new(),
            session: SessionId::new(),
            conversation: ConversationId::new(),
            greeting: MessageId::new(),
        }
    }
}

/// Creates a tenant, its user, a workspace session with its editor, a conversation with its first
/// message, and an audit entry: seven repositories, one commit.
async fn sign_up(tx: &Transaction, ids: Ids, email: &str, clock: &Clock) -> Result<(), Error> {
    let now = clock.now();
    let Ids { tenant: tenant_id, user: user_id, session, conversation, greeting } = ids;
    let name = "Ada's".to_owned();
    tx.insert(&Tenant { id: tenant_id, name, created_at: now, updated_at: now }).await?;
    tx.insert(&User {
        id: user_id,
        tenant_id,
        email: email.to_owned(),
        email_normalized: email.to_lowercase(),
        password_hash: "$argon2id$…".to_owned(),
        first_name: Some("Ada".to_owned()),
        last_name: None,
        status: UserStatus::Enabled,
        login_epoch: 0,
        created_at: now,
        updated_at: now,
    })
    .await?;
    let opened = Session {
        id: session,
        tenant_id,
        user_id,
        name: "First steps".to_owned(),
        session_type: SessionType::Workspace,
        workspace_path: None,
        settings: Json::default(),
        conversation_id: Some(conversation),
        created_at: now,
        updated_at: now,
        last_accessed_at: now,
    };
    opened.insert(tx, 100).await?;
    SessionState::save(tx, tenant_id, session, EditorState::default(), now).await?;
    let welcome = Conversation {
        id: conversation,
        tenant_id,
        user_id,
        session_id: Some(session),
        title: "Welcome".to_owned(),
        created_at: now,
        updated_at: now,
    };
    welcome.insert(tx).await?;
    let first = Message {
        id: greeting,
        tenant_id,
        conversation_id: conversation,
        author: Author::System,
        content: "Where shall we begin?".to_owned(),
        metadata: Json::default(),
        created_at: now,
        updated_at: now,
    };
    first.insert(tx, 1 << 30).await?;
    tx.append(&AuditEntry {
        tenant_id,
        actor: Some(user_id),
        action: "user.register".to_owned(),
        target: Some(user_id.to_string()),
        details: Json::default(),
        ip: None,
        at: now,
    })
    .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let store = Store::open(Database::temporary()?).await?;
    let clock = &Clock::system();
    let ids = Ids::new();
    store.run(|tx| async move { sign_up(&tx, ids, "Ada@example.org", clock).await }).await?;

    // Every later reader sees all of it.
    let tx = store.begin();
    let user = tx.find(&User::BY_EMAIL, Global, "ada@example.org".to_owned()).await?;
    assert_eq!(user.map(|user| user.id), Some(ids.user));
    let sessions = tx.scan(&Session::BY_USER, ids.tenant, ids.user).page(10, None).await?;
    assert_eq!(sessions.items.len(), 1);
    let said = tx.events::<Message>(ids.tenant, ids.conversation, ..).page(10, None).await?;
    assert_eq!(said.items[0].record.content, "Where shall we begin?");
    let done = tx.scan_events(&AuditEntry::BY_ACTOR, ids.tenant, ids.user).page(10, None).await?;
    assert_eq!(done.items[0].record.action, "user.register");
    assert_eq!(tx.counter(ids.tenant, Counter::SESSIONS).await?, 1);

    // The same address again: one repository refuses it, and nothing is written.
    let again = Ids::new();
    let refused =
        store.run(|tx| async move { sign_up(&tx, again, "ada@Example.org", clock).await });
    let refused = refused.await.map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::UniqueViolation("users_by_email")));
    let tx = store.begin();
    assert_eq!(tx.get::<Tenant>(again.tenant, ()).await?, None);

    // Records are read in the scope of their tenant.
    assert!(tx.get::<Session>(ids.tenant, ids.session).await?.is_some());
    assert!(tx.get::<Session>(again.tenant, ids.session).await?.is_none());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
