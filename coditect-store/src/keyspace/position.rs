//! Positions: where in a log a record is, which is when it was committed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::Versionstamp;

/// Where in a log a record is: the versionstamp of the commit that appended it, and how many that
/// transaction had appended before it. Positions sort as the commits did, and have gaps. They are
/// no times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    stamp: Versionstamp,
    order: u16,
}

impl Position {
    /// How a tuple says that a versionstamp follows.
    pub(crate) const CODE: u8 = 0x33;

    pub(crate) fn new(stamp: Versionstamp, order: u16) -> Self {
        Self { stamp, order }
    }

    /// The stamp of the commit.
    pub fn versionstamp(self) -> Versionstamp {
        self.stamp
    }

    /// How many the same transaction had appended before it, to whatever logs.
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
    /// As hexadecimal digits, which sort as the positions do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Position(")?;
        for byte in self.to_bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}
