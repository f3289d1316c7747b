//! Identifiers: a newtype over a UUID each, so that one is never taken for another.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Result, keyspace::KeyPart};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new one, version 7 (RFC 9562): ids made later sort later, to the millisecond.
            #[expect(clippy::new_without_default, reason = "each call gives another one")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                Uuid::parse_str(text).map(Self)
            }
        }

        /// One element, the UUID.
        impl KeyPart for $name {
            const ELEMENTS: usize = 1;

            fn pack(&self, key: &mut Vec<u8>) {
                self.0.pack(key);
            }

            fn unpack(rest: &mut &[u8]) -> Result<Self> {
                Uuid::unpack(rest).map(Self)
            }
        }
    )*};
}

ids! {
    /// A [`Tenant`](super::Tenant)'s id: the first element of every key that is the tenant's.
    TenantId
    /// A [`User`](super::User)'s id.
    UserId
    /// An [`AuthSession`](super::AuthSession)'s id: one login on one device.
    AuthSessionId
    /// The id that all refresh tokens of one login share.
    TokenFamilyId
    /// A workspace [`Session`](super::Session)'s id.
    SessionId
    /// A [`Conversation`](super::Conversation)'s id.
    ConversationId
    /// A [`Message`](super::Message)'s id.
    MessageId
    /// A [`File`](super::File)'s id.
    FileId
    /// A [`Blob`](crate::Blob)'s id.
    BlobId
    /// A [`Ticket`](super::Ticket)'s id.
    TicketId
    /// An [`Agent`](super::Agent)'s id.
    AgentId
}
