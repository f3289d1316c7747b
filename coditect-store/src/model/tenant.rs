//! Tenants.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::TenantId;
use crate::{Entity, indexes, keyspace::Subspace};

/// An account that owns users and their data. Created for each user who registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Id.
    pub id: TenantId,
    /// Name, for display.
    pub name: String,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for Tenant {
    type Scope = TenantId;
    type Key = ();
    const SPACE: Subspace<TenantId> = Subspace::tenant("tenant").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.id
    }

    fn key(&self) {}
}

indexes! { Tenant => }
