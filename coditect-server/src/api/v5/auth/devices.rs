//! The caller's devices: logins with their clients.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::{Identity, MAX_SESSION_NAME_CHARS};
use coditect_store::{
    Transaction,
    model::{AuthSession, AuthSessionId, TenantId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{caller, client_info};
use crate::{
    api::v5::checks,
    http::{
        HandlerResult, Query, Request,
        conditions::{ETag, Preconditions},
        problem::Problem,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DeviceName")]
struct Naming {
    #[schemars(length(max = 100), regex(pattern = openapi::LINE))]
    /// New name; `null` removes it.
    name: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EndedDevices")]
struct Ended {
    ended: usize,
}

/// A login, as seen by its user.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Device")]
struct DeviceView<'a> {
    id: AuthSessionId,
    /// Entity tag for `If-Match`. It depends on the name and tenant, but not on the last use.
    etag: String,
    name: Option<&'a str>,
    /// Whether the request was made by this device.
    current: bool,
    /// Tenant that its tokens are for.
    tenant_id: TenantId,
    user_agent: Option<&'a str>,
    /// Address of the login; null if unknown.
    ip: Option<&'a str>,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    last_used_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    expires_at: DateTime<Utc>,
}

impl<'a> DeviceView<'a> {
    fn new(session: &'a AuthSession, asking: AuthSessionId) -> Self {
        Self {
            id: session.id,
            etag: tag_of(session).quoted(),
            name: session.name.as_deref(),
            current: session.id == asking,
            tenant_id: session.active_tenant(),
            user_agent: session.user_agent.as_deref(),
            ip: session.ip.as_deref(),
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            expires_at: session.expires_at(),
        }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    const ALL: &str = "/api/v5/auth/sessions";
    const ONE: &str = "/api/v5/auth/sessions/{id}";
    vec![
        Operation::get(ALL, "listDevices", "List my devices, most recently used first")
            .page::<DeviceView<'static>>(),
        Operation::delete(
            ALL,
            "revokeOtherDevices",
            "Revoke all of my device sessions except this one",
        )
        .details("`ended` is the number of revoked sessions.")
        .response::<Ended>(),
        Operation::patch(ONE, "renameDevice", "Name a device")
            .request::<Naming>()
            .response::<DeviceView<'static>>()
            .conditional(),
        Operation::delete(ONE, "revokeDevice", "Revoke a device session")
            .no_content()
            .conditional(),
    ]
}

/// Handles `GET /auth/sessions`: the caller's logins, most recently used first.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let (asking, devices) = caller::transact(&app, &caller, |tx, identity| {
        let (app, page) = (&app, (limit, cursor.as_ref()));
        async move {
            let asking = identity.session()?.id;
            let devices = app.auth.sessions(&tx, &identity, page).await;
            Ok((asking, devices.map_err(Problem::of_auth_page)?))
        }
    })
    .await?;
    respond::page_of(&devices, |device| DeviceView::new(device, asking))
}

/// Handles `PATCH /auth/sessions/{id}`.
pub(crate) async fn rename(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let Naming { name } = request.json().await?;
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let name =
        name.map(|name| checks::line("name", 1..=MAX_SESSION_NAME_CHARS, &name)).transpose()?;
    let (asking, named) = caller::transact(&app, &caller, |tx, identity| {
        let (app, name, conditions) = (&app, name.clone(), &conditions);
        async move {
            let asking = identity.session()?.id;
            require(&tx, &identity, id, conditions).await?;
            Ok((asking, app.auth.rename_session(&tx, &identity, id, name).await?))
        }
    })
    .await?;
    respond::ok(&DeviceView::new(&named, asking))
}

/// Handles `DELETE /auth/sessions/{id}`.
pub(crate) async fn revoke(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let client = &client_info(&request);
    caller::transact(&app, &caller, |tx, identity| {
        let (app, conditions) = (&app, &conditions);
        async move {
            require(&tx, &identity, id, conditions).await?;
            Ok(app.auth.revoke_session(&tx, &identity, id, client).await?)
        }
    })
    .await?;
    Ok(respond::no_content())
}

/// Checks the preconditions on one of the user's devices. If it does not exist or belongs to
/// another user, the operation itself fails.
async fn require(
    tx: &Transaction,
    identity: &Identity,
    id: AuthSessionId,
    conditions: &Preconditions,
) -> Result<(), Problem> {
    if conditions.is_unconditional() {
        return Ok(());
    }
    let session = tx.get::<AuthSession>(identity.user.tenant_id, id).await?;
    match session.filter(|session| session.user_id == identity.user.id) {
        Some(session) => conditions.require(Some(&tag_of(&session))),
        None => Ok(()),
    }
}

/// Returns the entity tag of a device, which does not depend on its last use.
fn tag_of(session: &AuthSession) -> ETag {
    let name = session.name.as_deref().unwrap_or_default();
    let tenant = session.active_tenant();
    ETag::digest(&[session.id.0.as_bytes(), name.as_bytes(), tenant.0.as_bytes()])
}

/// Handles `DELETE /auth/sessions`: ends all sessions except the caller's.
pub(crate) async fn revoke_others(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let client = &client_info(&request);
    let ended = caller::transact(&app, &caller, |tx, identity| {
        let app = &app;
        async move { Ok(app.auth.revoke_other_sessions(&tx, &identity, client).await?) }
    })
    .await?;
    app.upkeep.resume_deletions();
    respond::ok(&Ended { ended })
}
