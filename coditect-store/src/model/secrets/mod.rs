//! Detection of secrets in variables and shell commands, by rules that each tenant can extend.
//!
//! The rules prefer false positives: a terminal's state is a convenience, and a secret in it is
//! readable by every client of the session and in every backup.

mod command;
mod rules;

use std::{
    collections::HashMap,
    fmt,
    sync::{LazyLock, Mutex, PoisonError},
};

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::Value;

use self::rules::{NAME, NOT_SECRET_NAME};

/// Replacement for a secret in a command.
pub const REDACTED: &str = "***";

/// Maximum number of patterns in each list of a tenant.
pub const MAX_SECRET_PATTERNS: usize = 16;

/// Maximum length of a tenant's pattern, in bytes.
pub const MAX_SECRET_PATTERN_BYTES: usize = 256;

/// Maximum size of a tenant's compiled pattern, in bytes.
const MAX_COMPILED_BYTES: usize = 256 << 10;

/// Maximum size of the memory of a tenant's pattern while it is matched, in bytes, for each thread.
const MAX_MATCHING_BYTES: usize = 128 << 10;

/// Maximum number of compiled patterns that the process keeps.
const MAX_CACHED_PATTERNS: usize = 256;

/// The compiled patterns of tenants, by their JSON.
static CACHE: LazyLock<Mutex<HashMap<String, SecretRules>>> = LazyLock::new(Mutex::default);

/// The built-in rules, and the patterns that a tenant adds to them.
#[derive(Clone, Debug, Default)]
pub struct SecretRules {
    variable_names: Vec<Regex>,
    values: Vec<Regex>,
}

/// A tenant's patterns, in JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SecretPatterns {
    variable_names: Vec<String>,
    values: Vec<String>,
}

/// An error in a tenant's patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSecretPatterns {
    /// Path of the invalid pattern, such as `values[0]`; empty if the whole is invalid.
    pub path: String,
    /// Reason.
    pub reason: String,
}

impl fmt::Display for InvalidSecretPatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "{}: {}", self.path, self.reason)
    }
}

impl std::error::Error for InvalidSecretPatterns {}

impl SecretRules {
    /// Adds the patterns of `json` to the built-in rules: `{"variable_names": [regex, …], "values":
    /// [regex, …]}`. Each is compiled once, as long as it is among the `MAX_CACHED_PATTERNS` that
    /// are kept.
    ///
    /// # Errors
    ///
    /// Fails if `json` has another shape, a list has more than [`MAX_SECRET_PATTERNS`] patterns, or
    /// a pattern is longer than [`MAX_SECRET_PATTERN_BYTES`], does not compile, compiles to too
    /// much, or matches the empty string.
    pub fn with_patterns(json: &Value) -> Result<Self, InvalidSecretPatterns> {
        if !json.is_object() {
            let reason =
                "must be an object with the lists `variable_names` and `values`".to_owned();
            return Err(InvalidSecretPatterns { path: String::new(), reason });
        }
        let patterns = SecretPatterns::deserialize(json).map_err(|error| {
            InvalidSecretPatterns { path: String::new(), reason: error.to_string() }
        })?;
        let key = json.to_string();
        let cache = || CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rules) = cache().get(&key) {
            return Ok(rules.clone());
        }
        let rules = Self {
            variable_names: compile("variable_names", &patterns.variable_names)?,
            values: compile("values", &patterns.values)?,
        };
        let mut cache = cache();
        let cached: usize = cache.values().map(Self::patterns).sum();
        if cached + rules.patterns() > MAX_CACHED_PATTERNS {
            cache.clear();
        }
        cache.insert(key, rules.clone());
        Ok(rules)
    }

    /// Returns the number of a tenant's patterns in it.
    fn patterns(&self) -> usize {
        self.variable_names.len() + self.values.len()
    }

    /// Returns whether a variable contains a secret, by its name or its value.
    pub fn is_secret_variable(&self, name: &str, value: &str) -> bool {
        self.is_secret_name(name) || !self.find(value).is_empty()
    }

    /// Returns whether a variable, option or header of this name contains a secret.
    pub fn is_secret_name(&self, name: &str) -> bool {
        NAME.is_match(name) && !NOT_SECRET_NAME.is_match(name)
            || self.variable_names.iter().any(|pattern| pattern.is_match(name))
    }

    /// Returns `command` with each secret replaced by [`REDACTED`], or `None` if it has none.
    /// Redacted text is unchanged.
    pub fn redact(&self, command: &str) -> Option<String> {
        let secrets = self.find(command);
        let (last, mut redacted) = (secrets.last()?.end, String::with_capacity(command.len()));
        let mut kept = 0;
        for secret in &secrets {
            redacted.push_str(&command[kept..secret.start]);
            redacted.push_str(REDACTED);
            kept = secret.end;
        }
        redacted.push_str(&command[last..]);
        Some(redacted)
    }
}

fn compile(list: &str, patterns: &[String]) -> Result<Vec<Regex>, InvalidSecretPatterns> {
    let invalid = |path: String, reason: String| Err(InvalidSecretPatterns { path, reason });
    if patterns.len() > MAX_SECRET_PATTERNS {
        let reason = format!("has {} patterns; at most {MAX_SECRET_PATTERNS}", patterns.len());
        return invalid(list.to_owned(), reason);
    }
    let mut compiled = Vec::with_capacity(patterns.len());
    for (index, pattern) in patterns.iter().enumerate() {
        let path = format!("{list}[{index}]");
        if pattern.len() > MAX_SECRET_PATTERN_BYTES {
            return invalid(path, format!("must be at most {MAX_SECRET_PATTERN_BYTES} bytes long"));
        }
        let mut regex = RegexBuilder::new(pattern);
        regex.size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_MATCHING_BYTES);
        let regex = regex.build();
        match regex {
            Ok(regex) if regex.is_match("") => {
                return invalid(path, "must not match the empty string".to_owned());
            }
            Ok(regex) => compiled.push(regex),
            Err(error) => {
                // A syntax error quotes the pattern first; its last line is the reason.
                let error = error.to_string();
                let reason = error.lines().next_back().unwrap_or_default();
                let reason = reason.trim_start_matches("error: ");
                return invalid(path, format!("is not a valid regular expression: {reason}"));
            }
        }
    }
    Ok(compiled)
}

#[cfg(test)]
mod tests;
