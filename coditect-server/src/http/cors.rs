//! CORS, as in the Fetch standard: pages of allowed origins may use the API from a browser. Other
//! origins get no CORS headers, so that their browsers block the responses.
//!
//! A preflight is an ordinary OPTIONS; its response allows the methods of the route.

use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

use super::origin::{self, Origin};

/// Request headers that a page may send in addition to those always allowed.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, if-match, if-none-match, if-modified-since, if-unmodified-since, \
     if-range, range, idempotency-key, content-digest, x-request-id, x-csrf-token",
);

/// Response headers that a page may read in addition to those always allowed.
const EXPOSED_HEADERS: HeaderValue = HeaderValue::from_static(
    "etag, location, retry-after, x-request-id, content-range, content-digest, accept-ranges, \
     www-authenticate",
);

/// Time for which a browser caches a preflight, in seconds.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");

const REQUEST_METHOD: HeaderName = header::ACCESS_CONTROL_REQUEST_METHOD;

/// The CORS properties of a request.
#[derive(Debug)]
pub(crate) struct Cors {
    /// Whether any origin is allowed, so that responses depend on the origin.
    is_on: bool,
    /// Origin of the page, if it is allowed.
    origin: Option<HeaderValue>,
    is_preflight: bool,
    /// Whether cookies are accepted.
    with_cookies: bool,
}

impl Cors {
    /// Reads the properties of a request for `method` with `headers`.
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
            // Two origins are ambiguous and count as none.
            origin: if said.next().is_none() { origin.cloned() } else { None },
            is_preflight: method == Method::OPTIONS && headers.contains_key(REQUEST_METHOD),
            with_cookies,
        }
    }

    /// Adds the CORS headers to a response.
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

/// Adds the origin to `Vary`.
fn vary(headers: &mut HeaderMap) {
    let present = headers.get(header::VARY).and_then(|value| value.to_str().ok());
    let joined = present.map(|value| format!("{value}, origin"));
    let value = joined.and_then(|value| HeaderValue::from_str(&value).ok());
    headers.insert(header::VARY, value.unwrap_or(HeaderValue::from_static("origin")));
}
