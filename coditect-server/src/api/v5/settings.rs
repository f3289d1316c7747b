//! Settings: the caller's own, over those of the tenant.
//!
//! Without more said, a setting is written for the caller. `?scope=tenant` writes it for all of the
//! tenant, which its owner and admins may do.

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
        conditions::{Conditions, Tag, tagged},
        problem::Problem,
        respond,
    },
    openapi::Operation,
    state::App,
};

/// The most settings of a tenant, and of each of its users.
const MOST: usize = 200;
/// The largest value, in bytes of JSON.
const VALUE_BYTES: usize = 8 << 10;
/// Maximum size of the settings of a user, or of a tenant, in bytes of JSON: a list has both.
const SCOPE_BYTES: usize = 512 << 10;

const SECRET_PATTERNS_DETAILS: &str = "The value is any JSON, but for the tenant's \
    `secret_patterns`, which adds to the secrets that are not stored with terminals: \
    `{\"variable_names\": [], \"values\": []}`, each a list of at most 16 regular expressions of at \
    most 256 bytes, in the syntax of Rust's `regex` crate. A value is a secret where a pattern \
    matches, or its first group. An invalid pattern is refused with 422.";

/// For whom a setting is, as the API spells it.
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

/// What the API's description says of these.
pub(crate) fn operations() -> Vec<Operation> {
    const ONE: &str = "/api/v5/settings/{key}";
    let scoped = |operation: Operation| {
        let scope = json!({"enum": ["user", "tenant"]});
        operation.query("scope", scope, "For whom it is; `user` if nothing is said.")
    };
    vec![
        Operation::get("/api/v5/settings", "listSettings", "What holds for me, by key")
            .lists::<SettingView<'static>>(),
        Operation::get(ONE, "getSetting", "What holds for me")
            .query(
                "scope",
                json!({"enum": ["user", "tenant"]}),
                "What is set there alone; what holds for me if nothing is said.",
            )
            .gives::<SettingView<'static>>()
            .tagged(),
        scoped(Operation::put(ONE, "setSetting", "Sets it"))
            .details(SECRET_PATTERNS_DETAILS)
            .takes::<NewValue>()
            .gives::<SettingView<'static>>()
            .tagged(),
        scoped(Operation::delete(ONE, "removeSetting", "Removes it")).gives_nothing().tagged(),
    ]
}

/// `GET /settings`: what holds for the caller, by key.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let settings = caller::run(&app, &caller, |tx, identity| async move {
        let (tenant, user) = (identity.tenant_id, identity.user.id);
        Ok(Setting::all_effective(&tx, tenant, user, 2 * MOST).await?)
    })
    .await?;
    respond::list(&settings, SettingView::from)
}

/// `GET /settings/{key}`: what it is for the caller; with a scope, what it is there.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let (key, conditions) = (request.param("key")?.to_owned(), Conditions::of(&request)?);
    let scope = Query::of(&request)?.parsed::<ScopeName>("scope")?;
    let setting = caller::run(&app, &caller, |tx, identity| {
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

/// `PUT /settings/{key}`: sets it to `value`, which may be any JSON.
pub(crate) async fn set(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let (key, conditions) = (request.param("key")?.to_owned(), Conditions::of(&request)?);
    let scope = Query::of(&request)?.parsed("scope")?.unwrap_or(ScopeName::User);
    checks::line("key", checks::NAME, &key)?;
    let NewValue { value } = request.json().await?;
    let (value, now) = (checks::json("value", VALUE_BYTES, value)?, app.clock.now());
    if key == SECRET_PATTERNS {
        if scope == ScopeName::User {
            let message = "is a setting of the tenant: set it with `?scope=tenant`";
            return Err(Problem::invalid_field("VALIDATION_FAILED", "key", message));
        }
        secret_rules("value", &value.0)?;
    }
    let client = client_info(&request);
    let setting = caller::run(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        let (key, value, conditions) = (&key, &value, &conditions);
        async move {
            let before = to_write(&tx, &identity, scope, key).await?;
            conditions.require(before.as_ref().map(tag_of).transpose()?.as_ref())?;
            let tenant_id = identity.tenant_id;
            audit(app, &tx, &identity, (Action::SettingChanged, scope, key), client).await?;
            let (scope, key, value) = (scope.of(&identity), key.clone(), value.clone());
            let setting = Setting { tenant_id, scope, key, value, updated_at: now };
            let others = tx.list_keys::<Setting>(tenant_id, (scope,)).all(MOST).await?;
            if before.is_none() && others.len() >= MOST {
                return Err(Problem::too_large(format!("There are at most {MOST} settings.")));
            }
            let others = others.iter().filter(|other| other.key != setting.key);
            let total: usize = others.map(bytes).sum::<usize>() + bytes(&setting);
            if total > SCOPE_BYTES && before.is_none_or(|before| bytes(&setting) > bytes(&before)) {
                let message = format!("Settings have at most {SCOPE_BYTES} bytes of JSON in all.");
                return Err(Problem::too_large(message));
            }
            tx.upsert(&setting).await?;
            Ok(setting)
        }
    })
    .await?;
    tagged(respond::ok(&SettingView::from(&setting))?, &tag_of(&setting)?)
}

/// `DELETE /settings/{key}`: what the tenant has set, if anything, holds again.
pub(crate) async fn remove(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let (key, conditions) = (request.param("key")?.to_owned(), Conditions::of(&request)?);
    let scope = Query::of(&request)?.parsed("scope")?.unwrap_or(ScopeName::User);
    let client = client_info(&request);
    caller::run(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        let (key, conditions) = (&key, &conditions);
        async move {
            let before = to_write(&tx, &identity, scope, key).await?;
            let before = before.ok_or_else(Problem::not_found)?;
            conditions.require(Some(&tag_of(&before)?))?;
            tx.delete::<Setting>(before.tenant_id, (before.scope, before.key)).await?;
            audit(app, &tx, &identity, (Action::SettingRemoved, scope, key), client).await
        }
    })
    .await?;
    Ok(respond::no_content())
}

/// Returns the size of a setting in JSON, less what all of them have.
fn bytes(setting: &Setting) -> usize {
    setting.key.len() + setting.value.0.to_string().len()
}

/// What is set in a scope that the caller may write.
async fn to_write(
    tx: &Transaction,
    identity: &Identity,
    scope: ScopeName,
    key: &str,
) -> Result<Option<Setting>, Problem> {
    if scope == ScopeName::Tenant {
        identity.require_role(Role::Admin)?;
    }
    Ok(tx.get(identity.tenant_id, (scope.of(identity), key.to_owned())).await?)
}

/// Audits the change of a setting of the tenant. A user's own are not audited.
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

fn tag_of(setting: &Setting) -> Result<Tag, Problem> {
    Ok(Tag::of(setting)?.modified(setting.updated_at))
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
