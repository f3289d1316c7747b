//! Invalid input is refused with a message and changes nothing.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    account::{Device, LOGIN, LOGOUT, ME, REFRESH, REGISTER, credentials},
    client::{Answer, Call, Client, call},
    server::Running,
};

const EMAIL: &str = "ada@example.org";
const SESSIONS: &str = "/api/v5/sessions";
const CREATE: &str = "/api/v5/sessions/create";
/// Placeholder for the path of the only session.
const OWN: &str = "OWN";
/// Methods of [`OWN`].
const OWN_METHODS: &str = "GET, PUT, PATCH, DELETE, HEAD, OPTIONS";

/// An account with a session, and its visible state.
struct TestServer {
    server: Running,
    device: Device,
    own: String,
    seen: Value,
}

impl TestServer {
    async fn new() -> Self {
        let server = Running::start(&[]).await;
        let device = Device::register(server.address, EMAIL).await;
        let body = json!({"name": "n", "workspacePath": "/w", "settings": {"theme": "dark"}});
        let create = Call::post(SESSIONS).bearer(&device.token).value(&body);
        let made = call(server.address, create).await.data();
        let own = format!("{SESSIONS}/{}", made["id"].as_str().unwrap());
        let seen = see(server.address, &device.token).await;
        assert_eq!(seen["list"]["data"], json!([made]));
        Self { server, device, own, seen }
    }

    /// Sends an authorized request on a new connection.
    async fn call(&self, wanted: Call) -> Answer {
        call(self.server.address, wanted.bearer(&self.device.token)).await
    }

    fn path<'a>(&'a self, path: &'a str) -> &'a str {
        if path == OWN { &self.own } else { path }
    }

    async fn expect_unchanged(&self) {
        assert_eq!(see(self.server.address, &self.device.token).await, self.seen);
        Device::login(self.server.address, EMAIL).await;
        self.device.refreshed(self.server.address).await;
    }
}

async fn see(server: SocketAddr, token: &str) -> Value {
    let me = call(server, Call::get(ME).bearer(token)).await;
    let list = call(server, Call::get(SESSIONS).bearer(token)).await;
    json!({"me": me.data(), "list": list.json()})
}

/// Returns the first field in the error of a response.
fn first_field(answer: &Answer) -> Value {
    answer.json()["error"]["fields"][0]["field"].take()
}

#[tokio::test]
async fn field_of_the_wrong_type_is_named() {
    let env = TestServer::new().await;
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(201));
    let long_path = format!(r#"{{"workspacePath":"/{}","name":"x"}}"#, "x".repeat(4_096));
    let large = format!(r#"{{"name":"x","settings":{{"a":"{}"}}}}"#, "x".repeat(65_536));
    #[rustfmt::skip]
    let table = [
        ("POST",  REGISTER, "{}",                                            "email"),
        ("POST",  REGISTER, r#"{"email":"eve@example.org"}"#,                   "password"),
        ("POST",  REGISTER, r#"{"email":7,"password":"x"}"#,                    "email"),
        ("POST",  REGISTER, r#"{"email":["a"],"password":"x"}"#,                "email"),
        ("POST",  REGISTER, r#"{"email":null,"password":"x"}"#,                 "email"),
        ("POST",  REGISTER, r#"{"email":"eve@example.org","password":true}"#,   "password"),
        ("POST",  REGISTER, r#"{"email":"e@x.org","password":"x","firstName":{}}"#, "firstName"),
        ("POST",  LOGIN,    r#"{"email":"ada@example.org"}"#,                   "password"),
        ("POST",  LOGIN,    r#"{"email":{"$ne":""},"password":"x"}"#,           "email"),
        ("POST",  REFRESH,  "{}",                                            "refresh_token"),
        ("POST",  REFRESH,  r#"{"refresh_token":null}"#,                        "refresh_token"),
        ("POST",  REFRESH,  r#"{"refreshToken":1e9}"#,                          "refreshToken"),
        ("POST",  LOGOUT,   r#"{"everywhere":"yes"}"#,                          "everywhere"),
        ("POST",  LOGOUT,   r#"{"everywhere":null}"#,                           "everywhere"),
        ("POST",  LOGOUT,   r#"{"refresh_token":[]}"#,                          "refresh_token"),
        ("POST",  SESSIONS, "{}",                                            "name"),
        ("POST",  CREATE,   r#"{"type":"theia"}"#,                              "name"),
        ("POST",  SESSIONS, r#"{"name":null}"#,                                 "name"),
        ("POST",  SESSIONS, r#"{"name":7}"#,                                    "name"),
        ("POST",  SESSIONS, r#"{"name":""}"#,                                   "name"),
        ("POST",  SESSIONS, r#"{"name":" \t "}"#,                               "name"),
        ("POST",  SESSIONS, r#"{"name":"a\u0000b"}"#,                           "name"),
        ("POST",  SESSIONS, r#"{"name":"a\nb"}"#,                               "name"),
        ("POST",  SESSIONS, &long,                                              "name"),
        ("POST",  SESSIONS, r#"{"name":"x","type":"vim"}"#,                     "type"),
        ("POST",  SESSIONS, r#"{"name":"x","type":"Theia"}"#,                   "type"),
        ("POST",  SESSIONS, r#"{"name":"x","type":7}"#,                         "type"),
        ("POST",  SESSIONS, r#"{"name":"x","type":{"theia":null}}"#,            "type"),
        ("POST",  SESSIONS, r#"{"name":"x","workspacePath":7}"#,                "workspacePath"),
        ("POST",  SESSIONS, r#"{"name":"x","workspacePath":"relative"}"#,       "workspace_path"),
        ("POST",  SESSIONS, r#"{"name":"x","workspacePath":""}"#,               "workspace_path"),
        ("POST",  SESSIONS, r#"{"name":"x","workspacePath":"/a\u0000b"}"#,      "workspace_path"),
        ("POST",  SESSIONS, &long_path,                                         "workspace_path"),
        ("POST",  SESSIONS, r#"{"name":"x","settings":[]}"#,                    "settings"),
        ("POST",  SESSIONS, r#"{"name":"x","settings":"{}"}"#,                  "settings"),
        ("POST",  SESSIONS, &large,                                             "settings"),
        ("PUT",   OWN,      r#"{"name":null}"#,                                 "name"),
        ("PATCH", OWN,      r#"{"name":""}"#,                                   "name"),
        ("PATCH", OWN,      &long,                                              "name"),
        ("PATCH", OWN,      r#"{"type":null}"#,                                 "type"),
        ("PATCH", OWN,      r#"{"type":"vim"}"#,                                "type"),
        ("PUT",   OWN,      r#"{"settings":7}"#,                                "settings"),
        ("PUT",   OWN,      r#"{"name":"x","settings":[{"a":1}]}"#,             "settings"),
        ("PATCH", OWN,      &large,                                             "settings"),
        ("PATCH", OWN,      r#"{"workspacePath":"x"}"#,                         "workspace_path"),
        ("PATCH", OWN,      r#"{"conversation_id":"x"}"#,                       "conversation_id"),
        ("PATCH", OWN,      r#"{"name":"x","conversationId":7}"#,               "conversationId"),
    ];
    for (method, path, body, field) in table {
        let answer = env.call(Call::new(method, env.path(path)).json(body)).await;
        let about = body.chars().take(80).collect::<String>();
        let told = (answer.status, answer.code());
        assert_eq!(told, (422, "VALIDATION_FAILED".to_owned()), "{method} {path} {about}");
        assert_eq!(first_field(&answer), field, "{method} {path} {about}");
    }
    env.expect_unchanged().await;
}

#[tokio::test]
async fn malformed_body_is_refused() {
    let env = TestServer::new().await;
    let deep =
        format!(r#"{{"name":"x","settings":{}1{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
    let deeper = "[".repeat(16_000);
    let utf16: Vec<u8> = "{\"name\":\"x\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    #[rustfmt::skip]
    let bodies: [(&[u8], u16, &str); 21] = [
        (b"",                                           400, "EMPTY_BODY"),
        (b" ",                                          400, "INVALID_JSON"),
        (b"{",                                          400, "INVALID_JSON"),
        (b"{\"name\":\"x\"",                            400, "INVALID_JSON"),
        (b"{\"name\":\"x\"} {}",                        400, "INVALID_JSON"),
        (b"{'name':'x'}",                               400, "INVALID_JSON"),
        (b"{\"name\":\"x\",}",                          400, "INVALID_JSON"),
        (b"{\"name\":\"x\",\"settings\":{\"a\":NaN}}",  400, "INVALID_JSON"),
        (b"{\"name\":\"x\",\"settings\":{\"a\":1e999}}", 400, "INVALID_JSON"),
        (b"{\"name\":\"\\ud800\"}",                     400, "INVALID_JSON"),
        (b"{\"name\":\"a\0b\"}",                        400, "INVALID_JSON"),
        (b"\0\0\0\0",                                   400, "INVALID_JSON"),
        (b"{\"name\":\"\xff\"}",                        400, "INVALID_JSON"),
        (b"{\"name\":\"\xc0\xaf\"}",                    400, "INVALID_JSON"),
        (&utf16,                                        400, "INVALID_JSON"),
        (deep.as_bytes(),                               400, "INVALID_JSON"),
        (deeper.as_bytes(),                             400, "INVALID_JSON"),
        (b"[\"x\"]",                                    400, "INVALID_BODY"),
        (b"null",                                       400, "INVALID_BODY"),
        (b"{\"name\":\"x\",\"name\":\"y\"}",            400, "DUPLICATE_FIELD"),
        (b"{\"settings\":{\"a\":{\"b\":1,\"b\":2}},\"name\":\"x\"}", 400, "DUPLICATE_FIELD"),
    ];
    let routes = [
        ("POST", REGISTER),
        ("POST", LOGIN),
        ("POST", REFRESH),
        ("POST", SESSIONS),
        ("POST", CREATE),
        ("PUT", OWN),
        ("PATCH", OWN),
    ];
    for (method, path) in routes {
        for (body, status, code) in bodies {
            let answer = env.call(Call::new(method, env.path(path)).json(body)).await;
            let about = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            let told = (answer.status, answer.code());
            assert_eq!(told, (status, code.to_owned()), "{method} {path} {about}");
        }
    }
    for body in bodies.iter().map(|(body, ..)| *body).filter(|body| !body.is_empty()) {
        let answer = env.call(Call::post(LOGOUT).json(body)).await;
        assert_eq!(answer.status, 400);
        answer.code();
    }
    env.expect_unchanged().await;
}

#[tokio::test]
async fn oversized_or_non_json_body_is_not_read() {
    let env = TestServer::new().await;
    let large = vec![b' '; 2 << 20];
    for (method, path) in [
        ("POST", REGISTER),
        ("POST", LOGIN),
        ("POST", REFRESH),
        ("POST", LOGOUT),
        ("POST", SESSIONS),
        ("POST", CREATE),
        ("PUT", OWN),
        ("PATCH", OWN),
    ] {
        let to = || Call::new(method, env.path(path)).bearer(&env.device.token);
        let answer = call(env.server.address, to().json(large.clone())).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "PAYLOAD_TOO_LARGE"), "{path}");
        for label in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-16",
            "application/jsonp",
            "",
        ] {
            let body = r#"{"name":"x","everywhere":true}"#;
            let labelled = to().header("Content-Type", label).body(body);
            let answer = call(env.server.address, labelled).await;
            let told = (answer.status, answer.code());
            assert_eq!(told, (415, "UNSUPPORTED_MEDIA_TYPE".to_owned()), "{path} {label}");
        }
        let answer = call(env.server.address, to().body("{}")).await;
        assert_eq!(answer.code(), "UNSUPPORTED_MEDIA_TYPE", "{path}");
    }
    env.expect_unchanged().await;
}

#[tokio::test]
async fn unknown_path_or_method_is_refused() {
    let env = TestServer::new().await;
    #[rustfmt::skip]
    let table = [
        ("GET",     "/api/v5/nothing",            404, "NOT_FOUND",           None),
        ("GET",     "/api/v4/sessions",           404, "NOT_FOUND",           None),
        ("GET",     "/api/v5/sessions/",          404, "NOT_FOUND",           None),
        ("GET",     "//api/v5/sessions",          404, "NOT_FOUND",           None),
        ("GET",     "/api/v5/./sessions",         404, "NOT_FOUND",           None),
        ("GET",     "/api/v5/x/../sessions",      404, "NOT_FOUND",           None),
        ("GET",     "/API/V5/SESSIONS",           404, "NOT_FOUND",           None),
        ("POST",    "/api/v5/auth/register/",     404, "NOT_FOUND",           None),
        ("GET",     "/api/v5/sessions/%ff",       400, "INVALID_PATH",        None),
        ("GET",     REGISTER, 405, "METHOD_NOT_ALLOWED", Some("POST, OPTIONS")),
        ("GET",     LOGIN,    405, "METHOD_NOT_ALLOWED", Some("POST, OPTIONS")),
        ("PUT",     REFRESH,  405, "METHOD_NOT_ALLOWED", Some("POST, OPTIONS")),
        ("DELETE",  LOGOUT,   405, "METHOD_NOT_ALLOWED", Some("POST, OPTIONS")),
        ("POST",    ME,       405, "METHOD_NOT_ALLOWED", Some("GET, HEAD, OPTIONS")),
        ("DELETE",  SESSIONS, 405, "METHOD_NOT_ALLOWED", Some("POST, GET, HEAD, OPTIONS")),
        ("POST",    OWN,      405, "METHOD_NOT_ALLOWED", Some(OWN_METHODS)),
        ("TRACE",   SESSIONS, 405, "METHOD_NOT_ALLOWED", Some("POST, GET, HEAD, OPTIONS")),
        ("BREW",    SESSIONS, 405, "METHOD_NOT_ALLOWED", Some("POST, GET, HEAD, OPTIONS")),
    ];
    for (method, path, status, code, allow) in table {
        let answer = env.call(Call::new(method, env.path(path))).await;
        let told = (answer.status, answer.code());
        assert_eq!(told, (status, code.to_owned()), "{method} {path}");
        assert_eq!(answer.header("allow"), allow, "{method} {path}");
    }
    env.expect_unchanged().await;
}

#[tokio::test]
async fn token_is_only_accepted_whole_and_once_in_its_header() {
    let env = TestServer::new().await;
    let token = &env.device.token;
    let cut = &token[..token.len() - 1];
    let own = |call: Call| call.json(r#"{"name":"x"}"#);
    let in_query = format!("{}?token={token}&access_token={token}", env.own);
    #[rustfmt::skip]
    let table = [
        (Call::patch(&env.own),                                           401, "UNAUTHORIZED"),
        (Call::patch(&env.own).bearer(cut),                               401, "UNAUTHORIZED"),
        (Call::patch(&env.own).bearer(&format!("{token} {token}")),       401, "UNAUTHORIZED"),
        (Call::patch(&env.own).header("Authorization", token),            401, "UNAUTHORIZED"),
        (Call::patch(&env.own).header("Authorization", ""),               401, "UNAUTHORIZED"),
        (Call::patch(&env.own).header("Authorization", "Bearer \u{e9}"),  401, "UNAUTHORIZED"),
        (Call::patch(&env.own).header("Cookie", &format!("token={token}")), 401, "UNAUTHORIZED"),
        (Call::patch(&in_query),                                            401, "UNAUTHORIZED"),
        (Call::patch(&env.own).bearer(token).bearer(token),               400, "INVALID_REQUEST"),
        (Call::patch(&env.own).bearer(token).bearer("x.y.z"),             400, "INVALID_REQUEST"),
    ];
    for (wanted, status, code) in table {
        let answer = call(env.server.address, own(wanted.clone())).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{wanted:?}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{wanted:?}");
    }
    let lower_case = Call::get(&env.own).header("authorization", &format!("bEaReR  {token}"));
    assert_eq!(call(env.server.address, lower_case).await.status, 200);
    env.expect_unchanged().await;
}

#[tokio::test]
async fn nul_bytes_in_the_request_head_are_refused() {
    let env = TestServer::new().await;
    let token = &env.device.token;
    for head in [
        format!("GET {SESSIONS}\0 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"),
        format!("GET {SESSIONS} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\0\r\n\r\n"),
        format!("GET {SESSIONS} HTTP/1.1\r\nHost: a\r\nX-\0: Bearer {token}\r\n\r\n"),
    ] {
        let mut client = Client::connect(env.server.address).await;
        client.send(head.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "BAD_REQUEST"));
    }
    let encoded = Call::get(&format!("{SESSIONS}?workspace_path=%00&type=theia"));
    assert_eq!(env.call(encoded).await.data(), json!([]));
    env.expect_unchanged().await;
}

#[tokio::test]
async fn refusal_does_not_repeat_secrets() {
    let env = TestServer::new().await;
    let secret = "s3cret-passphrase";
    for body in [
        format!(r#"{{"email":"{secret}","password":"{secret}"}}"#),
        format!(r#"{{"email":"a@b.org","password":["{secret}"]}}"#),
        format!(r#"{{"email":"a@b.org","password":"{secret}" x"#),
        format!(r#"{{"email":"a@b.org","password":"{secret}","password":"{secret}"}}"#),
        format!(r#""{secret}""#),
    ] {
        for path in [REGISTER, LOGIN] {
            let answer = env.call(Call::post(path).json(body.clone())).await;
            assert!(answer.status >= 400, "{path} {body}");
            assert!(!String::from_utf8_lossy(&answer.body).contains(secret), "{path} {body}");
        }
    }
    let taken = env.call(credentials(REGISTER, EMAIL, secret)).await;
    assert!(!String::from_utf8_lossy(&taken.body).contains(secret));
    env.expect_unchanged().await;
}
