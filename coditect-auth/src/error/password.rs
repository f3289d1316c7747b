//! Reasons for the refusal of a password.

/// Minimum length of a password, in characters.
pub(crate) const MIN_CHARS: usize = 8;

/// Maximum length of a password, in characters.
pub(crate) const MAX_CHARS: usize = 256;

/// Reason for which a password is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// The password has fewer than 8 characters.
    #[error("the password must have at least {MIN_CHARS} characters")]
    TooShort,
    /// The password has more than 256 characters.
    #[error("the password must have at most {MAX_CHARS} characters")]
    TooLong,
    /// The password is among the first guesses of an attacker.
    #[error("the password is too common")]
    Common,
    /// The password is the e-mail address of its account.
    #[error("the password must not be the e-mail address")]
    IsEmail,
}
