//! Bad input gets its status, its code and the envelope, and changes nothing.

use serde_json::{Value, json};

use crate::{
    client::{Answer, Call, call},
    server::Running,
};

const JSON: &str = "application/json";

/// A body, its type; the status, code and field of the answer.
type Row<'a> = (&'a [u8], &'a str, u16, &'a str, Option<&'a str>);

/// A server with a user, a session of theirs, and their token.
struct Home {
    server: Running,
    token: String,
    session: String,
}

impl Home {
    async fn new() -> Self {
        let server = Running::start(&[]).await;
        let user = r#"{"email":"ada@example.org","password":"testpass123"}"#;
        let answer = call(server.address, Call::post("/api/v5/auth/register").json(user)).await;
        let token = answer.data()["token"].as_str().unwrap().to_owned();
        let new = Call::post("/api/v5/sessions").json(r#"{"name":"kept","settings":{"a":1}}"#);
        let bearer = format!("Bearer {token}");
        let answer = call(server.address, new.header("Authorization", &bearer)).await;
        let session = format!("/api/v5/sessions/{}", answer.data()["id"].as_str().unwrap());
        Self { server, token, session }
    }

    /// A call by the user.
    async fn call(&self, request: Call) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        call(self.server.address, request.header("Authorization", &bearer)).await
    }

    /// All that the user can see.
    async fn state(&self) -> Value {
        let sessions = self.call(Call::get("/api/v5/sessions")).await.json();
        let me = self.call(Call::get("/api/v5/auth/me")).await.json();
        json!([sessions, me])
    }
}

/// `code` and, where it is about a field, `field`.
fn expect(answer: &Answer, status: u16, code: &str, field: Option<&str>, what: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
    let fields = answer.json()["error"]["fields"].clone();
    assert_eq!(fields[0]["field"].as_str(), field, "{what}: {fields}");
}

#[tokio::test]
async fn a_body_that_cannot_be_used_is_told_apart_and_changes_nothing() {
    let home = Home::new().await;
    let before = home.state().await;
    let long = "x".repeat(201);
    let deep =
        format!(r#"{{"name":"x","settings":{}{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 << 20));
    let big = format!(r#"{{"name":"x","settings":{{"a":"{}"}}}}"#, "x".repeat(70_000));
    let rows: [Row<'_>; 28] = [
        (b"", JSON, 400, "EMPTY_BODY", None),
        (b"no json", JSON, 400, "INVALID_JSON", None),
        (b"{\"name\":\"x\"", JSON, 400, "INVALID_JSON", None),
        (b"{\"name\":\"x\"} {}", JSON, 400, "INVALID_JSON", None),
        (b"[]", JSON, 400, "INVALID_BODY", None),
        (b"null", JSON, 400, "INVALID_BODY", None),
        (b"{\"name\":\"\xff\xfe\"}", JSON, 400, "INVALID_JSON", None),
        (br#"{"name":"x","name":"y"}"#, JSON, 400, "DUPLICATE_FIELD", Some("name")),
        (br#"{"name":"x","other":{"a":1,"a":2}}"#, JSON, 400, "DUPLICATE_FIELD", Some("other.a")),
        (deep.as_bytes(), JSON, 400, "INVALID_JSON", None),
        (large.as_bytes(), JSON, 413, "PAYLOAD_TOO_LARGE", None),
        (br#"{"name":"x"}"#, "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE", None),
        (br#"{"name":"x"}"#, "multipart/form-data", 415, "UNSUPPORTED_MEDIA_TYPE", None),
        (br#"{"name":7}"#, JSON, 422, "VALIDATION_FAILED", Some("name")),
        (br#"{"name":null}"#, JSON, 422, "VALIDATION_FAILED", Some("name")),
        (br#"{"name":""}"#, JSON, 422, "VALIDATION_FAILED", Some("name")),
        (br#"{"name":"   "}"#, JSON, 422, "VALIDATION_FAILED", Some("name")),
        (br#"{"name":"a\u0000b"}"#, JSON, 422, "VALIDATION_FAILED", Some("name")),
        (br#"{"name":"x","type":"desktop"}"#, JSON, 422, "VALIDATION_FAILED", Some("type")),
        (br#"{"name":"x","type":1}"#, JSON, 422, "VALIDATION_FAILED", Some("type")),
        (br#"{"name":"x","settings":[1]}"#, JSON, 422, "VALIDATION_FAILED", Some("settings")),
        (br#"{"name":"x","settings":"{}"}"#, JSON, 422, "VALIDATION_FAILED", Some("settings")),
        (big.as_bytes(), JSON, 422, "VALIDATION_FAILED", Some("settings")),
        (
            br#"{"name":"x","workspacePath":7}"#,
            JSON,
            422,
            "VALIDATION_FAILED",
            Some("workspacePath"),
        ),
        (
            br#"{"name":"x","workspacePath":"a"}"#,
            JSON,
            422,
            "VALIDATION_FAILED",
            Some("workspace_path"),
        ),
        (
            br#"{"name":"x","workspacePath":""}"#,
            JSON,
            422,
            "VALIDATION_FAILED",
            Some("workspace_path"),
        ),
        (
            br#"{"name":"x","workspacePath":"/a\u0000"}"#,
            JSON,
            422,
            "VALIDATION_FAILED",
            Some("workspace_path"),
        ),
        (
            br#"{"name":"x","workspacePath":"/a","workspace_path":"/b"}"#,
            JSON,
            400,
            "DUPLICATE_FIELD",
            Some("workspace_path"),
        ),
    ];
    for (body, media_type, status, code, field) in rows {
        let what = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        for request in [Call::post("/api/v5/sessions"), Call::new("PUT", &home.session)] {
            let request = request.header("Content-Type", media_type).body(body);
            let answer = home.call(request).await;
            expect(&answer, status, code, field, &what);
        }
    }
    let name = json!({ "name": long }).to_string();
    let answer = home.call(Call::post("/api/v5/sessions").json(name)).await;
    expect(&answer, 422, "VALIDATION_FAILED", Some("name"), "a long name");
    assert_eq!(home.state().await, before);
}

#[tokio::test]
async fn an_account_that_cannot_be_is_refused_by_its_field() {
    let home = Home::new().await;
    let too_long = format!(r#"{{"email":"a@b.cc","password":"{}"}}"#, "x".repeat(257));
    for (body, status, code, field) in [
        (r#"{"email":"bob","password":"testpass123"}"#, 422, "INVALID_EMAIL", Some("email")),
        (r#"{"email":"","password":"testpass123"}"#, 422, "INVALID_EMAIL", Some("email")),
        (
            r#"{"email":"b@b.cc\r\nBcc: x","password":"testpass123"}"#,
            422,
            "INVALID_EMAIL",
            Some("email"),
        ),
        (
            r#"{"email":"b\u0000@b.cc","password":"testpass123"}"#,
            422,
            "INVALID_EMAIL",
            Some("email"),
        ),
        (
            r#"{"email":"bob@example.org","password":"short"}"#,
            422,
            "WEAK_PASSWORD",
            Some("password"),
        ),
        (
            r#"{"email":"bob@example.org","password":"BOB@example.org"}"#,
            422,
            "WEAK_PASSWORD",
            Some("password"),
        ),
        (&too_long, 422, "WEAK_PASSWORD", Some("password")),
        (r#"{"email":"bob@example.org"}"#, 422, "VALIDATION_FAILED", Some("password")),
        (r#"{"email":7,"password":"testpass123"}"#, 422, "VALIDATION_FAILED", Some("email")),
        (r#"{"email":"ADA@example.org","password":"testpass123"}"#, 409, "EMAIL_TAKEN", None),
    ] {
        let request = Call::post("/api/v5/auth/register").json(body);
        let answer = call(home.server.address, request).await;
        expect(&answer, status, code, field, body);
        assert!(!String::from_utf8_lossy(&answer.body).contains("testpass123"));
    }
}

#[tokio::test]
async fn a_token_that_is_none_gets_401_and_a_challenge_on_every_route() {
    let home = Home::new().await;
    let routes = [
        Call::get("/api/v5/auth/me"),
        Call::get("/api/v5/sessions"),
        Call::post("/api/v5/sessions").json(r#"{"name":"x"}"#),
        Call::post("/api/v5/sessions/create").json(r#"{"name":"x"}"#),
        Call::get(&home.session),
        Call::new("PUT", &home.session).json(r#"{"name":"x"}"#),
        Call::new("PATCH", &home.session).json(r#"{"name":"x"}"#),
        Call::new("DELETE", &home.session),
        Call::post("/api/v5/auth/logout"),
    ];
    let cut = &home.token[..home.token.len() - 1];
    let headless = home.token.split_once('.').unwrap().1;
    for request in routes {
        for token in ["", "x", "a.b.c", cut, headless, "crt_AQAA"] {
            let request = match token {
                "" => request.clone(),
                _ => request.clone().header("Authorization", &format!("Bearer {token}")),
            };
            let answer = call(home.server.address, request).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"), "{token}");
            let challenge = answer.header("www-authenticate").unwrap();
            let expected =
                if token.is_empty() { "Bearer" } else { r#"Bearer error="invalid_token""# };
            assert_eq!(challenge, expected);
        }
        let bearer = format!("Bearer {}", home.token);
        let twice = request.header("Authorization", &bearer).header("Authorization", &bearer);
        assert_eq!(call(home.server.address, twice).await.status, 400);
    }
}

#[tokio::test]
async fn unknown_routes_methods_ids_and_queries_are_refused() {
    let home = Home::new().await;
    let before = home.state().await;
    for (method, path, status, code) in [
        ("GET", "/", 404, "NOT_FOUND"),
        ("GET", "/api/v5", 404, "NOT_FOUND"),
        ("GET", "/api/v5/nothing", 404, "NOT_FOUND"),
        ("GET", "/api/v4/sessions", 404, "NOT_FOUND"),
        ("POST", "/api/v5/health", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/api/v5/sessions", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v5/auth/logout", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v5/auth/login", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/v5/sessions/not-an-id", 404, "NOT_FOUND"),
        ("DELETE", "/api/v5/sessions/%00", 404, "NOT_FOUND"),
        ("GET", "/api/v5/sessions/%ff", 400, "INVALID_PATH"),
        ("GET", "/api/v5/sessions/00000000-0000-0000-0000-000000000000", 404, "NOT_FOUND"),
        ("GET", "/api/v5/sessions?limit=0", 400, "INVALID_QUERY"),
        ("GET", "/api/v5/sessions?limit=201", 400, "INVALID_QUERY"),
        ("GET", "/api/v5/sessions?limit=many", 400, "INVALID_QUERY"),
        ("GET", "/api/v5/sessions?limit=1&limit=2", 400, "INVALID_QUERY"),
        ("GET", "/api/v5/sessions?type=desktop", 400, "INVALID_QUERY"),
        ("GET", "/api/v5/sessions?cursor=x", 400, "INVALID_CURSOR"),
        ("GET", "/api/v5/sessions?cursor=", 400, "INVALID_CURSOR"),
        ("GET", "/api/v5/sessions?cursor=AAAA%00", 400, "INVALID_CURSOR"),
    ] {
        let answer = home.call(Call::new(method, path)).await;
        let what = format!("{method} {path}");
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{what}");
    }
    assert_eq!(home.state().await, before);
}
