//! The product's entities, one per file: the struct, its subspace, its indexes, and its operations.

mod agent;
mod audit_entry;
mod auth_session;
mod cascade;
mod client_sequence;
mod client_state;
mod conversation;
mod counters;
mod deletion;
mod draft;
mod editor_state;
mod file;
mod file_policy;
mod file_version;
mod id;
mod idempotency_entry;
mod json;
mod membership;
mod message;
mod purge;
mod schema;
mod secrets;
mod session;
mod session_memory;
mod session_state;
mod setting;
mod tenant;
mod terminal_state;
mod ticket;
mod user;

pub use agent::Agent;
pub use audit_entry::AuditEntry;
pub use auth_session::{AuthSession, Revocation, RevocationReason};
pub use client_sequence::ClientSequence;
pub use client_state::{CLIENT_STATE_VERSIONS, ClientState};
pub use conversation::Conversation;
pub use deletion::{Deleted, Deletion};
pub use draft::Draft;
pub use editor_state::{EditorState, Selection, Tab, TextPosition};
pub use file::{File, FileKind, FileRoot};
pub use file_policy::FilePolicy;
pub use file_version::FileVersion;
pub use id::{
    AgentId, AuthSessionId, ConversationId, FileId, MembershipId, MessageId, SessionId, TicketId,
    TokenFamilyId, UserId,
};
pub use idempotency_entry::IdempotencyEntry;
pub use json::{Json, JsonText};
pub use membership::{Membership, MembershipRef, Role};
pub use message::{Author, Message};
pub use purge::PurgeReport;
pub use schema::schema;
pub use secrets::{
    InvalidSecretPatterns, MAX_SECRET_PATTERN_BYTES, MAX_SECRET_PATTERNS, REDACTED, SecretRules,
};
pub use session::{Session, SessionType};
pub use session_memory::{SessionMemory, StateQuota};
pub use session_state::{
    ActiveFiles, LoadedPart, MemoryUsage, PartState, Saved, SessionState, SessionStates, StatePart,
};
pub use setting::{Setting, SettingScope};
pub use tenant::Tenant;
pub use terminal_state::{
    COMMAND_HISTORY_LIMIT, CommandHistory, EnvironmentVars, Terminal, TerminalState,
};
pub use ticket::Ticket;
pub use user::{User, UserStatus};

pub use crate::{
    entity::BlobId,
    keyspace::TenantId,
    records::blob::{BlobState, OrphanBlob},
};
