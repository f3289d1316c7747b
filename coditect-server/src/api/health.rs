//! Liveness, readiness and health. Unauthenticated; the responses have no personal data.

use std::{sync::Arc, time::Duration};

use coditect_store::ErrorKind;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    http::{HandlerResult, Request, problem::Problem, respond},
    openapi::Operation,
    state::App,
};

/// Path of the liveness probe.
pub(crate) const ALIVE: &str = "/healthz";

/// `Retry-After` of a refusal.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Maximum time for the store to respond.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize, JsonSchema)]
struct Health {
    status: &'static str,
    version: &'static str,
    engine: &'static str,
    uptime_seconds: u64,
}

#[derive(Serialize, JsonSchema)]
struct Status {
    status: &'static str,
}

/// Describes the operations of health for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        Operation::get(ALIVE, "getLiveness", "Check whether the process is alive")
            .unauthenticated()
            .response::<Status>(),
        Operation::get("/readyz", "getReadiness", "Check whether the server accepts requests")
            .unauthenticated()
            .response::<Status>(),
        Operation::get(
            "/api/v5/health",
            "getHealth",
            "Get the version, engine and uptime of the server",
        )
        .unauthenticated()
        .response::<Health>(),
    ]
}

/// Handles `GET /api/v5/health`: version, engine and uptime; 503 if the store does not respond.
pub(crate) async fn show(app: Arc<App>, _: Request) -> HandlerResult {
    probe(&app).await?;
    respond::ok(&Health {
        status: "ok",
        version: app.version(),
        engine: app.engine(),
        uptime_seconds: app.uptime().as_secs(),
    })
}

/// Responds while the store is not open yet: the process is alive, but not ready.
pub(crate) fn without_store(template: &str) -> HandlerResult {
    match template {
        ALIVE => respond::ok(&Status { status: "alive" }),
        _ => Err(Problem::unavailable("STORE_UNAVAILABLE", RETRY_AFTER)),
    }
}

/// Handles `GET /healthz`: the process is alive, and a restart would not help. Returns 503 once the
/// engine has stopped after a failure, which only a restart resolves. A full disk is not such a
/// failure.
pub(crate) async fn alive(app: Arc<App>, _: Request) -> HandlerResult {
    match app.store.database().check_open() {
        Err(error) if error.kind() == ErrorKind::Closed && app.is_ready() => Err(error.into()),
        _ => respond::ok(&Status { status: "alive" }),
    }
}

/// Handles `GET /readyz`: the server accepts requests; 503 during shutdown or if the store does not
/// respond. The status is `read-only` while the disk is full: reads and deletions work, other
/// writes fail with 503.
pub(crate) async fn ready(app: Arc<App>, _: Request) -> HandlerResult {
    if !app.is_ready() {
        return Err(Problem::unavailable("STOPPING", RETRY_AFTER));
    }
    probe(&app).await?;
    let is_full = app.store.database().check_open().is_err();
    respond::ok(&Status { status: if is_full { "read-only" } else { "ready" } })
}

/// Checks that the store responds within the time of a usual probe.
async fn probe(app: &App) -> Result<(), Problem> {
    match timeout(PROBE_TIMEOUT, app.store.ping()).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::unavailable("STORE_UNAVAILABLE", RETRY_AFTER)),
    }
}
