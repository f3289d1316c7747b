//! The routing table.
//!
//! To add a route, write an `async fn name(app: Arc<App>, request: Request) -> HandlerResult` in
//! `api/v5/` and add a line to `table`. Paths are matched as sent and parameters are decoded
//! afterwards, so that an encoded slash never starts a new segment. HEAD is served by the handler
//! of GET, and every path responds to OPTIONS; neither needs a line. Paths outside of the table and
//! the API belong to the [frontend].

use std::{pin::Pin, sync::Arc};

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::{
    fallback, health, metrics, openapi,
    v5::{
        agents, audit, auth, conversations, files, holdings, memory,
        parts::{Document, UpdateMode},
        sessions, settings, socket, state,
    },
};
use crate::{
    frontend,
    http::{HandlerResult, Request, problem::Problem, request::RouteRules, respond},
    openapi::Operation,
    state::App,
};

/// The future of a handler.
pub(crate) type Handling = Pin<Box<dyn Future<Output = HandlerResult> + Send>>;

/// A type-erased handler.
pub(crate) type Handler = Box<dyn Fn(Arc<App>, Request) -> Handling + Send + Sync>;

/// Returns all routes.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn table() -> Vec<Route> {
    use Document::{Editor, Terminal};
    use UpdateMode::{Merge, Replace};
    use state::{save, show};

    vec![
        route(Method::GET,    "/healthz",                 health::alive),
        route(Method::GET,    "/readyz",                  health::ready),
        route(Method::GET,    "/metrics",                 metrics::show),
        route(Method::GET,    "/api/v5/health",           health::show),
        route(Method::GET,    "/api/v5/openapi.json",     openapi::show),

        route(Method::POST,   "/api/v5/auth/register",    auth::register),
        route(Method::GET,    "/api/v5/auth/registration",           auth::registration),
        route(Method::POST,   "/api/v5/auth/login",       auth::login),
        route(Method::POST,   "/api/v5/auth/refresh",     auth::refresh),
        route(Method::POST,   "/api/v5/auth/logout",      auth::logout),
        route(Method::GET,    "/api/v5/auth/me",          auth::me),

        route(Method::PUT,    "/api/v5/auth/password",               auth::password::change),
        route(Method::POST,   "/api/v5/auth/password-reset",         auth::password::ask),
        route(Method::POST,   "/api/v5/auth/password-reset/confirm", auth::password::reset),
        route(Method::GET,    "/api/v5/auth/sessions",               auth::devices::list),
        route(Method::DELETE, "/api/v5/auth/sessions",               auth::devices::revoke_others),
        route(Method::PATCH,  "/api/v5/auth/sessions/{id}",          auth::devices::rename),
        route(Method::DELETE, "/api/v5/auth/sessions/{id}",          auth::devices::revoke),
        route(Method::POST,   "/api/v5/auth/totp",                   auth::factor::begin),
        route(Method::POST,   "/api/v5/auth/totp/confirm",           auth::factor::confirm),
        route(Method::POST,   "/api/v5/auth/totp/remove",            auth::factor::remove),
        route(Method::GET,    "/api/v5/auth/tokens",                 auth::tokens::list),
        route(Method::POST,   "/api/v5/auth/tokens",                 auth::tokens::create),
        route(Method::DELETE, "/api/v5/auth/tokens/{id}",            auth::tokens::revoke),
        route(Method::POST,   "/api/v5/auth/tickets",                auth::verify::ticket),
        route(Method::GET,    "/api/v5/auth/verify",                 auth::verify::verify),
        route(Method::GET,    "/.well-known/jwks.json",              auth::verify::keys),
        route(Method::GET,    "/api/v5/.well-known/jwks.json",       auth::verify::keys),

        route(Method::GET,    "/api/v5/auth/tenants",                auth::tenants::mine),
        route(Method::POST,   "/api/v5/auth/invitations/accept",     auth::tenants::accept),
        route(Method::GET,    "/api/v5/tenant",                      auth::tenants::show),
        route(Method::PATCH,  "/api/v5/tenant",                      auth::tenants::change),
        route(Method::DELETE, "/api/v5/tenant",                      auth::tenants::delete),
        route(Method::GET,    "/api/v5/tenant/members",              auth::tenants::members),
        route(Method::PATCH,  "/api/v5/tenant/members/{user}",       auth::tenants::change_role),
        route(Method::DELETE, "/api/v5/tenant/members/{user}",       auth::tenants::remove),
        route(Method::GET,    "/api/v5/tenant/invitations",          auth::tenants::invitations),
        route(Method::POST,   "/api/v5/tenant/invitations",          auth::tenants::invite),
        route(Method::DELETE, "/api/v5/tenant/invitations/{id}",     auth::tenants::withdraw),

        route(Method::GET,    "/api/v5/tenant/sessions",                    holdings::sessions),
        route(Method::POST,   "/api/v5/tenant/sessions/{id}/transfer",
            holdings::transfer_session),
        route(Method::DELETE, "/api/v5/tenant/sessions/{id}",
            holdings::delete_session),
        route(Method::GET,    "/api/v5/tenant/conversations",
            holdings::conversations),
        route(Method::POST,   "/api/v5/tenant/conversations/{id}/transfer",
            holdings::transfer_conversation),
        route(Method::DELETE, "/api/v5/tenant/conversations/{id}",
            holdings::delete_conversation),

        route(Method::POST,   "/api/v5/sessions",         sessions::create),
        route(Method::POST,   "/api/v5/sessions/create",  sessions::create),
        route(Method::GET,    "/api/v5/sessions",         sessions::list),
        route(Method::GET,    "/api/v5/sessions/{id}",    sessions::show),
        route(Method::PUT,    "/api/v5/sessions/{id}",    sessions::change),
        route(Method::PATCH,  "/api/v5/sessions/{id}",    sessions::change),
        route(Method::DELETE, "/api/v5/sessions/{id}",    sessions::delete),

        route(Method::GET,    "/api/v5/sessions/{id}/restore",     state::restore),
        route(Method::GET,    "/api/v5/sessions/{id}/editor", |a, r| show(a, r, Editor)),
        route(Method::PUT,    "/api/v5/sessions/{id}/editor", |a, r| save(a, r, Editor, Replace)),
        route(Method::PATCH,  "/api/v5/sessions/{id}/editor", |a, r| save(a, r, Editor, Merge)),
        route(Method::GET,    "/api/v5/sessions/{id}/terminal", |a, r| show(a, r, Terminal)),
        route(Method::PUT,    "/api/v5/sessions/{id}/terminal",
            |a, r| save(a, r, Terminal, Replace)),
        route(Method::PATCH,  "/api/v5/sessions/{id}/terminal", |a, r| save(a, r, Terminal, Merge)),
        route(Method::GET,    "/api/v5/sessions/{id}/memory",      memory::show),
        route(Method::PUT,    "/api/v5/sessions/{id}/memory", |a, r| memory::save(a, r, Replace)),
        route(Method::PATCH,  "/api/v5/sessions/{id}/memory", |a, r| memory::save(a, r, Merge)),
        route(Method::GET,    "/api/v5/sessions/{id}/state",       state::list_client_state),
        route(Method::GET,    "/api/v5/sessions/{id}/state/{key}", state::get_client_state),
        route(Method::PUT,    "/api/v5/sessions/{id}/state/{key}", state::put_client_state),
        route(Method::DELETE, "/api/v5/sessions/{id}/state/{key}", state::delete_client_state),
        route(Method::POST,   "/api/v5/sessions/{id}/state:batch", state::put_client_state_batch),

        route(Method::GET,    "/api/v5/sessions/{id}/ws",             socket::open),

        route(Method::GET,    "/api/v5/sessions/{id}/files",          files::list),
        route(Method::GET,    "/api/v5/sessions/{id}/files/{*path}",  files::show),
        route(Method::PUT,    "/api/v5/sessions/{id}/files/{*path}",  files::put),
        route(Method::DELETE, "/api/v5/sessions/{id}/files/{*path}",  files::remove),
        route(Method::POST,   "/api/v5/sessions/{id}/files:move",     files::relocate),
        route(Method::POST,   "/api/v5/sessions/{id}/files:copy",     files::copy),
        route(Method::POST,   "/api/v5/sessions/{id}/files:mkdir",    files::make_directory),
        route(Method::GET,    "/api/v5/sessions/{id}/drafts",         files::drafts),
        route(Method::GET,    "/api/v5/sessions/{id}/drafts/{*path}", files::show_draft),
        route(Method::PUT,    "/api/v5/sessions/{id}/drafts/{*path}", files::save_draft),
        route(Method::DELETE, "/api/v5/sessions/{id}/drafts/{*path}", files::discard),

        route(Method::POST,   "/api/v5/conversations",               conversations::create),
        route(Method::GET,    "/api/v5/conversations",               conversations::list),
        route(Method::GET,    "/api/v5/conversations/{id}",          conversations::show),
        route(Method::PUT,    "/api/v5/conversations/{id}",          conversations::change),
        route(Method::PATCH,  "/api/v5/conversations/{id}",          conversations::change),
        route(Method::DELETE, "/api/v5/conversations/{id}",          conversations::delete),
        route(Method::POST,   "/api/v5/conversations/{id}/messages", conversations::say),
        route(Method::GET,    "/api/v5/conversations/{id}/messages", conversations::messages),

        route(Method::POST,   "/api/v5/agents",         agents::create),
        route(Method::GET,    "/api/v5/agents",         agents::list),
        route(Method::GET,    "/api/v5/agents/{id}",    agents::show),
        route(Method::PUT,    "/api/v5/agents/{id}",    agents::change),
        route(Method::PATCH,  "/api/v5/agents/{id}",    agents::change),
        route(Method::DELETE, "/api/v5/agents/{id}",    agents::delete),

        route(Method::GET,    "/api/v5/settings",       settings::list),
        route(Method::GET,    "/api/v5/settings/{key}", settings::show),
        route(Method::PUT,    "/api/v5/settings/{key}", settings::set),
        route(Method::DELETE, "/api/v5/settings/{key}", settings::remove),

        route(Method::GET,    "/api/v5/audit",          audit::list),
    ]
}

/// The routes of the listener for metrics.
fn scraped() -> Vec<Route> {
    vec![
        route(Method::GET, "/healthz", health::alive),
        route(Method::GET, "/readyz", health::ready),
        route(Method::GET, "/metrics", metrics::scrape),
    ]
}

/// A line of the table.
pub struct Route {
    method: Method,
    template: &'static str,
    handler: Handler,
}

/// Creates a route from `method` and `template` to `handler`. `{name}` in a template matches one
/// segment, `{*name}` all remaining ones.
pub fn route<F, H>(method: Method, template: &'static str, handler: F) -> Route
where
    F: Fn(Arc<App>, Request) -> H + Send + Sync + 'static,
    H: Future<Output = HandlerResult> + Send + 'static,
{
    Route {
        method,
        template,
        handler: Box::new(move |app, request| Box::pin(handler(app, request))),
    }
}

/// Returns method and template of each route.
#[cfg(test)]
pub(crate) fn lines() -> impl Iterator<Item = (Method, &'static str)> {
    table().into_iter().map(|it| (it.method, it.template))
}

/// Returns the route of paths that may belong to the frontend.
fn fallback() -> Route {
    route(Method::GET, "/{*path}", fallback::show)
}

/// The table, indexed by template.
pub struct Routes {
    router: matchit::Router<Resource>,
    fallback: Option<Resource>,
}

/// The routes of one template.
struct Resource {
    template: &'static str,
    handlers: Vec<Line>,
}

/// The route of a method on a template.
pub(crate) struct Line {
    method: Method,
    pub(crate) handler: Handler,
    /// Rules for all requests of the route.
    pub(crate) rules: RouteRules,
    /// Whether no login is needed, so that the query is checked before the handler runs.
    pub(crate) is_unauthenticated: bool,
}

/// The route of a request.
pub(crate) struct RouteMatch<'a> {
    /// Template for the log, or `-` if none matches.
    pub(crate) template: &'static str,
    /// Next step.
    pub(crate) target: RouteTarget<'a>,
}

/// The next step of a request.
pub(crate) enum RouteTarget<'a> {
    /// Call the handler with these parameters.
    Handler(&'a Line, Vec<(String, String)>),
    /// Send this response.
    Respond(HandlerResult),
}

impl Routes {
    /// Builds the whole table.
    ///
    /// # Errors
    ///
    /// Two templates conflict.
    pub fn all() -> Result<Self, matchit::InsertError> {
        let Route { method, template, handler } = fallback();
        let line = Line { method, handler, rules: RouteRules::default(), is_unauthenticated: true };
        let fallback = Resource { template, handlers: vec![line] };
        Ok(Self { fallback: Some(fallback), ..Self::described(table(), &openapi::operations())? })
    }

    /// Returns the routes of the listener for metrics.
    ///
    /// # Errors
    ///
    /// Two templates contradict each other.
    pub(crate) fn scraped() -> Result<Self, matchit::InsertError> {
        Self::described(scraped(), &openapi::operations())
    }

    /// Builds a table of only these routes.
    ///
    /// # Errors
    ///
    /// Two templates conflict.
    pub fn of(table: Vec<Route>) -> Result<Self, matchit::InsertError> {
        Self::described(table, &[])
    }

    /// Builds a table with the accepted queries of `operations`.
    fn described(
        table: Vec<Route>,
        operations: &[Operation],
    ) -> Result<Self, matchit::InsertError> {
        let mut resources: Vec<Resource> = Vec::new();
        for Route { method, template, handler } in table {
            let operation = operations.iter().find(|it| it.route() == (&method, template));
            let line = Line {
                rules: RouteRules {
                    accepted_query: operation.and_then(|it| it.accepted_query()).map(Arc::from),
                    is_untagged: operation.is_some_and(|it| !it.is_conditional())
                        && matches!(method, Method::PUT | Method::PATCH | Method::DELETE),
                    is_unauthenticated: operation.is_some_and(Operation::is_unauthenticated),
                },
                is_unauthenticated: operation.is_some_and(Operation::is_unauthenticated),
                method,
                handler,
            };
            let known = resources.iter_mut().find(|it| it.template == template);
            match known {
                Some(resource) => resource.handlers.push(line),
                None => resources.push(Resource { template, handlers: vec![line] }),
            }
        }
        let mut router = matchit::Router::new();
        for resource in resources {
            router.insert(resource.template, resource)?;
        }
        Ok(Self { router, fallback: None })
    }

    /// Returns the route of a request.
    pub(crate) fn find(&self, method: &Method, path: &str) -> RouteMatch<'_> {
        let (resource, params) = match (self.router.at(path), &self.fallback) {
            (Ok(found), _) => (found.value, decoded(&found.params)),
            (Err(_), Some(fallback)) if frontend::has(path) => (fallback, Some(Vec::new())),
            _ => {
                return RouteMatch {
                    template: "-",
                    target: RouteTarget::Respond(Err(Problem::not_found())),
                };
            }
        };
        let target = match resource.line(method) {
            Some(line) => match params {
                Some(params) => RouteTarget::Handler(line, params),
                None => RouteTarget::Respond(Err(Problem::bad_request(
                    "INVALID_PATH",
                    "The decoded path is not UTF-8.",
                ))),
            },
            None if method == Method::OPTIONS => {
                RouteTarget::Respond(Ok(respond::options(&resource.allowed())))
            }
            None => RouteTarget::Respond(Err(Problem::method_not_allowed(&resource.allowed()))),
        };
        RouteMatch { template: resource.template, target }
    }
}

impl Resource {
    fn line(&self, method: &Method) -> Option<&Line> {
        let of = |wanted: &Method| self.handlers.iter().find(|line| line.method == *wanted);
        of(method).or_else(|| (method == Method::HEAD).then(|| of(&Method::GET)).flatten())
    }

    /// Returns the methods of the path, in the order of the table.
    fn allowed(&self) -> Vec<Method> {
        let mut allowed: Vec<Method> = self.handlers.iter().map(|it| it.method.clone()).collect();
        if allowed.contains(&Method::GET) && !allowed.contains(&Method::HEAD) {
            allowed.push(Method::HEAD);
        }
        allowed.push(Method::OPTIONS);
        allowed
    }
}

fn decoded(params: &matchit::Params<'_, '_>) -> Option<Vec<(String, String)>> {
    params
        .iter()
        .map(|(name, value)| {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            Some((name.to_owned(), value.into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use hyper::{Response, StatusCode, header};

    use super::*;

    async fn nothing(_: Arc<App>, _: Request) -> HandlerResult {
        Ok(respond::no_content())
    }

    fn sample() -> Routes {
        Routes::of(vec![
            route(Method::GET, "/things", nothing),
            route(Method::POST, "/things", nothing),
            route(Method::DELETE, "/things/{id}", nothing),
            route(Method::GET, "/things/{id}/files/{*path}", nothing),
            route(Method::POST, "/things/{id}/files:move", nothing),
        ])
        .unwrap()
    }

    fn said(routes: &Routes, method: &Method, path: &str) -> HandlerResult {
        match routes.find(method, path).target {
            RouteTarget::Handler(..) => Ok(Response::new(respond::empty())),
            RouteTarget::Respond(answer) => answer,
        }
    }

    fn params(routes: &Routes, method: &Method, path: &str) -> Vec<(String, String)> {
        match routes.find(method, path).target {
            RouteTarget::Handler(_, params) => params,
            RouteTarget::Respond(answer) => panic!("{answer:?}"),
        }
    }

    #[test]
    fn table_has_no_conflicts_or_duplicates() {
        Routes::all().unwrap();
        let lines: Vec<_> = table().into_iter().map(|it| (it.method, it.template)).collect();
        for (index, line) in lines.iter().enumerate() {
            assert!(!lines[..index].contains(line), "{line:?}");
        }
    }

    #[test]
    fn unknown_path_is_not_found() {
        for path in ["/", "/thing", "/things/", "/things/7/files", ""] {
            let problem = said(&sample(), &Method::GET, path).unwrap_err();
            assert_eq!(problem.code(), "NOT_FOUND", "{path}");
        }
    }

    #[test]
    fn wrong_method_gets_the_allowed_ones() {
        let problem = said(&sample(), &Method::PUT, "/things").unwrap_err();
        assert_eq!(problem.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(problem.header(header::ALLOW).unwrap(), "GET, POST, HEAD, OPTIONS");
    }

    #[test]
    fn options_lists_the_methods() {
        let response = said(&sample(), &Method::OPTIONS, "/things/7").unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()[header::ALLOW], "DELETE, OPTIONS");
    }

    #[test]
    fn head_uses_the_handler_of_get() {
        assert!(params(&sample(), &Method::HEAD, "/things").is_empty());
        let problem = said(&sample(), &Method::HEAD, "/things/7").unwrap_err();
        assert_eq!(problem.code(), "METHOD_NOT_ALLOWED");
    }

    #[test]
    fn parameters_are_decoded_after_matching() {
        let found = params(&sample(), &Method::GET, "/things/a%2Fb/files/x%20y/%C3%A9?");
        assert_eq!(found[0], ("id".to_owned(), "a/b".to_owned()));
        assert_eq!(found[1], ("path".to_owned(), "x y/é?".to_owned()));
    }

    #[test]
    fn non_utf8_parameter_is_a_bad_request() {
        let problem = said(&sample(), &Method::DELETE, "/things/%ff").unwrap_err();
        assert_eq!(problem.code(), "INVALID_PATH");
    }

    #[test]
    fn match_reports_the_template_not_the_path() {
        assert_eq!(sample().find(&Method::DELETE, "/things/7").template, "/things/{id}");
        assert_eq!(sample().find(&Method::DELETE, "/secret").template, "-");
    }
}
