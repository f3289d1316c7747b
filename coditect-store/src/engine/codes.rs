//! FoundationDB's error codes and their treatment (manual: "Error codes"), for both engines.

use crate::ErrorKind;

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum During {
    /// A read, or anything else before the commit: nothing was written.
    Read,
    /// The commit, which may have been applied.
    Commit,
}

/// Returns the kind of the error `code`.
pub(super) fn kind(code: i32, during: During) -> ErrorKind {
    match (code, during) {
        (1020, _) => ErrorKind::Conflict,
        (1007, _) => ErrorKind::TransactionTooOld,
        // The reply was lost (1021), or the commit was abandoned and may be applied later (1031,
        // 1039, 1101).
        (1021, _) | (1031 | 1039 | 1101, During::Commit) => ErrorKind::MaybeCommitted,
        (code, During::Commit) if code != 1039 && is_passing(code) => ErrorKind::Unavailable,
        (1025 | 1101, _) => ErrorKind::Closed,
        (1032 | 2101..=2103, _) => ErrorKind::Limit,
        // Errors of the network or the library.
        (2008 | 2100 | 2104..=2107 | 2200..=2204, _) => ErrorKind::Unavailable,
        (1036 | 2000..=2999, _) => ErrorKind::Invalid,
        // The effect of an unlisted code is unknown.
        (_, During::Commit) => ErrorKind::MaybeCommitted,
        (_, During::Read) => ErrorKind::Unavailable,
    }
}

/// Returns whether `code`, if nothing was written, is temporary: a server that lags behind (1009,
/// 1037), a locked database (1038), changed servers (1039), overload (1042, 1051, 1078, 1213, 1223,
/// 1235).
pub(crate) fn is_passing(code: i32) -> bool {
    matches!(code, 1009 | 1037 | 1038 | 1039 | 1042 | 1051 | 1078 | 1213 | 1223 | 1235)
}

/// Returns whether a commit that fails with `code` may still be applied after the reply: it was
/// abandoned (1031, 1101), or its connection was replaced (1039). Other unknown outcomes of a
/// cluster are decided by then (1021).
pub(crate) fn may_be_in_flight(code: i32) -> bool {
    matches!(code, 1031 | 1039 | 1101)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_map_to_kinds_by_operation() {
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
    fn temporary_errors_of_a_commit_are_unknown_outcomes_or_unwritten() {
        for code in (0..3_000).filter(|code| is_passing(*code)) {
            assert_eq!(kind(code, During::Read), ErrorKind::Unavailable, "{code}");
            let is_unknown = kind(code, During::Commit) == ErrorKind::MaybeCommitted;
            assert_eq!(may_be_in_flight(code), is_unknown, "{code}");
        }
    }
}
