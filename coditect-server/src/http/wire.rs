//! The socket of an HTTP/1.1 connection as given to hyper, with deadlines, and with error bodies in
//! place of hyper's own responses.
//!
//! - A header block must be complete `header_timeout` after connecting or after its first byte, or
//!   gets 408. Between requests a connection may idle for `idle_timeout`. Writes never stall for
//!   longer than `stall_timeout`.
//! - hyper responds to what it cannot parse (400, 414, 431) with an empty body, internally. Such a
//!   response is recognised by the time of the write, never by its content: no exchange is open and
//!   none has bytes in hyper's buffer. It is replaced by a [`Problem`] of the same status. One case
//!   is left to hyper: a response that it queues behind an earlier one that the client has not read
//!   yet (a pipelining client that does not read).
//! - Before a close, a connection shuts down its sending side and reads on for a moment, since
//!   closing with unread bytes would reset it, and the client would lose the last response.
//!
//! Requests and responses of handlers are never inspected.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use coditect_store::Clock;
use hyper::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, sleep_until},
};

use super::{RequestId, access_log, activity::Activity, problem::Problem, respond, sniff::Rewind};

/// Time, and number of bytes, for which a closing connection still reads.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1 << 20;

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "named like their settings")]
pub(crate) struct Deadlines {
    /// Time for a whole header block.
    pub(crate) header_timeout: Duration,
    /// Time for the next request to start.
    pub(crate) idle_timeout: Duration,
    /// Time without progress of a body, in either direction.
    pub(crate) stall_timeout: Duration,
}

/// The socket of one client, with its timers.
pub(crate) struct Http1Stream {
    io: Rewind,
    activity: Activity,
    deadlines: Deadlines,
    awaiting: Awaiting,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// Rest of a response generated here.
    unsent: Bytes,
    closing: Option<Closing>,
}

/// The input expected between exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaiting {
    /// The first request; its deadline counts from connecting.
    First,
    /// The first byte of the next request.
    Next,
    /// The rest of a header block.
    Rest,
}

/// The close of a connection from this side.
enum Closing {
    /// The sending side is still open.
    Flushing,
    /// The sending side is shut down; input is discarded until the client closes, or a limit is
    /// reached.
    Draining { until: Pin<Box<Sleep>>, left_bytes: usize },
}

impl Http1Stream {
    /// Creates the socket over `io`, whose first header block is due at `due_at`.
    pub(super) fn new(
        io: Rewind,
        activity: Activity,
        deadlines: Deadlines,
        due_at: Instant,
    ) -> Self {
        Self {
            io,
            activity,
            deadlines,
            awaiting: Awaiting::First,
            read_timer: Box::pin(sleep_until(due_at)),
            write_timer: None,
            unsent: Bytes::new(),
            closing: None,
        }
    }

    /// Records input while a request was expected.
    fn heard(&mut self) {
        if self.awaiting == Awaiting::Next {
            let due_at = Instant::now() + self.deadlines.header_timeout;
            self.read_timer.as_mut().reset(due_at);
        }
        self.awaiting = Awaiting::Rest;
    }

    /// Closes the connection of a late client, with a 408 if part of a request has arrived.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closing.is_none() {
            if self.awaiting == Awaiting::Rest {
                self.unsent = error_response(StatusCode::REQUEST_TIMEOUT);
            }
            self.closing = Some(Closing::Flushing);
        }
        // Whatever the result of the close, the connection ends with this error.
        let _left = ready!(self.poll_leave(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Runs `write`, limiting its stall.
    fn poll_bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Rewind>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.io), context);
        if written.is_ready() {
            self.write_timer = None;
            return written;
        }
        let stall_timeout = self.deadlines.stall_timeout;
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep(stall_timeout)));
        ready!(timer.as_mut().poll(context));
        self.io.hopeless().give_up();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_unsent(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let words = self.unsent.clone();
            let written =
                ready!(self.poll_bounded(context, |io, context| io.poll_write(context, &words)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the rest of a response, shuts down the sending side, and reads until the client
    /// closes.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(context))?;
        loop {
            match &mut self.closing {
                None | Some(Closing::Flushing) => {
                    // TLS writes a close_notify here, for which there may be no room.
                    ready!(self.poll_bounded(context, AsyncWrite::poll_shutdown))?;
                    self.closing = Some(Closing::Draining {
                        until: Box::pin(sleep(LINGER_TIMEOUT)),
                        left_bytes: MAX_LINGER_BYTES,
                    });
                }
                Some(Closing::Draining { until, left_bytes }) => {
                    if until.as_mut().poll(context).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    let mut space = [0; 4096];
                    let mut buffer = ReadBuf::new(&mut space);
                    ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
                    let read = buffer.filled().len();
                    if read == 0 || read > *left_bytes {
                        return Poll::Ready(Ok(()));
                    }
                    *left_bytes -= read;
                }
            }
        }
    }

    /// Replaces the response in `bytes` if hyper generated it.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        if !self.activity.is_settled() {
            return false;
        }
        let Some(status) = status(bytes) else {
            return false;
        };
        self.unsent = error_response(status);
        true
    }
}

/// Returns the status of the response that begins with `bytes`.
fn status(bytes: &[u8]) -> Option<StatusCode> {
    let line = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    StatusCode::from_bytes(line).ok()
}

/// Returns a whole HTTP/1.1 response to something that never became a request.
fn error_response(status: StatusCode) -> Bytes {
    let problem = match status {
        StatusCode::REQUEST_TIMEOUT => Problem::request_timeout(),
        StatusCode::URI_TOO_LONG => Problem::uri_too_long(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Problem::header_too_large(),
        _ => Problem::bad_request("BAD_REQUEST", "The request is not well-formed HTTP."),
    };
    let request_id = RequestId::new();
    access_log::refused(problem.status(), &request_id);
    let body = problem.envelope(&request_id);
    let mut response = problem.to_response(&request_id);
    respond::set_default_headers(response.headers_mut(), &request_id);
    let date = Clock::system().now().format("%a, %d %b %Y %H:%M:%S GMT");
    let mut bytes = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\ndate: {date}\r\n",
        problem.status(),
        body.len(),
    )
    .into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes.into()
}

impl AsyncRead for Http1Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.closing.is_some() {
            return wire.poll_late(context);
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut wire.io).poll_read(context, buffer);
        if !wire.activity.is_settled() {
            return read;
        }
        if buffer.filled().len() > before {
            wire.heard();
        }
        if read.is_pending() && wire.read_timer.as_mut().poll(context).is_ready() {
            return wire.poll_late(context);
        }
        read
    }
}

impl AsyncWrite for Http1Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.replaces(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        wire.poll_bounded(context, |io, context| io.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if slices.first().is_some_and(|first| wire.replaces(first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        wire.poll_bounded(context, |io, context| io.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(wire.poll_unsent(context))?;
        // hyper flushes the socket only when its own buffer is empty.
        if wire.activity.settle() {
            wire.awaiting = Awaiting::Next;
            let due_at = Instant::now() + wire.deadlines.idle_timeout;
            wire.read_timer.as_mut().reset(due_at);
        }
        wire.poll_bounded(context, AsyncWrite::poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_leave(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_from_the_first_line() {
        assert_eq!(status(b"HTTP/1.1 431 Request").unwrap(), 431);
        assert_eq!(status(b"HTTP/1.0 400 Bad").unwrap(), 400);
        for other in [&b"HTTP/1.1 4"[..], b"\x81\x05hello", b"HTTP/2", b""] {
            assert_eq!(status(other), None);
        }
    }

    #[test]
    fn error_response_is_complete_and_closes() {
        let words = error_response(StatusCode::URI_TOO_LONG);
        let words = str::from_utf8(&words).unwrap();
        let (head, body) = words.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert!(head.contains("\r\nx-request-id: "), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert!(body.contains(r#""code":"URI_TOO_LONG""#), "{body}");
    }
}
