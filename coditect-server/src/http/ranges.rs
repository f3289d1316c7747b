//! Range requests (RFC 9110, section 14).
//!
//! One range of bytes is supported. A request for several ranges or another unit gets the whole
//! content, as the RFC permits.

use std::ops::Range;

use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};

use super::{Request, conditions::ETag, problem::Problem};

/// Returns the range that `request` asks for in `size_bytes` bytes with this tag; `None` for all of
/// them. Only GET has ranges: a HEAD gets the headers of the whole (RFC 9110, section 14.2).
///
/// # Errors
///
/// Fails with 416 if the range is not satisfiable.
pub(crate) fn wanted(
    request: &Request,
    tag: &ETag,
    size_bytes: u64,
) -> Result<Option<Range<u64>>, Problem> {
    if *request.method() != Method::GET {
        return Ok(None);
    }
    parse_headers(request.headers(), tag, size_bytes)
}

fn parse_headers(
    headers: &HeaderMap,
    tag: &ETag,
    size_bytes: u64,
) -> Result<Option<Range<u64>>, Problem> {
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(spec), None) = (lines.next(), lines.next()) else { return Ok(None) };
    let Ok(spec) = spec.to_str() else { return Ok(None) };
    // If the client has a part of another representation, everything is sent.
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

/// Returns the value of `Content-Range`.
pub(crate) fn content_range(part: &Range<u64>, size_bytes: u64) -> Result<HeaderValue, Problem> {
    let value = format!("bytes {}-{}/{size_bytes}", part.start, part.end - 1);
    HeaderValue::from_str(&value).map_err(Problem::internal)
}

/// A requested range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spec {
    /// First to last byte, inclusive.
    Between(u64, u64),
    /// First byte to the end.
    From(u64),
    /// Number of bytes at the end.
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
    // A number too large for `u64` is beyond the end of any content.
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
    let message = format!("The range is not satisfiable: the content has {size_bytes} bytes.");
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
        parse_headers(&headers, &ETag::new("t"), 10)
    }

    #[test]
    fn single_range_is_resolved() {
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
    fn other_ranges_are_ignored() {
        for range in
            ["bytes=0-1,3-4", "lines=1-2", "bytes=3-1", "bytes=a-b", "bytes=-", "bytes", ""]
        {
            assert_eq!(asked(range, None).unwrap(), None, "{range}");
        }
    }

    #[test]
    fn range_beyond_the_end_is_refused() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=99999999999999999999999-"] {
            let refused = asked(range, None).unwrap_err();
            assert_eq!(refused.status(), StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
            assert_eq!(refused.header(header::CONTENT_RANGE).unwrap(), "bytes */10");
        }
    }

    #[test]
    fn changed_content_is_sent_whole() {
        assert_eq!(asked("bytes=1-2", Some("\"t\"")).unwrap(), Some(1..3));
        assert_eq!(asked("bytes=1-2", Some("\"old\"")).unwrap(), None);
        assert_eq!(asked("bytes=1-2", Some("W/\"t\"")).unwrap(), None);
    }
}
