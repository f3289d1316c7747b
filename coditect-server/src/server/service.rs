//! From a request to its response: id, limits, route, handler, log line.
//!
//! A request with an unsafe method runs in its own task, so that its handler completes even if the
//! client disconnects, and shutdown waits for it. A panic of a handler becomes a 500. Every request
//! gets a response.

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
        router::{Line, RouteMatch, RouteTarget, Routes},
    },
    config::Config,
    http::{
        Body, BodyLimits, HEADER_BLOCK_LIMIT_BYTES, HEADER_COUNT_LIMIT, HandlerResult, Request,
        RequestId, access_log,
        budget::Budget,
        client,
        connection::{Peer, Respond},
        cors::Cors,
        headers,
        intake::Intake,
        origin,
        problem::Problem,
        request::Accounts,
        respond,
    },
    log,
    state::App,
    telemetry,
};

/// Size that HTTP/2 adds per header (RFC 9113, section 6.5.2).
const HEADER_OVERHEAD_BYTES: usize = 32;

/// Responds to the requests of all connections.
pub(crate) struct Service {
    /// Unset until the store is open.
    app: OnceLock<Arc<App>>,
    config: Config,
    routes: Routes,
    tasks: TaskTracker,
    limits: BodyLimits,
    output: Arc<Budget>,
    requests: Arc<Budget>,
}

impl Service {
    pub(crate) fn new(
        config: Config,
        routes: Routes,
        limits: BodyLimits,
        (output, requests): (Arc<Budget>, Arc<Budget>),
    ) -> Self {
        let tasks = TaskTracker::new();
        Self { app: OnceLock::new(), config, routes, tasks, limits, output, requests }
    }

    /// Returns the budgets of responses and of request bodies.
    pub(crate) fn budgets(&self) -> (&Arc<Budget>, &Arc<Budget>) {
        (&self.output, &self.requests)
    }

    /// Sets the state for handlers. Until then, requests are refused because there is no store.
    pub(crate) fn begin(&self, app: Arc<App>) -> &Arc<App> {
        self.app.get_or_init(|| app)
    }

    pub(crate) fn app(&self) -> Option<&Arc<App>> {
        self.app.get()
    }

    /// Returns the running requests, including those whose clients have disconnected.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    async fn run(
        self: Arc<Self>,
        incoming: hyper::Request<Incoming>,
        peer: Peer,
        connection: Accounts,
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
        let RouteMatch { template, target } = match check(&parts.headers, &parts.uri, parts.version)
        {
            Ok(()) => self.routes.find(&method, parts.uri.path()),
            Err(problem) => {
                RouteMatch { template: "-", target: RouteTarget::Respond(Err(problem)) }
            }
        };
        let answer = match target {
            RouteTarget::Respond(answer) => answer,
            RouteTarget::Handler(..) if self.app.get().is_none() => health::without_store(template),
            RouteTarget::Handler(line, params) => {
                let answering = async {
                    check_content(&method, &parts.headers)?;
                    let client =
                        client::address(ip, &parts.headers, trusted_proxy, *forwarded_header);
                    let account = Arc::clone(&connection.requests);
                    let intake = Intake::new(Arc::clone(&self.requests), account);
                    let request =
                        Request::new(parts, body, id.clone(), client, self.limits, intake);
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
        respond::set_default_headers(response.headers_mut(), &id);
        headers::add_server_timing(response.headers_mut(), template, took);
        cors.mark(response.headers_mut());
        if is_secure {
            headers::add_hsts(response.headers_mut());
        }
        if method == Method::HEAD {
            response = respond::without_body(response);
        }
        response
    }

    /// Calls the handler of `line` and charges its response to the connection and the user.
    async fn handle(&self, line: &Line, request: Request, connection: Accounts) -> HandlerResult {
        self.output.admit(&connection.responses).await?;
        let (method, user) = (request.method().clone(), Arc::clone(request.user_accounts()));
        let response = self.call(line, request).await?;
        if method == Method::HEAD {
            return Ok(response);
        }
        let user = user.get().map(|accounts| Arc::clone(&accounts.responses));
        let accounts: Vec<_> = [connection.responses].into_iter().chain(user).collect();
        self.output.charge_body(response, &accounts, method.is_safe()).await
    }

    async fn call(&self, line: &Line, request: Request) -> HandlerResult {
        // Otherwise a missing login is reported first.
        if line.is_unauthenticated {
            request.check_query()?;
        }
        let span = tracing::info_span!("request", request_id = request.id().as_str());
        let Some(app) = self.app.get().cloned() else { return health::without_store("-") };
        // A handler may also panic before its first await.
        let handling = AssertUnwindSafe(async move { (line.handler)(app, request).await });
        handling.catch_unwind().instrument(span).await.unwrap_or_else(|panic| {
            let message = log::panic_message(panic.as_ref());
            Err(Problem::internal(format!("the handler panicked: {message}")))
        })
    }
}

impl Respond for Service {
    fn connection(&self) -> Accounts {
        Accounts { responses: self.output.connection(), requests: self.requests.connection() }
    }

    async fn answer(
        self: Arc<Self>,
        incoming: hyper::Request<Incoming>,
        peer: Peer,
        connection: Accounts,
    ) -> Response<Body> {
        let tasks = self.tasks.clone();
        let id = RequestId::choose(incoming.headers());
        // A safe request need not complete after its client has disconnected.
        if incoming.method().is_safe() {
            return tasks.track_future(self.run(incoming, peer, connection, id)).await;
        }
        let running = tasks.spawn(self.run(incoming, peer, connection, id.clone()));
        running.await.unwrap_or_else(|lost| {
            let mut response = Problem::internal(lost).to_response(&id);
            respond::set_default_headers(response.headers_mut(), &id);
            response
        })
    }
}

/// Checks a request independently of its route.
fn check(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<(), Problem> {
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES)
        .sum();
    // hyper enforces the limits of HTTP/1.1, which has no overhead per header.
    if version == Version::HTTP_2
        && (headers.len() > HEADER_COUNT_LIMIT || size > HEADER_BLOCK_LIMIT_BYTES)
    {
        return Err(Problem::header_too_large());
    }
    check_host(headers, uri, version)
}

/// Fails if the host is missing, occurs twice, or is not a host with an optional port.
fn check_host(headers: &HeaderMap, uri: &Uri, version: Version) -> Result<(), Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let is_named = host.is_some() || uri.authority().is_some() || version < Version::HTTP_11;
    if second.is_some() || !is_named {
        return Err(Problem::bad_request(
            "BAD_REQUEST",
            "The request must name its host exactly once.",
        ));
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = host.map(HeaderValue::as_bytes);
    // In HTTP/1.1 the target's authority overrides the header (RFC 9112, section 3.2.2); in HTTP/2
    // they must not differ (RFC 9113, section 8.3.1).
    let differs = version == Version::HTTP_2 && authority.zip(host).is_some_and(|(a, b)| a != b);
    if differs || !host.into_iter().chain(authority).all(origin::is_host) {
        let message =
            "The host of the request must be a host name or an address with an optional port.";
        return Err(Problem::bad_request("INVALID_HOST", message));
    }
    Ok(())
}

/// Refuses content that no route accepts: partial content, which would be stored as the whole if
/// `Content-Range` were ignored (RFC 9110, section 14.5), and encoded content (section 15.5.16).
fn check_content(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if method.is_safe() {
        return Ok(());
    }
    if headers.contains_key(header::CONTENT_RANGE) {
        let message = "Content-Range is not supported in requests. Send the whole content.";
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
    fn host_is_a_name_or_address_with_an_optional_port() {
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
