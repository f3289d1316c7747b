//! Passwords: which may be chosen, and which may be hashed at all.
//!
//! A [`Password`] is in NFC, so that it doesn't matter which keyboard composed its accents, and of a
//! length that may be hashed. There are two ways to one: [`Password::choose`] applies every rule for a
//! new password, [`Password::presented`] only the upper bound, since a rule that came later must not lock
//! out who chose before it. Every byte counts, up to the last, and a zero byte ends nothing.
//!
//! There are no rules of composition: they make passwords worse. But one that a guesser tries among the
//! first ten thousand is none: the commonest of published lists, whatever letters are replaced in them,
//! a character again and again, a row of the keyboard. `zxcvbn` (Wheeler, USENIX Security 2016) says how
//! soon one is tried.

use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;
use zxcvbn::zxcvbn;

use crate::{
    Email, Password, PasswordError,
    error::password::{MAX_CHARS, MIN_CHARS},
};

pub mod hasher;

/// One that is tried within so many guesses is refused.
const MIN_GUESSES: u64 = 10_000;

/// No common one is longer, in characters.
const MAX_ESTIMATED_CHARS: usize = 32;

/// What is longer is refused unseen. No text of 256 characters in NFC is much longer in any other form.
const MAX_BYTES: usize = 4096;

impl Password {
    /// A password that somebody chooses for the account of `email`.
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

    /// A password that somebody presents. It costs no hash to refuse one that is too long.
    pub fn presented(text: &str) -> Result<Self, PasswordError> {
        if text.len() > MAX_BYTES {
            return Err(PasswordError::TooLong);
        }
        // NFC at most triples the bytes of a text: with room for that, no copy is left behind.
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
    fn there_are_no_rules_of_composition() {
        for text in ["testpass123", "ggrrttkk", "correct horse battery staple", "パスワードの長さ"]
        {
            assert!(choose(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_password_has_8_to_256_characters_however_many_bytes_they_take() {
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
    fn the_e_mail_address_is_refused_in_each_of_its_spellings() {
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
    fn what_is_tried_first_is_refused_in_any_case_and_disguise() {
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
    fn a_short_password_may_be_presented_but_not_an_endless_one() {
        assert!(Password::presented("").is_ok());
        assert!(Password::presented("short").is_ok());
        assert!(Password::presented(&"x".repeat(257)).is_err());
    }

    #[test]
    fn normalising_does_not_move_the_text_and_leave_a_copy() {
        // U+1D160 grows the most in NFC: from four bytes to twelve.
        let text = "\u{1d160}".repeat(MAX_CHARS / 3);
        let grown: String = text.nfc().collect();
        assert_eq!(grown.len(), 3 * text.len());
        assert!(Password::presented(&text).is_ok());
    }
}
