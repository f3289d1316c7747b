//! A tenant: the owner of everything else.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::TenantId;
use crate::{Entity, indexes, keyspace::Space};

/// An account that owns users and all they make. One is made for each user who registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its name, for people.
    pub name: String,
    /// When it was made.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for Tenant {
    type Scope = TenantId;
    type Key = ();
    const SPACE: Space<TenantId> = Space::tenant("tenant").keyed(&[]);
    const VERSION: u8 = 1;

    fn scope(&self) -> TenantId {
        self.id
    }

    fn key(&self) {}
}

indexes! { Tenant => }
