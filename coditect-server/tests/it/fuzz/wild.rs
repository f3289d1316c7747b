//! Random requests from a seed: bodies close to their schema and far from it, paths, queries,
//! headers.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{client::Call, contract};

/// Maximum nesting of a body, except for bodies meant to be too deep.
const DEPTH: u32 = 4;

/// Reproducible pseudorandom numbers (xorshift64*).
pub(super) struct Random(u64);

impl Random {
    /// Spreads the seed, since similar seeds would start with similar numbers.
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const NUMBERS: [&str; 14] = [
    "0",
    "-0",
    "-1",
    "1",
    "7.5",
    "1e308",
    "-1e-308",
    "1e999",
    "255",
    "65536",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "123456789012345678901234567890",
];

const TEXTS: [&str; 26] = [
    "",
    " ",
    "a",
    "name",
    "read",
    "owner",
    "theia",
    "/workspace/p",
    "src/main.rs",
    "../..",
    ".",
    "a//b",
    "ada@example.org",
    "@",
    "correct horse battery",
    "000000",
    "AAAA",
    "=",
    "%00",
    "\u{0}",
    "\n",
    "\u{1F600}",
    "\u{202E}x",
    "e\u{301}",
    "00000000-0000-0000-0000-000000000000",
    "2026-01-31T12:00:00Z",
];

/// Appends random JSON as text, which may be something that no `Value` can hold.
fn any(random: &mut Random, depth: u32, text: &mut String) {
    match random.below(if depth == 0 { 5 } else { 8 }) {
        0 => text.push_str("null"),
        1 => text.push_str(random.one_of(&["true", "false"])),
        2 => text.push_str(random.one_of(&NUMBERS)),
        3 | 4 => text.push_str(&quoted(random)),
        5 => {
            text.push('[');
            for at in 0..random.below(4) {
                text.push_str(if at == 0 { "" } else { "," });
                any(random, depth - 1, text);
            }
            text.push(']');
        }
        _ => {
            text.push('{');
            for at in 0..random.below(4) {
                text.push_str(if at == 0 { "" } else { "," });
                text.push_str(&quoted(random));
                text.push(':');
                any(random, depth - 1, text);
            }
            text.push('}');
        }
    }
}

fn quoted(random: &mut Random) -> String {
    let text = random.one_of(&TEXTS);
    let times = random.one_of(&[1, 1, 1, 1, 1, 1, 1, 300, 5_000]);
    json!(text.repeat(times)).to_string()
}

/// Appends a body with some of the members of `schema`, of other types.
fn near(random: &mut Random, schema: &'static Value, depth: u32, text: &mut String) {
    let schema = contract::resolved(schema);
    if depth == 0 || random.one_in(8) {
        return any(random, depth, text);
    }
    if let Some(members) = schema.get("properties").and_then(Value::as_object) {
        text.push('{');
        let mut is_first = true;
        let mut add =
            |random: &mut Random, name: &str, member: &'static Value, text: &mut String| {
                text.push_str(if is_first { "" } else { "," });
                is_first = false;
                write!(text, "{}:", json!(spelled(random, name))).unwrap();
                near(random, member, depth - 1, text);
            };
        for (name, member) in members {
            if !random.one_in(5) {
                add(random, name, member, text);
            }
            if random.one_in(40) {
                add(random, name, member, text);
            }
        }
        if random.one_in(5) {
            add(random, "tenant_id", &Value::Null, text);
        }
        text.push('}');
        return;
    }
    if let Some(items) = schema.get("items") {
        text.push('[');
        for at in 0..random.one_of(&[0, 1, 2, 60]) {
            text.push_str(if at == 0 { "" } else { "," });
            near(random, items, depth - 1, text);
        }
        text.push(']');
        return;
    }
    let choices = schema.get("enum").or(schema.get("anyOf")).and_then(Value::as_array);
    match choices {
        Some(choices) if choices[0].is_object() => {
            let at = random.below(choices.len());
            near(random, &choices[at], depth, text);
        }
        Some(choices) => text.push_str(&choices[random.below(choices.len())].to_string()),
        None => any(random, depth - 1, text),
    }
}

/// Returns the name of a member in either spelling.
fn spelled(random: &mut Random, name: &str) -> String {
    if !random.one_in(3) {
        return name.to_owned();
    }
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let (head, rest) = word.split_at(word.len().min(1));
        text + &head.to_uppercase() + rest
    })
}

/// Returns the bytes of a body for `operation`: close to its schema, or random.
pub(super) fn body(random: &mut Random, operation: &'static Value) -> Vec<u8> {
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    let mut text = String::new();
    near(random, schema, DEPTH, &mut text);
    match random.below(12) {
        0 => Vec::new(),
        1 => text.as_bytes()[..random.below(text.len() + 1)].into(),
        2 => {
            let mut bytes = text.into_bytes();
            let at = random.below(bytes.len() + 1);
            bytes.insert(at, random.one_of(&[0xff, 0xc0, 0x80, 0x00, b'"', b'{']));
            bytes
        }
        3 => {
            let depth = random.one_of(&[100, 127, 128, 129, 5_000]);
            format!(r#"{{"settings":{}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth)).into()
        }
        4 => "[".repeat(random.one_of(&[1, 200, 100_000])).into(),
        5 => format!("{text}{text}").into(),
        _ => text.into_bytes(),
    }
}

const SEGMENTS: [&str; 17] = [
    "x",
    "%00",
    "%ff",
    "%2e%2e",
    "..%2f",
    "%",
    "%zz",
    "null",
    "0",
    "-1",
    "create",
    "*",
    "%F0%9F%98%80",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-7fff-bfff-ffffffffffff",
    "a:b",
    "'",
];

/// Returns a path for the template `of`, sometimes with the caller's session.
pub(super) fn path(random: &mut Random, of: &str, session: &str) -> String {
    let mut path = String::new();
    for part in of.split_inclusive('}') {
        let Some((fixed, name)) = part.split_once('{') else {
            path.push_str(part);
            continue;
        };
        path.push_str(fixed);
        if name == "id}" && of.contains("/sessions/") && !random.one_in(4) {
            path.push_str(session);
        } else if random.one_in(6) {
            path.push_str(&"n".repeat(random.one_of(&[1, 255, 256, 4_097])));
        } else {
            path.push_str(random.one_of(&SEGMENTS));
        }
    }
    path
}

pub(super) fn query(random: &mut Random, operation: &'static Value) -> String {
    let mut query = String::new();
    let parameters = operation["parameters"].as_array().unwrap();
    for parameter in parameters.iter().map(contract::resolved).filter(|it| it["in"] == "query") {
        for _ in 0..random.one_of(&[0, 0, 1, 1, 1, 1, 2]) {
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(parameter["name"].as_str().unwrap());
            query.push_str(random.one_of(&[
                "",
                "=",
                "=0",
                "=-1",
                "=1",
                "=200",
                "=201",
                "=true",
                "=asc",
                "=x",
                "=%00",
                "=%ff",
                "=%",
                "=2026-01-31T12:00:00Z",
                "=99999999999999999999",
                "=..%2f..",
                "=bm90IGEgY3Vyc29y",
                "=+",
                "=00000000-0000-0000-0000-000000000000",
                "=theia",
                "=tenant",
                "=999999-01-01T00:00:00Z",
            ]));
        }
    }
    query
}

const CONDITIONS: [&str; 10] =
    ["*", "\"a\"", "W/\"a\"", "", ",", "\"", "a", "\"a\" \"b\"", "\u{e9}", "\"a\", *"];
const RANGES: [&str; 9] = [
    "bytes=0-0",
    "bytes=-1",
    "bytes=9-",
    "bytes=2-1",
    "bytes=",
    "bytes=0-18446744073709551615",
    "bytes=-99999999999999999999",
    "lines=1-2",
    "bytes=0-0,2-2",
];

pub(super) fn with_headers(random: &mut Random, mut call: Call) -> Call {
    for (name, values) in [
        ("If-Match", &CONDITIONS[..]),
        ("If-None-Match", &CONDITIONS),
        ("If-Range", &CONDITIONS),
        ("Range", &RANGES),
        ("Content-Digest", &["sha-256=:AAAA:", "sha-256=", "md5=:AA==:", "=", ":"]),
        ("X-Request-Id", &["a", "a b", "\u{e9}"]),
        ("Idempotency-Key", &["a", "", "\"b\"", "\u{e9}"]),
        ("Origin", &["null", "https://example.org", "\u{e9}"]),
        ("User-Agent", &["", "\u{e9}"]),
    ] {
        if random.one_in(12) {
            call = call.header(name, random.one_of(values));
        }
    }
    call
}
