//! Workspace sessions of a user. A session of another user is reported as not found.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use coditect_auth::Action;
use coditect_store::model::{
    ConversationId, Json, Session, SessionId, SessionType, TenantId, UserId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    auth::client_info,
    checks,
    owned::{load_owned_conversation, load_owned_session},
};
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

/// Maximum length of a path, in bytes, as on file systems.
const MAX_PATH_BYTES: usize = 4_096;
/// Minimum interval between writes of `last_accessed_at`.
const ACCESS_WRITE_INTERVAL: TimeDelta = TimeDelta::minutes(1);

/// Session types, as the API spells them.
const TYPES: [&str; 3] = ["workspace", "ai-studio", "theia"];
/// Session types, or none.
const OPTIONAL_TYPES: [Option<&str>; 4] =
    [Some("workspace"), Some("ai-studio"), Some("theia"), None];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewSession")]
struct NewSession {
    #[schemars(length(max = 200), regex(pattern = openapi::LINE))]
    name: String,
    #[schemars(extend("enum" = OPTIONAL_TYPES))]
    #[serde(default, rename = "type")]
    session_type: Option<TypeName>,
    #[schemars(regex(pattern = openapi::ABSOLUTE))]
    #[serde(default, alias = "workspacePath")]
    workspace_path: Option<String>,
    #[serde(default)]
    settings: Option<Map<String, Value>>,
}

/// A partial session; missing members are unchanged, `null` removes an optional one.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SessionChange")]
struct Change {
    #[schemars(length(max = 200), regex(pattern = openapi::LINE))]
    #[serde(default)]
    #[schemars(with = "String")]
    name: PatchField<String>,
    #[schemars(extend("enum" = TYPES))]
    #[serde(default, rename = "type")]
    #[schemars(with = "TypeName")]
    session_type: PatchField<TypeName>,
    #[schemars(regex(pattern = openapi::ABSOLUTE))]
    #[serde(default, alias = "workspacePath")]
    workspace_path: PatchField<String>,
    #[serde(default)]
    settings: PatchField<Map<String, Value>>,
    #[serde(default, alias = "conversationId")]
    conversation_id: PatchField<ConversationId>,
}

/// A session type, as the API spells it. Only strings are accepted: serde's derived enums would
/// also accept `{"theia": null}`.
#[derive(Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", try_from = "String")]
pub(super) enum TypeName {
    Workspace,
    AiStudio,
    Theia,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub(super) struct SessionView<'a> {
    id: SessionId,
    name: &'a str,
    #[serde(rename = "type")]
    session_type: TypeName,
    tenant_id: TenantId,
    user_id: UserId,
    workspace_path: Option<&'a str>,
    settings: &'a Value,
    conversation_id: Option<ConversationId>,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    last_accessed_at: DateTime<Utc>,
}

/// Describes the operations of sessions for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    const ONE: &str = "/api/v5/sessions/{id}";
    let create = |path, id| {
        Operation::post(path, id, "Create a workspace session")
            .request::<NewSession>()
            .created::<SessionView<'static>>()
            .with_etag()
            .idempotent()
            .link("getSession", "id", "/data/id")
            .link("restoreSession", "id", "/data/id")
            .link("patchSession", "id", "/data/id")
            .link("deleteSession", "id", "/data/id")
    };
    vec![
        create("/api/v5/sessions", "createSession"),
        create("/api/v5/sessions/create", "createSessionLegacy"),
        Operation::get("/api/v5/sessions", "listSessions", "List my sessions, newest first")
            .query(
                "type",
                json!({"enum": ["workspace", "ai-studio", "theia"]}),
                "Only sessions of this type.",
            )
            .query(
                "workspace_path",
                json!({"type": "string"}),
                "Only sessions with this workspace path.",
            )
            .page::<SessionView<'static>>(),
        Operation::get(ONE, "getSession", "Get a session")
            .details("Updates `last_accessed_at` at most once a minute.")
            .response::<SessionView<'static>>()
            .with_etag(),
        Operation::put(ONE, "putSession", "Update a session")
            .details("Same as PATCH: the body is merged into the session.")
            .merge_patch::<Change>()
            .response::<SessionView<'static>>()
            .with_etag(),
        Operation::patch(ONE, "patchSession", "Update a session")
            .merge_patch::<Change>()
            .response::<SessionView<'static>>()
            .with_etag(),
        Operation::delete(ONE, "deleteSession", "Delete a session and all its content")
            .no_content()
            .with_etag(),
    ]
}

/// Handles `POST /sessions`, and `POST /sessions/create` for older clients.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let new: NewSession = request.json().await?;
    let name = checks::line("name", checks::NAME, &new.name)?;
    let workspace_path = new.workspace_path.map(checked_path).transpose()?;
    let settings = checked_settings(Value::Object(new.settings.unwrap_or_default()))?;
    let session_type = new.session_type.map_or(SessionType::default(), SessionType::from);
    let (id, now) = (SessionId::new(), app.clock.now());
    let (idempotency, client) = (Idempotency::of(&request)?, client_info(&request));
    idempotency
        .run(&app, &caller, |tx, identity| {
            let (app, client) = (&app, &client);
            let session = Session {
                id,
                tenant_id: identity.tenant_id,
                user_id: identity.user.id,
                name: name.clone(),
                session_type,
                workspace_path: workspace_path.clone(),
                settings: settings.clone(),
                conversation_id: None,
                created_at: now,
                updated_at: now,
                last_accessed_at: now,
            };
            let limit = app.config.max_sessions;
            async move {
                session.insert(&tx, limit).await?;
                let details = json!({ "name": session.name });
                app.auth
                    .audit(&tx, &identity, (Action::SessionCreated, &id), details, client)
                    .await?;
                let location = format!("/api/v5/sessions/{id}");
                Created::at(location, &SessionView::from(&session), Some(&tag_of(&session)?))
            }
        })
        .await
}

/// Handles `GET /sessions`: the caller's sessions, newest first.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let limit = query.limit()?;
    let wanted_type = query.parsed::<TypeName>("type")?.map(SessionType::from);
    let wanted_path = query.value("workspace_path");
    let cursor = query.cursor()?;
    let page = caller::transact(&app, &caller, |tx, identity| {
        let (cursor, wanted_path) = (&cursor, wanted_path);
        async move {
            let of_user = tx.scan(&Session::BY_USER, identity.tenant_id, identity.user.id);
            let filter = format!("{wanted_type:?} {wanted_path:?}");
            let page = of_user
                .rev()
                .filter(filter, |session| {
                    wanted_type.is_none_or(|wanted| session.session_type == wanted)
                        && (wanted_path.is_none()
                            || session.workspace_path.as_deref() == wanted_path)
                })
                .page(limit, cursor.as_ref())
                .await;
            page.map_err(Problem::of_page)
        }
    })
    .await?;
    respond::page_of(&page, SessionView::from)
}

/// Handles `GET /sessions/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let now = app.clock.now();
    let session = caller::transact(&app, &caller, |tx, identity| async move {
        let session = load_owned_session(&tx, &identity, id).await?;
        if now - session.last_accessed_at < ACCESS_WRITE_INTERVAL {
            return Ok(session);
        }
        let session = Session { last_accessed_at: now, ..session };
        tx.update(&session).await?;
        Ok(session)
    })
    .await?;
    conditions.read(respond::ok(&SessionView::from(&session))?, &tag_of(&session)?)
}

/// Handles `PUT` and `PATCH /sessions/{id}`, both as a merge patch (RFC 7396).
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let change: Change = request.json().await?;
    let name = change.name.required("name")?;
    let name = name.check(|name| checks::line("name", checks::NAME, &name))?;
    let session_type = change.session_type.required("type")?.check(|name| Ok(name.into()))?;
    let workspace_path = change.workspace_path.check(checked_path)?;
    let settings = change.settings;
    let conversation_id = change.conversation_id;
    let now = app.clock.now();
    let session = caller::transact(&app, &caller, |tx, identity| {
        let (name, session_type, workspace_path) = (&name, &session_type, &workspace_path);
        let (settings, conversation_id, conditions) = (&settings, &conversation_id, &conditions);
        async move {
            let mut session = load_owned_session(&tx, &identity, id).await?;
            conditions.require(Some(&tag_of(&session)?))?;
            name.change_required(&mut session.name);
            session_type.change_required(&mut session.session_type);
            workspace_path.change(&mut session.workspace_path);
            if let PatchField::Value(conversation) = conversation_id {
                let found = load_owned_conversation(&tx, &identity, *conversation).await;
                found.map_err(|problem| {
                    problem.of_field("conversation_id", "is not one of your conversations")
                })?;
            }
            conversation_id.change(&mut session.conversation_id);
            settings.merge_into(&mut session.settings.0);
            session.settings = checked_settings(session.settings.0)?;
            session.updated_at = now;
            tx.update(&session).await?;
            Ok(session)
        }
    })
    .await?;
    with_etag(respond::ok(&SessionView::from(&session))?, &tag_of(&session)?)
}

/// Handles `DELETE /sessions/{id}`. The content is deleted in the background.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let (conditions, client, now) = (&conditions, &client_info(&request), app.clock.now());
    caller::transact(&app, &caller, |tx, identity| {
        let app = &app;
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            conditions.require(Some(&tag_of(&session)?))?;
            tx.delete_session(session.tenant_id, session.id, now).await?;
            let details = json!({ "name": session.name });
            app.auth.audit(&tx, &identity, (Action::SessionDeleted, &id), details, client).await?;
            Ok(())
        }
    })
    .await?;
    app.upkeep.resume_deletions();
    Ok(respond::no_content())
}

/// Returns the entity tag of a session, which does not depend on `last_accessed_at`.
fn tag_of(session: &Session) -> Result<ETag, Problem> {
    let tag = ETag::of(&Session { last_accessed_at: DateTime::UNIX_EPOCH, ..session.clone() })?;
    Ok(tag.modified(session.updated_at))
}

fn checked_path(path: String) -> Result<String, Problem> {
    if path.starts_with('/') && path.len() <= MAX_PATH_BYTES && !path.contains(char::is_control) {
        return Ok(path);
    }
    let message = format!(
        "must be an absolute path of at most {MAX_PATH_BYTES} bytes, without control characters"
    );
    Err(Problem::invalid_field("VALIDATION_FAILED", "workspace_path", &message))
}

fn checked_settings(settings: Value) -> Result<Json, Problem> {
    checks::json("settings", checks::SETTINGS_BYTES, settings)
}

impl TryFrom<String> for TypeName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "workspace" => Ok(Self::Workspace),
            "ai-studio" => Ok(Self::AiStudio),
            "theia" => Ok(Self::Theia),
            _ => Err("an unknown type, expected one of `workspace`, `ai-studio`, `theia`"),
        }
    }
}

impl From<TypeName> for SessionType {
    fn from(name: TypeName) -> Self {
        match name {
            TypeName::Workspace => Self::Workspace,
            TypeName::AiStudio => Self::AiStudio,
            TypeName::Theia => Self::Theia,
        }
    }
}

impl From<SessionType> for TypeName {
    fn from(session_type: SessionType) -> Self {
        match session_type {
            SessionType::Workspace => Self::Workspace,
            SessionType::AiStudio => Self::AiStudio,
            SessionType::Theia => Self::Theia,
        }
    }
}

impl<'a> From<&'a Session> for SessionView<'a> {
    fn from(session: &'a Session) -> Self {
        Self {
            id: session.id,
            name: &session.name,
            session_type: session.session_type.into(),
            tenant_id: session.tenant_id,
            user_id: session.user_id,
            workspace_path: session.workspace_path.as_deref(),
            settings: &session.settings.0,
            conversation_id: session.conversation_id,
            created_at: session.created_at,
            updated_at: session.updated_at,
            last_accessed_at: session.last_accessed_at,
        }
    }
}
