//! Authentication of the caller, in the transaction of the work: a revocation applies at once.
//!
//! A handler [authenticates](authenticate) first, so that an unauthenticated request fails with 401
//! whatever else is wrong with it, and its body is not read.
//!
//! Cookies are accepted if the operator enables them. A browser also sends them for other sites, so
//! a request with an unsafe method must have [a token](CSRF) that only the page knows, and must
//! come from this origin or one that the operator allows, if the browser sends its origin. A
//! request with both a cookie and a bearer token is refused as ambiguous.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::{Identity, Scope, VerifiedCredential};
use coditect_store::{
    Transaction,
    model::{TokenFamilyId, UserId},
};
use hyper::{Method, header};
use subtle::ConstantTimeEq as _;

use crate::{
    http::{
        Request, bearer, budget, origin,
        problem::{Problem, Unauthorized},
        request::{Accounts, UserAccounts},
    },
    state::App,
};

/// Request header with the CSRF token.
const CSRF: &str = "x-csrf-token";

/// Request header with the relation between the origins of page and server (Fetch Metadata).
const FETCH_SITE: &str = "sec-fetch-site";

/// Maximum size of a body that is read before an access token is checked for revocation, in bytes.
const UNAUTHENTICATED_BYTES: u64 = 16 << 10;

/// The credential of a caller, and the required scope.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    credential: VerifiedCredential,
    /// Scope that a personal access token needs; `None` if any is sufficient.
    scope: Option<Scope>,
    /// Slot for the user's accounts, which are charged for body and response.
    user: Option<UserAccounts>,
}

impl Caller {
    /// Creates a caller with the credential `credential`, for an operation with `scope`.
    pub(crate) fn by(credential: VerifiedCredential, scope: Scope) -> Self {
        Self { credential, scope: Some(scope), user: None }
    }

    /// Replaces the required scope.
    pub(crate) fn with_scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Returns the credential.
    pub(crate) fn into_credential(self) -> VerifiedCredential {
        self.credential
    }

    /// Requires no scope.
    pub(crate) fn for_anything(self) -> Self {
        Self { scope: None, ..self }
    }

    /// Returns the expiry of an access token.
    pub(crate) fn expires_at(&self) -> Option<DateTime<Utc>> {
        match &self.credential {
            VerifiedCredential::Access(claims) => DateTime::from_timestamp(claims.exp, 0),
            VerifiedCredential::Personal(_) | VerifiedCredential::Session { .. } => None,
        }
    }
}

/// Returns the caller of a request with a valid token; [`transact`] checks for revocation. Fails
/// afterwards if the route does not accept the query, or for a condition on a resource without a
/// tag.
pub(crate) async fn authenticate(app: &App, request: &Request) -> Result<Caller, Problem> {
    let caller = by_token(app, request).await?;
    request.check_query()?;
    request.check_untagged()?;
    Ok(caller)
}

async fn by_token(app: &App, request: &Request) -> Result<Caller, Problem> {
    let user = Some(Arc::clone(request.user_accounts()));
    let scope = Some(if request.method().is_safe() { Scope::Read } else { Scope::Write });
    let cookie =
        if app.config.cookies { app.config.cookie_prefix.access(request.headers())? } else { None };
    let Some(token) = cookie else {
        let token = bearer::token(request.headers())?;
        let credential = app.auth.verify_credential(token.expose()).await?;
        return before_body(app, request, Caller { credential, scope, user }).await;
    };
    refuse_both(request)?;
    let credential = app.auth.verify_credential(token).await?;
    let VerifiedCredential::Access(claims) = &credential else {
        return Err(Problem::unauthorized(Unauthorized::InvalidToken));
    };
    refuse_forgery(app, request, claims.token_family)?;
    before_body(app, request, Caller { credential, scope, user }).await
}

/// Authenticates `caller` now if the request has a body that should not be read for an invalid
/// credential: any body for a personal access token, which is not signed, and a large one for an
/// access token, which may be revoked.
async fn before_body(app: &App, request: &Request, caller: Caller) -> Result<Caller, Problem> {
    let free_bytes = match caller.credential {
        VerifiedCredential::Personal(_) => 0,
        VerifiedCredential::Access(_) | VerifiedCredential::Session { .. } => UNAUTHENTICATED_BYTES,
    };
    if let (VerifiedCredential::Access(claims), Some(user)) = (&caller.credential, &caller.user) {
        // The signature shows whose the body is.
        user.get_or_init(|| accounts(app, claims.sub));
    }
    if request.may_exceed(free_bytes) {
        identity(app, &caller).await?;
    }
    Ok(caller)
}

fn accounts(app: &App, user: UserId) -> Accounts {
    Accounts { responses: app.output.user(user), requests: app.requests.user(user) }
}

/// Runs `work` for the caller, in the transaction that also reads their session and user. `work`
/// may run several times before the commit.
pub(crate) async fn transact<T, F, Fut>(app: &App, caller: &Caller, work: F) -> Result<T, Problem>
where
    T: Send,
    F: Fn(Transaction, Identity) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Problem>> + Send,
{
    let attempted = attempt(app, caller, &work).await;
    let user = caller.user.as_ref().and_then(|user| user.get());
    let (Err(problem), Some(user)) = (&attempted, user) else { return attempted };
    if problem.code() != budget::UNREAD {
        return attempted;
    }
    // `work` has not run. The wait is outside of any transaction.
    app.output.admit(&user.responses).await?;
    attempt(app, caller, &work).await
}

async fn attempt<T, F, Fut>(app: &App, caller: &Caller, work: &F) -> Result<T, Problem>
where
    T: Send,
    F: Fn(Transaction, Identity) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Problem>> + Send,
{
    app.store
        .run(|tx| async move {
            let identity = app.auth.authenticate(&tx, &caller.credential).await?;
            if let Some(user) = &caller.user {
                let accounts = user.get_or_init(|| accounts(app, identity.user.id));
                app.output.require_room(&accounts.responses)?;
            }
            if let Some(scope) = caller.scope {
                identity.require_scope(scope)?;
            }
            work(tx, identity).await
        })
        .await
}

/// Returns the identity of the caller as of now, for work in its own transactions.
pub(crate) async fn identity(app: &App, caller: &Caller) -> Result<Identity, Problem> {
    transact(app, caller, |_, identity| async move { Ok(identity) }).await
}

/// Returns whether the refresh token of the request is in a cookie.
pub(crate) fn has_cookies(app: &App, request: &Request) -> Result<bool, Problem> {
    Ok(app.config.cookies && app.config.cookie_prefix.refresh(request.headers())?.is_some())
}

/// Returns the refresh token of the request's cookie.
pub(crate) fn refresh_cookie(app: &App, request: &Request) -> Result<String, Problem> {
    let token = if app.config.cookies {
        app.config.cookie_prefix.refresh(request.headers())?
    } else {
        None
    };
    let token = token.ok_or_else(|| {
        let field = crate::http::problem::Field::new("refresh_token", "is required");
        Problem::validation(vec![field])
    })?;
    refuse_both(request)?;
    refuse_forgery(app, request, app.auth.family_of(token)?)?;
    Ok(token.to_owned())
}

fn refuse_both(request: &Request) -> Result<(), Problem> {
    if request.headers().contains_key(header::AUTHORIZATION) {
        let message = "Send either a cookie or an Authorization header, not both.";
        return Err(Problem::bad_request("INVALID_REQUEST", message));
    }
    Ok(())
}

/// Refuses a request that another site may have made the browser send.
fn refuse_forgery(app: &App, request: &Request, family: TokenFamilyId) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let headers = request.headers();
    let site = headers.get(FETCH_SITE).map(header::HeaderValue::as_bytes);
    let is_of_this_origin = site.is_none_or(|site| site == b"same-origin" || site == b"none");
    let page = headers.get(header::ORIGIN).and_then(|page| page.to_str().ok());
    let is_listed =
        page.is_some_and(|page| origin::is_allowed(&app.config.allowed_origin, None, page));
    let shown = headers.get(CSRF).map(header::HeaderValue::as_bytes).unwrap_or_default();
    let expected = app.auth.csrf_token(family);
    if (is_of_this_origin || is_listed) && bool::from(shown.ct_eq(expected.as_bytes())) {
        Ok(())
    } else {
        let message =
            "The CSRF token is missing or invalid, or the request comes from another origin.";
        Err(Problem::forbidden(message).with_code("CSRF_REFUSED"))
    }
}
