//! The name that one request goes by, in its answer and in the log.
//!
//! A client's own is taken where it is a sane one, so that a trace can span programs; it is a
//! label, never trusted and never a key. What isn't sane is replaced, not refused.

use std::fmt;

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use uuid::Uuid;

/// The header that bears it, both ways.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const LONGEST: usize = 128;

/// 1 to 128 characters of `[A-Za-z0-9._-]`.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// The client's own, if it sent exactly one and that is sane; else a new one, a UUID v7.
    pub fn choose(headers: &HeaderMap) -> Self {
        let mut given = headers.get_all(X_REQUEST_ID).iter();
        match (given.next().and_then(sane), given.next()) {
            (Some(id), None) => Self(id.to_owned()),
            _ => Self::new(),
        }
    }

    /// A new one, a UUID v7.
    #[expect(clippy::new_without_default, reason = "each call gives another one")]
    pub fn new() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a header's value, which its alphabet always makes.
    pub(crate) fn header_value(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({})", self.0)
    }
}

fn sane(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    ((1..=LONGEST).contains(&text.len()) && text.bytes().all(allowed)).then_some(text)
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
    fn a_sane_id_of_the_client_is_kept() {
        let longest = "x".repeat(128);
        for id in ["a", "trace-01_B.7", &longest] {
            assert_eq!(chosen(&[id]), id);
        }
    }

    #[test]
    fn any_other_is_replaced_by_a_uuid_v7() {
        let too_long = "x".repeat(129);
        for given in [&[][..], &[""], &["a b"], &["a/b"], &["é"], &[&too_long], &["a", "a"]] {
            let id: Uuid = chosen(given).parse().unwrap();
            assert_eq!(id.get_version_num(), 7);
        }
    }
}
