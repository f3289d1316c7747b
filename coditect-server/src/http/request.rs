//! A request as seen by a handler: its head, path parameters, and body.
//!
//! It does not carry the caller's identity, which auth derives from the [bearer](super::bearer)
//! token.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Uri,
    body::{Body as _, Incoming},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::{
    ClientAddress, RequestId,
    body::{self, BodyLimits, Charging, Pace},
    budget::Account,
    conditions::Preconditions,
    document::Document,
    intake::{self, Intake, STRANGERS_BODY_BYTES},
    problem::Problem,
    query,
};

/// Rules of a route that apply to all its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteRules {
    /// Accepted query parameters; any if `None`.
    pub(crate) accepted_query: Option<Arc<[&'static str]>>,
    /// Whether the route changes a resource without an entity tag.
    pub(crate) is_untagged: bool,
    /// Whether it takes no login, so that its JSON body is limited to that of a stranger.
    pub(crate) is_unauthenticated: bool,
}

/// Slot for the accounts of the authenticated user.
pub(crate) type UserAccounts = Arc<OnceLock<Accounts>>;

/// The accounts of a user, or of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Accounts {
    /// For responses.
    pub(crate) responses: Arc<Account>,
    /// For request bodies.
    pub(crate) requests: Arc<Account>,
}

/// A routed request. `Debug` shows no data of the client.
pub struct Request {
    parts: Parts,
    body: Option<Incoming>,
    body_hash: [u8; 32],
    pace: Pace,
    params: Vec<(String, String)>,
    rules: RouteRules,
    id: RequestId,
    client: ClientAddress,
    limits: BodyLimits,
    user: UserAccounts,
    intake: Intake,
}

impl Request {
    pub(crate) fn new(
        parts: Parts,
        body: Incoming,
        id: RequestId,
        client: ClientAddress,
        limits: BodyLimits,
        intake: Intake,
    ) -> Self {
        let pace = Pace::new(limits.stall_timeout);
        Self {
            parts,
            body: Some(body),
            body_hash: [0; 32],
            pace,
            params: Vec::new(),
            rules: RouteRules::default(),
            id,
            client,
            limits,
            user: UserAccounts::default(),
            intake,
        }
    }

    /// Returns the slot for the accounts of the request's user.
    pub(crate) fn user_accounts(&self) -> &UserAccounts {
        &self.user
    }

    /// Adds the decoded parameters of the path.
    pub(crate) fn with_params(mut self, params: Vec<(String, String)>) -> Self {
        self.params = params;
        self
    }

    /// Adds the rules of the route: accepted query parameters, and whether it changes a resource
    /// without an entity tag.
    pub(crate) fn with_rules(mut self, rules: &RouteRules) -> Self {
        if rules.is_unauthenticated {
            let limit = &mut self.limits.json_limit_bytes;
            *limit = STRANGERS_BODY_BYTES.min(*limit);
        }
        Self { rules: rules.clone(), ..self }
    }

    /// Checks that the route accepts all query parameters.
    ///
    /// # Errors
    ///
    /// Fails with 400, naming the unknown parameters.
    pub(crate) fn check_query(&self) -> Result<(), Problem> {
        let query = self.parts.uri.query().unwrap_or_default();
        self.rules
            .accepted_query
            .as_deref()
            .map_or(Ok(()), |names| query::check_names(query, names))
    }

    /// Checks the preconditions on a resource without an entity tag. Other handlers check their
    /// own.
    ///
    /// # Errors
    ///
    /// Fails with 400 or 412.
    pub(crate) fn check_untagged(&self) -> Result<(), Problem> {
        if self.rules.is_untagged { Preconditions::of(self)?.require_untagged() } else { Ok(()) }
    }

    /// Returns the method; HEAD for a HEAD request, although the handler of GET runs.
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// Returns the HTTP version.
    pub fn version(&self) -> hyper::Version {
        self.parts.version
    }

    /// Returns the target, with the query as sent.
    pub fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// Returns the headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// Returns the request id of the response.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Returns the client's address: the peer of the connection, or the client named by trusted
    /// proxies.
    pub fn client(&self) -> ClientAddress {
        self.client
    }

    /// Returns the decoded path parameter `name`.
    ///
    /// # Errors
    ///
    /// 500 if the template has no such parameter.
    pub fn param(&self, name: &'static str) -> Result<&str, Problem> {
        self.params
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
            .ok_or_else(|| Problem::internal(format!("the route has no parameter {name}")))
    }

    /// Parses the path parameter `name`, usually an id.
    ///
    /// # Errors
    ///
    /// 404 if it cannot be parsed, since no resource has such a name.
    pub fn parse_param<T: FromStr>(&self, name: &'static str) -> Result<T, Problem> {
        self.param(name)?.parse().map_err(|_| Problem::not_found())
    }

    /// Reads the JSON body, which can be read once.
    ///
    /// # Errors
    ///
    /// 400, 408, 413, 415 or 422, depending on the body; 400 without a body.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        self.optional_json()
            .await?
            .ok_or_else(|| Problem::bad_request("EMPTY_BODY", "The request needs a JSON body."))
    }

    /// Reads the JSON body, if there is one.
    ///
    /// # Errors
    ///
    /// Same as [`json`](Self::json), except for a missing body.
    pub async fn optional_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Problem> {
        let Some(body) = self.body.take() else {
            return Ok(None);
        };
        let mut charge = BodyCharge { intake: &mut self.intake, user: &self.user };
        let read = body::read_json(&self.parts.headers, body, self.limits, &mut charge).await?;
        let Some(bytes) = read else { return Ok(None) };
        self.body_hash = Sha256::digest(&bytes).into();
        let document = Document::check(&bytes)?;
        charge.grow(intake::parsed_bytes(bytes.len(), document.values)).await?;
        document.read().map(Some)
    }

    /// Reads a body of any type and at most `limit_bytes`.
    ///
    /// # Errors
    ///
    /// 413 if it is longer; 429 or 503 if too many are being read; those of
    /// [`next_chunk`](Self::next_chunk).
    pub(crate) async fn bytes(&mut self, limit_bytes: usize) -> Result<Vec<u8>, Problem> {
        let mut content = Vec::new();
        while let Some(chunk) = self.next_chunk().await? {
            if content.len() + chunk.len() > limit_bytes {
                return Err(Problem::payload_too_large(limit_bytes));
            }
            content.reserve(chunk.len());
            self.charge(content.capacity()).await?;
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    /// Charges for `bytes` of the body that are in memory at once.
    ///
    /// # Errors
    ///
    /// 429 or 503 if there is no room for them.
    pub(crate) async fn charge(&mut self, bytes: usize) -> Result<(), Problem> {
        let mut charge = BodyCharge { intake: &mut self.intake, user: &self.user };
        charge.grow(bytes as u64).await
    }

    /// Returns the SHA-256 of the JSON body that was read; zeros without one.
    pub(crate) fn body_hash(&self) -> [u8; 32] {
        self.body_hash
    }

    /// Returns the announced length of the body, in bytes; 0 without one.
    pub fn announced_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size_hint().lower())
    }

    /// Returns whether the body may be longer than `bytes`, by its announced length or for lack of
    /// one.
    pub(crate) fn may_exceed(&self, bytes: u64) -> bool {
        let hint = self.body.as_ref().map(hyper::body::Body::size_hint);
        hint.is_some_and(|hint| hint.upper().is_none_or(|upper| upper > bytes))
    }

    /// Returns the next piece of a body of any type, `None` after the last. The caller limits the
    /// size.
    ///
    /// # Errors
    ///
    /// 408 after a stall or below the minimum rate; 400 if the body is incomplete.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        match &mut self.body {
            Some(body) => self.pace.next_frame(body).await,
            None => Ok(None),
        }
    }

    /// Returns hyper's request, for an upgrade; `None` after the body was read.
    pub fn into_hyper(self) -> Option<hyper::Request<Incoming>> {
        let body = self.body?;
        Some(hyper::Request::from_parts(self.parts, body))
    }
}

/// The charge for the body of a request, to its user if that is known.
struct BodyCharge<'a> {
    intake: &'a mut Intake,
    user: &'a UserAccounts,
}

impl Charging for BodyCharge<'_> {
    async fn grow(&mut self, bytes: u64) -> Result<(), Problem> {
        let user = self.user.get().map(|accounts| &accounts.requests);
        self.intake.grow(user, bytes).await
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("id", &self.id).finish_non_exhaustive()
    }
}
