//! WebSockets of sessions: live updates of a session's state, stored and sent to its other clients.
//!
//! ```text
//!   client ── frames ──► connection ── one transaction per batch ──► store
//!     ▲                      │  ▲                                      │ watches
//!     └── ack, changed ──────┘  └────────── room (one per session) ◄───┘
//! ```
//!
//! **Invariants.**
//!
//! - A client that may not open a socket gets an HTTP status before the upgrade; one that loses
//!   permission gets a Close frame.
//! - An update is acknowledged once it is durable, once, in the order of the client's sequence
//!   numbers. A new connection of the client learns which updates are durable, so that none is lost
//!   or applied twice.
//! - A client receives the newest state after every change by others, at whichever server: a room
//!   watches the store, and connections compare versions. Intermediate states may be skipped.
//! - No messages are queued for a client. A connection does not read while it writes, and a client
//!   that does not read for too long is disconnected.

mod connection;
mod updates;

use std::sync::Arc;

use coditect_auth::{Scope, VerifiedCredential};
use coditect_store::model::{ClientSequence, SessionId};
use hyper::{HeaderMap, StatusCode, header};
use tracing::Instrument as _;
use uuid::Uuid;

use self::connection::Connection;
use super::{memory, state::SessionSnapshot};
use crate::{
    extract::caller::{self, Caller},
    http::{
        HandlerResult, Query, Request, origin,
        problem::{Problem, Unauthorized},
    },
    openapi::Operation,
    state::App,
    websocket::{
        handshake::{Handshake, protocols},
        hub::SessionHub,
        inbound::Inbound,
    },
};

/// Name of the subprotocol.
const PROTOCOL: &str = "coditect.v1";
/// Prefix of a ticket among the offered subprotocols.
const TICKET: &str = "ticket.";
/// Maximum size of a message, in bytes.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;
/// Maximum length of a client's own id, in bytes.
const MAX_CLIENT_ID_BYTES: usize = 64;
/// Maximum number of sockets per session and server.
const MAX_SOCKETS_PER_SESSION: usize = 64;

/// Describes the operation for the OpenAPI document.
pub(crate) fn operation() -> Operation {
    let text = || serde_json::json!({"type": "string"});
    Operation::get("/api/v5/sessions/{id}/ws", "openWebSocket", "Open a WebSocket for a session")
        .details(
            "A request without an upgrade is refused with 426. A ticket is sent as the subprotocol \
             `ticket.TICKET`.",
        )
        .query("client", text(), "Id of the client, stable across reconnects.")
        .query("token", text(), "Access token, if the operator allows it in the URL.")
        .switches_protocols(&["Upgrade", "Sec-WebSocket-Protocol"])
        .fails(&[426, 429])
}

/// Handles `GET /sessions/{id}/ws`.
pub(crate) async fn open(app: Arc<App>, request: Request) -> HandlerResult {
    refuse_foreign_page(&app, &request)?;
    let query = Query::of(&request)?;
    let credential = verified_credential(&app, &request, &query).await?;
    request.check_query()?;
    let id: SessionId = request.parse_param("id")?;
    let client = client(&query)?;
    let page = page(request.headers())?.map(str::to_owned);
    let speaks = protocols(request.headers()).any(|offered| offered == PROTOCOL);
    let opening = Handshake::of(request, speaks.then_some(PROTOCOL))?;
    let permit = Arc::clone(&app.sockets.permits).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("BUSY", crate::http::problem::SOON))?;
    let caller = Caller::by(credential, Scope::Read);

    // The room is entered before the state is read, so that no later change is missed.
    let (home, identity) = caller::transact(&app, &caller, |tx, identity| async move {
        let session = crate::api::v5::owned::load_owned_session(&tx, &identity, id).await?;
        Ok((session.tenant_id, identity))
    })
    .await?;
    let hub = SessionHub::enter(&app.sockets, &app.store, home, id);
    if hub.len() > MAX_SOCKETS_PER_SESSION {
        let message = "The session has reached its maximum number of sockets.";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_SOCKETS", message));
    }
    let (connection, now) = (Uuid::now_v7(), app.clock.now());
    let (restoration, sequence) = memory::run(&app, &caller, |tx, identity, reader| {
        let client = &client;
        async move {
            let restoration = SessionSnapshot::of(&tx, &identity, id, &reader).await?;
            let of = (restoration.session().tenant_id, id);
            let sequence = ClientSequence::claim(&tx, of, client, connection, now).await?;
            Ok((restoration, sequence))
        }
    })
    .await?;
    let user = app.requests.user(identity.user.id);
    let inbound = Inbound::new(Arc::clone(&app.requests), user);
    let connection = Connection::new(&app, caller, (&identity, page), hub, sequence);
    let (answer, socket) = opening.charged(inbound).split(MAX_MESSAGE_BYTES);
    let work = async move {
        if let Some(socket) = socket.await {
            connection.run(socket, restoration).await;
        }
        drop(permit);
    };
    app.sockets.tasks().spawn(work.instrument(tracing::info_span!("socket", session = %id.0)));
    Ok(answer)
}

/// Refuses a page of an origin that is not allowed, since browsers send credentials for any page.
fn refuse_foreign_page(app: &App, request: &Request) -> Result<(), Problem> {
    let Some(page) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let host = origin::host(request.headers(), request.uri());
    if page.to_str().is_ok_and(|page| origin::is_allowed(&app.config.allowed_origin, host, page)) {
        return Ok(());
    }
    let message = "Pages of this origin may not open a WebSocket here.";
    Err(Problem::forbidden(message).with_code("ORIGIN_REFUSED"))
}

/// Returns the credential of the request: a ticket or a token.
async fn verified_credential(
    app: &App,
    request: &Request,
    query: &Query,
) -> Result<VerifiedCredential, Problem> {
    let headers = request.headers();
    let shows_token = headers.contains_key(header::AUTHORIZATION);
    if let Some(ticket) = protocols(headers).find_map(|offered| offered.strip_prefix(TICKET)) {
        if shows_token {
            let message = "Send either a ticket or an Authorization header, not both.";
            return Err(Problem::bad_request("INVALID_REQUEST", message));
        }
        let page = page(headers)?;
        return Ok(app.auth.consume_ticket(ticket, page).await?);
    }
    if !shows_token
        && app.config.websocket_token_in_query
        && let Some(token) = query.value("token")
    {
        return Ok(app.auth.verify_credential(token).await?);
    }
    Ok(caller::authenticate(app, request).await?.into_credential())
}

/// Returns the origin of the page that made the request.
fn page(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let page = headers.get(header::ORIGIN).map(|page| page.to_str()).transpose();
    page.map_err(|_| Problem::unauthorized(Unauthorized::InvalidToken))
}

/// Returns the id that the client sent, or a new one.
fn client(query: &Query) -> Result<String, Problem> {
    let Some(client) = query.value("client") else {
        return Ok(Uuid::now_v7().simple().to_string());
    };
    let is_sane = (1..=MAX_CLIENT_ID_BYTES).contains(&client.len())
        && client.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_sane {
        return Ok(client.to_owned());
    }
    let message = format!("must have 1 to {MAX_CLIENT_ID_BYTES} letters, digits, - or _");
    Err(Problem::bad_request("INVALID_QUERY", "The query is invalid.")
        .with_fields(vec![crate::http::problem::Field::new("client", message)]))
}
