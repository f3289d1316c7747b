//! The only map from the store's and auth's errors to HTTP statuses: one `From` for each crate, so that
//! handlers use `?`.

use coditect_auth as auth;
use coditect_store::{self as store, ErrorKind};
use hyper::StatusCode;

use crate::http::problem::{Problem, SOON, Unauthorized};

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::NotFound => Self::not_found(),
            ErrorKind::AlreadyExists | ErrorKind::UniqueViolation(_) => {
                Self::conflict("CONFLICT", "There is one like this already.")
            }
            ErrorKind::Limit => Self::too_large("This is more than can be kept in one piece."),
            ErrorKind::QuotaExceeded("bytes") => Self::new(
                StatusCode::FORBIDDEN,
                "QUOTA_EXCEEDED",
                "This is more than your account may keep. What was deleted counts until it is \
                 removed, within a minute.",
            ),
            ErrorKind::QuotaExceeded(_) => Self::new(
                StatusCode::FORBIDDEN,
                "QUOTA_EXCEEDED",
                "This is more than your account may keep.",
            ),
            ErrorKind::RevisionMismatch => Self::precondition_failed(),
            ErrorKind::IndexBuilding(_) => Self::unavailable("INDEX_BUILDING", SOON),
            // The retry loop has tried for long, and others were always faster.
            ErrorKind::Conflict | ErrorKind::TransactionTooOld => {
                Self::unavailable("STORE_BUSY", SOON)
            }
            ErrorKind::ImportInProgress => Self::unavailable("STORE_IMPORTING", SOON),
            ErrorKind::MaybeCommitted => Self::unavailable("OUTCOME_UNKNOWN", SOON),
            ErrorKind::Unavailable | ErrorKind::Closed => {
                Self::unavailable("STORE_UNAVAILABLE", SOON)
            }
            _ => return Self::internal(error),
        };
        problem.with_cause(error)
    }
}

impl From<auth::Error> for Problem {
    fn from(error: auth::Error) -> Self {
        let problem = match error {
            auth::Error::Store(error) => return error.into(),
            auth::Error::InvalidEmail(why) => {
                return Self::invalid_field("INVALID_EMAIL", "email", &why.to_string());
            }
            auth::Error::WeakPassword(why) => {
                return Self::invalid_field("WEAK_PASSWORD", "password", &why.to_string());
            }
            auth::Error::InvalidCredentials => {
                Self::refused("INVALID_CREDENTIALS", "The e-mail address or the password is wrong.")
            }
            auth::Error::EmailTaken => {
                Self::conflict("EMAIL_TAKEN", "There is an account with this e-mail address.")
            }
            auth::Error::TokenInvalid(_) | auth::Error::TokenExpired => {
                Self::unauthorized(Unauthorized::InvalidToken)
            }
            auth::Error::RefreshInvalid => {
                Self::refused("REFRESH_INVALID", "The refresh token is not valid.")
            }
            auth::Error::SessionRevoked => {
                Self::refused("SESSION_REVOKED", "This session was ended. Sign in again.")
            }
            auth::Error::SessionExpired => {
                Self::refused("SESSION_EXPIRED", "This session has expired. Sign in again.")
            }
            auth::Error::RefreshReused => Self::refused(
                "REFRESH_REUSED",
                "The refresh token was used before, so its session was ended. Sign in again.",
            ),
            auth::Error::FactorRequired => Self::refused(
                "SECOND_FACTOR_REQUIRED",
                "Enter the code of your authenticator app, or a recovery code.",
            ),
            auth::Error::FactorWrong => {
                Self::refused("SECOND_FACTOR_INVALID", "The code is wrong, or was used before.")
            }
            auth::Error::FactorLocked => Self::refused(
                "SECOND_FACTOR_LOCKED",
                "Too many wrong codes were entered. Sign in with a recovery code.",
            ),
            auth::Error::ReauthenticationRequired => {
                Self::forbidden("Enter your password to do this.")
                    .with_code("REAUTHENTICATION_REQUIRED")
            }
            auth::Error::FactorState(_) => Self::conflict(
                "SECOND_FACTOR_STATE",
                "There is a second factor already, or there is none.",
            ),
            auth::Error::Throttled { retry_after } => Self::too_many_requests(retry_after),
            auth::Error::ResetInvalid => Self::bad_request(
                "RESET_INVALID",
                "This way to a new password is not open, or not any more. Ask for another.",
            ),
            auth::Error::RegistrationClosed => {
                Self::forbidden("Registration is closed.").with_code("REGISTRATION_CLOSED")
            }
            auth::Error::InvitationRequired => {
                Self::forbidden("Registration requires an invitation.")
                    .with_code("INVITATION_REQUIRED")
            }
            auth::Error::VerificationInvalid => Self::bad_request(
                "VERIFICATION_INVALID",
                "The token does not verify this address, or not any more. Register again.",
            ),
            auth::Error::InvalidName(why) => {
                return Self::invalid_field("VALIDATION_FAILED", "name", why);
            }
            auth::Error::InvitationInvalid => Self::bad_request(
                "INVITATION_INVALID",
                "There is no such invitation for you, or not any more.",
            ),
            auth::Error::TicketInvalid => {
                Self::refused("TICKET_INVALID", "The ticket is not valid, or was used before.")
            }
            auth::Error::NotAMember => {
                Self::forbidden("You are no member of this tenant.").with_code("NOT_A_MEMBER")
            }
            auth::Error::Forbidden(_) => Self::forbidden("You may not do this."),
            auth::Error::NotFound => Self::not_found(),
            auth::Error::TooMany(_) => {
                Self::forbidden("There are as many as there may be.").with_code("QUOTA_EXCEEDED")
            }
            auth::Error::Busy => Self::unavailable("BUSY", SOON),
            error => return Self::internal(error),
        };
        problem.with_cause(error)
    }
}

/// A transaction's closure may give a problem; whether it is run again is for the store's error
/// behind it to say.
impl store::RunError for Problem {
    fn store_error(&self) -> Option<&store::Error> {
        self.cause()?.downcast_ref()
    }
}
