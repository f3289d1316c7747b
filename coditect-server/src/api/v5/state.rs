//! The state of a session: editor, terminals, memory, and client state.
//!
//! Each section is saved and tagged separately, so that frequent saves of one do not conflict with
//! others. PUT replaces a section, PATCH merges into it (RFC 7396); both honour `If-Match`.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use coditect_auth::Identity;
use coditect_store::{
    Transaction,
    engine::VALUE_SIZE_LIMIT,
    model::{
        ActiveFiles, ClientState, EditorState, Session, SessionId, SessionState, SessionStates,
        TerminalState,
    },
};
use futures_util::future::try_join;
use hyper::header::{self, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    memory::{self, Reader},
    owned::load_owned_session,
    parts::{Document, UpdateMode, checked_key},
    sessions::SessionView,
};
pub(crate) use crate::memories::Memory;
pub(crate) use crate::websocket::StateSection;
use crate::{
    extract::caller,
    http::{
        HandlerResult, Query, Request,
        conditions::{ETag, Preconditions, with_etag},
        output::Shared,
        problem::{Field, Problem},
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// Maximum number of client-state keys per session.
const MAX_CLIENT_STATE_KEYS: usize = 100;
/// Maximum number of client-state keys in one batch.
const MAX_BATCH_KEYS: usize = 50;

const SECRETS: &str = "Secrets are not stored: a variable whose name or value matches a rule for \
    secrets is dropped, unless the session's setting `kept_environment_vars` lists it, and each \
    secret in a title or command is replaced by `***`. The tenant's setting `secret_patterns` \
    extends the built-in rules.";

/// Everything that a page needs to restore a session.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Restoration")]
struct Restored<'a> {
    session: SessionView<'a>,
    editor_state: &'a EditorState,
    terminal_state: &'a TerminalState,
    active_files: ActiveFiles,
    conversation_id: Option<coditect_store::model::ConversationId>,
    client_state: Vec<KeyView<'a>>,
    /// Placeholder for the memory, which is JSON already; see [`SessionSnapshot::pieces`].
    #[schemars(with = "Map<String, Value>")]
    session_memory: (),
}

/// A key of client state.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClientStateKey")]
struct KeyView<'a> {
    key: &'a str,
    version: u64,
}

/// A saved version of client state.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClientStateVersion")]
struct SavedView<'a> {
    key: &'a str,
    version: u64,
    size: usize,
    #[serde(serialize_with = "respond::time")]
    saved_at: DateTime<Utc>,
}

/// The memory of agents: any JSON, by key.
#[derive(Deserialize, JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used; bodies are read as maps")]
#[schemars(rename = "Memory")]
struct MemoryBody(
    #[schemars(extend("propertyNames" = {
        "minLength": 1, "maxLength": 200, "pattern": openapi::PLAIN,
    }))]
    Map<String, Value>,
);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Batch {
    #[serde(default)]
    put: Vec<BatchEntry>,
    #[serde(default)]
    delete: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BatchEntry {
    #[schemars(length(min = 1, max = 200), regex(pattern = openapi::PLAIN))]
    key: String,
    #[schemars(regex(pattern = openapi::BASE64))]
    /// Content in Base64.
    content: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClientStateBatchResult")]
struct BatchDone {
    saved: Vec<BatchSaved>,
    deleted: Vec<String>,
}

#[derive(Clone, Serialize, JsonSchema)]
struct BatchSaved {
    key: String,
    version: u64,
}

impl<'a> From<&'a (String, u64)> for KeyView<'a> {
    fn from((key, version): &'a (String, u64)) -> Self {
        Self { key, version: *version }
    }
}

/// Everything that a page needs to restore a session, as of one read version.
pub(crate) struct SessionSnapshot {
    session: Session,
    states: SessionStates,
    memory: Memory,
    keys: Vec<(String, u64)>,
}

/// Describes the operations of session state for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    const KEPT: &str = "/api/v5/sessions/{id}/state/{key}";
    let version = || json!({"type": "integer", "minimum": 1});
    let mut operations = vec![
        Operation::get(
            "/api/v5/sessions/{id}/restore",
            "restoreSession",
            "Get all state of a session in one consistent read",
        )
        .response::<Restored<'static>>(),
        Operation::get(
            "/api/v5/sessions/{id}/state",
            "listClientState",
            "List the keys of client state",
        )
        .list::<KeyView<'static>>(),
        Operation::get(KEPT, "getClientState", "Get the client state of a key")
            .query("version", version(), "One of the last five versions; default is the newest.")
            .response_bytes(200)
            .with_etag(),
        Operation::put(KEPT, "putClientState", "Save the client state of a key")
            .request_bytes()
            .response::<SavedView<'static>>()
            .with_etag(),
        Operation::delete(
            KEPT,
            "deleteClientState",
            "Delete a key of client state with all its versions",
        )
        .no_content()
        .with_etag(),
        Operation::post(
            "/api/v5/sessions/{id}/state:batch",
            "batchClientState",
            "Save and delete several keys of client state atomically",
        )
        .request::<Batch>()
        .response::<BatchDone>(),
    ];
    operations.extend(of_part::<EditorState>(
        "/api/v5/sessions/{id}/editor",
        ["getEditor", "putEditor", "patchEditor"],
        ["Get the editor state", "Replace the editor state", "Update the editor state"],
    ));
    operations.extend(
        of_part::<TerminalState>(
            "/api/v5/sessions/{id}/terminal",
            ["getTerminal", "putTerminal", "patchTerminal"],
            ["Get the terminals", "Replace the terminals", "Update the terminals"],
        )
        .map(|operation| operation.details(SECRETS)),
    );
    operations.extend(of_part::<MemoryBody>(
        "/api/v5/sessions/{id}/memory",
        ["getMemory", "putMemory", "patchMemory"],
        ["Get the session memory", "Replace the session memory", "Update the session memory"],
    ));
    operations
}

fn of_part<T: JsonSchema + DeserializeOwned>(
    path: &'static str,
    [get, replace, update]: [&'static str; 3],
    [get_summary, replace_summary, update_summary]: [&'static str; 3],
) -> [Operation; 3] {
    [
        Operation::get(path, get, get_summary).response::<T>().with_etag(),
        Operation::put(path, replace, replace_summary).request::<T>().response::<T>().with_etag(),
        Operation::patch(path, update, update_summary)
            .merge_patch_of::<T>()
            .response::<T>()
            .with_etag(),
    ]
}

impl SessionSnapshot {
    /// Reads the caller's session `id`. Fails with 404 if the caller has no such session.
    pub(crate) async fn of(
        tx: &Transaction,
        identity: &Identity,
        id: SessionId,
        reader: &Reader,
    ) -> Result<Self, Problem> {
        let session = load_owned_session(tx, identity, id).await?;
        let states = SessionState::all(tx, session.tenant_id, session.id).await?;
        let memory = reader.read(tx, &session, false).await?;
        let keys = client_state_keys(tx, &session).await?;
        Ok(Self { session, states, memory, keys })
    }

    /// Returns the session.
    pub(crate) fn session(&self) -> &Session {
        &self.session
    }

    /// Returns the version of `part`; 0 if it was never saved.
    pub(crate) fn version(&self, part: StateSection) -> u64 {
        let states = &self.states;
        let version = match part {
            StateSection::Editor => states.editor.as_ref().map(|saved| saved.version),
            StateSection::Terminal => states.terminal.as_ref().map(|saved| saved.version),
            StateSection::Memory => states.memory.as_ref().map(|saved| saved.version),
        };
        version.unwrap_or(0)
    }

    /// Returns the bytes of the pieces that are charged already.
    pub(crate) fn shared(&self) -> Shared {
        self.memory.shared()
    }

    /// Returns the JSON in pieces, one of which is the memory.
    pub(crate) fn pieces(&self) -> Result<[Bytes; 3], Problem> {
        let (editor, terminal) = (EditorState::default(), TerminalState::default());
        let editor = self.states.editor.as_ref().map_or(&editor, |saved| &saved.state);
        let terminal = self.states.terminal.as_ref().map_or(&terminal, |saved| &saved.state);
        let restored = Restored {
            session: SessionView::from(&self.session),
            editor_state: editor,
            terminal_state: terminal,
            active_files: editor.active_files(),
            conversation_id: self.session.conversation_id,
            client_state: self.keys.iter().map(KeyView::from).collect(),
            session_memory: (),
        };
        let mut json = serde_json::to_vec(&restored).map_err(Problem::internal)?;
        // The memory, which is the last member, replaces the placeholder.
        json.truncate(json.len() - "null}".len());
        Ok([json.into(), self.memory.json(), Bytes::from_static(b"}")])
    }
}

/// Handles `GET /sessions/{id}/restore`.
pub(crate) async fn restore(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let restored = memory::run(&app, &caller, |tx, identity, reader| async move {
        SessionSnapshot::of(&tx, &identity, id, &reader).await
    })
    .await?;
    Ok(respond::ok_pieces(restored.pieces()?, restored.shared()))
}

/// Handles `GET /sessions/{id}/editor` and `/terminal`.
pub(crate) async fn show(app: Arc<App>, request: Request, part: Document) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let stored = caller::transact(&app, &caller, |tx, identity| async move {
        let session = load_owned_session(&tx, &identity, id).await?;
        Ok(part.read(&tx, &session).await?.0)
    })
    .await?;
    conditions.read(respond::ok(&stored.json)?, &stored.tag())
}

/// Handles `PUT` and `PATCH` of `/sessions/{id}/editor` and `/terminal`.
pub(crate) async fn save(
    app: Arc<App>,
    mut request: Request,
    part: Document,
    mode: UpdateMode,
) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let body: Map<String, Value> = request.json().await?;
    let now = app.clock.now();
    let stored = caller::transact(&app, &caller, |tx, identity| {
        let (conditions, body) = (&conditions, &body);
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let ((before, loaded), filter) =
                try_join(part.read(&tx, &session), part.secret_filter(&tx, &session)).await?;
            conditions.require(Some(&before.tag()))?;
            let after = part.parse(before.changed(mode, body), &filter)?;
            part.write(&tx, &loaded, (after, &filter), now).await
        }
    })
    .await?;
    with_etag(respond::ok(&stored.json)?, &stored.tag())
}

/// Handles `GET /sessions/{id}/state`: the keys of client state.
pub(crate) async fn list_client_state(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let keys = caller::transact(&app, &caller, |tx, identity| async move {
        let session = load_owned_session(&tx, &identity, id).await?;
        client_state_keys(&tx, &session).await
    })
    .await?;
    respond::list(&keys, KeyView::from)
}

/// Handles `GET /sessions/{id}/state/{key}`, with `version` for an older one.
pub(crate) async fn get_client_state(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let key = request.param("key")?.to_owned();
    let query = Query::of(&request)?;
    let version = query.value("version").map(str::parse::<u64>).transpose();
    let version = version.map_err(|_| Problem::not_found())?;
    let kept = caller::transact(&app, &caller, |tx, identity| {
        let key = &key;
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let (tenant, id) = (session.tenant_id, session.id);
            let kept = match version {
                None => ClientState::newest(&tx, tenant, id, key).await?,
                Some(version) => tx.get::<ClientState>(tenant, (id, key.clone(), version)).await?,
            };
            kept.ok_or_else(Problem::not_found)
        }
    })
    .await?;
    let tag = etag_of_client_state(kept.version, kept.saved_at);
    let mut answer = hyper::Response::new(respond::full(kept.content));
    let kind = HeaderValue::from_static("application/octet-stream");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    conditions.read(answer, &tag)
}

/// Handles `PUT /sessions/{id}/state/{key}` with any bytes.
pub(crate) async fn put_client_state(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let key = request.param("key")?.to_owned();
    checked_key(&key)?;
    let content = request.bytes(VALUE_SIZE_LIMIT).await?;
    let (now, quota) = (app.clock.now(), app.config.state_quota());
    let version = caller::transact(&app, &caller, |tx, identity| {
        let (key, content, conditions) = (&key, content.clone(), &conditions);
        let quota = &quota;
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let (tenant, id) = (session.tenant_id, session.id);
            let before = ClientState::newest(&tx, tenant, id, key).await?;
            let before = before.map(|before| (before.version, before.saved_at));
            let tag = before.map(|(version, saved_at)| etag_of_client_state(version, saved_at));
            conditions.require(tag.as_ref())?;
            let saved = (key.as_str(), before.map_or(0, |(version, _)| version), content);
            let version = ClientState::save_after(&tx, (tenant, id), saved, quota, now).await?;
            if version == 1 {
                require_room(&tx, &session).await?;
            }
            Ok(version)
        }
    })
    .await?;
    let view = SavedView { key: &key, version, size: content.len(), saved_at: now };
    with_etag(respond::ok(&view)?, &etag_of_client_state(version, now))
}

/// Handles `DELETE /sessions/{id}/state/{key}`, with all versions.
pub(crate) async fn delete_client_state(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let key = request.param("key")?.to_owned();
    caller::transact(&app, &caller, |tx, identity| {
        let (key, conditions) = (&key, &conditions);
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let (tenant, id) = (session.tenant_id, session.id);
            let before = ClientState::newest(&tx, tenant, id, key).await?;
            let before = before.ok_or_else(Problem::not_found)?;
            conditions.require(Some(&etag_of_client_state(before.version, before.saved_at)))?;
            ClientState::discard(&tx, tenant, id, key).await?;
            Ok(())
        }
    })
    .await?;
    Ok(respond::no_content())
}

/// Handles `POST /sessions/{id}/state:batch`, atomically.
pub(crate) async fn put_client_state_batch(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let batch: Batch = request.json().await?;
    if batch.put.len() + batch.delete.len() > MAX_BATCH_KEYS {
        let message = format!("a batch may have at most {MAX_BATCH_KEYS} keys");
        return Err(Problem::validation(vec![Field::new("put", message)]));
    }
    let mut contents = Vec::new();
    for (at, BatchEntry { key, content }) in batch.put.iter().enumerate() {
        checked_key(key)?;
        let content = BASE64_STANDARD.decode(content).map_err(|_| {
            Problem::validation(vec![Field::new(format!("put[{at}].content"), "must be Base64")])
        })?;
        contents.push((key.clone(), content));
    }
    let (delete, now) = (&batch.delete, app.clock.now());
    let quota = &app.config.state_quota();
    let done = caller::transact(&app, &caller, |tx, identity| {
        let contents = &contents;
        async move {
            let session = load_owned_session(&tx, &identity, id).await?;
            let (tenant, id) = (session.tenant_id, session.id);
            let mut done = BatchDone { saved: Vec::new(), deleted: Vec::new() };
            for (key, content) in contents {
                let newest = ClientState::newest(&tx, tenant, id, key).await?;
                let before = newest.map_or(0, |newest| newest.version);
                let saved = (key.as_str(), before, content.clone());
                let version = ClientState::save_after(&tx, (tenant, id), saved, quota, now).await?;
                done.saved.push(BatchSaved { key: key.clone(), version });
            }
            if done.saved.iter().any(|saved| saved.version == 1) {
                require_room(&tx, &session).await?;
            }
            for key in delete {
                if ClientState::discard(&tx, tenant, id, key).await? {
                    done.deleted.push(key.clone());
                }
            }
            Ok(done)
        }
    })
    .await?;
    respond::ok(&done)
}

/// Returns the client-state keys with their newest versions; at most one key more than the maximum.
async fn client_state_keys(
    tx: &Transaction,
    session: &Session,
) -> Result<Vec<(String, u64)>, Problem> {
    let (tenant, session) = (session.tenant_id, session.id);
    Ok(ClientState::keys(tx, tenant, session, None, MAX_CLIENT_STATE_KEYS + 1).await?)
}

/// Fails if the session has more client-state keys than allowed, counting those just written.
async fn require_room(tx: &Transaction, session: &Session) -> Result<(), Problem> {
    if client_state_keys(tx, session).await?.len() > MAX_CLIENT_STATE_KEYS {
        let message =
            format!("A session may have at most {MAX_CLIENT_STATE_KEYS} keys of client state.");
        return Err(Problem::too_large(message));
    }
    Ok(())
}

/// Returns the entity tag of client state. It includes the time, since versions restart after a
/// deletion.
fn etag_of_client_state(version: u64, saved_at: DateTime<Utc>) -> ETag {
    ETag::new(format!("{version}-{}", saved_at.timestamp_micros())).modified(saved_at)
}
