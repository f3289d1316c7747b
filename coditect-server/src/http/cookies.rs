//! The cookies in which browsers keep tokens, if the operator enables them.
//!
//! Their names begin with `__Host-`, so that a browser accepts them from this host only, over TLS
//! or from localhost, and for all paths (RFC 6265bis, section 4.1.3.2). Scripts cannot read them,
//! and cross-site requests other than top-level navigation do not carry them. Cookies do not
//! distinguish ports: servers on one host need different [prefixes](CookieNames).
//!
//! A `Cookie` header is parsed as bytes, pair by pair, so that another application's cookie with a
//! non-ASCII byte, which browsers send unchanged, affects no other pair.

use coditect_auth::Tokens;
use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

use super::problem::Problem;

/// Default prefix of the names.
pub(crate) const DEFAULT_PREFIX: &str = "coditect";

const MAX_PREFIX_BYTES: usize = 64;

/// Attributes of both cookies.
const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";

/// `Max-Age` of the refresh cookie, in seconds; no session lives longer.
const REFRESH_MAX_AGE_S: i64 = 400 * 24 * 60 * 60;

/// The names of a server's cookies, `__Host-PREFIX-access` and `__Host-PREFIX-refresh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieNames {
    access: String,
    refresh: String,
}

impl CookieNames {
    /// Returns the names with `prefix`, which consists of ASCII letters, digits, `-` and `_`.
    ///
    /// # Errors
    ///
    /// Fails with a message for the operator if `prefix` is empty, too long or has other
    /// characters.
    pub fn with_prefix(prefix: &str) -> Result<Self, String> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if prefix.is_empty() || prefix.len() > MAX_PREFIX_BYTES || !prefix.bytes().all(is_valid) {
            return Err("must have 1 to 64 letters, digits, `-` or `_`".to_owned());
        }
        Ok(Self {
            access: format!("__Host-{prefix}-access"),
            refresh: format!("__Host-{prefix}-refresh"),
        })
    }

    /// Returns the access token in a request's cookies.
    ///
    /// # Errors
    ///
    /// Fails with 400 if the cookie occurs twice.
    pub(crate) fn access<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
        value(headers, &self.access)
    }

    /// Returns the refresh token in a request's cookies.
    ///
    /// # Errors
    ///
    /// Fails with 400 if the cookie occurs twice.
    pub(crate) fn refresh<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
        value(headers, &self.refresh)
    }

    /// Sets both cookies in the headers of a response.
    pub(crate) fn set(&self, headers: &mut HeaderMap, tokens: &Tokens) {
        let expires_in_s = tokens.expires_in.num_seconds();
        append(headers, &self.access, tokens.access.expose(), expires_in_s);
        append(headers, &self.refresh, tokens.refresh.expose(), REFRESH_MAX_AGE_S);
    }

    /// Deletes both cookies.
    pub(crate) fn clear(&self, headers: &mut HeaderMap) {
        for name in [&self.access, &self.refresh] {
            append(headers, name, "", 0);
        }
    }
}

fn append(headers: &mut HeaderMap, name: &str, value: &str, max_age_s: i64) {
    let cookie = format!("{name}={value}; {ATTRIBUTES}; Max-Age={max_age_s}");
    // Names and tokens consist of characters allowed in a header.
    if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
        cookie.set_sensitive(true);
        headers.append(header::SET_COOKIE, cookie);
    }
}

fn value<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
    let mut found = lines.flat_map(|line| line.split(|byte| *byte == b';')).filter_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.trim_ascii_start();
        Some(value.strip_prefix(b"=")?.trim_ascii())
    });
    let first = found.next();
    if found.next().is_some() {
        let message = format!("The cookie {name} occurs twice in the request.");
        return Err(Problem::bad_request("INVALID_REQUEST", message));
    }
    // A value that is not text is refused as an invalid token.
    let first = first.map(|value| str::from_utf8(value).unwrap_or("?"));
    Ok(first.filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> CookieNames {
        CookieNames::with_prefix(DEFAULT_PREFIX).unwrap()
    }

    fn headers(lines: &[impl AsRef<[u8]>]) -> HeaderMap {
        let value = |line: &[u8]| HeaderValue::from_bytes(line).unwrap();
        lines.iter().map(|line| (header::COOKIE, value(line.as_ref()))).collect()
    }

    #[test]
    fn cookie_is_found_by_its_whole_name_in_any_line() {
        let lines = [
            "a=b; __Host-coditect-access=x.y.z",
            "x__Host-coditect-refresh=n; __Host-coditect-refresh2=m; c=",
        ];
        assert_eq!(names().access(&headers(&lines)).unwrap(), Some("x.y.z"));
        assert_eq!(names().refresh(&headers(&lines)).unwrap(), None);
        let spaced = headers(&["a=b;\t__Host-coditect-access = x.y.z ;c"]);
        assert_eq!(names().access(&spaced).unwrap(), Some("x.y.z"));
    }

    #[test]
    fn bytes_of_another_cookie_hide_no_pair() {
        for other in [&b"name=Jos\xc3\xa9"[..], b"name=Jos\xe9", b"\xff", b"\"a", b"=", b"a=\"b"] {
            let before = [other, b"; __Host-coditect-access=x.y.z"].concat();
            let after = [b"__Host-coditect-access=x.y.z; ", other].concat();
            for line in [before, after] {
                assert_eq!(names().access(&headers(&[line])).unwrap(), Some("x.y.z"));
            }
        }
    }

    #[test]
    fn token_that_is_not_text_is_present_and_invalid() {
        let headers = headers(&[b"__Host-coditect-access=\xe9"]);
        assert_eq!(names().access(&headers).unwrap(), Some("?"));
    }

    #[test]
    fn servers_with_different_prefixes_ignore_each_others_cookies() {
        let staging = CookieNames::with_prefix("staging").unwrap();
        let mine = headers(&["__Host-coditect-access=a; __Host-staging-access=b"]);
        assert_eq!(names().access(&mine).unwrap(), Some("a"));
        assert_eq!(staging.access(&mine).unwrap(), Some("b"));
        for wrong in ["", "a b", "a=b", "a;b", "é", &"x".repeat(65)] {
            assert!(CookieNames::with_prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cookie_that_occurs_twice_is_refused() {
        for lines in [
            &["__Host-coditect-access=a; __Host-coditect-access=b"][..],
            &["__Host-coditect-access=a", "__Host-coditect-access=a"],
        ] {
            let refused = names().access(&headers(lines)).unwrap_err();
            assert_eq!(refused.code(), "INVALID_REQUEST");
        }
    }

    #[test]
    fn deleted_cookies_expire_at_once_with_the_same_attributes() {
        let mut headers = HeaderMap::new();
        names().clear(&mut headers);
        let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().collect();
        assert_eq!(
            cookies[0],
            "__Host-coditect-access=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"
        );
        assert_eq!(cookies.len(), 2);
    }
}
