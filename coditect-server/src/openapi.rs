//! One operation of the OpenAPI document: its request, its responses, its failures.
//!
//! Implied responses are added here: an authenticated operation can fail with 401 and 403, a body
//! with the failures of bodies, a condition with 412.

mod examples;

use std::borrow::Cow;

use hyper::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// The JSON schema of a type.
#[derive(Clone, Copy)]
struct Shape {
    schema: fn(&mut SchemaGenerator) -> Schema,
    name: fn() -> Cow<'static, str>,
}

/// A method on a path.
pub(crate) struct Operation {
    pub(super) method: Method,
    pub(super) template: &'static str,
    id: &'static str,
    summary: &'static str,
    details: &'static str,
    is_unauthenticated: bool,
    queries: Vec<Value>,
    query_names: Vec<&'static str>,
    ignores_query: bool,
    headers: Vec<&'static str>,
    body: Option<Body>,
    responses: Vec<Response>,
    failures: Vec<u16>,
    links: Vec<Link>,
}

/// The body of a request.
struct Body {
    media_types: &'static [&'static str],
    shape: Option<Shape>,
    is_required: bool,
    #[cfg(any(test, feature = "fuzzing"))]
    read: Option<Read>,
}

/// Parser of the body, for fuzzing.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) type Read = fn(&[u8]) -> Result<(), crate::http::problem::Problem>;

/// A successful response.
struct Response {
    status: u16,
    content: Content,
    headers: Vec<&'static str>,
    example: Option<Value>,
}

enum Content {
    None,
    Data(Shape),
    Page(Shape),
    /// JSON without the envelope.
    Document(Shape),
    Bytes,
}

/// A link from the response to another operation.
struct Link {
    operation: &'static str,
    parameter: &'static str,
    pointer: &'static str,
}

/// Media types of JSON bodies.
const JSON: &[&str] = &["application/json"];
/// Media types of merge patches.
const PATCH: &[&str] = &["application/json", "application/merge-patch+json"];

/// Pattern of a non-blank line of text without control characters.
pub(crate) const LINE: &str =
    r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$";
/// Pattern of text without control characters.
pub(crate) const PLAIN: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// Pattern of an absolute path.
pub(crate) const ABSOLUTE: &str = r"^/[^\x00-\x1f\x7f-\x9f]*$";
/// Pattern of a path in a workspace: names separated by `/`, none of them `.` or `..`.
pub(crate) const PATH: &str =
    r"^/?(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+(/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+)*/?$";
/// Pattern of a directory in a workspace; empty for the root.
pub(crate) const DIRECTORY: &str = concat!(
    r"^/?$|",
    r"^/?(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+(/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+)*/?$",
);
/// Pattern of the entity tag of a file's content.
pub(crate) const CONTENT_TAG: &str = "^(\"[0-9a-fA-F]{64}\"|[0-9a-fA-F]{64})$";
/// Pattern of the scope of a token: one of this API, or one of another service.
pub(crate) const SCOPE: &str = "^(?=.{1,64}$)(read|write|[a-z0-9_.-]+:[a-z0-9_.-]+)$";
/// Pattern of Base64.
pub(crate) const BASE64: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

impl Operation {
    /// Creates the operation `id`: `method` on `template`.
    pub(crate) fn new(
        method: Method,
        template: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            template,
            id,
            summary,
            details: "",
            is_unauthenticated: false,
            queries: Vec::new(),
            query_names: Vec::new(),
            ignores_query: false,
            headers: Vec::new(),
            body: None,
            responses: Vec::new(),
            failures: Vec::new(),
            links: Vec::new(),
        }
    }

    pub(crate) fn get(template: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::GET, template, id, summary)
    }

    pub(crate) fn post(template: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::POST, template, id, summary)
    }

    pub(crate) fn put(template: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::PUT, template, id, summary)
    }

    pub(crate) fn patch(template: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::PATCH, template, id, summary)
    }

    pub(crate) fn delete(template: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new(Method::DELETE, template, id, summary)
    }

    /// Sets the description.
    pub(crate) fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    /// Needs no login.
    pub(crate) fn unauthenticated(self) -> Self {
        Self { is_unauthenticated: true, ..self }
    }

    /// Adds a query parameter.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this")]
    pub(crate) fn query(mut self, name: &'static str, schema: Value, description: &str) -> Self {
        self.query_names.push(name);
        self.queries.push(json!({
            "name": name, "in": "query", "schema": schema, "description": description,
        }));
        self
    }

    /// Accepts any query, since proxies forward that of another request.
    pub(crate) fn ignores_query(self) -> Self {
        Self { ignores_query: true, ..self }
    }

    /// Returns the names of the accepted query parameters, or `None` if any are accepted, as
    /// outside of the API.
    pub(crate) fn accepted_query(&self) -> Option<&[&'static str]> {
        let is_api = self.template.starts_with("/api/");
        (is_api && !self.ignores_query).then_some(self.query_names.as_slice())
    }

    /// Returns whether the handler evaluates preconditions.
    pub(crate) fn is_conditional(&self) -> bool {
        self.headers.contains(&"If-Match")
    }

    /// Returns whether no login is needed.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        self.is_unauthenticated
    }

    /// Returns the method and the template of the path.
    pub(crate) fn route(&self) -> (&Method, &'static str) {
        (&self.method, self.template)
    }

    /// Requires a JSON body.
    pub(crate) fn request<T: JsonSchema + DeserializeOwned>(self) -> Self {
        self.body(Body::json::<T>(JSON))
    }

    /// Accepts a JSON body or none.
    pub(crate) fn optional_request<T: JsonSchema + DeserializeOwned>(self) -> Self {
        self.body(Body { is_required: false, ..Body::json::<T>(JSON) })
    }

    /// Requires a JSON body, which may also be sent as a merge patch.
    pub(crate) fn merge_patch<T: JsonSchema + DeserializeOwned>(self) -> Self {
        self.body(Body::json::<T>(PATCH))
    }

    /// Requires a merge patch of a `T`, without required members.
    pub(crate) fn merge_patch_of<T: JsonSchema>(self) -> Self {
        let body = Body::json::<Map<String, Value>>(PATCH);
        self.body(Body {
            shape: Some(Shape { schema: patch_schema::<T>, name: T::schema_name }),
            ..body
        })
    }

    /// Accepts bytes of any media type.
    pub(crate) fn request_bytes(self) -> Self {
        let media_types = &["application/octet-stream"];
        self.body(Body {
            media_types,
            shape: None,
            is_required: false,
            #[cfg(any(test, feature = "fuzzing"))]
            read: None,
        })
    }

    /// Returns the parser of the JSON body, if there is one.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn read(&self) -> Option<Read> {
        self.body.as_ref()?.read
    }

    fn body(mut self, body: Body) -> Self {
        self.failures.extend([408, 413, 422]);
        Self { body: Some(body), ..self }
    }

    /// Responds with `T` in the envelope.
    pub(crate) fn response<T: JsonSchema>(self) -> Self {
        self.add_response(200, Content::Data(Shape::of::<T>()))
    }

    /// Responds with `T` in the envelope and another status.
    pub(crate) fn response_with<T: JsonSchema>(self, status: u16) -> Self {
        self.add_response(status, Content::Data(Shape::of::<T>()))
    }

    /// Responds with 201, `T` in the envelope and `Location`.
    pub(crate) fn created<T: JsonSchema>(self) -> Self {
        let mut created = self.add_response(201, Content::Data(Shape::of::<T>()));
        if let Some(response) = created.responses.last_mut() {
            response.headers.push("Location");
        }
        created
    }

    /// Responds with a list of `T`.
    pub(crate) fn list<T: JsonSchema>(self) -> Self {
        self.add_response(200, Content::Page(Shape::of::<T>()))
    }

    /// Responds with a page of a list of `T`.
    pub(crate) fn page<T: JsonSchema>(self) -> Self {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": 200, "default": 50});
        let cursor = json!({"type": "string"});
        self.query("limit", limit, "Maximum number of items per page.")
            .query("cursor", cursor, "Position of the page: `next_cursor` of the previous page.")
            .list::<T>()
    }

    /// Responds with `T` without the envelope.
    pub(crate) fn response_document<T: JsonSchema>(self) -> Self {
        self.add_response(200, Content::Document(Shape::of::<T>()))
    }

    /// Responds with bytes.
    pub(crate) fn response_bytes(self, status: u16) -> Self {
        self.add_response(status, Content::Bytes)
    }

    /// Responds with 204.
    pub(crate) fn no_content(self) -> Self {
        self.add_response(204, Content::None)
    }

    /// Responds with 101 and these headers.
    pub(crate) fn switches_protocols(self, headers: &[&'static str]) -> Self {
        self.add_response(101, Content::None).response_headers(headers)
    }

    /// Sets the example of the last response, for a type without one of its own.
    pub(crate) fn example(mut self, example: Value) -> Self {
        if let Some(response) = self.responses.last_mut() {
            response.example = Some(example);
        }
        self
    }

    /// Adds headers to the last response.
    pub(crate) fn response_headers(mut self, headers: &[&'static str]) -> Self {
        if let Some(response) = self.responses.last_mut() {
            response.headers.extend(headers);
        }
        self
    }

    fn add_response(mut self, status: u16, content: Content) -> Self {
        self.responses.push(Response { status, content, headers: Vec::new(), example: None });
        self
    }

    /// Adds the entity tag of the resource: a read may respond with 304, a write may fail with 412.
    pub(crate) fn with_etag(mut self) -> Self {
        for response in &mut self.responses {
            if response.status != 204 {
                response.headers.push("ETag");
                if !response.headers.contains(&"Last-Modified") {
                    response.headers.push("Last-Modified");
                }
            }
        }
        if self.method == Method::GET {
            self.headers.push("If-Modified-Since");
            let headers = vec!["ETag", "Last-Modified"];
            self.responses.push(Response {
                status: 304,
                content: Content::None,
                headers,
                example: None,
            });
        }
        if self.method == Method::POST { self } else { self.conditional() }
    }

    /// Evaluates preconditions.
    pub(crate) fn conditional(mut self) -> Self {
        self.headers.extend(["If-Match", "If-None-Match", "If-Unmodified-Since"]);
        self.failures.push(412);
        self
    }

    /// Accepts an idempotency key.
    pub(crate) fn idempotent(mut self) -> Self {
        self.headers.push("Idempotency-Key");
        self.response_headers(&["Idempotency-Replayed"])
    }

    /// Accepts a request header.
    pub(crate) fn request_header(mut self, name: &'static str) -> Self {
        self.headers.push(name);
        self
    }

    /// Adds statuses of failures.
    pub(crate) fn fails(mut self, statuses: &[u16]) -> Self {
        self.failures.extend(statuses);
        self
    }

    /// Adds a link: the value at `pointer` of the response is `parameter` of `operation`.
    pub(crate) fn link(
        mut self,
        operation: &'static str,
        parameter: &'static str,
        pointer: &'static str,
    ) -> Self {
        self.links.push(Link { operation, parameter, pointer });
        self
    }

    /// Returns the operation as JSON and adds its types to the generators, one for requests and one
    /// for responses.
    pub(super) fn described(
        &self,
        requests: &mut SchemaGenerator,
        types: &mut SchemaGenerator,
    ) -> Value {
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "tags": [tag(self.template)],
            "parameters": self.parameters(),
            "responses": self.responses(types),
        });
        if !self.details.is_empty() {
            operation["description"] = json!(self.details);
        }
        if self.is_unauthenticated {
            operation["security"] = json!([]);
        }
        if let Some(Body { media_types, shape, is_required, .. }) = &self.body {
            let mut body = json!({"schema": {}});
            if let Some(shape) = shape {
                body["schema"] = json!((shape.schema)(requests));
                if let Some(example) = shape.example() {
                    body["example"] = example;
                }
            }
            let content: Map<String, Value> = media_types
                .iter()
                .map(|media_type| ((*media_type).to_owned(), body.clone()))
                .collect();
            operation["requestBody"] = json!({"required": is_required, "content": content});
        }
        operation
    }

    fn parameters(&self) -> Vec<Value> {
        let in_path = self.template.split('/').filter_map(|segment| {
            let name = segment.split_once('{')?.1.split_once('}')?.0;
            let (name, schema) = match name.strip_prefix('*') {
                Some(rest) => (rest, json!({"type": "string", "pattern": PATH})),
                None if name == "key" => (
                    name,
                    json!({
                        "type": "string", "minLength": 1, "maxLength": 200, "pattern": PLAIN,
                    }),
                ),
                None => (name, json!({"type": "string", "format": "uuid"})),
            };
            Some(json!({"name": name, "in": "path", "required": true, "schema": schema}))
        });
        let in_headers = self
            .headers
            .iter()
            .map(|name| json!({"$ref": format!("#/components/parameters/{name}")}));
        in_path.chain(self.queries.iter().cloned()).chain(in_headers).collect()
    }

    fn responses(&self, types: &mut SchemaGenerator) -> Value {
        let mut responses = Map::new();
        for response in &self.responses {
            let mut described = response.described(types);
            if !self.links.is_empty() && (200..300).contains(&response.status) {
                described["links"] = self.links();
            }
            responses.insert(response.status.to_string(), described);
        }
        let mut failures = vec![400, 429, 431, 500, 503];
        if !self.is_unauthenticated {
            failures.extend([401, 403]);
        }
        if self.template.contains('{') {
            failures.push(404);
        }
        if !self.method.is_safe() {
            failures.push(415);
        }
        if [Method::PUT, Method::PATCH, Method::DELETE].contains(&self.method) {
            failures.push(412);
        }
        for status in failures.into_iter().chain(self.failures.iter().copied()) {
            let shared = json!({"$ref": format!("#/components/responses/{status}")});
            responses.entry(status.to_string()).or_insert(shared);
        }
        Value::Object(responses)
    }

    fn links(&self) -> Value {
        let links = self.links.iter().map(|Link { operation, parameter, pointer }| {
            let from = format!("$response.body#{pointer}");
            let link = json!({"operationId": operation, "parameters": {*parameter: from}});
            ((*operation).to_owned(), link)
        });
        Value::Object(links.collect())
    }
}

impl Response {
    fn described(&self, types: &mut SchemaGenerator) -> Value {
        let names = ["X-Request-Id"].iter().chain(&self.headers);
        let headers: Map<String, Value> = names
            .map(|name| {
                let header = json!({"$ref": format!("#/components/headers/{name}")});
                ((*name).to_owned(), header)
            })
            .collect();
        let mut response = json!({"description": reason(self.status), "headers": headers});
        let envelope = |required: &[&str], properties: Value| {
            json!({
                "type": "object",
                "required": required,
                "properties": properties,
            })
        };
        let (schema, example) = match self.content {
            Content::None => return response,
            Content::Bytes => {
                response["content"] = json!({"*/*": {"schema": {}}});
                return response;
            }
            Content::Document(shape) => (json!((shape.schema)(types)), shape.example()),
            Content::Data(shape) => {
                let schema = envelope(
                    &["success", "data"],
                    json!({"success": {"const": true}, "data": (shape.schema)(types)}),
                );
                let example = shape.example().map(|it| json!({"success": true, "data": it}));
                (schema, example)
            }
            Content::Page(shape) => {
                let schema = envelope(
                    &["success", "data", "next_cursor"],
                    json!({
                        "success": {"const": true},
                        "data": {"type": "array", "items": (shape.schema)(types)},
                        "next_cursor": {"type": ["string", "null"]},
                    }),
                );
                let example = shape
                    .example()
                    .map(|it| json!({"success": true, "data": [it], "next_cursor": null}));
                (schema, example)
            }
        };
        let mut content = json!({"schema": schema});
        if let Some(example) = example.or_else(|| self.example.clone()) {
            content["example"] = example;
        }
        response["content"] = json!({"application/json": content});
        response
    }
}

/// Returns the reason phrase of a status (RFC 9110).
pub(super) fn reason(status: u16) -> &'static str {
    let status = hyper::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Response")
}

impl Body {
    /// Creates a required JSON body of type `T`.
    fn json<T: JsonSchema + DeserializeOwned>(media_types: &'static [&'static str]) -> Self {
        Self {
            media_types,
            shape: Some(Shape::of::<T>()),
            is_required: true,
            #[cfg(any(test, feature = "fuzzing"))]
            read: Some(|bytes| crate::http::document::parse::<T>(bytes).map(drop)),
        }
    }
}

impl Shape {
    fn of<T: JsonSchema>() -> Self {
        Self { schema: SchemaGenerator::subschema_for::<T>, name: T::schema_name }
    }

    /// Returns an example of the type.
    fn example(self) -> Option<Value> {
        examples::of(&(self.name)())
    }
}

fn patch_schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    schema.remove("required");
    schema
}

/// Returns the tag of a path.
fn tag(template: &str) -> &str {
    let rest = template.strip_prefix("/api/v5/").unwrap_or(template);
    match rest.split(['/', ':']).filter(|part| !part.is_empty()).collect::<Vec<_>>()[..] {
        ["sessions", _, "files" | "drafts", ..] => "files",
        ["sessions", "{id}", _, ..] => "state",
        [".well-known", ..] => "auth",
        ["healthz" | "readyz" | "health" | "metrics" | "openapi.json", ..] | [] => "operation",
        [first, ..] => first,
    }
}

/// Returns the schema of a time.
pub(crate) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// Returns the schema of an id.
pub(crate) fn id() -> Value {
    json!({"type": "string", "format": "uuid"})
}

/// Returns the schema of a flag in a query.
pub(crate) fn flag() -> Value {
    json!({"type": "boolean"})
}
