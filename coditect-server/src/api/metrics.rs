//! `GET /metrics` for Prometheus; see [`telemetry`].

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

/// Media type of the Prometheus text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Describes `GET /metrics` for the OpenAPI document.
pub(crate) fn operation() -> Operation {
    Operation::get("/metrics", "getMetrics", "Get the server's metrics in Prometheus format")
        .unauthenticated()
        .response_bytes(200)
        .fails(&[403, 404])
}

/// Handles `GET /metrics`. Responds with 404 if no recorder is installed or
/// metrics have a listener of their own, and 403 to clients outside
/// of `--metrics-allow`.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    if app.config.metrics_listen.is_some() {
        return Err(Problem::not_found());
    }
    scrape(app, request).await
}

/// Returns the metrics; 404 if no recorder is installed, 403 to clients outside of
/// `--metrics-allow`.
pub(crate) async fn scrape(app: Arc<App>, request: Request) -> HandlerResult {
    let metrics = telemetry::render().ok_or_else(Problem::not_found)?;
    if !request.client().is_in(&app.config.metrics_allow) {
        let message = "Metrics are served only to clients with a known address in --metrics-allow.";
        return Err(Problem::forbidden(message));
    }
    let mut answer = Response::new(respond::full(metrics));
    answer.headers_mut().insert(header::CONTENT_TYPE, TEXT);
    Ok(answer)
}
