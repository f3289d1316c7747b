//! Paths of files, as clients write them: names with `/` between them, below the top of a session's
//! files, as file systems have them.

use coditect_store::model::File;

use crate::http::problem::{Field, Problem};

/// The longest path, in bytes.
const PATH_BYTES: usize = File::PATH_BYTES;
/// The longest name, in bytes.
const NAME_BYTES: usize = 255;
/// The most names in a path.
const DEPTH: usize = File::PATH_DEPTH;

/// `text` as the path of a file or a directory, said by the client in `field`. One `/` at its end does
/// no harm, one at its beginning neither.
///
/// # Errors
///
/// 422: it is none.
pub(super) fn parse(field: &str, text: &str) -> Result<String, Problem> {
    let path = text.strip_prefix('/').unwrap_or(text);
    let path = path.strip_suffix('/').unwrap_or(path);
    match fault(path) {
        None => Ok(path.to_owned()),
        Some(fault) => Err(Problem::validation(vec![Field::new(field, fault)])),
    }
}

/// The same, where nothing stands for the top.
///
/// # Errors
///
/// As [`parse`].
pub(super) fn parse_directory(field: &str, text: &str) -> Result<String, Problem> {
    if matches!(text, "" | "/") { Ok(String::new()) } else { parse(field, text) }
}

/// Refuses to bring `file`, with what lies `below` it, to the path `to`, if a path is too long then.
///
/// # Errors
///
/// 422: a path would be one that no route accepts.
pub(super) fn require_fit(file: &File, below: &[File], to: &str) -> Result<(), Problem> {
    if file.fits(below, to) {
        return Ok(());
    }
    let message = format!(
        "must leave all that lies below it within {DEPTH} names and {PATH_BYTES} bytes of path"
    );
    Err(Problem::invalid_field("VALIDATION_FAILED", "to", &message))
}

fn fault(path: &str) -> Option<String> {
    if path.len() > PATH_BYTES {
        return Some(format!("must be at most {PATH_BYTES} bytes long"));
    }
    if path.split('/').count() > DEPTH {
        return Some(format!("must have at most {DEPTH} names"));
    }
    path.split('/').find_map(|name| match name {
        "" => Some("must have no empty name in it".to_owned()),
        "." | ".." => Some("must not have . or .. in it".to_owned()),
        _ if name.len() > NAME_BYTES => {
            Some(format!("must have no name longer than {NAME_BYTES} bytes"))
        }
        _ if name.contains(char::is_control) => {
            Some("must have no control characters in it".to_owned())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_names_below_the_top() {
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
    fn what_leads_elsewhere_or_nowhere_is_refused() {
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
