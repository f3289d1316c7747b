//! Peppers: keys that go into the hashes of passwords, and are not in the store.
//!
//! Whoever has a copy of the store then still has nothing to try passwords against. The id of the one
//! that a hash was made with stands beside it (`keyid` of the PHC string), so that another can take its
//! place: hashes are made anew with the first of them at the next sign-in, and the others still verify.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use crate::{Error, PepperKey};

/// The longest id: Argon2 has no room for more (its specification, section 3.1, gives none; the PHC
/// string has eight bytes).
const MAX_ID_BYTES: usize = 8;

/// What a key has, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// The peppers of an installation: new hashes get the first.
#[derive(Clone, Debug, Default)]
pub struct Peppers(Vec<Pepper>);

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct Pepper {
    pub(super) id: String,
    pub(super) key: PepperKey,
}

impl Peppers {
    /// Reads them: `id:key`, several with commas between, each key in Base64.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] says what they are to look like.
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

    /// The one for new hashes.
    pub(super) fn current(&self) -> Option<&Pepper> {
        self.0.first()
    }

    /// The one of that id.
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
    fn the_first_is_for_new_hashes_and_all_are_found_by_their_ids() {
        let peppers = Peppers::parse(&format!("b:{KEY}, a:{KEY}")).unwrap();
        assert_eq!(peppers.current().unwrap().id, "b");
        assert!(peppers.get(b"a").is_some() && peppers.get(b"c").is_none());
        assert!(Peppers::default().current().is_none());
        assert!(!format!("{peppers:?}").contains("48, 49"), "{peppers:?}");
    }

    #[test]
    fn what_is_no_pepper_is_refused() {
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
