//! Requests that are done once, however often they come (`Idempotency-Key`).
//!
//! The answer is written in the transaction of what it answers: the one is there if and only if the
//! other is. A key is a user's own, and good for 24 hours; another request with the same key is a
//! mistake, and is told so. A request that failed has changed nothing, and may be tried again.

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
    app::App,
    http::{Request, conditions::Tag, respond},
    problem::Problem,
    routes::Answer,
};

/// In which a client names a request.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// In which it is told that the answer is one that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest key, in bytes.
const KEY_BYTES: usize = 200;
/// The longest answer that can be kept, in bytes.
const ANSWER_BYTES: usize = 90_000;

/// What a client calls a request, if anything.
#[derive(Debug)]
pub(super) struct Once(Option<Named>);

#[derive(Debug)]
struct Named {
    key: String,
    /// The hash of all that was asked.
    request: [u8; 32],
}

/// What is answered where something was made.
pub(super) struct Made {
    location: String,
    etag: Option<String>,
    body: Vec<u8>,
}

impl Made {
    /// `data` was made, and lives at `location`.
    pub(super) fn at(
        location: String,
        data: &impl Serialize,
        tag: Option<&Tag>,
    ) -> Result<Self, Problem> {
        let etag = tag.map(|tag| tag.as_str().to_owned());
        Ok(Self { location, etag, body: respond::success(data)? })
    }

    fn answer(self) -> Answer {
        let mut answer = Response::new(respond::full(self.body));
        *answer.status_mut() = StatusCode::CREATED;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, respond::JSON);
        let location = HeaderValue::from_str(&self.location).map_err(Problem::internal)?;
        headers.insert(header::LOCATION, location);
        if let Some(etag) = self.etag {
            headers.insert(header::ETAG, Tag::new(etag).header()?);
        }
        Ok(answer)
    }
}

impl Once {
    /// What the client calls `request`, whose body was read.
    ///
    /// # Errors
    ///
    /// 400 if it is no name.
    pub(super) fn of(request: &Request) -> Result<Self, Problem> {
        let Some(key) = key(request.headers())? else { return Ok(Self(None)) };
        let hash = Sha256::new()
            .chain_update(request.method().as_str())
            .chain_update([0])
            .chain_update(request.uri().path())
            .chain_update([0])
            .chain_update(request.body_hash());
        Ok(Self(Some(Named { key, request: hash.finalize().into() })))
    }

    /// Does `work` for whoever calls, and answers with what it has made; or answers as before, if it was
    /// done before.
    pub(super) async fn run<F, Fut>(&self, app: &App, caller: &Caller, work: F) -> Answer
    where
        F: Fn(Transaction, Identity) -> Fut + Send + Sync,
        Fut: Future<Output = Result<Made, Problem>> + Send,
    {
        let (made, is_replayed) = caller::run(app, caller, |tx, identity| {
            let work = &work;
            async move {
                let Some(named) = &self.0 else { return Ok((work(tx, identity).await?, false)) };
                if let Some(made) = named.before(app, &tx, &identity).await? {
                    return Ok((made, true));
                }
                let made = work(tx.clone(), identity.clone()).await?;
                named.keep(app, &tx, &identity, &made).await?;
                Ok((made, false))
            }
        })
        .await?;
        let mut answer = made.answer()?;
        if is_replayed {
            answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(answer)
    }
}

impl Named {
    /// What was made by this request before, if it was.
    async fn before(
        &self,
        app: &App,
        tx: &Transaction,
        identity: &Identity,
    ) -> Result<Option<Made>, Problem> {
        let of = (identity.user.id, self.key.clone());
        let entry = tx.get::<IdempotencyEntry>(identity.tenant_id, of).await?;
        let entry = entry.filter(|entry| entry.expires_at > app.clock.now());
        let Some(entry) = entry else { return Ok(None) };
        if entry.request != self.request {
            let message = "This Idempotency-Key was used for another request.";
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                message,
            ));
        }
        let location = entry.location.unwrap_or_default();
        Ok(Some(Made { location, etag: entry.etag, body: entry.body }))
    }

    async fn keep(
        &self,
        app: &App,
        tx: &Transaction,
        identity: &Identity,
        made: &Made,
    ) -> Result<(), Problem> {
        if made.body.len() > ANSWER_BYTES {
            return Err(Problem::too_large(
                "This is too much for a request with an Idempotency-Key.",
            ));
        }
        let now = app.clock.now();
        let entry = IdempotencyEntry {
            tenant_id: identity.tenant_id,
            user_id: identity.user.id,
            key: self.key.clone(),
            request: self.request,
            status: StatusCode::CREATED.as_u16(),
            location: Some(made.location.clone()),
            body: made.body.clone(),
            created_at: now,
            expires_at: now + IdempotencyEntry::LIFE,
            etag: made.etag.clone(),
        };
        Ok(tx.upsert(&entry).await?)
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| {
        let is_sane = text.bytes().all(|byte| byte.is_ascii_graphic());
        (1..=KEY_BYTES).contains(&text.len()) && is_sane && keys.next().is_none()
    });
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        let message =
            format!("Idempotency-Key must be 1 to {KEY_BYTES} visible characters of ASCII, once.");
        Problem::bad_request("INVALID_IDEMPOTENCY_KEY", message)
    })
}
