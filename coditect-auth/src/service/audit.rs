//! What is written down of identity: who did what, in the transaction that does it.

use std::fmt;

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    model::{AuditEntry, Json, TenantId, UserId},
};
use serde_json::{Value, json};

use super::Device;

/// What was done. The names are persisted, and are what the audit log is searched by: never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Register,
    Login,
    LoginRefused,
    Logout,
    LogoutEverywhere,
    SessionRevoked,
    RefreshReused,
    RefreshFromTheFuture,
    PasswordChanged,
    PasswordResetRequested,
    PasswordReset,
    FactorConfirmed,
    FactorRemoved,
    FactorLocked,
    RecoveryCodeUsed,
    TokenCreated,
    TokenRevoked,
    Invited,
    InvitationWithdrawn,
    MemberJoined,
    MemberChanged,
    MemberRemoved,
    TenantDeleted,
    UserEnabled,
    UserDisabled,
}

impl Action {
    const fn name(self) -> &'static str {
        match self {
            Self::Register => "user.register",
            Self::Login => "auth.login",
            Self::LoginRefused => "auth.login_refused",
            Self::Logout => "auth.logout",
            Self::LogoutEverywhere => "auth.logout_everywhere",
            Self::SessionRevoked => "auth.session_revoked",
            Self::RefreshReused => "auth.refresh_reused",
            Self::RefreshFromTheFuture => "auth.refresh_from_the_future",
            Self::PasswordChanged => "user.password_changed",
            Self::PasswordResetRequested => "user.password_reset_requested",
            Self::PasswordReset => "user.password_reset",
            Self::FactorConfirmed => "user.second_factor_confirmed",
            Self::FactorRemoved => "user.second_factor_removed",
            Self::FactorLocked => "user.second_factor_locked",
            Self::RecoveryCodeUsed => "user.recovery_code_used",
            Self::TokenCreated => "user.token_created",
            Self::TokenRevoked => "user.token_revoked",
            Self::Invited => "tenant.invited",
            Self::InvitationWithdrawn => "tenant.invitation_withdrawn",
            Self::MemberJoined => "tenant.member_joined",
            Self::MemberChanged => "tenant.member_changed",
            Self::MemberRemoved => "tenant.member_removed",
            Self::TenantDeleted => "tenant.deleted",
            Self::UserEnabled => "user.enabled",
            Self::UserDisabled => "user.disabled",
        }
    }
}

/// An entry to be written.
pub(super) struct Entry<'a> {
    action: Action,
    tenant: TenantId,
    actor: Option<UserId>,
    target: Option<String>,
    details: Value,
    device: &'a Device,
}

impl<'a> Entry<'a> {
    /// That `actor` did it in `tenant`; nobody did where they had not shown who they are.
    pub(super) fn new(
        action: Action,
        tenant: TenantId,
        actor: Option<UserId>,
        device: &'a Device,
    ) -> Self {
        Self { action, tenant, actor, target: None, details: json!({}), device }
    }

    /// The id of what it was done to.
    pub(super) fn target(mut self, target: impl fmt::Display) -> Self {
        self.target = Some(format!("{target}"));
        self
    }

    /// What else there is to know: no secret.
    pub(super) fn details(self, details: Value) -> Self {
        Self { details, ..self }
    }

    /// Writes it.
    pub(super) async fn write(
        self,
        tx: &Transaction,
        now: DateTime<Utc>,
    ) -> coditect_store::Result<()> {
        let mut details = self.details;
        if let (None, Some(hop), Some(details)) =
            (self.device.ip, self.device.nearest_hop, details.as_object_mut())
        {
            details.insert("nearest_hop".to_owned(), hop.to_string().into());
        }
        let entry = AuditEntry {
            tenant_id: self.tenant,
            actor: self.actor,
            action: self.action.name().to_owned(),
            target: self.target,
            details: Json(details),
            ip: self.device.ip.map(|ip| ip.to_string()),
            at: now,
        };
        tx.append(&entry).await.map(|_| ())
    }
}
