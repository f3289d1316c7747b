//! Atomic operations (manual: "Atomic operations"). Corner cases follow recordings of a real
//! FoundationDB.

use super::limits::VALUE_SIZE_LIMIT;

/// An operation on a value without a read by the client.
///
/// Integers are unsigned, little-endian, and as long as the operand: longer values are truncated,
/// shorter ones are extended with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AtomicOp {
    /// The sum, which wraps around. A missing value becomes the operand.
    Add,
    /// The larger of two integers. A missing value becomes the operand.
    Max,
    /// The smaller of two integers. A missing value becomes the operand.
    Min,
    /// The bits set in both. A missing value becomes the operand.
    BitAnd,
    /// The bits set in either. A missing value becomes the operand.
    BitOr,
    /// The bits set in exactly one. A missing value becomes the operand.
    BitXor,
    /// The larger in byte order. A missing value becomes the operand.
    ByteMax,
    /// The smaller in byte order. A missing value becomes the operand.
    ByteMin,
    /// The value followed by the operand; unchanged if that would exceed the limit of values.
    AppendIfFits,
    /// No value if the value equals the operand; unchanged otherwise.
    CompareAndClear,
    /// The operand is the value; the key is a template for a versionstamp: see
    /// [`Transaction::set_versionstamped_key`](super::Transaction::set_versionstamped_key).
    SetVersionstampedKey,
    /// The operand is a template for a versionstamp: see
    /// [`Transaction::set_versionstamped_value`](super::Transaction::set_versionstamped_value).
    SetVersionstampedValue,
}

impl AtomicOp {
    /// Returns whether the outcome depends on the previous value.
    pub(super) fn reads_value(self) -> bool {
        !matches!(self, Self::SetVersionstampedKey | Self::SetVersionstampedValue)
    }

    /// Returns the outcome for `value`. A versionstamped operation returns its operand unchanged;
    /// the commit fills the stamp in.
    pub(super) fn apply(self, value: Option<&[u8]>, operand: &[u8]) -> Option<Vec<u8>> {
        let Some(value) = value else {
            return (self != Self::CompareAndClear).then(|| operand.to_vec());
        };
        Some(match self {
            Self::Add => {
                let mut carry = 0;
                zip(value, operand, |a, b| {
                    let sum = u16::from(a) + u16::from(b) + carry;
                    carry = sum >> 8;
                    sum.to_le_bytes()[0]
                })
            }
            Self::BitAnd => zip(value, operand, |a, b| a & b),
            Self::BitOr => zip(value, operand, |a, b| a | b),
            Self::BitXor => zip(value, operand, |a, b| a ^ b),
            Self::Max | Self::Min => {
                let value = zip(value, operand, |a, _| a);
                let value_is_less = value.iter().rev().lt(operand.iter().rev());
                if value_is_less == (self == Self::Max) { operand.to_vec() } else { value }
            }
            Self::ByteMax => value.max(operand).to_vec(),
            Self::ByteMin => value.min(operand).to_vec(),
            Self::AppendIfFits if value.len() + operand.len() > VALUE_SIZE_LIMIT => value.to_vec(),
            Self::AppendIfFits => [value, operand].concat(),
            Self::CompareAndClear if value == operand => return None,
            Self::CompareAndClear => value.to_vec(),
            Self::SetVersionstampedKey | Self::SetVersionstampedValue => operand.to_vec(),
        })
    }
}

/// Combines `value`, truncated or extended to the operand's length, with the operand bytewise.
fn zip(value: &[u8], operand: &[u8], mut combine: impl FnMut(u8, u8) -> u8) -> Vec<u8> {
    let value = value.iter().copied().chain(std::iter::repeat(0));
    value.zip(operand).map(|(a, &b)| combine(a, b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_little_endian_and_wrap_around() {
        let add = |value: u64, by: i64| {
            AtomicOp::Add.apply(Some(&value.to_le_bytes()), &by.to_le_bytes()).unwrap()
        };
        assert_eq!(add(255, 1), 256_u64.to_le_bytes());
        assert_eq!(add(5, -1), 4_u64.to_le_bytes());
        assert_eq!(add(u64::MAX, 1), 0_u64.to_le_bytes());
    }

    #[test]
    fn values_take_the_length_of_the_operand() {
        assert_eq!(AtomicOp::Add.apply(Some(b"\xff\xff"), b"\x01").unwrap(), b"\x00");
        assert_eq!(AtomicOp::Max.apply(Some(b"\x00\x01"), b"\x05").unwrap(), b"\x05");
        assert_eq!(AtomicOp::Min.apply(Some(b"\x01"), b"\xff\xff").unwrap(), b"\x01\x00");
        assert_eq!(AtomicOp::BitOr.apply(Some(b"abc"), b"").unwrap(), b"");
    }

    #[test]
    fn missing_value_becomes_the_operand_except_for_compare_and_clear() {
        assert_eq!(AtomicOp::Min.apply(None, b"\x07").unwrap(), b"\x07");
        assert_eq!(AtomicOp::BitAnd.apply(None, b"\x07").unwrap(), b"\x07");
        assert_eq!(AtomicOp::CompareAndClear.apply(None, b""), None);
    }

    #[test]
    fn append_beyond_the_limit_is_ignored() {
        let full = vec![7; VALUE_SIZE_LIMIT];
        assert_eq!(AtomicOp::AppendIfFits.apply(Some(&full), b"x").unwrap(), full);
        assert_eq!(AtomicOp::AppendIfFits.apply(Some(b"a"), b"b").unwrap(), b"ab");
    }
}
