//! WebSocket tickets: credentials for browsers, which cannot set headers on a handshake.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{AuthSessionId, MembershipRef, TenantId, TicketId, UserId};
use crate::{
    Entity,
    entity::{Expiring, GlobalMulti, GlobalUnique, Index, expiry_hour},
    indexes,
    keyspace::Subspace,
};

/// A single-use, short-lived ticket of a login session. Only its hash is stored.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Id.
    pub id: TicketId,
    /// Tenant of the user.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// Login session.
    pub auth_session_id: AuthSessionId,
    /// The membership that the requesting token acts by, if in another tenant than the user's.
    pub active_membership: Option<MembershipRef>,
    /// SHA-256 of the ticket.
    pub hash: [u8; 32],
    /// `Origin` of the requesting page, if any.
    pub origin: Option<String>,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Expiry.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for Ticket {
    type Scope = TenantId;
    type Key = TicketId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("auth_tickets");
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["hash"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> TicketId {
        self.id
    }
}

indexes! { Ticket =>
    /// By hash.
    BY_HASH ("tickets", hash): GlobalUnique<[u8; 32]> = |ticket| Some(ticket.hash);
    /// By hour of expiry, for the purge.
    BY_EXPIRY ("tickets_by_expiry", hour): GlobalMulti<i64> =
        |ticket| Some(expiry_hour(ticket.expires_at));
}

impl Expiring for Ticket {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for Ticket {
    /// Omits the hash, so that it is not logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("auth_session_id", &self.auth_session_id)
            .field("origin", &self.origin)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
