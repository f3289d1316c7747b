//! Operator tasks on users and keys. They run in the server that has the store open, or here if
//! there is none.
//!
//! A [`AdminRequest`] is sent over the [admin socket](super::socket) as one line of JSON, and so is
//! its [`AdminResponse`]. Both paths run [`perform`].

use std::path::Path;

use chrono::{DateTime, Utc};
use coditect_auth::{
    Auth, Error as AuthError, MasterKey, Registration, replace_master_key, replace_master_key_file,
};
use coditect_store::{
    Clock, Cursor, Store,
    model::{TenantId, User, UserId, UserStatus},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::place::MASTER_KEY_FILE;

/// Variable with the next master key; takes precedence over the file.
pub(crate) const NEXT_MASTER_KEY_VARIABLE: &str = "CODITECT_NEW_MASTER_KEY";

/// Maximum number of users in a reply.
const PAGE: usize = 200;

/// The error of a task.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No user has the address.
    #[error("no user has the address {0}: list all users with `coditect-server user list`")]
    UnknownUser(String),
    /// Any other error.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// A task.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AdminRequest {
    /// Creates a user. Without a password, the reply has a reset token.
    CreateUser {
        email: String,
        password: Option<String>,
        first_name: Option<String>,
        last_name: Option<String>,
        /// Whether to grant access to the IDE.
        ide: bool,
    },
    /// Grants or revokes access to the IDE.
    SetIde { email: String, granted: bool },
    /// Lists users by address, after the cursor.
    Users { after: Option<String> },
    /// Shows a user.
    User { email: String },
    /// Enables or disables a user.
    SetEnabled { email: String, enabled: bool },
    /// Creates a password-reset token.
    ResetPassword { email: String },
    /// Ends all sessions of a user.
    RevokeSessions { email: String },
    /// Removes the second factor of a user.
    RemoveSecondFactor { email: String },
    /// Lists the signing keys.
    Keys,
    /// Makes the next key the signing key.
    RotateKeys,
    /// Replaces the master key: that of the file, or the first of `given` by the second.
    ReplaceMasterKey { given: Option<[String; 2]> },
}

/// The reply to a task.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AdminResponse {
    /// Success without data.
    Done,
    /// A user, with a reset token if one was created.
    User {
        user: UserRow,
        reset_token: Option<String>,
        /// Whether the user has access to the IDE, if requested.
        ide: Option<bool>,
    },
    /// A page of users and the cursor of the next one.
    Users { users: Vec<UserRow>, next: Option<String> },
    /// Number of revoked sessions.
    SignedOut { sessions: usize },
    /// Signing keys, oldest first.
    Keys { keys: Vec<KeyRow> },
}

/// A user in a reply.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UserRow {
    pub(crate) id: UserId,
    pub(crate) tenant_id: TenantId,
    pub(crate) email: String,
    pub(crate) enabled: bool,
    pub(crate) created_at: DateTime<Utc>,
}

/// A signing key in a reply.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeyRow {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    pub(crate) state: String,
    pub(crate) since: DateTime<Utc>,
}

impl From<&User> for UserRow {
    fn from(user: &User) -> Self {
        Self {
            id: user.id,
            tenant_id: user.tenant_id,
            email: user.email.clone(),
            enabled: user.status == UserStatus::Enabled,
            created_at: user.created_at,
        }
    }
}

impl AdminRequest {
    /// Returns the address of the existing user that the task is about.
    fn email(&self) -> Option<&str> {
        match self {
            Self::SetIde { email, .. }
            | Self::User { email }
            | Self::SetEnabled { email, .. }
            | Self::ResetPassword { email }
            | Self::RevokeSessions { email }
            | Self::RemoveSecondFactor { email } => Some(email),
            Self::CreateUser { .. }
            | Self::Users { .. }
            | Self::Keys
            | Self::RotateKeys
            | Self::ReplaceMasterKey { .. } => None,
        }
    }
}

/// Performs `task`.
pub(crate) async fn perform(
    auth: &Auth,
    store: &Store,
    folder: &Path,
    task: AdminRequest,
) -> Result<AdminResponse, AdminError> {
    let email = task.email().map(str::to_owned);
    perform_task(auth, store, folder, task).await.map_err(|error| match (error, email) {
        (AuthError::NotFound, Some(email)) => AdminError::UnknownUser(email),
        (error, _) => AdminError::Auth(error),
    })
}

async fn perform_task(
    auth: &Auth,
    store: &Store,
    folder: &Path,
    task: AdminRequest,
) -> Result<AdminResponse, AuthError> {
    Ok(match task {
        AdminRequest::CreateUser { email, password, first_name, last_name, ide } => {
            let has_password = password.is_some();
            // A random password that nobody knows, including the operator.
            let unknown = || format!("{}{}", Uuid::new_v4(), Uuid::new_v4());
            let password = password.unwrap_or_else(unknown);
            let new = Registration { email: &email, password: &password, first_name, last_name };
            let user = auth.create_user(new, ide).await?;
            let token = if has_password { None } else { Some(auth.reset_token(&email).await?) };
            let reset_token = token.map(|token| token.expose().to_owned());
            AdminResponse::User { user: (&user).into(), reset_token, ide: None }
        }
        AdminRequest::SetIde { email, granted } => {
            auth.set_ide_access(&email, granted).await?;
            AdminResponse::Done
        }
        AdminRequest::Users { after } => {
            let after = after.map(|text| text.parse::<Cursor>()).transpose()?;
            let page = auth.users(PAGE, after.as_ref()).await?;
            let next = page.next.map(|cursor| cursor.to_string());
            AdminResponse::Users { users: page.items.iter().map(UserRow::from).collect(), next }
        }
        AdminRequest::User { email } => {
            let ide = Some(auth.has_ide_access(&email).await?);
            AdminResponse::User { user: (&auth.user(&email).await?).into(), reset_token: None, ide }
        }
        AdminRequest::SetEnabled { email, enabled } => {
            let status = if enabled { UserStatus::Enabled } else { UserStatus::Disabled };
            auth.set_status(&email, status).await?;
            AdminResponse::Done
        }
        AdminRequest::ResetPassword { email } => {
            let token = auth.reset_token(&email).await?;
            let user = (&auth.user(&email).await?).into();
            AdminResponse::User { user, reset_token: Some(token.expose().to_owned()), ide: None }
        }
        AdminRequest::RevokeSessions { email } => {
            AdminResponse::SignedOut { sessions: auth.revoke_user_sessions(&email).await? }
        }
        AdminRequest::RemoveSecondFactor { email } => {
            auth.reset_second_factor(&email).await?;
            AdminResponse::Done
        }
        AdminRequest::Keys => {
            let row = |key: &coditect_auth::SealedKey| KeyRow {
                kid: key.kid.to_string(),
                algorithm: key.algorithm.name().to_owned(),
                state: key.state.name().to_owned(),
                since: key.since(),
            };
            AdminResponse::Keys { keys: auth.signing_keys().await?.iter().map(row).collect() }
        }
        AdminRequest::RotateKeys => {
            auth.rotate_keys().await?;
            AdminResponse::Done
        }
        AdminRequest::ReplaceMasterKey { given } => replace(store, folder, given).await?,
    })
}

/// Replaces the master key: that in `folder`, or the first of `given` by the second.
pub(crate) async fn replace(
    store: &Store,
    folder: &Path,
    given: Option<[String; 2]>,
) -> Result<AdminResponse, AuthError> {
    let clock = Clock::system();
    match given {
        None => replace_master_key_file(&folder.join(MASTER_KEY_FILE), store, &clock).await?,
        Some([present, next]) => {
            let (present, next) = (MasterKey::parse(&present)?, MasterKey::parse(&next)?);
            replace_master_key(store, &clock, &present, &next).await?;
        }
    }
    Ok(AdminResponse::Done)
}
