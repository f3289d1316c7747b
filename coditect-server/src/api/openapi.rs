//! The OpenAPI 3.1 document, assembled from the operations that the handlers describe.
//!
//! Each handler module describes its operations next to their types. A test keeps the route table
//! and the document in agreement.

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
        conditions::{ETag, Preconditions},
        output::Shared,
        respond,
    },
    openapi::{self, Operation},
    state::App,
};

/// JSON pointer of the types in the document.
const SCHEMAS: &str = "#/components/schemas/";

/// Description of the API.
const DESCRIPTION: &str = "The persistence and identity core of a multi-tenant cloud IDE.\n\n\
    Successful responses are `{\"success\": true, \"data\": …}`; lists add `next_cursor`. \
    Failures are `{\"success\": false, \"error\": {\"code\", \"message\", \"request_id\", \
    \"fields\"?}}`.\n\nNames in bodies and queries may be `snake_case` or `camelCase`; each may \
    occur once. Unknown fields and query parameters are refused and named in the error, as are \
    integers beyond 64 bits. Times are RFC 3339 in UTC with milliseconds. Unsupported methods get \
    405. Headers marked `x-everywhere` may occur in every response; other headers are listed with \
    their responses.";

/// The document only changes with the program.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// The body of every failure.
#[derive(JsonSchema)]
#[schemars(rename = "Failure")]
#[expect(dead_code, reason = "only its schema is used; `Problem` serializes itself")]
struct Failure {
    /// `false`.
    success: bool,
    error: ErrorBody,
}

#[derive(JsonSchema)]
#[schemars(rename = "Error")]
#[expect(dead_code, reason = "only its schema is used")]
struct ErrorBody {
    /// Error code in capitals, for programs.
    code: String,
    /// Message for people.
    message: String,
    /// Id of the request, as in `X-Request-Id`.
    request_id: String,
    /// Invalid fields of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<Vec<Field>>,
}

#[derive(JsonSchema)]
#[schemars(rename = "FieldError")]
#[expect(dead_code, reason = "only its schema is used")]
struct Field {
    /// Path of the field.
    field: String,
    /// Error message.
    message: String,
}

/// Returns all operations, in the order of the document.
pub(crate) fn operations() -> Vec<Operation> {
    let mut operations = health::operations();
    operations.push(metrics::operation());
    operations.push(
        Operation::get("/api/v5/openapi.json", "getOpenapi", "Get the OpenAPI document")
            .unauthenticated()
            .response_document::<Map<String, Value>>()
            .example(json!({"openapi": "3.1.0", "info": {"title": "Coditect"}, "paths": {}}))
            .with_etag(),
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

/// Returns the document. It is the same for every call.
pub fn document() -> Value {
    let settings = |contract: Contract| {
        SchemaSettings::draft2020_12().with(|settings| {
            SCHEMAS[1..].trim_end_matches('/').clone_into(&mut *settings.definitions_path.to_mut());
            settings.meta_schema = None;
            settings.contract = contract;
        })
    };
    // Request types are inlined; response types are named.
    let request_types =
        settings(Contract::Deserialize).with(|settings| settings.inline_subschemas = true);
    let (mut request_types, mut response_types) =
        (SchemaGenerator::new(request_types), SchemaGenerator::new(settings(Contract::Serialize)));
    let failure = response_types.subschema_for::<Failure>();
    let mut paths: Map<String, Value> = Map::new();
    let mut tags = BTreeSet::new();
    for operation in operations() {
        let path = operation.template.replace("{*", "{");
        let described = operation.described(&mut request_types, &mut response_types);
        tags.insert(described["tags"][0].as_str().unwrap_or_default().to_owned());
        let item = paths.entry(path).or_insert_with(|| json!({}));
        item[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    let schemas = response_types.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Coditect", "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION,
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
                    "description": "An access token or a personal access token.",
                },
                "cookie": {
                    "type": "apiKey", "in": "cookie", "name": "__Host-coditect-access",
                    "description": "If the operator enables cookies; `coditect` is the default of \
                        --cookie-prefix. Unsafe methods also need X-CSRF-Token.",
                },
            },
        },
    })
}

/// Returns the descriptions of request headers.
fn parameters() -> Value {
    let header = |name: &str, pattern: &str, description: &str| {
        json!({
            "name": name, "in": "header", "description": description,
            "schema": {"type": "string", "minLength": 1, "pattern": pattern},
        })
    };
    // An unparsable date is ignored (RFC 9110, 13.1.3), so the schema accepts any text.
    let date = |name: &str, description: &str| {
        json!({
            "name": name, "in": "header", "description": description,
            "schema": {"type": "string"},
        })
    };
    let tags = r#"^(\*|(W/)?"[!#-+--~]*"( *, *(W/)?"[!#-+--~]*")*)$"#;
    json!({
        "If-Match": header("If-Match", tags, "Entity tags; 412 if the resource has none of them."),
        "If-None-Match": header(
            "If-None-Match",
            tags,
            "Entity tags; if the resource has one of them, 304 for a read and 412 for a write. \
             `*` matches any.",
        ),
        "If-Modified-Since": date(
            "If-Modified-Since",
            "HTTP date; 304 if the resource was not modified since. Ignored with If-None-Match, \
             and for resources without Last-Modified.",
        ),
        "If-Unmodified-Since": date(
            "If-Unmodified-Since",
            "HTTP date; 412 if the resource was modified since. Ignored with If-Match, which also \
             detects changes within a second, and for resources without Last-Modified.",
        ),
        "Idempotency-Key": header(
            "Idempotency-Key",
            "^[!-~]{1,200}$",
            "Unique key of the request. A repeated key gets the first response again for 24 hours.",
        ),
        "Range": header("Range", "", "Range of bytes."),
        "If-Range": header("If-Range", "", "Entity tag; the range \
            applies only if the content still has it, otherwise all bytes are sent."),
        "Content-Digest": header("Content-Digest", "", "`sha-256=:BASE64:` of \
            the body; 400 if it does not match. Other digests are ignored."),
    })
}

/// Returns the descriptions of response headers.
fn headers() -> Value {
    let header =
        |description: &str| json!({"schema": {"type": "string"}, "description": description});
    let mut headers = json!({
        "ETag": header("Entity tag of the resource."),
        "Location": header("Path of the resource."),
        "Retry-After": header("Seconds to wait before a retry."),
        "WWW-Authenticate": header("`Bearer` challenge with the error of the token (RFC 6750)."),
        "Accept-Ranges": header("`bytes`."),
        "Content-Range": header("Range of the bytes sent."),
        "Last-Modified": header("Time of the last write."),
        "Accept-Encoding": header("`identity`: content codings are not supported."),
        "X-Auth-User": header("Id of the user."),
        "X-Auth-Tenant": header("Id of the active tenant."),
        "X-Auth-Session": header("Id of the login, if the credential belongs to one."),
        "X-Auth-Expires": header("Expiry of the credential."),
        "X-Auth-Scopes": header("Scopes of a personal access token, separated by spaces."),
        "Allow": header("Methods of the path."),
        "Upgrade": header("`websocket`."),
        "Sec-WebSocket-Protocol": header("`coditect.v1`, if the client offered it."),
        "Sec-WebSocket-Version": header("`13`."),
        "Set-Cookie": header("The tokens, or expired cookies, for clients that use cookies."),
        "Idempotency-Replayed": header("`true` for a response to a repeated idempotency key."),
        "Content-Disposition": header("`attachment`, since user content must not run \
            as a page of this origin."),
    });
    for (name, description) in EVERYWHERE {
        headers[name] = header(description);
        headers[name]["x-everywhere"] = json!(true);
    }
    headers
}

/// Headers that any response may have.
const EVERYWHERE: [(&str, &str); 15] = [
    ("X-Request-Id", "Request id, as in the log. A valid id of the client is kept."),
    ("Cache-Control", "`no-store`, unless specified otherwise."),
    ("Server-Timing", "Processing time, in milliseconds."),
    ("Vary", "Request headers that the response depends on."),
    ("Content-Security-Policy", "Denies all content loading."),
    ("Referrer-Policy", "`no-referrer`."),
    ("X-Content-Type-Options", "`nosniff`."),
    ("X-Frame-Options", "`DENY`."),
    ("Cross-Origin-Opener-Policy", "`same-origin`."),
    (
        "Cross-Origin-Resource-Policy",
        "`same-origin`; CORS is limited to origins allowed by the operator.",
    ),
    ("Permissions-Policy", "Denied browser features."),
    ("Strict-Transport-Security", "HSTS, over TLS only."),
    ("Access-Control-Allow-Origin", "Origin of the request, if the operator allows it."),
    ("Access-Control-Allow-Credentials", "`true` if the origin may send cookies."),
    ("Access-Control-Expose-Headers", "Headers that the origin may read."),
];

/// Returns the descriptions of failures, by status.
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
            "description": openapi::reason(status),
            "headers": headers,
            "content": {
                "application/json": {"schema": failure, "example": failure_example(status)},
            },
        });
        (status.to_string(), response)
    });
    Value::Object(responses.into_iter().collect())
}

fn failure_example(status: u16) -> Value {
    let reason = openapi::reason(status);
    json!({
        "success": false,
        "error": {
            "code": reason.to_ascii_uppercase().replace(' ', "_"), "message": format!("{reason}."),
            "request_id": "0197c5d2-8d3a-7c41-9f0e-5b1d2a7c9e11",
        },
    })
}

/// The serialized document and its entity tag.
static SENT: LazyLock<(Bytes, ETag)> = LazyLock::new(|| {
    let text = Bytes::from(document().to_string());
    let hash = Sha256::digest(&text);
    let tag = hash[..16].iter().fold(String::new(), |tag, byte| tag + &format!("{byte:02x}"));
    (text, ETag::new(tag))
});

/// Handles `GET /api/v5/openapi.json`.
pub(crate) async fn show(_: Arc<App>, request: Request) -> HandlerResult {
    let conditions = Preconditions::of(&request)?;
    let (text, tag) = &*SENT;
    let mut answer = hyper::Response::new(respond::full(text.clone()));
    // All responses share these bytes, which are never freed.
    answer.extensions_mut().insert(Shared(text.len() as u64));
    answer.headers_mut().insert(header::CONTENT_TYPE, respond::JSON);
    answer.headers_mut().insert(header::CACHE_CONTROL, CACHE);
    conditions.read(answer, tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::router;

    #[test]
    fn routes_and_operations_agree() {
        let described: BTreeSet<_> =
            operations().iter().map(|it| (it.template, it.method.to_string())).collect();
        assert_eq!(described.len(), operations().len(), "duplicate operation");
        let routed: BTreeSet<_> =
            router::lines().map(|(method, template)| (template, method.to_string())).collect();
        assert_eq!(described, routed);
    }

    #[test]
    fn references_resolve_and_operation_ids_are_unique() {
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
    fn every_json_body_has_an_example_that_its_parser_accepts() {
        let document = document();
        for operation in operations() {
            let path = operation.template.replace("{*", "{");
            let method = operation.method.as_str().to_ascii_lowercase();
            let described = &document["paths"][path][method];
            let id = described["operationId"].as_str().unwrap();
            let request = &described["requestBody"]["content"]["application/json"];
            if let Some(read) = operation.read() {
                let example = request.get("example").unwrap_or_else(|| panic!("request of {id}"));
                read(example.to_string().as_bytes()).unwrap_or_else(|it| panic!("{id}: {it:?}"));
            }
            for (status, response) in described["responses"].as_object().unwrap() {
                let content = &response["content"]["application/json"];
                assert!(content.is_null() || content.get("example").is_some(), "{id} {status}");
            }
        }
    }

    #[test]
    fn document_is_deterministic() {
        assert_eq!(document().to_string(), document().to_string());
    }
}
