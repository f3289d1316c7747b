//! Pages of other origins (CORS, as the Fetch standard has it): those on the operator's list may use the
//! API from their browsers. To all others nothing is said, and their browsers keep the answers from them.
//!
//! A preflight is an OPTIONS like any other: the methods that its answer allows are the route's.

use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

use super::origin::{self, Origin};

/// What a page may send beside what any may.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, if-match, if-none-match, if-modified-since, if-unmodified-since, \
     if-range, range, idempotency-key, content-digest, x-request-id, x-csrf-token",
);

/// What a page may see of an answer beside what any may.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, location, retry-after, x-request-id, content-range, content-digest, accept-ranges, \
     www-authenticate",
);

/// How long a browser remembers what it was told beforehand, in seconds.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");

const REQUEST_METHOD: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;

/// What one request is to other origins.
#[derive(Debug)]
pub(crate) struct Cors {
    /// Whether any are let in: then an answer may differ by who asks.
    is_on: bool,
    /// The page's, if it is on the list.
    origin: Option<HeaderValue>,
    is_preflight: bool,
    /// Whether cookies count.
    with_cookies: bool,
}

impl Cors {
    /// Of a request for `method` with `headers`.
    pub(crate) fn of(
        allowed: &[Origin],
        with_cookies: bool,
        method: &Method,
        headers: &HeaderMap,
    ) -> Self {
        let mut said = headers.get_all(header::ORIGIN).iter();
        let origin = said.next().filter(|origin| {
            origin.to_str().is_ok_and(|origin| origin::is_allowed(allowed, None, origin))
        });
        Self {
            is_on: !allowed.is_empty(),
            // Two are none: which of them is the page's is not for us to guess.
            origin: if said.next().is_none() { origin.cloned() } else { None },
            is_preflight: method == Method::OPTIONS && headers.contains_key(REQUEST_METHOD),
            with_cookies,
        }
    }

    /// Tells the browser, in the answer's headers.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if !self.is_on {
            return;
        }
        vary(headers);
        let Some(origin) = &self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.with_cookies {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if !self.is_preflight {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED_HEADERS);
        } else if let Some(methods) = headers.get(header::ALLOW).cloned() {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
        }
    }
}

/// Adds the origin to what the answer depends on.
fn vary(headers: &mut HeaderMap) {
    let present = headers.get(header::VARY).and_then(|value| value.to_str().ok());
    let joined = present.map(|value| format!("{value}, origin"));
    let value = joined.and_then(|value| HeaderValue::from_str(&value).ok());
    headers.insert(header::VARY, value.unwrap_or(HeaderValue::from_static("origin")));
}
