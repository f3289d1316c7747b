//! A user's second factor.

use std::fmt;

use chrono::{DateTime, Utc, serde::ts_microseconds};
use coditect_store::{
    Entity, indexes,
    keyspace::Space,
    model::{TenantId, UserId},
};
use serde::{Deserialize, Serialize};

use crate::seal::Sealed;

/// The secret that a user's authenticator app shares with us, and their recovery codes. Until it is
/// confirmed by a first code it is not asked for.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SecondFactor {
    /// The user's tenant.
    pub tenant_id: TenantId,
    /// Whose it is.
    pub user_id: UserId,
    /// The secret, sealed for this user.
    pub secret: Sealed,
    /// Whether its user has shown that their app has it.
    pub confirmed: bool,
    /// The time step of the last code that was taken; none of it, or before it, is taken again.
    pub last_step: u64,
    /// SHA-256 of each recovery code that was not used.
    pub recovery_hashes: Vec<[u8; 32]>,
    /// Wrong codes since the last right one.
    pub failures: u32,
    /// When it was made.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
}

impl Entity for SecondFactor {
    type Scope = TenantId;
    type Key = UserId;
    const SPACE: Space<TenantId> = Space::tenant("second_factors").keyed(&["user"]);
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
    /// Leaves secret and codes out, so that they are in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecondFactor")
            .field("tenant_id", &self.tenant_id)
            .field("user_id", &self.user_id)
            .field("confirmed", &self.confirmed)
            .finish_non_exhaustive()
    }
}
