//! Charging of responses for the memory that they hold until their clients have read them.
//!
//! The bytes of each response are charged to its connection, its user and the process before it is
//! sent. The charge is attached to the bytes: it ends when the last of them has been written to the
//! socket or dropped, whether they are in a body, in hyper or in the send queue of an HTTP/2
//! stream.
//!
//! # Invariants
//!
//! - A response to a safe request is never sent beyond a limit.
//! - A request that changes state is refused before it is handled, never after: its response is
//!   charged in any case, and is small.
//! - A streamed body is charged for one piece, and the next is not read before that is written.
//! - Bytes shared by several responses are charged once, by their owner: see [`Shared`].

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use coditect_store::BlobReader;
use futures_util::task::AtomicWaker;
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Response,
    body::{Body as HttpBody, Frame, SizeHint},
    header::CONTENT_LENGTH,
};

use super::{
    Body, BodyError,
    budget::{Account, Budget, Charge, WAIT},
    problem::Problem,
};

/// Number of bytes of a response that are charged elsewhere; an extension of the response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared(pub(crate) u64);

impl Budget {
    /// Charges the body of `response` to `accounts`. Waits for room if `is_refusable`.
    ///
    /// # Errors
    ///
    /// Same as [`charge`](Self::charge), if `is_refusable`.
    pub(crate) async fn charge_body(
        &self,
        response: Response<Body>,
        accounts: &[Arc<Account>],
        is_refusable: bool,
    ) -> Result<Response<Body>, Problem> {
        let exact = response.body().size_hint().exact();
        let is_streamed = exact.is_none();
        let size = exact.unwrap_or_else(|| piece_bytes(response.headers()));
        let shared = response.extensions().get::<Shared>().map_or(0, |shared| shared.0);
        let bytes = size.saturating_sub(shared);
        if bytes == 0 {
            return Ok(response);
        }
        let charge = if is_refusable {
            self.charge(accounts, bytes, WAIT).await?
        } else {
            self.charge_anyway(accounts, bytes)
        };
        let held =
            Arc::new(Held { charge, pieces: AtomicUsize::new(0), taken: AtomicWaker::new() });
        Ok(response.map(|body| Charged { body, held, is_streamed }.boxed_unsync()))
    }
}

/// Returns the maximum size of a piece of a streamed body, or the whole size of a shorter body.
fn piece_bytes(headers: &HeaderMap) -> u64 {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(u64::MAX).min(BlobReader::MAX_PIECE_BYTES)
}

/// A body whose pieces hold its charge.
struct Charged {
    body: Body,
    held: Arc<Held>,
    /// Whether the charge is for one piece, so that the next waits for the write of that.
    is_streamed: bool,
}

/// The charge of a body, and the number of its pieces that are not written yet.
#[derive(Debug)]
struct Held {
    charge: Charge,
    pieces: AtomicUsize,
    /// Wakes the body when a piece was written.
    taken: AtomicWaker,
}

/// A piece of a body, with its charge.
struct Piece {
    bytes: Bytes,
    held: Arc<Held>,
}

impl Piece {
    fn new(bytes: Bytes, held: &Arc<Held>) -> Self {
        held.pieces.fetch_add(1, Ordering::AcqRel);
        Self { bytes, held: Arc::clone(held) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.bytes = Bytes::new();
        self.held.pieces.fetch_sub(1, Ordering::AcqRel);
        self.held.taken.wake();
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Charged {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_streamed {
            self.held.taken.register(context.waker());
            if self.held.pieces.load(Ordering::Acquire) > 0 {
                return Poll::Pending;
            }
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                let held = &self.held;
                frame.map_data(|bytes| Bytes::from_owner(Piece::new(bytes, held)))
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for Charged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charged").field("charge", &self.held.charge).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::{budget::Purpose, respond};

    const KIB: u64 = 1 << 10;

    fn output() -> Budget {
        Budget::new(Purpose::Responses, 800 * KIB, 100 * KIB)
    }

    #[tokio::test]
    async fn charge_lasts_until_the_last_piece_is_dropped() {
        let output = output();
        let accounts = [output.connection()];
        let response = Response::new(respond::full(vec![7; 1000]));
        let response = output.charge_body(response, &accounts, true).await.unwrap();
        assert_eq!(response.body().size_hint().exact(), Some(1000));
        let mut body = response.into_body();
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        drop(body);
        let rest = piece.slice(900..);
        drop(piece);
        assert_eq!(accounts[0].held(), 1000);
        drop(rest);
        assert_eq!(accounts[0].held(), 0);
    }

    #[tokio::test]
    async fn shared_bytes_are_not_charged_again() {
        let output = output();
        let accounts = [output.connection()];
        let mut response = Response::new(respond::full(vec![7; 1000]));
        response.extensions_mut().insert(Shared(900));
        let _response = output.charge_body(response, &accounts, true).await.unwrap();
        assert_eq!(accounts[0].held(), 100);
    }

    /// Returns a body of two pieces, whose length is only known from its header.
    fn streamed(piece_bytes: usize) -> Response<Body> {
        let piece = || Ok::<_, BodyError>(Frame::data(Bytes::from(vec![7; piece_bytes])));
        let pieces = futures_util::stream::iter([piece(), piece()]);
        let mut response = Response::new(http_body_util::StreamBody::new(pieces).boxed_unsync());
        response.headers_mut().insert(CONTENT_LENGTH, (2 * piece_bytes).into());
        response
    }

    #[tokio::test]
    async fn short_stream_is_charged_for_its_length_and_a_long_one_for_a_piece() {
        let output = output();
        let accounts = [output.connection()];
        let short = output.charge_body(streamed(5), &accounts, true).await.unwrap();
        assert_eq!(accounts[0].held(), 10);
        drop(short);
        let long = streamed(usize::try_from(BlobReader::MAX_PIECE_BYTES).unwrap());
        let _long = output.charge_body(long, &accounts, true).await.unwrap();
        assert_eq!(accounts[0].held(), BlobReader::MAX_PIECE_BYTES);
    }

    #[tokio::test]
    async fn next_piece_of_a_stream_waits_until_the_last_is_dropped() {
        let output = output();
        let response = output.charge_body(streamed(5), &[], true).await.unwrap();
        let mut body = response.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let rest = first.slice(4..);
        drop(first);
        let next = tokio::spawn(async move { body.frame().await.unwrap().unwrap() });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!next.is_finished());
        drop(rest);
        assert!(next.await.unwrap().is_data());
    }
}
