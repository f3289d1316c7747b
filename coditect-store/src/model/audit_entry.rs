//! The audit log.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{Json, TenantId, UserId};
use crate::{
    entity::{EventStream, Multi, Trimmed},
    keyspace::Subspace,
    stream_indexes,
};

/// An audited action in a tenant. Appended in the transaction of the action, and never changed; the
/// oldest are removed after their retention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Tenant.
    pub tenant_id: TenantId,
    /// The user who acted; `None` for unauthenticated requests and for the program itself.
    pub actor: Option<UserId>,
    /// Name of the action, such as `session.delete`.
    pub action: String,
    /// Id of the record acted on, if any.
    pub target: Option<String>,
    /// Further details, without secrets: a JSON object.
    pub details: Json,
    /// Client address, if known.
    pub ip: Option<String>,
    /// Time of the action, by the clock of the server. Entries are in commit order.
    #[serde(with = "ts_microseconds")]
    pub at: DateTime<Utc>,
}

impl EventStream for AuditEntry {
    type Scope = TenantId;
    type Stream = ();
    const SPACE: Subspace<TenantId> = Subspace::tenant("audit").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn stream(&self) {}
}

impl Trimmed for AuditEntry {}

stream_indexes! { AuditEntry =>
    /// Entries of a user.
    BY_ACTOR ("audit_by_actor", user): Multi<UserId> = |entry| entry.actor;
    /// Entries of an action.
    BY_ACTION ("audit_by_action", action): Multi<String> = |entry| Some(entry.action.clone());
}
