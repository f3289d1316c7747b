//! The counters of the product.

use super::{SessionId, TenantId};
use crate::{Counter, Result, Transaction, entity::SESSION_COUNTERS};

impl Counter {
    /// Number of workspace sessions.
    pub const SESSIONS: Self = Self::new("sessions");
    /// Number of agents of a tenant.
    pub const AGENTS: Self = Self::new("agents");
    /// Number of files.
    pub const FILES: Self = Self::new("files");
    /// Bytes of client state of a session.
    pub(crate) const CLIENT_STATE_BYTES: Self = Self::new("client_state_bytes");
}

impl Transaction {
    /// As [`charge`](Self::charge), for a counter of `session`.
    pub(super) async fn charge_session(
        &self,
        session: (TenantId, SessionId),
        counter: Counter,
        amount: i64,
        limit: i64,
    ) -> Result<()> {
        self.charge_at(self.session_counter_key(session, counter), counter, amount, limit).await
    }

    /// As [`release`](Self::release), for a counter of `session`.
    pub(super) fn release_session(
        &self,
        session: (TenantId, SessionId),
        counter: Counter,
        amount: i64,
    ) -> Result<()> {
        self.release_at(&self.session_counter_key(session, counter), amount)
    }

    /// Removes a counter of `session`, and returns its value. One read, which conflicts with every
    /// change of the counter.
    pub(super) async fn remove_session_counter(
        &self,
        session: (TenantId, SessionId),
        counter: Counter,
    ) -> Result<i64> {
        self.remove_counter_at(&self.session_counter_key(session, counter), counter).await
    }

    fn session_counter_key(
        &self,
        (tenant, session): (TenantId, SessionId),
        counter: Counter,
    ) -> Vec<u8> {
        SESSION_COUNTERS.key(self.root(), tenant, &(session, counter.name().to_owned()))
    }
}
