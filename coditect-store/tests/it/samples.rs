//! One record of each of the product's entities, always the same.

use chrono::{DateTime, Utc};
use coditect_store::model::{
    AuthSession, AuthSessionId, ConversationId, Json, Revocation, RevocationReason, Session,
    SessionId, SessionType, Tenant, TenantId, TokenFamilyId, User, UserId, UserStatus,
};
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
        created_at: time(2),
        updated_at: time(3),
    }
}

pub(crate) fn auth_session() -> AuthSession {
    AuthSession {
        id: AuthSessionId(id(3)),
        tenant_id: tenant().id,
        user_id: user().id,
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
        settings: Json(serde_json::json!({ "theme": "dark", "zoom": [1, 2] })),
        conversation_id: Some(ConversationId(id(6))),
        created_at: time(10),
        updated_at: time(11),
        last_accessed_at: time(12),
    }
}
