//! Limits on the memory of responses that their clients have not read yet.
//!
//! The bytes of each response are charged to its connection, its user and the process before it is
//! sent. The charge is attached to the bytes: it ends when the last of them has been written to the
//! socket or dropped, whether they are in a body, in hyper or in the send queue of an HTTP/2
//! stream. A response beyond a limit waits for [`WAIT`] and is then refused: with 429 if the
//! connection or the user has too many unread bytes, with 503 if the process has.
//!
//! # Invariants
//!
//! - A response to a safe request is never sent beyond a limit.
//! - A request that changes state is refused before it is handled, never after: its response is
//!   charged in any case, and is small.
//! - A user without unread responses gets a response of up to [`ALWAYS_ADMITTED_BYTES`] even if the
//!   process is at its limit, so that some clients' unread responses never lock out the others.
//! - A streamed body is charged for one piece, and the next is not read before that is written.
//! - Bytes shared by several responses are charged once, by their owner: see [`Shared`].

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use coditect_store::{BlobReader, model::UserId};
use futures_util::task::AtomicWaker;
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Response, StatusCode,
    body::{Body as HttpBody, Frame, SizeHint},
    header::CONTENT_LENGTH,
};
use tokio::{sync::Notify, time::timeout};

use super::{
    Body, BodyError,
    problem::{Problem, SOON},
};

/// Time for which a response waits for room before it is refused.
pub(crate) const WAIT: Duration = Duration::from_secs(1);

/// Fraction of the process's limit that one user, and one connection, may use: one in this many.
const SHARE: u64 = 8;

/// Size of a response that a user without unread responses always gets.
const ALWAYS_ADMITTED_BYTES: u64 = 64 << 10;

/// Code of a refusal because of a connection's or user's unread responses.
pub(crate) const UNREAD: &str = "RESPONSES_UNREAD";

/// The limits and accounts of a server.
#[derive(Debug)]
pub(crate) struct Output {
    process: Arc<Account>,
    share_bytes: u64,
    users: Mutex<HashMap<UserId, Weak<Account>>>,
}

/// Unread bytes of one connection, user or process.
#[derive(Debug)]
pub(crate) struct Account {
    limit_bytes: u64,
    held_bytes: AtomicU64,
    waiting_bytes: AtomicU64,
    released: Notify,
}

/// A charge, released on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    accounts: Vec<Arc<Account>>,
    bytes: AtomicU64,
}

/// Number of bytes of a response that are charged elsewhere; an extension of the response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared(pub(crate) u64);

/// The account that refused a charge.
#[derive(Debug)]
struct Exhausted(Arc<Account>);

impl Account {
    fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            held_bytes: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            released: Notify::new(),
        })
    }

    fn held(&self) -> u64 {
        self.held_bytes.load(Ordering::Acquire)
    }

    fn is_exhausted(&self) -> bool {
        self.held() >= self.limit_bytes
    }

    /// Adds `bytes` unless the sum exceeds the limit. An empty account accepts any number.
    fn try_add(&self, bytes: u64) -> bool {
        let add = |held: u64| {
            let sum = held.saturating_add(bytes);
            (held == 0 || sum <= self.limit_bytes).then_some(sum)
        };
        self.held_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok()
    }

    fn add(&self, bytes: u64) {
        self.held_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn remove(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.released.notify_waiters();
    }
}

impl Output {
    /// Creates the limits of a process with at most `limit_bytes`, of which a user and a connection
    /// may each use an eighth, or `least_bytes` if that is more.
    pub(crate) fn new(limit_bytes: u64, least_bytes: u64) -> Self {
        Self {
            process: Account::new(limit_bytes),
            share_bytes: (limit_bytes / SHARE).max(least_bytes),
            users: Mutex::default(),
        }
    }

    /// Returns the account of a new connection.
    pub(crate) fn connection(&self) -> Arc<Account> {
        Account::new(self.share_bytes)
    }

    /// Returns the account of `user`.
    pub(crate) fn user(&self, user: UserId) -> Arc<Account> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = users.get(&user).and_then(Weak::upgrade) {
            return account;
        }
        if users.len() == users.capacity() {
            users.retain(|_, account| account.strong_count() > 0);
        }
        let account = Account::new(self.share_bytes);
        users.insert(user, Arc::downgrade(&account));
        account
    }

    /// Charges `bytes` to all `accounts` and the process, or to none.
    ///
    /// # Errors
    ///
    /// 429 or 503 if one of them has no room.
    pub(crate) fn try_charge(
        &self,
        accounts: &[Arc<Account>],
        bytes: u64,
    ) -> Result<Charge, Problem> {
        self.charge_now(accounts, bytes).map_err(|exhausted| self.refusal(&exhausted))
    }

    /// Charges `bytes` to `accounts` and the process, waiting for room.
    ///
    /// # Errors
    ///
    /// 429 or 503 if there is none after `patience`, or if too much is waiting already.
    pub(crate) async fn charge(
        &self,
        accounts: &[Arc<Account>],
        bytes: u64,
        patience: Duration,
    ) -> Result<Charge, Problem> {
        let exhausted = match self.charge_now(accounts, bytes) {
            Ok(charge) => return Ok(charge),
            Err(exhausted) => exhausted,
        };
        let Some(_waiting) = Waiting::begin(&exhausted.0, bytes) else {
            return Err(self.refusal(&exhausted));
        };
        let mut last = exhausted;
        let charged = async {
            loop {
                let account = Arc::clone(&last.0);
                let released = account.released.notified();
                tokio::pin!(released);
                // No release after this is missed.
                released.as_mut().enable();
                match self.charge_now(accounts, bytes) {
                    Ok(charge) => return charge,
                    Err(exhausted) => last = exhausted,
                }
                if Arc::ptr_eq(&last.0, &account) {
                    released.await;
                }
            }
        };
        match timeout(patience, charged).await {
            Ok(charge) => Ok(charge),
            Err(_elapsed) => Err(self.refusal(&last)),
        }
    }

    fn charge_now(&self, accounts: &[Arc<Account>], bytes: u64) -> Result<Charge, Exhausted> {
        let small = bytes <= ALWAYS_ADMITTED_BYTES;
        let is_idle = small && accounts.iter().all(|account| account.held() == 0);
        let mut charged = Vec::with_capacity(accounts.len() + 1);
        for account in accounts.iter().chain([&self.process]) {
            if is_idle && Arc::ptr_eq(account, &self.process) {
                account.add(bytes);
            } else if !account.try_add(bytes) {
                let exhausted = Exhausted(Arc::clone(account));
                drop(Charge { accounts: charged, bytes: AtomicU64::new(bytes) });
                return Err(exhausted);
            }
            charged.push(Arc::clone(account));
        }
        Ok(Charge { accounts: charged, bytes: AtomicU64::new(bytes) })
    }

    /// Charges `bytes` regardless of the limits.
    pub(crate) fn charge_anyway(&self, accounts: &[Arc<Account>], bytes: u64) -> Charge {
        let accounts: Vec<_> = accounts.iter().chain([&self.process]).cloned().collect();
        for account in &accounts {
            account.add(bytes);
        }
        Charge { accounts, bytes: AtomicU64::new(bytes) }
    }

    /// Fails if `account` is at its limit.
    ///
    /// # Errors
    ///
    /// 429 if it is.
    pub(crate) fn require_room(&self, account: &Arc<Account>) -> Result<(), Problem> {
        if account.is_exhausted() {
            return Err(self.refusal(&Exhausted(Arc::clone(account))));
        }
        Ok(())
    }

    /// Waits until `account` is below its limit.
    ///
    /// # Errors
    ///
    /// 429 if it is not after [`WAIT`].
    pub(crate) async fn admit(&self, account: &Arc<Account>) -> Result<(), Problem> {
        if !account.is_exhausted() {
            return Ok(());
        }
        let below = async {
            loop {
                let released = account.released.notified();
                tokio::pin!(released);
                released.as_mut().enable();
                if !account.is_exhausted() {
                    return;
                }
                released.await;
            }
        };
        let refused = |_elapsed| self.refusal(&Exhausted(Arc::clone(account)));
        timeout(WAIT, below).await.map_err(refused)
    }

    fn refusal(&self, exhausted: &Exhausted) -> Problem {
        if Arc::ptr_eq(&exhausted.0, &self.process) {
            return Problem::unavailable("BUSY", SOON);
        }
        let message = "Earlier responses have not been read yet. Read them and try again.";
        Problem::new(StatusCode::TOO_MANY_REQUESTS, UNREAD, message).with_retry_after(SOON)
    }

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

impl Charge {
    /// Releases all but `bytes`.
    pub(crate) fn shrink_to(&self, bytes: u64) {
        let before = self.bytes.fetch_min(bytes, Ordering::AcqRel);
        for account in &self.accounts {
            account.remove(before.saturating_sub(bytes));
        }
    }

    /// Returns the number of charged bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for account in &self.accounts {
            account.remove(*self.bytes.get_mut());
        }
    }
}

/// The bytes of a response waiting for room.
struct Waiting {
    account: Arc<Account>,
    bytes: u64,
}

impl Waiting {
    /// Returns `None` if the maximum is waiting already: an eighth of the limit, or one response.
    fn begin(account: &Arc<Account>, bytes: u64) -> Option<Self> {
        let most = account.limit_bytes / SHARE;
        let add = |waiting: u64| {
            let sum = waiting.saturating_add(bytes);
            (waiting == 0 || sum <= most).then_some(sum)
        };
        let waiting = &account.waiting_bytes;
        waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Self { account: Arc::clone(account), bytes })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.account.waiting_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
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
    use super::*;
    use crate::http::respond;

    const KIB: u64 = 1 << 10;

    fn output() -> Output {
        Output::new(800 * KIB, 100 * KIB)
    }

    fn refusal(result: Result<Charge, Problem>) -> (u16, &'static str) {
        let problem = result.unwrap_err();
        assert!(problem.header(hyper::header::RETRY_AFTER).is_some());
        (problem.status().as_u16(), problem.code())
    }

    #[tokio::test(start_paused = true)]
    async fn user_at_the_limit_is_refused_and_others_are_not() {
        let output = output();
        let (ada, grace) = (output.user(UserId::new()), output.user(UserId::new()));
        let held = output.charge(&[Arc::clone(&ada)], 90 * KIB, WAIT).await.unwrap();
        let refused = output.charge(&[Arc::clone(&ada)], 20 * KIB, WAIT).await;
        assert_eq!(refusal(refused), (429, "RESPONSES_UNREAD"));
        output.charge(&[grace], 20 * KIB, WAIT).await.unwrap();
        drop(held);
        output.charge(&[ada], 20 * KIB, WAIT).await.unwrap();
        assert_eq!(output.process.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn process_at_the_limit_refuses_large_responses_and_admits_small_ones() {
        let output = output();
        let user = || [output.user(UserId::new())];
        let _held: Vec<_> =
            (0..8).map(|_| output.try_charge(&user(), 100 * KIB).unwrap()).collect();
        assert_eq!(refusal(output.charge(&user(), 70 * KIB, WAIT).await), (503, "BUSY"));
        let small = user();
        let _first = output.charge(&small, 60 * KIB, WAIT).await.unwrap();
        assert_eq!(refusal(output.try_charge(&small, 20 * KIB)), (503, "BUSY"));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_response_is_admitted_when_another_is_taken() {
        let output = output();
        let user = [output.user(UserId::new())];
        let held = output.try_charge(&user, 100 * KIB).unwrap();
        let waiting = output.charge(&user, 8 * KIB, WAIT);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(waiting.as_mut()).is_pending());
        // At most an eighth of the limit waits.
        assert!(output.charge(&user, 8 * KIB, WAIT).await.is_err());
        held.shrink_to(50 * KIB);
        assert_eq!(waiting.await.unwrap().bytes(), 8 * KIB);
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
        assert_eq!((accounts[0].held(), output.process.held()), (0, 0));
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

    #[test]
    fn empty_accounts_are_removed() {
        let output = output();
        for _ in 0..1000 {
            output.user(UserId::new());
        }
        assert!(output.users.lock().unwrap().len() < 1000);
    }
}
