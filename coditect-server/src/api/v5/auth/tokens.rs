//! Personal access tokens of the caller, for programs.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use coditect_auth::{
    Identity, MAX_PERSONAL_TOKEN_LIFETIME, MAX_TOKEN_NAME_CHARS, NewPersonalToken, Scopes,
    model::{PersonalToken, PersonalTokenId},
};
use coditect_store::{Transaction, model::TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{caller, client_info};
use crate::{
    extract::idempotency::{Created, Idempotency},
    http::{
        HandlerResult, Query, Request,
        conditions::{ETag, Preconditions},
        problem::{Field, Problem},
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// Default lifetime of a token, in days.
const DEFAULT_DAYS: i64 = 90;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewToken")]
struct New {
    #[schemars(length(max = 100), regex(pattern = openapi::LINE))]
    name: String,
    #[schemars(length(min = 1, max = 20), inner(regex(pattern = openapi::SCOPE)))]
    scopes: Vec<String>,
    /// Lifetime, in days; default 90.
    #[serde(alias = "expiresInDays")]
    #[schemars(range(min = 1, max = 366))]
    expires_in_days: Option<i64>,
    /// The caller's password; required unless the login is less than 10 minutes old.
    password: Option<String>,
}

/// A token without its text.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PersonalToken")]
struct TokenView<'a> {
    id: PersonalTokenId,
    /// Entity tag for `If-Match`.
    etag: String,
    name: &'a str,
    scopes: &'a [String],
    /// Tenant that the token is for.
    tenant_id: TenantId,
    #[serde(serialize_with = "respond::time")]
    created_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    last_used_at: DateTime<Utc>,
    #[serde(serialize_with = "respond::time")]
    expires_at: DateTime<Utc>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewPersonalToken")]
struct CreatedView<'a> {
    #[serde(flatten)]
    view: TokenView<'a>,
    /// Text of the token. Returned once.
    token: &'a str,
}

impl<'a> From<&'a PersonalToken> for TokenView<'a> {
    fn from(token: &'a PersonalToken) -> Self {
        Self {
            id: token.id,
            etag: tag_of(token).quoted(),
            name: &token.name,
            scopes: token.scopes.names(),
            tenant_id: token.active_tenant(),
            created_at: token.created_at,
            last_used_at: token.last_used_at,
            expires_at: token.expires_at,
        }
    }
}

pub(super) fn operations() -> Vec<Operation> {
    const ALL: &str = "/api/v5/auth/tokens";
    vec![
        Operation::get(ALL, "listTokens", "List my personal access tokens, oldest first")
            .page::<TokenView<'static>>(),
        Operation::post(ALL, "createToken", "Create a personal access token")
            .request::<New>()
            .created::<CreatedView<'static>>()
            .idempotent()
            .link("revokeToken", "id", "/data/id")
            .fails(&[409, 429]),
        Operation::delete(
            "/api/v5/auth/tokens/{id}",
            "revokeToken",
            "Revoke a personal access token",
        )
        .no_content()
        .conditional(),
    ]
}

/// Handles `POST /auth/tokens`: creates a token for the caller's active tenant.
pub(crate) async fn create(app: Arc<App>, mut request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let mut new: New = request.json().await?;
    let password = new.password.take();
    // Without the password: a fast hash of it must not be stored.
    let idempotency =
        Idempotency::of_content(&request, &(&new.name, &new.scopes, new.expires_in_days))?;
    let new = &new.checked()?;
    let client = &client_info(&request);
    let identity = caller::identity(&app, &caller).await?;
    app.auth.require_fresh_login(&identity, password.as_deref(), client).await?;
    let work = |tx: Transaction, identity: Identity| {
        let app = &app;
        async move {
            let token = app.auth.create_personal_token(&tx, &identity, new, client).await?;
            let location = format!("/api/v5/auth/tokens/{}", token.id);
            let view = TokenView::from(&token);
            let created = CreatedView { view, token: new.text().expose() };
            Ok((Created::secret_at(location, &created)?, ()))
        }
    };
    let (outcome, created) = idempotency.run_with(&app, &caller, work).await?;
    if created.is_some() {
        app.auth.notify_token_created(&identity);
    }
    outcome.answer()
}

/// Handles `GET /auth/tokens`: the caller's tokens, oldest first.
pub(crate) async fn list(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let query = Query::of(&request)?;
    let (limit, cursor) = (query.limit()?, query.cursor()?);
    let tokens = caller::transact(&app, &caller, |tx, identity| {
        let (app, page) = (&app, (limit, cursor.as_ref()));
        async move {
            app.auth.personal_tokens(&tx, &identity, page).await.map_err(Problem::of_auth_page)
        }
    })
    .await?;
    respond::page_of(&tokens, TokenView::from)
}

/// Handles `DELETE /auth/tokens/{id}`.
pub(crate) async fn revoke(app: Arc<App>, request: Request) -> HandlerResult {
    let caller = caller::authenticate(&app, &request).await?;
    let (id, client) = (request.parse_param("id")?, &client_info(&request));
    let conditions = Preconditions::of(&request)?;
    caller::transact(&app, &caller, |tx, identity| {
        let (app, conditions) = (&app, &conditions);
        async move {
            if !conditions.is_unconditional() {
                let token = tx.get::<PersonalToken>(identity.user.tenant_id, id).await?;
                if let Some(token) = token.filter(|token| token.user_id == identity.user.id) {
                    conditions.require(Some(&tag_of(&token)))?;
                }
            }
            Ok(app.auth.revoke_personal_token(&tx, &identity, id, client).await?)
        }
    })
    .await?;
    Ok(respond::no_content())
}

/// Returns the entity tag of a token, which does not depend on its last use.
fn tag_of(token: &PersonalToken) -> ETag {
    ETag::digest(&[token.id.0.as_bytes()])
}

impl New {
    fn checked(self) -> Result<NewPersonalToken, Problem> {
        let mut wrong = Vec::new();
        let name = self.name.trim();
        let is_plain = coditect_auth::text::is_plain_text(name);
        if name.is_empty() || name.chars().count() > MAX_TOKEN_NAME_CHARS || !is_plain {
            let message = format!(
                "must have 1 to {MAX_TOKEN_NAME_CHARS} characters, none of them control, \
                 bidirectional or invisible"
            );
            wrong.push(Field::new("name", message));
        }
        let days = self.expires_in_days.unwrap_or(DEFAULT_DAYS);
        if !(1..=MAX_PERSONAL_TOKEN_LIFETIME.num_days()).contains(&days) {
            let message =
                format!("must be between 1 and {}", MAX_PERSONAL_TOKEN_LIFETIME.num_days());
            wrong.push(Field::new("expires_in_days", message));
        }
        match Scopes::new(&self.scopes) {
            Ok(scopes) if wrong.is_empty() => {
                Ok(NewPersonalToken::new(name, scopes, TimeDelta::days(days))?)
            }
            Ok(_) => Err(Problem::validation(wrong)),
            Err(error) => {
                wrong.push(Field::new("scopes", error.to_string()));
                Err(Problem::validation(wrong))
            }
        }
    }
}
