//! The query of a request: parameters by name, in `snake_case` or `camelCase`, each at most once.

use std::{collections::BTreeMap, ops::RangeInclusive};

use chrono::{DateTime, Utc};
use coditect_store::Cursor;
use serde::{Deserialize, de::value::StrDeserializer};

use super::{
    Request,
    problem::{Field, Problem},
};

/// Number of items per page.
const LIMITS: RangeInclusive<usize> = 1..=200;
/// Default number of items per page.
const DEFAULT_LIMIT: usize = 50;

/// Maximum number of unknown parameters in an error.
const MAX_NAMED: usize = 10;
/// Maximum length of a name in an error, in characters.
const MAX_NAME_CHARS: usize = 100;

/// The decoded parameters of a request's query.
#[derive(Debug)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses the query of `request`.
    ///
    /// # Errors
    ///
    /// 400 if a parameter occurs twice, which is ambiguous.
    pub fn of(request: &Request) -> Result<Self, Problem> {
        Self::parse(request.uri().query().unwrap_or_default())
    }

    fn parse(query: &str) -> Result<Self, Problem> {
        let mut values = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if values.insert(snake_case(&name), value.into_owned()).is_some() {
                return Err(invalid(&name, "occurs more than once"));
            }
        }
        Ok(Self(values))
    }

    /// Returns the parameter `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns the parameter `name` as one of several values.
    ///
    /// # Errors
    ///
    /// 400 for another value.
    pub fn parsed<'a, T: Deserialize<'a>>(&'a self, name: &str) -> Result<Option<T>, Problem> {
        let parse = |text| {
            let words = StrDeserializer::<serde::de::value::Error>::new(text);
            T::deserialize(words).map_err(|_| invalid(name, "is not one of the known values"))
        };
        self.value(name).map(parse).transpose()
    }

    /// Returns the parameter `cursor`, the position of a page.
    ///
    /// # Errors
    ///
    /// 400 if it is malformed.
    pub fn cursor(&self) -> Result<Option<Cursor>, Problem> {
        let cursor = self.value("cursor").map(str::parse).transpose();
        cursor.map_err(|_| Problem::invalid_cursor())
    }

    /// Returns the parameter `name` as a time.
    ///
    /// # Errors
    ///
    /// 400 if it is not a time.
    pub fn time(&self, name: &str) -> Result<Option<DateTime<Utc>>, Problem> {
        let time = self.value(name).map(str::parse).transpose();
        time.map_err(|_| invalid(name, "must be an RFC 3339 time such as 2026-01-31T12:00:00Z"))
    }

    /// Returns whether the flag `name` is set: `true`, or without a value.
    ///
    /// # Errors
    ///
    /// 400 if it is neither `true` nor `false`.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.value(name) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => Err(invalid(name, "must be true or false")),
        }
    }

    /// Returns the parameter `limit`, the number of items per page.
    ///
    /// # Errors
    ///
    /// 400 if it is not a number from 1 to 200.
    pub fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.value("limit") else { return Ok(DEFAULT_LIMIT) };
        let limit = text.parse().ok().filter(|limit| LIMITS.contains(limit));
        limit.ok_or_else(|| invalid("limit", "must be a number from 1 to 200"))
    }
}

/// Checks that `query` has no parameters other than `accepted`.
///
/// # Errors
///
/// Fails with 400, naming the first few others.
pub(super) fn check_names(query: &str, accepted: &[&str]) -> Result<(), Problem> {
    let known = match accepted {
        [] => "the route has no parameters".to_owned(),
        names => format!("known parameters: {}", names.join(", ")),
    };
    let unknown: Vec<Field> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| !accepted.contains(&snake_case(name).as_str()))
        .take(MAX_NAMED)
        .map(|(name, _)| {
            let name: String = name.chars().take(MAX_NAME_CHARS).collect();
            Field::new(name, format!("is unknown; {known}"))
        })
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let message = "The query has an unknown parameter.";
    Err(Problem::bad_request("INVALID_QUERY", message).with_fields(unknown))
}

/// Returns the spelling of a name used for lookups.
fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len());
    for char in name.chars() {
        if char.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(char.to_ascii_lowercase());
    }
    snake
}

fn invalid(name: &str, message: &str) -> Problem {
    Problem::bad_request("INVALID_QUERY", "The query is invalid.")
        .with_fields(vec![Field::new(name, message)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("workspace_path=%2Fwork+space%2F%C3%A9&empty=").unwrap();
        assert_eq!(query.value("workspace_path"), Some("/work space/é"));
        assert_eq!(query.value("empty"), Some(""));
        assert_eq!(query.value("missing"), None);
    }

    #[test]
    fn repeated_parameter_is_refused() {
        for twice in ["a=1&b=2&a=1", "session_id=1&sessionId=1"] {
            assert_eq!(Query::parse(twice).unwrap_err().code(), "INVALID_QUERY", "{twice}");
        }
    }

    #[test]
    fn both_spellings_of_a_parameter_are_accepted() {
        let query = Query::parse("sessionId=1").unwrap();
        assert_eq!(query.value("session_id"), Some("1"));
        assert!(check_names("sessionId=1&session_id=1", &["session_id"]).is_ok());
        assert!(check_names("SessionId=1", &["session_id"]).is_err());
    }

    #[test]
    fn unknown_parameters_are_named() {
        assert!(check_names("limit=1&cursor=x", &["limit", "cursor"]).is_ok());
        assert!(check_names("", &[]).is_ok());
        let refused = check_names("limit=1&lim%69ts=2&%ff=", &["limit"]).unwrap_err();
        let names: Vec<_> = refused.fields().iter().map(|field| field.field.as_str()).collect();
        assert_eq!((refused.code(), names), ("INVALID_QUERY", vec!["limits", "\u{fffd}"]));
        assert_eq!(refused.fields()[0].message, "is unknown; known parameters: limit");
        let many: Vec<_> = (0..100).map(|n| format!("p{n}=1")).collect();
        assert_eq!(check_names(&many.join("&"), &[]).unwrap_err().fields().len(), MAX_NAMED);
    }

    #[test]
    fn limit_is_a_number_within_bounds() {
        assert_eq!(Query::parse("").unwrap().limit().unwrap(), 50);
        assert_eq!(Query::parse("limit=200").unwrap().limit().unwrap(), 200);
        for wrong in ["0", "201", "-1", "x", "", "1e1", "99999999999999999999"] {
            assert!(Query::parse(&format!("limit={wrong}")).unwrap().limit().is_err(), "{wrong}");
        }
    }
}
