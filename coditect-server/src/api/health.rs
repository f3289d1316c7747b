//! Whether the server lives, and whether it can work. Anybody may ask; nothing personal is told.

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

/// Where it is asked whether the process lives.
pub(crate) const ALIVE: &str = "/healthz";

/// How soon to ask again after a refusal.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// What the API's description says of these.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        Operation::get(ALIVE, "alive", "Whether the process lives").open().gives::<Status>(),
        Operation::get("/readyz", "ready", "Whether new work is welcome").open().gives::<Status>(),
        Operation::get("/api/v5/health", "health", "What runs here, and for how long")
            .open()
            .gives::<Health>(),
    ]
}

/// `GET /api/v5/health`: what runs here and for how long; 503 when the store doesn't answer.
pub(crate) async fn show(app: Arc<App>, _: Request) -> HandlerResult {
    probe(&app).await?;
    respond::ok(&Health {
        status: "ok",
        version: app.version(),
        engine: app.engine(),
        uptime_seconds: app.uptime().as_secs(),
    })
}

/// What is answered while the store has not been there yet: that the process is alive, or nothing.
pub(crate) fn without_store(template: &str) -> HandlerResult {
    match template {
        ALIVE => respond::ok(&Status { status: "alive" }),
        _ => Err(Problem::unavailable("STORE_UNAVAILABLE", RETRY_AFTER)),
    }
}

/// `GET /healthz`: the process is alive, and a restart would not help. 503 once the engine has stopped
/// after a failure, which only a restart ends; a full disk, which a restart does not end, is no reason.
pub(crate) async fn alive(app: Arc<App>, _: Request) -> HandlerResult {
    match app.store.database().check_open() {
        Err(error) if error.kind() == ErrorKind::Closed && app.is_ready() => Err(error.into()),
        _ => respond::ok(&Status { status: "alive" }),
    }
}

/// `GET /readyz`: requests are welcome; 503 when the server stops or the store doesn't answer. The status
/// is `read-only` while the disk is full: reads and deletions are answered, other writes with 503.
pub(crate) async fn ready(app: Arc<App>, _: Request) -> HandlerResult {
    if !app.is_ready() {
        return Err(Problem::unavailable("STOPPING", RETRY_AFTER));
    }
    probe(&app).await?;
    let is_full = app.store.database().check_open().is_err();
    respond::ok(&Status { status: if is_full { "read-only" } else { "ready" } })
}

/// Asks everything that the server cannot work without, and waits for it no longer than a probe
/// would.
async fn probe(app: &App) -> Result<(), Problem> {
    match timeout(PATIENCE, app.store.probe()).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Problem::unavailable("STORE_UNAVAILABLE", RETRY_AFTER)),
    }
}
