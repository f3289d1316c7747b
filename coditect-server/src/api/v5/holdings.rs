//! Sessions and conversations of a tenant's users, for owners and admins.
//!
//! Admins see owner, name and times, but no content. A resource is orphaned once its user is no
//! longer a member of the tenant. Admins can then transfer it to a member, themselves included, or
//! delete it, so that nothing can occupy the tenant's quota out of reach.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use coditect_auth::{Action, Identity};
use coditect_store::{
    Cursor, Entity, Page, Scan, Transaction,
    entity::{Index, Multi},
    model::{
        Conversation, ConversationId, Role, Session, SessionId, SessionType, TenantId, UserId,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{auth::client_info, sessions::TypeName};
use crate::{
    extract::caller,
    http::{HandlerResult, Query, Request, problem::Problem, respond},
    openapi::{self, Operation},
    state::App,
};

/// Number of conversations that one transaction transfers.
const TRANSFER_BATCH: usize = 100;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Transfer {
    /// A member of the tenant.
    #[serde(alias = "userId")]
    user_id: UserId,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantSession")]
struct SessionView<'a> {
    id: SessionId,
    name: &'a str,
    #[serde(rename = "type")]
    session_type: TypeName,
    user_id: UserId,
    /// Whether its user is no longer a member.
    orphaned: bool,
    workspace_path: Option<&'a str>,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    last_accessed_at: DateTime<Utc>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantConversation")]
struct ConversationView<'a> {
    id: ConversationId,
    title: &'a str,
    session_id: Option<SessionId>,
    user_id: UserId,
    /// Whether its user is no longer a member.
    orphaned: bool,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
}

/// Describes these operations for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    const SESSIONS: &str = "/api/v5/tenant/sessions";
    const CONVERSATIONS: &str = "/api/v5/tenant/conversations";
    const TRANSFER: &str =
        "Owners and admins only. The resource must be orphaned: its user is no longer a member.";
    let list = |path, id, summary| {
        Operation::get(path, id, summary)
            .details("Owners and admins only. A page may have fewer items than `limit`.")
            .query("user", openapi::id(), "Only those of this user.")
            .query("orphaned", openapi::flag(), "Only those whose user is no longer a member.")
    };
    vec![
        list(SESSIONS, "listTenantSessions", "List the sessions of the tenant, newest first")
            .page::<SessionView<'static>>(),
        Operation::post(
            "/api/v5/tenant/sessions/{id}/transfer",
            "transferTenantSession",
            "Transfer an orphaned session to a member",
        )
        .details(TRANSFER)
        .request::<Transfer>()
        .response::<SessionView<'static>>()
        .fails(&[409]),
        Operation::delete(
            "/api/v5/tenant/sessions/{id}",
            "deleteTenantSession",
            "Delete an orphaned session",
        )
        .details(TRANSFER)
        .no_content()
        .fails(&[409]),
        list(
            CONVERSATIONS,
            "listTenantConversations",
            "List the conversations of the tenant, newest first",
        )
        .page::<ConversationView<'static>>(),
        Operation::post(
            "/api/v5/tenant/conversations/{id}/transfer",
            "transferTenantConversation",
            "Transfer an orphaned conversation to a member",
        )
        .details(TRANSFER)
        .request::<Transfer>()
        .response::<ConversationView<'static>>()
        .fails(&[409]),
        Operation::delete(
            "/api/v5/tenant/conversations/{id}",
            "deleteTenantConversation",
            "Delete an orphaned conversation",
        )
        .details(TRANSFER)
        .no_content()
        .fails(&[409]),
    ]
}

/// The query of a list.
struct Wanted {
    limit: usize,
    cursor: Option<Cursor>,
    user: Option<UserId>,
    orphaned: bool,
}

impl Wanted {
    fn of(request: &Request) -> Result<Self, Problem> {
        let query = Query::of(request)?;
        Ok(Self {
            limit: query.limit()?,
            cursor: query.cursor()?,
            user: query.parsed("user")?,
            orphaned: query.flag("orphaned")?,
        })
    }

    /// Returns a page of `all`, each record with whether it is orphaned. With `orphaned`, returns
    /// only orphaned ones.
    async fn page<E: Holding>(
        &self,
        app: &App,
        tx: &Transaction,
        identity: &Identity,
        all: Scan<'_, E>,
    ) -> Result<Page<(E, bool)>, Problem> {
        identity.require_role(Role::Admin)?;
        let page = all.rev().page(self.limit, self.cursor.as_ref()).await;
        let Page { items, next, stopped } = page.map_err(Problem::of_page)?;
        let mut members = HashMap::new();
        for user in items.iter().map(E::user) {
            if let std::collections::hash_map::Entry::Vacant(entry) = members.entry(user) {
                entry.insert(app.auth.is_member(tx, identity.tenant_id, user).await?);
            }
        }
        let is_orphaned = |record: &E| !members.get(&record.user()).copied().unwrap_or_default();
        let items = items.into_iter().map(|record| {
            let orphaned = is_orphaned(&record);
            (record, orphaned)
        });
        let items = items.filter(|(_, orphaned)| *orphaned || !self.orphaned).collect();
        Ok(Page { items, next, stopped })
    }
}

/// A record that a user holds in a tenant.
trait Holding: Entity<Scope = TenantId> + 'static {
    /// The index of a user's.
    const OF_USER: &'static Index<Self, Multi<UserId>>;

    fn user(&self) -> UserId;
}

impl Holding for Session {
    const OF_USER: &'static Index<Self, Multi<UserId>> = &Self::BY_USER;

    fn user(&self) -> UserId {
        self.user_id
    }
}

impl Holding for Conversation {
    const OF_USER: &'static Index<Self, Multi<UserId>> = &Self::BY_USER;

    fn user(&self) -> UserId {
        self.user_id
    }
}

/// Handles `GET /tenant/sessions`. `user` selects the sessions of one user, `orphaned` the sessions
/// of former members.
pub(crate) async fn sessions(app: Arc<App>, request: Request) -> HandlerResult {
    let page = list::<Session>(&app, &request).await?;
    respond::page_of(&page, |(session, orphaned)| SessionView::new(session, *orphaned))
}

/// Handles `GET /tenant/conversations`, like [`sessions`].
pub(crate) async fn conversations(app: Arc<App>, request: Request) -> HandlerResult {
    let page = list::<Conversation>(&app, &request).await?;
    respond::page_of(&page, |(conversation, orphaned)| {
        ConversationView::new(conversation, *orphaned)
    })
}

/// Returns the page of a tenant's holdings that `request` asks for, each with whether it is
/// orphaned.
async fn list<E: Holding>(app: &App, request: &Request) -> Result<Page<(E, bool)>, Problem> {
    let caller = caller::authenticate(app, request).await?;
    let wanted = &Wanted::of(request)?;
    caller::transact(app, &caller, |tx, identity| async move {
        let tenant = identity.tenant_id;
        let all = match wanted.user {
            Some(user) => tx.scan(E::OF_USER, tenant, user),
            None => tx.list::<E>(tenant),
        };
        wanted.page(app, &tx, &identity, all).await
    })
    .await
}

/// Handles `POST /tenant/sessions/{id}/transfer`. Also transfers the conversations that the user
/// created in the session, and the one that it shows.
pub(crate) async fn transfer_session(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id: SessionId = request.parse_param("id")?;
    let Transfer { user_id } = request.json().await?;
    let (client, now) = (client_info(&request), app.clock.now());
    let (session, before) = caller::transact(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        async move {
            require_admin(&identity)?;
            let session = tx.get_required::<Session>(identity.tenant_id, id).await?;
            let before = session.user_id;
            require_transferable(app, &tx, &identity, (before, user_id)).await?;
            if before == user_id {
                return Ok((session, before));
            }
            let session = Session { user_id, updated_at: now, ..session };
            tx.update(&session).await?;
            if let Some(shown) = session.conversation_id
                && let Some(shown) = tx.get::<Conversation>(session.tenant_id, shown).await?
                && shown.user_id == before
            {
                tx.update(&Conversation { user_id, ..shown }).await?;
            }
            let of = (Action::SessionTransferred, &id);
            let details = json!({ "from": before, "to": user_id, "name": session.name });
            app.auth.audit(&tx, &identity, of, details, client).await?;
            Ok((session, before))
        }
    })
    .await?;
    if before != user_id {
        transfer_conversations(&app, &session, before).await?;
    }
    respond::ok(&SessionView::new(&session, false))
}

/// Transfers the conversations that `before` created in a session, in transactions of a hundred.
/// After a crash, the rest are still orphaned.
async fn transfer_conversations(
    app: &App,
    session: &Session,
    before: UserId,
) -> Result<(), Problem> {
    let (tenant, id, user_id) = (session.tenant_id, session.id, session.user_id);
    let mut next: Option<Cursor> = None;
    loop {
        let after = next.as_ref();
        let step = app.store.run_idempotent(|tx| async move {
            let session = tx.get::<Session>(tenant, id).await?;
            if session.is_none_or(|session| session.user_id != user_id) {
                return Ok(None);
            }
            let begun =
                tx.scan(&Conversation::BY_SESSION, tenant, id).page(TRANSFER_BATCH, after).await?;
            for conversation in begun.items {
                if conversation.user_id == before {
                    tx.update(&Conversation { user_id, ..conversation }).await?;
                }
            }
            Ok::<_, coditect_store::Error>(begun.next)
        });
        next = step.await?;
        if next.is_none() {
            return Ok(());
        }
    }
}

/// Handles `DELETE /tenant/sessions/{id}`. The content is deleted in the background.
pub(crate) async fn delete_session(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id: SessionId = request.parse_param("id")?;
    let (client, now) = (&client_info(&request), app.clock.now());
    caller::transact(&app, &caller, |tx, identity| {
        let app = &app;
        async move {
            require_admin(&identity)?;
            let tenant = identity.tenant_id;
            let session = tx.get_required::<Session>(tenant, id).await?;
            require_orphaned(app, &tx, tenant, session.user_id).await?;
            tx.delete_session(tenant, id, now).await?;
            let details = json!({ "user": session.user_id, "name": session.name });
            app.auth.audit(&tx, &identity, (Action::SessionDeleted, &id), details, client).await?;
            Ok(())
        }
    })
    .await?;
    app.upkeep.resume_deletions();
    Ok(respond::no_content())
}

/// Handles `POST /tenant/conversations/{id}/transfer`.
pub(crate) async fn transfer_conversation(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id: ConversationId = request.parse_param("id")?;
    let Transfer { user_id } = request.json().await?;
    let (client, now) = (client_info(&request), app.clock.now());
    let conversation = caller::transact(&app, &caller, |tx, identity| {
        let (app, client) = (&app, &client);
        async move {
            require_admin(&identity)?;
            let conversation = tx.get_required::<Conversation>(identity.tenant_id, id).await?;
            let before = conversation.user_id;
            require_transferable(app, &tx, &identity, (before, user_id)).await?;
            if before == user_id {
                return Ok(conversation);
            }
            let conversation = Conversation { user_id, updated_at: now, ..conversation };
            tx.update(&conversation).await?;
            let of = (Action::ConversationTransferred, &id);
            let details = json!({ "from": before, "to": user_id });
            app.auth.audit(&tx, &identity, of, details, client).await?;
            Ok(conversation)
        }
    })
    .await?;
    respond::ok(&ConversationView::new(&conversation, false))
}

/// Handles `DELETE /tenant/conversations/{id}`. Messages are deleted in the background.
pub(crate) async fn delete_conversation(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let id: ConversationId = request.parse_param("id")?;
    let (client, now) = (&client_info(&request), app.clock.now());
    caller::transact(&app, &caller, |tx, identity| {
        let app = &app;
        async move {
            require_admin(&identity)?;
            let tenant = identity.tenant_id;
            let conversation = tx.get_required::<Conversation>(tenant, id).await?;
            require_orphaned(app, &tx, tenant, conversation.user_id).await?;
            tx.delete_conversation(tenant, id, now).await?;
            let (of, user) = ((Action::ConversationDeleted, &id), conversation.user_id);
            app.auth.audit(&tx, &identity, of, json!({ "user": user }), client).await?;
            Ok(())
        }
    })
    .await?;
    app.upkeep.resume_deletions();
    Ok(respond::no_content())
}

/// Fails unless the caller is an owner or admin, signed in with a session.
fn require_admin(identity: &Identity) -> Result<(), Problem> {
    identity.session()?;
    Ok(identity.require_role(Role::Admin)?)
}

/// Fails if the new user is not a member, or if the present user is another member.
async fn require_transferable(
    app: &App,
    tx: &Transaction,
    identity: &Identity,
    (before, after): (UserId, UserId),
) -> Result<(), Problem> {
    if !app.auth.is_member(tx, identity.tenant_id, after).await? {
        let message = "is not a member of this tenant";
        return Err(Problem::invalid_field("VALIDATION_FAILED", "user_id", message));
    }
    if before == after {
        return Ok(());
    }
    require_orphaned(app, tx, identity.tenant_id, before).await
}

async fn require_orphaned(
    app: &App,
    tx: &Transaction,
    tenant: TenantId,
    user: UserId,
) -> Result<(), Problem> {
    if app.auth.is_member(tx, tenant, user).await? {
        return Err(Problem::conflict(
            "NOT_ORPHANED",
            "It is not orphaned: its user is a member of this tenant.",
        ));
    }
    Ok(())
}

impl<'a> SessionView<'a> {
    fn new(session: &'a Session, orphaned: bool) -> Self {
        let Session { id, name, session_type, user_id, workspace_path, .. } = session;
        let session_type: SessionType = *session_type;
        Self {
            id: *id,
            name,
            session_type: session_type.into(),
            user_id: *user_id,
            orphaned,
            workspace_path: workspace_path.as_deref(),
            created_at: session.created_at,
            updated_at: session.updated_at,
            last_accessed_at: session.last_accessed_at,
        }
    }
}

impl<'a> ConversationView<'a> {
    fn new(conversation: &'a Conversation, orphaned: bool) -> Self {
        let Conversation { id, title, session_id, user_id, .. } = conversation;
        Self {
            id: *id,
            title,
            session_id: *session_id,
            user_id: *user_id,
            orphaned,
            created_at: conversation.created_at,
            updated_at: conversation.updated_at,
        }
    }
}
