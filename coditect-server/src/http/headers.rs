//! Security headers and timing of every response, unless its handler sets them.

use std::{sync::LazyLock, time::Duration};

use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

/// Content-Security-Policy of API responses: a browser must not run, load or frame anything.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// HSTS for a year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

static PROTECTION: LazyLock<[(HeaderName, HeaderValue); 6]> = LazyLock::new(|| {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        // Scripts of allowed origins can still read responses with CORS; this blocks embedding
        // without it.
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
});

/// Adds missing security headers.
pub(crate) fn add_security_headers(headers: &mut HeaderMap) {
    headers.reserve(PROTECTION.len());
    for (name, value) in PROTECTION.iter() {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}

/// Adds `Server-Timing` in whole milliseconds, except for authentication, where a precise time
/// would help guessing.
pub(crate) fn add_server_timing(headers: &mut HeaderMap, route: &str, took: Duration) {
    if route.starts_with("/api/v5/auth/") {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&format!("app;dur={}", took.as_millis())) {
        headers.entry(SERVER_TIMING).or_insert(value);
    }
}

/// Adds HSTS, for a request over TLS.
pub(crate) fn add_hsts(headers: &mut HeaderMap) {
    headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HSTS);
}

/// Returns the value of an `Allow` header.
pub(crate) fn allow(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    // A list of method tokens is always a valid header value.
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timing_is_in_milliseconds_and_omitted_for_authentication() {
        let mut headers = HeaderMap::new();
        add_server_timing(&mut headers, "/api/v5/auth/login", Duration::from_micros(1900));
        assert!(headers.is_empty());
        add_server_timing(&mut headers, "/api/v5/sessions", Duration::from_micros(1900));
        assert_eq!(headers[SERVER_TIMING], "app;dur=1");
    }

    #[test]
    fn headers_of_the_handler_are_kept() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        add_security_headers(&mut headers);
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], "sandbox");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(headers.len(), PROTECTION.len());
    }
}
