//! Paths of files in requests: names separated by `/`, relative to the root of a session's files.

use coditect_store::model::File;

use crate::http::problem::{Field, Problem};

/// Maximum length of a path, in bytes.
const MAX_PATH_BYTES: usize = File::PATH_BYTES;
/// Maximum length of a name, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// Maximum number of names in a path.
const MAX_DEPTH: usize = File::PATH_DEPTH;

/// Returns the path in `text`, the value of `field`. One `/` at the start and one at the end are
/// ignored.
///
/// # Errors
///
/// 422 if `text` is not a path.
pub(super) fn parse(field: &str, text: &str) -> Result<String, Problem> {
    let path = text.strip_prefix('/').unwrap_or(text);
    let path = path.strip_suffix('/').unwrap_or(path);
    match fault(path) {
        None => Ok(path.to_owned()),
        Some(fault) => Err(Problem::validation(vec![Field::new(field, fault)])),
    }
}

/// Like [`parse`], with the empty path for the root.
///
/// # Errors
///
/// Same as [`parse`].
pub(super) fn parse_directory(field: &str, text: &str) -> Result<String, Problem> {
    if matches!(text, "" | "/") { Ok(String::new()) } else { parse(field, text) }
}

/// Fails if moving `file`, with the entries `below` it, to `to` would make a path too long.
///
/// # Errors
///
/// 422 if a path would exceed the limits of requests.
pub(super) fn require_fit(file: &File, below: &[File], to: &str) -> Result<(), Problem> {
    if file.fits(below, to) {
        return Ok(());
    }
    let message = format!(
        "is too long: no path below it may exceed {MAX_DEPTH} names or {MAX_PATH_BYTES} bytes"
    );
    Err(Problem::invalid_field("VALIDATION_FAILED", "to", &message))
}

fn fault(path: &str) -> Option<String> {
    if path.len() > MAX_PATH_BYTES {
        return Some(format!("must have at most {MAX_PATH_BYTES} bytes"));
    }
    if path.split('/').count() > MAX_DEPTH {
        return Some(format!("must have at most {MAX_DEPTH} names"));
    }
    path.split('/').find_map(|name| match name {
        "" => Some("must not contain an empty name".to_owned()),
        "." | ".." => Some("must not contain . or ..".to_owned()),
        _ if name.len() > MAX_NAME_BYTES => {
            Some(format!("must not contain a name longer than {MAX_NAME_BYTES} bytes"))
        }
        _ if name.contains(char::is_control) => {
            Some("must not contain control characters".to_owned())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_normalized() {
        for (text, path) in [
            ("a", "a"),
            ("/a/b", "a/b"),
            ("a/b/", "a/b"),
            ("é b/c.d", "é b/c.d"),
            ("...", "..."),
            (".git/config", ".git/config"),
            ("a\\b", "a\\b"),
        ] {
            assert_eq!(parse("path", text).unwrap(), path);
        }
        assert_eq!(parse_directory("path", "").unwrap(), "");
        assert_eq!(parse_directory("path", "/").unwrap(), "");
    }

    #[test]
    fn invalid_paths_are_refused() {
        let long = "n".repeat(256);
        let deep = vec!["d"; 65].join("/");
        let much = vec!["n".repeat(250); 20].join("/");
        let wrong =
            ["", "/", "//", "a//b", ".", "..", "a/../b", "a/.", "../a", "a\0b", "a\nb", "a//"];
        for text in wrong.into_iter().chain([&*long, &*deep, &*much]) {
            assert_eq!(parse("path", text).unwrap_err().code(), "VALIDATION_FAILED", "{text:?}");
        }
    }
}
