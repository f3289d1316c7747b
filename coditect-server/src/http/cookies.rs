//! The cookies that a browser keeps tokens in, where the operator wants that.
//!
//! Their names begin with `__Host-`, so that a browser takes them from this host only, over TLS or from
//! itself, and for all paths (RFC 6265bis, section 4.1.3.2); no script can read them, and requests that
//! other sites have it make do not bear them, but for plain links.

use coditect_auth::Tokens;
use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

use crate::problem::Problem;

/// The access token's.
pub(crate) const ACCESS: &str = "__Host-coditect-access";
const REFRESH: &str = "__Host-coditect-refresh";

/// What both have.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// How long a browser keeps the refresh token, in seconds: no session lives longer.
const REFRESH_KEPT_S: i64 = 400 * 24 * 60 * 60;

/// The access token of a request's cookies.
///
/// # Errors
///
/// 400 if there are two.
pub(crate) fn access(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    value(headers, ACCESS)
}

/// The refresh token of a request's cookies.
///
/// # Errors
///
/// 400 if there are two.
pub(crate) fn refresh(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    value(headers, REFRESH)
}

/// Has a browser keep `tokens`.
pub(crate) fn set(headers: &mut HeaderMap, tokens: &Tokens) {
    let expires_in_s = tokens.expires_in.num_seconds();
    append(headers, ACCESS, tokens.access.expose(), expires_in_s);
    append(headers, REFRESH, tokens.refresh.expose(), REFRESH_KEPT_S);
}

/// Has a browser forget them.
pub(crate) fn clear(headers: &mut HeaderMap) {
    for name in [ACCESS, REFRESH] {
        append(headers, name, "", 0);
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &str, max_age_s: i64) {
    let cookie = format!("{name}={value}; {ATTRIBUTES}; Max-Age={max_age_s}");
    // Tokens are Base64 and dots, which stand in a header.
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    let first = found.next();
    if found.next().is_some() {
        return Err(Problem::bad_request("INVALID_REQUEST", "A cookie is there twice."));
    }
    Ok(first.filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let line = |text: &&str| (header::COOKIE, HeaderValue::from_str(text).unwrap());
        lines.iter().map(line).collect()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_line() {
        let lines = ["a=b; __Host-coditect-access=x.y.z", "x__Host-coditect-refresh=n; c="];
        assert_eq!(access(&headers(&lines)).unwrap(), Some("x.y.z"));
        assert_eq!(refresh(&headers(&lines)).unwrap(), None);
    }

    #[test]
    fn a_cookie_that_is_there_twice_is_refused() {
        for lines in [
            &["__Host-coditect-access=a; __Host-coditect-access=b"][..],
            &["__Host-coditect-access=a", "__Host-coditect-access=a"],
        ] {
            assert_eq!(access(&headers(lines)).unwrap_err().code(), "INVALID_REQUEST");
        }
    }

    #[test]
    fn cleared_cookies_are_forgotten_at_once_under_the_same_terms() {
        let mut headers = HeaderMap::new();
        clear(&mut headers);
        let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(
            cookies[0],
            "__Host-coditect-access=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
        );
        assert_eq!(cookies.len(), 2);
    }
}
