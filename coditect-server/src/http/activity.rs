//! What goes on in one connection: which requests are in it, and since when nothing has moved.
//!
//! hyper tells nobody when a request begins or an answer is through, and all deadlines hang on
//! that. The service opens an [`Exchange`] for each request; it lives in the answer's body until
//! hyper lets go of that. Nothing here reads or writes.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use super::body::{Body, BodyError};

/// The largest piece of an answer's body that hyper is given at once.
const PIECE_BYTES: usize = 64 * 1024;

/// Shared by a connection's driver, its socket and its service.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Exchanges that are open.
    open: usize,
    /// Of those, the ones that have no answer yet.
    unanswered: usize,
    /// Whether bytes of an exchange may still be on their way to the socket.
    unsettled: bool,
    /// Whether the connection no longer speaks HTTP.
    upgraded: bool,
    /// Whether there has been an exchange.
    begun: bool,
    /// When something last moved.
    moved_at: Instant,
}

/// One request and its answer, open until dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Activity,
    answered: bool,
}

/// The body of an answer, which keeps its exchange open while hyper holds it. It goes out in pieces
/// of at most [`PIECE_BYTES`], since hyper's HTTP/2 lets go of a body as soon as it has the last
/// one, however little of that its client has room for.
#[derive(Debug)]
pub(super) struct Watched {
    body: Body,
    /// What is left of a piece that was too large.
    rest: Bytes,
    exchange: Exchange,
}

impl Activity {
    /// Of a connection made at `connected_at`.
    pub(super) fn new(connected_at: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            open: 0,
            unanswered: 0,
            unsettled: false,
            upgraded: false,
            begun: false,
            moved_at: connected_at,
        })))
    }

    /// Opens an exchange: a header block is complete.
    pub(super) fn begin(&self) -> Exchange {
        let mut state = self.state();
        state.open += 1;
        state.unanswered += 1;
        state.unsettled = true;
        state.begun = true;
        state.moved_at = Instant::now();
        drop(state);
        Exchange { activity: self.clone(), answered: false }
    }

    /// Whether no byte of an exchange is in hyper's buffers: what hyper reads now belongs to a next
    /// request, what it writes now is an answer of its own.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.state();
        !state.unsettled && !state.upgraded
    }

    /// Told when hyper's write buffer is empty. Whether an exchange has come to its end by that.
    pub(super) fn settle(&self) -> bool {
        let mut state = self.state();
        let ended = state.unsettled && state.open == 0 && !state.upgraded;
        if ended {
            state.unsettled = false;
        }
        ended
    }

    /// When to give up on the connection if nothing moves until then: the first request is due
    /// `header_timeout` after connecting, the next one `idle_timeout` after the last, and an answer
    /// moves at least every `stall_timeout`. A handler at work is waited for.
    pub(super) fn expires_at(&self, header: Duration, idle: Duration, stall: Duration) -> Instant {
        let state = self.state();
        match *state {
            State { unanswered: 1.., .. } => Instant::now() + stall,
            State { open: 1.., .. } => state.moved_at + stall,
            State { begun: true, .. } => state.moved_at + idle,
            _ => state.moved_at + header,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// Ties the exchange to its answer's body. `upgrades` says that the connection speaks another
    /// protocol from here on.
    pub(super) fn answer(mut self, body: Body, upgrades: bool) -> Watched {
        self.answered = true;
        let mut state = self.activity.state();
        state.unanswered -= 1;
        state.upgraded |= upgrades;
        state.moved_at = Instant::now();
        drop(state);
        Watched { body, rest: Bytes::new(), exchange: self }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.open -= 1;
        if !self.answered {
            state.unanswered -= 1;
        }
        state.moved_at = Instant::now();
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.exchange.activity.state().moved_at = Instant::now();
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::respond;

    const HEADER: Duration = Duration::from_secs(10);
    const IDLE: Duration = Duration::from_secs(75);
    const STALL: Duration = Duration::from_secs(30);

    fn left(activity: &Activity) -> Duration {
        activity.expires_at(HEADER, IDLE, STALL) - Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn each_phase_has_its_own_deadline() {
        let activity = Activity::new(Instant::now());
        assert_eq!(left(&activity), HEADER);
        let exchange = activity.begin();
        tokio::time::advance(Duration::from_secs(600)).await;
        assert_eq!(left(&activity), STALL, "a handler at work is waited for");
        let body = exchange.answer(respond::full("x"), false);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(left(&activity), Duration::from_secs(10), "an answer must move");
        drop(body);
        assert_eq!(left(&activity), IDLE);
    }

    #[tokio::test]
    async fn an_exchange_is_settled_once_its_body_is_gone_and_all_is_written() {
        let activity = Activity::new(Instant::now());
        assert!(activity.is_settled());
        let body = activity.begin().answer(respond::full("x"), false);
        assert!(!activity.settle(), "the body isn't through");
        drop(body);
        assert!(!activity.is_settled(), "its last bytes aren't written");
        assert!(activity.settle());
        assert!(activity.is_settled());
        assert!(!activity.settle(), "there is only one end");
    }

    #[tokio::test]
    async fn a_large_body_goes_out_in_pieces_and_keeps_its_length() {
        let activity = Activity::new(Instant::now());
        let whole = vec![7; 2 * PIECE_BYTES + 1];
        let mut body = activity.begin().answer(respond::full(whole.clone()), false);
        let mut received = Vec::new();
        while !body.is_end_stream() {
            let left = (whole.len() - received.len()) as u64;
            assert_eq!(body.size_hint().exact(), Some(left));
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES);
            received.extend_from_slice(&piece);
        }
        assert_eq!(received, whole);
    }

    #[tokio::test]
    async fn an_upgraded_connection_never_settles() {
        let activity = Activity::new(Instant::now());
        drop(activity.begin().answer(respond::empty(), true));
        assert!(!activity.settle());
        assert!(!activity.is_settled());
    }
}
