//! The WebSocket of a session: its live state, kept and told on.
//!
//! ```text
//!   client ── frames ──► connection ── one transaction a batch ──► store
//!     ▲                      │  ▲                                    │ watches
//!     └── ack, changed ──────┘  └────────── room (one a session) ◄───┘
//! ```
//!
//! What stays true:
//!
//! - Who may not open one is told so by a status, before the upgrade; who may not go on, by a close.
//! - An update is acknowledged when it is durable, once, in the order of the client's numbers. What was
//!   durable when a connection broke off is known to the next one, so nothing is lost or done twice.
//! - A client hears of every change that is not its own, at last of the newest, whichever server it was
//!   made at: a room watches the store, and connections compare versions.
//! - Nothing is queued for a client: while it does not read, nothing is read for it, and it is left when
//!   that takes long.

mod connection;
mod updates;

use std::sync::Arc;

use coditect_auth::{Scope, VerifiedCredential};
use coditect_store::model::{ClientSequence, SessionId};
use hyper::{HeaderMap, StatusCode, header};
use tracing::Instrument as _;
use uuid::Uuid;

use self::connection::Connection;
use super::{memory, state::Restoration};
use crate::{
    extract::caller::{self, Caller},
    http::{
        HandlerResult, Query, Request, origin,
        problem::{Problem, Unauthorized},
    },
    openapi::Operation,
    state::App,
    websocket::{
        handshake::{Opening, protocols},
        hub::Room,
    },
};

/// What is spoken.
const PROTOCOL: &str = "coditect.v1";
/// What a ticket is put behind, among the protocols.
const TICKET: &str = "ticket.";
/// The longest message, in bytes.
const MESSAGE_LIMIT_BYTES: usize = 256 * 1024;
/// The longest name that a client gives itself, in bytes.
const CLIENT_BYTES: usize = 64;
/// The most sockets of one session at a server.
const MOST_OF_A_SESSION: usize = 64;

/// What the API's description says of it.
pub(crate) fn operation() -> Operation {
    let text = || serde_json::json!({"type": "string"});
    Operation::get("/api/v5/sessions/{id}/ws", "openSocket", "Opens a WebSocket")
        .details(
            "Without an upgrade in the request it is refused with 426. A ticket may come among the \
            protocols, as `ticket.TICKET`.",
        )
        .query("client", text(), "What the client calls itself, over reconnects.")
        .query("token", text(), "An access token, if the operator allows it there.")
        .switches(&["Upgrade", "Sec-WebSocket-Protocol"])
        .fails(&[426, 429])
}

/// `GET /sessions/{id}/ws`: opens a socket.
pub(crate) async fn open(app: Arc<App>, request: Request) -> HandlerResult {
    refuse_foreign_page(&app, &request)?;
    let query = Query::of(&request)?;
    let credential = verified_credential(&app, &request, &query).await?;
    request.check_query()?;
    let id: SessionId = request.parse_param("id")?;
    let client = client(&query)?;
    let page = page(request.headers())?.map(str::to_owned);
    let speaks = protocols(request.headers()).any(|offered| offered == PROTOCOL);
    let opening = Opening::of(request, speaks.then_some(PROTOCOL))?;
    let permit = Arc::clone(&app.sockets.permits).try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("BUSY", crate::http::problem::SOON))?;
    let caller = Caller::by(credential, Scope::Read);

    // From here on no change is missed: the room is entered before the state is read.
    let (home, identity) = caller::run(&app, &caller, |tx, identity| async move {
        let session = crate::api::v5::owned::load_owned_session(&tx, &identity, id).await?;
        Ok((session.tenant_id, identity))
    })
    .await?;
    let room = Room::enter(&app.sockets, &app.store, home, id);
    if room.crowd() > MOST_OF_A_SESSION {
        let message = "The session has as many sockets as it may have.";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_SOCKETS", message));
    }
    let (connection, now) = (Uuid::now_v7(), app.clock.now());
    let (restoration, sequence) = memory::run(&app, &caller, |tx, identity, reader| {
        let client = &client;
        async move {
            let restoration = Restoration::of(&tx, &identity, id, &reader).await?;
            let of = (restoration.session().tenant_id, id);
            let sequence = ClientSequence::claim(&tx, of, client, connection, now).await?;
            Ok((restoration, sequence))
        }
    })
    .await?;
    let connection = Connection::new(&app, caller, (&identity, page), room, sequence);
    let (answer, socket) = opening.split(MESSAGE_LIMIT_BYTES);
    let work = async move {
        if let Some(socket) = socket.await {
            connection.run(socket, restoration).await;
        }
        drop(permit);
    };
    app.sockets.tasks().spawn(work.instrument(tracing::info_span!("socket", session = %id.0)));
    Ok(answer)
}

/// Refuses a page of an origin that may not: a browser sends along what it has of us, whoever asks.
fn refuse_foreign_page(app: &App, request: &Request) -> Result<(), Problem> {
    let Some(page) = request.headers().get(header::ORIGIN) else { return Ok(()) };
    let host = origin::host(request.headers(), request.uri());
    if page.to_str().is_ok_and(|page| origin::is_allowed(&app.config.allowed_origin, host, page)) {
        return Ok(());
    }
    let message = "Pages of this origin may not open a socket here.";
    Err(Problem::forbidden(message).with_code("ORIGIN_REFUSED"))
}

/// What whoever asks has shown: a ticket, or a token.
async fn verified_credential(
    app: &App,
    request: &Request,
    query: &Query,
) -> Result<VerifiedCredential, Problem> {
    let headers = request.headers();
    let shows_token = headers.contains_key(header::AUTHORIZATION);
    if let Some(ticket) = protocols(headers).find_map(|offered| offered.strip_prefix(TICKET)) {
        if shows_token {
            let message = "There must be a ticket or an Authorization header, not both.";
            return Err(Problem::bad_request("INVALID_REQUEST", message));
        }
        let page = page(headers)?;
        return Ok(app.auth.consume_ticket(ticket, page).await?);
    }
    if !shows_token
        && app.config.socket_token_in_query
        && let Some(token) = query.value("token")
    {
        return Ok(app.auth.verify_credential(token).await?);
    }
    Ok(caller::of(app, request).await?.into_credential())
}

/// The origin of the page that asks.
fn page(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let page = headers.get(header::ORIGIN).map(|page| page.to_str()).transpose();
    page.map_err(|_| Problem::unauthorized(Unauthorized::InvalidToken))
}

/// What the client calls itself, or is called from now on.
fn client(query: &Query) -> Result<String, Problem> {
    let Some(client) = query.value("client") else {
        return Ok(Uuid::now_v7().simple().to_string());
    };
    let is_sane = (1..=CLIENT_BYTES).contains(&client.len())
        && client.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_sane {
        return Ok(client.to_owned());
    }
    let message = format!("must be 1 to {CLIENT_BYTES} letters, digits, - and _");
    Err(Problem::bad_request("INVALID_QUERY", "The query is wrong.")
        .with_fields(vec![crate::http::problem::Field::new("client", message)]))
}
