//! Secrets in text: by format, and by the name they are assigned to.

use std::{ops::Range, sync::LazyLock};

use regex::{Captures, Regex};

use super::{
    SecretRules,
    rules::{RULES, SET, regex},
};

/// A pattern of a name followed by its value: it ends where the value starts, and its first group
/// is the name.
struct Assignment {
    name: Regex,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `NAME=value`; the value is a shell word.
    Variable,
    /// `--name value`.
    Option,
    /// `set NAME value`, `$env:NAME = value`.
    Statement,
    /// A header's field or a member of JSON; the value extends to the next quote.
    Quoted,
    /// A header's field without quotes; the value extends to the next blank.
    Unquoted,
}

static ASSIGNMENTS: LazyLock<[Assignment; 7]> = LazyLock::new(|| {
    [
        (r"([A-Za-z_][\w.-]*)=", Kind::Variable),
        (r"--?([A-Za-z][\w-]+)\s+", Kind::Option),
        (r"(?:^|[;&|\n]\s*)(?:set|setenv|setx)(?:\s+-\w+)*\s+([A-Za-z_]\w*)\s+", Kind::Statement),
        (r"(?i)\$env:(\w+)\s*=\s*", Kind::Statement),
        (
            concat!(
                r#"(?:-H\s*|--header[=\s]\s*)["']([\w-]+)\s*:\s*"#,
                r"(?:(?i:bearer|basic|token|digest)\s+)?"
            ),
            Kind::Quoted,
        ),
        (r"(?:-H\s*|--header[=\s]\s*)([\w-]+):", Kind::Unquoted),
        (r#"["']([\w.-]+)\\?["']\s*:\s*\\?["']"#, Kind::Quoted),
    ]
    .map(|(name, kind)| Assignment { name: regex(name), kind })
});

/// A word of the shell outside quotes, in single quotes and in double quotes.
static WORD: LazyLock<[Regex; 3]> = LazyLock::new(|| {
    [
        r#"(?s)^(?:'[^']*'?|"(?:\\.|[^"\\])*"?|\\.|[^\s;&|<>()'"\\`])+"#,
        r#"(?s)^(?:"(?:\\.|[^"\\'])*"?|\\[^']|[^\s;&|<>()'"\\`])+"#,
        r#"(?s)^(?:'[^'"]*'?|\\"[^"\\]*(?:\\")?|\\.|[^\s;&|<>()'"\\`])+"#,
    ]
    .map(regex)
});

/// A value that refers to another one: a variable, or the output of a command.
static REFERENCE: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"^\\?"?(?:\$(?:\w+|\{\w+\})\\?"?$|\$\(|%\w+%$|`)"#));

/// The start of a value that is the output of a command.
static SUBSTITUTION: LazyLock<Regex> = LazyLock::new(|| regex(r#"^\\?"?(?:\$\(|`)"#));

impl SecretRules {
    /// Returns the ranges of the secrets in `text`, in order and disjoint.
    pub(super) fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for rule in SET.matches(text) {
            let (command, pattern) = &RULES[rule];
            if command.as_ref().is_none_or(|command| command.is_match(text)) {
                found.extend(pattern.captures_iter(text).filter_map(|found| secret(&found)));
            }
        }
        for pattern in &self.values {
            found.extend(pattern.captures_iter(text).filter_map(|found| secret(&found)));
        }
        self.find_assigned(text, &mut found);
        found.retain(|range| !range.is_empty() && !REFERENCE.is_match(&text[range.clone()]));
        merge(text, found)
    }

    /// Adds values that are assigned to a secret name.
    fn find_assigned(&self, text: &str, found: &mut Vec<Range<usize>>) {
        let mut quotes = None;
        for Assignment { name: pattern, kind } in &*ASSIGNMENTS {
            let mut from = 0;
            while let Some(captures) = pattern.captures_at(text, from) {
                let (Some(all), Some(name)) = (captures.get(0), captures.get(1)) else { break };
                from = all.end();
                if !self.is_secret_name(name.as_str()) {
                    continue;
                }
                let before = text[..all.start()].chars().next_back();
                let quotes = quotes.get_or_insert_with(|| Quotes::of(text));
                let rest = &text[from..];
                if SUBSTITUTION.is_match(rest) {
                    continue;
                }
                let value = match kind {
                    Kind::Option => {
                        let starts = before.is_none_or(|c| c.is_whitespace() || "\"'".contains(c));
                        if !starts || rest.starts_with('-') {
                            continue;
                        }
                        quotes.word(text, from)
                    }
                    // The whole argument is quoted: `-e "TOKEN=a b"`.
                    Kind::Variable
                        if before.is_some_and(|c| quotes.at(from) == Some(c))
                            && !rest.starts_with(['"', '\'']) =>
                    {
                        rest.find(before.unwrap_or('"')).unwrap_or(rest.len())
                    }
                    Kind::Variable | Kind::Statement => quotes.word(text, from),
                    Kind::Quoted => rest.find(['"', '\'', '\\', '\n']).unwrap_or(rest.len()),
                    Kind::Unquoted => rest.find([' ', '\t', '\n']).unwrap_or(rest.len()),
                };
                if value > 0 {
                    found.push(unquoted(text, from..from + value));
                    from += value;
                }
            }
        }
    }
}

/// Returns the secret in a match: its first group that matched, or else all of it.
fn secret(found: &Captures<'_>) -> Option<Range<usize>> {
    let group = found.iter().skip(1).flatten().next();
    group.or_else(|| found.get(0)).map(|secret| secret.range())
}

/// Returns `range` without the quotes around it.
fn unquoted(text: &str, range: Range<usize>) -> Range<usize> {
    let value = &text[range.clone()];
    let quote = value.chars().next().filter(|c| "\"'".contains(*c));
    match quote {
        // Without a reference in it, which the quotes distinguish from plain text.
        Some(quote) if value.len() > 1 && value.ends_with(quote) => {
            let inner = range.start + 1..range.end - 1;
            if quote == '\'' && REFERENCE.is_match(&text[inner.clone()]) { range } else { inner }
        }
        _ => range,
    }
}

/// Merges adjacent ranges and the asterisks next to them: redacting twice changes nothing.
fn merge(text: &str, mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (before, after) = (&text[..range.start], &text[range.end..]);
        let start = before.trim_end_matches('*').len();
        let end = text.len() - after.trim_start_matches('*').len();
        match merged.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => merged.push(start..end),
        }
    }
    merged
}

/// The open quote at each byte of a command; 0 if none.
struct Quotes(Vec<u8>);

impl Quotes {
    fn of(text: &str) -> Self {
        let (mut open, mut escaped) = (0, false);
        let states = text.bytes().map(|byte| {
            let state = open;
            match byte {
                _ if escaped => escaped = false,
                b'\\' if open != b'\'' => escaped = true,
                b'\'' | b'"' if open == 0 => open = byte,
                _ if byte == open => open = 0,
                _ => {}
            }
            state
        });
        Self(states.collect())
    }

    fn at(&self, position: usize) -> Option<char> {
        self.0.get(position).filter(|quote| **quote != 0).map(|quote| char::from(*quote))
    }

    /// Returns the length of the word that starts at `position`.
    fn word(&self, text: &str, position: usize) -> usize {
        let word = match self.at(position) {
            None => &WORD[0],
            Some('\'') => &WORD[1],
            Some(_) => &WORD[2],
        };
        word.find(&text[position..]).map_or(0, |word| word.end())
    }
}
