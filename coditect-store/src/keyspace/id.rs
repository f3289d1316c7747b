//! Ids: one newtype over a UUID per record type.

/// Declares id types, each a newtype over a UUID that is one element of a key. The calling crate
/// needs `serde` and `uuid`.
///
/// ```
/// coditect_store::ids! {
///     /// Id of an album.
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
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// Returns a new id, a UUID of version 7 (RFC 9562): ids sort by creation, to the
            /// millisecond.
            #[expect(clippy::new_without_default, reason = "each call returns another id")]
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

/// Implements the JSON schema of an id. Private to [`ids!`].
#[cfg(feature = "schema")]
#[doc(hidden)]
#[macro_export]
macro_rules! __describe_id {
    ($name:ident) => {
        /// The schema of a UUID.
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

/// Without the feature `schema`, ids have no JSON schema.
#[cfg(not(feature = "schema"))]
#[doc(hidden)]
#[macro_export]
macro_rules! __describe_id {
    ($name:ident) => {};
}

ids! {
    /// Id of a tenant: the first element of its keys.
    TenantId
}
