//! The OpenAPI document, checked against every response that any test receives. An undocumented
//! status, header or field fails the test.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use coditect_server::api::openapi;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

use crate::client::Answer;

/// Headers of HTTP itself.
const OF_HTTP: [&str; 6] =
    ["content-type", "content-length", "date", "connection", "keep-alive", "transfer-encoding"];

/// The document, with objects closed to undocumented members.
static CLOSED: LazyLock<Value> = LazyLock::new(|| {
    let mut document = openapi::document();
    close(&mut document);
    document
});

/// Compiled validators by the location of their schema.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

fn close(node: &mut Value) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(close),
        Value::Object(members) => {
            members.values_mut().for_each(close);
            let is_open = members.get("type") == Some(&json!("object"))
                && members.contains_key("properties")
                && !members.contains_key("additionalProperties");
            if is_open {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        _ => {}
    }
}

/// An operation of the document.
#[derive(Clone, Copy)]
pub(crate) struct Described {
    pub(crate) id: &'static str,
    /// Path template with `{name}` for parameters.
    pub(crate) template: &'static str,
    /// In lower case.
    pub(crate) method: &'static str,
    pub(crate) operation: &'static Value,
}

/// Returns all operations.
pub(crate) fn operations() -> impl Iterator<Item = Described> {
    paths().iter().flat_map(|(template, methods)| {
        let methods = methods.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters");
        methods.map(|(method, operation)| {
            let id = operation["operationId"].as_str().unwrap();
            Described { id, template, method, operation }
        })
    })
}

/// Returns the operation for `method` on `path`; for HEAD that of GET.
pub(crate) fn operation_at(method: &str, path: &str) -> Option<Described> {
    let template = template_of(path)?;
    let method = if method == "HEAD" { "GET" } else { method };
    operations().find(|it| it.template == template && it.method.eq_ignore_ascii_case(method))
}

/// Asserts that the document describes the response to `method` on `path`, for documented paths.
pub(crate) fn expect_described(method: &str, path: &str, answer: &Answer) {
    let Some(template) = template_of(path) else { return };
    if answer.header("server").is_some() {
        return; // A proxy's, who has some of its own.
    }
    let about = format!("{method} {template} answered {}", answer.status);
    let status = answer.status.to_string();
    let (response, place) = match operation_at(method, path) {
        Some(Described { id, operation, .. }) => {
            let response = operation["responses"].get(&status);
            (response.unwrap_or_else(|| panic!("{about}: {}", shown(answer))), id)
        }
        // The path itself responds, without an operation.
        None if method == "OPTIONS" => {
            assert_eq!(answer.status, 204, "{about}");
            return;
        }
        None => {
            let response = CLOSED["components"]["responses"].get(&status);
            (response.unwrap_or_else(|| panic!("{about}: {}", shown(answer))), "no operation")
        }
    };
    let response = resolved(response);
    expect_headers(&about, response["headers"].as_object().unwrap(), answer);
    let Some(content) = response.get("content") else {
        assert!(answer.body.is_empty(), "{about} with a body");
        return;
    };
    if method == "HEAD" {
        return;
    }
    let label = answer.header("content-type").unwrap_or_else(|| panic!("{about} without a type"));
    let (kind, described) = [label.split(';').next().unwrap().trim(), "*/*"]
        .iter()
        .find_map(|kind| Some((*kind, content.get(kind)?)))
        .unwrap_or_else(|| panic!("{about} with {label}"));
    if let Some(schema) = described.get("schema")
        && kind == "application/json"
    {
        let faults = faults(&format!("{place} {status}"), schema, &answer.json());
        assert!(faults.is_empty(), "{about}: {faults:?} in {}", shown(answer));
    }
}

fn expect_headers(about: &str, described: &'static Map<String, Value>, answer: &Answer) {
    for (name, header) in described {
        let (header, lower) = (resolved(header), name.to_lowercase());
        let values: Vec<_> = answer.headers.iter().filter(|(it, _)| *it == lower).collect();
        assert!(!values.is_empty() || header["required"] != true, "{about} without {name}");
        for (_, value) in values {
            let faults = faults(&format!("header {name}"), &header["schema"], &json!(value));
            assert!(faults.is_empty(), "{about}: {name}: {faults:?}");
        }
    }
    let common = CLOSED["components"]["headers"].as_object().unwrap();
    let common = common.iter().filter(|(_, header)| header["x-everywhere"] == true);
    let known: Vec<_> = described.keys().chain(common.map(|(name, _)| name)).collect();
    for (name, _) in &answer.headers {
        let is_described = known.iter().any(|it| it.eq_ignore_ascii_case(name));
        assert!(is_described || OF_HTTP.contains(&name.as_str()), "{about} with {name}");
    }
}

/// Returns the errors of `value` for `schema`, cached under `name`.
fn faults(name: &str, schema: &Value, value: &Value) -> Vec<String> {
    let known = VALIDATORS.lock().unwrap().get(name).cloned();
    let validator = known.unwrap_or_else(|| {
        let whole = json!({"components": CLOSED["components"], "allOf": [schema]});
        let validator = jsonschema::options().should_validate_formats(true).build(&whole).unwrap();
        let validator = Arc::new(validator);
        VALIDATORS.lock().unwrap().insert(name.to_owned(), Arc::clone(&validator));
        validator
    });
    validator
        .iter_errors(value)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect()
}

fn paths() -> &'static Map<String, Value> {
    CLOSED["paths"].as_object().unwrap()
}

/// Returns the most specific template of `path`.
fn template_of(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or_default();
    let fitting = paths().keys().map(String::as_str).filter(|template| fits(template, path));
    fitting.min_by_key(|template| template.matches('{').count())
}

fn fits(template: &str, path: &str) -> bool {
    match (template.split_once('/'), path.split_once('/')) {
        (None, None) => segment_fits(template, path),
        // The rest of a path is one parameter.
        (None, Some(_)) => template == "{path}",
        (Some((wanted, templates)), Some((segment, segments))) => {
            segment_fits(wanted, segment) && fits(templates, segments)
        }
        (Some(_), None) => false,
    }
}

fn segment_fits(template: &str, segment: &str) -> bool {
    if template.starts_with('{') { !segment.is_empty() } else { template == segment }
}

/// Resolves a reference.
pub(crate) fn resolved(node: &'static Value) -> &'static Value {
    let target = node.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix('#'));
    target.map_or(node, |target| CLOSED.pointer(target).unwrap())
}

fn shown(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).chars().take(500).collect()
}

/// Returns the error codes in the sources below `folder`: the string literals in upper snake case.
fn codes_in(folder: &std::path::Path, codes: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes_in(&path, codes);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let product = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        let is_code = |word: &&str| {
            word.len() > 3
                && word.starts_with(|first: char| first.is_ascii_uppercase())
                && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        codes.extend(product.split('"').skip(1).step_by(2).filter(is_code).map(str::to_owned));
    }
}

#[test]
fn every_error_code_is_documented() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut codes = std::collections::BTreeSet::new();
    for folder in ["src/api", "src/extract", "src/http", "src/websocket", "src/frontend"] {
        codes_in(&root.join(folder), &mut codes);
    }
    // Methods, headers and variables that look alike.
    let others = ["DENY", "JSON", "OUT_DIR", "CARGO_PKG_VERSION", "GET", "HEAD", "OPTIONS"];
    codes.retain(|code| !others.contains(&code.as_str()));
    assert!(codes.len() > 60, "{codes:?}");
    let page = std::fs::read_to_string(root.join("../docs/errors.md")).unwrap();
    let missing: Vec<_> =
        codes.iter().filter(|code| !page.contains(&format!("`{code}`"))).collect();
    assert!(missing.is_empty(), "docs/errors.md lacks {missing:?}");
}

#[test]
fn examples_match_their_schemas() {
    for Described { id, operation, .. } in operations() {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let content = &resolved(response)["content"]["application/json"];
            if let Some(example) = content.get("example") {
                let faults = faults(&format!("{id} {status}"), &content["schema"], example);
                assert!(faults.is_empty(), "{id} {status}: {faults:?}");
            }
        }
        let content = &operation["requestBody"]["content"]["application/json"];
        if let Some(example) = content.get("example") {
            let faults = faults(&format!("request of {id}"), &content["schema"], example);
            assert!(faults.is_empty(), "request of {id}: {faults:?}");
        }
    }
}
