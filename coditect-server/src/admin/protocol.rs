//! What an operator has done with users and keys: by the server that runs on the store, or, if none does,
//! here.
//!
//! A [`Task`] is data, which goes through the server's [door](crate::admin::socket) as one line of JSON, and so
//! does its [`Reply`]. Both ways end in [`perform`].

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

use crate::state::MASTER_KEY_FILE;

/// The variable that holds the next master key, where it is not in a file.
pub(crate) const NEXT_MASTER_KEY_VARIABLE: &str = "CODITECT_NEW_MASTER_KEY";

/// How many users a reply has at the most.
const PAGE: usize = 200;

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Task {
    /// A new user; without a password one sets it by a reset token.
    CreateUser {
        email: String,
        password: Option<String>,
        first_name: Option<String>,
        last_name: Option<String>,
        /// Whether they may use the IDE.
        ide: bool,
    },
    /// Gives a user the right to use the IDE, or takes it away.
    SetIde { email: String, granted: bool },
    /// Users by address, after those of the cursor.
    Users { after: Option<String> },
    /// One user.
    User { email: String },
    /// Lets a user sign in, or not.
    SetEnabled { email: String, enabled: bool },
    /// A token that resets a user's password.
    ResetPassword { email: String },
    /// Ends a user's sessions.
    SignOut { email: String },
    /// Takes a user's second factor away.
    RemoveSecondFactor { email: String },
    /// The signing keys.
    Keys,
    /// Has the next key sign.
    RotateKeys,
    /// Another master key: in the place of the file's, or the second of these.
    ReplaceMasterKey { given: Option<[String; 2]> },
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It was done.
    Done,
    /// A user, and what they set their password with, if they need that.
    User {
        user: UserRow,
        reset_token: Option<String>,
        /// Whether they may use the IDE, if that was asked for.
        ide: Option<bool>,
    },
    /// Users, and where the rest begins.
    Users { users: Vec<UserRow>, next: Option<String> },
    /// How many sessions were ended.
    SignedOut { sessions: usize },
    /// The signing keys, oldest first.
    Keys { keys: Vec<KeyRow> },
}

/// A user, as an operator sees them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UserRow {
    pub(crate) id: UserId,
    pub(crate) tenant_id: TenantId,
    pub(crate) email: String,
    pub(crate) enabled: bool,
    pub(crate) created_at: DateTime<Utc>,
}

/// A signing key, as an operator sees it.
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

/// Does it.
pub(crate) async fn perform(
    auth: &Auth,
    store: &Store,
    folder: &Path,
    task: Task,
) -> Result<Reply, AuthError> {
    Ok(match task {
        Task::CreateUser { email, password, first_name, last_name, ide } => {
            let has_password = password.is_some();
            // Nobody knows it, the operator neither.
            let unknown = || format!("{}{}", Uuid::new_v4(), Uuid::new_v4());
            let password = password.unwrap_or_else(unknown);
            let new = Registration { email: &email, password: &password, first_name, last_name };
            let user = auth.create_user(new, ide).await?;
            let token = if has_password { None } else { Some(auth.reset_token(&email).await?) };
            let reset_token = token.map(|token| token.expose().to_owned());
            Reply::User { user: (&user).into(), reset_token, ide: None }
        }
        Task::SetIde { email, granted } => {
            auth.set_ide_access(&email, granted).await?;
            Reply::Done
        }
        Task::Users { after } => {
            let after = after.map(|text| text.parse::<Cursor>()).transpose()?;
            let page = auth.users(PAGE, after.as_ref()).await?;
            let next = page.next.map(|cursor| cursor.to_string());
            Reply::Users { users: page.items.iter().map(UserRow::from).collect(), next }
        }
        Task::User { email } => {
            let ide = Some(auth.has_ide_access(&email).await?);
            Reply::User { user: (&auth.user(&email).await?).into(), reset_token: None, ide }
        }
        Task::SetEnabled { email, enabled } => {
            let status = if enabled { UserStatus::Enabled } else { UserStatus::Disabled };
            auth.set_status(&email, status).await?;
            Reply::Done
        }
        Task::ResetPassword { email } => {
            let token = auth.reset_token(&email).await?;
            let user = (&auth.user(&email).await?).into();
            Reply::User { user, reset_token: Some(token.expose().to_owned()), ide: None }
        }
        Task::SignOut { email } => {
            Reply::SignedOut { sessions: auth.revoke_user_sessions(&email).await? }
        }
        Task::RemoveSecondFactor { email } => {
            auth.reset_second_factor(&email).await?;
            Reply::Done
        }
        Task::Keys => {
            let row = |key: &coditect_auth::SealedKey| KeyRow {
                kid: key.kid.to_string(),
                algorithm: key.algorithm.name().to_owned(),
                state: key.state.name().to_owned(),
                since: key.since(),
            };
            Reply::Keys { keys: auth.signing_keys().await?.iter().map(row).collect() }
        }
        Task::RotateKeys => {
            auth.rotate_keys().await?;
            Reply::Done
        }
        Task::ReplaceMasterKey { given } => replace(store, folder, given).await?,
    })
}

/// Replaces the master key: the one in `folder`, or the given one by the next.
pub(crate) async fn replace(
    store: &Store,
    folder: &Path,
    given: Option<[String; 2]>,
) -> Result<Reply, AuthError> {
    let clock = Clock::system();
    match given {
        None => replace_master_key_file(&folder.join(MASTER_KEY_FILE), store, &clock).await?,
        Some([present, next]) => {
            let (present, next) = (MasterKey::parse(&present)?, MasterKey::parse(&next)?);
            replace_master_key(store, &clock, &present, &next).await?;
        }
    }
    Ok(Reply::Done)
}
