//! Registration, login, token refresh, logout, and the caller's account.

pub(crate) mod devices;
pub(crate) mod factor;
pub(crate) mod password;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod verify;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::{
    AddressProof, ClientInfo, Credential, Registration, RegistrationMode, SignIn, SignUp, Tokens,
};
use coditect_store::model::{Role, Tenant, TenantId, User, UserId};
use hyper::{Response, header::USER_AGENT};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checks;
use crate::{
    extract::caller,
    http::{Body, ClientAddress, HandlerResult, Request, bearer, problem::Problem, respond},
    openapi::Operation,
    state::App,
};

/// Body of a registration. Identity (`tenant_id`, `role`, …) cannot be chosen.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    email: String,
    password: String,
    #[serde(alias = "firstName")]
    first_name: Option<String>,
    #[serde(alias = "lastName")]
    last_name: Option<String>,
    /// Token of an invitation to accept.
    invitation: Option<String>,
    /// Token from the mail that verifies the address, if the server sends one.
    verification: Option<String>,
    #[serde(default)]
    cookies: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Login")]
struct Login {
    email: String,
    password: String,
    /// Code of the second factor, if it is enabled.
    code: Option<String>,
    /// Tenant that the tokens are for; by default the user's own.
    #[serde(alias = "actIn")]
    active_tenant: Option<TenantId>,
    /// Return the tokens as cookies instead of in the body.
    #[serde(default)]
    cookies: bool,
}

/// Without a token in the body, the cookie is used.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Refresh {
    #[serde(alias = "refreshToken")]
    refresh_token: Option<String>,
    #[serde(alias = "actIn")]
    active_tenant: Option<TenantId>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Logout {
    #[serde(alias = "refreshToken")]
    refresh_token: Option<String>,
    #[serde(default)]
    everywhere: bool,
}

/// A user, as seen by themselves.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub(super) struct UserView<'a> {
    id: UserId,
    tenant_id: TenantId,
    email: &'a str,
    first_name: Option<&'a str>,
    last_name: Option<&'a str>,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
}

/// A tenant, as seen by its members.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tenant")]
pub(super) struct TenantView<'a> {
    id: TenantId,
    name: &'a str,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
}

/// Tokens, or the data that accompanies tokens in cookies.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
struct TokensView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
    token_type: &'static str,
    /// Lifetime of the access token, in seconds.
    expires_in: i64,
    /// Tenant that the access token is for.
    tenant_id: TenantId,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SignedIn")]
struct SignedInView<'a> {
    #[serde(flatten)]
    tokens: TokensView<'a>,
    user: UserView<'a>,
}

/// Response while the address is not verified.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "VerificationSent")]
struct VerificationSent {
    verification: &'static str,
}

/// Rules for the creation of accounts.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RegistrationSettings")]
struct RegistrationView {
    /// `open`, `invited` or `closed`.
    mode: &'static str,
    /// Whether a registration without an invitation is verified by mail.
    verifies_email: bool,
}

#[derive(Serialize, JsonSchema)]
struct Me<'a> {
    user: UserView<'a>,
    /// Tenant that the token is for.
    tenant: TenantView<'a>,
    role: Role,
}

#[derive(Serialize, JsonSchema)]
struct SignedOut {
    signed_out: bool,
}

/// Maximum length of a name, in characters.
const MAX_NAME_CHARS: usize = 200;

/// Describes the operations of auth for the OpenAPI document.
pub(crate) fn operations() -> Vec<Operation> {
    let mut operations = vec![
        Operation::post("/api/v5/auth/register", "register", "Create an account and sign in")
            .unauthenticated()
            .details(
                "With an invitation the user becomes a member of its tenant. Without one, a server \
                 that sends mail responds with 202 and mails a token; the account is created by \
                 the same request with that token as `verification`.",
            )
            .request::<NewUser>()
            .created::<SignedInView<'static>>()
            .response_headers(&["Set-Cookie"])
            .response_with::<VerificationSent>(202)
            .fails(&[403, 409, 429]),
        Operation::get("/api/v5/auth/registration", "getRegistration", "Get the registration mode")
            .unauthenticated()
            .response::<RegistrationView>(),
        Operation::post("/api/v5/auth/login", "login", "Sign in")
            .unauthenticated()
            .request::<Login>()
            .response::<SignedInView<'static>>()
            .response_headers(&["Set-Cookie"])
            .fails(&[401, 403, 429]),
        Operation::post(
            "/api/v5/auth/refresh",
            "refresh",
            "Exchange a refresh token for new tokens",
        )
        .unauthenticated()
        .details("Without a token in the body, the cookie is used.")
        .optional_request::<Refresh>()
        .response::<TokensView<'static>>()
        .response_headers(&["Set-Cookie"])
        .fails(&[401, 403]),
        Operation::post(
            "/api/v5/auth/logout",
            "logout",
            "End a session, or all sessions of the user",
        )
        .unauthenticated()
        .optional_request::<Logout>()
        .response::<SignedOut>()
        .response_headers(&["Set-Cookie"])
        .fails(&[401, 403]),
        Operation::get("/api/v5/auth/me", "getMe", "Get my user, tenant and role")
            .response::<Me<'static>>(),
    ];
    operations.extend(devices::operations());
    operations.extend(factor::operations());
    operations.extend(password::operations());
    operations.extend(tenants::operations());
    operations.extend(tokens::operations());
    operations.extend(verify::operations());
    operations
}

/// Handles `POST /auth/register`: creates a user and signs them in.
pub(crate) async fn register(app: Arc<App>, mut request: Request) -> HandlerResult {
    let new: NewUser = request.json().await?;
    let carrier = TokenTransport::chosen(&app, new.cookies)?;
    let registration = Registration {
        email: &new.email,
        password: &new.password,
        first_name: name("first_name", new.first_name)?,
        last_name: name("last_name", new.last_name)?,
    };
    let proof = match (&new.invitation, &new.verification) {
        (None, None) => AddressProof::None,
        (Some(token), None) => AddressProof::Invitation(token),
        (None, Some(token)) => AddressProof::Verification(token),
        (Some(_), Some(_)) => {
            let message = "cannot be combined with an invitation";
            return Err(Problem::invalid_field("VALIDATION_FAILED", "verification", message));
        }
    };
    let signed_in = match app.auth.sign_up(registration, proof, &client_info(&request)).await? {
        SignUp::SignedIn(signed_in) => signed_in,
        SignUp::VerificationSent => {
            // In the background, so that the time of the response does not reveal whether the
            // account exists.
            let task = Arc::clone(&app);
            tokio::spawn(async move {
                if let Err(error) = task.auth.send_verification(&new.email).await {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, "verification mail not sent");
                }
            });
            return respond::accepted(&VerificationSent { verification: "sent" });
        }
    };
    let view = SignedInView {
        tokens: carrier.view(&app, &signed_in.tokens),
        user: UserView::from(&signed_in.user),
    };
    Ok(carrier.give(&app, respond::created("/api/v5/auth/me", &view)?, &signed_in.tokens))
}

/// Handles `GET /auth/registration`.
pub(crate) async fn registration(app: Arc<App>, _: Request) -> HandlerResult {
    let mode = match app.auth.registration_mode() {
        RegistrationMode::Open => "open",
        RegistrationMode::Invited => "invited",
        RegistrationMode::Closed => "closed",
    };
    respond::ok(&RegistrationView { mode, verifies_email: app.auth.verifies_addresses() })
}

/// Handles `POST /auth/login`.
pub(crate) async fn login(app: Arc<App>, mut request: Request) -> HandlerResult {
    let login: Login = request.json().await?;
    let carrier = TokenTransport::chosen(&app, login.cookies)?;
    let sign_in = SignIn {
        email: &login.email,
        password: &login.password,
        code: login.code.as_deref(),
        tenant: login.active_tenant,
    };
    let signed_in = app.auth.login(sign_in, &client_info(&request)).await?;
    let view = SignedInView {
        tokens: carrier.view(&app, &signed_in.tokens),
        user: UserView::from(&signed_in.user),
    };
    Ok(carrier.give(&app, respond::ok(&view)?, &signed_in.tokens))
}

/// Handles `POST /auth/refresh`, with the refresh token of the body or of a cookie.
pub(crate) async fn refresh(app: Arc<App>, mut request: Request) -> HandlerResult {
    let refresh: Refresh = if app.config.cookies {
        request.optional_json().await?.unwrap_or_default()
    } else {
        request.json().await?
    };
    let (token, carrier) = match refresh.refresh_token {
        Some(token) => (token, TokenTransport::Body),
        None => (caller::refresh_cookie(&app, &request)?, TokenTransport::Cookies),
    };
    let tokens = app.auth.refresh(&token, refresh.active_tenant, &client_info(&request)).await?;
    Ok(carrier.give(&app, respond::ok(&carrier.view(&app, &tokens))?, &tokens))
}

/// Handles `POST /auth/logout`: ends the session of the refresh token in the body, otherwise of the
/// access token in the header or of the cookies. With `everywhere`, ends all sessions of the user.
pub(crate) async fn logout(app: Arc<App>, mut request: Request) -> HandlerResult {
    let logout = request.optional_json::<Logout>().await?.unwrap_or_default();
    let (cookie, carrier);
    let credential = match &logout.refresh_token {
        Some(token) => {
            carrier = TokenTransport::Body;
            Credential::Refresh(token)
        }
        None if caller::has_cookies(&app, &request)? => {
            carrier = TokenTransport::Cookies;
            cookie = caller::refresh_cookie(&app, &request)?;
            Credential::Refresh(&cookie)
        }
        None => {
            carrier = TokenTransport::Body;
            Credential::Access(bearer::token(request.headers())?.expose())
        }
    };
    if logout.everywhere {
        app.auth.logout_everywhere(credential, &client_info(&request)).await?;
        app.upkeep.resume_deletions();
    } else {
        app.auth.logout(credential, &client_info(&request)).await?;
    }
    let mut answer = respond::ok(&SignedOut { signed_out: true })?;
    if carrier == TokenTransport::Cookies {
        app.config.cookie_prefix.clear(answer.headers_mut());
    }
    Ok(answer)
}

/// Handles `GET /auth/me`: the user of the token, and the tenant that the token is for.
pub(crate) async fn me(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (identity, tenant) = caller::transact(&app, &caller, |tx, identity| async move {
        let tenant = tx.get_required::<Tenant>(identity.tenant_id, ()).await?;
        Ok((identity, tenant))
    })
    .await?;
    let role = identity.role;
    respond::ok(&Me { user: (&identity.user).into(), tenant: (&tenant).into(), role })
}

/// Transport of tokens between server and client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenTransport {
    /// In the body of the response, and in `Authorization`.
    Body,
    /// In cookies that scripts cannot read.
    Cookies,
}

impl TokenTransport {
    /// Returns the transport that the client requests. Fails if the server has no cookies.
    fn chosen(app: &App, cookies: bool) -> Result<Self, Problem> {
        match (cookies, app.config.cookies) {
            (false, _) => Ok(Self::Body),
            (true, true) => Ok(Self::Cookies),
            (true, false) => {
                let message = "is not supported: cookies are disabled on this server";
                Err(Problem::invalid_field("VALIDATION_FAILED", "cookies", message))
            }
        }
    }

    fn view<'a>(self, app: &App, tokens: &'a Tokens) -> TokensView<'a> {
        let (is_body, is_cookies) = (self == Self::Body, self == Self::Cookies);
        TokensView {
            token: is_body.then(|| tokens.access.expose()),
            refresh_token: is_body.then(|| tokens.refresh.expose()),
            csrf_token: is_cookies.then(|| app.auth.csrf_token(tokens.token_family)),
            token_type: "Bearer",
            expires_in: tokens.expires_in.num_seconds(),
            tenant_id: tokens.tenant_id,
        }
    }

    fn give(self, app: &App, mut answer: Response<Body>, tokens: &Tokens) -> Response<Body> {
        if self == Self::Cookies {
            app.config.cookie_prefix.set(answer.headers_mut(), tokens);
        }
        answer
    }
}

fn name(field: &str, name: Option<String>) -> Result<Option<String>, Problem> {
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.map(|name| checks::line(field, 1..=MAX_NAME_CHARS, &name)).transpose()
}

/// Returns the client of a request, for rate limits and the audit log.
pub(super) fn client_info(request: &Request) -> ClientInfo {
    let user_agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let user_agent = user_agent.map(str::to_owned);
    match request.client() {
        ClientAddress::Known(ip) => ClientInfo { user_agent, ip: Some(ip), nearest_hop: None },
        ClientAddress::Unknown { nearest_hop } => {
            ClientInfo { user_agent, ip: None, nearest_hop: Some(nearest_hop) }
        }
    }
}

impl<'a> From<&'a User> for UserView<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            id: user.id,
            tenant_id: user.tenant_id,
            email: &user.email,
            first_name: user.first_name.as_deref(),
            last_name: user.last_name.as_deref(),
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

impl<'a> From<&'a Tenant> for TenantView<'a> {
    fn from(tenant: &'a Tenant) -> Self {
        Self {
            id: tenant.id,
            name: &tenant.name,
            created_at: tenant.created_at,
            updated_at: tenant.updated_at,
        }
    }
}
