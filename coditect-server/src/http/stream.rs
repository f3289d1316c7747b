//! The bytes of a connection, with or without TLS.
//!
//! A client that does not read its responses is disconnected by a reset. After a mere close, the
//! system would keep the unsent bytes for as long as that client pleases.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::telemetry::Traffic;

/// A socket with an optional TLS layer.
pub(super) struct Stream {
    channel: Channel,
    traffic: Traffic,
    hopeless: ResetOnDrop,
}

/// Handle that makes a stream end with a reset.
#[derive(Clone, Debug, Default)]
pub(super) struct ResetOnDrop(Arc<AtomicBool>);

impl ResetOnDrop {
    /// Makes the stream end with a reset.
    pub(super) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Channel {
    Plain(TcpStream),
    /// TLS after its handshake.
    Secure(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Creates a stream of the socket's bytes.
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::over(Channel::Plain(stream))
    }

    /// Creates a stream of the bytes inside TLS.
    pub(super) fn secure(stream: TlsStream<TcpStream>) -> Self {
        Self::over(Channel::Secure(Box::new(stream)))
    }

    fn over(channel: Channel) -> Self {
        Self { channel, traffic: Traffic::new(), hopeless: ResetOnDrop::default() }
    }

    /// Returns the handle that makes the stream end with a reset.
    pub(super) fn hopeless(&self) -> &ResetOnDrop {
        &self.hopeless
    }

    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.traffic.sent(*bytes);
        }
        written
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.hopeless.0.load(Ordering::Relaxed) {
            let socket = match &self.channel {
                Channel::Plain(socket) => socket,
                Channel::Secure(channel) => channel.get_ref().0,
            };
            // On an error it is an ordinary close.
            let _closed = socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut stream.channel {
            Channel::Plain(channel) => Pin::new(channel).poll_read(context, buffer),
            Channel::Secure(channel) => Pin::new(channel).poll_read(context, buffer),
        };
        stream.traffic.received(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let written = match &mut stream.channel {
            Channel::Plain(channel) => Pin::new(channel).poll_write(context, bytes),
            Channel::Secure(channel) => Pin::new(channel).poll_write(context, bytes),
        };
        stream.sent(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        let written = match &mut stream.channel {
            Channel::Plain(channel) => Pin::new(channel).poll_write_vectored(context, slices),
            Channel::Secure(channel) => Pin::new(channel).poll_write_vectored(context, slices),
        };
        stream.sent(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.channel {
            Channel::Plain(channel) => channel.is_write_vectored(),
            Channel::Secure(channel) => channel.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Channel::Plain(channel) => Pin::new(channel).poll_flush(context),
            Channel::Secure(channel) => Pin::new(channel).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().channel {
            Channel::Plain(channel) => Pin::new(channel).poll_shutdown(context),
            Channel::Secure(channel) => Pin::new(channel).poll_shutdown(context),
        }
    }
}
