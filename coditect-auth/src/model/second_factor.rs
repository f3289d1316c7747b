//! A user's second factor.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity, indexes,
    keyspace::Subspace,
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};

use crate::seal::Sealed;

/// The TOTP secret of a user, and their recovery codes. Not required at a login until the first
/// code confirms it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondFactor {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// User.
    pub user_id: UserId,
    /// TOTP secret, sealed with the user's id as associated data.
    pub secret: Sealed,
    /// Whether a first code has confirmed it.
    pub confirmed: bool,
    /// Time step of the last accepted code; earlier and equal ones are rejected.
    pub last_step: u64,
    /// SHA-256 of each unused recovery code.
    pub recovery_hashes: Vec<[u8; 32]>,
    /// Wrong codes since the last right one.
    pub failures: u32,
    /// Time of creation.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
}

impl Entity for SecondFactor {
    type Scope = TenantId;
    type Key = UserId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("second_factors").keyed(&["user"]);
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["secret", "recovery_hashes"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> UserId {
        self.user_id
    }
}

indexes! { SecondFactor => }

impl fmt::Debug for SecondFactor {
    /// Omits the secret and the codes, to keep them out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondFactor")
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("confirmed", &self.confirmed)
            .finish_non_exhaustive()
    }
}
