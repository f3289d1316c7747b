//! E-mail addresses: grammar and normalization.
//!
//! The grammar is RFC 5321's `Dot-string` before the `@`, with the non-ASCII letters of RFC 6531,
//! followed by a domain name of at least two labels (UTS 46). Two addresses are equal if they agree
//! in NFC after case folding, with the domain in its ASCII form. Mail systems may distinguish local
//! parts by case; people do not, and look-alike registrations must fail.
//!
//! Rejected on purpose: quoted local parts (`"a b"@…`), comments, address literals
//! (`a@[10.0.0.1]`), numeric and single-label domains (`a@localhost`), control characters and line
//! breaks anywhere, and invisible characters. Spaces and tabs around the address, which forms add,
//! are trimmed.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// Maximum length of an address, in bytes (RFC 5321, 4.5.3.1.3, without the brackets).
const MAX_BYTES: usize = 254;

const MAX_LOCAL_BYTES: usize = 64;

/// A well-formed e-mail address. It may not be deliverable.
#[derive(Clone, Debug)]
pub struct Email {
    display: String,
    normalized: String,
}

/// Reason for which a text is not an e-mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmailError {
    /// The text is empty.
    #[error("the address is empty")]
    Empty,
    /// The address exceeds 254 bytes, or its local part 64.
    #[error("the address is too long")]
    TooLong,
    /// The text has no `@`.
    #[error("the address has no @")]
    NoAt,
    /// The part before the `@` is malformed.
    #[error("the part before the @ is not valid")]
    LocalPart,
    /// The part after the `@` is not a domain name of at least two labels.
    #[error("the part after the @ is not a domain name")]
    Domain,
}

impl Email {
    /// Parses an address as typed. Parsing a normalized address returns it unchanged.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim_matches([' ', '\t']);
        if text.is_empty() {
            return Err(EmailError::Empty);
        }
        // Bounds the work of the normalization: NFC shortens no valid address that much.
        if text.len() > 4 * MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        let display: String = text.nfc().collect();
        let (local, domain) = display.rsplit_once('@').ok_or(EmailError::NoAt)?;
        let local = normalized_local(local)?;
        let domain = normalized_domain(domain)?;
        let normalized = format!("{local}@{domain}");
        if display.len() > MAX_BYTES || normalized.len() > MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        Ok(Self { display, normalized })
    }

    /// Returns the address as its owner writes it, trimmed and in NFC.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// Returns the normalized address, which is the same for all spellings.
    pub fn normalized(&self) -> &str {
        &self.normalized
    }
}

impl PartialEq for Email {
    /// Two spellings of one address are equal.
    fn eq(&self, other: &Self) -> bool {
        self.normalized == other.normalized
    }
}

impl Eq for Email {}

fn normalized_local(local: &str) -> Result<String, EmailError> {
    // Lower-casing can decompose characters, so it is normalized again.
    let lower: String = local.to_lowercase().nfc().collect();
    if local.len() > MAX_LOCAL_BYTES || lower.len() > MAX_LOCAL_BYTES {
        return Err(EmailError::TooLong);
    }
    let is_atom = |atom: &str| !atom.is_empty() && atom.chars().all(is_atom_text);
    if lower.split('.').all(is_atom) { Ok(lower) } else { Err(EmailError::LocalPart) }
}

/// Returns whether `c` may be part of an atom: RFC 5322's `atext` in ASCII, and visible letters,
/// digits and their marks beyond it.
fn is_atom_text(c: char) -> bool {
    match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' => true,
        '\0'..='\x7f' => "!#$%&'*+-/=?^_`{|}~".contains(c),
        _ => (c.is_alphanumeric() || is_combining_mark(c)) && !is_invisible(c),
    }
}

/// Returns whether `c` is a letter or mark with the Unicode property
/// `Default_Ignorable_Code_Point`.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

fn normalized_domain(domain: &str) -> Result<String, EmailError> {
    let ascii = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .map_err(|_| EmailError::Domain)?;
    let (_, last_label) = ascii.rsplit_once('.').ok_or(EmailError::Domain)?;
    if last_label.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EmailError::Domain);
    }
    Ok(ascii.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normalized(text: &str) -> String {
        Email::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}")).normalized
    }

    #[test]
    fn ordinary_addresses_are_accepted() {
        for text in [
            "user@example.com",
            "first.last+tag@mail.example.co.uk",
            "o'brien@example.com",
            "a!#$%&'*+-/=?^_`{|}~b@example.com",
            "x@a-b.example",
            "user@r3---sn.example.com",
        ] {
            assert_eq!(normalized(text), text);
        }
    }

    #[test]
    fn spellings_of_one_address_are_equal() {
        for (left, right) in [
            ("Alice@Example.COM", "alice@example.com"),
            ("  alice@example.com\t", "alice@example.com"),
            ("cafe\u{301}@example.com", "café@example.com"),
            ("CAFÉ@example.com", "café@example.com"),
            ("a@bücher.example", "a@xn--bcher-kva.example"),
            ("a@BÜCHER.example", "a@bu\u{308}cher.example"),
            ("a@example。com", "a@example.com"),
        ] {
            assert_eq!(normalized(left), normalized(right));
            assert_eq!(Email::parse(left).unwrap(), Email::parse(right).unwrap());
        }
    }

    #[test]
    fn display_keeps_the_given_spelling() {
        let email = Email::parse(" Alice@BÜCHER.example ").unwrap();
        assert_eq!(email.display(), "Alice@BÜCHER.example");
        assert_eq!(email.normalized(), "alice@xn--bcher-kva.example");
    }

    #[test]
    fn look_alike_addresses_differ() {
        assert_ne!(normalized("аlice@example.com"), normalized("alice@example.com"));
        assert_ne!(normalized("alice@exаmple.com"), normalized("alice@example.com"));
    }

    #[test]
    fn invisible_characters_are_rejected() {
        for text in [
            "ali\u{200b}ce@example.com",
            "ali\u{200d}ce@example.com",
            "ali\u{ad}ce@example.com",
            "\u{202e}alice@example.com",
            "\u{feff}alice@example.com",
            "alice\u{fe0f}@example.com",
            "alice\u{3164}@example.com",
            "alice\u{a0}@example.com",
            "\u{e000}@example.com",
        ] {
            assert_eq!(Email::parse(text).unwrap_err(), EmailError::LocalPart, "{text:?}");
        }
    }

    #[test]
    fn control_characters_and_line_breaks_are_rejected_everywhere() {
        for text in [
            "alice@example.com\r\n",
            "alice@example.com\n",
            "\nalice@example.com",
            "alice@example.com\r\nBcc: eve@example.com",
            "alice\r\n@example.com",
            "alice\0@example.com",
            "alice@example.com\0",
            "alice@exam\0ple.com",
            "alice\u{85}@example.com",
        ] {
            assert!(Email::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn malformed_addresses_are_rejected_with_a_reason() {
        use EmailError::{Domain, Empty, LocalPart, NoAt};
        for (text, reason) in [
            ("", Empty),
            ("   ", Empty),
            ("alice", NoAt),
            ("alice.example.com", NoAt),
            ("@example.com", LocalPart),
            (".alice@example.com", LocalPart),
            ("alice.@example.com", LocalPart),
            ("al..ice@example.com", LocalPart),
            ("al ice@example.com", LocalPart),
            ("\"al ice\"@example.com", LocalPart),
            ("alice@eve@example.com", LocalPart),
            ("alice(comment)@example.com", LocalPart),
            ("<alice@example.com>", LocalPart),
            ("Alice <alice@example.com", LocalPart),
            ("alice,eve@example.com", LocalPart),
            ("alice@", Domain),
            ("alice@localhost", Domain),
            ("alice@example.com.", Domain),
            ("alice@.example.com", Domain),
            ("alice@example..com", Domain),
            ("alice@-example.com", Domain),
            ("alice@example-.com", Domain),
            ("alice@exam_ple.com", Domain),
            ("alice@exam ple.com", Domain),
            ("alice@10.0.0.1", Domain),
            ("alice@[10.0.0.1]", Domain),
            ("alice@example.com>", Domain),
            ("alice@xn--a.example", Domain),
        ] {
            assert_eq!(Email::parse(text).unwrap_err(), reason, "{text:?}");
        }
    }

    #[test]
    fn lengths_are_bounded_as_in_the_standards() {
        let domain = format!("{}.{}.{}.example", "d".repeat(60), "d".repeat(60), "d".repeat(57));
        let longest = format!("{}@{domain}", "a".repeat(64));
        assert_eq!(longest.len(), 252);
        assert!(Email::parse(&longest).is_ok());
        assert!(Email::parse(&format!("{}@example.com", "a".repeat(64))).is_ok());
        for text in [
            format!("{}@example.com", "a".repeat(65)),
            format!("{}@example.com", "é".repeat(33)),
            format!("{}@x{domain}xx", "a".repeat(64)),
            "a".repeat(1 << 20),
        ] {
            assert_eq!(Email::parse(&text).unwrap_err(), EmailError::TooLong);
        }
        let long_label = format!("a@{}.example", "d".repeat(64));
        assert_eq!(Email::parse(&long_label).unwrap_err(), EmailError::Domain);
    }

    #[test]
    fn address_with_overlong_ascii_form_is_rejected() {
        let text = format!("a@{}.example", "ü".repeat(61));
        assert_eq!(Email::parse(&text).unwrap_err(), EmailError::Domain);
    }

    proptest! {
        #[test]
        fn normalization_is_idempotent(
            local in "[\\PC&&[^@]]{1,20}",
            domain in "[a-zA-ZäÖßΣ0-9-]{1,10}\\.[a-z]{2,5}",
        ) {
            if let Ok(email) = Email::parse(&format!("{local}@{domain}")) {
                let again = Email::parse(email.normalized()).unwrap();
                prop_assert_eq!(again.normalized(), email.normalized());
                prop_assert_eq!(&again, &Email::parse(email.display()).unwrap());
            }
        }

        #[test]
        fn arbitrary_text_never_panics_nor_yields_control_characters(text in any::<String>()) {
            if let Ok(email) = Email::parse(&text) {
                prop_assert!(!email.display().chars().any(char::is_control));
                prop_assert!(!email.display().contains(char::is_whitespace));
            }
        }
    }
}
