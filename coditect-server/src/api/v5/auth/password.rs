//! Change of a password with the present one, or reset with a token sent by mail.

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
        Operation::put("/api/v5/auth/password", "changePassword", "Change my password")
            .request::<Change>()
            .response::<Changed>()
            .fails(&[429]),
        Operation::post(
            "/api/v5/auth/password-reset",
            "requestPasswordReset",
            "Request a password reset",
        )
        .unauthenticated()
        .request::<Asking>()
        .response_with::<Asked>(202)
        .fails(&[429]),
        Operation::post(
            "/api/v5/auth/password-reset/confirm",
            "confirmPasswordReset",
            "Reset a password with a token",
        )
        .unauthenticated()
        .request::<Reset>()
        .response::<Changed>()
        .fails(&[429]),
    ]
}

/// Handles `PUT /auth/password`. The user's other sessions are revoked.
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let identity = caller::identity(&app, &caller).await?;
    let change: Change = request.json().await?;
    let (present, next) = (&change.current_password, &change.new_password);
    app.auth.change_password(&identity, present, next, &client_info(&request)).await?;
    respond::ok(&Changed { changed: true })
}

/// Handles `POST /auth/password-reset`: sends a token, if the account exists. Response and timing
/// are the same if it does not.
pub(crate) async fn ask(app: Arc<App>, mut request: Request) -> HandlerResult {
    let asking: Asking = request.json().await?;
    let client = client_info(&request);
    app.auth.count_reset_request(&client)?;
    // In the background, so that the time of the response does not reveal whether the account
    // exists.
    let task = Arc::clone(&app);
    tokio::spawn(async move {
        if let Err(error) = task.auth.request_reset(&asking.email, &client).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "password reset not sent");
        }
    });
    respond::accepted(&Asked { requested: true })
}

/// Handles `POST /auth/password-reset/confirm`. All sessions of the user are revoked.
pub(crate) async fn reset(app: Arc<App>, mut request: Request) -> HandlerResult {
    let reset: Reset = request.json().await?;
    app.auth.reset_password(&reset.token, &reset.new_password, &client_info(&request)).await?;
    respond::ok(&Changed { changed: true })
}
