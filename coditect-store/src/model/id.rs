//! Identifiers: a newtype over a UUID each, so that one is never taken for another.

/// Declares identifiers, each a newtype over a UUID that is one element of a key. The crate that calls
/// it has `serde` and `uuid`.
///
/// ```
/// coditect_store::ids! {
///     /// An album's id.
///     AlbumId
/// }
///
/// let album = AlbumId::new();
/// assert_eq!(album.to_string().parse(), Ok(album));
/// ```
#[macro_export]
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new one, version 7 (RFC 9562): ids made later sort later, to the millisecond.
            #[expect(clippy::new_without_default, reason = "each call gives another one")]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                uuid::Uuid::parse_str(text).map(Self)
            }
        }

        $crate::__describe_id!($name);

        /// One element, the UUID.
        impl $crate::keyspace::KeyPart for $name {
            const ELEMENTS: usize = 1;

            fn element_types() -> Vec<String> {
                <uuid::Uuid as $crate::keyspace::KeyPart>::element_types()
            }

            fn pack(&self, key: &mut Vec<u8>) {
                $crate::keyspace::KeyPart::pack(&self.0, key);
            }

            fn unpack(rest: &mut &[u8]) -> $crate::Result<Self> {
                $crate::keyspace::KeyPart::unpack(rest).map(Self)
            }
        }
    )*};
}

/// What an id looks like in JSON: for [`ids!`] alone.
#[cfg(feature = "schema")]
#[doc(hidden)]
#[macro_export]
macro_rules! __describe_id {
    ($name:ident) => {
        /// That of a UUID.
        impl $crate::schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(
                _: &mut $crate::schemars::SchemaGenerator,
            ) -> $crate::schemars::Schema {
                $crate::schemars::json_schema!({
                    "type": "string",
                    "format": "uuid",
                    "pattern": "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
                })
            }
        }
    };
}

/// Nobody asks.
#[cfg(not(feature = "schema"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __describe_id {
    ($name:ident) => {};
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
    /// A [`Membership`](super::Membership)'s id: one stay of a user in a tenant.
    MembershipId
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
