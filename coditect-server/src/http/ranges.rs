//! Range requests (RFC 9110, section 14): a part of a content, by its bytes.
//!
//! One range is given; of a request for several, and of units that are not bytes, the header is
//! passed over, and all is given, which the RFC leaves to a server.

use std::ops::Range;

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};

use super::{Request, conditions::Tag, problem::Problem};

/// Returns the part of `size_bytes` bytes with this tag that `request` asks for; `None` for all of them.
/// Only GET has ranges: a HEAD is answered as for the whole (RFC 9110, section 14.2).
///
/// # Errors
///
/// Fails with 416 if there are no such bytes.
pub(crate) fn wanted(
    request: &Request,
    tag: &Tag,
    size_bytes: u64,
) -> Result<Option<Range<u64>>, Problem> {
    if *request.method() != Method::GET {
        return Ok(None);
    }
    parse_headers(request.headers(), tag, size_bytes)
}

fn parse_headers(
    headers: &HeaderMap,
    tag: &Tag,
    size_bytes: u64,
) -> Result<Option<Range<u64>>, Problem> {
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(spec), None) = (lines.next(), lines.next()) else { return Ok(None) };
    let Ok(spec) = spec.to_str() else { return Ok(None) };
    // If the client's other part is of another representation, all is sent.
    if let Some(seen) = headers.get(header::IF_RANGE)
        && *seen != tag.header()?
    {
        return Ok(None);
    }
    match parse(spec) {
        None => Ok(None),
        Some(spec) => spec.of(size_bytes).map(Some).ok_or_else(|| unsatisfiable(size_bytes)),
    }
}

/// The value of `Content-Range` of a part.
pub(crate) fn content_range(part: &Range<u64>, size_bytes: u64) -> Result<HeaderValue, Problem> {
    let value = format!("bytes {}-{}/{size_bytes}", part.start, part.end - 1);
    HeaderValue::from_str(&value).map_err(Problem::internal)
}

/// One range, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    /// From the first to the last, both included.
    Between(u64, u64),
    /// From the first on.
    From(u64),
    /// So many at the end.
    Last(u64),
}

impl Spec {
    fn of(self, size_bytes: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Between(first, last) => first..size_bytes.min(last.saturating_add(1)),
            Self::From(first) => first..size_bytes,
            Self::Last(count) => size_bytes.saturating_sub(count)..size_bytes,
        };
        (!range.is_empty()).then_some(range)
    }
}

fn parse(spec: &str) -> Option<Spec> {
    let (unit, range) = spec.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    // A number that is too large for one is past the end of everything.
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    match (first.trim(), last.trim()) {
        ("", count) => number(count).map(Spec::Last),
        (first, "") => number(first).map(Spec::From),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Spec::Between(first, last))
        }
    }
}

fn unsatisfiable(size_bytes: u64) -> Problem {
    let message = format!("There are no such bytes among the {size_bytes} that there are.");
    let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_NOT_SATISFIABLE", message);
    match HeaderValue::from_str(&format!("bytes */{size_bytes}")) {
        Ok(value) => problem.with_header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &str, if_range: Option<&str>) -> Result<Option<Range<u64>>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(range).unwrap());
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, HeaderValue::from_str(tag).unwrap());
        }
        parse_headers(&headers, &Tag::new("t"), 10)
    }

    #[test]
    fn one_range_is_a_part_of_what_there_is() {
        for (range, part) in [
            ("bytes=0-3", 0..4),
            ("bytes=3-3", 3..4),
            ("bytes=8-", 8..10),
            ("bytes=-4", 6..10),
            ("bytes=-99", 0..10),
            ("bytes=5-99999999999999999999999", 5..10),
            ("Bytes = 2 - 4", 2..5),
        ] {
            assert_eq!(asked(range, None).unwrap(), Some(part), "{range}");
        }
    }

    #[test]
    fn what_is_no_single_range_of_bytes_is_passed_over() {
        for range in
            ["bytes=0-1,3-4", "lines=1-2", "bytes=3-1", "bytes=a-b", "bytes=-", "bytes", ""]
        {
            assert_eq!(asked(range, None).unwrap(), None, "{range}");
        }
    }

    #[test]
    fn bytes_that_are_not_there_are_refused() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            let refused = asked(range, None).unwrap_err();
            assert_eq!(refused.status(), StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
            assert_eq!(refused.header(header::CONTENT_RANGE).unwrap(), "bytes */10");
        }
    }

    #[test]
    fn of_what_has_changed_all_is_given() {
        assert_eq!(asked("bytes=1-2", Some("\"t\"")).unwrap(), Some(1..3));
        assert_eq!(asked("bytes=1-2", Some("\"old\"")).unwrap(), None);
        assert_eq!(asked("bytes=1-2", Some("W/\"t\"")).unwrap(), None);
    }
}
