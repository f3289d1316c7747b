//! The product's entities, one file each: the struct, its place in the keyspace, its indexes.

mod auth_session;
mod id;
mod json;
mod session;
mod tenant;
mod user;

pub use auth_session::{AuthSession, Revocation, RevocationReason};
pub use id::{AuthSessionId, ConversationId, SessionId, TenantId, TokenFamilyId, UserId};
pub use json::Json;
pub use session::{Session, SessionType};
pub use tenant::Tenant;
pub use user::{User, UserStatus};
