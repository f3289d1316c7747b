//! The one error of the crate.
//!
//! Its variants are what a caller can act on: each is one answer to the client. Which of many checks
//! failed is the cause, kept as `source()` for the log. No variant and no cause holds a password, a
//! token, a key or a hash.

use std::error::Error as StdError;

mod key;
pub(crate) mod password;
mod token;

pub use self::{key::KeyError, password::PasswordError, token::TokenError};
use crate::{email::EmailError, scope::ScopeError};

/// Why something was refused, or could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not an e-mail address this service takes.
    #[error("the e-mail address is not valid")]
    InvalidEmail(#[from] EmailError),
    /// Not a password this service takes.
    #[error("the password is refused")]
    WeakPassword(#[from] PasswordError),
    /// Nobody signs in with this e-mail and this password. Unknown, wrong and disabled look the same.
    #[error("e-mail or password is wrong")]
    InvalidCredentials,
    /// Somebody has registered with this e-mail.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// Not an access token of ours, or not for us.
    #[error("the access token is invalid")]
    TokenInvalid(#[source] TokenError),
    /// An access token of ours whose time is over: refresh it.
    #[error("the access token has expired")]
    TokenExpired,
    /// Not a refresh token of ours, or one this store has never had.
    #[error("the refresh token is invalid")]
    RefreshInvalid,
    /// The session was ended, or its user may not sign in: sign in anew.
    #[error("the session was ended")]
    SessionRevoked,
    /// The session has come to its end by itself: sign in anew.
    #[error("the session has expired")]
    SessionExpired,
    /// A replaced refresh token came back; its session was ended for that.
    #[error("the refresh token was used before")]
    RefreshReused,
    /// The password is right, and a code of the second factor is wanted too.
    #[error("a code of the second factor is wanted")]
    FactorRequired,
    /// The code is not one that holds now.
    #[error("the code of the second factor is wrong")]
    FactorWrong,
    /// Codes are refused after too many wrong ones; a recovery code is accepted.
    #[error("too many wrong codes of the second factor: only a recovery code is accepted")]
    FactorLocked,
    /// The caller must show their password, or sign in anew.
    #[error("the password is required: the login is not fresh")]
    ReauthenticationRequired,
    /// There is a second factor already, or there is none to confirm or to remove.
    #[error("the second factor is in another state")]
    FactorState,
    /// Too many attempts have failed: none is looked at before this time is over.
    #[error("too many attempts have failed")]
    Throttled {
        /// How long to wait.
        retry_after: std::time::Duration,
    },
    /// Not a token that resets a password, or not any more.
    #[error("the reset token is invalid")]
    ResetInvalid,
    /// The operator has closed registration.
    #[error("registration is closed")]
    RegistrationClosed,
    /// Registration requires an invitation.
    #[error("registration requires an invitation")]
    InvitationRequired,
    /// Not a token that verifies this address, or not any more.
    #[error("the verification token is invalid")]
    VerificationInvalid,
    /// A name of a person or a thing that is too long, or has characters that are not shown as they are.
    #[error("the name is invalid: {0}")]
    InvalidName(&'static str),
    /// Not an invitation, or not any more, or not for this user.
    #[error("the invitation is invalid")]
    InvitationInvalid,
    /// Not a ticket, or not any more, or not for this origin.
    #[error("the ticket is invalid")]
    TicketInvalid,
    /// There is no such tenant, or the user is no member of it.
    #[error("the user is no member of the tenant")]
    NotAMember,
    /// The caller may see this, and not do it.
    #[error("not allowed: {0}")]
    Forbidden(&'static str),
    /// There is no such thing, or none of the caller's.
    #[error("there is no such thing")]
    NotFound,
    /// There are as many of these as there may be.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// Scopes that no token can have.
    #[error("the scopes are refused")]
    Scopes(#[from] ScopeError),
    /// Too many passwords are being hashed: try again shortly.
    #[error("too much to do at the moment")]
    Busy,
    /// A setting that cannot hold, with what would.
    #[error("a setting is out of bounds: {0}")]
    Setting(&'static str),
    /// The master key or the signing keys cannot be used: nothing works until an operator acts.
    #[error("the keys cannot be used")]
    Key(#[from] KeyError),
    /// Not a document of public keys that can be used, and why.
    #[error("the JWKS document cannot be used: {0}")]
    Jwks(&'static str),
    /// The store's own error: its kind says what to do.
    #[error("the store failed")]
    Store(#[from] coditect_store::Error),
    /// What should not happen: a damaged record, or a system that fails.
    #[error("an internal error")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Wraps what the caller can do nothing about.
    pub(crate) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }
}

impl coditect_store::RunError for Error {
    fn store_error(&self) -> Option<&coditect_store::Error> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TokenError> for Error {
    fn from(reason: TokenError) -> Self {
        match reason {
            TokenError::Expired => Self::TokenExpired,
            reason => Self::TokenInvalid(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_token_is_told_apart_from_an_invalid_one() {
        assert!(matches!(Error::from(TokenError::Expired), Error::TokenExpired));
        assert!(matches!(
            Error::from(TokenError::Signature),
            Error::TokenInvalid(TokenError::Signature)
        ));
    }

    #[test]
    fn the_check_that_failed_is_the_source_and_not_the_message() {
        let error = Error::from(TokenError::Signature);
        assert_eq!(error.to_string(), "the access token is invalid");
        assert_eq!(error.source().unwrap().to_string(), TokenError::Signature.to_string());
    }
}
