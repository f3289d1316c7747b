//! The audit log of a tenant. Entries are written in the transaction of the audited action.
//!
//! An entry belongs to the tenant that the action changes, whatever the tenant of its actor, for
//! that tenant's owners to read. Not audited: contents of sessions (files, drafts, editor,
//! terminal, memory and client state, messages), a user's own settings, and names of login
//! sessions.

use std::fmt;

use chrono::{DateTime, Utc};
use coditect_store::{
    Transaction,
    model::{AuditEntry, Json, TenantId, UserId},
};
use serde_json::{Value, json};

use super::{Auth, ClientInfo, Identity};

/// An audited action. Its name is persisted; queries of the audit log filter by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name in the log is its own description")]
pub enum Action {
    Register,
    Login,
    LoginRefused,
    Logout,
    LogoutEverywhere,
    SessionRevoked,
    RefreshReused,
    RefreshTokenAheadOfStore,
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
    TenantEntered,
    TenantChanged,
    TenantDeleted,
    UserEnabled,
    UserDisabled,
    AgentCreated,
    AgentChanged,
    AgentDeleted,
    SettingChanged,
    SettingRemoved,
    SessionCreated,
    SessionDeleted,
    SessionTransferred,
    ConversationCreated,
    ConversationDeleted,
    ConversationTransferred,
    IdeGranted,
    IdeRevoked,
}

impl Action {
    /// Returns its name in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "user.register",
            Self::Login => "auth.login",
            Self::LoginRefused => "auth.login_refused",
            Self::Logout => "auth.logout",
            Self::LogoutEverywhere => "auth.logout_everywhere",
            Self::SessionRevoked => "auth.session_revoked",
            Self::RefreshReused => "auth.refresh_reused",
            Self::RefreshTokenAheadOfStore => "auth.refresh_token_ahead_of_store",
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
            Self::TenantEntered => "tenant.entered",
            Self::TenantChanged => "tenant.changed",
            Self::TenantDeleted => "tenant.deleted",
            Self::UserEnabled => "user.enabled",
            Self::UserDisabled => "user.disabled",
            Self::AgentCreated => "agent.created",
            Self::AgentChanged => "agent.changed",
            Self::AgentDeleted => "agent.deleted",
            Self::SettingChanged => "setting.changed",
            Self::SettingRemoved => "setting.removed",
            Self::SessionCreated => "session.created",
            Self::SessionDeleted => "session.deleted",
            Self::SessionTransferred => "session.transferred",
            Self::ConversationCreated => "conversation.created",
            Self::ConversationDeleted => "conversation.deleted",
            Self::ConversationTransferred => "conversation.transferred",
            Self::IdeGranted => "user.ide_granted",
            Self::IdeRevoked => "user.ide_revoked",
        }
    }
}

impl Auth {
    /// Writes an audit entry that `identity` performed `action` on `target` in its active tenant.
    /// `details` must hold no secret. One append; the only read is the schema epoch.
    ///
    /// # Errors
    ///
    /// As for [`Transaction::append`].
    pub async fn audit(
        &self,
        tx: &Transaction,
        identity: &Identity,
        (action, target): (Action, impl fmt::Display + Send + Sync),
        details: Value,
        client: &ClientInfo,
    ) -> coditect_store::Result<()> {
        let entry = Entry::new(action, identity.tenant_id, Some(identity.user.id), client);
        entry.target(target).details(details).write(tx, self.clock.now()).await
    }
}

/// A new audit entry.
pub(super) struct Entry<'a> {
    action: Action,
    tenant: TenantId,
    actor: Option<UserId>,
    target: Option<String>,
    details: Value,
    client: &'a ClientInfo,
}

impl<'a> Entry<'a> {
    /// Creates an entry of `actor` in `tenant`; `None` for an unauthenticated actor.
    pub(super) fn new(
        action: Action,
        tenant: TenantId,
        actor: Option<UserId>,
        client: &'a ClientInfo,
    ) -> Self {
        Self { action, tenant, actor, target: None, details: json!({}), client }
    }

    /// Sets the id of the object of the action.
    pub(super) fn target(mut self, target: impl fmt::Display) -> Self {
        self.target = Some(format!("{target}"));
        self
    }

    /// Sets further details, which must hold no secret.
    pub(super) fn details(self, details: Value) -> Self {
        Self { details, ..self }
    }

    /// Appends the entry.
    pub(super) async fn write(
        self,
        tx: &Transaction,
        now: DateTime<Utc>,
    ) -> coditect_store::Result<()> {
        let mut details = self.details;
        if let (None, Some(hop), Some(details)) =
            (self.client.ip, self.client.nearest_hop, details.as_object_mut())
        {
            details.insert("nearest_hop".to_owned(), hop.to_string().into());
        }
        let entry = AuditEntry {
            tenant_id: self.tenant,
            actor: self.actor,
            action: self.action.name().to_owned(),
            target: self.target,
            details: Json(details),
            ip: self.client.ip.map(|ip| ip.to_string()),
            at: now,
        };
        tx.append(&entry).await.map(|_| ())
    }
}
