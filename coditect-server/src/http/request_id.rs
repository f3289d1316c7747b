//! The id of a request, in its response and in the log.
//!
//! A valid id of the client is kept, so that a trace can span programs. It is a label, never
//! trusted and never used as a key. An invalid one is replaced.

use std::fmt;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use uuid::Uuid;

/// Header of the id, in requests and responses.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX_CHARS: usize = 128;

/// 1 to 128 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Returns the client's id if it sent exactly one valid id, otherwise a new one.
    pub fn choose(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        match (given.next().and_then(valid), given.next()) {
            (Some(id), None) => Self(id.to_owned()),
            _ => Self::new(),
        }
    }

    /// Creates a new id, a UUID v7.
    #[expect(clippy::new_without_default, reason = "each call returns a different id")]
    pub fn new() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the header value. Every valid id is one.
    pub(crate) fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

fn valid(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    ((1..=MAX_CHARS).contains(&text.len()) && text.bytes().all(allowed)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(given: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in given {
            headers.append(X_REQUEST_ID, HeaderValue::from_str(value).unwrap());
        }
        RequestId::choose(&headers).as_str().to_owned()
    }

    #[test]
    fn valid_id_of_the_client_is_kept() {
        let longest = "x".repeat(128);
        for id in ["a", "trace-01_B.7", &longest] {
            assert_eq!(chosen(&[id]), id);
        }
    }

    #[test]
    fn invalid_id_is_replaced_by_a_uuid_v7() {
        let too_long = "x".repeat(129);
        for given in [&[][..], &[""], &["a b"], &["a/b"], &["é"], &[&too_long], &["a", "a"]] {
            let id: Uuid = chosen(given).parse().unwrap();
            assert_eq!(id.get_version_num(), 7);
        }
    }
}
