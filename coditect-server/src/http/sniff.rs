//! Detection of the protocol from a client's first bytes, which are read again afterwards.
//!
//! HTTP/2 with prior knowledge begins with a preface that no HTTP/1.1 request has. Only the bytes
//! needed to distinguish them are awaited, until the deadline of the header block.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

use super::stream::{ResetOnDrop, Stream};

/// Connection preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1 or 1.0; also anything unknown, to which HTTP/1.1 has a response.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A stream whose first bytes are read again.
pub(super) struct Rewind {
    prefix: Bytes,
    stream: Stream,
}

impl Rewind {
    /// Returns the handle that makes the stream end with a reset.
    pub(super) fn hopeless(&self) -> &ResetOnDrop {
        self.stream.hopeless()
    }
}

/// Detects the client's protocol. Returns `None` if it sent nothing before `deadline`, or
/// disconnected.
pub(super) async fn sniff(
    mut stream: Stream,
    deadline: Instant,
) -> io::Result<Option<(Protocol, Rewind)>> {
    let mut read = [0; PREFACE.len()];
    let mut length = 0;
    let mut verdict = None;
    while verdict.is_none() {
        let Ok(count) = timeout_at(deadline, stream.read(&mut read[length..])).await else {
            // The header block is late, which HTTP/1.1 can report.
            break;
        };
        match count? {
            0 => break,
            count => length += count,
        }
        verdict = tell(&read[..length]);
    }
    if length == 0 {
        return Ok(None);
    }
    let prefix = Bytes::copy_from_slice(&read[..length]);
    let protocol = verdict.unwrap_or(Protocol::Http1);
    Ok(Some((protocol, Rewind { prefix, stream })))
}

/// Returns the protocol of bytes that begin with `read`, once unambiguous.
fn tell(read: &[u8]) -> Option<Protocol> {
    if !PREFACE.starts_with(read) {
        Some(Protocol::Http1)
    } else if read.len() == PREFACE.len() {
        Some(Protocol::Http2)
    } else {
        None
    }
}

impl AsyncRead for Rewind {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = self.prefix.len().min(buffer.remaining());
        buffer.put_slice(&self.prefix[..length]);
        self.prefix.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewind {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_differing_byte_means_http1() {
        for read in [&b"G"[..], b"POST", b"PRJ", b"PRI * HTTP/1", b"\x16\x03\x01"] {
            assert_eq!(tell(read), Some(Protocol::Http1));
        }
    }

    #[test]
    fn only_the_whole_preface_means_http2() {
        assert_eq!(tell(PREFACE), Some(Protocol::Http2));
        for length in 0..PREFACE.len() {
            assert_eq!(tell(&PREFACE[..length]), None);
        }
    }
}
