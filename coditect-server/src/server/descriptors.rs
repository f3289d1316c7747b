//! The limit on open files, of which connections must leave some to the store.
//!
//! The soft limit is 1,024 on most systems, the hard one much larger. A server whose connections
//! hold the last descriptor cannot extend its log, so every write would fail while they are open.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors never used for connections: for the store's files, archives, the admin socket and
/// the runtime.
const RESERVED: u64 = 256;

/// Minimum number of connections for the server to start.
const MIN_CONNECTIONS: u64 = 16;

/// Raises the soft limit on open files as far as `max_connections` needs. Returns the number of
/// connections that it permits, which is lower if the hard limit is too low.
///
/// # Errors
///
/// The hard limit does not permit [`MIN_CONNECTIONS`].
pub(crate) fn reserve(max_connections: usize) -> io::Result<usize> {
    let needed = (max_connections as u64).saturating_add(RESERVED);
    let limit = raise(needed);
    let Some(allowed) = allowed(max_connections, limit) else {
        let least = RESERVED + MIN_CONNECTIONS;
        let message = format!(
            "the limit on open files is {}, but at least {least} are needed: raise it (ulimit -n, \
             LimitNOFILE= in systemd)",
            limit.unwrap_or_default()
        );
        return Err(io::Error::other(message));
    };
    if allowed < max_connections {
        tracing::warn!(
            open_files = limit,
            max_connections,
            allowed,
            "limit on open files is too low for --max-connections: accepting fewer connections"
        );
    }
    Ok(allowed)
}

/// Returns the number of connections that `limit` open files permit; `None` if it is below the
/// minimum. A `limit` of `None` means no limit.
fn allowed(max_connections: usize, limit: Option<u64>) -> Option<usize> {
    let Some(limit) = limit else { return Some(max_connections) };
    let left = limit.saturating_sub(RESERVED);
    if left < MIN_CONNECTIONS.min(max_connections as u64) {
        return None;
    }
    Some(max_connections.min(usize::try_from(left).unwrap_or(usize::MAX)))
}

/// Raises the soft limit to `needed` as far as the hard limit permits, and returns the resulting
/// limit.
fn raise(needed: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let Some(soft) = current.filter(|soft| *soft < needed) else { return current };
    let target = maximum.map_or(needed, |hard| hard.min(needed));
    let raised = Rlimit { current: Some(target), maximum };
    // Some systems have a lower limit in addition to the hard one; the soft limit is then
    // unchanged.
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(target),
        Err(_) => Some(soft),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_reserve_to_the_store() {
        for (max_connections, limit, expected) in [
            (10_000, None, Some(10_000)),
            (10_000, Some(1 << 20), Some(10_000)),
            (10_000, Some(1_024), Some(768)),
            (500, Some(1_024), Some(500)),
            (10_000, Some(272), Some(16)),
            (10_000, Some(271), None),
            (1, Some(257), Some(1)),
            (1, Some(256), None),
            (10_000, Some(0), None),
        ] {
            assert_eq!(allowed(max_connections, limit), expected, "{max_connections} {limit:?}");
        }
    }

    #[test]
    fn soft_limit_is_raised_up_to_the_hard_limit() {
        let before = getrlimit(Resource::Nofile);
        let hard = before.maximum.unwrap_or(1 << 20);
        let limit = raise(hard.min(4_096));
        assert!(limit.is_none_or(|limit| limit >= hard.min(4_096)), "{limit:?} of {before:?}");
    }
}
