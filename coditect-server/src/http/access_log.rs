//! The line that each request leaves in the log: method, route template, status, duration, request id,
//! and the cause of a server error.
//!
//! Never in it: the path as it was sent, the query, headers, bodies, tokens.

use std::{error::Error, fmt, time::Duration};

use hyper::{Method, StatusCode};

use super::RequestId;

/// What one request leaves in the log.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// The method as it was sent.
    pub(crate) method: &'a Method,
    /// The template of the route, or `-` where none matched.
    pub(crate) route: &'a str,
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// From the header block's end to the answer's head.
    pub(crate) took: Duration,
    /// The id that the answer bears.
    pub(crate) request_id: &'a RequestId,
    /// Why the server failed, for the log only.
    pub(crate) cause: Option<&'a (dyn Error + Send + Sync + 'static)>,
}

/// Notes the refusal of what never became a request, and so has no method and no route.
pub(crate) fn refused(status: StatusCode, request_id: &RequestId) {
    let (status, request_id) = (status.as_u16(), request_id.as_str());
    tracing::info!(method = "-", route = "-", status, duration_ms = 0.0, request_id, "request");
}

impl Line<'_> {
    /// Writes it: an error where the server is at fault, else an information.
    pub(crate) fn write(&self) {
        let method = known(self.method);
        let status = self.status.as_u16();
        // To the microsecond.
        let duration_ms = (self.took.as_secs_f64() * 1_000_000.0).round() / 1_000.0;
        let (route, request_id) = (self.route, self.request_id.as_str());
        let cause = self.cause.map(|cause| tracing::field::display(Chain(cause)));
        if self.status.is_server_error() {
            tracing::error!(method, route, status, duration_ms, request_id, cause, "request");
        } else {
            tracing::info!(method, route, status, duration_ms, request_id, cause, "request");
        }
    }
}

/// A method that HTTP knows by its name; what a client made up is not repeated.
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

/// An error and all that it came from, in one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
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
    fn a_cause_is_written_with_all_that_it_came_from() {
        let error = Outer(io::Error::other("the disk is full"));
        assert_eq!(Chain(&error).to_string(), "the store failed: the disk is full");
    }

    #[test]
    fn a_method_that_a_client_made_up_is_not_repeated_in_the_log() {
        let method = Method::from_bytes(b"SECRET-TOKEN").unwrap();
        assert_eq!(known(&method), "other");
        assert_eq!(known(&Method::PATCH), "PATCH");
    }
}
