//! What goes wrong, as the client sees it: the only map from errors to HTTP statuses.
//!
//! A [`Problem`] keeps apart what the client is told (status, code, message, fields) and what only
//! the log learns (the cause). Nothing moves from the second to the first: no path, key, token,
//! hash or text of an inner error reaches a client. Another crate's errors are mapped here, by one
//! `From` for each, so that handlers say `?`.

use std::{error::Error, fmt, time::Duration};

use bytes::Bytes;
use coditect_auth as auth;
use coditect_store::{self as store, ErrorKind};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderValue},
};
use serde::Serialize;

use super::{RequestId, headers};

/// An error's cause, kept whole for the log.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// When to try again what failed for want of room or luck.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// A refusal or a failure, ready to be sent. Boxed inside, so that `Result<_, Problem>` stays
/// small.
pub struct Problem(Box<Told>);

struct Told {
    status: StatusCode,
    code: &'static str,
    message: String,
    fields: Vec<Field>,
    headers: HeaderMap,
    cause: Option<Cause>,
}

/// What is wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The field, as a path: `email`, `settings.theme`, `tabs[2].path`.
    pub field: String,
    /// What is wrong with it, for a person.
    pub message: String,
}

#[derive(Serialize)]
struct Envelope<'a> {
    success: bool,
    error: Shown<'a>,
}

#[derive(Serialize)]
struct Shown<'a> {
    code: &'a str,
    message: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fields: &'a [Field],
}

/// How a request failed to say who it is from (RFC 6750).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unauthorized {
    /// No token was given, so nothing about one is wrong.
    NoToken,
    /// The token is malformed, expired, revoked or not ours; the client isn't told which.
    InvalidToken,
}

impl Problem {
    /// A problem of any kind: `code` is `UPPER_SNAKE`, `message` is for a person at the client.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Told {
            status,
            code,
            message: message.into(),
            fields: Vec::new(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401 with the challenge that goes with it.
    pub fn unauthorized(reason: Unauthorized) -> Self {
        let (message, challenge) = match reason {
            Unauthorized::NoToken => ("Sign in to do this.", "Bearer"),
            Unauthorized::InvalidToken => {
                ("The access token is not valid, or no longer.", r#"Bearer error="invalid_token""#)
            }
        };
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// 401 for credentials that don't hold, with a code that tells the client what to do.
    pub fn refused(code: &'static str, message: &str) -> Self {
        let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
        Self::new(StatusCode::UNAUTHORIZED, code, message)
            .with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// 400: the cursor is not one, or is one of another list.
    pub fn invalid_cursor() -> Self {
        Self::bad_request("INVALID_CURSOR", "The cursor is not one of this list.")
    }

    /// What a page's failure means: a call that the store calls invalid had another list's cursor.
    pub(crate) fn of_page(error: store::Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid => Self::invalid_cursor().with_cause(error),
            _ => error.into(),
        }
    }

    /// Maps the failure of a page of identity's, as [`of_page`](Self::of_page) does.
    pub(crate) fn of_auth_page(error: auth::Error) -> Self {
        match error {
            auth::Error::Store(error) => Self::of_page(error),
            error => error.into(),
        }
    }

    /// 403: the caller is known, may see the thing, and may not do this with it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// 404: there is nothing here, or nothing that this caller may know of.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "There is nothing here.")
    }

    /// 405, with the methods that would do.
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "This path doesn't take that method.",
        )
        .with_header(header::ALLOW, headers::allow(allowed))
    }

    /// 408: the client took too long to send its request.
    pub fn request_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            "The request took too long to arrive.",
        )
    }

    /// 409: the thing is in a state that this cannot be done in.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 412: the thing has changed since the client saw it.
    pub fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "PRECONDITION_FAILED",
            "It has been changed since you read it.",
        )
    }

    /// 422: there would be more of something than can be kept.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "TOO_LARGE", message)
    }

    /// What is not there was named by a field of the body: 422; other problems are as they are.
    #[must_use]
    pub fn of_field(self, field: &str, message: &str) -> Self {
        if self.status() == StatusCode::NOT_FOUND {
            return Self::invalid_field("VALIDATION_FAILED", field, message);
        }
        self
    }

    /// 413: the body is larger than `limit_bytes`.
    pub fn payload_too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PAYLOAD_TOO_LARGE",
            format!("The body may be at most {limit_bytes} bytes long."),
        )
    }

    /// 414: the request's target is too long.
    pub fn uri_too_long() -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", "The request's address is too long.")
    }

    /// 415: the body is of a kind that isn't taken here.
    pub fn unsupported_media_type(expected: &'static str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            format!("The body must be {expected}, and its Content-Type must say so."),
        )
    }

    /// 422: the request is understood, and these fields of it are wrong.
    pub fn validation(fields: Vec<Field>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "VALIDATION_FAILED",
            "Some fields are missing or wrong.",
        )
        .with_fields(fields)
    }

    /// 422 about one field, with a code of its own, such as `WEAK_PASSWORD`.
    pub fn invalid_field(code: &'static str, field: &str, message: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
            .with_fields(vec![Field::new(field, message)])
    }

    /// 415: the content is encoded; none of the codings is accepted.
    pub fn unsupported_encoding() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_CONTENT_ENCODING",
            "Content-Encoding is not supported in requests: send the content as it is.",
        )
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// 429: too many attempts; the next one may come after `retry_after`.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TOO_MANY_REQUESTS",
            "Too many attempts. Wait a little and try again.",
        )
        .with_retry_after(retry_after)
    }

    /// 431: the header block has more bytes or more headers than are taken.
    pub fn header_too_large() -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "HEADER_TOO_LARGE",
            "The request's headers are too many or too large.",
        )
    }

    /// 500: the server failed, and `cause` is for the log only.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL",
            "Something went wrong on our side.",
        )
        .with_cause(cause)
    }

    /// 503: not now; the same request may succeed after `retry_after`.
    pub fn unavailable(code: &'static str, retry_after: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code,
            "The server cannot do this right now. Try again shortly.",
        )
        .with_retry_after(retry_after)
    }

    /// Names the fields that are wrong.
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<Field>) -> Self {
        self.0.fields = fields;
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// Gives it another code, for a program to tell it from others of its kind.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Says when to try again, in whole seconds, rounded up and at least one.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        let whole_s = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(whole_s.max(1)))
    }

    /// Keeps what it came from, for the log. The client never sees it.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The code that a program at the client goes by.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// The fields that are named as wrong.
    pub fn fields(&self) -> &[Field] {
        &self.0.fields
    }

    /// The header called `name`, where the answer bears it.
    pub fn header(&self, name: header::HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    /// The headers of the answer, without those that every answer bears.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// What it came from, for the log only.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.cause.as_deref()
    }

    /// What the client is told of it, in JSON.
    pub(crate) fn shown(&self, request_id: &RequestId) -> serde_json::Value {
        let shown = Shown {
            code: self.0.code,
            message: &self.0.message,
            request_id: request_id.as_str(),
            fields: &self.0.fields,
        };
        serde_json::json!(shown)
    }

    /// The body of the answer.
    pub(crate) fn envelope(&self, request_id: &RequestId) -> Bytes {
        let envelope = Envelope {
            success: false,
            error: Shown {
                code: self.0.code,
                message: &self.0.message,
                request_id: request_id.as_str(),
                fields: &self.0.fields,
            },
        };
        // Strings and lists of strings always have a JSON form; were it otherwise, an empty body
        // would still bear the status.
        serde_json::to_vec(&envelope).unwrap_or_default().into()
    }
}

impl Field {
    /// `message` about `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("status", &self.0.status)
            .field("code", &self.0.code)
            .field("message", &self.0.message)
            .field("fields", &self.0.fields)
            .field("cause", &self.0.cause)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen_by_the_client(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.envelope(&RequestId::choose(&HeaderMap::new()))).unwrap()
    }

    #[test]
    fn the_client_never_sees_the_cause() {
        let problem = Problem::internal(std::io::Error::other("/var/lib/secret"));
        assert!(!seen_by_the_client(&problem).to_string().contains("secret"));
        assert_eq!(problem.cause().unwrap().to_string(), "/var/lib/secret");
    }

    #[test]
    fn the_envelope_names_code_message_request_id_and_fields() {
        let body =
            seen_by_the_client(&Problem::validation(vec![Field::new("email", "is required")]));
        assert_eq!(body["success"], json!(false));
        assert_eq!(body["error"]["code"], "VALIDATION_FAILED");
        assert!(body["error"]["message"].is_string());
        assert!(body["error"]["request_id"].is_string());
        assert_eq!(body["error"]["fields"], json!([{"field": "email", "message": "is required"}]));
    }

    #[test]
    fn fields_are_absent_where_none_is_named() {
        let body = seen_by_the_client(&Problem::not_found());
        assert!(body["error"].get("fields").is_none());
    }

    #[test]
    fn a_challenge_tells_about_an_error_only_where_a_token_was_given() {
        let challenge = |reason| {
            let problem = Problem::unauthorized(reason);
            problem.header(header::WWW_AUTHENTICATE).unwrap().clone()
        };
        assert_eq!(challenge(Unauthorized::NoToken), "Bearer");
        assert_eq!(challenge(Unauthorized::InvalidToken), r#"Bearer error="invalid_token""#);
    }

    #[test]
    fn retry_after_is_rounded_up_to_at_least_a_second() {
        let seconds = |retry_after| {
            let problem = Problem::too_many_requests(retry_after);
            problem.header(header::RETRY_AFTER).unwrap().clone()
        };
        assert_eq!(seconds(Duration::ZERO), "1");
        assert_eq!(seconds(Duration::from_millis(1500)), "2");
        assert_eq!(seconds(Duration::from_secs(7)), "7");
    }
}
