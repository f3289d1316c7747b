//! FoundationDB's error codes, and what a caller is to do about each (manual: "Error codes").
//!
//! Both engines answer with them, so this is the one place that says what they mean.

use crate::ErrorKind;

/// What was being done when an error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    /// A read, or anything else before the commit: nothing can have been written.
    Read,
    /// The commit, which may have come through.
    Commit,
}

/// What the error `code` means to whoever gets it.
pub(super) fn kind(code: i32, during: During) -> ErrorKind {
    match (code, during) {
        (1020, _) => ErrorKind::Conflict,
        (1007, _) => ErrorKind::TransactionTooOld,
        // The answer is lost (1021); it was given up, and may come through even later (1031, 1039, 1101).
        (1021, _) | (1031 | 1039 | 1101, During::Commit) => ErrorKind::MaybeCommitted,
        (code, During::Commit) if code != 1039 && is_passing(code) => ErrorKind::Unavailable,
        (1025 | 1101, _) => ErrorKind::Closed,
        (1032 | 2101..=2103, _) => ErrorKind::Limit,
        // What the network, or the library, has against it.
        (2008 | 2100 | 2104..=2107 | 2200..=2204, _) => ErrorKind::Unavailable,
        (1036 | 2000..=2999, _) => ErrorKind::Invalid,
        // Of what is not known it is not known either what it did.
        (_, During::Commit) => ErrorKind::MaybeCommitted,
        (_, During::Read) => ErrorKind::Unavailable,
    }
}

/// Whether `code`, where it means that nothing was written, is one that goes away by itself soon: a
/// server that lags behind (1009, 1037), a locked database (1038), changed servers (1039), too much to do
/// (1042, 1051, 1078, 1213, 1223, 1235).
pub(crate) fn is_passing(code: i32) -> bool {
    matches!(code, 1009 | 1037 | 1038 | 1039 | 1042 | 1051 | 1078 | 1213 | 1223 | 1235)
}

/// Whether a commit that is answered with `code` may come through after that answer: it was given up (1031,
/// 1101), or is with a connection that another has taken the place of (1039). Another unknown outcome that a
/// cluster tells is decided by then (1021).
pub(crate) fn may_be_in_flight(code: i32) -> bool {
    matches!(code, 1031 | 1039 | 1101)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_written_is_told_from_what_may_be() {
        for (code, reading, committing) in [
            (1007, ErrorKind::TransactionTooOld, ErrorKind::TransactionTooOld),
            (1009, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (1020, ErrorKind::Conflict, ErrorKind::Conflict),
            (1021, ErrorKind::MaybeCommitted, ErrorKind::MaybeCommitted),
            (1025, ErrorKind::Closed, ErrorKind::Closed),
            (1031, ErrorKind::Unavailable, ErrorKind::MaybeCommitted),
            (1032, ErrorKind::Limit, ErrorKind::Limit),
            (1036, ErrorKind::Invalid, ErrorKind::Invalid),
            (1039, ErrorKind::Unavailable, ErrorKind::MaybeCommitted),
            (1101, ErrorKind::Closed, ErrorKind::MaybeCommitted),
            (1213, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (1510, ErrorKind::Unavailable, ErrorKind::MaybeCommitted),
            (4100, ErrorKind::Unavailable, ErrorKind::MaybeCommitted),
            (2004, ErrorKind::Invalid, ErrorKind::Invalid),
            (2101, ErrorKind::Limit, ErrorKind::Limit),
            (2104, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (2203, ErrorKind::Unavailable, ErrorKind::Unavailable),
        ] {
            assert_eq!(kind(code, During::Read), reading, "{code}");
            assert_eq!(kind(code, During::Commit), committing, "{code}");
        }
    }

    #[test]
    fn nothing_that_may_be_written_passes_by_itself() {
        for code in (0..3_000).filter(|code| is_passing(*code)) {
            assert_eq!(kind(code, During::Read), ErrorKind::Unavailable, "{code}");
            let is_unknown = kind(code, During::Commit) == ErrorKind::MaybeCommitted;
            assert_eq!(may_be_in_flight(code), is_unknown, "{code}");
        }
    }
}
