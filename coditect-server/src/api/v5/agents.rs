//! Agents of a tenant. Owners and admins manage them; every member can use them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::Action;
use coditect_store::model::{Agent, AgentId, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{auth::client_info, checks};
use crate::{
    extract::{
        caller,
        idempotency::{Created, Idempotency},
        merge_patch::PatchField,
    },
    http::{
        HandlerResult, Query, Request,
        conditions::{ETag, Preconditions, with_etag},
        problem::Problem,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// Maximum number of agents of a tenant.
const MAX_AGENTS: i64 = 1_000;

/// Maximum length of a description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 2_000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewAgent {
    #[schemars(length(max = 200), regex(pattern = openapi::LINE))]
    name: String,
    #[schemars(length(max = 2_000))]
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    settings: Option<Map<String, Value>>,
}

/// A partial agent; missing members are unchanged.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AgentChange")]
struct Change {
    #[schemars(length(max = 200), regex(pattern = openapi::LINE))]
    #[serde(default)]
    #[schemars(with = "String")]
    name: PatchField<String>,
    #[schemars(length(max = 2_000))]
    #[serde(default)]
    description: PatchField<String>,
    #[serde(default)]
    settings: PatchField<Map<String, Value>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Agent")]
struct AgentView<'a> {
    id: AgentId,
    name: &'a str,
    description: &'a str,
    settings: &'a Value,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
}

/// Describes the operations of agents for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    const ALL: &str = "/api/v5/agents";
    const ONE: &str = "/api/v5/agents/{id}";
    vec![
        Operation::post(ALL, "createAgent", "Create an agent")
            .details("A tenant has at most 1,000 agents.")
            .request::<NewAgent>()
            .created::<AgentView<'static>>()
            .with_etag()
            .idempotent()
            .fails(&[409])
            .link("getAgent", "id", "/data/id")
            .link("patchAgent", "id", "/data/id")
            .link("deleteAgent", "id", "/data/id"),
        Operation::get(ALL, "listAgents", "List the agents of the tenant")
            .page::<AgentView<'static>>(),
        Operation::get(ONE, "getAgent", "Get an agent")
            .response::<AgentView<'static>>()
            .with_etag(),
        Operation::put(ONE, "putAgent", "Update an agent")
            .merge_patch::<Change>()
            .response::<AgentView<'static>>()
            .with_etag()
            .fails(&[409]),
        Operation::patch(ONE, "patchAgent", "Update an agent")
            .merge_patch::<Change>()
            .response::<AgentView<'static>>()
            .with_etag()
            .fails(&[409]),
        Operation::delete(ONE, "deleteAgent", "Delete an agent").no_content().with_etag(),
    ]
}

/// Handles `POST /agents`.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let new: NewAgent = request.json().await?;
    let name = checks::line("name", checks::NAME, &new.name)?;
    let description = checked_description(new.description.unwrap_or_default())?;
    let settings = checks::json(
        "settings",
        checks::SETTINGS_BYTES,
        Value::Object(new.settings.unwrap_or_default()),
    )?;
    let (id, now) = (AgentId::new(), app.clock.now());
    let (idempotency, client) = (Idempotency::of(&request)?, client_info(&request));
    idempotency
        .run(&app, &caller, |tx, identity| {
            let (app, client) = (&app, &client);
            let agent = Agent {
                id,
                tenant_id: identity.tenant_id,
                name: name.clone(),
                description: description.clone(),
                settings: settings.clone(),
                created_at: now,
                updated_at: now,
            };
            async move {
                identity.require_role(Role::Admin)?;
                agent.set_up(&tx, MAX_AGENTS).await?;
                let details = json!({ "name": agent.name });
                app.auth
                    .audit(&tx, &identity, (Action::AgentCreated, &id), details, client)
                    .await?;
                let location = format!("/api/v5/agents/{id}");
                Created::at(location, &AgentView::from(&agent), Some(&tag_of(&agent)?))
            }
        })
        .await
}

/// Handles `GET /agents`, in order of creation.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let page = caller::transact(&app, &caller, |tx, identity| {
        let cursor = cursor.as_ref();
        async move {
            let page = tx.list::<Agent>(identity.tenant_id).page(limit, cursor).await;
            page.map_err(Problem::of_page)
        }
    })
    .await?;
    respond::page_of(&page, AgentView::from)
}

/// Handles `GET /agents/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param::<AgentId>("id")?, Preconditions::of(&request)?);
    let agent = caller::transact(&app, &caller, |tx, identity| async move {
        Ok(tx.get_required::<Agent>(identity.tenant_id, id).await?)
    })
    .await?;
    conditions.read(respond::ok(&AgentView::from(&agent))?, &tag_of(&agent)?)
}

/// Handles `PUT` and `PATCH /agents/{id}`, both as a merge patch (RFC 7396).
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param::<AgentId>("id")?, Preconditions::of(&request)?);
    let change: Change = request.json().await?;
    let name = change.name.required("name")?;
    let name = name.check(|name| checks::line("name", checks::NAME, &name))?;
    let description = change.description.check(checked_description)?;
    let (settings, client, now) = (change.settings, client_info(&request), app.clock.now());
    let agent = caller::transact(&app, &caller, |tx, identity| {
        let (name, description, settings) = (&name, &description, &settings);
        let (app, client, conditions) = (&app, &client, &conditions);
        async move {
            let mut agent = tx.get_required::<Agent>(identity.tenant_id, id).await?;
            identity.require_role(Role::Admin)?;
            conditions.require(Some(&tag_of(&agent)?))?;
            name.change_required(&mut agent.name);
            description.change_or_clear(&mut agent.description);
            settings.merge_into(&mut agent.settings.0);
            agent.settings = checks::json("settings", checks::SETTINGS_BYTES, agent.settings.0)?;
            agent.updated_at = now;
            tx.update(&agent).await?;
            let details = json!({ "name": agent.name });
            app.auth.audit(&tx, &identity, (Action::AgentChanged, &id), details, client).await?;
            Ok(agent)
        }
    })
    .await?;
    with_etag(respond::ok(&AgentView::from(&agent))?, &tag_of(&agent)?)
}

/// Handles `DELETE /agents/{id}`. Messages of the agent are kept.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param::<AgentId>("id")?, Preconditions::of(&request)?);
    let (client, conditions) = (&client_info(&request), &conditions);
    caller::transact(&app, &caller, |tx, identity| {
        let app = &app;
        async move {
            let agent = tx.get_required::<Agent>(identity.tenant_id, id).await?;
            identity.require_role(Role::Admin)?;
            conditions.require(Some(&tag_of(&agent)?))?;
            Agent::remove(&tx, identity.tenant_id, id).await?;
            let details = json!({ "name": agent.name });
            app.auth.audit(&tx, &identity, (Action::AgentDeleted, &id), details, client).await?;
            Ok(())
        }
    })
    .await?;
    Ok(respond::no_content())
}

fn checked_description(text: String) -> Result<String, Problem> {
    checks::at_most("description", MAX_DESCRIPTION_CHARS, &text)?;
    Ok(text)
}

fn tag_of(agent: &Agent) -> Result<ETag, Problem> {
    Ok(ETag::of(agent)?.modified(agent.updated_at))
}

impl<'a> From<&'a Agent> for AgentView<'a> {
    fn from(agent: &'a Agent) -> Self {
        let Agent { id, name, description, settings, created_at, updated_at, .. } = agent;
        let settings = &settings.0;
        let (created_at, updated_at) = (*created_at, *updated_at);
        Self { id: *id, name, description, settings, created_at, updated_at }
    }
}
