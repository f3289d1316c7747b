//! The description of the API: OpenAPI 3.1, made of what the handlers say of themselves.
//!
//! Each handlers' file says what its operations take and give, beside the types that they do it with;
//! here it becomes one document. The route table and the description name the same operations, one to one:
//! a test holds them to that.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use schemars::{
    JsonSchema, SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    health, metrics,
    v5::{agents, audit, auth, conversations, files, holdings, sessions, settings, socket, state},
};
use crate::{
    http::{
        HandlerResult, Request,
        conditions::{Conditions, Tag},
        output::Shared,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// Where types are found in the document.
const SCHEMAS: &str = "#/components/schemas/";

/// What is said of the whole.
const ABOUT: &str = "The persistence and identity core of a multi-tenant cloud IDE.\n\n\
    Answers are `{\"success\": true, \"data\": …}`, lists add `next_cursor`; failures are \
    `{\"success\": false, \"error\": {\"code\", \"message\", \"request_id\", \"fields\"?}}`. Bodies and queries \
    take `snake_case` and `camelCase` alike, each field once. Fields and query parameters that are not described \
    here are refused, and named in the error; so are integers beyond 64 bits. \
    Times are RFC 3339 in UTC with milliseconds. A method that a path has not is answered with 405. Headers that are marked `x-everywhere` may come with every \
    answer; the others are named where they come.";

/// How long the document may be kept: it changes with the program alone.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// What every failure looks like.
#[derive(JsonSchema)]
#[schemars(rename = "Failure")]
#[expect(dead_code, reason = "it is only described: problems write themselves")]
struct Failure {
    /// `false`.
    success: bool,
    error: Shown,
}

#[derive(JsonSchema)]
#[schemars(rename = "Error")]
#[expect(dead_code, reason = "it is only described")]
struct Shown {
    /// For programs, in capitals.
    code: String,
    /// For people.
    message: String,
    /// That of `X-Request-Id`.
    request_id: String,
    /// What is wrong with fields of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Field>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "FieldError")]
#[expect(dead_code, reason = "it is only described")]
struct Field {
    /// The field, as a path.
    field: String,
    /// What is wrong with it.
    message: String,
}

/// All operations, in the order of the document.
pub(crate) fn operations() -> Vec<Operation> {
    let mut operations = health::operations();
    operations.push(metrics::operation());
    operations.push(
        Operation::get("/api/v5/openapi.json", "describe", "This document")
            .open()
            .gives_document::<Map<String, Value>>()
            .tagged(),
    );
    operations.extend(auth::operations());
    operations.extend(sessions::operations());
    operations.extend(state::operations());
    operations.push(socket::operation());
    operations.extend(files::operations());
    operations.extend(conversations::operations());
    operations.extend(agents::operations());
    operations.extend(settings::operations());
    operations.extend(audit::operations());
    operations.extend(holdings::operations());
    operations
}

/// The document. It is the same each time.
pub fn document() -> Value {
    let settings = |contract: Contract| {
        SchemaSettings::draft2020_12().with(|settings| {
            SCHEMAS[1..].trim_end_matches('/').clone_into(&mut *settings.definitions_path.to_mut());
            settings.meta_schema = None;
            settings.contract = contract;
        })
    };
    // What is taken is said in place; what is given has names.
    let taken = settings(Contract::Deserialize).with(|settings| settings.inline_subschemas = true);
    let (mut taken, mut given) =
        (SchemaGenerator::new(taken), SchemaGenerator::new(settings(Contract::Serialize)));
    let failure = given.subschema_for::<Failure>();
    let mut paths: Map<String, Value> = Map::new();
    let mut tags = BTreeSet::new();
    for operation in operations() {
        let path = operation.template.replace("{*", "{");
        let described = operation.described(&mut taken, &mut given);
        tags.insert(described["tags"][0].as_str().unwrap_or_default().to_owned());
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    let schemas = given.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Coditect", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT,
            "license": {"name": "Apache-2.0 OR MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"cookie": []}],
        "tags": tags.into_iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": parameters(),
            "headers": headers(),
            "responses": responses(&json!(failure)),
            "securitySchemes": {
                "bearer": {
                    "type": "http", "scheme": "bearer",
                    "description": "An access token, or a personal one.",
                },
                "cookie": {
                    "type": "apiKey", "in": "cookie", "name": "__Host-coditect-access",
                    "description": "If the operator enables cookies. `coditect` is the default of \
                        --cookie-prefix. A request that changes something needs X-CSRF-Token, too.",
                },
            },
        },
    })
}

/// Headers that requests bear.
fn parameters() -> Value {
    let header = |name: &str, pattern: &str, description: &str| {
        json!({
            "name": name, "in": "header", "description": description,
            "schema": {"type": "string", "minLength": 1, "pattern": pattern},
        })
    };
    // A date that cannot be read is ignored (RFC 9110, 13.1.3).
    let date = |name: &str, description: &str| {
        json!({
            "name": name, "in": "header", "description": description,
            "schema": {"type": "string"},
        })
    };
    let tags = r#"^(\*|(W/)?"[!#-+--~]*"( *, *(W/)?"[!#-+--~]*")*)$"#;
    json!({
        "If-Match": header("If-Match", tags, "Only what has one of these tags is read or changed: else 412."),
        "If-None-Match": header(
            "If-None-Match",
            tags,
            "What has one of these tags is not read again (304), nor changed (412); `*` is any.",
        ),
        "If-Modified-Since": date(
            "If-Modified-Since",
            "A date of HTTP: a record that was not modified since is not read again (304). Ignored beside \
             If-None-Match, and for records without Last-Modified.",
        ),
        "If-Unmodified-Since": date(
            "If-Unmodified-Since",
            "A date of HTTP: only a record that was not modified since is read or changed: else 412. \
             Ignored beside If-Match, which misses no change within a second, and for records without \
             Last-Modified.",
        ),
        "Idempotency-Key": header(
            "Idempotency-Key",
            "^[!-~]{1,200}$",
            "A request with a key that was used within 24 hours is answered as it was then.",
        ),
        "Range": header("Range", "", "A part of the bytes."),
        "If-Range": header("If-Range", "", "A part only of what has this tag, else all."),
        "Content-Digest": header("Content-Digest", "^sha-256=:[A-Za-z0-9+/]{43}=:$", "`sha-256=:BASE64:` of the body, which is compared."),
    })
}

/// Headers that answers bear.
fn headers() -> Value {
    let header =
        |description: &str| json!({"schema": {"type": "string"}, "description": description});
    let mut headers = json!({
        "ETag": header("The tag of what was read or written."),
        "Location": header("Where it is."),
        "Retry-After": header("Seconds to wait."),
        "WWW-Authenticate": header("`Bearer`, with what is wrong with the token (RFC 6750)."),
        "Accept-Ranges": header("`bytes`."),
        "Content-Range": header("Which part it is."),
        "Last-Modified": header("When the content was written."),
        "Accept-Encoding": header("`identity`: the body must not be encoded."),
        "X-Auth-User": header("The user's id."),
        "X-Auth-Tenant": header("The id of the tenant that they act in."),
        "X-Auth-Session": header("The login's id, if it is one."),
        "X-Auth-Expires": header("When what was shown ends."),
        "X-Auth-Scopes": header("What a personal token is for, with a space between each two."),
        "Allow": header("The methods that there are on this path."),
        "Upgrade": header("`websocket`."),
        "Sec-WebSocket-Protocol": header("`coditect.v1`, if it was offered."),
        "Sec-WebSocket-Version": header("`13`."),
        "Set-Cookie": header("The tokens, or nothing in their place, where they were asked for in cookies."),
        "Idempotency-Replayed": header("`true`, if this is the answer that was given before."),
        "Content-Disposition": header("`attachment`: what users keep is no page of this origin."),
    });
    for (name, description) in EVERYWHERE {
        headers[name] = header(description);
        headers[name]["x-everywhere"] = json!(true);
    }
    headers
}

/// Headers that any answer may have.
const EVERYWHERE: [(&str, &str); 15] = [
    (
        "X-Request-Id",
        "What the request goes by in the log; the client's own if that is a sane one.",
    ),
    ("Cache-Control", "`no-store`, where nothing else is said."),
    ("Server-Timing", "How long the server took, in milliseconds."),
    ("Vary", "What else the answer depends on."),
    ("Content-Security-Policy", "What a browser may do with it: nothing."),
    ("Referrer-Policy", "`no-referrer`."),
    ("X-Content-Type-Options", "`nosniff`."),
    ("X-Frame-Options", "`DENY`."),
    ("Cross-Origin-Opener-Policy", "`same-origin`."),
    ("Cross-Origin-Resource-Policy", "`same-origin`: CORS is for those that the operator allows."),
    ("Permissions-Policy", "What a page may not ask a browser for."),
    ("Strict-Transport-Security", "Over TLS, that it is to stay so."),
    ("Access-Control-Allow-Origin", "The origin that asks, if the operator allows it."),
    ("Access-Control-Allow-Credentials", "`true`, if it may ask with cookies."),
    ("Access-Control-Expose-Headers", "Which of these headers it gets to see."),
];

/// How requests fail.
fn responses(failure: &Value) -> Value {
    let statuses =
        [400, 401, 403, 404, 405, 408, 409, 412, 413, 415, 416, 422, 426, 429, 431, 500, 503];
    let responses = statuses.map(|status| {
        let mut headers = json!({"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}});
        let more: &[_] = match status {
            400 | 401 => &["WWW-Authenticate"],
            405 => &["Allow"],
            409 => &["Location", "Idempotency-Replayed"],
            415 => &["Accept-Encoding"],
            416 => &["Content-Range"],
            426 => &["Upgrade", "Sec-WebSocket-Version"],
            429 | 503 => &["Retry-After"],
            _ => &[],
        };
        for name in more {
            headers[*name] = json!({"$ref": format!("#/components/headers/{name}")});
        }
        let response = json!({
            "description": openapi::said(status),
            "headers": headers,
            "content": {"application/json": {"schema": failure}},
        });
        (status.to_string(), response)
    });
    Value::Object(responses.into_iter().collect())
}

/// The document as it is sent, and its tag.
static SENT: LazyLock<(Bytes, Tag)> = LazyLock::new(|| {
    let text = Bytes::from(document().to_string());
    let hash = Sha256::digest(&text);
    let tag = hash[..16].iter().fold(String::new(), |tag, byte| tag + &format!("{byte:02x}"));
    (text, Tag::new(tag))
});

/// `GET /api/v5/openapi.json`.
pub(crate) async fn show(_: Arc<App>, request: Request) -> HandlerResult {
    let conditions = Conditions::of(&request)?;
    let (text, tag) = &*SENT;
    let mut answer = hyper::Response::new(respond::full(text.clone()));
    // All responses share these bytes, which live as long as the process.
    answer.extensions_mut().insert(Shared(text.len() as u64));
    answer.headers_mut().insert(header::CONTENT_TYPE, respond::JSON);
    answer.headers_mut().insert(header::CACHE_CONTROL, KEPT);
    conditions.read(answer, tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::router;

    #[test]
    fn what_is_routed_is_described_and_nothing_else() {
        let described: BTreeSet<_> =
            operations().iter().map(|it| (it.template, it.method.to_string())).collect();
        assert_eq!(described.len(), operations().len(), "something is described twice");
        let routed: BTreeSet<_> =
            router::lines().map(|(method, template)| (template, method.to_string())).collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn every_reference_leads_somewhere_and_names_are_used_once() {
        let document = document();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 100);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let mut ids = BTreeSet::new();
        let mut linked = Vec::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                let id = operation["operationId"].as_str().unwrap();
                assert!(ids.insert(id.to_owned()), "{id}");
                for response in operation["responses"].as_object().unwrap().values() {
                    let links = response["links"].as_object().into_iter().flatten();
                    linked.extend(links.map(|(_, link)| link["operationId"].clone()));
                }
            }
        }
        for link in linked {
            assert!(ids.contains(link.as_str().unwrap()), "{link}");
        }
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(object) => {
                if let Some(Value::String(reference)) = object.get("$ref") {
                    references.push(reference.clone());
                }
                object.values().for_each(|value| collect(value, references));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
            _ => {}
        }
    }

    #[test]
    fn the_document_is_the_same_each_time() {
        assert_eq!(document().to_string(), document().to_string());
    }
}
