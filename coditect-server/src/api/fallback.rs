//! Paths outside of the API: the frontend.

use std::sync::Arc;

use crate::{
    http::{HandlerResult, Request},
    state::App,
};

/// Handles `GET` of paths outside of the route table.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let policy = app.config.content_security_policy.clone();
    app.frontend.respond(&request, policy).await
}
