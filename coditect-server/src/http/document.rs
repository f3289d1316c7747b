//! The meaning of a JSON body: from its bytes to a request's type.
//!
//! A document says each thing once: a repeated key is refused at every depth, known or not, so
//! that no two readers can understand it differently. Unknown fields are passed over. A request
//! struct names its fields in `snake_case` and gives each the other spelling by
//! `#[serde(alias = "camelCase")]`; a body with both spellings repeats the field, and is refused.
//! Nothing of a value is repeated in a message: it may be a password.

use std::{
    collections::HashSet,
    fmt::{self, Write},
};

use serde::{
    Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, error::Category};

use crate::problem::{Field, Problem};

/// How much of a field's path is repeated to the client, in characters.
const LONGEST_PATH: usize = 200;

/// Reads `bytes` as a `T`.
///
/// # Errors
///
/// 400 for what isn't JSON in UTF-8, is nested deeper than 128 levels, repeats a key or is not
/// an object; 422, naming the field, where one is missing or of the wrong
/// kind.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let text = str::from_utf8(bytes)
        .map_err(|_| Problem::bad_request("INVALID_JSON", "The body is not UTF-8."))?;
    refuse_repetition(text)?;
    // serde would take a list for a struct, by position.
    if !text.trim_start().starts_with('{') {
        return Err(Problem::bad_request("INVALID_BODY", "The body must be a JSON object."));
    }
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))
        .map_err(|error| misfit_at(&error))
}

/// `value`, which a body was merged into, as a `T`.
///
/// # Errors
///
/// 422 with the field that does not fit.
pub(crate) fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| misfit_at(&error))
}

fn misfit_at(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let path = error.path().to_string();
    misfit(if path == "." { "" } else { &path }, error.inner())
}

/// A first pass over the whole document, whatever type it will be read as.
fn refuse_repetition(text: &str) -> Result<(), Problem> {
    let mut json = serde_json::Deserializer::from_str(text);
    let mut scan = Scan::default();
    let scanned = Once(&mut scan).deserialize(&mut json);
    if scan.repeated {
        return Err(repeated(&scan.path));
    }
    scanned.and_then(|()| json.end()).map_err(|error| malformed(&error))
}

fn malformed(error: &serde_json::Error) -> Problem {
    let message = if error.to_string().starts_with("recursion limit exceeded") {
        "The body is nested too deeply.".to_owned()
    } else if error.classify() == Category::Eof {
        "The body ends in the middle of its JSON.".to_owned()
    } else {
        let (line, column) = (error.line(), error.column());
        format!("The body is not JSON: see line {line}, column {column}.")
    };
    Problem::bad_request("INVALID_JSON", message)
}

fn repeated(path: &str) -> Problem {
    Problem::bad_request("DUPLICATE_FIELD", "The body says the same thing twice.")
        .with_fields(vec![Field::new(shortened(path), "is given more than once")])
}

/// A document that is JSON, and not a `T`. What serde says is taken apart, since it repeats values.
fn misfit(parent: &str, error: &serde_json::Error) -> Problem {
    let told = error.to_string();
    let named = |prefix: &str| told.strip_prefix(prefix)?.split('`').next();
    if let Some(name) = named("missing field `") {
        let field = shortened(&join(parent, name));
        return Problem::validation(vec![Field::new(field, "is required")]);
    }
    if let Some(name) = named("duplicate field `") {
        return repeated(&join(parent, name));
    }
    let expected = match told.rsplit_once(", expected ") {
        Some((_, expected)) => {
            let expected = expected.rsplit_once(" at line ").map_or(expected, |(it, _)| it);
            format!("must be {expected}")
        }
        None => "is not valid".to_owned(),
    };
    if parent.is_empty() {
        Problem::bad_request("INVALID_BODY", format!("The body {expected}."))
    } else {
        Problem::validation(vec![Field::new(shortened(parent), expected)])
    }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") }
}

fn shortened(path: &str) -> String {
    path.chars().take(LONGEST_PATH).collect()
}

/// Where the first pass is, and whether it has met a key for the second time, there.
#[derive(Default)]
struct Scan {
    path: String,
    repeated: bool,
}

/// Reads any value and keeps nothing of it.
struct Once<'a>(&'a mut Scan);

impl<'de> DeserializeSeed<'de> for Once<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Once<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
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
            if !seen.insert(key) {
                self.0.repeated = true;
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
    use hyper::StatusCode;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Wanted {
        name: String,
        #[serde(alias = "workspacePath")]
        workspace_path: Option<String>,
        #[serde(default)]
        settings: Value,
        inner: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
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
    fn both_spellings_of_a_field_are_read() {
        let read = |text: &str| parse::<Wanted>(text.as_bytes()).unwrap().workspace_path;
        assert_eq!(read(r#"{"name":"n","workspace_path":"/w"}"#).unwrap(), "/w");
        assert_eq!(read(r#"{"name":"n","workspacePath":"/w"}"#).unwrap(), "/w");
    }

    #[test]
    fn a_field_in_both_spellings_is_a_duplicate() {
        let (status, code, fields) =
            refused(r#"{"name":"n","workspacePath":"/a","workspace_path":"/b"}"#);
        assert_eq!((status, code), (StatusCode::BAD_REQUEST, "DUPLICATE_FIELD"));
        assert_eq!(fields, ["workspace_path"]);
        let (.., fields) = refused(r#"{"name":"n","inner":{"line_count":1,"lineCount":1}}"#);
        assert_eq!(fields, ["inner.line_count"]);
    }

    #[test]
    fn a_repeated_key_is_refused_at_every_depth_known_or_not() {
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
    fn unknown_fields_are_passed_over() {
        let wanted = parse::<Wanted>(br#"{"name":"n","role":"owner","x":[{"y":null}]}"#);
        assert_eq!(wanted.unwrap().name, "n");
    }

    #[test]
    fn a_missing_or_wrong_field_is_named() {
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
    fn a_wrong_value_is_never_repeated() {
        let text = r#"{"name":"n","inner":{"line_count":"hunter2, expected x"}}"#;
        let problem = parse::<Wanted>(text.as_bytes()).unwrap_err();
        assert_eq!(problem.fields()[0].message, "must be u32");
        assert!(!format!("{problem:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_not_json_in_utf8_is_a_bad_request() {
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
    fn the_root_must_be_an_object() {
        for text in ["7", "null", "\"text\"", " [\"n\"]"] {
            let (status, code, _) = refused(text);
            assert_eq!((status, code), (StatusCode::BAD_REQUEST, "INVALID_BODY"), "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!(r#"{{"name":"n","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        let (status, code, _) = refused(&deep);
        assert_eq!((status, code), (StatusCode::BAD_REQUEST, "INVALID_JSON"));
    }
}
