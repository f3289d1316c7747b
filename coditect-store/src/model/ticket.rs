//! A ticket: lets a browser open a WebSocket without showing its token in a URL.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{AuthSessionId, MembershipRef, TenantId, TicketId, UserId};
use crate::{
    Entity,
    entity::{Expiring, GlobalMulti, GlobalUnique, Index, expiry_hour},
    indexes,
    keyspace::Space,
};

/// A ticket that was handed out: good once, for a short time, for the signed-in device that asked.
/// Only the hash of what the client holds is kept.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Its id.
    pub id: TicketId,
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// Who asked for it.
    pub user_id: UserId,
    /// The login that it is good for.
    pub auth_session_id: AuthSessionId,
    /// The membership by which the token that asked for it acts in another tenant than the user's own.
    pub active_membership: Option<MembershipRef>,
    /// SHA-256 of what the client holds.
    pub hash: [u8; 32],
    /// The origin of the page that asked for it, where it told one.
    pub origin: Option<String>,
    /// When it was handed out.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When it ends by itself.
    #[serde(with = "ts_microseconds")]
    pub expires_at: DateTime<Utc>,
}

impl Entity for Ticket {
    type Scope = TenantId;
    type Key = TicketId;
    const SPACE: Space<TenantId> = Space::tenant("auth_tickets");
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
    /// The one that a client holds.
    BY_HASH ("tickets", hash): GlobalUnique<[u8; 32]> = |ticket| Some(ticket.hash);
    /// By the hour in which they end by themselves, for the sweep.
    BY_EXPIRY ("tickets_by_expiry", hour): GlobalMulti<i64> =
        |ticket| Some(expiry_hour(ticket.expires_at));
}

impl Expiring for Ticket {
    const EXPIRY: &'static Index<Self, GlobalMulti<i64>> = &Self::BY_EXPIRY;
}

impl fmt::Debug for Ticket {
    /// Leaves the hash out, so that it is in no log.
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
