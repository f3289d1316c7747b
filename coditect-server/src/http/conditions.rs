//! Conditional requests (RFC 9110, section 13): a change of what the client has seen, a read of what it
//! has not.
//!
//! A tag is strong: two equal ones are of equal representations. What a client has seen it gives back in
//! `If-Match`; if that is not what is there, nothing is changed, and it is told so with 412.

use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Body, Request, respond};
use crate::problem::Problem;

/// A strong entity tag, without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tag(String);

/// What a request says of what it expects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
}

#[derive(Clone, Debug)]
enum Tags {
    /// `*`: whatever is there.
    Any,
    /// One of these; whether each is a weak one.
    Of(Vec<(bool, String)>),
}

impl Tag {
    /// The tag that reads so: letters, digits, `-` and `_`.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// That of what has this JSON.
    ///
    /// # Errors
    ///
    /// It has no JSON form, which is our fault: 500.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, Problem> {
        let bytes = serde_json::to_vec(value).map_err(Problem::internal)?;
        let hash = Sha256::digest(&bytes);
        Ok(Self(hash[..16].iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))))
    }

    /// It without its quotes.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// As a header has it, in quotes.
    pub(crate) fn header(&self) -> Result<HeaderValue, Problem> {
        HeaderValue::from_str(&format!("\"{}\"", self.0)).map_err(Problem::internal)
    }
}

impl Conditions {
    /// Those of `request`.
    ///
    /// # Errors
    ///
    /// 400 if a header is none of the kind.
    pub(crate) fn of(request: &Request) -> Result<Self, Problem> {
        let headers = request.headers();
        Ok(Self {
            matches: tags(headers, &header::IF_MATCH)?,
            none_matches: tags(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Refuses a change of what is not as the client has seen it; `present` is what is there.
    ///
    /// # Errors
    ///
    /// 412.
    pub(crate) fn require(&self, present: Option<&Tag>) -> Result<(), Problem> {
        let seen = self.matches.as_ref().is_none_or(|tags| match (tags, present) {
            (_, None) => false,
            (Tags::Any, Some(_)) => true,
            // A weak tag is never strongly equal to anything.
            (Tags::Of(tags), Some(present)) => {
                tags.iter().any(|(is_weak, tag)| !is_weak && *tag == present.0)
            }
        });
        let unseen = self.none_matches.as_ref().is_none_or(|tags| !tags.are(present));
        if seen && unseen { Ok(()) } else { Err(Problem::precondition_failed()) }
    }

    /// Whether the client, which reads, has what is there.
    pub(crate) fn has(&self, present: &Tag) -> bool {
        self.none_matches.as_ref().is_some_and(|tags| tags.are(Some(present)))
    }

    /// The answer to a read: `answer` with its tag, or 304 to who has it.
    ///
    /// # Errors
    ///
    /// Those of [`Tag::of`].
    pub(crate) fn read(
        &self,
        answer: Response<Body>,
        tag: &Tag,
    ) -> Result<Response<Body>, Problem> {
        if !self.has(tag) {
            return tagged(answer, tag);
        }
        let mut unchanged = Response::new(respond::empty());
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        tagged(unchanged, tag)
    }
}

impl Tags {
    /// Whether `present` is among them, in the weak comparison.
    fn are(&self, present: Option<&Tag>) -> bool {
        match (self, present) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(tags), Some(present)) => tags.iter().any(|(_, tag)| *tag == present.0),
        }
    }
}

/// `answer` with its tag.
pub(crate) fn tagged(mut answer: Response<Body>, tag: &Tag) -> Result<Response<Body>, Problem> {
    answer.headers_mut().insert(header::ETAG, tag.header()?);
    Ok(answer)
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let lines: Vec<&str> =
        headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?")).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let list = lines.join(",");
    if list.trim() == "*" {
        return Ok(Some(Tags::Any));
    }
    let tags = listed(&list).filter(|tags| !tags.is_empty());
    tags.map(|tags| Some(Tags::Of(tags))).ok_or_else(|| {
        let message = format!("{name} must be a list of entity tags, or *.");
        Problem::bad_request("INVALID_CONDITION", message)
    })
}

/// The tags of a list, each with whether it is a weak one; `None` if it is none. A tag may have commas in
/// it, and nothing between two commas is passed over (RFC 9110, sections 5.6.1.2 and 8.8.3).
fn listed(list: &str) -> Option<Vec<(bool, String)>> {
    let mut tags = Vec::new();
    let mut rest = list;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return Some(tags);
        }
        let (is_weak, quoted) = match rest.strip_prefix("W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let (tag, after) = quoted.strip_prefix('"')?.split_once('"')?;
        tags.push((is_weak, tag.to_owned()));
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(name: &'static str, values: &[&str]) -> Result<Conditions, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Ok(Conditions {
            matches: tags(&headers, &header::IF_MATCH)?,
            none_matches: tags(&headers, &header::IF_NONE_MATCH)?,
        })
    }

    fn allows(name: &'static str, value: &str, present: Option<&str>) -> bool {
        let present = present.map(Tag::new);
        conditions(name, &[value]).unwrap().require(present.as_ref()).is_ok()
    }

    #[test]
    fn a_change_is_made_to_what_the_client_has_seen() {
        for (value, present, allowed) in [
            ("\"a\"", Some("a"), true),
            ("\"b\", \"a\"", Some("a"), true),
            ("\"b\"", Some("a"), false),
            ("W/\"a\"", Some("a"), false),
            ("*", Some("a"), true),
            ("*", None, false),
            ("\"a\"", None, false),
        ] {
            assert_eq!(allows("if-match", value, present), allowed, "{value}");
        }
    }

    #[test]
    fn what_is_there_already_is_not_made_again() {
        assert!(allows("if-none-match", "*", None));
        assert!(!allows("if-none-match", "*", Some("a")));
        assert!(!allows("if-none-match", "W/\"a\"", Some("a")));
        assert!(allows("if-none-match", "\"b\"", Some("a")));
    }

    #[test]
    fn who_has_what_is_there_is_not_given_it_again() {
        let of = |value| conditions("if-none-match", &[value]).unwrap();
        assert!(of("\"a\"").has(&Tag::new("a")));
        assert!(of("W/\"a\"").has(&Tag::new("a")), "the comparison is weak");
        assert!(of("*").has(&Tag::new("a")));
        assert!(!of("\"b\"").has(&Tag::new("a")));
        assert!(!Conditions::default().has(&Tag::new("a")));
    }

    #[test]
    fn several_lines_are_one_list_and_garbage_is_refused() {
        let two = conditions("if-match", &["\"a\"", "\"b\""]).unwrap();
        assert!(two.require(Some(&Tag::new("b"))).is_ok());
        for wrong in ["a", "\"a", "\"a\" \"b\"", "", " , ", "é", "w/\"a\"", "*, \"a\""] {
            let refused = conditions("if-match", &[wrong]).unwrap_err();
            assert_eq!(refused.code(), "INVALID_CONDITION", "{wrong}");
        }
    }

    #[test]
    fn a_tag_may_have_a_comma_in_it_and_an_empty_place_is_passed_over() {
        assert!(allows("if-match", ", \"a\",,", Some("a")));
        assert!(allows("if-match", "\"x,\", \"a\"", Some("a")));
    }
}
