//! A deletion that is under way: what it is of is out of sight, and what hangs on that goes.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{ConversationId, SessionId, TenantId, UserId};
use crate::{
    Entity, Error, ErrorKind, Result,
    entity::record_key,
    indexes,
    keyspace::{Global, KeyPart, KeyRange, Root, Space},
};

/// A deletion that is under way. It is written in the transaction that removes the record itself,
/// and goes with the last of what hangs on it: see [`Store::complete`](crate::Store::complete).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// The tenant in which something is deleted, or which is.
    pub tenant_id: TenantId,
    /// What is deleted.
    pub of: Deleted,
    /// When it was asked for.
    #[serde(with = "ts_microseconds")]
    pub requested_at: DateTime<Utc>,
}

/// What a [`Deletion`] is of. Persisted: add at the end, never reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deleted {
    /// The tenant, with all that is its.
    Tenant,
    /// A workspace session, with its state and its own files, and the conversations that were begun
    /// in it.
    Session(SessionId),
    /// A conversation, with its messages.
    Conversation(ConversationId),
    /// The logins of a user that are of an earlier [epoch](super::User::login_epoch).
    Logins(UserId),
}

impl Entity for Deletion {
    type Scope = Global;
    type Key = (TenantId, Deleted);
    const SPACE: Space<Global> = Space::global("deletions").keyed(&["T", "what", "id"]);
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
    /// Where those are that are under way in `tenant`, or of it.
    pub(crate) fn range(root: &Root, tenant: TenantId) -> KeyRange {
        KeyRange::tuples(&Self::SPACE.key(root, Global, &tenant))
    }

    /// The key of the one of that.
    pub(crate) fn key_of(root: &Root, tenant: TenantId, of: Deleted) -> Vec<u8> {
        record_key::<Self>(root, Global, &(tenant, of))
    }
}

impl Deleted {
    /// Its name in keys. Persisted.
    const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Session(_) => "session",
            Self::Conversation(_) => "conversation",
            Self::Logins(_) => "logins",
        }
    }
}

/// Two elements: what it is, and its id; that of the tenant, which is named before, is nil.
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
            _ => Err(Error::new(ErrorKind::Corrupt, "a deletion is of nothing known")),
        }
    }
}
