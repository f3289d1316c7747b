//! Scopes of personal access tokens.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Maximum number of scopes of a token.
const MAX_SCOPES: usize = 20;
/// Maximum length of a scope, in characters.
const MAX_SCOPE_CHARS: usize = 64;

/// A permission of this service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// Read what the user may read.
    Read,
    /// Read and write.
    Write,
}

/// The sorted scopes of a token: `read`, `write`, and those of other services
/// (`service:permission`), which are opaque here and passed on to the services that verify the
/// token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scopes(Vec<String>);

/// Reason for which scopes are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError {
    /// There is none, or more than 20.
    #[error("a token must have 1 to {MAX_SCOPES} scopes")]
    Count,
    /// A scope is neither `read` nor `write` nor of the form `service:permission`.
    #[error("a scope must be `read`, `write`, or `service:permission`")]
    Form,
}

impl Scopes {
    /// Returns the scopes, sorted and deduplicated.
    ///
    /// # Errors
    ///
    /// [`ScopeError`].
    pub fn new<S: AsRef<str>>(scopes: &[S]) -> Result<Self, ScopeError> {
        let mut all: Vec<String> = scopes.iter().map(|scope| scope.as_ref().to_owned()).collect();
        if all.iter().any(|scope| !is_ours(scope) && !is_anothers(scope)) {
            return Err(ScopeError::Form);
        }
        all.sort_unstable();
        all.dedup();
        if all.is_empty() || all.len() > MAX_SCOPES {
            Err(ScopeError::Count)
        } else {
            Ok(Self(all))
        }
    }

    /// Returns whether the scopes include `scope`. `write` includes `read`.
    pub fn allow(&self, scope: Scope) -> bool {
        let has = |name: &str| self.0.iter().any(|scope| scope == name);
        match scope {
            Scope::Read => has("read") || has("write"),
            Scope::Write => has("write"),
        }
    }

    /// Returns the names.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Scopes {
    /// Separated by spaces, as in OAuth (RFC 6749, section 3.3).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::new(&text.split_ascii_whitespace().collect::<Vec<_>>())
    }
}

fn is_ours(scope: &str) -> bool {
    matches!(scope, "read" | "write")
}

fn is_anothers(scope: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte)
            })
    };
    scope.len() <= MAX_SCOPE_CHARS
        && scope.split_once(':').is_some_and(|(service, what)| is_word(service) && is_word(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_includes_read_but_not_vice_versa() {
        let (read, write) = (Scopes::new(&["read"]).unwrap(), Scopes::new(&["write"]).unwrap());
        assert!(read.allow(Scope::Read) && !read.allow(Scope::Write));
        assert!(write.allow(Scope::Read) && write.allow(Scope::Write));
    }

    #[test]
    fn foreign_scope_allows_nothing() {
        let scopes = Scopes::new(&["ci:write"]).unwrap();
        assert!(!scopes.allow(Scope::Read) && !scopes.allow(Scope::Write));
    }

    #[test]
    fn scopes_are_sorted_and_deduplicated() {
        let scopes = Scopes::new(&["write", "ci:deploy", "read", "write"]).unwrap();
        assert_eq!(scopes.to_string(), "ci:deploy read write");
        assert_eq!(scopes.to_string().parse(), Ok(scopes));
    }

    #[test]
    fn malformed_scopes_are_rejected() {
        let long = format!("ci:{}", "x".repeat(MAX_SCOPE_CHARS));
        for wrong in ["", "admin", "Read", "ci:", ":x", "ci:a b", "ci:a:b", "ci:é", &long] {
            assert_eq!(Scopes::new(&[wrong]), Err(ScopeError::Form), "{wrong}");
        }
        assert_eq!(Scopes::new::<&str>(&[]), Err(ScopeError::Count));
        let many: Vec<String> = (0..=MAX_SCOPES).map(|n| format!("ci:{n}")).collect();
        assert_eq!(Scopes::new(&many), Err(ScopeError::Count));
    }
}
