//! Charging of the messages that sockets receive, for the memory that they hold until they are
//! complete and applied.
//!
//! # Invariants
//!
//! - The bytes of a message are charged to the user and the process as they arrive. A socket whose
//!   charge is refused is closed: its client sends the message again after it has reconnected.
//! - The first `FREE_BYTES` are not charged, so that idle sockets cost nothing.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::budget::{Account, Budget, Charge};

/// Bytes of an incomplete message that are not charged.
const FREE_BYTES: u64 = 16 << 10;

/// Charges grow by this, in bytes.
const STEP_BYTES: u64 = 64 << 10;

/// Header of a control frame from a client, in bytes.
const CONTROL_HEADER_BYTES: u64 = 6;

/// The charge for the message that a socket receives.
#[derive(Clone, Debug)]
pub(crate) struct Inbound(Arc<Receiving>);

#[derive(Debug)]
struct Receiving {
    budget: Arc<Budget>,
    user: Arc<Account>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes of the message that is incomplete.
    pending_bytes: u64,
    /// For that message, and for complete ones that are not applied yet.
    charges: Vec<Charge>,
}

impl Inbound {
    /// Returns a charge of nothing to `user`.
    pub(crate) fn new(budget: Arc<Budget>, user: Arc<Account>) -> Self {
        Self(Arc::new(Receiving { budget, user, held: Mutex::default() }))
    }

    /// Takes off a message that is complete. Its charge lasts until it is [applied](Self::applied).
    fn complete(&self) {
        self.held().pending_bytes = 0;
    }

    /// Takes off a control frame, which may come within a message.
    fn consume_control(&self, payload_bytes: usize) {
        let mut held = self.held();
        let bytes = CONTROL_HEADER_BYTES.saturating_add(payload_bytes as u64);
        held.pending_bytes = held.pending_bytes.saturating_sub(bytes);
    }

    /// Ends the charge for the complete messages, which were applied.
    fn applied(&self) {
        let mut held = self.held();
        let needed = held.needed();
        held.charges.truncate(needed);
    }

    /// Adds `bytes`.
    fn receive(&self, bytes: usize) -> io::Result<()> {
        let mut held = self.held();
        held.pending_bytes = held.pending_bytes.saturating_add(bytes as u64);
        while held.charges.len() < held.needed() {
            let charge = self.0.budget.try_charge(&[Arc::clone(&self.0.user)], STEP_BYTES);
            held.charges
                .push(charge.map_err(|_refused| io::Error::other("no room for a message"))?);
        }
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Returns the number of charges for the incomplete message.
    fn needed(&self) -> usize {
        let charged = self.pending_bytes.saturating_sub(FREE_BYTES).div_ceil(STEP_BYTES);
        usize::try_from(charged).unwrap_or(usize::MAX)
    }
}

/// The connection of a socket, whose received bytes are charged.
#[derive(Debug)]
pub struct Charged<S> {
    connection: S,
    inbound: Option<Inbound>,
}

impl<S> Charged<S> {
    /// Returns `connection` with its charge, if it has one.
    pub(super) fn new(connection: S, inbound: Option<Inbound>) -> Self {
        Self { connection, inbound }
    }

    /// Notes that a message is complete.
    pub(crate) fn complete(&self) {
        if let Some(inbound) = &self.inbound {
            inbound.complete();
        }
    }

    /// Ends the charge for the complete messages, which were applied.
    pub(crate) fn applied(&self) {
        if let Some(inbound) = &self.inbound {
            inbound.applied();
        }
    }

    /// Takes a control frame off the charge.
    pub(crate) fn consume_control(&self, payload_bytes: usize) {
        if let Some(inbound) = &self.inbound {
            inbound.consume_control(payload_bytes);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Charged<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.connection).poll_read(context, buffer))?;
        let received = buffer.filled().len() - before;
        Poll::Ready(self.inbound.as_ref().map_or(Ok(()), |inbound| inbound.receive(received)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Charged<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use coditect_store::model::UserId;

    use super::*;
    use crate::http::budget::Purpose;

    const KIB: usize = 1 << 10;

    #[test]
    fn message_is_charged_until_it_is_complete() {
        let budget = Arc::new(Budget::new(Purpose::Requests, 8 << 20, 1 << 20));
        let user = budget.user(UserId::new());
        let sockets: Vec<_> =
            (0..9).map(|_| Inbound::new(Arc::clone(&budget), Arc::clone(&user))).collect();
        for socket in &sockets {
            socket.receive(16 * KIB).unwrap();
        }
        assert_eq!(user.held(), 0);
        for socket in &sockets[..8] {
            socket.receive(100 * KIB).unwrap();
        }
        assert_eq!(user.held(), (8 * 128) << 10);
        sockets[8].receive(KIB).unwrap_err();
        sockets[0].complete();
        sockets[8].receive(KIB).unwrap_err();
        sockets[0].applied();
        sockets[8].receive(KIB).unwrap();
        drop(sockets);
        assert_eq!(user.held(), 0);
    }

    #[test]
    fn message_that_begins_before_another_is_applied_stays_charged() {
        let budget = Arc::new(Budget::new(Purpose::Requests, 8 << 20, 1 << 20));
        let user = budget.user(UserId::new());
        let socket = Inbound::new(budget, Arc::clone(&user));
        socket.receive(100).unwrap();
        socket.complete();
        socket.receive(200 * KIB).unwrap();
        socket.applied();
        assert_eq!(user.held(), 192 << 10);
        socket.complete();
        socket.applied();
        assert_eq!(user.held(), 0);
    }

    #[test]
    fn control_frames_are_not_charged_and_end_no_charge() {
        let budget = Arc::new(Budget::new(Purpose::Requests, 8 << 20, 1 << 20));
        let user = budget.user(UserId::new());
        let socket = Inbound::new(budget, Arc::clone(&user));
        for _ in 0..100_000 {
            socket.receive(6).unwrap();
            socket.consume_control(0);
        }
        assert_eq!(user.held(), 0);
        socket.receive(100 * KIB).unwrap();
        socket.receive(6).unwrap();
        socket.consume_control(0);
        assert_eq!(user.held(), 128 << 10);
    }
}
