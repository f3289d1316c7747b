//! Who somebody is: passwords, access tokens bound to stored sessions, and refresh token families in
//! which a token that comes back tells of theft.
//!
//! ```text
//!   e-mail + password ──► email, password, hasher ──► one login = one AuthSession = one token family
//!                                                        │
//!                         ┌──────────────────────────────┴───────────────┐
//!                    access (JWT, minutes)                     refresh (opaque, replaced at each use)
//!                    keys: a ring, sealed by the master key    family: what one that comes in means
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | [`email`] | which addresses are taken, and when two are the same |
//! | [`password`] | which passwords may be chosen |
//! | [`hasher`] | Argon2id, bounded in memory and in what waits |
//! | [`secret`] | a type for each secret: redacted, wiped, compared in constant time |
//! | [`master_key`] | the key that all others hang on |
//! | [`keys`] | the keys that sign access tokens: sealed records, the ring, rotation |
//! | [`claims`], [`access`] | what an access token says; minting and verifying it |
//! | [`refresh`] | the refresh token's bytes and its successor |
//! | [`second_factor`] | codes of an authenticator app, and recovery codes |
//! | [`scope`] | what a personal access token may do |
//! | [`throttle`] | who waits after failures |
//! | [`model`] | the records of identity, beside users and logins |
//! | [`mailer`] | how what only its addressee is to have gets there |
//! | [`family`] | the life of a refresh token family, as a pure function |
//! | [`service`] | registering, signing in, refreshing, signing out, authenticating: the transactions |
//! | [`error`] | the one error, by what a caller can do about it |
//!
//! Nothing here knows HTTP, and only [`service`] reads or writes the store or looks at the clock: records,
//! and the time, are passed in to all else. A verified access token is half an answer: its session must also hold, in the store, now.

#![forbid(unsafe_code)]

pub mod email;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod key_id;
pub mod keys;
pub mod mailer;
pub mod model;
pub mod password;
mod random;
pub mod scope;
pub mod seal;
pub mod second_factor;
pub mod secret;
pub mod service;
mod subkey;
pub mod text;
pub mod throttle;
pub mod tokens;

pub use email::{Email, EmailError};
pub use error::{Error, KeyError, PasswordError, TokenError};
pub use key_id::KeyId;
pub use keys::{Algorithm, KeyRing, KeyState, SealedKey, SigningKey, VerifyingKey, WrappedRootKey};
pub use mailer::{LogMailer, Mailer, Notice};
pub use password::hasher::{HashParams, Hasher, Peppers, Verdict};
pub use scope::{Scope, ScopeError, Scopes};
pub use second_factor::{FactorSecret, RecoveryCodes};
pub use secret::{
    AccessToken, EncodedRefreshToken, MasterKey, OpaqueToken, Password, PepperKey, RefreshSecret,
    RootKey,
};
pub use service::{
    Action, AddressProof, Auth, AuthMethod, ClientInfo, Credential, IDE_SCOPE, INVITATION_LIFETIME,
    Identity, MAX_FRESH_LOGIN_AGE, MAX_LOGINS, MAX_PERSONAL_TOKEN_LIFETIME, MAX_RESETS,
    MAX_SESSION_NAME_CHARS, MAX_TOKEN_NAME_CHARS, Member, NewFactor, NewInvitation,
    NewPersonalToken, NewTicket, Purge, RESET_TOKEN_LIFETIME, Registration, RegistrationMode,
    Settings, SignIn, SignUp, SignedIn, TICKET_LIFETIME, Tokens, VERIFICATION_LIFETIME,
    VerifiedCredential, entities, load_master_key, replace_master_key, replace_master_key_file,
};
pub use tokens::{
    access::{AccessSettings, AccessTokens, JwksVerifier, Minted},
    claims::{Claims, TokenId},
    family::{Decision, Lifetimes, PresentedToken, Stored},
    refresh::{RefreshKeys, RefreshToken, Salt},
};
