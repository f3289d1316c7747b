//! The counted part of an audit log.

use coditect_store::{
    Entity, indexes,
    keyspace::{Position, Subspace},
    model::TenantId,
};
use serde::{Deserialize, Serialize};

/// The number of entries in the audit log of a tenant, up to the last one that was counted. The
/// purge counts those after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditExtent {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Number of entries up to `counted_to`.
    pub entries: u64,
    /// The last counted entry, which may have been removed since.
    pub counted_to: Option<Position>,
}

impl Entity for AuditExtent {
    type Scope = TenantId;
    type Key = ();
    const SPACE: Subspace<TenantId> = Subspace::tenant("audit_extent").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) {}
}

indexes! { AuditExtent => }
