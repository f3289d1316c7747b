//! The only map from the errors of the store and of auth to HTTP statuses: one `From` per crate, so
//! that handlers can use `?`.

use coditect_auth as auth;
use coditect_store::{self as store, ErrorKind};
use hyper::StatusCode;

use crate::http::problem::{Problem, SOON, Unauthorized};

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        let problem = match error.kind() {
            ErrorKind::NotFound => Self::not_found(),
            ErrorKind::AlreadyExists | ErrorKind::UniqueViolation(_) => {
                Self::conflict("CONFLICT", "It already exists.")
            }
            ErrorKind::Limit => Self::too_large("It exceeds a size limit of the store."),
            ErrorKind::QuotaExceeded("bytes") => Self::new(
                StatusCode::FORBIDDEN,
                "QUOTA_EXCEEDED",
                "This exceeds your storage quota. Deleted content counts until it is \
                 collected, within a minute.",
            ),
            ErrorKind::QuotaExceeded(_) => Self::new(
                StatusCode::FORBIDDEN,
                "QUOTA_EXCEEDED",
                "This exceeds a quota of your account.",
            ),
            ErrorKind::RevisionMismatch => Self::precondition_failed(),
            ErrorKind::IndexBuilding(_) => Self::unavailable("INDEX_BUILDING", SOON),
            // The retry loop has given up after its time limit.
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
                Self::conflict("EMAIL_TAKEN", "An account with this e-mail address already exists.")
            }
            auth::Error::TokenInvalid(_) | auth::Error::TokenExpired => {
                Self::unauthorized(Unauthorized::InvalidToken)
            }
            auth::Error::RefreshInvalid => {
                Self::refused("REFRESH_INVALID", "The refresh token is invalid.")
            }
            auth::Error::SessionRevoked => {
                Self::refused("SESSION_REVOKED", "This session was revoked. Sign in again.")
            }
            auth::Error::SessionExpired => {
                Self::refused("SESSION_EXPIRED", "This session has expired. Sign in again.")
            }
            auth::Error::RefreshReused => Self::refused(
                "REFRESH_REUSED",
                "The refresh token was already used, so its session was revoked. Sign in again.",
            ),
            auth::Error::FactorRequired => Self::refused(
                "SECOND_FACTOR_REQUIRED",
                "Enter the code of your authenticator app or a recovery code.",
            ),
            auth::Error::FactorWrong => {
                Self::refused("SECOND_FACTOR_INVALID", "The code is wrong or was already used.")
            }
            auth::Error::FactorLocked => Self::refused(
                "SECOND_FACTOR_LOCKED",
                "Too many wrong codes. Sign in with a recovery code.",
            ),
            auth::Error::ReauthenticationRequired => {
                Self::forbidden("Enter your password to do this.")
                    .with_code("REAUTHENTICATION_REQUIRED")
            }
            auth::Error::FactorState(state) => {
                Self::conflict("SECOND_FACTOR_STATE", sentence(state))
            }
            auth::Error::Throttled { retry_after } => Self::too_many_requests(retry_after),
            auth::Error::ResetInvalid => Self::bad_request(
                "RESET_INVALID",
                "The password-reset token is invalid or expired. Request another one.",
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
                "The verification token is invalid or expired. Register again.",
            ),
            auth::Error::InvalidName(why) => {
                return Self::invalid_field("VALIDATION_FAILED", "name", why);
            }
            auth::Error::InvitationInvalid => {
                Self::bad_request("INVITATION_INVALID", "The invitation is invalid or expired.")
            }
            auth::Error::TicketInvalid => {
                Self::refused("TICKET_INVALID", "The ticket is invalid, expired or already used.")
            }
            auth::Error::NotAMember => {
                Self::forbidden("You are not a member of this tenant.").with_code("NOT_A_MEMBER")
            }
            auth::Error::Forbidden(_) => Self::forbidden("You do not have permission to do this."),
            auth::Error::NotFound => Self::not_found(),
            auth::Error::TooMany(_) => {
                Self::forbidden("The maximum number is reached.").with_code("QUOTA_EXCEEDED")
            }
            auth::Error::Busy => Self::unavailable("BUSY", SOON),
            error => return Self::internal(error),
        };
        problem.with_cause(error)
    }
}

/// The closure of a transaction may return a problem; the store error that caused it decides about
/// a retry.
impl store::RunError for Problem {
    fn store_error(&self) -> Option<&store::Error> {
        self.cause()?.downcast_ref()
    }
}

/// Returns `text` as a sentence: capitalized, with a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}
