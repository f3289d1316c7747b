//! Ranges of keys.

/// The first byte that no user key starts with.
const END_OF_USER_KEYS: u8 = 0xff;

/// The keys from `begin` (inclusive) to `end` (exclusive).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key of the range.
    pub begin: Vec<u8>,
    /// The first key after the range; not before `begin`.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// Returns the range of all keys that start with `prefix`; all user keys for an empty prefix.
    pub fn prefix(prefix: &[u8]) -> Self {
        let end = match prefix.iter().rposition(|&byte| byte != u8::MAX) {
            None => vec![END_OF_USER_KEYS],
            Some(last) => {
                let mut end = prefix[..=last].to_vec();
                end[last] += 1;
                end
            }
        };
        Self { begin: prefix.to_vec(), end }
    }

    /// Returns whether the range contains `key`.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begin.as_slice() <= key && key < self.end.as_slice()
    }
}
