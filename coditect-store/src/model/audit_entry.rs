//! The audit log: who did what.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{Json, TenantId, UserId};
use crate::{
    entity::{Log, Multi, Trimmed},
    keyspace::Space,
    log_indexes,
};

/// Something that was done in a tenant. It is appended in the transaction that does it, and never
/// changed; the oldest are removed after their retention.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Who did it; none if nobody had signed in, or the program did it by itself.
    pub actor: Option<UserId>,
    /// What was done, as a word of the program's: `session.delete`, say.
    pub action: String,
    /// What it was done to: the id of a record, say.
    pub target: Option<String>,
    /// What else there is to know: a JSON object, with no secret in it.
    pub details: Json,
    /// The client's address, if it is known.
    pub ip: Option<String>,
    /// When it was done, by the clock of whoever did it. The order is that of the commits.
    #[serde(with = "ts_microseconds")]
    pub at: DateTime<Utc>,
}

impl Log for AuditEntry {
    type Scope = TenantId;
    type Stream = ();
    const SPACE: Space<TenantId> = Space::tenant("audit").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn stream(&self) {}
}

impl Trimmed for AuditEntry {}

log_indexes! { AuditEntry =>
    /// What somebody did.
    BY_ACTOR ("audit_by_actor", user): Multi<UserId> = |entry| entry.actor;
    /// Where something was done.
    BY_ACTION ("audit_by_action", action): Multi<String> = |entry| Some(entry.action.clone());
}
