//! Peppers: secret keys mixed into password hashes, stored outside of the database.
//!
//! A copy of the store alone then does not allow guessing passwords. Each hash names its pepper
//! (`keyid` of the PHC string), so peppers can be rotated: new hashes use the first one, existing
//! ones are recomputed at the next login, and the others still verify.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use crate::{Error, PepperKey};

/// Maximum length of an id, in bytes (limit of the PHC string).
const MAX_ID_BYTES: usize = 8;

/// Length of a key, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// Peppers of an installation; new hashes use the first.
#[derive(Clone, Debug, Default)]
pub struct Peppers(Vec<Pepper>);

/// A pepper.
#[derive(Clone, Debug)]
pub(super) struct Pepper {
    pub(super) id: String,
    pub(super) key: PepperKey,
}

impl Peppers {
    /// Parses a comma-separated list of `id:key`, each key in Base64.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with the expected format.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = Error::Setting(
            "a pepper is an id of 1 to 8 letters or digits, a colon, and 16 to 64 bytes in Base64; \
             several have commas between, and ids of their own",
        );
        let mut peppers: Vec<Pepper> = Vec::new();
        for one in text.split(',') {
            let parsed = Pepper::parse(one.trim());
            match parsed.filter(|it| peppers.iter().all(|known| known.id != it.id)) {
                Some(pepper) => peppers.push(pepper),
                None => return Err(wrong),
            }
        }
        Ok(Self(peppers))
    }

    /// Returns the pepper of new hashes.
    pub(super) fn current(&self) -> Option<&Pepper> {
        self.0.first()
    }

    /// Returns the pepper with that id.
    pub(super) fn get(&self, id: &[u8]) -> Option<&Pepper> {
        self.0.iter().find(|pepper| pepper.id.as_bytes() == id)
    }
}

impl Pepper {
    fn parse(text: &str) -> Option<Self> {
        let (id, key) = text.split_once(':')?;
        let is_id = (1..=MAX_ID_BYTES).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let key = Zeroizing::new(BASE64_STANDARD.decode(key).ok()?);
        (is_id && KEY_BYTES.contains(&key.len()))
            .then(|| Self { id: id.to_owned(), key: PepperKey::new(key) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

    #[test]
    fn first_pepper_is_current_and_all_are_found_by_id() {
        let peppers = Peppers::parse(&format!("b:{KEY}, a:{KEY}")).unwrap();
        assert_eq!(peppers.current().unwrap().id, "b");
        assert!(peppers.get(b"a").is_some() && peppers.get(b"c").is_none());
        assert!(Peppers::default().current().is_none());
        assert!(!format!("{peppers:?}").contains("48, 49"), "{peppers:?}");
    }

    #[test]
    fn malformed_peppers_are_rejected() {
        for wrong in [
            "",
            KEY,
            &format!(":{KEY}"),
            &format!("ninechars:{KEY}"),
            &format!("a-b:{KEY}"),
            "a:",
            "a:MDEy",
            "a:not base64",
            &format!("a:{KEY},a:{KEY}"),
            &format!("a:{KEY},"),
        ] {
            assert!(matches!(Peppers::parse(wrong), Err(Error::Setting(_))), "{wrong}");
        }
    }
}
