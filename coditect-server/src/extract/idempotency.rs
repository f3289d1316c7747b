//! Idempotent requests (`Idempotency-Key`).
//!
//! The response is stored in the transaction of its effect, so that one exists if and only if the
//! other does. A key belongs to a user and is valid for 24 hours; another request with the same key
//! is refused. A failed request has no effect and may be retried.
//!
//! A response with a secret is not stored, since the secret is shown once. Its repetition is
//! refused with 409 and the `Location` of the resource, which the client can delete and create
//! again.

use coditect_auth::Identity;
use coditect_store::{Transaction, model::IdempotencyEntry};
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::caller::{self, Caller};
use crate::{
    config::FILE_POLICY,
    http::{HandlerResult, Request, conditions::ETag, problem::Problem, respond},
    state::App,
};

/// Request header with the key.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Response header that marks a repeated response.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// Maximum length of a key, in bytes.
const MAX_KEY_BYTES: usize = 200;
/// Maximum size of a stored response, in bytes.
const MAX_RESPONSE_BYTES: usize = 90_000;
/// Bytes of stored responses that a tenant may have beyond its quota, so that one at its quota can
/// still move files and close sessions.
const RESERVED_BYTES: i64 = 64 << 20;

/// The idempotency key of a request, if it has one.
#[derive(Debug)]
pub(crate) struct Idempotency(Option<IdempotentRequest>);

#[derive(Debug)]
struct IdempotentRequest {
    key: String,
    /// Hash of the method, path and content.
    request: [u8; 32],
}

/// The response to a request that created or changed a resource.
pub(crate) struct Created {
    status: StatusCode,
    location: Option<String>,
    etag: Option<String>,
    body: Vec<u8>,
    /// Whether the body has a secret, which is not stored.
    is_secret: bool,
}

impl Created {
    /// Creates a 201: `data` was created at `location`.
    pub(crate) fn at(
        location: String,
        data: &impl Serialize,
        tag: Option<&ETag>,
    ) -> Result<Self, Problem> {
        let made = Self::changed(data, tag)?;
        Ok(Self { status: StatusCode::CREATED, location: Some(location), ..made })
    }

    /// Creates a 201 for `data` with a secret.
    pub(crate) fn secret_at(location: String, data: &impl Serialize) -> Result<Self, Problem> {
        Ok(Self { is_secret: true, ..Self::at(location, data, None)? })
    }

    /// Creates a 200: `data` was changed, or already existed.
    pub(crate) fn changed(data: &impl Serialize, tag: Option<&ETag>) -> Result<Self, Problem> {
        let etag = tag.map(|tag| tag.as_str().to_owned());
        let (status, body) = (StatusCode::OK, respond::success(data)?);
        Ok(Self { status, location: None, etag, body, is_secret: false })
    }

    fn answer(self) -> HandlerResult {
        let mut answer = Response::new(respond::full(self.body));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, respond::JSON);
        if let Some(location) = self.location {
            let location = HeaderValue::from_str(&location).map_err(Problem::internal)?;
            headers.insert(header::LOCATION, location);
        }
        if let Some(etag) = self.etag {
            headers.insert(header::ETAG, ETag::new(etag).header()?);
        }
        Ok(answer)
    }
}

impl Idempotency {
    /// Reads the key of `request`, whose body was read.
    ///
    /// # Errors
    ///
    /// 400 if the key is malformed.
    pub(crate) fn of(request: &Request) -> Result<Self, Problem> {
        Self::of_hash(request, request.body_hash())
    }

    /// Like [`of`](Self::of), for a request identified by `content` instead of its body, which has
    /// a password.
    ///
    /// # Errors
    ///
    /// Same as [`of`](Self::of).
    pub(crate) fn of_content(request: &Request, content: &impl Serialize) -> Result<Self, Problem> {
        let content = serde_json::to_vec(content).map_err(Problem::internal)?;
        Self::of_hash(request, Sha256::digest(&content).into())
    }

    fn of_hash(request: &Request, content: [u8; 32]) -> Result<Self, Problem> {
        let Some(key) = key(request.headers())? else { return Ok(Self(None)) };
        let hash = Sha256::new()
            .chain_update(request.method().as_str())
            .chain_update([0])
            .chain_update(request.uri().path())
            .chain_update([0])
            .chain_update(content);
        Ok(Self(Some(IdempotentRequest { key, request: hash.finalize().into() })))
    }

    /// Runs `work` for the caller and returns its response, or the stored response of a repeated
    /// request.
    pub(crate) async fn run<F, Fut>(&self, app: &App, caller: &Caller, work: F) -> HandlerResult
    where
        F: Fn(Transaction, Identity) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Created, Problem>> + Send,
    {
        let work = |tx, identity| {
            let made = work(tx, identity);
            async move { Ok((made.await?, ())) }
        };
        self.run_with(app, caller, work).await?.0.answer()
    }

    /// Like [`run`](Self::run), for work with an additional result; `None` for a repeated request.
    pub(crate) async fn run_with<T, F, Fut>(
        &self,
        app: &App,
        caller: &Caller,
        work: F,
    ) -> Result<(Outcome, Option<T>), Problem>
    where
        T: Send,
        F: Fn(Transaction, Identity) -> Fut + Send + Sync,
        Fut: Future<Output = Result<(Created, T), Problem>> + Send,
    {
        caller::transact(app, caller, |tx, identity| {
            let work = &work;
            async move {
                if let Some(before) = self.before(app, &tx, &identity).await? {
                    return Ok((before, None));
                }
                let (made, result) = work(tx.clone(), identity.clone()).await?;
                Ok((self.keep(app, &tx, &identity, made).await?, Some(result)))
            }
        })
        .await
    }

    /// Returns the stored outcome of a repeated request.
    pub(crate) async fn before(
        &self,
        app: &App,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<Option<Outcome>, Problem> {
        let Some(named) = &self.0 else { return Ok(None) };
        let made = named.before(app, tx, identity).await?;
        Ok(made.map(|made| Outcome { made, is_replayed: true }))
    }

    /// Stores the response of this request in its transaction `tx`.
    pub(crate) async fn keep(
        &self,
        app: &App,
        tx: &Transaction,
        identity: &Identity,
        made: Created,
    ) -> Result<Outcome, Problem> {
        if let Some(named) = &self.0 {
            named.keep(app, tx, identity, &made).await?;
        }
        Ok(Outcome { made, is_replayed: false })
    }
}

/// A new or repeated response.
pub(crate) struct Outcome {
    made: Created,
    is_replayed: bool,
}

impl Outcome {
    /// Returns the response.
    pub(crate) fn answer(self) -> HandlerResult {
        let mut answer = self.made.answer()?;
        if self.is_replayed {
            answer.headers_mut().insert(REPLAYED, TRUE);
        }
        Ok(answer)
    }
}

impl IdempotentRequest {
    /// Returns the stored response, if there is one.
    async fn before(
        &self,
        app: &App,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<Option<Created>, Problem> {
        let of = (identity.user.id, self.key.clone());
        let entry = tx.get::<IdempotencyEntry>(identity.tenant_id, of).await?;
        let entry = entry.filter(|entry| entry.expires_at > app.clock.now());
        let Some(entry) = entry else { return Ok(None) };
        if entry.request != self.request {
            let message = "This Idempotency-Key was already used for a different request.";
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                message,
            ));
        }
        let IdempotencyEntry { status, location, etag, body, .. } = entry;
        if body.is_empty() {
            return Err(shown_once(location));
        }
        let status = StatusCode::from_u16(status).map_err(Problem::internal)?;
        Ok(Some(Created { status, location, etag, body, is_secret: false }))
    }

    async fn keep(
        &self,
        app: &App,
        tx: &Transaction,
        identity: &Identity,
        made: &Created,
    ) -> Result<(), Problem> {
        if made.body.len() > MAX_RESPONSE_BYTES {
            return Err(Problem::too_large(
                "The response is too large for a request with an Idempotency-Key.",
            ));
        }
        let now = app.clock.now();
        let entry = IdempotencyEntry {
            tenant_id: identity.tenant_id,
            user_id: identity.user.id,
            key: self.key.clone(),
            request: self.request,
            status: made.status.as_u16(),
            location: made.location.clone(),
            // Only a response that is not stored is empty.
            body: if made.is_secret { Vec::new() } else { made.body.clone() },
            created_at: now,
            expires_at: now + IdempotencyEntry::LIFE,
            etag: made.etag.clone(),
        };
        Ok(entry.keep(tx, FILE_POLICY.bytes.saturating_add(RESERVED_BYTES)).await?)
    }
}

/// Returns 409 for the repetition of a request whose response had a secret.
fn shown_once(location: Option<String>) -> Problem {
    let message = "This request was already processed, and its response had a secret that is shown \
                   idempotency. If you lost it, delete the resource at Location and create \
                   another.";
    let problem = Problem::conflict("SECRET_SHOWN_ONCE", message).with_header(REPLAYED, TRUE);
    match location.and_then(|location| HeaderValue::from_str(&location).ok()) {
        Some(location) => problem.with_header(header::LOCATION, location),
        None => problem,
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| {
        let is_sane = text.bytes().all(|byte| byte.is_ascii_graphic());
        (1..=MAX_KEY_BYTES).contains(&text.len()) && is_sane && keys.next().is_none()
    });
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        let message = format!(
            "The request must have one Idempotency-Key of 1 to {MAX_KEY_BYTES} visible \
                ASCII characters."
        );
        Problem::bad_request("INVALID_IDEMPOTENCY_KEY", message)
    })
}
