//! Preconditions, ranges and content encodings on all routes concerned.

use serde_json::{Value, json};

use crate::{
    client::{Answer, Call},
    contract,
    server::Running,
    signed_in_session::SignedInSession,
};

const EMAIL: &str = "ada@example.org";

const LONG_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

async fn signed_in() -> (Running, SignedInSession) {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, EMAIL).await;
    (server, signed_in)
}

/// Returns a path of a template, with the session of the signed-in user.
fn path(signed_in: &SignedInSession, template: &str) -> String {
    let session = signed_in.path.rsplit('/').next().unwrap();
    let template = match template.strip_prefix("/api/v5/sessions/{id}") {
        Some(rest) => format!("/api/v5/sessions/{session}{rest}"),
        None => template.replace("{id}", &uuid::Uuid::now_v7().to_string()),
    };
    let other = uuid::Uuid::now_v7().to_string();
    template.replace("{path}", "a.txt").replace("{key}", "k").replace("{user}", &other)
}

/// Unsafe methods.
const UNSAFE: [&str; 4] = ["PUT", "PATCH", "POST", "DELETE"];

fn unsafe_method(operation: &contract::Described) -> Option<&'static str> {
    UNSAFE.into_iter().find(|method| method.eq_ignore_ascii_case(operation.method))
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, if answer.status < 400 { String::new() } else { answer.code() })
}

#[tokio::test]
async fn partial_and_encoded_content_is_refused_on_every_unsafe_route() {
    let (_server, signed_in) = signed_in().await;
    signed_in.call(Call::put(&signed_in.part("files/a.txt")).body("whole")).await;
    let mut tried = 0;
    for operation in contract::operations() {
        let Some(method) = unsafe_method(&operation) else { continue };
        let call = || Call::new(method, &path(&signed_in, operation.template)).json("{}");
        let ranged = signed_in.call(call().header("Content-Range", "bytes 0-1/5")).await;
        let expected = (400, "CONTENT_RANGE_NOT_SUPPORTED".to_owned());
        assert_eq!(outcome(&ranged), expected, "{}", operation.id);
        let encoded = signed_in.call(call().header("Content-Encoding", "gzip")).await;
        let expected = (415, "UNSUPPORTED_CONTENT_ENCODING".to_owned());
        assert_eq!(outcome(&encoded), expected, "{}", operation.id);
        assert_eq!(encoded.header("accept-encoding"), Some("identity"));
        tried += 1;
    }
    assert!(tried > 40, "{tried}");
    assert_eq!(signed_in.get("files/a.txt").await.body, b"whole");
    let named = Call::put(&signed_in.part("files/a.txt")).header("Content-Encoding", "identity");
    assert_eq!(signed_in.call(named.body("other")).await.status, 200);
}

#[tokio::test]
async fn head_ignores_ranges() {
    let (_server, signed_in) = signed_in().await;
    let file = signed_in.part("files/a.txt");
    signed_in.call(Call::put(&file).body("0123456789")).await;
    for range in ["bytes=0-3", "bytes=20-", "bytes=-1"] {
        let head = signed_in.call(Call::new("HEAD", &file).header("Range", range)).await;
        assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "{range}");
        assert_eq!(head.header("content-range"), None);
    }
    let part = signed_in.call(Call::get(&file).header("Range", "bytes=0-3")).await;
    assert_eq!((part.status, part.body.as_slice()), (206, &b"0123"[..]));
}

#[tokio::test]
async fn conditions_are_evaluated_on_reads() {
    let (_server, signed_in) = signed_in().await;
    signed_in.call(Call::put(&signed_in.part("files/a.txt")).body("x")).await;
    signed_in.keep("k", b"x").await;
    let value = json!({"value": 1});
    signed_in.call(Call::put("/api/v5/settings/theme").value(&value)).await;
    let mut paths = vec!["/api/v5/tenant".to_owned(), "/api/v5/settings/theme".to_owned()];
    paths.extend(["", "editor", "files/a.txt", "state/k"].map(|part| signed_in.part(part)));
    for path in &paths {
        let tag = signed_in.call(Call::get(path)).await.header("etag").unwrap().to_owned();
        for method in ["GET", "HEAD"] {
            let with = |name: &str, value: &str| Call::new(method, path).header(name, value);
            assert_eq!(signed_in.call(with("If-Match", &tag)).await.status, 200, "{path}");
            assert_eq!(signed_in.call(with("If-Match", "*")).await.status, 200, "{path}");
            for other in ["\"other\"", &format!("W/{tag}")] {
                let refused = signed_in.call(with("If-Match", other)).await;
                assert_eq!(refused.status, 412, "{method} {path} {other}");
            }
            let stale = with("If-Match", "\"other\"").header("If-None-Match", &tag);
            assert_eq!(signed_in.call(stale).await.status, 412, "{method} {path}");
            assert_eq!(signed_in.call(with("If-None-Match", &tag)).await.status, 304, "{path}");
        }
    }
}

#[tokio::test]
async fn dates_are_conditions_for_records_with_a_date() {
    let (_server, signed_in) = signed_in().await;
    let file = signed_in.part("files/a.txt");
    signed_in.call(Call::put(&file).body("x")).await;
    signed_in.keep("k", b"x").await;
    let changes = [
        Call::put(&file).body("y"),
        Call::put(&signed_in.part("state/k")).body("y"),
        Call::patch(&signed_in.part("")).value(&json!({"name": "y"})),
        Call::patch("/api/v5/tenant").value(&json!({"name": "y"})),
    ];
    let paths =
        [file.clone(), signed_in.part("state/k"), signed_in.part(""), "/api/v5/tenant".to_owned()];
    for (path, change) in paths.iter().zip(changes) {
        let read = signed_in.call(Call::get(path)).await;
        let modified = read.header("last-modified").unwrap().to_owned();
        let tag = read.header("etag").unwrap().to_owned();
        let refused = change.clone().header("If-Unmodified-Since", LONG_AGO);
        assert_eq!(signed_in.call(refused).await.status, 412, "{path}");
        let refused = Call::get(path).header("If-Unmodified-Since", LONG_AGO);
        assert_eq!(signed_in.call(refused).await.status, 412, "{path}");
        let unchanged = Call::get(path).header("If-Modified-Since", &modified);
        assert_eq!(signed_in.call(unchanged).await.status, 304, "{path}");
        let read = Call::get(path).header("If-Modified-Since", LONG_AGO);
        assert_eq!(signed_in.call(read).await.status, 200, "{path}");
        // Malformed dates, and dates in addition to a tag, are ignored.
        let read = Call::get(path).header("If-Unmodified-Since", "soon");
        assert_eq!(signed_in.call(read).await.status, 200, "{path}");
        let tagged =
            Call::get(path).header("If-Match", &tag).header("If-Unmodified-Since", LONG_AGO);
        assert_eq!(signed_in.call(tagged).await.status, 200, "{path}");
        let allowed = change.header("If-Unmodified-Since", &modified);
        assert_eq!(signed_in.call(allowed).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn conditions_apply_to_devices_tokens_and_invitations() {
    let (_server, signed_in) = signed_in().await;
    let token = json!({"name": "ci", "scopes": ["read"]});
    signed_in.call(Call::post("/api/v5/auth/tokens").value(&token)).await;
    let invitation = json!({"email": "bob@example.org", "role": "member"});
    signed_in.call(Call::post("/api/v5/tenant/invitations").value(&invitation)).await;
    for (all, named) in [
        ("/api/v5/auth/tokens", false),
        ("/api/v5/tenant/invitations", false),
        ("/api/v5/auth/sessions", true),
    ] {
        let list = signed_in.call(Call::get(all)).await.data();
        let text = |name: &str| list[0][name].as_str().unwrap().to_owned();
        let (one, tag) = (format!("{all}/{}", text("id")), text("etag"));
        let end = |name: &str, value: &str| Call::delete(&one).header(name, value);
        assert_eq!(signed_in.call(end("If-Match", "\"other\"")).await.status, 412, "{all}");
        assert_eq!(signed_in.call(end("If-None-Match", "*")).await.status, 412, "{all}");
        assert_eq!(signed_in.call(end("If-None-Match", &tag)).await.status, 412, "{all}");
        assert_eq!(signed_in.call(end("If-Match", "nonsense")).await.status, 400, "{all}");
        assert_eq!(signed_in.call(Call::get(all)).await.data()[0]["id"], list[0]["id"], "{all}");
        let mut tag = tag;
        if named {
            let rename = |tag: &str| {
                Call::patch(&one).value(&json!({"name": "signed_in"})).header("If-Match", tag)
            };
            assert_eq!(signed_in.call(rename("\"other\"")).await.status, 412, "{all}");
            let renamed = signed_in.call(rename(&tag)).await.data();
            assert_eq!(signed_in.call(rename(&tag)).await.status, 412, "its name is another one");
            renamed["etag"].as_str().unwrap().clone_into(&mut tag);
        }
        assert_eq!(signed_in.call(end("If-Match", &tag)).await.status, 204, "{all}");
    }
}

#[tokio::test]
async fn no_tag_matches_a_resource_without_one() {
    let (_server, signed_in) = signed_in().await;
    for call in [
        Call::put("/api/v5/auth/password").value(&json!({
            "current_password": crate::account::PASSWORD, "new_password": "another good password",
        })),
        Call::delete("/api/v5/auth/sessions"),
        Call::delete("/api/v5/tenant").value(&json!({"password": crate::account::PASSWORD})),
    ] {
        let refused = signed_in.call(call.clone().header("If-Match", "\"a\"")).await;
        assert_eq!(refused.status, 412);
        let refused = signed_in.call(call.header("If-None-Match", "*")).await;
        assert_eq!(refused.status, 412);
    }
    assert_eq!(signed_in.get("").await.status, 200);
    let ended = Call::delete("/api/v5/auth/sessions").header("If-Match", "*");
    assert_eq!(signed_in.call(ended).await.data(), json!({"ended": 0}));
}

#[tokio::test]
async fn malformed_hosts_are_refused() {
    let (server, _desk) = signed_in().await;
    for host in ["a b", "a/b", "user@a", "a:99999", "a,b", "[::1", "a\"b", "\u{e9}", ""] {
        let request = format!("GET /api/v5/health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut client = crate::client::Client::connect(server.address).await;
        client.send(request.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(outcome(&answer), (400, "INVALID_HOST".to_owned()), "{host}");
    }
    for host in ["a.example", "127.0.0.1:8080", "[::1]:8080"] {
        let request = format!("GET /api/v5/health HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let mut client = crate::client::Client::connect(server.address).await;
        client.send(request.as_bytes()).await;
        assert_eq!(client.answer().await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn unknown_query_parameters_are_refused_by_name_on_every_route() {
    let (server, signed_in) = signed_in().await;
    let mut tried = 0;
    for operation in contract::operations() {
        if !operation.template.starts_with("/api/") || operation.id == "verifyCaller" {
            continue;
        }
        let method = ["GET", "PUT", "PATCH", "POST", "DELETE"]
            .into_iter()
            .find(|method| method.eq_ignore_ascii_case(operation.method))
            .unwrap();
        let path = format!("{}?nonsense=1", path(&signed_in, operation.template));
        let mut call = Call::new(method, &path);
        if operation.operation.get("requestBody").is_some() {
            call = call.json("{}");
        }
        let answer = signed_in.call(call.clone()).await;
        let expected = (400, "INVALID_QUERY".to_owned());
        assert_eq!(outcome(&answer), expected, "{}", operation.id);
        assert_eq!(answer.json()["error"]["fields"][0]["field"], "nonsense", "{}", operation.id);
        if operation.operation["security"] != json!([]) {
            let answer = crate::client::call(server.address, call).await;
            assert_eq!(answer.status, 401, "{}", operation.id);
        }
        tried += 1;
    }
    assert!(tried > 70, "{tried}");
    assert_eq!(signed_in.get("").await.status, 200, "nothing was done");
}

/// Collects the schemas of objects within the schema of a body.
fn objects<'a>(schema: &'a Value, found: &mut Vec<&'a Value>) {
    match schema {
        Value::Object(members) => {
            if members.get("properties").is_some() {
                found.push(schema);
            }
            members.values().for_each(|value| objects(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| objects(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn unknown_body_fields_are_refused_by_name_on_every_route() {
    let (_server, signed_in) = signed_in().await;
    let document = coditect_server::api::openapi::document();
    let mut tried = 0;
    for operation in contract::operations() {
        let at = format!("/paths/{}/{}", operation.template.replace('/', "~1"), operation.method);
        let content = &document.pointer(&at).unwrap()["requestBody"]["content"];
        let schema = &content["application/json"]["schema"];
        if schema.get("properties").is_none() {
            continue;
        }
        let mut described = Vec::new();
        objects(schema, &mut described);
        for object in described {
            assert_eq!(object["additionalProperties"], false, "{}: {object}", operation.id);
        }
        let method = unsafe_method(&operation).unwrap();
        let call = Call::new(method, &path(&signed_in, operation.template));
        let answer = signed_in.call(call.json(r#"{"nonsense":1}"#)).await;
        let expected = (422, "UNKNOWN_FIELD".to_owned());
        assert_eq!(outcome(&answer), expected, "{}", operation.id);
        assert_eq!(answer.json()["error"]["fields"][0]["field"], "nonsense", "{}", operation.id);
        tried += 1;
    }
    assert!(tried > 25, "{tried}");
    let nested = json!({"tabs": [{"path": "a", "cursor": {"line": 1, "column": 2, "row": 3}}]});
    for answer in [signed_in.put("editor", &nested).await, signed_in.patch("editor", &nested).await]
    {
        assert_eq!(outcome(&answer), (422, "UNKNOWN_FIELD".to_owned()));
        let field = answer.json()["error"]["fields"][0]["field"].take();
        assert_eq!(field, "tabs[0].cursor.row");
    }
}

#[tokio::test]
async fn integers_beyond_64_bits_are_refused_on_every_route_and_floats_are_kept() {
    let (_server, signed_in) = signed_in().await;
    let mut tried = 0;
    for operation in contract::operations() {
        let content = &operation.operation["requestBody"]["content"];
        let (Some(method), Some(_)) = (unsafe_method(&operation), content.get("application/json"))
        else {
            continue;
        };
        let call = Call::new(method, &path(&signed_in, operation.template));
        let answer = signed_in.call(call.json(r#"{"a":[{"b":18446744073709551616}]}"#)).await;
        let expected = (400, "INTEGER_OUT_OF_RANGE".to_owned());
        assert_eq!(outcome(&answer), expected, "{}", operation.id);
        assert_eq!(answer.json()["error"]["fields"][0]["field"], "a[0].b", "{}", operation.id);
        tried += 1;
    }
    assert!(tried > 30, "{tried}");
    let kept = r#"{"a":18446744073709551615,"b":-9223372036854775808,"c":1.5,"d":1e+30}"#;
    let saved = signed_in.call(Call::put(&signed_in.part("memory")).json(kept)).await;
    assert_eq!(saved.status, 200);
    let read = String::from_utf8(signed_in.get("memory").await.body).unwrap();
    for number in ["18446744073709551615", "-9223372036854775808", "1.5", "1e+30"] {
        assert!(read.contains(number), "{read}");
    }
}
