//! Newtypes of secrets.
//!
//! Each is zeroized on drop, prints only its name in `Debug`, compares in constant time, and has
//! neither `Display` nor serde. A secret leaves the program only through `expose()`, which
//! reviewers can search for.
//!
//! Intermediate copies, such as the buffer of a hash function or a reallocated string, are not
//! covered; the constructors avoid them where possible.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident: $owned:ty => $exposed:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Zeroizing<$owned>);

        impl $name {
            /// Wraps a secret that the caller has validated or generated.
            pub(crate) fn new(secret: Zeroizing<$owned>) -> Self {
                Self(secret)
            }

            /// Returns the secret. Not for logs, errors, metrics or URLs.
            pub fn expose(&self) -> &$exposed {
                &self.0
            }
        }

        impl PartialEq for $name {
            /// Compares in constant time, except for the length.
            fn eq(&self, other: &Self) -> bool {
                let (mine, theirs): (&[u8], &[u8]) =
                    (self.expose().as_ref(), other.expose().as_ref());
                mine.ct_eq(theirs).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    )*};
}

secrets! {
    /// A password in NFC, short enough to be hashed.
    Password: String => str;
    /// A secret key mixed into password hashes.
    PepperKey: Vec<u8> => [u8];
    /// The operator's key, which wraps the [`RootKey`].
    MasterKey: [u8; 32] => [u8; 32];
    /// The key from which all other keys of an installation are derived.
    RootKey: [u8; 32] => [u8; 32];
    /// A key derived from the [`RootKey`] for one purpose.
    Subkey: [u8; 32] => [u8; 32];
    /// The secret part of a refresh token; the store holds its hash.
    RefreshSecret: [u8; 32] => [u8; 32];
    /// An encoded refresh token.
    EncodedRefreshToken: String => str;
    /// The TOTP secret that is shared with an authenticator app.
    FactorSecret: [u8; 20] => [u8; 20];
    /// An encoded opaque token.
    OpaqueToken: String => str;
    /// A signed access token.
    AccessToken: String => str;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_name_and_nothing_of_the_secret() {
        let password = Password::new(Zeroizing::new("correct horse".to_owned()));
        assert_eq!(format!("{password:?}"), "Password(redacted)");

        let key = MasterKey::new(Zeroizing::new([7; 32]));
        assert_eq!(format!("{key:?}"), "MasterKey(redacted)");
    }

    #[test]
    fn secrets_are_equal_when_all_their_bytes_are() {
        let secret = |text: &str| Password::new(Zeroizing::new(text.to_owned()));
        assert_eq!(secret("abc"), secret("abc"));
        assert_ne!(secret("abc"), secret("abd"));
        assert_ne!(secret("abc"), secret("abcd"));
    }
}
