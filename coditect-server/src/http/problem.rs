//! Errors as clients see them.
//!
//! A [`Problem`] separates the data for the client (status, code, message, fields) from the cause,
//! which is only logged. No path, key, token, hash or text of an inner error reaches a client.

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

/// The cause of an error, for the log.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// Default of `Retry-After` for transient failures.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// A refusal or failure, ready to be sent. Boxed, so that `Result<_, Problem>` stays small.
pub struct Problem(Box<Inner>);

struct Inner {
    status: StatusCode,
    code: &'static str,
    message: String,
    fields: Vec<Field>,
    headers: HeaderMap,
    cause: Option<Cause>,
}

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Path of the field: `email`, `settings.theme`, `tabs[2].path`.
    pub field: String,
    /// Error message for a person.
    pub message: String,
}

#[derive(Serialize)]
struct Envelope<'a> {
    success: bool,
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fields: &'a [Field],
}

/// Reasons why a request is not authenticated (RFC 6750).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unauthorized {
    /// The request has no token.
    NoToken,
    /// The token is malformed, expired, revoked or foreign. The client does not learn which.
    InvalidToken,
}

impl Problem {
    /// Creates a problem. `code` is `UPPER_SNAKE` for programs, `message` is for people.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            code,
            message: message.into(),
            fields: Vec::new(),
            headers: HeaderMap::new(),
            cause: None,
        }))
    }

    /// Returns 400: the request is malformed.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Returns 401 with the challenge for `reason`.
    pub fn unauthorized(reason: Unauthorized) -> Self {
        let (message, challenge) = match reason {
            Unauthorized::NoToken => ("Sign in to do this.", "Bearer"),
            Unauthorized::InvalidToken => {
                ("The access token is invalid or expired.", r#"Bearer error="invalid_token""#)
            }
        };
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }

    /// Returns 401 for invalid credentials, with a code for the client.
    pub fn refused(code: &'static str, message: &str) -> Self {
        let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
        Self::new(StatusCode::UNAUTHORIZED, code, message)
            .with_header(header::WWW_AUTHENTICATE, challenge)
    }

    /// Returns 400: the cursor is invalid or belongs to another list.
    pub fn invalid_cursor() -> Self {
        Self::bad_request("INVALID_CURSOR", "The cursor does not belong to this list.")
    }

    /// Maps the error of a page request: the store reports a cursor of another list as invalid.
    pub(crate) fn of_page(error: store::Error) -> Self {
        match error.kind() {
            ErrorKind::Invalid => Self::invalid_cursor().with_cause(error),
            _ => error.into(),
        }
    }

    /// Maps the error of a page request to auth, like [`of_page`](Self::of_page).
    pub(crate) fn of_auth_page(error: auth::Error) -> Self {
        match error {
            auth::Error::Store(error) => Self::of_page(error),
            error => error.into(),
        }
    }

    /// Returns 403: the caller may see the resource, but may not do this with it.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// Returns 404: the resource does not exist, or the caller may not know that it does.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Not found.")
    }

    /// Returns 405 with the allowed methods.
    pub fn method_not_allowed(allowed: &[Method]) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "This path does not support that method.",
        )
        .with_header(header::ALLOW, headers::allow(allowed))
    }

    /// Returns 408: the client took too long to send its request.
    pub fn request_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            "The request took too long to arrive.",
        )
    }

    /// Returns 409: the state of the resource does not permit the operation.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// Returns 412: the resource has changed since the client read it.
    pub fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "PRECONDITION_FAILED",
            "It was changed after you read it. Load it again and retry.",
        )
    }

    /// Returns 422: a limit on size or number would be exceeded.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "TOO_LARGE", message)
    }

    /// Turns a 404 into a 422 about `field`, which named the missing resource. Other problems are
    /// unchanged.
    #[must_use]
    pub fn of_field(self, field: &str, message: &str) -> Self {
        if self.status() == StatusCode::NOT_FOUND {
            return Self::invalid_field("VALIDATION_FAILED", field, message);
        }
        self
    }

    /// Returns 413: the body is larger than `limit_bytes`.
    pub fn payload_too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PAYLOAD_TOO_LARGE",
            format!("The body may have at most {limit_bytes} bytes."),
        )
    }

    /// Returns 414: the request target is too long.
    pub fn uri_too_long() -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", "The request target is too long.")
    }

    /// Returns 415: the media type of the body is not supported.
    pub fn unsupported_media_type(expected: &'static str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            format!("The body must be {expected} with the matching Content-Type."),
        )
    }

    /// Returns 422: these fields are invalid.
    pub fn validation(fields: Vec<Field>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "VALIDATION_FAILED",
            "Some fields are missing or invalid.",
        )
        .with_fields(fields)
    }

    /// Returns 422 about one field, with a specific code such as `WEAK_PASSWORD`.
    pub fn invalid_field(code: &'static str, field: &str, message: &str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
            .with_fields(vec![Field::new(field, message)])
    }

    /// Returns 415: content codings are not supported.
    pub fn unsupported_encoding() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_CONTENT_ENCODING",
            "Content-Encoding is not supported in requests. Send the content without encoding.",
        )
        .with_header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
    }

    /// Returns 429: too many attempts; the next one is allowed after `retry_after`.
    pub fn too_many_requests(retry_after: Duration) -> Self {
        Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TOO_MANY_REQUESTS",
            "Too many attempts. Try again later.",
        )
        .with_retry_after(retry_after)
    }

    /// Returns 431: the header block is too large or has too many headers.
    pub fn header_too_large() -> Self {
        Self::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "HEADER_TOO_LARGE",
            "The request has too many headers, or they are too large.",
        )
    }

    /// Returns 500. `cause` is only logged.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "Internal server error.")
            .with_cause(cause)
    }

    /// Returns 503: the same request may succeed after `retry_after`.
    pub fn unavailable(code: &'static str, retry_after: Duration) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            code,
            "The server cannot do this right now. Try again shortly.",
        )
        .with_retry_after(retry_after)
    }

    /// Adds the invalid fields.
    #[must_use]
    pub fn with_fields(mut self, fields: Vec<Field>) -> Self {
        self.0.fields = fields;
        self
    }

    /// Adds a header to the response.
    #[must_use]
    pub fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// Replaces the code by a more specific one.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Adds `Retry-After`, in whole seconds, rounded up and at least one.
    #[must_use]
    pub fn with_retry_after(self, retry_after: Duration) -> Self {
        let whole_s = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(whole_s.max(1)))
    }

    /// Adds the cause, which is only logged.
    #[must_use]
    pub fn with_cause(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// Returns the code for programs.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Returns the invalid fields.
    pub fn fields(&self) -> &[Field] {
        &self.0.fields
    }

    /// Returns the header `name` of the response.
    pub fn header(&self, name: header::HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    /// Returns the headers of the response, without those common to all responses.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// Returns the cause, which is only logged.
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.cause.as_deref()
    }

    /// Returns the error object of the envelope.
    pub(crate) fn shown(&self, request_id: &RequestId) -> serde_json::Value {
        let body = ErrorBody {
            code: self.0.code,
            message: &self.0.message,
            request_id: request_id.as_str(),
            fields: &self.0.fields,
        };
        serde_json::json!(body)
    }

    /// Returns the body of the response.
    pub(crate) fn envelope(&self, request_id: &RequestId) -> Bytes {
        let envelope = Envelope {
            success: false,
            error: ErrorBody {
                code: self.0.code,
                message: &self.0.message,
                request_id: request_id.as_str(),
                fields: &self.0.fields,
            },
        };
        // Strings and lists of strings always serialize. An empty body would still carry the
        // status.
        serde_json::to_vec(&envelope).unwrap_or_default().into()
    }
}

impl Field {
    /// Creates an error about `field`.
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

    fn sent(problem: &Problem) -> Value {
        serde_json::from_slice(&problem.envelope(&RequestId::choose(&HeaderMap::new()))).unwrap()
    }

    #[test]
    fn cause_is_not_sent() {
        let problem = Problem::internal(std::io::Error::other("/var/lib/secret"));
        assert!(!sent(&problem).to_string().contains("secret"));
        assert_eq!(problem.cause().unwrap().to_string(), "/var/lib/secret");
    }

    #[test]
    fn envelope_has_code_message_request_id_and_fields() {
        let body = sent(&Problem::validation(vec![Field::new("email", "is required")]));
        assert_eq!(body["success"], json!(false));
        assert_eq!(body["error"]["code"], "VALIDATION_FAILED");
        assert!(body["error"]["message"].is_string());
        assert!(body["error"]["request_id"].is_string());
        assert_eq!(body["error"]["fields"], json!([{"field": "email", "message": "is required"}]));
    }

    #[test]
    fn fields_are_omitted_if_there_are_none() {
        let body = sent(&Problem::not_found());
        assert!(body["error"].get("fields").is_none());
    }

    #[test]
    fn challenge_reports_an_error_only_for_a_given_token() {
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
