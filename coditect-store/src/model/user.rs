//! A user: somebody who can sign in.

use chrono::{DateTime, Utc, serde::ts_microseconds};
use serde::{Deserialize, Serialize};

use super::{TenantId, UserId};
use crate::{Entity, entity::GlobalUnique, indexes, keyspace::Space};

/// Somebody who can sign in, with an e-mail address that is theirs alone.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// Their id.
    pub id: UserId,
    /// The tenant they belong to.
    pub tenant_id: TenantId,
    /// The address as they wrote it, for display.
    pub email: String,
    /// The address as it is compared and indexed: normalised by `coditect-auth`, never shown.
    pub email_normalized: String,
    /// The password's PHC string.
    pub password_hash: String,
    /// Given name, where they told it.
    pub first_name: Option<String>,
    /// Family name, where they told it.
    pub last_name: Option<String>,
    /// Whether they may sign in.
    pub status: UserStatus,
    /// Incremented to revoke all of their logins at once: an [`AuthSession`](super::AuthSession) of
    /// another epoch is revoked.
    pub login_epoch: u64,
    /// When they registered.
    #[serde(with = "ts_microseconds")]
    pub created_at: DateTime<Utc>,
    /// When the record was last changed.
    #[serde(with = "ts_microseconds")]
    pub updated_at: DateTime<Utc>,
}

impl Entity for User {
    type Scope = TenantId;
    type Key = UserId;
    const SPACE: Space<TenantId> = Space::tenant("users").keyed(&["user"]);
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
    /// One account an address.
    BY_EMAIL ("users_by_email", email): GlobalUnique<String> =
        |user| Some(user.email_normalized.clone());
}

impl User {
    /// Returns them with all of their logins revoked.
    #[must_use]
    pub fn with_logins_revoked(self) -> Self {
        Self { login_epoch: self.login_epoch.saturating_add(1), ..self }
    }
}

/// Whether a user may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserStatus {
    /// They may.
    Enabled,
    /// They may not, and their open sessions no longer hold.
    Disabled,
}

impl std::fmt::Debug for User {
    /// Leaves the password's hash out, so that it is in no log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("tenant_id", &self.tenant_id)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
