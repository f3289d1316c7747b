//! One operation of the API, as its description has it: what it takes, what it answers, how it fails.
//!
//! What follows from something is said once, here: who signs in may be refused, a body may be wrong in
//! the ways of bodies, a condition may fail.

use hyper::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// What a type looks like in JSON.
pub(crate) type Shape = fn(&mut SchemaGenerator) -> Schema;

/// An operation: what is done by a method on a path.
pub(crate) struct Operation {
    pub(super) method: Method,
    pub(super) template: &'static str,
    id: &'static str,
    summary: &'static str,
    details: &'static str,
    is_open: bool,
    queries: Vec<Value>,
    query_names: Vec<&'static str>,
    ignores_query: bool,
    headers: Vec<&'static str>,
    body: Option<Body>,
    answers: Vec<Answer>,
    failures: Vec<u16>,
    links: Vec<Link>,
}

/// What a request carries.
struct Body {
    media_types: &'static [&'static str],
    shape: Option<Shape>,
    is_required: bool,
    #[cfg(any(test, feature = "fuzzing"))]
    read: Option<Read>,
}

/// How it is read, for who tries that with any bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) type Read = fn(&[u8]) -> Result<(), crate::http::problem::Problem>;

/// What a success looks like.
struct Answer {
    status: u16,
    content: Content,
    headers: Vec<&'static str>,
}

enum Content {
    None,
    Data(Shape),
    Page(Shape),
    /// JSON without the envelope.
    Document(Shape),
    Bytes,
}

/// What can be done with what was answered.
struct Link {
    operation: &'static str,
    parameter: &'static str,
    pointer: &'static str,
}

/// What JSON documents are labelled as.
const JSON: &[&str] = &["application/json"];
/// What partial ones are.
const PATCH: &[&str] = &["application/json", "application/merge-patch+json"];

/// A line of text: something that can be seen, and no control characters.
pub(crate) const LINE: &str =
    r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\xa0][^\x00-\x1f\x7f-\x9f]*$";
/// Text without control characters.
pub(crate) const PLAIN: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";
/// An absolute path.
pub(crate) const ABSOLUTE: &str = r"^/[^\x00-\x1f\x7f-\x9f]*$";
/// A path below the top: names with `/` between them, none of them `.` or `..`.
pub(crate) const PATH: &str =
    r"^/?(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+(/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+)*/?$";
/// The same of a directory, where nothing stands for the top.
pub(crate) const DIRECTORY: &str = r"^/?$|^/?(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+(/(?!\.{1,2}(/|$))[^/\x00-\x1f\x7f-\x9f]+)*/?$";
/// The tag of a file's content.
pub(crate) const CONTENT_TAG: &str = "^(\"[0-9a-fA-F]{64}\"|[0-9a-fA-F]{64})$";
/// What a program may do: of ours, or another service's.
pub(crate) const SCOPE: &str = "^(?=.{1,64}$)(read|write|[a-z0-9_.-]+:[a-z0-9_.-]+)$";
/// Base64.
pub(crate) const BASE64: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

impl Operation {
    /// `method` on `template`, called `id`.
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
            is_open: false,
            queries: Vec::new(),
            query_names: Vec::new(),
            ignores_query: false,
            headers: Vec::new(),
            body: None,
            answers: Vec::new(),
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

    /// What else there is to know.
    pub(crate) fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    /// For anybody.
    pub(crate) fn open(self) -> Self {
        Self { is_open: true, ..self }
    }

    /// Takes a parameter in its query.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this")]
    pub(crate) fn query(mut self, name: &'static str, schema: Value, description: &str) -> Self {
        self.query_names.push(name);
        self.queries.push(json!({
            "name": name, "in": "query", "schema": schema, "description": description,
        }));
        self
    }

    /// Ignores its query, since proxies pass on that of another request.
    pub(crate) fn ignores_query(self) -> Self {
        Self { ignores_query: true, ..self }
    }

    /// Returns the names of the parameters that the query may have; `None` if any are accepted, as outside
    /// of the API.
    pub(crate) fn accepted_query(&self) -> Option<&[&'static str]> {
        let is_api = self.template.starts_with("/api/");
        (is_api && !self.ignores_query).then_some(self.query_names.as_slice())
    }

    /// Returns whether its handler evaluates preconditions.
    pub(crate) fn is_conditional(&self) -> bool {
        self.headers.contains(&"If-Match")
    }

    /// Returns whether no login is needed.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Returns the method and the path's template.
    pub(crate) fn route(&self) -> (&Method, &'static str) {
        (&self.method, self.template)
    }

    /// Takes this JSON.
    pub(crate) fn takes<T: JsonSchema + DeserializeOwned>(self) -> Self {
        self.body(Body::json::<T>(JSON))
    }

    /// Takes this JSON, or none.
    pub(crate) fn may_take<T: JsonSchema + DeserializeOwned>(self) -> Self {
        self.body(Body { is_required: false, ..Body::json::<T>(JSON) })
    }

    /// Takes this JSON as a merge patch, too.
    pub(crate) fn merges<T: JsonSchema + DeserializeOwned>(self) -> Self {
        self.body(Body::json::<T>(PATCH))
    }

    /// Takes a merge patch of a `T`: any of its members, none of them required.
    pub(crate) fn merges_into<T: JsonSchema>(self) -> Self {
        let body = Body::json::<Map<String, Value>>(PATCH);
        self.body(Body { shape: Some(patch_shape::<T>), ..body })
    }

    /// Takes bytes of any kind.
    pub(crate) fn takes_bytes(self) -> Self {
        let media_types = &["application/octet-stream"];
        self.body(Body {
            media_types,
            shape: None,
            is_required: false,
            #[cfg(any(test, feature = "fuzzing"))]
            read: None,
        })
    }

    /// How its JSON is read, if it takes some.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn read(&self) -> Option<Read> {
        self.body.as_ref()?.read
    }

    fn body(mut self, body: Body) -> Self {
        self.failures.extend([408, 413, 422]);
        Self { body: Some(body), ..self }
    }

    /// Answers with this, in the envelope.
    pub(crate) fn gives<T: JsonSchema>(self) -> Self {
        self.answer(200, Content::Data(shape::<T>))
    }

    /// Answers with this and another status.
    pub(crate) fn gives_with<T: JsonSchema>(self, status: u16) -> Self {
        self.answer(status, Content::Data(shape::<T>))
    }

    /// Makes this, and says where it is.
    pub(crate) fn creates<T: JsonSchema>(self) -> Self {
        let mut made = self.answer(201, Content::Data(shape::<T>));
        if let Some(answer) = made.answers.last_mut() {
            answer.headers.push("Location");
        }
        made
    }

    /// Answers with all of these.
    pub(crate) fn lists<T: JsonSchema>(self) -> Self {
        self.answer(200, Content::Page(shape::<T>))
    }

    /// Answers with a page of these.
    pub(crate) fn pages<T: JsonSchema>(self) -> Self {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": 200, "default": 50});
        let cursor = json!({"type": "string"});
        self.query("limit", limit, "How many there are on a page.")
            .query("cursor", cursor, "Where the page begins: `next_cursor` of the one before.")
            .lists::<T>()
    }

    /// Answers with this and no envelope.
    pub(crate) fn gives_document<T: JsonSchema>(self) -> Self {
        self.answer(200, Content::Document(shape::<T>))
    }

    /// Answers with bytes.
    pub(crate) fn gives_bytes(self, status: u16) -> Self {
        self.answer(status, Content::Bytes)
    }

    /// Answers with nothing.
    pub(crate) fn gives_nothing(self) -> Self {
        self.answer(204, Content::None)
    }

    /// Goes on in another protocol, and says so in these headers.
    pub(crate) fn switches(self, headers: &[&'static str]) -> Self {
        self.answer(101, Content::None).tells(headers)
    }

    /// Says so in headers, too.
    pub(crate) fn tells(mut self, headers: &[&'static str]) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.extend(headers);
        }
        self
    }

    fn answer(mut self, status: u16, content: Content) -> Self {
        self.answers.push(Answer { status, content, headers: Vec::new() });
        self
    }

    /// What it is about has an entity tag: a read may find it unchanged, a change may be refused.
    pub(crate) fn tagged(mut self) -> Self {
        for answer in &mut self.answers {
            if answer.status != 204 {
                answer.headers.push("ETag");
                if !answer.headers.contains(&"Last-Modified") {
                    answer.headers.push("Last-Modified");
                }
            }
        }
        if self.method == Method::GET {
            self.headers.push("If-Modified-Since");
            let headers = vec!["ETag", "Last-Modified"];
            self.answers.push(Answer { status: 304, content: Content::None, headers });
        }
        if self.method == Method::POST { self } else { self.conditional() }
    }

    /// Evaluates preconditions.
    pub(crate) fn conditional(mut self) -> Self {
        self.headers.extend(["If-Match", "If-None-Match", "If-Unmodified-Since"]);
        self.failures.push(412);
        self
    }

    /// A repeated request is answered as the first was.
    pub(crate) fn once(mut self) -> Self {
        self.headers.push("Idempotency-Key");
        self.tells(&["Idempotency-Replayed"])
    }

    /// Takes a header more.
    pub(crate) fn header(mut self, name: &'static str) -> Self {
        self.headers.push(name);
        self
    }

    /// May fail so, too.
    pub(crate) fn fails(mut self, statuses: &[u16]) -> Self {
        self.failures.extend(statuses);
        self
    }

    /// What it answers at `pointer` is the `parameter` of `operation`.
    pub(crate) fn leads_to(
        mut self,
        operation: &'static str,
        parameter: &'static str,
        pointer: &'static str,
    ) -> Self {
        self.links.push(Link { operation, parameter, pointer });
        self
    }

    /// It in JSON, its types told to the generators: one for what is taken, one for what is given.
    pub(super) fn described(
        &self,
        taken: &mut SchemaGenerator,
        given: &mut SchemaGenerator,
    ) -> Value {
        let mut operation = json!({
            "operationId": self.id,
            "summary": self.summary,
            "tags": [tag(self.template)],
            "parameters": self.parameters(),
            "responses": self.responses(given),
        });
        if !self.details.is_empty() {
            operation["description"] = json!(self.details);
        }
        if self.is_open {
            operation["security"] = json!([]);
        }
        if let Some(Body { media_types, shape, is_required, .. }) = &self.body {
            let schema = match shape {
                Some(shape) => json!(shape(taken)),
                None => json!({}),
            };
            let content: Map<String, Value> = media_types
                .iter()
                .map(|media_type| ((*media_type).to_owned(), json!({"schema": schema})))
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

    fn responses(&self, given: &mut SchemaGenerator) -> Value {
        let mut responses = Map::new();
        for answer in &self.answers {
            let mut response = answer.described(given);
            if !self.links.is_empty() && (200..300).contains(&answer.status) {
                response["links"] = self.links();
            }
            responses.insert(answer.status.to_string(), response);
        }
        let mut failures = vec![400, 429, 431, 500, 503];
        if !self.is_open {
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

impl Answer {
    fn described(&self, given: &mut SchemaGenerator) -> Value {
        let names = ["X-Request-Id"].iter().chain(&self.headers);
        let headers: Map<String, Value> = names
            .map(|name| {
                let header = json!({"$ref": format!("#/components/headers/{name}")});
                ((*name).to_owned(), header)
            })
            .collect();
        let mut response = json!({"description": said(self.status), "headers": headers});
        let envelope = |required: &[&str], properties: Value| json!({"type": "object", "required": required, "properties": properties});
        let schema = match self.content {
            Content::None => return response,
            Content::Bytes => {
                response["content"] = json!({"*/*": {"schema": {}}});
                return response;
            }
            Content::Document(shape) => json!(shape(given)),
            Content::Data(shape) => envelope(
                &["success", "data"],
                json!({"success": {"const": true}, "data": shape(given)}),
            ),
            Content::Page(shape) => envelope(
                &["success", "data", "next_cursor"],
                json!({
                    "success": {"const": true},
                    "data": {"type": "array", "items": shape(given)},
                    "next_cursor": {"type": ["string", "null"]},
                }),
            ),
        };
        response["content"] = json!({"application/json": {"schema": schema}});
        response
    }
}

/// What a status says, in the words of RFC 9110.
pub(super) fn said(status: u16) -> &'static str {
    let status = hyper::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("Answer")
}

impl Body {
    /// A `T`, which must be there.
    fn json<T: JsonSchema + DeserializeOwned>(media_types: &'static [&'static str]) -> Self {
        Self {
            media_types,
            shape: Some(shape::<T>),
            is_required: true,
            #[cfg(any(test, feature = "fuzzing"))]
            read: Some(|bytes| crate::http::document::parse::<T>(bytes).map(drop)),
        }
    }
}

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn patch_shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    schema.remove("required");
    schema
}

/// What part of the API a path is of.
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

/// A time.
pub(crate) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// An id.
pub(crate) fn id() -> Value {
    json!({"type": "string", "format": "uuid"})
}

/// A flag of a query.
pub(crate) fn flag() -> Value {
    json!({"type": "boolean"})
}
