//! Another password: by the present one, or by a token that was sent.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{caller, device};
use crate::{
    app::App,
    http::{Request, respond},
    routes::Answer,
};

#[derive(Deserialize)]
struct Change {
    #[serde(alias = "currentPassword")]
    current_password: String,
    #[serde(alias = "newPassword")]
    new_password: String,
}

#[derive(Deserialize)]
struct Asking {
    email: String,
}

#[derive(Deserialize)]
struct Reset {
    token: String,
    #[serde(alias = "newPassword")]
    new_password: String,
}

#[derive(Serialize)]
struct Changed {
    changed: bool,
}

#[derive(Serialize)]
struct Asked {
    requested: bool,
}

/// `PUT /auth/password`: another password for who knows the present one; their other sessions end.
pub(crate) async fn change(app: Arc<App>, mut request: Request) -> Answer {
    let caller = caller::of(&app, &request).await?;
    let identity = caller::identity(&app, &caller).await?;
    let change: Change = request.json().await?;
    let (present, next) = (&change.current_password, &change.new_password);
    app.auth.change_password(&identity, present, next, &device(&request)).await?;
    respond::ok(&Changed { changed: true })
}

/// `POST /auth/password-reset`: sends a token to the address, if there is an account. The answer is the
/// same, and as fast, if there is none.
pub(crate) async fn ask(app: Arc<App>, mut request: Request) -> Answer {
    let asking: Asking = request.json().await?;
    let device = device(&request);
    app.auth.admit_reset(&device)?;
    // Nobody who waits for the answer learns how long this takes.
    let task = Arc::clone(&app);
    tokio::spawn(async move {
        if let Err(error) = task.auth.request_reset(&asking.email, &device).await {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a password reset could not be sent");
        }
    });
    respond::accepted(&Asked { requested: true })
}

/// `POST /auth/password-reset/confirm`: another password by a token that was sent; all sessions end.
pub(crate) async fn reset(app: Arc<App>, mut request: Request) -> Answer {
    let reset: Reset = request.json().await?;
    app.auth.reset_password(&reset.token, &reset.new_password, &device(&request)).await?;
    respond::ok(&Changed { changed: true })
}
