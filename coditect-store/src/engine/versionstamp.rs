//! Versionstamps: ten bytes that sort in commit order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The versionstamp of a commit: eight bytes of version and two bytes of order within the version,
/// big-endian, so that stamps sort in commit order. Stamps have gaps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Versionstamp([u8; Versionstamp::LEN]);

impl Versionstamp {
    /// Length, in bytes.
    pub const LEN: usize = 10;

    pub(crate) fn new(version: u64, order: u16) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&version.to_be_bytes());
        bytes[8..].copy_from_slice(&order.to_be_bytes());
        Self(bytes)
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Returns the version of the commit.
    pub fn version(self) -> u64 {
        let mut version = [0; 8];
        version.copy_from_slice(&self.0[..8]);
        u64::from_be_bytes(version)
    }
}

impl From<[u8; Versionstamp::LEN]> for Versionstamp {
    fn from(bytes: [u8; Versionstamp::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Versionstamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Versionstamp(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// Returns the operand for a stamp between `prefix` and `suffix`: a placeholder, followed by its
/// offset in four bytes, little-endian.
pub(super) fn template(prefix: &[u8], suffix: &[u8]) -> Vec<u8> {
    // An overlong prefix makes an invalid template, which the commit refuses.
    let offset = u32::try_from(prefix.len()).unwrap_or(u32::MAX);
    [prefix, &[0; Versionstamp::LEN], suffix, &offset.to_le_bytes()].concat()
}

/// Splits a template into its bytes and the offset of the stamp. Returns `None` if the stamp does
/// not fit.
pub(super) fn split_template(template: &[u8]) -> Option<(&[u8], usize)> {
    let (bytes, offset) = template.split_last_chunk::<4>()?;
    let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
    (offset.checked_add(Versionstamp::LEN)? <= bytes.len()).then_some((bytes, offset))
}

/// Returns the bytes of a template with `stamp` filled in.
pub(super) fn fill(template: &[u8], stamp: Versionstamp) -> Option<Vec<u8>> {
    let (bytes, offset) = split_template(template)?;
    let mut bytes = bytes.to_vec();
    bytes[offset..offset + Versionstamp::LEN].copy_from_slice(&stamp.0);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_sort_by_version_then_order() {
        assert!(Versionstamp::new(1, 65_535) < Versionstamp::new(2, 0));
        assert!(Versionstamp::new(255, 0) < Versionstamp::new(256, 0));
        assert!(Versionstamp::new(7, 1) < Versionstamp::new(7, 2));
        assert_eq!(Versionstamp::new(77, 3).version(), 77);
    }

    #[test]
    fn template_is_filled_at_its_offset() {
        let stamp = Versionstamp::new(0x0102_0304_0506_0708, 0x090a);
        let filled = fill(&template(b"p", b"s"), stamp).unwrap();
        assert_eq!(filled, b"p\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0as");
    }

    #[test]
    fn template_without_room_for_the_stamp_is_refused() {
        assert_eq!(split_template(b""), None);
        assert_eq!(split_template(b"\0\0\0"), None);
        assert_eq!(split_template(b"123456789\0\0\0\0"), None, "nine bytes hold no stamp");
        assert_eq!(split_template(b"1234567890\x01\0\0\0"), None, "one past the end");
        assert_eq!(split_template(b"1234567890\xff\xff\xff\xff"), None);
        assert_eq!(split_template(b"1234567890\0\0\0\0"), Some((&b"1234567890"[..], 0)));
    }
}
