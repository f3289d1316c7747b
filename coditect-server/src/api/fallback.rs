//! Paths outside of the API: the frontend.

use std::sync::Arc;

use crate::{
    http::{HandlerResult, Request},
    state::App,
};

/// `GET` of any path that the route table does not have.
pub(crate) async fn show(app: Arc<App>, request: Request) -> HandlerResult {
    let policy = app.config.content_security_policy.clone();
    app.frontend.respond(&request, policy).await
}
