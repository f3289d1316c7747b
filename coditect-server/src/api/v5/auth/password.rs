//! Another password: by the present one, or by a token that was sent.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{caller, client_info};
use crate::{
    http::{HandlerResult, Request, respond},
    openapi::Operation,
    state::App,
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PasswordChange")]
struct Change {
    #[serde(alias = "currentPassword")]
    current_password: String,
    #[serde(alias = "newPassword")]
    new_password: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ResetRequest")]
struct Asking {
    email: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PasswordReset")]
struct Reset {
    token: String,
    #[serde(alias = "newPassword")]
    new_password: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PasswordChanged")]
struct Changed {
    changed: bool,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ResetRequested")]
struct Asked {
    requested: bool,
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::put("/api/v5/auth/password", "changePassword", "Another password")
            .takes::<Change>()
            .gives::<Changed>()
            .fails(&[429]),
        Operation::post("/api/v5/auth/password-reset", "requestReset", "Has a reset sent")
            .open()
            .takes::<Asking>()
            .gives_with::<Asked>(202)
            .fails(&[429]),
        Operation::post("/api/v5/auth/password-reset/confirm", "resetPassword", "Resets it")
            .open()
            .takes::<Reset>()
            .gives::<Changed>()
            .fails(&[429]),
    ]
}

/// `PUT /auth/password`: another password for who knows the present one; their other sessions end.
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::of(&app, &request).await?;
    let identity = caller::identity(&app, &caller).await?;
    let change: Change = request.json().await?;
    let (present, next) = (&change.current_password, &change.new_password);
    app.auth.change_password(&identity, present, next, &client_info(&request)).await?;
    respond::ok(&Changed { changed: true })
}

/// `POST /auth/password-reset`: sends a token to the address, if there is an account. The answer is the
/// same, and as fast, if there is none.
pub(crate) async fn ask(app: Arc<App>, mut request: Request) -> HandlerResult {
    let asking: Asking = request.json().await?;
    let client = client_info(&request);
    app.auth.count_reset_request(&client)?;
    // Nobody who waits for the answer learns how long this takes.
    let task = Arc::clone(&app);
    tokio::spawn(async move {
        if let Err(error) = task.auth.request_reset(&asking.email, &client).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a password reset could not be sent");
        }
    });
    respond::accepted(&Asked { requested: true })
}

/// `POST /auth/password-reset/confirm`: another password by a token that was sent; all sessions end.
pub(crate) async fn reset(app: Arc<App>, mut request: Request) -> HandlerResult {
    let reset: Reset = request.json().await?;
    app.auth.reset_password(&reset.token, &reset.new_password, &client_info(&request)).await?;
    respond::ok(&Changed { changed: true })
}
