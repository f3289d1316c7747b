//! The error types of the crate, at the bottom of its layers.
//!
//! Each variant of [`Error`] corresponds to one response. The check that failed is its `source()`,
//! for the log. No variant and no source holds a password, a token, a key or a hash.

use std::error::Error as StdError;

mod key;
pub(crate) mod password;
mod token;

pub use self::{key::KeyError, password::PasswordError, token::TokenError};
use crate::{email::EmailError, scope::ScopeError};

/// An error of the crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The e-mail address is malformed.
    #[error("the e-mail address is not valid")]
    InvalidEmail(#[from] EmailError),
    /// The password does not meet the rules.
    #[error("the password does not meet the rules")]
    WeakPassword(#[from] PasswordError),
    /// The account does not exist or is disabled, or the password is wrong. The three cases are
    /// indistinguishable.
    #[error("e-mail or password is wrong")]
    InvalidCredentials,
    /// An account with this e-mail address exists.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The access token is malformed, or was not issued here for this audience.
    #[error("the access token is invalid")]
    TokenInvalid(#[source] TokenError),
    /// The access token has expired: refresh it.
    #[error("the access token has expired")]
    TokenExpired,
    /// The refresh token is malformed, or the store does not know it.
    #[error("the refresh token is invalid")]
    RefreshInvalid,
    /// The session was revoked, or its user is disabled: log in again.
    #[error("the session was revoked")]
    SessionRevoked,
    /// The session has expired: log in again.
    #[error("the session has expired")]
    SessionExpired,
    /// A replaced refresh token was used again; its session was revoked.
    #[error("the refresh token was used before; the session was revoked")]
    RefreshReused,
    /// The password is right; a code of the second factor is required as well.
    #[error("a two-factor authentication code is required")]
    FactorRequired,
    /// The code of the second factor is wrong or was used.
    #[error("the two-factor authentication code is wrong")]
    FactorWrong,
    /// Too many codes were wrong: only a recovery code is accepted.
    #[error("too many wrong two-factor authentication codes: use a recovery code")]
    FactorLocked,
    /// The login is not fresh: present the password, or log in again.
    #[error("the password is required: the login is not fresh")]
    ReauthenticationRequired,
    /// The second factor's state does not allow the operation.
    #[error("{0}")]
    FactorState(&'static str),
    /// Too many attempts have failed.
    #[error("too many failed attempts: retry after {} s", retry_after.as_secs_f64().ceil())]
    Throttled {
        /// Time after which an attempt is accepted again.
        retry_after: std::time::Duration,
    },
    /// The password-reset token is unknown, used or expired.
    #[error("the reset token is invalid")]
    ResetInvalid,
    /// The operator has closed registration.
    #[error("registration is closed")]
    RegistrationClosed,
    /// Registration requires an invitation.
    #[error("registration requires an invitation")]
    InvitationRequired,
    /// The verification token is not for this address, or has expired.
    #[error("the verification token is invalid")]
    VerificationInvalid,
    /// A name is too long, or has characters that are not printed as they are.
    #[error("the name is invalid: {0}")]
    InvalidName(&'static str),
    /// The invitation is unknown, used, expired, void, or for another user.
    #[error("the invitation is invalid")]
    InvitationInvalid,
    /// The WebSocket ticket is unknown, used, expired, or for another origin.
    #[error("the ticket is invalid")]
    TicketInvalid,
    /// The tenant does not exist, or the user is not a member of it.
    #[error("the user is not a member of the tenant")]
    NotAMember,
    /// The caller is authenticated, but not authorized.
    #[error("not allowed: {0}")]
    Forbidden(&'static str),
    /// The record does not exist, or belongs to another user.
    #[error("not found")]
    NotFound,
    /// A limit on the number of records is reached.
    #[error("there are too many {0}")]
    TooMany(&'static str),
    /// The scopes are malformed.
    #[error("the scopes are invalid")]
    Scopes(#[from] ScopeError),
    /// The queue of password hashes or of logins of the account is full: retry shortly.
    #[error("overloaded: retry shortly")]
    Busy,
    /// A setting is out of its bounds.
    #[error("invalid setting: {0}")]
    Setting(&'static str),
    /// The master key or the signing keys are unusable until an operator acts.
    #[error("the keys cannot be used")]
    Key(#[from] KeyError),
    /// The JWKS document is unusable.
    #[error("the JWKS document cannot be used: {0}")]
    Jwks(&'static str),
    /// An error of the store; its kind determines the action.
    #[error("the store failed")]
    Store(#[from] coditect_store::Error),
    /// A damaged record, or a failure of the operating system or the mailer.
    #[error("internal error")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// Wraps an error on which the caller cannot act.
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
    fn expired_token_is_distinguished_from_invalid_one() {
        assert!(matches!(Error::from(TokenError::Expired), Error::TokenExpired));
        assert!(matches!(
            Error::from(TokenError::Signature),
            Error::TokenInvalid(TokenError::Signature)
        ));
    }

    #[test]
    fn failed_check_is_the_source_and_not_the_message() {
        let error = Error::from(TokenError::Signature);
        assert_eq!(error.to_string(), "the access token is invalid");
        assert_eq!(error.source().unwrap().to_string(), TokenError::Signature.to_string());
    }
}
