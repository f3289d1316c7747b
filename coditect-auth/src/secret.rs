//! Secrets as types of their own.
//!
//! Each is wiped when it is dropped, shows only its name in `Debug`, compares in constant time, and
//! has no `Display` and no serde: it leaves the program only where somebody writes `expose()`, which
//! a reviewer can search for.
//!
//! What is derived from a secret on the way (a buffer of a hash function, a copy the allocator moved)
//! is beyond these types; the constructors avoid such copies where they can.

use std::fmt;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

macro_rules! secrets {
    ($($(#[$doc:meta])* $name:ident: $owned:ty => $exposed:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Zeroizing<$owned>);

        impl $name {
            /// Takes charge of a secret that its module has checked, or has made.
            pub(crate) fn new(secret: Zeroizing<$owned>) -> Self {
                Self(secret)
            }

            /// The secret itself. Not for logs, errors, metrics or URLs.
            pub fn expose(&self) -> &$exposed {
                &self.0
            }
        }

        impl PartialEq for $name {
            /// In constant time, but for the length.
            fn eq(&self, other: &Self) -> bool {
                let (mine, theirs): (&[u8], &[u8]) = (self.expose().as_ref(), other.expose().as_ref());
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
    /// A password in NFC, of a length that may be hashed.
    Password: String => str;
    /// A key that goes into the hashes of passwords.
    PepperKey: Vec<u8> => [u8];
    /// The operator's key, which seals the [`RootKey`].
    MasterKey: [u8; 32] => [u8; 32];
    /// The key from which all other keys of an installation are derived.
    RootKey: [u8; 32] => [u8; 32];
    /// A key derived from the [`RootKey`] for one purpose.
    Subkey: [u8; 32] => [u8; 32];
    /// The part of a refresh token that is known to its holder alone; the store has its hash.
    RefreshSecret: [u8; 32] => [u8; 32];
    /// A refresh token as text, ready to be given to its holder.
    EncodedRefreshToken: String => str;
    /// What an authenticator app makes its codes of.
    FactorSecret: [u8; 20] => [u8; 20];
    /// An opaque token as text, ready to be given to its holder.
    OpaqueToken: String => str;
    /// A signed access token, ready to be given to its holder.
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
