//! The access token of a request: exactly one `Authorization` header with the scheme `Bearer`.
//!
//! The token is not verified here. It is never taken from the query, a cookie or a body.

use std::fmt;

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};

use super::problem::{Problem, Unauthorized};

/// A token as sent, unverified. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BearerToken<'a>(&'a str);

impl<'a> BearerToken<'a> {
    /// Returns the token.
    pub fn expose(self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for BearerToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerToken(…)")
    }
}

/// Returns the bearer token in `headers`.
///
/// # Errors
///
/// - 400 for two `Authorization` headers, which are ambiguous.
/// - 401 without an error for none, or for another scheme: no token was sent.
/// - 401 with `invalid_token` for `Bearer` followed by malformed text.
pub fn token(headers: &HeaderMap) -> Result<BearerToken<'_>, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = given.next() else {
        return Err(Problem::unauthorized(Unauthorized::NoToken));
    };
    if given.next().is_some() {
        return Err(Problem::bad_request(
            "INVALID_REQUEST",
            "There must be at most one Authorization header.",
        )
        .with_header(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(r#"Bearer error="invalid_request""#),
        ));
    }
    let (scheme, rest) = match value.as_bytes().iter().position(|byte| *byte == b' ') {
        Some(end) => value.as_bytes().split_at(end),
        None => (value.as_bytes(), &[][..]),
    };
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Problem::unauthorized(Unauthorized::NoToken));
    }
    str::from_utf8(rest.trim_ascii())
        .ok()
        .filter(|token| is_token68(token))
        .map(BearerToken)
        .ok_or_else(|| Problem::unauthorized(Unauthorized::InvalidToken))
}

/// Matches `token68` of RFC 9110: one or more characters, then padding.
fn is_token68(text: &str) -> bool {
    let unpadded = text.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !unpadded.is_empty() && unpadded.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |text: &&str| HeaderValue::from_str(text).unwrap();
        let name = |value| (header::AUTHORIZATION, value);
        values.iter().map(value).map(name).collect()
    }

    fn refused(values: &[&str]) -> (StatusCode, HeaderValue) {
        let problem = token(&headers(values)).unwrap_err();
        let challenge = problem.header(header::WWW_AUTHENTICATE).unwrap().clone();
        (problem.status(), challenge)
    }

    #[test]
    fn scheme_is_case_insensitive() {
        for value in ["Bearer a.b-c_d", "bearer a.b-c_d", "BEARER   a.b-c_d"] {
            assert_eq!(token(&headers(&[value])).unwrap().expose(), "a.b-c_d");
        }
    }

    #[test]
    fn two_authorization_headers_are_a_bad_request() {
        let (status, challenge) = refused(&["Bearer a", "Bearer a"]);
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(challenge, r#"Bearer error="invalid_request""#);
    }

    #[test]
    fn missing_token_gets_a_challenge_without_an_error() {
        for values in [&[][..], &["Basic dXNlcjpwdw=="], &["Bearerx"], &[""]] {
            assert_eq!(refused(values), (StatusCode::UNAUTHORIZED, "Bearer".parse().unwrap()));
        }
    }

    #[test]
    fn malformed_token_is_invalid() {
        for value in ["Bearer", "Bearer ", "Bearer a b", "Bearer a,b", "Bearer =", "Bearer \"a\""] {
            let (status, challenge) = refused(&[value]);
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{value}");
            assert_eq!(challenge, r#"Bearer error="invalid_token""#, "{value}");
        }
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let headers = headers(&["Bearer secret"]);
        assert_eq!(format!("{:?}", token(&headers).unwrap()), "BearerToken(…)");
    }
}
