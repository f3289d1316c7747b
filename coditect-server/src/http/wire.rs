//! The socket of an HTTP/1.1 connection, as hyper is given it: with our deadlines, and with our
//! words where hyper would answer by itself.
//!
//! - A header block is complete `header_timeout` after connecting or after its first byte, else
//!   408. Between requests a connection idles for `idle_timeout`. Writes never stall for longer
//!   than `stall_timeout`.
//! - hyper answers what it cannot parse (400, 414, 431) with an empty body, from inside. Such an
//!   answer is recognised by when it is written, never by what it looks like: no exchange is open
//!   and none has bytes left in hyper's buffer. In its place goes a [`Problem`] of the same status.
//!   One case is left to hyper: such an answer that it queues behind an earlier one which the
//!   client hasn't taken yet (a pipelining client that doesn't read).
//! - Before it closes, a connection shuts its sending side and reads on for a moment, since closing
//!   with unread bytes would reset it and take our last words from the client.
//!
//! It never looks into a request or an answer that a handler has made.

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

use super::{RequestId, access_log, activity::Activity, problem::Problem, respond, sniff::Rewound};

/// How long, and for how many bytes, a client that is being left is still listened to.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_LIMIT_BYTES: usize = 1 << 20;

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "they are called as their settings are")]
pub(crate) struct Deadlines {
    /// For a whole header block.
    pub(crate) header_timeout: Duration,
    /// For the next request to begin.
    pub(crate) idle_timeout: Duration,
    /// For a body to move, in either direction.
    pub(crate) stall_timeout: Duration,
}

/// The socket. Reads, writes and times are those of one client.
pub(crate) struct Wire {
    io: Rewound,
    activity: Activity,
    deadlines: Deadlines,
    awaiting: Awaiting,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
    /// What is left to write of an answer of our own.
    last_words: Bytes,
    leaving: Option<Leaving>,
}

/// What is awaited from the client between two exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaiting {
    /// The first request; its deadline counts from connecting.
    First,
    /// The next request's first byte.
    Next,
    /// The rest of a header block.
    Rest,
}

/// The end of a connection, from our side.
enum Leaving {
    /// Our side isn't shut yet.
    Telling,
    /// It is; the client's bytes are thrown away until it has heard, or for so long.
    Listening { until: Pin<Box<Sleep>>, left_bytes: usize },
}

impl Wire {
    /// Over `io`, whose first header block is due at `due_at`.
    pub(super) fn new(
        io: Rewound,
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
            last_words: Bytes::new(),
            leaving: None,
        }
    }

    /// Notes that bytes came while a request was awaited.
    fn heard(&mut self) {
        if self.awaiting == Awaiting::Next {
            let due_at = Instant::now() + self.deadlines.header_timeout;
            self.read_timer.as_mut().reset(due_at);
        }
        self.awaiting = Awaiting::Rest;
    }

    /// The client is late. Says so if it has begun to speak, and leaves.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.leaving.is_none() {
            if self.awaiting == Awaiting::Rest {
                self.last_words = last_words(StatusCode::REQUEST_TIMEOUT);
            }
            self.leaving = Some(Leaving::Telling);
        }
        // However the leaving goes, it ends in the same error.
        let _left = ready!(self.poll_leave(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Runs `write`, which may stall for a while only.
    fn poll_bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Rewound>, &mut Context<'_>) -> Poll<io::Result<T>>,
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

    fn poll_last_words(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.last_words.is_empty() {
            let words = self.last_words.clone();
            let written =
                ready!(self.poll_bounded(context, |io, context| io.poll_write(context, &words)))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.last_words.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Says what is left to say, shuts our side, and listens until the client has heard.
    fn poll_leave(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_last_words(context))?;
        loop {
            match &mut self.leaving {
                None | Some(Leaving::Telling) => {
                    // TLS has a last word of its own, for which there may be no room.
                    ready!(self.poll_bounded(context, AsyncWrite::poll_shutdown))?;
                    self.leaving = Some(Leaving::Listening {
                        until: Box::pin(sleep(LINGER)),
                        left_bytes: LINGER_LIMIT_BYTES,
                    });
                }
                Some(Leaving::Listening { until, left_bytes }) => {
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

    /// Takes an answer that hyper gives by itself out of its hands, if `bytes` are one.
    fn replaces(&mut self, bytes: &[u8]) -> bool {
        if !self.activity.is_settled() {
            return false;
        }
        let Some(status) = status(bytes) else {
            return false;
        };
        self.last_words = last_words(status);
        true
    }
}

/// The status of the answer that begins with `bytes`.
fn status(bytes: &[u8]) -> Option<StatusCode> {
    let line = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    StatusCode::from_bytes(line).ok()
}

/// A whole answer in the bytes of HTTP/1.1, for a request that never became one.
fn last_words(status: StatusCode) -> Bytes {
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
    respond::mark(response.headers_mut(), &request_id);
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

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        if wire.leaving.is_some() {
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

impl AsyncWrite for Wire {
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
        ready!(wire.poll_last_words(context))?;
        // hyper flushes the socket when its own buffer is empty, and not before.
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
    fn the_status_of_an_answer_is_read_from_its_first_line() {
        assert_eq!(status(b"HTTP/1.1 431 Request").unwrap(), 431);
        assert_eq!(status(b"HTTP/1.0 400 Bad").unwrap(), 400);
        for other in [&b"HTTP/1.1 4"[..], b"\x81\x05hello", b"HTTP/2", b""] {
            assert_eq!(status(other), None);
        }
    }

    #[test]
    fn last_words_are_a_whole_answer_that_closes() {
        let words = last_words(StatusCode::URI_TOO_LONG);
        let words = str::from_utf8(&words).unwrap();
        let (head, body) = words.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{head}");
        assert!(head.contains("\r\nconnection: close"), "{head}");
        assert!(head.contains("\r\nx-request-id: "), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        assert!(body.contains(r#""code":"URI_TOO_LONG""#), "{body}");
    }
}
