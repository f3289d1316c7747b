//! Users.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{TenantId, UserId};
use crate::{Entity, entity::GlobalUnique, indexes, keyspace::Subspace};

/// A user who can sign in, with a unique e-mail address.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Id.
    pub id: UserId,
    /// Tenant.
    pub tenant_id: TenantId,
    /// E-mail address as entered, for display.
    pub email: String,
    /// E-mail address for comparison, normalized by `coditect-auth`; never displayed.
    pub email_normalized: String,
    /// Password hash, a PHC string.
    pub password_hash: String,
    /// Given name, if known.
    pub first_name: Option<String>,
    /// Family name, if known.
    pub last_name: Option<String>,
    /// Whether the user may sign in.
    pub status: UserStatus,
    /// Incremented to revoke all of the user's logins: an [`AuthSession`](super::AuthSession) of
    /// another epoch is revoked.
    pub login_epoch: u64,
    /// Time of registration.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// Time of the last change of this record.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for User {
    type Scope = TenantId;
    type Key = UserId;
    const SPACE: Subspace<TenantId> = Subspace::tenant("users").keyed(&["user"]);
    const VERSION: u8 = 1;
    const SECRETS: &'static [&'static str] = &["password_hash"];

    fn scope(&self) -> TenantId {
        self.tenant_id
    }

    fn key(&self) -> UserId {
        self.id
    }
}

indexes! { User =>
    /// E-mail addresses are unique.
    BY_EMAIL ("users_by_email", email): GlobalUnique<String> =
        |user| Some(user.email_normalized.clone());
}

impl User {
    /// Returns the user with all logins revoked.
    #[must_use]
    pub fn with_logins_revoked(self) -> Self {
        Self { login_epoch: self.login_epoch.saturating_add(1), ..self }
    }
}

/// Whether a user may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserStatus {
    /// May sign in.
    Enabled,
    /// May not sign in; existing sessions are invalid.
    Disabled,
}

impl std::fmt::Debug for User {
    /// Omits the password hash, so that it is not logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
