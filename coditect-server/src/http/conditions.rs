//! Conditional requests (RFC 9110, section 13).
//!
//! Entity tags are strong: equal tags have equal representations. `If-Match` and `If-None-Match`
//! take precedence over `If-Unmodified-Since` and `If-Modified-Since`. Dates have a resolution of a
//! second and miss a second change within it; they apply to records with a modification date and
//! are ignored otherwise, or if malformed, as the RFC requires.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Body, Request, problem::Problem, respond};

/// The validators of a representation: a strong entity tag, and the time of the last modification,
/// if known.
#[derive(Clone, Debug)]
pub(crate) struct ETag {
    /// The tag without its quotes.
    text: String,
    modified_at: Option<DateTime<Utc>>,
}

/// The preconditions of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Preconditions {
    matches: Option<Tags>,
    none_matches: Option<Tags>,
    modified_since: Option<SystemTime>,
    unmodified_since: Option<SystemTime>,
}

#[derive(Clone, Debug)]
enum Tags {
    /// `*`: any representation.
    Any,
    /// A list of tags, each with whether it is weak.
    Of(Vec<(bool, Vec<u8>)>),
}

impl ETag {
    /// Creates a tag from text of letters, digits, `-` and `_`.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), modified_at: None }
    }

    /// Returns the tag of a record: a hash of its JSON.
    ///
    /// # Errors
    ///
    /// Fails with 500 if the record cannot be serialized.
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, Problem> {
        let bytes = serde_json::to_vec(value).map_err(Problem::internal)?;
        Ok(Self::hex(&Sha256::digest(&bytes)))
    }

    /// Returns the tag with a hash of `parts`, in order.
    pub(crate) fn digest(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self::hex(&hash.finalize())
    }

    fn hex(hash: &[u8]) -> Self {
        let hash = hash.iter().take(16);
        Self::new(hash.fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
    }

    /// Adds the time of the last modification.
    #[must_use]
    pub(crate) fn modified(self, at: DateTime<Utc>) -> Self {
        Self { modified_at: Some(at), ..self }
    }

    /// Returns the tag without its quotes.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the tag with its quotes, as clients send it.
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.text)
    }

    /// Returns the value of `ETag`.
    pub(crate) fn header(&self) -> Result<HeaderValue, Problem> {
        HeaderValue::from_str(&self.quoted()).map_err(Problem::internal)
    }

    /// Returns the time of the last modification in whole seconds, as in `Last-Modified`.
    fn last_modified(&self) -> Option<SystemTime> {
        let seconds = u64::try_from(self.modified_at?.timestamp()).ok()?;
        Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
    }
}

impl Preconditions {
    /// Parses the preconditions of `request`.
    ///
    /// # Errors
    ///
    /// Fails with 400 if `If-Match` or `If-None-Match` is not a list of tags.
    pub(crate) fn of(request: &Request) -> Result<Self, Problem> {
        Self::parse(request.headers())
    }

    fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            matches: tags(headers, &header::IF_MATCH)?,
            none_matches: tags(headers, &header::IF_NONE_MATCH)?,
            modified_since: date(headers, &header::IF_MODIFIED_SINCE),
            unmodified_since: date(headers, &header::IF_UNMODIFIED_SINCE),
        })
    }

    /// Returns whether a write has no preconditions, so that the record need not be read for
    /// [`require`](Self::require).
    pub(crate) fn is_unconditional(&self) -> bool {
        self.matches.is_none() && self.none_matches.is_none() && self.unmodified_since.is_none()
    }

    /// Checks the preconditions of a write against the `present` representation; `None` if there is
    /// none.
    ///
    /// # Errors
    ///
    /// Fails with 412.
    pub(crate) fn require(&self, present: Option<&ETag>) -> Result<(), Problem> {
        let is_new = self.none_matches.as_ref().is_none_or(|tags| !tags.include(present));
        if self.is_expected(present) && is_new {
            Ok(())
        } else {
            Err(Problem::precondition_failed())
        }
    }

    /// Returns whether the client of a read already has the `present` representation, for a 304.
    ///
    /// # Errors
    ///
    /// Fails with 412 if the client expects another representation.
    pub(crate) fn is_unchanged(&self, present: &ETag) -> Result<bool, Problem> {
        if !self.is_expected(Some(present)) {
            return Err(Problem::precondition_failed());
        }
        Ok(match &self.none_matches {
            Some(tags) => tags.include(Some(present)),
            None => self
                .modified_since
                .zip(present.last_modified())
                .is_some_and(|(since, modified)| modified <= since),
        })
    }

    /// Checks the preconditions of a write to an existing resource without a tag, which no tag
    /// matches.
    ///
    /// # Errors
    ///
    /// Fails with 412.
    pub(crate) fn require_untagged(&self) -> Result<(), Problem> {
        // No tag in a list contains a quote.
        self.require(Some(&ETag::new("\"")))
    }

    /// Returns the response to a read: `answer` with its validators, or 304.
    ///
    /// # Errors
    ///
    /// Same as [`is_unchanged`](Self::is_unchanged).
    pub(crate) fn read(
        &self,
        answer: Response<Body>,
        tag: &ETag,
    ) -> Result<Response<Body>, Problem> {
        if !self.is_unchanged(tag)? {
            return with_etag(answer, tag);
        }
        let mut unchanged = Response::new(respond::empty());
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        with_etag(unchanged, tag)
    }

    /// Evaluates `If-Match`, or otherwise `If-Unmodified-Since`.
    fn is_expected(&self, present: Option<&ETag>) -> bool {
        match (&self.matches, present) {
            (Some(_), None) => false,
            (Some(Tags::Any), Some(_)) => true,
            // A weak tag never matches by strong comparison.
            (Some(Tags::Of(tags)), Some(present)) => {
                tags.iter().any(|(is_weak, tag)| !is_weak && *tag == present.text.as_bytes())
            }
            (None, present) => self
                .unmodified_since
                .zip(present.and_then(ETag::last_modified))
                .is_none_or(|(since, modified)| modified <= since),
        }
    }
}

impl Tags {
    /// Returns whether `present` matches by weak comparison.
    fn include(&self, present: Option<&ETag>) -> bool {
        match (self, present) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(tags), Some(present)) => {
                tags.iter().any(|(_, tag)| *tag == present.text.as_bytes())
            }
        }
    }
}

/// Adds `ETag`, and `Last-Modified` if known, to `answer`.
pub(crate) fn with_etag(mut answer: Response<Body>, tag: &ETag) -> Result<Response<Body>, Problem> {
    answer.headers_mut().insert(header::ETAG, tag.header()?);
    if let Some(modified) = tag.last_modified() {
        let date = httpdate::fmt_http_date(modified);
        let date = HeaderValue::from_str(&date).map_err(Problem::internal)?;
        answer.headers_mut().insert(header::LAST_MODIFIED, date);
    }
    Ok(answer)
}

/// Parses the only date of a header; `None` for anything else.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let (line, None) = (lines.next()?, lines.next()) else { return None };
    httpdate::parse_http_date(line.to_str().ok()?.trim()).ok()
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Tags>, Problem> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let list = lines.join(&b',');
    if list.trim_ascii() == b"*" {
        return Ok(Some(Tags::Any));
    }
    let tags = listed(&list).filter(|tags| !tags.is_empty());
    tags.map(|tags| Some(Tags::Of(tags))).ok_or_else(|| {
        let message = format!("{name} must be a list of entity tags, or *.");
        Problem::bad_request("INVALID_CONDITION", message)
    })
}

/// Parses a list of tags, each with whether it is weak; `None` if malformed. A tag may contain
/// commas and non-ASCII bytes; empty list elements are skipped (RFC 9110, sections 5.6.1.2 and
/// 8.8.3).
fn listed(list: &[u8]) -> Option<Vec<(bool, Vec<u8>)>> {
    let is_in_tag = |byte: &u8| *byte == 0x21 || (0x23..=0x7e).contains(byte) || *byte >= 0x80;
    let mut tags = Vec::new();
    let mut rest = list;
    loop {
        while let [b' ' | b'\t' | b',', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return Some(tags);
        }
        let (is_weak, quoted) = match rest.strip_prefix(b"W/") {
            Some(quoted) => (true, quoted),
            None => (false, rest),
        };
        let quoted = quoted.strip_prefix(b"\"")?;
        let (tag, after) = quoted.split_at(quoted.iter().position(|byte| !is_in_tag(byte))?);
        tags.push((is_weak, tag.to_vec()));
        rest = after.strip_prefix(b"\"")?.trim_ascii_start();
        if !rest.is_empty() && !rest.starts_with(b",") {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(name: &'static str, values: &[&str]) -> Result<Preconditions, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        Preconditions::parse(&headers)
    }

    fn allows(name: &'static str, value: &str, present: Option<&str>) -> bool {
        let present = present.map(ETag::new);
        conditions(name, &[value]).unwrap().require(present.as_ref()).is_ok()
    }

    #[test]
    fn write_requires_the_version_that_the_client_has_seen() {
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
    fn existing_resource_is_not_created_again() {
        assert!(allows("if-none-match", "*", None));
        assert!(!allows("if-none-match", "*", Some("a")));
        assert!(!allows("if-none-match", "W/\"a\"", Some("a")));
        assert!(allows("if-none-match", "\"b\"", Some("a")));
    }

    #[test]
    fn read_of_a_known_representation_is_not_modified() {
        let unchanged = |value| {
            let conditions = conditions("if-none-match", &[value]).unwrap();
            conditions.is_unchanged(&ETag::new("a")).unwrap()
        };
        assert!(unchanged("\"a\""));
        assert!(unchanged("W/\"a\""), "the comparison is weak");
        assert!(unchanged("*"));
        assert!(!unchanged("\"b\""));
        assert!(!Preconditions::default().is_unchanged(&ETag::new("a")).unwrap());
    }

    #[test]
    fn read_of_another_representation_than_expected_is_refused() {
        let read = |value| conditions("if-match", &[value]).unwrap().is_unchanged(&ETag::new("a"));
        assert!(!read("\"a\"").unwrap());
        assert!(!read("*").unwrap());
        assert_eq!(read("\"b\"").unwrap_err().status(), StatusCode::PRECONDITION_FAILED);
        assert_eq!(read("W/\"a\"").unwrap_err().status(), StatusCode::PRECONDITION_FAILED);
    }

    #[test]
    fn dates_apply_in_whole_seconds_without_tags() {
        let at = DateTime::from_timestamp_millis(784_111_777_500).unwrap();
        let present = ETag::new("a").modified(at);
        let (same, before) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        for (date, is_changed) in [
            (same, true),
            (before, false),
            ("Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("soon", true),
        ] {
            let wanted = conditions("if-unmodified-since", &[date]).unwrap();
            assert_eq!(wanted.require(Some(&present)).is_ok(), is_changed, "{date}");
            assert_eq!(wanted.is_unchanged(&present).is_ok(), is_changed, "{date}");
            assert!(wanted.require(Some(&ETag::new("a"))).is_ok(), "there is no date");
            assert!(wanted.require(None).is_ok(), "there is no date");
        }
        for (date, is_unchanged) in [(same, true), (before, false), ("soon", false)] {
            let wanted = conditions("if-modified-since", &[date]).unwrap();
            assert_eq!(wanted.is_unchanged(&present).unwrap(), is_unchanged, "{date}");
        }
        let twice = conditions("if-unmodified-since", &[before, before]).unwrap();
        assert!(twice.require(Some(&present)).is_ok(), "two dates are none");
    }

    #[test]
    fn tags_take_precedence_over_dates() {
        let at = DateTime::from_timestamp(784_111_777, 0).unwrap();
        let present = ETag::new("a").modified(at);
        let of = |lines: [(&'static str, &'static str); 2]| {
            let line =
                |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            Preconditions::parse(&lines.into_iter().map(line).collect()).unwrap()
        };
        let before = "Sun, 06 Nov 1994 08:49:36 GMT";
        let wanted = of([("if-match", "\"a\""), ("if-unmodified-since", before)]);
        assert!(wanted.require(Some(&present)).is_ok());
        let wanted = of([
            ("if-none-match", "\"b\""),
            ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ]);
        assert!(!wanted.is_unchanged(&present).unwrap());
    }

    #[test]
    fn header_lines_form_one_list_and_garbage_is_refused() {
        let two = conditions("if-match", &["\"a\"", "\"b\""]).unwrap();
        assert!(two.require(Some(&ETag::new("b"))).is_ok());
        for wrong in ["a", "\"a", "\"a\" \"b\"", "", " , ", "é", "w/\"a\"", "*, \"a\"", "\"a b\""]
        {
            let refused = conditions("if-match", &[wrong]).unwrap_err();
            assert_eq!(refused.code(), "INVALID_CONDITION", "{wrong}");
        }
    }

    #[test]
    fn tag_may_have_a_comma_and_empty_elements_are_skipped() {
        assert!(allows("if-match", ", \"a\",,", Some("a")));
        assert!(allows("if-match", "\"x,\", \"a\"", Some("a")));
        assert!(allows("if-match", "\"é\", \"a\"", Some("a")), "a tag may have any byte");
    }
}
