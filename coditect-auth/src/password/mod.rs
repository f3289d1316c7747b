//! Password rules.
//!
//! A [`Password`] is in NFC, so that composed and decomposed accents match, and of a bounded
//! length. [`Password::choose`] applies all rules to a new password; [`Password::presented`] only
//! the upper bound, as a later rule must not lock out existing users. All bytes are significant,
//! NUL included.
//!
//! There are no composition rules, which weaken passwords. A password among the first ten thousand
//! guesses is rejected: common ones, with letters replaced, repeated characters, keyboard rows.
//! `zxcvbn` (Wheeler, USENIX Security 2016) estimates the guesses.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;
use zxcvbn::zxcvbn;

use crate::{
    Email, Password, PasswordError,
    error::password::{MAX_CHARS, MIN_CHARS},
};

pub mod hasher;

/// Number of guesses up to which a password is rejected.
const MIN_GUESSES: u64 = 10_000;

/// Maximum length that is estimated, in characters; no common password is longer.
const MAX_ESTIMATED_CHARS: usize = 32;

/// Maximum length before normalization, in bytes. No text of 256 characters in NFC is much longer
/// in another form.
const MAX_BYTES: usize = 4096;

impl Password {
    /// Validates a new password for the account of `email`.
    pub fn choose(text: &str, email: &Email) -> Result<Self, PasswordError> {
        let password = Self::presented(text)?;
        let chars = password.expose().chars().count();
        if chars < MIN_CHARS {
            return Err(PasswordError::TooShort);
        }
        let lower = Zeroizing::new(password.expose().to_lowercase());
        if *lower == email.normalized() || *lower == email.display().to_lowercase() {
            return Err(PasswordError::IsEmail);
        }
        if chars <= MAX_ESTIMATED_CHARS && zxcvbn(password.expose(), &[]).guesses() <= MIN_GUESSES {
            return Err(PasswordError::Common);
        }
        Ok(password)
    }

    /// Normalizes a presented password. Too long ones are rejected without hashing.
    pub fn presented(text: &str) -> Result<Self, PasswordError> {
        if text.len() > MAX_BYTES {
            return Err(PasswordError::TooLong);
        }
        // NFC at most triples the bytes, so the capacity prevents a reallocation that leaves a
        // copy.
        let mut normalized = Zeroizing::new(String::with_capacity(3 * text.len()));
        normalized.extend(text.nfc());
        if normalized.chars().count() > MAX_CHARS {
            return Err(PasswordError::TooLong);
        }
        Ok(Self::new(normalized))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str) -> Result<Password, PasswordError> {
        let email = Email::parse("Long.Name@Bücher.example").unwrap();
        Password::choose(text, &email)
    }

    #[test]
    fn composition_is_free() {
        for text in ["testpass123", "ggrrttkk", "correct horse battery staple", "パスワードの長さ"]
        {
            assert!(choose(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn length_is_8_to_256_characters_regardless_of_bytes() {
        assert_eq!(choose("1234567").unwrap_err(), PasswordError::TooShort);
        assert!(choose("1x3y5z7q").is_ok());
        assert_eq!(choose("ééééééé").unwrap_err(), PasswordError::TooShort);
        assert!(choose(&"x".repeat(256)).is_ok());
        assert!(choose(&"語".repeat(256)).is_ok());
        assert_eq!(choose(&"x".repeat(257)).unwrap_err(), PasswordError::TooLong);
        assert_eq!(choose(&"x".repeat(1 << 20)).unwrap_err(), PasswordError::TooLong);
    }

    #[test]
    fn characters_are_counted_after_they_are_composed() {
        assert!(choose(&"e\u{301}".repeat(256)).is_ok());
        assert_eq!(choose(&"e\u{301}".repeat(7)).unwrap_err(), PasswordError::TooShort);
    }

    #[test]
    fn composed_and_decomposed_accents_are_one_password() {
        assert_eq!(choose("cafe\u{301}-passe").unwrap(), choose("café-passe").unwrap());
    }

    #[test]
    fn letter_case_and_spaces_are_part_of_a_password() {
        assert_ne!(choose("Password A").unwrap(), choose("password a").unwrap());
        assert_ne!(choose("password ").unwrap(), choose(" password").unwrap());
    }

    #[test]
    fn email_address_is_rejected_in_each_spelling() {
        for text in [
            "Long.Name@Bücher.example",
            "long.name@bücher.example",
            "LONG.NAME@BÜCHER.EXAMPLE",
            "long.name@xn--bcher-kva.example",
        ] {
            assert_eq!(choose(text).unwrap_err(), PasswordError::IsEmail, "{text}");
        }
        assert!(choose("long.name@bücher.example!").is_ok());
    }

    #[test]
    fn common_passwords_are_rejected_in_any_case_and_disguise() {
        for text in [
            "password",
            "PASSWORD",
            "Password",
            "p@ssw0rd",
            "12345678",
            "qwertyuiop",
            "iloveyou",
            "password1",
            "password123",
            "trustno1",
            "11111111",
            "aaaaaaaa",
            "abcdefgh",
            "drowssap",
            "letmein1",
            "baseball",
            "sunshine",
        ] {
            assert_eq!(choose(text).unwrap_err(), PasswordError::Common, "{text}");
        }
        assert!(Password::presented("password").is_ok(), "who has one already gets in");
    }

    #[test]
    fn short_password_may_be_presented_but_not_an_overlong_one() {
        assert!(Password::presented("").is_ok());
        assert!(Password::presented("short").is_ok());
        assert!(Password::presented(&"x".repeat(257)).is_err());
    }

    #[test]
    fn normalization_does_not_reallocate() {
        // U+1D160 grows the most in NFC: from four bytes to twelve.
        let text = "\u{1d160}".repeat(MAX_CHARS / 3);
        let grown: String = text.nfc().collect();
        assert_eq!(grown.len(), 3 * text.len());
        assert!(Password::presented(&text).is_ok());
    }
}
