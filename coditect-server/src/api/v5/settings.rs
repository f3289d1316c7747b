//! Settings of a user and of a tenant. A user's own setting overrides that of the tenant.
//!
//! Settings are written for the caller by default. `?scope=tenant` writes them for the tenant,
//! which requires an owner or admin.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::{Action, ClientInfo, Identity};
use coditect_store::{
    Transaction,
    model::{Role, Setting, SettingScope},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    auth::client_info,
    checks,
    parts::{SECRET_PATTERNS, secret_rules},
};
use crate::{
    extract::caller,
    http::{
        HandlerResult, Query, Request,
        conditions::{ETag, Preconditions, with_etag},
        problem::Problem,
        respond,
    },
    openapi::Operation,
    state::App,
};

/// Maximum number of settings per user and per tenant.
const MAX_SETTINGS: usize = 200;
/// Maximum size of a value as JSON, in bytes.
const MAX_VALUE_BYTES: usize = 8 << 10;
/// Maximum size of all settings of a user, or of a tenant, as JSON, in bytes. A list has both.
const MAX_SCOPE_BYTES: usize = 512 << 10;

const SECRET_PATTERNS_DETAILS: &str = "The value is any JSON, except for the tenant's \
    `secret_patterns`, which adds patterns of secrets to redact in terminals: \
    `{\"variable_names\": [], \"values\": []}`, each a list of at most 16 regular expressions of \
    at most 256 bytes in the syntax of Rust's `regex` crate. The first group of a match, or the \
    whole match without a group, is the secret. An invalid pattern is refused with 422.";

/// The scope of a setting, as the API spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "SettingScope")]
#[serde(rename_all = "snake_case")]
enum ScopeName {
    User,
    Tenant,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SettingValue")]
struct NewValue {
    value: Value,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Setting")]
struct SettingView<'a> {
    key: &'a str,
    value: &'a Value,
    scope: ScopeName,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
}

/// Describes the operations of settings for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    const ONE: &str = "/api/v5/settings/{key}";
    let scoped = |operation: Operation| {
        let scope = json!({"enum": ["user", "tenant"]});
        operation.query("scope", scope, "Scope of the setting; default `user`.")
    };
    vec![
        Operation::get("/api/v5/settings", "listSettings", "List my effective settings, by key")
            .list::<SettingView<'static>>(),
        Operation::get(ONE, "getSetting", "Get an effective setting")
            .query(
                "scope",
                json!({"enum": ["user", "tenant"]}),
                "Only the value set in this scope; default is the effective value.",
            )
            .response::<SettingView<'static>>()
            .with_etag(),
        scoped(Operation::put(ONE, "putSetting", "Set a setting"))
            .details(SECRET_PATTERNS_DETAILS)
            .request::<NewValue>()
            .response::<SettingView<'static>>()
            .with_etag(),
        scoped(Operation::delete(ONE, "deleteSetting", "Delete a setting"))
            .no_content()
            .with_etag(),
    ]
}

/// Handles `GET /settings`: the effective settings of the caller, by key.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let settings = caller::transact(&app, &caller, |tx, identity| async move {
        let (tenant, user) = (identity.tenant_id, identity.user.id);
        Ok(Setting::all_effective(&tx, tenant, user, 2 * MAX_SETTINGS).await?)
    })
    .await?;
    respond::list(&settings, SettingView::from)
}

/// Handles `GET /settings/{key}`: the effective value for the caller, or with `scope` the value set
/// there.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (key, conditions) = (request.param("key")?.to_owned(), Preconditions::of(&request)?);
    let scope = Query::of(&request)?.parsed::<ScopeName>("scope")?;
    let setting = caller::transact(&app, &caller, |tx, identity| {
        let key = &key;
        async move {
            let (tenant, user) = (identity.tenant_id, identity.user.id);
            let setting = match scope {
                None => Setting::effective(&tx, tenant, user, key).await?,
                Some(scope) => {
                    tx.get::<Setting>(tenant, (scope.of(&identity), key.clone())).await?
                }
            };
            setting.ok_or_else(Problem::not_found)
        }
    })
    .await?;
    conditions.read(respond::ok(&SettingView::from(&setting))?, &tag_of(&setting)?)
}

/// Handles `PUT /settings/{key}` with any JSON value.
pub(crate) async fn set(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (key, conditions) = (request.param("key")?.to_owned(), Preconditions::of(&request)?);
    let scope = Query::of(&request)?.parsed("scope")?.unwrap_or(ScopeName::User);
    checks::line("key", checks::NAME, &key)?;
    let NewValue { value } = request.json().await?;
    let (value, now) = (checks::json("value", MAX_VALUE_BYTES, value)?, app.clock.now());
    if key == SECRET_PATTERNS {
        if scope == ScopeName::User {
            let message = "is a setting of the tenant: set it with `?scope=tenant`";
            return Err(Problem::invalid_field("VALIDATION_FAILED", "key", message));
        }
        secret_rules("value", &value.0)?;
    }
    let client = client_info(&request);
    let setting = caller::transact(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        let (key, value, conditions) = (&key, &value, &conditions);
        async move {
            require_writer(&identity, scope)?;
            let (tenant_id, of) = (identity.tenant_id, scope.of(&identity));
            let all = tx.list_keys::<Setting>(tenant_id, (of,)).all(MAX_SETTINGS).await?;
            let before = all.iter().find(|other| other.key == *key);
            conditions.require(before.map(tag_of).transpose()?.as_ref())?;
            audit(app, &tx, &identity, (Action::SettingChanged, scope, key), client).await?;
            let (key, value) = (key.clone(), value.clone());
            let setting = Setting { tenant_id, scope: of, key, value, updated_at: now };
            if before.is_none() && all.len() >= MAX_SETTINGS {
                return Err(Problem::too_large(format!(
                    "At most {MAX_SETTINGS} settings are allowed."
                )));
            }
            let others = all.iter().filter(|other| other.key != setting.key);
            let total: usize = others.map(bytes).sum::<usize>() + bytes(&setting);
            if total > MAX_SCOPE_BYTES
                && before.is_none_or(|before| bytes(&setting) > bytes(before))
            {
                let message = format!(
                    "All settings together may have at most {MAX_SCOPE_BYTES} bytes of JSON."
                );
                return Err(Problem::too_large(message));
            }
            tx.upsert(&setting).await?;
            Ok(setting)
        }
    })
    .await?;
    with_etag(respond::ok(&SettingView::from(&setting))?, &tag_of(&setting)?)
}

/// Handles `DELETE /settings/{key}`. Without a user's own setting, that of the tenant is effective.
pub(crate) async fn remove(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (key, conditions) = (request.param("key")?.to_owned(), Preconditions::of(&request)?);
    let scope = Query::of(&request)?.parsed("scope")?.unwrap_or(ScopeName::User);
    let client = client_info(&request);
    caller::transact(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        let (key, conditions) = (&key, &conditions);
        async move {
            require_writer(&identity, scope)?;
            let (tenant, of) = (identity.tenant_id, (scope.of(&identity), key.clone()));
            let before = tx.get::<Setting>(tenant, of).await?.ok_or_else(Problem::not_found)?;
            conditions.require(Some(&tag_of(&before)?))?;
            tx.delete::<Setting>(before.tenant_id, (before.scope, before.key)).await?;
            audit(app, &tx, &identity, (Action::SettingRemoved, scope, key), client).await
        }
    })
    .await?;
    Ok(respond::no_content())
}

/// Returns the size of a setting's key and value as JSON, in bytes.
fn bytes(setting: &Setting) -> usize {
    setting.key.len() + setting.value.0.to_string().len()
}

/// Fails if the caller may not write settings of a scope.
fn require_writer(identity: &Identity, scope: ScopeName) -> Result<(), Problem> {
    if scope == ScopeName::Tenant {
        identity.require_role(Role::Admin)?;
    }
    Ok(())
}

/// Audits the change of a tenant's setting. Users' own settings are not audited.
async fn audit(
    app: &App,
    tx: &Transaction,
    identity: &Identity,
    (action, scope, key): (Action, ScopeName, &String),
    client: &ClientInfo,
) -> Result<(), Problem> {
    if scope == ScopeName::Tenant {
        app.auth.audit(tx, identity, (action, key), json!({}), client).await?;
    }
    Ok(())
}

impl ScopeName {
    fn of(self, identity: &Identity) -> SettingScope {
        match self {
            Self::User => SettingScope::User(identity.user.id),
            Self::Tenant => SettingScope::Tenant,
        }
    }
}

fn tag_of(setting: &Setting) -> Result<ETag, Problem> {
    Ok(ETag::of(setting)?.modified(setting.updated_at))
}

impl<'a> From<&'a Setting> for SettingView<'a> {
    fn from(setting: &'a Setting) -> Self {
        let Setting { scope, key, value, updated_at, .. } = setting;
        let scope = match scope {
            SettingScope::User(_) => ScopeName::User,
            SettingScope::Tenant => ScopeName::Tenant,
        };
        Self { key, value: &value.0, scope, updated_at: *updated_at }
    }
}
