//! Key rotation, as a pure function of the records.
//!
//! The caller reads all records and writes the result in one transaction: of concurrent rotations
//! one takes effect, and the others find it done.

use chrono::{DateTime, TimeDelta, Utc};

use super::{KeyState, SealedKey};
use crate::Error;

/// Returns the records that a rotation changes or adds: the active key retires, the oldest next key
/// is activated, a new next key is created, and retired keys whose tokens have expired are
/// destroyed. Without records, creates an active and a next key.
///
/// `token_life` is the maximum time for which a token is accepted after it was signed, leeway
/// included; `make` creates a key, and is called once or twice.
pub fn rotate(
    keys: &[SealedKey],
    now: DateTime<Utc>,
    token_life: TimeDelta,
    mut make: impl FnMut() -> Result<SealedKey, Error>,
) -> Result<Vec<SealedKey>, Error> {
    let mut changed = Vec::new();
    for key in keys {
        match key.state {
            KeyState::Active { .. } => changed.push(key.retire(now)?),
            // One that is still needed stays as it is, until another rotation.
            KeyState::Retired { .. } => changed.extend(key.destroy(now, token_life).ok()),
            KeyState::Next | KeyState::Destroyed { .. } => {}
        }
    }
    let oldest_next =
        keys.iter().filter(|key| key.state == KeyState::Next).min_by_key(|key| key.kid);
    let successor = match oldest_next {
        Some(key) => key.activate(now)?,
        None => make()?.activate(now)?,
    };
    changed.push(successor);
    changed.push(make()?);
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use zeroize::Zeroizing;

    use super::*;
    use crate::{KeyId, KeyRing, RootKey};

    const LIFE: TimeDelta = TimeDelta::minutes(15);

    /// The records, and what each rotation makes of them.
    struct Records(BTreeMap<KeyId, SealedKey>);

    impl Records {
        fn rotate(&mut self, seconds: i64) -> KeyRing {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            let root = RootKey::new(Zeroizing::new([1; 32]));
            let before: Vec<_> = self.0.values().cloned().collect();
            let changed = rotate(&before, now, LIFE, || SealedKey::generate(&root, now)).unwrap();
            self.0.extend(changed.into_iter().map(|key| (key.kid, key)));
            KeyRing::open(self.0.values(), &root).unwrap()
        }

        fn named(&self, state: &str) -> Vec<KeyId> {
            let of_state = self.0.values().filter(|key| key.state.name() == state);
            of_state.map(|key| key.kid).collect()
        }
    }

    #[test]
    fn first_rotation_creates_an_active_and_a_next_key() {
        let mut records = Records(BTreeMap::new());
        let ring = records.rotate(0);
        assert_eq!(records.named("active"), [ring.signing().kid()]);
        assert_eq!(records.named("next").len(), 1);
    }

    #[test]
    fn key_is_published_one_rotation_before_it_signs() {
        let mut records = Records(BTreeMap::new());
        let mut ring = records.rotate(0);
        for rotation in 1..5 {
            let published: Vec<KeyId> = ring.kids().collect();
            let signed_before = ring.signing().kid();
            ring = records.rotate(rotation * 10_000);
            assert!(published.contains(&ring.signing().kid()));
            assert_ne!(ring.signing().kid(), signed_before);
            assert!(ring.verifying().named(&signed_before.to_string()).is_some());
        }
    }

    #[test]
    fn rotations_in_quick_succession_forget_no_key_that_is_needed() {
        let mut records = Records(BTreeMap::new());
        for second in 0..4 {
            records.rotate(second);
        }
        assert_eq!(records.named("retired").len(), 3);
        assert!(records.named("destroyed").is_empty());

        records.rotate(10_000);
        assert_eq!(records.named("retired").len(), 1);
        assert_eq!(records.named("destroyed").len(), 3);
    }
}
