//! Who calls, and work done for them: one transaction holds both, so what was ended holds at once.
//!
//! A handler asks [who calls](of) first of all, so that whoever has shown nothing is told so whatever else
//! is wrong, and has no body read.
//!
//! Cookies are taken where the operator wants them. A browser sends them whoever asks it to, so beside
//! them a request that changes something shows [what only the page knows](CSRF) that was given them, and
//! comes from a page of this origin, or of one that the operator lists, if its browser says where it comes
//! from. A request that shows both a cookie and a bearer token is refused: which of them counts is not for
//! us to guess.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use coditect_auth::{Identity, Scope, VerifiedCredential};
use coditect_store::{Transaction, model::TokenFamilyId};
use hyper::{Method, header};
use subtle::ConstantTimeEq as _;

use crate::{
    http::{
        Request, bearer, origin, output,
        problem::{Problem, Unauthorized},
        request::UserAccount,
    },
    state::App,
};

/// The header in which a page shows what it was given beside its cookies.
const CSRF: &str = "x-csrf-token";

/// Where a browser says what page a request comes from (Fetch Metadata).
const FETCH_SITE: &str = "sec-fetch-site";

/// Maximum size of a body, in bytes, that is read on the word of a signature alone.
const UNAUTHENTICATED_BYTES: u64 = 16 << 10;

/// What whoever calls has shown, and what they need to be allowed.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    credential: VerifiedCredential,
    /// What a program's token needs for it; none if any will do.
    scope: Option<Scope>,
    /// Where the account of the user is put, which the response is charged to.
    user: Option<UserAccount>,
}

impl Caller {
    /// Whoever has shown `credential`, for what a program's token needs `scope` for.
    pub(crate) fn by(credential: VerifiedCredential, scope: Scope) -> Self {
        Self { credential, scope: Some(scope), user: None }
    }

    /// The same, for what needs another scope.
    pub(crate) fn with_scope(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// What they have shown.
    pub(crate) fn into_credential(self) -> VerifiedCredential {
        self.credential
    }

    /// Whoever it is, whatever their token is for.
    pub(crate) fn for_anything(self) -> Self {
        Self { scope: None, ..self }
    }

    /// When an access token ends.
    pub(crate) fn expires_at(&self) -> Option<DateTime<Utc>> {
        match &self.credential {
            VerifiedCredential::Access(claims) => DateTime::from_timestamp(claims.exp, 0),
            VerifiedCredential::Personal(_) | VerifiedCredential::Session { .. } => None,
        }
    }
}

/// Returns who calls, by a token that is valid in itself: whether it still holds is checked by [`run`]. A
/// query that the route does not accept, and a condition on something that has no tag, are refused after a
/// missing or invalid token.
pub(crate) async fn of(app: &App, request: &Request) -> Result<Caller, Problem> {
    let caller = by_token(app, request).await?;
    request.check_query()?;
    request.check_untagged()?;
    Ok(caller)
}

async fn by_token(app: &App, request: &Request) -> Result<Caller, Problem> {
    let user = Some(Arc::clone(request.user_account()));
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

/// Returns `caller`, authenticated if the request has a body that is worth refusing unread: any body of
/// a personal token, which is not signed, and a large one of an access token, which may be revoked.
async fn before_body(app: &App, request: &Request, caller: Caller) -> Result<Caller, Problem> {
    let free_bytes = match caller.credential {
        VerifiedCredential::Personal(_) => 0,
        VerifiedCredential::Access(_) | VerifiedCredential::Session { .. } => UNAUTHENTICATED_BYTES,
    };
    if request.may_exceed(free_bytes) {
        identity(app, &caller).await?;
    }
    Ok(caller)
}

/// Does `work` for whoever calls, in the transaction that also reads their session and user. It may run
/// several times before it commits.
pub(crate) async fn run<T, F, Fut>(app: &App, caller: &Caller, work: F) -> Result<T, Problem>
where
    T: Send,
    F: Fn(Transaction, Identity) -> Fut + Send + Sync,
    Fut: Future<Output = Result<T, Problem>> + Send,
{
    let attempted = attempt(app, caller, &work).await;
    let user = caller.user.as_ref().and_then(|user| user.get());
    let (Err(problem), Some(user)) = (&attempted, user) else { return attempted };
    if problem.code() != output::UNREAD {
        return attempted;
    }
    // It has not begun. The wait is outside of any transaction.
    app.output.admit(user).await?;
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
                let account = user.get_or_init(|| app.output.user(identity.user.id));
                app.output.require_room(account)?;
            }
            if let Some(scope) = caller.scope {
                identity.require_scope(scope)?;
            }
            work(tx, identity).await
        })
        .await
}

/// Who calls, as of now: for work that is done in transactions of its own.
pub(crate) async fn identity(app: &App, caller: &Caller) -> Result<Identity, Problem> {
    run(app, caller, |_, identity| async move { Ok(identity) }).await
}

/// Whether the request's refresh token is in a cookie.
pub(crate) fn has_cookies(app: &App, request: &Request) -> Result<bool, Problem> {
    Ok(app.config.cookies && app.config.cookie_prefix.refresh(request.headers())?.is_some())
}

/// The refresh token of the request's cookie.
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
        let message = "There must be a cookie or an Authorization header, not both.";
        return Err(Problem::bad_request("INVALID_REQUEST", message));
    }
    Ok(())
}

/// Refuses what another page may have had the browser send.
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
        let message = "The request does not show that it comes from the page that was signed in.";
        Err(Problem::forbidden(message).with_code("CSRF_REFUSED"))
    }
}
