//! The log line of a request: method, route template, status, duration, request id, and the cause
//! of a server error. Paths, queries, headers, bodies and tokens are never logged.

use std::{error::Error, fmt, time::Duration};

use hyper::{Method, StatusCode};

use super::RequestId;

/// The log line of a request.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// Method as sent.
    pub(crate) method: &'a Method,
    /// Template of the route, or `-` if none matched.
    pub(crate) route: &'a str,
    /// Status of the response.
    pub(crate) status: StatusCode,
    /// Time from the end of the request's header block to the head of the response.
    pub(crate) took: Duration,
    /// Request id in the response.
    pub(crate) request_id: &'a RequestId,
    /// Cause of a server error; only logged, never sent.
    pub(crate) cause: Option<&'a (dyn Error + Send + Sync + 'static)>,
}

/// Logs the refusal of a connection's bytes that never became a request, without method and route.
pub(crate) fn refused(status: StatusCode, request_id: &RequestId) {
    let (status, request_id) = (status.as_u16(), request_id.as_str());
    tracing::info!(method = "-", route = "-", status, duration_ms = 0.0, request_id, "request");
}

impl Line<'_> {
    /// Writes the line: at level error for a server error, otherwise at level info.
    pub(crate) fn write(&self) {
        let method = known(self.method);
        let status = self.status.as_u16();
        // To the microsecond.
        let duration_ms = (self.took.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
        let (route, request_id) = (self.route, self.request_id.as_str());
        let cause = self.cause.map(|cause| tracing::field::display(ErrorChain(cause)));
        if self.status.is_server_error() {
            tracing::error!(method, route, status, duration_ms, request_id, cause, "request");
        } else {
            tracing::info!(method, route, status, duration_ms, request_id, cause, "request");
        }
    }
}

/// Returns the name of a standard method, or `other`; a client's own text is not logged.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS
        | Method::CONNECT
        | Method::TRACE => method.as_str(),
        _ => "other",
    }
}

/// An error and its causes in one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store failed")]
    struct Outer(#[source] io::Error);

    #[test]
    fn error_is_written_with_its_causes() {
        let error = Outer(io::Error::other("the disk is full"));
        assert_eq!(ErrorChain(&error).to_string(), "the store failed: the disk is full");
    }

    #[test]
    fn unknown_method_is_not_logged() {
        let method = Method::from_bytes(b"SECRET-TOKEN").unwrap();
        assert_eq!(known(&method), "other");
        assert_eq!(known(&Method::PATCH), "PATCH");
    }
}
