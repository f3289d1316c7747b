//! Pending deletions.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ConversationId, SessionId, TenantId, UserId};
use crate::{
    Entity, Error, ErrorKind, Result,
    entity::record_key,
    indexes,
    keyspace::{Global, KeyPart, KeyRange, Root, Subspace},
};

/// A pending deletion. Written in the transaction that deletes the record itself, and deleted with
/// the last dependent record: see [`Store::resume_deletion`](crate::Store::resume_deletion).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Tenant of the deleted record, or the deleted tenant.
    pub tenant_id: TenantId,
    /// The deleted record.
    pub of: Deleted,
    /// Time of the request.
    #[serde(with = "ts_microseconds")]
    pub requested_at: DateTime<Utc>,
}

/// The record of a [`Deletion`]. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deleted {
    /// The tenant, with all of its data.
    Tenant,
    /// A workspace session, with its state, its files, and the conversations started in it.
    Session(SessionId),
    /// A conversation, with its messages.
    Conversation(ConversationId),
    /// The login sessions of a user from earlier [epochs](super::User::login_epoch).
    Logins(UserId),
}

impl Entity for Deletion {
    type Scope = Global;
    type Key = (TenantId, Deleted);
    const SPACE: Subspace<Global> = Subspace::global("deletions").keyed(&["T", "what", "id"]);
    const VERSION: u8 = 1;

    fn scope(&self) -> Global {
        Global
    }

    fn key(&self) -> (TenantId, Deleted) {
        (self.tenant_id, self.of)
    }
}

indexes! { Deletion => }

impl Deletion {
    /// Returns the range of the pending deletions of `tenant`.
    pub(crate) fn range(root: &Root, tenant: TenantId) -> KeyRange {
        KeyRange::tuples(&Self::SPACE.key(root, Global, &tenant))
    }

    /// Returns the key of this deletion.
    pub(crate) fn stored_key(&self, root: &Root) -> Vec<u8> {
        Self::key_of(root, self.tenant_id, self.of)
    }

    /// Returns the key of the deletion of `of`.
    pub(crate) fn key_of(root: &Root, tenant: TenantId, of: Deleted) -> Vec<u8> {
        record_key::<Self>(root, Global, &(tenant, of))
    }
}

impl Deleted {
    /// Returns the name in keys. Persisted.
    const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Session(_) => "session",
            Self::Conversation(_) => "conversation",
            Self::Logins(_) => "logins",
        }
    }
}

/// Two elements: kind and id; the id of a tenant, which precedes both, is nil.
impl KeyPart for Deleted {
    const ELEMENTS: usize = 2;

    fn element_types() -> Vec<String> {
        <(String, Uuid)>::element_types()
    }

    fn pack(&self, key: &mut Vec<u8>) {
        self.name().to_owned().pack(key);
        match self {
            Self::Tenant => Uuid::nil().pack(key),
            Self::Session(id) => id.pack(key),
            Self::Conversation(id) => id.pack(key),
            Self::Logins(id) => id.pack(key),
        }
    }

    fn unpack(rest: &mut &[u8]) -> Result<Self> {
        let name = String::unpack(rest)?;
        let id = Uuid::unpack(rest)?;
        match name.as_str() {
            "tenant" if id.is_nil() => Ok(Self::Tenant),
            "session" => Ok(Self::Session(SessionId(id))),
            "conversation" => Ok(Self::Conversation(ConversationId(id))),
            "logins" => Ok(Self::Logins(UserId(id))),
            _ => Err(Error::new(ErrorKind::Corrupt, "a deletion has an unknown kind")),
        }
    }
}
