//! Authentication and authorization over a [`coditect_store::Store`]: passwords, access tokens
//! bound to stored sessions, and refresh token families with reuse detection.
//!
//! ```text
//!   e-mail + password ──► one login = one AuthSession = one token family
//!                                      │
//!                   ┌──────────────────┴──────────────────┐
//!              access token                         refresh token
//!              signed JWT, minutes                  opaque, replaced at each use
//!              keys: a ring, wrapped by             tokens::family decides on a
//!              the master key                       presented one
//! ```
//!
//! | module | contents |
//! |---|---|
//! | [`service`] | every transaction: registration, login, refresh, logout, authentication |
//! | [`model`] | the records of identity, besides users and sessions |
//! | [`tokens`] | access tokens (JWT), refresh tokens and the decision on a presented one |
//! | [`keys`] | signing keys, their ring and rotation; the root key and the master key |
//! | [`password`] | password rules; Argon2id with bounded memory and queue |
//! | [`second_factor`] | TOTP codes and recovery codes |
//! | [`throttle`] | delays after failed attempts |
//! | [`scope`] | scopes of personal access tokens |
//! | [`mailer`] | delivery of reset, invitation and verification tokens |
//! | [`email`], [`text`] | e-mail addresses; printable names |
//! | [`secret`], [`seal`] | redacted and zeroized types; authenticated encryption |
//! | [`error`] | the error types |
//!
//! Modules other than [`service`] are pure: they neither read the store nor the clock, and know
//! nothing of HTTP. Imports point downward: `service` is above `model`, which is above the rest.
//!
//! A verified access token is not sufficient to authenticate a request: its session may have been
//! revoked. Call [`Auth::authenticate`] in the request's transaction as well.

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
    Action, AddressProof, AuditRetention, Auth, AuthMethod, ClientInfo, Credential, IDE_SCOPE,
    INVITATION_LIFETIME, Identity, MAX_FRESH_LOGIN_AGE, MAX_INVITATION_MAILS, MAX_LOGINS,
    MAX_PERSONAL_TOKEN_LIFETIME, MAX_RESETS, MAX_SESSION_NAME_CHARS, MAX_TOKEN_NAME_CHARS, Member,
    NewFactor, NewInvitation, NewPersonalToken, NewTicket, Purge, RESET_TOKEN_LIFETIME,
    Registration, RegistrationMode, Settings, SignIn, SignUp, SignedIn, TICKET_LIFETIME, Tokens,
    VERIFICATION_LIFETIME, VerifiedCredential, entities, load_master_key, replace_master_key,
    replace_master_key_file,
};
pub use tokens::{
    access::{AccessSettings, AccessTokens, JwksVerifier, Minted},
    claims::{Claims, TokenId},
    family::{Decision, Lifetimes, PresentedToken, Stored},
    refresh::{RefreshKeys, RefreshToken, Salt},
};
