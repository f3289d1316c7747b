//! From a request to its answer: its id, its limits, its route, its handler, its line in the log.
//!
//! A request that changes something runs in a task of its own, so its handler runs to its end when the
//! client leaves, and a stopping server waits for all. A handler's panic is its own request's 500. What comes
//! out is always an answer, never an error.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
};

use futures_util::FutureExt;
use hyper::{
    HeaderMap, Method, Response, Uri, Version,
    body::Incoming,
    header::{self, HeaderValue},
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::{
    api::{
        health,
        router::{Found, Line, Routes, Step},
    },
    config::Config,
    http::{
        Body, BodyLimits, HEADER_BLOCK_LIMIT_BYTES, HEADER_COUNT_LIMIT, HandlerResult, Request,
        RequestId, access_log, client,
        connection::{Peer, Respond},
        cors::Cors,
        headers, origin,
        output::{Account, Output},
        problem::Problem,
        respond,
    },
    log,
    state::App,
    telemetry,
};

/// What HTTP/2 counts for a header beside its name and value (RFC 9113, section 6.5.2).
const HEADER_OVERHEAD_BYTES: usize = 32;

/// Answers requests, of all connections.
pub(crate) struct Service {
    /// None until the store is there.
    app: OnceLock<Arc<App>>,
    config: Config,
    routes: Routes,
    tasks: TaskTracker,
    limits: BodyLimits,
    output: Arc<Output>,
}

impl Service {
    pub(crate) fn new(
        config: Config,
        routes: Routes,
        limits: BodyLimits,
        output: Arc<Output>,
    ) -> Self {
        let tasks = TaskTracker::new();
        Self { app: OnceLock::new(), config, routes, tasks, limits, output }
    }

    /// Has requests answered by `app`; until then there is no store, and they are told so.
    pub(crate) fn begin(&self, app: Arc<App>) -> &Arc<App> {
        self.app.get_or_init(|| app)
    }

    pub(crate) fn app(&self) -> Option<&Arc<App>> {
        self.app.get()
    }

    /// The requests that run, whether or not their clients are still there.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    async fn run(
        self: Arc<Self>,
        incoming: hyper::Request<Incoming>,
        peer: Peer,
        connection: Arc<Account>,
        id: RequestId,
    ) -> Response<Body> {
        let started_at = Instant::now();
        let in_flight = telemetry::in_flight();
        let (parts, body) = incoming.into_parts();
        let method = parts.method.clone();
        let Config { trusted_proxy, forwarded_header, .. } = &self.config;
        let cors =
            Cors::of(&self.config.allowed_origin, self.config.cookies, &method, &parts.headers);
        let ip = peer.address.ip();
        let is_secure = peer.is_secure
            || client::is_secure(ip, &parts.headers, trusted_proxy, *forwarded_header);
        let Found { template, step } = match check(&parts.headers, &parts.uri, parts.version) {
            Ok(()) => self.routes.find(&method, parts.uri.path()),
            Err(problem) => Found { template: "-", step: Step::Say(Err(problem)) },
        };
        let answer = match step {
            Step::Say(answer) => answer,
            Step::Call(..) if self.app.get().is_none() => health::without_store(template),
            Step::Call(line, params) => {
                let answering = async {
                    check_content(&method, &parts.headers)?;
                    let client =
                        client::address(ip, &parts.headers, trusted_proxy, *forwarded_header);
                    let request = Request::new(parts, body, id.clone(), client, self.limits);
                    let request = request.with_params(params).with_rules(&line.rules);
                    self.handle(line, request, connection).await
                };
                answering.await
            }
        };
        let (mut response, problem) = match answer {
            Ok(response) => (response, None),
            Err(problem) => (problem.to_response(&id), Some(problem)),
        };
        drop(in_flight);
        let (status, took) = (response.status(), started_at.elapsed());
        telemetry::answered(template, &method, status, took);
        access_log::Line {
            method: &method,
            route: template,
            status,
            took,
            request_id: &id,
            cause: problem
                .as_ref()
                .filter(|it| it.status().is_server_error())
                .and_then(Problem::cause),
        }
        .write();
        respond::mark(response.headers_mut(), &id);
        headers::tell_time(response.headers_mut(), template, took);
        cors.mark(response.headers_mut());
        if is_secure {
            headers::stay_secure(response.headers_mut());
        }
        if method == Method::HEAD {
            response = respond::without_body(response);
        }
        response
    }

    /// Calls the handler of `line` and charges its response to the connection and the user.
    async fn handle(
        &self,
        line: &Line,
        request: Request,
        connection: Arc<Account>,
    ) -> HandlerResult {
        self.output.admit(&connection).await?;
        let (method, user) = (request.method().clone(), Arc::clone(request.user_account()));
        let response = self.call(line, request).await?;
        if method == Method::HEAD {
            return Ok(response);
        }
        let accounts: Vec<_> = [connection].into_iter().chain(user.get().cloned()).collect();
        self.output.charge_body(response, &accounts, method.is_safe()).await
    }

    async fn call(&self, line: &Line, request: Request) -> HandlerResult {
        // With a login, whoever has none is refused first.
        if line.is_open {
            request.check_query()?;
        }
        let span = tracing::info_span!("request", request_id = request.id().as_str());
        let Some(app) = self.app.get().cloned() else { return health::without_store("-") };
        // A handler may panic before its first await, too.
        let handling = AssertUnwindSafe(async move { (line.handler)(app, request).await });
        handling.catch_unwind().instrument(span).await.unwrap_or_else(|panic| {
            let message = log::panic_message(panic.as_ref());
            Err(Problem::internal(format!("the handler panicked: {message}")))
        })
    }
}

impl Respond for Service {
    fn output(&self) -> &Arc<Output> {
        &self.output
    }

    async fn answer(
        self: Arc<Self>,
        incoming: hyper::Request<Incoming>,
        peer: Peer,
        connection: Arc<Account>,
    ) -> Response<Body> {
        let tasks = self.tasks.clone();
        let id = RequestId::choose(incoming.headers());
        // Who only reads needs nobody to go on when they have left.
        if incoming.method().is_safe() {
            return tasks.track_future(self.run(incoming, peer, connection, id)).await;
        }
        let running = tasks.spawn(self.run(incoming, peer, connection, id.clone()));
        running.await.unwrap_or_else(|lost| {
            let mut response = Problem::internal(lost).to_response(&id);
            respond::mark(response.headers_mut(), &id);
            response
        })
    }
}

/// What holds for a request whatever its route.
fn check(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<(), Problem> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES)
        .sum();
    // HTTP/1.1's limits are hyper's; the overhead would count against it.
    if version == Version::HTTP_2
        && (headers.len() > HEADER_COUNT_LIMIT || size > HEADER_BLOCK_LIMIT_BYTES)
    {
        return Err(Problem::header_too_large());
    }
    check_host(headers, uri, version)
}

/// Refuses a request whose host is missing, given twice, or not a host with an optional port.
fn check_host(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let is_named = host.is_some() || uri.authority().is_some() || version < Version::HTTP_11;
    if second.is_some() || !is_named {
        return Err(Problem::bad_request("BAD_REQUEST", "The request must name its host, once."));
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.map(HeaderValue::as_bytes);
    // HTTP/1.1 replaces the header by the target's authority (RFC 9112, section 3.2.2); HTTP/2 has no two
    // different ones (RFC 9113, section 8.3.1).
    let differs = version == Version::HTTP_2 && authority.zip(host).is_some_and(|(a, b)| a != b);
    if differs || !host.into_iter().chain(authority).all(origin::is_host) {
        let message =
            "The request's host is not a host name or an address, with a port or without.";
        return Err(Problem::bad_request("INVALID_HOST", message));
    }
    Ok(())
}

/// Refuses content in a form that no route accepts: a part of it, which a server that passed over
/// `Content-Range` would store as the whole (RFC 9110, section 14.5), or encoded (section 15.5.16).
fn check_content(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if method.is_safe() {
        return Ok(());
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        let message = "Content-Range is not supported in requests: send the whole content.";
        return Err(Problem::bad_request("CONTENT_RANGE_NOT_SUPPORTED", message));
    }
    let codings = headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let mut codings =
        codings.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    if codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")) {
        return Err(Problem::unsupported_encoding());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        lines
            .iter()
            .map(|(name, text)| (header::HeaderName::from_static(name), value(text)))
            .collect()
    }

    #[test]
    fn host_is_one_name_or_address_with_an_optional_port() {
        let code = |version, target: &str, lines: &[(&'static str, &str)]| {
            let checked = check_host(&headers(lines), &target.parse().unwrap(), version);
            checked.err().map(|problem| problem.code())
        };
        let (v1, v2) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(code(v1, "/x", &[("host", "a.example:8080")]), None);
        assert_eq!(code(v1, "http://a.example/x", &[("host", "b.example")]), None);
        assert_eq!(code(Version::HTTP_10, "/x", &[]), None);
        assert_eq!(code(v1, "/x", &[]), Some("BAD_REQUEST"));
        assert_eq!(code(v1, "/x", &[("host", "a"), ("host", "a")]), Some("BAD_REQUEST"));
        assert_eq!(code(v1, "/x", &[("host", "a b")]), Some("INVALID_HOST"));
        assert_eq!(code(v1, "http://ada@a.example/x", &[]), Some("INVALID_HOST"));
        assert_eq!(code(v2, "http://a.example/x", &[("host", "a.example")]), None);
        assert_eq!(code(v2, "http://a.example/x", &[("host", "b.example")]), Some("INVALID_HOST"));
    }

    #[test]
    fn partial_and_encoded_content_is_refused() {
        let code = |method, name, value| {
            let checked = check_content(&method, &headers(&[(name, value)]));
            checked.err().map(|problem| problem.code())
        };
        for method in [Method::PUT, Method::PATCH, Method::POST] {
            let range = code(method.clone(), "content-range", "bytes 0-1/2");
            assert_eq!(range, Some("CONTENT_RANGE_NOT_SUPPORTED"));
            for coding in ["gzip", "br", "identity, gzip", "x"] {
                let encoded = code(method.clone(), "content-encoding", coding);
                assert_eq!(encoded, Some("UNSUPPORTED_CONTENT_ENCODING"), "{coding}");
            }
            assert_eq!(code(method, "content-encoding", "Identity"), None);
        }
        assert_eq!(code(Method::GET, "content-range", "bytes 0-1/2"), None);
    }
}
