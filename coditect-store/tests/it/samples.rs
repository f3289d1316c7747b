//! One record of each of the product's entities, always the same; one of each variant.

use chrono::{DateTime, Utc};
use coditect_store::{
    Blob, Counter, Transaction,
    model::{
        ActiveFiles, Agent, AgentId, AuditEntry, AuthSession, AuthSessionId, Author, BlobId,
        BlobState, ClientSequence, ClientState, Conversation, ConversationId, Deleted, Deletion,
        Draft, EditorState, File, FileId, FileKind, FileRoot, FileVersion, IdempotencyEntry, Json,
        JsonText, Membership, MembershipId, MembershipRef, MemoryUsage, Message, MessageId,
        OrphanBlob, PartState, Revocation, RevocationReason, Role, Selection, Session, SessionId,
        SessionMemory, SessionState, SessionType, Setting, SettingScope, Tab, Tenant, TenantId,
        Terminal, TerminalState, TextPosition, Ticket, TicketId, TokenFamilyId, User, UserId,
        UserStatus,
    },
};
use serde_json::json;
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n)
}

fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_750_000_000_000_000 + micros).unwrap()
}

pub(crate) fn tenant() -> Tenant {
    Tenant { id: TenantId(id(1)), name: "Ada's".into(), created_at: time(0), updated_at: time(1) }
}

pub(crate) fn user() -> User {
    User {
        id: UserId(id(2)),
        tenant_id: tenant().id,
        email: "Ada@Example.org".into(),
        email_normalized: "ada@example.org".into(),
        password_hash: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA".into(),
        first_name: Some("Ada".into()),
        last_name: None,
        status: UserStatus::Enabled,
        login_epoch: 300,
        created_at: time(2),
        updated_at: time(3),
    }
}

pub(crate) fn auth_session() -> AuthSession {
    AuthSession {
        id: AuthSessionId(id(3)),
        tenant_id: tenant().id,
        user_id: user().id,
        login_epoch: 300,
        token_family: TokenFamilyId(id(4)),
        generation: 300,
        secret_hash: [0xaa; 32],
        previous_secret_hash: Some([0xbb; 32]),
        salt: [0xcc; 32],
        rotated_at: time(4),
        created_at: time(5),
        last_used_at: time(6),
        idle_expires_at: time(7),
        absolute_expires_at: time(8),
        revocation: Some(Revocation { at: time(9), reason: RevocationReason::Reuse }),
        user_agent: Some("Firefox".into()),
        ip: Some("2001:db8::1".into()),
        name: Some("Laptop".into()),
        active_membership: Some(MembershipRef {
            tenant_id: TenantId(id(40)),
            membership_id: MembershipId(id(47)),
        }),
        confirmed_at: Some(time(46)),
    }
}

pub(crate) fn session() -> Session {
    Session {
        id: SessionId(id(5)),
        tenant_id: tenant().id,
        user_id: user().id,
        name: "Analysis".into(),
        session_type: SessionType::Theia,
        workspace_path: Some("/workspace/p".into()),
        settings: Json(json!({ "theme": "dark", "zoom": [1, 2] })),
        conversation_id: Some(ConversationId(id(6))),
        created_at: time(10),
        updated_at: time(11),
        last_accessed_at: time(12),
    }
}

fn state(version: u64, state: impl Into<PartState>) -> SessionState {
    SessionState {
        tenant_id: tenant().id,
        session_id: session().id,
        version,
        saved_at: time(13),
        state: state.into(),
    }
}

pub(crate) fn editor() -> EditorState {
    let tab = |path: &str| Tab {
        path: path.into(),
        cursor: TextPosition { line: 120, column: 6 },
        selections: vec![Selection {
            anchor: TextPosition { line: 3, column: 9 },
            active: TextPosition { line: 300, column: 0 },
        }],
        pinned: true,
        view_state: Json(json!({ "folds": [1] })),
    };
    let tabs = vec![tab("src/main.rs"), tab("src/lib.rs")];
    EditorState { tabs, active_tab: Some(1), layout: Json::default() }
}

pub(crate) fn terminal() -> TerminalState {
    let main = Terminal {
        title: "zsh".into(),
        cwd: "/workspace/p/src".into(),
        command_history: ["npm install", "npm test"].map(str::to_owned).into_iter().collect(),
        environment_vars: serde_json::from_value(json!({ "LANG": "C.UTF-8" })).unwrap(),
    };
    TerminalState { active: Some("main".into()), terminals: [("main".into(), main)].into() }
}

pub(crate) fn session_states() -> [SessionState; 4] {
    let active_files: ActiveFiles = editor().active_files();
    [
        state(42, editor()),
        state(7, terminal()),
        state(300, active_files),
        state(8, PartState::Memory(MemoryUsage { keys: 2, bytes: 300 })),
    ]
}

pub(crate) fn session_memory() -> SessionMemory {
    SessionMemory {
        tenant_id: tenant().id,
        session_id: session().id,
        key: "plan".into(),
        value: JsonText::from(&json!(["read", { "then": "write" }])),
        updated_at: time(14),
    }
}

pub(crate) fn client_state() -> ClientState {
    ClientState {
        tenant_id: tenant().id,
        session_id: session().id,
        key: "theia.layout".into(),
        version: 3,
        content: vec![0, 1, 254, 255],
        saved_at: time(15),
    }
}

fn file(n: u128, home: FileRoot, path: &str, kind: FileKind, version: u64) -> File {
    File {
        id: FileId(id(n)),
        tenant_id: tenant().id,
        home,
        path: path.into(),
        kind,
        version,
        created_at: time(16),
        modified_at: time(17),
    }
}

pub(crate) fn files() -> [File; 2] {
    let content = FileKind::File { size: 70_000, sha256: [0xdd; 32] };
    [
        file(7, FileRoot::Session(session().id), "src/main.rs", content, 2),
        file(8, FileRoot::Workspace("/workspace/p".into()), "src", FileKind::Directory, 0),
    ]
}

pub(crate) fn conversation() -> Conversation {
    Conversation {
        id: ConversationId(id(6)),
        tenant_id: tenant().id,
        user_id: user().id,
        session_id: Some(session().id),
        title: "Why is it slow?".into(),
        created_at: time(18),
        updated_at: time(19),
    }
}

pub(crate) fn agent() -> Agent {
    Agent {
        id: AgentId(id(9)),
        tenant_id: tenant().id,
        name: "reviewer".into(),
        description: "Reads what others wrote".into(),
        settings: Json(json!({ "model": "large", "tools": ["read"] })),
        created_at: time(20),
        updated_at: time(21),
    }
}

pub(crate) fn settings() -> [Setting; 2] {
    let setting = |scope, value| Setting {
        tenant_id: tenant().id,
        scope,
        key: "editor.tab_size".into(),
        value: Json(value),
        updated_at: time(22),
    };
    [setting(SettingScope::Tenant, json!(4)), setting(SettingScope::User(user().id), json!(2))]
}

pub(crate) fn message() -> Message {
    Message {
        id: MessageId(id(10)),
        tenant_id: tenant().id,
        conversation_id: conversation().id,
        author: Author::Agent(agent().id),
        content: "It waits for the disk.".into(),
        metadata: Json(json!({ "tokens": 12 })),
        created_at: time(23),
        updated_at: time(24),
    }
}

pub(crate) fn file_version() -> FileVersion {
    FileVersion {
        tenant_id: tenant().id,
        file_id: FileId(id(7)),
        version: 2,
        blob: Blob { id: BlobId(id(11)), size: 70_000, sha256: [0xdd; 32] },
        saved_at: time(26),
    }
}

pub(crate) fn orphan_blobs() -> [OrphanBlob; 2] {
    let blob = |n, state| OrphanBlob {
        id: BlobId(id(n)),
        tenant_id: tenant().id,
        state,
        collect_after: time(27),
        counted_bytes: 300,
    };
    [blob(12, BlobState::Uploading), blob(13, BlobState::Released)]
}

pub(crate) fn ticket() -> Ticket {
    Ticket {
        id: TicketId(id(14)),
        tenant_id: tenant().id,
        user_id: user().id,
        auth_session_id: auth_session().id,
        active_membership: Some(MembershipRef {
            tenant_id: TenantId(id(40)),
            membership_id: MembershipId(id(47)),
        }),
        hash: [0xee; 32],
        origin: Some("https://ide.example.org".into()),
        created_at: time(28),
        expires_at: time(29),
    }
}

pub(crate) fn idempotency_entry() -> IdempotencyEntry {
    IdempotencyEntry {
        tenant_id: tenant().id,
        user_id: user().id,
        key: "8e03978e".into(),
        request: [0xff; 32],
        status: 201,
        location: Some("/api/v5/sessions/1".into()),
        body: b"{}".to_vec(),
        created_at: time(30),
        expires_at: time(31),
        etag: Some("5d41402a".into()),
    }
}

pub(crate) fn client_sequence() -> ClientSequence {
    ClientSequence {
        tenant_id: tenant().id,
        session_id: session().id,
        client: "tab-7f".into(),
        connection: id(42),
        seq: 4711,
        expires_at: time(35),
    }
}

pub(crate) fn draft() -> Draft {
    Draft {
        tenant_id: tenant().id,
        session_id: session().id,
        path: "src/main.rs".into(),
        base: Some([0x77; 32]),
        blob: file_version().blob,
        saved_at: time(36),
    }
}

pub(crate) fn deletions() -> [Deletion; 4] {
    [
        Deleted::Tenant,
        Deleted::Session(session().id),
        Deleted::Conversation(conversation().id),
        Deleted::Logins(user().id),
    ]
    .map(|of| Deletion { tenant_id: tenant().id, of, requested_at: time(32) })
}

/// A member from another tenant.
pub(crate) fn membership() -> Membership {
    Membership {
        id: MembershipId(id(48)),
        tenant_id: tenant().id,
        user_id: UserId(id(41)),
        primary_tenant: TenantId(id(40)),
        role: Role::Admin,
        demotions: 1,
        invited_by: user().id,
        created_at: time(33),
        updated_at: time(34),
        ended: false,
    }
}

pub(crate) fn audit_entry() -> AuditEntry {
    AuditEntry {
        tenant_id: tenant().id,
        actor: Some(user().id),
        action: "session.delete".into(),
        target: Some(session().id.to_string()),
        details: Json(json!({ "name": "Analysis" })),
        ip: Some("2001:db8::1".into()),
        at: time(25),
    }
}

/// Writes a tenant, a user with an auth session, and a session with its state and a conversation.
pub(crate) async fn write(tx: &Transaction) {
    tx.insert(&tenant()).await.unwrap();
    tx.insert(&user()).await.unwrap();
    tx.insert(&auth_session()).await.unwrap();
    tx.insert(&session()).await.unwrap();
    tx.charge(tenant().id, Counter::SESSIONS, 1, 100).await.unwrap();
    for state in session_states() {
        tx.insert(&state).await.unwrap();
    }
    // Counted by the memory's record.
    tx.charge(tenant().id, Counter::BYTES, 300, 1_000).await.unwrap();
    tx.insert(&client_state()).await.unwrap();
    tx.insert(&conversation()).await.unwrap();
    for setting in settings() {
        tx.insert(&setting).await.unwrap();
    }
    tx.append(&message()).await.unwrap();
    tx.charge(tenant().id, Counter::BYTES, message().counted_bytes(), 1_000).await.unwrap();
    tx.append(&audit_entry()).await.unwrap();
}
