//! Parsing of JSON bodies and WebSocket messages into request types.
//!
//! **Invariants**
//!
//! - A document has each member once: a repeated key is refused at every depth, so that no two
//!   parsers disagree about it.
//! - Nothing is silently dropped or rounded: unknown fields are refused by name
//!   (`deny_unknown_fields` on every request struct), and so are integers beyond 64 bits. A number
//!   with a fraction or an exponent is a floating-point number by its author's choice.
//! - Request structs name fields in `snake_case` with `#[serde(alias = "camelCase")]`; a body with
//!   both spellings repeats the field and is refused.
//! - Error messages contain names of fields but no values, which may be passwords.

use std::{
    collections::HashSet,
    fmt::{self, Write},
};

use hyper::StatusCode;
use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, error::Category};

use super::problem::{Field, Problem};

/// Maximum length of a field's path in an error, in characters.
const MAX_PATH_CHARS: usize = 200;

/// Parses `bytes` as a `T`.
///
/// # Errors
///
/// Fails with 400 if they are not JSON in UTF-8, are nested deeper than 128 levels, repeat a key,
/// have an integer beyond 64 bits or are not an object; with 422, naming the field, if one is
/// missing, unknown or of the wrong type.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    Document::check(bytes)?.read()
}

/// A JSON object that was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Document<'a> {
    text: &'a str,
    /// The number of values and keys in it.
    pub(crate) values: u64,
}

impl<'a> Document<'a> {
    /// Checks `bytes`, whatever type they will be read as.
    ///
    /// # Errors
    ///
    /// Those of [`parse`] with status 400.
    pub(crate) fn check(bytes: &'a [u8]) -> Result<Self, Problem> {
        let text = str::from_utf8(bytes)
            .map_err(|_| Problem::bad_request("INVALID_JSON", "The body is not UTF-8."))?;
        let values = scan(text)?;
        // serde would accept a list for a struct, by position.
        if !text.trim_start().starts_with('{') {
            return Err(Problem::bad_request("INVALID_BODY", "The body must be a JSON object."));
        }
        Ok(Self { text, values })
    }

    /// Reads it as a `T`.
    ///
    /// # Errors
    ///
    /// Those of [`parse`] with status 422.
    pub(crate) fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(self.text))
            .map_err(|error| misfit_at(&error))
    }
}

/// Parses `value`, the result of a merge, as a `T`.
///
/// # Errors
///
/// 422 with the invalid field.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| misfit_at(&error))
}

fn misfit_at(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    type_mismatch(if path == "." { "" } else { &path }, error.inner())
}

/// Checks the whole document, independently of its type, and returns the number of its values and
/// keys.
fn scan(text: &str) -> Result<u64, Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let numbers = Numbers(text.as_bytes());
    let mut scan = Scan { path: String::new(), numbers, values: 0, refused: None };
    let scanned = Once(&mut scan).deserialize(&mut json);
    match scan.refused {
        Some(Refused::Repeated) => Err(repeated(&scan.path)),
        Some(Refused::Integer) => Err(out_of_range(&scan.path)),
        None => {
            scanned.and_then(|()| json.end()).map_err(|error| malformed(&error))?;
            Ok(scan.values)
        }
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    let message = if error.to_string().starts_with("recursion limit exceeded") {
        "The body is nested too deeply.".to_owned()
    } else if error.classify() == Category::Eof {
        "The JSON of the body is incomplete.".to_owned()
    } else {
        let (line, column) = (error.line(), error.column());
        format!("The body is not JSON: error at line {line}, column {column}.")
    };
    Problem::bad_request("INVALID_JSON", message)
}

fn repeated(path: &str) -> Problem {
    Problem::bad_request("DUPLICATE_FIELD", "The body repeats a field.")
        .with_fields(vec![Field::new(shortened(path), "occurs more than once")])
}

fn out_of_range(path: &str) -> Problem {
    let message = "must be between -9223372036854775808 and 18446744073709551615, or be written \
        with a fraction or an exponent: larger integers would be rounded";
    Problem::bad_request("INTEGER_OUT_OF_RANGE", "The body has an integer beyond 64 bits.")
        .with_fields(vec![Field::new(shortened(path), message)])
}

/// Returns the problem of JSON that is not a `T`. serde's message is taken apart, since it contains
/// values.
fn type_mismatch(parent: &str, error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    let named = |prefix: &str| text.strip_prefix(prefix)?.split('`').next();
    if let Some(name) = named("missing field `") {
        let field = shortened(&join(parent, name));
        return Problem::validation(vec![Field::new(field, "is required")]);
    }
    if let Some(name) = named("unknown field `") {
        let is_last =
            parent.strip_suffix(name).is_some_and(|it| it.is_empty() || it.ends_with('.'));
        let field = if is_last { parent.to_owned() } else { join(parent, name) };
        return unknown(&field, &text);
    }
    if let Some(name) = named("duplicate field `") {
        return repeated(&join(parent, name));
    }
    let expected = match text.rsplit_once(", expected ") {
        Some((_, expected)) => {
            let expected = expected.rsplit_once(" at line ").map_or(expected, |(it, _)| it);
            format!("must be {expected}")
        }
        None => "is invalid".to_owned(),
    };
    if parent.is_empty() {
        Problem::bad_request("INVALID_BODY", format!("The body {expected}."))
    } else {
        Problem::validation(vec![Field::new(shortened(parent), expected)])
    }
}

/// Returns the problem of an unknown field, with the names of the known ones.
fn unknown(field: &str, text: &str) -> Problem {
    let known: Vec<&str> = match text.rsplit_once(", expected ") {
        Some((_, expected)) => expected.split('`').skip(1).step_by(2).collect(),
        None => Vec::new(),
    };
    let message = match known.as_slice() {
        [] => "is unknown".to_owned(),
        known => format!("is unknown; known fields: {}", known.join(", ")),
    };
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "UNKNOWN_FIELD",
        "The body has an unknown field.",
    )
    .with_fields(vec![Field::new(shortened(field), message)])
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

fn shortened(path: &str) -> String {
    path.chars().take(MAX_PATH_CHARS).collect()
}

/// State of the first pass.
struct Scan<'a> {
    path: String,
    /// Number tokens after those already visited.
    numbers: Numbers<'a>,
    /// Values and keys that were visited.
    values: u64,
    /// Reason why the value at `path` is refused.
    refused: Option<Refused>,
}

#[derive(Clone, Copy)]
enum Refused {
    Repeated,
    Integer,
}

/// The number tokens of a JSON text, in order. `serde_json` rounds an integer beyond 64 bits to a
/// floating-point number; only its text differs from one written as such.
struct Numbers<'a>(&'a [u8]);

impl<'a> Iterator for Numbers<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (first, rest) = self.0.split_first()?;
            match first {
                b'"' => self.0 = after_string(rest),
                b'-' | b'0'..=b'9' => {
                    let is_part =
                        |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                    let length = self.0.iter().position(|byte| !is_part(byte));
                    let (number, rest) = self.0.split_at(length.unwrap_or(self.0.len()));
                    self.0 = rest;
                    return Some(number);
                }
                _ => self.0 = rest,
            }
        }
    }
}

/// Returns the text after a string whose opening quote precedes `text`.
fn after_string(mut text: &[u8]) -> &[u8] {
    loop {
        match text {
            [b'"', rest @ ..] => return rest,
            [b'\\', _, rest @ ..] | [_, rest @ ..] => text = rest,
            [] => return text,
        }
    }
}

fn is_beyond_64_bits(number: &[u8]) -> bool {
    let is_integer = !number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    let text = str::from_utf8(number).unwrap_or_default();
    is_integer && text.parse::<i64>().is_err() && text.parse::<u64>().is_err()
}

impl Scan<'_> {
    /// Visits the next number.
    fn number<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.numbers.next().is_some_and(is_beyond_64_bits) {
            self.refused = Some(Refused::Integer);
            return Err(E::custom("integer beyond 64 bits"));
        }
        Ok(())
    }
}

/// Visits any value and discards it.
struct Once<'a, 'text>(&'a mut Scan<'text>);

impl<'de> DeserializeSeed<'de> for Once<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.values += 1;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.0.number()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.0.number()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.0.number()
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let parent_len = self.0.path.len();
        let mut index = 0_usize;
        loop {
            self.0.path.truncate(parent_len);
            write!(self.0.path, "[{index}]").map_err(A::Error::custom)?;
            if items.next_element_seed(Once(self.0))?.is_none() {
                break;
            }
            index += 1;
        }
        self.0.path.truncate(parent_len);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let parent_len = self.0.path.len();
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if parent_len > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            self.0.values += 1;
            if !seen.insert(key) {
                self.0.refused = Some(Refused::Repeated);
                return Err(A::Error::custom("repeated key"));
            }
            entries.next_value_seed(Once(self.0))?;
            self.0.path.truncate(parent_len);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wanted {
        name: String,
        #[serde(alias = "workspacePath")]
        workspace_path: Option<String>,
        #[serde(default)]
        settings: Value,
        inner: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(alias = "lineCount")]
        line_count: u32,
    }

    fn refused(text: &str) -> (StatusCode, &'static str, Vec<String>) {
        let problem = parse::<Wanted>(text.as_bytes()).unwrap_err();
        let fields = problem.fields().iter().map(|field| field.field.clone());
        (problem.status(), problem.code(), fields.collect())
    }

    #[test]
    fn both_spellings_of_a_field_are_accepted() {
        let read = |text: &str| parse::<Wanted>(text.as_bytes()).unwrap().workspace_path;
        assert_eq!(read(r#"{"name":"n","workspace_path":"/w"}"#).unwrap(), "/w");
        assert_eq!(read(r#"{"name":"n","workspacePath":"/w"}"#).unwrap(), "/w");
    }

    #[test]
    fn field_in_both_spellings_is_a_duplicate() {
        let (status, code, fields) =
            refused(r#"{"name":"n","workspacePath":"/a","workspace_path":"/b"}"#);
        assert_eq!((status, code), (StatusCode::BAD_REQUEST, "DUPLICATE_FIELD"));
        assert_eq!(fields, ["workspace_path"]);
        let (.., fields) = refused(r#"{"name":"n","inner":{"line_count":1,"lineCount":1}}"#);
        assert_eq!(fields, ["inner.line_count"]);
    }

    #[test]
    fn repeated_key_is_refused_at_every_depth() {
        for (text, path) in [
            (r#"{"name":"a","name":"b"}"#, "name"),
            (r#"{"name":"a","x":1,"x":1}"#, "x"),
            (r#"{"name":"a","settings":{"a":[{},{"b":1,"\u0062":2}]}}"#, "settings.a[1].b"),
        ] {
            let (status, code, fields) = refused(text);
            assert_eq!((status, code), (StatusCode::BAD_REQUEST, "DUPLICATE_FIELD"));
            assert_eq!(fields, [path]);
        }
    }

    #[test]
    fn unknown_field_is_refused_by_name() {
        for (text, field) in [
            (r#"{"name":"n","role":"owner"}"#, "role"),
            (r#"{"x":[{"y":null}],"name":"n"}"#, "x"),
            (r#"{"name":"n","inner":{"line_count":1,"linecount":1}}"#, "inner.linecount"),
            (r#"{"name":"n","name2":"n"}"#, "name2"),
        ] {
            let (status, code, fields) = refused(text);
            assert_eq!((status.as_u16(), code), (422, "UNKNOWN_FIELD"), "{text}");
            assert_eq!(fields, [field], "{text}");
        }
        let problem = parse::<Wanted>(br#"{"name":"n","role":"owner, expected `x`"}"#).unwrap_err();
        let message = &problem.fields()[0].message;
        assert!(message.starts_with("is unknown; known fields: name, "), "{message}");
        assert!(!format!("{problem:?}").contains("owner"));
        // Free-form JSON of a client may have any names.
        assert!(parse::<Wanted>(br#"{"name":"n","settings":{"x":{"y":1}}}"#).is_ok());
    }

    #[test]
    fn integer_beyond_64_bits_is_refused_by_its_path() {
        for number in
            ["18446744073709551616", "-9223372036854775809", "123456789012345678901234567890"]
        {
            for (text, path) in [
                (format!(r#"{{"name":"n","settings":{number}}}"#), "settings"),
                (
                    format!(r#"{{"name":"1e5","settings":{{"a":[1,2.5,{{"b":{number}}}]}}}}"#),
                    "settings.a[2].b",
                ),
                (
                    format!(r#"{{"name":"\"{number}\\","inner":{{"line_count":{number}}}}}"#),
                    "inner.line_count",
                ),
            ] {
                let (status, code, fields) = refused(&text);
                assert_eq!((status.as_u16(), code), (400, "INTEGER_OUT_OF_RANGE"), "{text}");
                assert_eq!(fields, [path], "{text}");
            }
        }
    }

    #[test]
    fn integers_of_64_bits_and_floating_point_numbers_are_kept() {
        let settings = |number: &str| {
            let text = format!(r#"{{"name":"99999999999999999999","settings":[{number}]}}"#);
            parse::<Wanted>(text.as_bytes()).unwrap().settings.to_string()
        };
        for number in [
            "18446744073709551615",
            "-9223372036854775808",
            "9007199254740993",
            "0",
            "-1",
            "1.5",
            "1e+100",
            "-2.5e-7",
        ] {
            assert_eq!(settings(number), format!("[{number}]"));
        }
        assert_eq!(settings("123456789012345678901234567890.0"), "[1.2345678901234568e+29]");
        assert_eq!(settings("1E30"), "[1e+30]");
        assert_eq!(settings("-0"), "[-0.0]");
    }

    #[test]
    fn missing_or_invalid_field_is_named() {
        for (text, field) in [
            (r#"{"workspacePath":"/w"}"#, "name"),
            (r#"{"name":7}"#, "name"),
            (r#"{"name":"n","inner":{}}"#, "inner.line_count"),
            (r#"{"name":"n","inner":{"line_count":"x"}}"#, "inner.line_count"),
            (r#"{"name":"n","inner":{"line_count":-1}}"#, "inner.line_count"),
        ] {
            let (status, code, fields) = refused(text);
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
            assert_eq!(code, "VALIDATION_FAILED", "{text}");
            assert_eq!(fields, [field], "{text}");
        }
    }

    #[test]
    fn invalid_value_is_not_repeated() {
        let text = r#"{"name":"n","inner":{"line_count":"hunter2, expected x"}}"#;
        let problem = parse::<Wanted>(text.as_bytes()).unwrap_err();
        assert_eq!(problem.fields()[0].message, "must be u32");
        assert!(!format!("{problem:?}").contains("hunter2"));
    }

    #[test]
    fn invalid_json_or_utf8_is_a_bad_request() {
        for text in
            ["{", "nope", "{'name':1}", "{\"name\":\"n\"} x", "{\"name\":1e999}", "\u{feff}{}"]
        {
            let (status, code, _) = refused(text);
            assert_eq!((status, code), (StatusCode::BAD_REQUEST, "INVALID_JSON"), "{text}");
        }
        let problem = parse::<Wanted>(b"{\"name\":\"\xff\"}").unwrap_err();
        assert_eq!(problem.code(), "INVALID_JSON");
    }

    #[test]
    fn root_must_be_an_object() {
        for text in ["7", "null", "\"text\"", " [\"n\"]"] {
            let (status, code, _) = refused(text);
            assert_eq!((status, code), (StatusCode::BAD_REQUEST, "INVALID_BODY"), "{text}");
        }
    }

    #[test]
    fn nesting_is_limited() {
        let deep = format!(r#"{{"name":"n","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let (status, code, _) = refused(&deep);
        assert_eq!((status, code), (StatusCode::BAD_REQUEST, "INVALID_JSON"));
    }
}
