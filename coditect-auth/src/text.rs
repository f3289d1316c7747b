//! Printable text: names without control characters, bidirectional overrides or invisible
//! characters (Unicode TR 36, 2.11; CWE-1007).
//!
//! Character properties come from the Unicode tables of ICU4X.

use std::{borrow::Cow, fmt::Write as _};

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};

use crate::Error;

/// Returns whether a character is printable in a name. Joiners and variation selectors are, since
/// scripts and emoji need them.
pub fn is_plain(c: char) -> bool {
    if matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}') {
        return true;
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let is_hidden = matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    !is_hidden && !CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

/// Returns whether all characters of a text are printable.
pub fn is_plain_text(text: &str) -> bool {
    text.chars().all(is_plain)
}

/// Returns a text for a terminal, with characters that are not printable escaped as in JSON
/// (`\u202e`).
pub fn escaped(text: &str) -> Cow<'_, str> {
    if is_plain_text(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_plain(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a `String` is infallible.
            let _written = write!(shown, "\\u{unit:04x}");
        }
    }
    Cow::Owned(shown)
}

/// Fails with [`Error::InvalidName`] unless all characters of `name` are printable.
pub(crate) fn require_plain(name: &str) -> Result<(), Error> {
    let why = "it has control, bidirectional or invisible characters";
    if is_plain_text(name) { Ok(()) } else { Err(Error::InvalidName(why)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_of_people_and_things_are_plain() {
        for name in [
            "Ada",
            "Zoë 🇫🇷",
            "नमस्ते",
            "می\u{200c}خواهم",
            "👩\u{200d}💻",
            "❤\u{fe0f}",
            "日本語 ",
            "a\u{a0}b",
        ] {
            assert!(is_plain_text(name), "{name}");
            assert_eq!(escaped(name), name);
        }
    }

    #[test]
    fn control_bidirectional_and_invisible_characters_are_not() {
        for c in [
            '\0',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{180e}',
            '\u{200b}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{3164}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e0100}',
        ] {
            assert!(!is_plain(c), "{:04x}", u32::from(c));
        }
        assert_eq!(escaped("a\u{202e}b\u{1b}[2J\u{e0041}"), "a\\u202eb\\u001b[2J\\udb40\\udc41");
    }

    proptest! {
        #[test]
        fn escaped_text_is_plain_and_reads_back_from_json(text in any::<String>()) {
            prop_assert!(is_plain_text(&escaped(&text)));
            let json = serde_json::to_string(&text).unwrap();
            let read: String = serde_json::from_str(&escaped(&json)).unwrap();
            prop_assert_eq!(read, text);
        }
    }
}
