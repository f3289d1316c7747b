//! Conversations and their messages. Like sessions, they belong to one user.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::Action;
use coditect_store::{
    engine::Order,
    model::{
        Agent, AgentId, Author, Conversation, ConversationId, Message, MessageId, SessionId, UserId,
    },
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
    config::FILE_POLICY,
    extract::{
        caller,
        idempotency::{Created, Idempotency},
        merge_patch::PatchField,
    },
    http::{
        HandlerResult, Query, Request,
        conditions::{ETag, Preconditions, with_etag},
        problem::{Field, Problem},
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// Maximum length of a title, in characters.
const MAX_TITLE_CHARS: usize = 200;
/// Maximum length of a message, in bytes.
const MAX_CONTENT_BYTES: usize = 64 << 10;
/// Maximum size of a message's metadata as JSON, in bytes.
const MAX_METADATA_BYTES: usize = 16 << 10;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewConversation {
    #[schemars(length(max = 200), regex(pattern = openapi::PLAIN))]
    #[serde(default)]
    title: Option<String>,
    #[serde(default, alias = "sessionId")]
    session_id: Option<SessionId>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ConversationChange")]
struct Change {
    #[schemars(length(max = 200), regex(pattern = openapi::PLAIN))]
    #[serde(default)]
    title: PatchField<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    #[schemars(length(min = 1))]
    content: String,
    /// Agent that is the author of the message; the caller by default.
    #[serde(default, alias = "agentId")]
    agent_id: Option<AgentId>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
}

/// Order of a list of messages.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum OrderName {
    Asc,
    Desc,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Conversation")]
struct ConversationView<'a> {
    id: ConversationId,
    title: &'a str,
    session_id: Option<SessionId>,
    user_id: UserId,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Message")]
struct MessageView<'a> {
    id: MessageId,
    conversation_id: ConversationId,
    author: AuthorView,
    content: &'a str,
    metadata: &'a Value,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Author")]
#[serde(tag = "type", rename_all = "snake_case")]
enum AuthorView {
    User { id: UserId },
    Agent { id: AgentId },
    System,
}

/// Describes the operations of conversations for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    const ALL: &str = "/api/v5/conversations";
    const ONE: &str = "/api/v5/conversations/{id}";
    const MESSAGES: &str = "/api/v5/conversations/{id}/messages";
    vec![
        Operation::post(ALL, "createConversation", "Create a conversation")
            .request::<NewConversation>()
            .created::<ConversationView<'static>>()
            .with_etag()
            .idempotent()
            .link("getConversation", "id", "/data/id")
            .link("createMessage", "id", "/data/id")
            .link("listMessages", "id", "/data/id")
            .link("deleteConversation", "id", "/data/id"),
        Operation::get(ALL, "listConversations", "List my conversations, newest first")
            .query("session_id", openapi::id(), "Only conversations of this session.")
            .page::<ConversationView<'static>>(),
        Operation::get(ONE, "getConversation", "Get a conversation")
            .response::<ConversationView<'static>>()
            .with_etag(),
        Operation::put(ONE, "putConversation", "Update a conversation")
            .merge_patch::<Change>()
            .response::<ConversationView<'static>>()
            .with_etag(),
        Operation::patch(ONE, "patchConversation", "Update a conversation")
            .merge_patch::<Change>()
            .response::<ConversationView<'static>>()
            .with_etag(),
        Operation::delete(ONE, "deleteConversation", "Delete a conversation and its messages")
            .no_content()
            .with_etag(),
        Operation::post(MESSAGES, "createMessage", "Add a message to a conversation")
            .request::<NewMessage>()
            .created::<MessageView<'static>>()
            .idempotent(),
        Operation::get(MESSAGES, "listMessages", "List the messages of a conversation")
            .query(
                "order",
                json!({"enum": ["asc", "desc"]}),
                "`asc` (default) is oldest first, `desc` newest first.",
            )
            .page::<MessageView<'static>>(),
    ]
}

/// Handles `POST /conversations`. The conversation may belong to one of the caller's sessions.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let new: NewConversation = request.json().await?;
    let title = checked_title(&new.title.unwrap_or_default())?;
    let (id, session_id, now) = (ConversationId::new(), new.session_id, app.clock.now());
    let (idempotency, client) = (Idempotency::of(&request)?, client_info(&request));
    idempotency
        .run(&app, &caller, |tx, identity| {
            let (app, client) = (&app, &client);
            let conversation = Conversation {
                id,
                tenant_id: identity.tenant_id,
                user_id: identity.user.id,
                session_id,
                title: title.clone(),
                created_at: now,
                updated_at: now,
            };
            async move {
                if let Some(session) = session_id {
                    let found = load_owned_session(&tx, &identity, session).await;
                    found.map_err(|problem| {
                        problem.of_field("session_id", "is not one of your sessions")
                    })?;
                }
                conversation.insert(&tx).await?;
                let of = (Action::ConversationCreated, &id);
                app.auth.audit(&tx, &identity, of, json!({}), client).await?;
                let (location, tag) =
                    (format!("/api/v5/conversations/{id}"), tag_of(&conversation)?);
                Created::at(location, &ConversationView::from(&conversation), Some(&tag))
            }
        })
        .await
}

/// Handles `GET /conversations`: the caller's conversations, newest first; with `session_id`, those
/// of a session.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let session = query.parsed::<SessionId>("session_id")?;
    let page = caller::transact(&app, &caller, |tx, identity| {
        let cursor = cursor.as_ref();
        async move {
            let (tenant, user) = (identity.tenant_id, identity.user.id);
            let conversations = match session {
                Some(session) => tx.scan(&Conversation::BY_SESSION, tenant, session),
                None => tx.scan(&Conversation::BY_USER, tenant, user),
            };
            let mine = conversations.filter(format!("of {user}"), move |it| it.user_id == user);
            mine.rev().page(limit, cursor).await.map_err(Problem::of_page)
        }
    })
    .await?;
    respond::page_of(&page, ConversationView::from)
}

/// Handles `GET /conversations/{id}`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let conversation = caller::transact(&app, &caller, |tx, identity| async move {
        load_owned_conversation(&tx, &identity, id).await
    })
    .await?;
    let tag = tag_of(&conversation)?;
    conditions.read(respond::ok(&ConversationView::from(&conversation))?, &tag)
}

/// Handles `PUT` and `PATCH /conversations/{id}`.
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let Change { title } = request.json().await?;
    let (title, now) = (title.check(|title| checked_title(&title))?, app.clock.now());
    let conversation = caller::transact(&app, &caller, |tx, identity| {
        let (title, conditions) = (&title, &conditions);
        async move {
            let mut conversation = load_owned_conversation(&tx, &identity, id).await?;
            conditions.require(Some(&tag_of(&conversation)?))?;
            title.change_or_clear(&mut conversation.title);
            conversation.updated_at = now;
            tx.update(&conversation).await?;
            Ok(conversation)
        }
    })
    .await?;
    with_etag(respond::ok(&ConversationView::from(&conversation))?, &tag_of(&conversation)?)
}

/// Handles `DELETE /conversations/{id}`. Messages are deleted in the background.
pub(crate) async fn delete(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, conditions) = (request.parse_param("id")?, Preconditions::of(&request)?);
    let (conditions, client, now) = (&conditions, &client_info(&request), app.clock.now());
    caller::transact(&app, &caller, |tx, identity| {
        let app = &app;
        async move {
            let conversation = load_owned_conversation(&tx, &identity, id).await?;
            conditions.require(Some(&tag_of(&conversation)?))?;
            tx.delete_conversation(conversation.tenant_id, id, now).await?;
            let of = (Action::ConversationDeleted, &id);
            app.auth.audit(&tx, &identity, of, json!({}), client).await?;
            Ok(())
        }
    })
    .await?;
    app.upkeep.resume_deletions();
    Ok(respond::no_content())
}

/// Handles `POST /conversations/{id}/messages`, as the caller or as an agent of the tenant.
pub(crate) async fn say(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let conversation_id = request.parse_param("id")?;
    let new: NewMessage = request.json().await?;
    let content = new.content;
    if !(1..=MAX_CONTENT_BYTES).contains(&content.len()) {
        let message = format!("must be 1 to {MAX_CONTENT_BYTES} bytes long");
        return Err(Problem::invalid_field("VALIDATION_FAILED", "content", &message));
    }
    let metadata = Value::Object(new.metadata.unwrap_or_default());
    let metadata = checks::json("metadata", MAX_METADATA_BYTES, metadata)?;
    let (id, now) = (MessageId::new(), app.clock.now());
    let idempotency = Idempotency::of(&request)?;
    idempotency
        .run(&app, &caller, |tx, identity| {
            let (content, metadata) = (content.clone(), metadata.clone());
            async move {
                load_owned_conversation(&tx, &identity, conversation_id).await?;
                let tenant_id = identity.tenant_id;
                let author = match new.agent_id {
                    None => Author::User(identity.user.id),
                    Some(agent) => {
                        let field = Field::new("agent_id", "is not an agent of this tenant");
                        tx.get::<Agent>(tenant_id, agent)
                            .await?
                            .ok_or_else(|| Problem::validation(vec![field]))?;
                        Author::Agent(agent)
                    }
                };
                let (created_at, updated_at) = (now, now);
                let message = Message {
                    id,
                    tenant_id,
                    conversation_id,
                    author,
                    content,
                    metadata,
                    created_at,
                    updated_at,
                };
                message.insert(&tx, FILE_POLICY.bytes).await?;
                let location = format!("/api/v5/conversations/{conversation_id}/messages");
                Created::at(location, &MessageView::from(&message), None)
            }
        })
        .await
}

/// Handles `GET /conversations/{id}/messages`, oldest first or with `order=desc` newest first.
pub(crate) async fn messages(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id = request.parse_param("id")?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let order = query.parsed("order")?.map_or(Order::Ascending, |order| match order {
        OrderName::Asc => Order::Ascending,
        OrderName::Desc => Order::Descending,
    });
    let page = caller::transact(&app, &caller, |tx, identity| {
        let cursor = cursor.as_ref();
        async move {
            let conversation = load_owned_conversation(&tx, &identity, id).await?;
            let said = tx.events::<Message>(conversation.tenant_id, id, ..);
            said.order(order).page(limit, cursor).await.map_err(Problem::of_page)
        }
    })
    .await?;
    respond::page_of(&page, |event| MessageView::from(&event.record))
}

fn checked_title(title: &str) -> Result<String, Problem> {
    checks::line("title", 0..=MAX_TITLE_CHARS, title)
}

fn tag_of(conversation: &Conversation) -> Result<ETag, Problem> {
    Ok(ETag::of(conversation)?.modified(conversation.updated_at))
}

impl<'a> From<&'a Conversation> for ConversationView<'a> {
    fn from(conversation: &'a Conversation) -> Self {
        let Conversation { id, user_id, session_id, title, created_at, updated_at, .. } =
            conversation;
        Self {
            id: *id,
            title,
            session_id: *session_id,
            user_id: *user_id,
            created_at: *created_at,
            updated_at: *updated_at,
        }
    }
}

impl<'a> From<&'a Message> for MessageView<'a> {
    fn from(message: &'a Message) -> Self {
        let Message { id, conversation_id, author, content, metadata, created_at, .. } = message;
        Self {
            id: *id,
            conversation_id: *conversation_id,
            author: match *author {
                Author::User(id) => AuthorView::User { id },
                Author::Agent(id) => AuthorView::Agent { id },
                Author::System => AuthorView::System,
            },
            content,
            metadata: &metadata.0,
            created_at: *created_at,
        }
    }
}
