//! Registering, signing in, refreshing, signing out, and who am I.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::{Credential, Device, Registration, SignedIn, Tokens};
use coditect_store::model::{Tenant, TenantId, User, UserId};
use hyper::header::USER_AGENT;
use serde::{Deserialize, Serialize};

use super::caller;
use crate::{
    app::App,
    http::{Request, bearer, respond},
    problem::Problem,
    routes::Answer,
};

/// The body of a registration. What says who somebody is (`tenant_id`, `role` …) is no field of it.
#[derive(Deserialize)]
struct NewUser {
    email: String,
    password: String,
    #[serde(alias = "firstName")]
    first_name: Option<String>,
    #[serde(alias = "lastName")]
    last_name: Option<String>,
}

#[derive(Deserialize)]
struct Login {
    email: String,
    password: String,
}

#[derive(Deserialize)]
struct Refresh {
    #[serde(alias = "refreshToken")]
    refresh_token: String,
}

#[derive(Default, Deserialize)]
struct Logout {
    #[serde(alias = "refreshToken")]
    refresh_token: Option<String>,
    #[serde(default)]
    everywhere: bool,
}

/// A user, as they see themselves.
#[derive(Serialize)]
struct UserView<'a> {
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

/// A tenant, as its users see it.
#[derive(Serialize)]
struct TenantView<'a> {
    id: TenantId,
    name: &'a str,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    updated_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct TokensView<'a> {
    token: &'a str,
    refresh_token: &'a str,
    token_type: &'static str,
    /// Seconds from now on.
    expires_in: i64,
}

#[derive(Serialize)]
struct SignedInView<'a> {
    #[serde(flatten)]
    tokens: TokensView<'a>,
    user: UserView<'a>,
}

#[derive(Serialize)]
struct Me<'a> {
    user: UserView<'a>,
    tenant: TenantView<'a>,
}

#[derive(Serialize)]
struct SignedOut {
    signed_out: bool,
}

/// The longest name that is taken, in characters.
const NAME_CHARS: usize = 200;

/// `POST /auth/register`: a new user, signed in.
pub(crate) async fn register(app: Arc<App>, mut request: Request) -> Answer {
    let new: NewUser = request.json().await?;
    let registration = Registration {
        email: &new.email,
        password: &new.password,
        first_name: name("first_name", new.first_name)?,
        last_name: name("last_name", new.last_name)?,
    };
    let signed_in = app.auth.register(registration, &device(&request)).await?;
    respond::created("/api/v5/auth/me", &SignedInView::from(&signed_in))
}

/// `POST /auth/login`: tokens for a password.
pub(crate) async fn login(app: Arc<App>, mut request: Request) -> Answer {
    let login: Login = request.json().await?;
    let device = device(&request);
    let signed_in = app.auth.login(&login.email, &login.password, &device).await?;
    respond::ok(&SignedInView::from(&signed_in))
}

/// `POST /auth/refresh`: new tokens for a refresh token.
pub(crate) async fn refresh(app: Arc<App>, mut request: Request) -> Answer {
    let refresh: Refresh = request.json().await?;
    let tokens = app.auth.refresh(&refresh.refresh_token).await?;
    respond::ok(&TokensView::from(&tokens))
}

/// `POST /auth/logout`: ends the session of the refresh token in the body, or else of the access
/// token in the header; with `everywhere`, all of that user's.
pub(crate) async fn logout(app: Arc<App>, mut request: Request) -> Answer {
    let logout = request.optional_json::<Logout>().await?.unwrap_or_default();
    let credential = match &logout.refresh_token {
        Some(token) => Credential::Refresh(token),
        None => Credential::Access(bearer::token(request.headers())?.expose()),
    };
    if logout.everywhere {
        app.auth.logout_everywhere(credential).await?;
    } else {
        app.auth.logout(credential).await?;
    }
    respond::ok(&SignedOut { signed_out: true })
}

/// `GET /auth/me`: the user and tenant behind the token.
pub(crate) async fn me(app: Arc<App>, request: Request) -> Answer {
    let claims = caller::claims(&app, &request).await?;
    let (user, tenant) = caller::run(&app, &claims, |tx, caller| async move {
        let tenant = tx.get::<Tenant>(caller.user.tenant_id, ()).await?;
        let tenant = tenant.ok_or_else(|| Problem::internal("a user's tenant is not there"))?;
        Ok((caller.user, tenant))
    })
    .await?;
    respond::ok(&Me { user: UserView::from(&user), tenant: TenantView::from(&tenant) })
}

fn name(field: &'static str, name: Option<String>) -> Result<Option<String>, Problem> {
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    match &name {
        Some(long) if long.chars().count() > NAME_CHARS => {
            let message = format!("must be at most {NAME_CHARS} characters long");
            Err(Problem::invalid_field("VALIDATION_FAILED", field, &message))
        }
        _ => Ok(name),
    }
}

fn device(request: &Request) -> Device {
    let user_agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    Device { user_agent: user_agent.map(str::to_owned), ip: Some(request.peer().ip().to_string()) }
}

impl<'a> From<&'a SignedIn> for SignedInView<'a> {
    fn from(signed_in: &'a SignedIn) -> Self {
        Self { tokens: (&signed_in.tokens).into(), user: (&signed_in.user).into() }
    }
}

impl<'a> From<&'a Tokens> for TokensView<'a> {
    fn from(tokens: &'a Tokens) -> Self {
        Self {
            token: tokens.access.expose(),
            refresh_token: tokens.refresh.expose(),
            token_type: "Bearer",
            expires_in: tokens.expires_in.num_seconds(),
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
