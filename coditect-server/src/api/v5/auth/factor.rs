//! The caller's second factor: an authenticator app.

use std::sync::Arc;

use coditect_auth::{FactorSecret, RecoveryCodes};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{caller, client_info};
use crate::{
    http::{HandlerResult, Request, respond},
    openapi::Operation,
    state::App,
};

/// Issuer shown by the authenticator app.
const ISSUER: &str = "Coditect";

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FactorSetup")]
struct Setup {
    /// The caller's password.
    password: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FactorCode")]
struct Code {
    code: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FactorRemoval")]
struct Removal {
    password: String,
    code: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FactorBegun")]
struct Begun<'a> {
    /// Secret in Base32, for typing it.
    secret: &'a str,
    /// `otpauth:` URL, for a QR code.
    url: &'a str,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "FactorConfirmed")]
struct Confirmed<'a> {
    recovery_codes: Vec<&'a str>,
}

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::post("/api/v5/auth/totp", "setUpTotp", "Set up a second factor")
            .details("Confirm it with a first code within 15 minutes.")
            .request::<Setup>()
            .response::<Begun<'static>>()
            .fails(&[409, 429]),
        Operation::post(
            "/api/v5/auth/totp/confirm",
            "confirmTotp",
            "Confirm a second factor with a code",
        )
        .request::<Code>()
        .response::<Confirmed<'static>>()
        .fails(&[409, 429]),
        Operation::post("/api/v5/auth/totp/remove", "removeTotp", "Remove the second factor")
            .request::<Removal>()
            .no_content()
            .fails(&[409, 429]),
    ]
}

/// Handles `POST /auth/totp`: creates a secret, after a check of the caller's password.
pub(crate) async fn begin(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let identity = caller::identity(&app, &caller).await?;
    identity.session()?;
    let Setup { password } = request.json().await?;
    let (secret, client) = (FactorSecret::generate()?, client_info(&request));
    let factor = app.auth.enroll_second_factor(&identity, &password, secret, &client).await?;
    let (secret, url) = (factor.secret.base32(), factor.secret.url(ISSUER, &factor.account));
    respond::ok(&Begun { secret: &secret, url: &url })
}

/// Handles `POST /auth/totp/confirm`: enables the second factor with a first code and returns the
/// recovery codes, once.
pub(crate) async fn confirm(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let identity = caller::identity(&app, &caller).await?;
    identity.session()?;
    let Code { code } = request.json().await?;
    let codes = RecoveryCodes::generate()?;
    app.auth.confirm_second_factor(&identity, &code, &codes, &client_info(&request)).await?;
    respond::ok(&Confirmed { recovery_codes: codes.texts().collect() })
}

/// Handles `POST /auth/totp/remove`: disables the second factor.
pub(crate) async fn remove(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let identity = caller::identity(&app, &caller).await?;
    let Removal { password, code } = request.json().await?;
    app.auth
        .remove_second_factor(&identity, &password, code.as_deref(), &client_info(&request))
        .await?;
    Ok(respond::no_content())
}
