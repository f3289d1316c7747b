//! A request as a handler sees it: its head, its path's parameters, and its body, once.
//!
//! Identity is not in it; a handler gets that from auth, by the [bearer](super::bearer) token.

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
    body::{self, BodyLimits, Pace},
    conditions::Conditions,
    document,
    output::Account,
    problem::Problem,
    query,
};

/// What a route accepts, apart from its handler.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteRules {
    /// The parameters that the query may have; `None` if any.
    pub(crate) accepted_query: Option<Arc<[&'static str]>>,
    /// Whether it changes something that has no entity tag, so that preconditions are checked for its
    /// handler.
    pub(crate) is_untagged: bool,
}

/// The account of the user that a request is authenticated as, once it is.
pub(crate) type UserAccount = Arc<OnceLock<Arc<Account>>>;

/// One request, routed. Its `Debug` shows nothing that the client sent.
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
    user: UserAccount,
}

impl Request {
    pub(crate) fn new(
        parts: Parts,
        body: Incoming,
        id: RequestId,
        client: ClientAddress,
        limits: BodyLimits,
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
            user: UserAccount::default(),
        }
    }

    /// Returns where the account of the request's user is put.
    pub(crate) fn user_account(&self) -> &UserAccount {
        &self.user
    }

    /// With the parameters that its route found in its path, decoded.
    pub(crate) fn with_params(mut self, params: Vec<(String, String)>) -> Self {
        self.params = params;
        self
    }

    /// Sets the rules of its route.
    pub(crate) fn with_rules(self, rules: &RouteRules) -> Self {
        Self { rules: rules.clone(), ..self }
    }

    /// Checks that the query has no parameter that the route does not accept.
    ///
    /// # Errors
    ///
    /// Fails with 400, naming the parameters.
    pub(crate) fn check_query(&self) -> Result<(), Problem> {
        let query = self.parts.uri.query().unwrap_or_default();
        self.rules
            .accepted_query
            .as_deref()
            .map_or(Ok(()), |names| query::check_names(query, names))
    }

    /// Checks the preconditions of a change of something that has no tag; other handlers check their own.
    ///
    /// # Errors
    ///
    /// Fails with 400 or 412.
    pub(crate) fn check_untagged(&self) -> Result<(), Problem> {
        if self.rules.is_untagged { Conditions::of(self)?.require_untagged() } else { Ok(()) }
    }

    /// The method. A HEAD that goes to the handler of GET is still a HEAD here.
    pub fn method(&self) -> &Method {
        &self.parts.method
    }

    /// The version of HTTP that it came by.
    pub fn version(&self) -> hyper::Version {
        self.parts.version
    }

    /// The target, with the query as it was sent.
    pub fn uri(&self) -> &Uri {
        &self.parts.uri
    }

    /// The headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The id that the answer will bear.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// Returns the client's address: that of the connection's peer, or of the client that trusted proxies
    /// name.
    pub fn client(&self) -> ClientAddress {
        self.client
    }

    /// The decoded parameter `name` of the route's template.
    ///
    /// # Errors
    ///
    /// The template has no such parameter, which is our fault: 500.
    pub fn param(&self, name: &'static str) -> Result<&str, Problem> {
        self.params
            .iter()
            .find_map(|(key, value)| (key == name).then_some(value.as_str()))
            .ok_or_else(|| Problem::internal(format!("the route has no parameter {name}")))
    }

    /// The parameter `name`, parsed: an id, most often.
    ///
    /// # Errors
    ///
    /// 404 where it cannot be parsed: nothing has such a name.
    pub fn parse_param<T: FromStr>(&self, name: &'static str) -> Result<T, Problem> {
        self.param(name)?.parse().map_err(|_| Problem::not_found())
    }

    /// Reads the JSON body. A body is read once; it is missing the second time.
    ///
    /// # Errors
    ///
    /// 400, 408, 413, 415 or 422, as the body has it; 400 also where there is none.
    pub async fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        self.optional_json()
            .await?
            .ok_or_else(|| Problem::bad_request("EMPTY_BODY", "The request needs a JSON body."))
    }

    /// Reads the JSON body, where there is one.
    ///
    /// # Errors
    ///
    /// Those of [`json`](Self::json), but for the missing body.
    pub async fn optional_json<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Problem> {
        let Some(body) = self.body.take() else {
            return Ok(None);
        };
        match body::read_json(&self.parts.headers, body, self.limits).await? {
            Some(bytes) => {
                self.body_hash = Sha256::digest(&bytes).into();
                document::parse(&bytes).map(Some)
            }
            None => Ok(None),
        }
    }

    /// The SHA-256 of the JSON body that was read; zeros if none was.
    pub(crate) fn body_hash(&self) -> [u8; 32] {
        self.body_hash
    }

    /// How long the body says that it is, in bytes: 0 where it says nothing.
    pub fn announced_bytes(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| body.size_hint().lower())
    }

    /// Returns whether the body may be longer than `bytes`: by its length, or as it announces none.
    pub(crate) fn may_exceed(&self, bytes: u64) -> bool {
        let hint = self.body.as_ref().map(hyper::body::Body::size_hint);
        hint.is_some_and(|hint| hint.upper().is_none_or(|upper| upper > bytes))
    }

    /// The next piece of a body of any type and size, `None` after the last: the caller bounds it.
    ///
    /// # Errors
    ///
    /// 408 when it stalls, or trickles; 400 when it breaks off.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Problem> {
        match &mut self.body {
            Some(body) => self.pace.next_frame(body).await,
            None => Ok(None),
        }
    }

    /// hyper's own request, for an upgrade of the connection; `None` once the body was read.
    pub fn into_hyper(self) -> Option<hyper::Request<Incoming>> {
        let body = self.body?;
        Some(hyper::Request::from_parts(self.parts, body))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("id", &self.id).finish_non_exhaustive()
    }
}
