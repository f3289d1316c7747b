//! What every answer tells a browser, most of it what not to do, unless its handler has said otherwise.

use std::{sync::LazyLock, time::Duration};

use hyper::{
    HeaderMap, Method,
    header::{self, HeaderName, HeaderValue},
};

/// What an answer of the API is to a browser that is led to it: nothing that runs, loads or is framed.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// A year: whoever has spoken TLS with this host speaks nothing else with it until then.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

static PROTECTION: LazyLock<[(HeaderName, HeaderValue); 6]> = LazyLock::new(|| {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        // Scripts of allowed origins read answers all the same: this is for those who don't ask.
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
});

/// Adds what is not there.
pub(crate) fn protect(headers: &mut HeaderMap) {
    headers.reserve(PROTECTION.len());
    for (name, value) in PROTECTION.iter() {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}

/// Says how long the server took, for the browser's own tools: in whole milliseconds, and not where
/// somebody proves who they are, so that nobody times a guess by it.
pub(crate) fn tell_time(headers: &mut HeaderMap, route: &str, took: Duration) {
    if route.starts_with("/api/v5/auth/") {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&format!("app;dur={}", took.as_millis())) {
        headers.entry(SERVER_TIMING).or_insert(value);
    }
}

/// Has the browser stay with TLS, by which the request came.
pub(crate) fn stay_secure(headers: &mut HeaderMap) {
    headers.entry(header::STRICT_TRANSPORT_SECURITY).or_insert(HSTS);
}

/// The value of an `Allow` header.
pub(crate) fn allow(methods: &[Method]) -> HeaderValue {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    // Methods are tokens, and a list of tokens always stands in a header.
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_told_in_milliseconds_and_not_of_a_guess() {
        let mut headers = HeaderMap::new();
        tell_time(&mut headers, "/api/v5/auth/login", Duration::from_micros(1900));
        assert!(headers.is_empty());
        tell_time(&mut headers, "/api/v5/sessions", Duration::from_micros(1900));
        assert_eq!(headers[SERVER_TIMING], "app;dur=1");
    }

    #[test]
    fn what_a_handler_has_said_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        protect(&mut headers);
        assert_eq!(headers[header::CONTENT_SECURITY_POLICY], "sandbox");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(headers.len(), PROTECTION.len());
    }
}
