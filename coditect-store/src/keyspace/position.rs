//! Positions of events in a stream.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::Versionstamp;

/// The position of an event in a stream: the versionstamp of the commit that appended it, and its
/// order within that transaction. Positions sort in commit order, and have gaps. They are not
/// timestamps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    stamp: Versionstamp,
    order: u16,
}

impl Position {
    /// Type code of a versionstamp in a tuple.
    pub(crate) const CODE: u8 = 0x33;

    pub(crate) fn new(stamp: Versionstamp, order: u16) -> Self {
        Self { stamp, order }
    }

    /// Returns the versionstamp of the commit.
    pub fn versionstamp(self) -> Versionstamp {
        self.stamp
    }

    /// Returns the number of events that the transaction appended before this one, to any stream.
    pub fn order(self) -> u16 {
        self.order
    }

    pub(super) fn to_bytes(self) -> [u8; Versionstamp::LEN + 2] {
        let mut bytes = [0; Versionstamp::LEN + 2];
        bytes[..Versionstamp::LEN].copy_from_slice(self.stamp.as_bytes());
        bytes[Versionstamp::LEN..].copy_from_slice(&self.order.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Versionstamp::LEN + 2]) -> Self {
        let [stamp @ .., high, low] = bytes;
        Self { stamp: stamp.into(), order: u16::from_be_bytes([high, low]) }
    }
}

impl fmt::Debug for Position {
    /// Formats the position as hexadecimal digits, which sort as positions do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Position(")?;
        for byte in self.to_bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
