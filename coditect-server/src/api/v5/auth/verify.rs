//! What others ask of identity: a reverse proxy, a service, a page that opens a WebSocket.

use std::sync::Arc;

use chrono::SecondsFormat;
use coditect_auth::{AuthMethod, Error, NewTicket, TICKET_LIFETIME};
use hyper::header::{self, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::caller;
use crate::{
    http::{HandlerResult, Query, Request, problem::Problem, respond},
    openapi::Operation,
    state::App,
};

/// A right that a reverse proxy requires of a caller.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Right {
    Ide,
}

/// How long the keys may be kept: a new one is published long before it signs.
const KEYS_KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ticket")]
struct TicketView<'a> {
    ticket: &'a str,
    /// Seconds.
    expires_in: i64,
}

pub(super) fn operations() -> Vec<Operation> {
    let keys = |path, id| {
        Operation::get(path, id, "The public keys, by `kid`")
            .open()
            .gives_document::<serde_json::Map<String, serde_json::Value>>()
    };
    vec![
        Operation::post("/api/v5/auth/tickets", "createTicket", "A ticket for a WebSocket")
            .gives::<TicketView<'static>>(),
        Operation::get("/api/v5/auth/verify", "verify", "Verify a caller for a reverse proxy")
            .details(
                "With `right=ide` it answers 403 to a caller without the right to use the IDE. \
                Other parameters are ignored: proxies pass on those of the request they ask about.",
            )
            .query("right", json!({"enum": ["ide"]}), "A right that the caller must have.")
            .ignores_query()
            .gives_nothing()
            .tells(&[
                "X-Auth-User",
                "X-Auth-Tenant",
                "X-Auth-Session",
                "X-Auth-Expires",
                "X-Auth-Scopes",
            ]),
        keys("/.well-known/jwks.json", "keys"),
        keys("/api/v5/.well-known/jwks.json", "keysOfTheApi"),
    ]
}

/// `GET /auth/verify`: verifies a caller for a reverse proxy (`auth_request`): 204, with the caller in
/// headers; 403 without the `right` that is asked for. It never spends a refresh token.
pub(crate) async fn verify(app: Arc<App>, request: Request) -> HandlerResult {
    // A token that has no scope here may have one where the request goes.
    let caller = caller::of(&app, &request).await?.for_anything();
    let right = Query::of(&request)?.parsed::<Right>("right")?;
    let identity = caller::run(&app, &caller, |tx, identity| {
        let app = &app;
        async move {
            if let Some(Right::Ide) = right {
                app.auth.require_ide_access(&tx, &identity).await?;
            }
            Ok(identity)
        }
    })
    .await?;
    let mut answer = respond::no_content();
    let mut tell = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).map_err(Problem::internal)?;
        answer.headers_mut().insert(HeaderName::from_static(name), value);
        Ok::<_, Problem>(())
    };
    tell("x-auth-user", &identity.user.id.to_string())?;
    tell("x-auth-tenant", &identity.tenant_id.to_string())?;
    let expires = caller.expires_at().unwrap_or_else(|| identity.expires_at());
    tell("x-auth-expires", &expires.to_rfc3339_opts(SecondsFormat::Secs, true))?;
    match &identity.method {
        AuthMethod::Session(session) => tell("x-auth-session", &session.id.to_string())?,
        AuthMethod::Personal(token) => tell("x-auth-scopes", &token.scopes.to_string())?,
    }
    Ok(answer)
}

/// `POST /auth/tickets`: a ticket for a WebSocket, for pages of the origin that asks.
pub(crate) async fn ticket(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let origin = match request.headers().get(header::ORIGIN) {
        None => None,
        Some(origin) => match origin.to_str() {
            Ok(origin) => Some(origin.to_owned()),
            Err(_) => return Err(Error::TicketInvalid.into()),
        },
    };
    let new = &NewTicket::new()?;
    caller::run(&app, &caller, |tx, identity| {
        let (app, origin) = (&app, origin.clone());
        async move { Ok(app.auth.create_ticket(&tx, &identity, new, origin).await?) }
    })
    .await?;
    let (ticket, expires_in) = (new.text().expose(), TICKET_LIFETIME.num_seconds());
    respond::ok(&TicketView { ticket, expires_in })
}

/// `GET /.well-known/jwks.json`: the public keys (RFC 7517). It is the document itself, without an
/// envelope: libraries read it.
pub(crate) async fn keys(app: Arc<App>, _: Request) -> HandlerResult {
    let mut answer = respond::document(&app.auth.jwks())?;
    answer.headers_mut().insert(header::CACHE_CONTROL, KEYS_KEPT);
    Ok(answer)
}
