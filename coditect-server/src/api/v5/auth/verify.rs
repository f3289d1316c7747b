//! Verification of callers for reverse proxies, public keys for other services, and tickets for
//! WebSockets.

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

/// A permission that a reverse proxy requires of a caller.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Right {
    Ide,
}

/// A new key is published long before it signs.
const JWKS_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ticket")]
struct TicketView<'a> {
    ticket: &'a str,
    /// Lifetime, in seconds.
    expires_in: i64,
}

pub(super) fn operations() -> Vec<Operation> {
    let keys = |path, id| {
        Operation::get(path, id, "Get the public keys of access tokens as a JWK Set")
            .unauthenticated()
            .response_document::<serde_json::Map<String, serde_json::Value>>()
            .example(json!({"keys": [{
                "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig",
                "kid": "0197c5d0-2b1e-7d40-8a6f-3c9e1f7b5d20",
                "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            }]}))
    };
    vec![
        Operation::post("/api/v5/auth/tickets", "createTicket", "Create a ticket for a WebSocket")
            .response::<TicketView<'static>>(),
        Operation::get(
            "/api/v5/auth/verify",
            "verifyCaller",
            "Verify a caller for a reverse proxy",
        )
        .details(
            "With `right=ide`, responds with 403 to a caller without access to the IDE. Other \
                 parameters are ignored, since proxies forward those of the original request.",
        )
        .query("right", json!({"enum": ["ide"]}), "Permission that the caller must have.")
        .ignores_query()
        .no_content()
        .response_headers(&[
            "X-Auth-User",
            "X-Auth-Tenant",
            "X-Auth-Session",
            "X-Auth-Expires",
            "X-Auth-Scopes",
        ]),
        keys("/.well-known/jwks.json", "getJwks"),
        keys("/api/v5/.well-known/jwks.json", "getApiJwks"),
    ]
}

/// Handles `GET /auth/verify` for a reverse proxy (`auth_request`): 204 with the caller in headers,
/// 403 without the required `right`. Never consumes a refresh token.
pub(crate) async fn verify(app: Arc<App>, request: Request) -> HandlerResult {
    // A token without a scope of this API may have one for the service behind the proxy.
    let caller = caller::authenticate(&app, &request).await?.for_anything();
    let right = Query::of(&request)?.parsed::<Right>("right")?;
    let identity = caller::transact(&app, &caller, |tx, identity| {
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
    let mut set_header = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).map_err(Problem::internal)?;
        answer.headers_mut().insert(HeaderName::from_static(name), value);
        Ok::<_, Problem>(())
    };
    set_header("x-auth-user", &identity.user.id.to_string())?;
    set_header("x-auth-tenant", &identity.tenant_id.to_string())?;
    let expires = caller.expires_at().unwrap_or_else(|| identity.expires_at());
    set_header("x-auth-expires", &expires.to_rfc3339_opts(SecondsFormat::Secs, true))?;
    match &identity.method {
        AuthMethod::Session(session) => set_header("x-auth-session", &session.id.to_string())?,
        AuthMethod::Personal(token) => set_header("x-auth-scopes", &token.scopes.to_string())?,
    }
    Ok(answer)
}

/// Handles `POST /auth/tickets`: creates a ticket, bound to the origin of the request.
pub(crate) async fn ticket(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let origin = match request.headers().get(header::ORIGIN) {
        None => None,
        Some(origin) => match origin.to_str() {
            Ok(origin) => Some(origin.to_owned()),
            Err(_) => return Err(Error::TicketInvalid.into()),
        },
    };
    let new = &NewTicket::new()?;
    caller::transact(&app, &caller, |tx, identity| {
        let (app, origin) = (&app, origin.clone());
        async move { Ok(app.auth.create_ticket(&tx, &identity, new, origin).await?) }
    })
    .await?;
    let (ticket, expires_in) = (new.text().expose(), TICKET_LIFETIME.num_seconds());
    respond::ok(&TicketView { ticket, expires_in })
}

/// Handles `GET /.well-known/jwks.json` (RFC 7517), without the envelope, as libraries expect it.
pub(crate) async fn keys(app: Arc<App>, _: Request) -> HandlerResult {
    let mut answer = respond::document(&app.auth.jwks())?;
    answer.headers_mut().insert(header::CACHE_CONTROL, JWKS_CACHE);
    Ok(answer)
}
