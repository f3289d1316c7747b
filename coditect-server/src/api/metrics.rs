//! `GET /metrics`, for Prometheus: see [`telemetry`].

use std::sync::Arc;

use hyper::{
    Response,
    header::{self, HeaderValue},
};

use crate::{
    http::{HandlerResult, Problem, Request, respond},
    openapi::Operation,
    state::App,
    telemetry,
};

/// What Prometheus reads.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the API's description says of it.
pub(crate) fn operation() -> Operation {
    Operation::get("/metrics", "metrics", "What the program does, for Prometheus")
        .open()
        .gives_bytes(200)
        .fails(&[403, 404])
}

/// `GET /metrics`; 404 if no recorder is installed, 403 to clients outside of `--metrics-from`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let metrics = telemetry::render().ok_or_else(Problem::not_found)?;
    if !request.client().is_in(&app.config.metrics_from) {
        let message = "Metrics are served only to clients with a known address in --metrics-from.";
        return Err(Problem::forbidden(message));
    }
    let mut answer = Response::new(respond::full(metrics));
    answer.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    Ok(answer)
}
