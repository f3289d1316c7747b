//! The WebSocket of a session: live state, updates, notifications, resumption.

use std::{net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        http::{HeaderMap, HeaderValue, Request, Response},
    },
};

use crate::{
    account::{Device, logout},
    client::{Call, PATIENCE},
    folder::{self, Folder},
    server::Running,
    signed_in_session::SignedInSession,
};

/// Client side of a WebSocket.
pub(crate) struct Socket(pub(crate) WebSocketStream<TcpStream>);

/// Parameters of a handshake.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    server: SocketAddr,
    path: String,
    headers: HeaderMap,
}

impl Asking {
    pub(crate) fn of(signed_in: &SignedInSession) -> Self {
        Self { server: signed_in.server, path: signed_in.part("ws"), headers: HeaderMap::new() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    fn query(mut self, query: &str) -> Self {
        self.path = format!("{}?{query}", self.path);
        self
    }

    fn request(self) -> Request<()> {
        let mut request: Request<()> =
            format!("ws://test{}", self.path).into_client_request().unwrap();
        request.headers_mut().extend(self.headers);
        request
    }

    async fn ask(self) -> Result<(Socket, Response<()>), (u16, String)> {
        let stream = TcpStream::connect(self.server).await.unwrap();
        match timeout(PATIENCE, client_async(self.request(), stream)).await.unwrap() {
            Ok((socket, response)) => Ok((Socket(socket), response.map(|_| ()))),
            Err(Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let code = body["error"]["code"].as_str().unwrap_or_default();
                Err((response.status().as_u16(), code.to_owned()))
            }
            Err(other) => panic!("{other}"),
        }
    }

    pub(crate) async fn open(self) -> Socket {
        self.ask().await.map_err(|refused| format!("{refused:?}")).unwrap().0
    }

    /// Like [`open`](Self::open); `None` if the connection ends before the handshake completes.
    async fn try_open(self) -> Option<Socket> {
        let stream = TcpStream::connect(self.server).await.ok()?;
        let opened = timeout(PATIENCE, client_async(self.request(), stream)).await.unwrap();
        match opened {
            Ok((socket, _)) => Some(Socket(socket)),
            Err(Error::Http(response)) => panic!("{response:?}"),
            Err(_) => None,
        }
    }

    async fn refused(self) -> (u16, String) {
        self.ask().await.map(|_| ()).unwrap_err()
    }
}

impl Socket {
    /// Opens a socket with the token of the signed-in user, as `client`.
    pub(crate) async fn open(signed_in: &SignedInSession, client: &str) -> (Self, Value) {
        let asking =
            Asking::of(signed_in).bearer(&signed_in.token).query(&format!("client={client}"));
        let mut socket = asking.open().await;
        let restored = socket.expect("restore").await;
        (socket, restored)
    }

    /// Like [`open`](Self::open); `None` if the connection ends before the state is restored.
    pub(crate) async fn try_open(
        signed_in: &SignedInSession,
        client: &str,
    ) -> Option<(Self, Value)> {
        let asking =
            Asking::of(signed_in).bearer(&signed_in.token).query(&format!("client={client}"));
        let mut socket = asking.try_open().await?;
        let restored = socket.next().await?;
        assert_eq!(restored["type"], "restore", "{restored}");
        Some((socket, restored))
    }

    pub(crate) async fn say(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    pub(crate) async fn update(&mut self, part: &str, seq: u64, data: Value) {
        self.say(&json!({"type": format!("{part}.update"), "seq": seq, "data": data})).await;
    }

    /// Returns the next message, or `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("a frame in time")? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Returns the next message, which must be of type `kind`.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next().await.expect("a frame and not the end");
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Returns the close code, skipping messages before it.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(Some(close)))) => return close.code.into(),
                Some(Ok(_)) => {}
                other => panic!("no close, but {other:?}"),
            }
        }
    }

    /// Returns whether nothing comes for a moment, not even the end.
    pub(crate) async fn is_silent(&mut self) -> bool {
        timeout(Duration::from_millis(1), self.0.next()).await.is_err()
    }

    /// Asserts that no message arrives for a while.
    async fn expect_silence(&mut self) {
        let heard = timeout(Duration::from_millis(300), self.0.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    }
}

fn tabs(paths: &[&str]) -> Value {
    json!({"tabs": paths.iter().map(|path| json!({"path": path})).collect::<Vec<_>>()})
}

#[tokio::test]
async fn update_is_acknowledged_when_durable_and_sent_to_others() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut one, restored) = Socket::open(&signed_in, "one").await;
    assert_eq!(restored["seq"], 0);
    assert_eq!(restored["client"], "one");
    assert_eq!(restored["versions"], json!({"editor": 0, "terminal": 0, "memory": 0}));
    assert_eq!(restored["data"], signed_in.get("restore").await.data());
    let (mut two, _) = Socket::open(&signed_in, "two").await;

    one.update("editor", 1, tabs(&["a.rs", "b.rs"])).await;
    let ack = one.expect("ack").await;
    assert_eq!(ack, json!({"type": "ack", "seq": 1, "part": "editor", "version": 1}));
    let told = two.expect("changed").await;
    assert_eq!((&told["part"], &told["version"]), (&json!("editor"), &json!(1)));
    let now = signed_in.get("editor").await;
    assert_eq!(told["data"], now.data());
    assert_eq!(now.data()["tabs"][1]["path"], "b.rs");
    assert_eq!(now.header("etag").unwrap(), "\"1\"");

    two.update("terminal", 1, json!({"terminals": {"main": {"cwd": "/tmp"}}})).await;
    two.update("memory", 2, json!({"plan": [1, null]})).await;
    assert_eq!(two.expect("ack").await["seq"], 1);
    assert_eq!(two.expect("ack").await["seq"], 2);
    let mut parts = [one.expect("changed").await, one.expect("changed").await]
        .map(|told| told["part"].as_str().unwrap().to_owned());
    parts.sort();
    assert_eq!(parts, ["memory", "terminal"]);
    // A client is not notified of its own updates.
    one.expect_silence().await;
    two.expect_silence().await;
}

#[tokio::test]
async fn terminal_secrets_are_not_stored_by_updates() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let patterns = json!({"value": {"values": ["acme-[0-9]+"]}});
    let setting = "/api/v5/settings/secret_patterns?scope=tenant";
    assert_eq!(signed_in.call(Call::put(setting).value(&patterns)).await.status, 200);
    let (mut one, _) = Socket::open(&signed_in, "one").await;
    let (mut two, _) = Socket::open(&signed_in, "two").await;
    let history = json!(["export GH_PAT=x", "curl -u a:b e.org", "echo acme-7", "ls"]);
    let vars = json!({"PGPASS": "x", "A": "acme-7", "PATH": "/bin"});
    for (seq, main) in [
        (1, json!({"command_history": history})),
        (2, json!({"environment_vars": vars})),
        (3, json!({"title": "tool --token abc"})),
    ] {
        one.update("terminal", seq, json!({"terminals": {"main": main}})).await;
    }
    for seq in 1..=3 {
        assert_eq!(one.expect("ack").await["seq"], seq);
    }
    let expected = json!({
        "title": "tool --token ***", "cwd": "", "environment_vars": {"PATH": "/bin"},
        "command_history": ["export GH_PAT=***", "curl -u a:*** e.org", "echo ***", "ls"],
    });
    assert_eq!(signed_in.get("terminal").await.data()["terminals"]["main"], expected);
    let told = two.expect("changed").await.to_string();
    assert!(!told.contains("a:b") && !told.contains("acme"), "{told}");
}

/// Two servers on one store, which requires a cluster.
#[tokio::test]
async fn change_at_one_server_is_sent_by_another() {
    if !folder::is_on_cluster() {
        folder::say_skipped("two servers have one store on a cluster alone");
        return;
    }
    let folder = Folder::new();
    let here = Running::start_in(folder.path(), &[]).await;
    let there = Running::start_in(folder.path(), &[]).await;
    let signed_in = SignedInSession::new(&here, "ada@example.org").await;
    let elsewhere = SignedInSession {
        server: there.address,
        token: signed_in.token.clone(),
        path: signed_in.path.clone(),
    };
    let (mut one, _) = Socket::open(&signed_in, "one").await;
    let (mut two, _) = Socket::open(&elsewhere, "two").await;
    one.update("editor", 1, tabs(&["a.rs"])).await;
    one.expect("ack").await;
    assert_eq!(two.expect("changed").await["data"]["tabs"][0]["path"], "a.rs");
    elsewhere.patch("memory", &json!({"k": 1})).await;
    assert_eq!(one.expect("changed").await["data"], json!({"k": 1}));
    let ended = elsewhere.call(Call::post("/api/v5/auth/logout")).await;
    assert_eq!(ended.status, 200);
    assert_eq!(signed_in.get("").await.status, 401, "who was signed out there is out here");
    here.stopped().await;
    there.stopped().await;
}

#[tokio::test]
async fn change_over_http_is_sent() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "one").await;
    signed_in.put("editor", &tabs(&["x"])).await;
    assert_eq!(socket.expect("changed").await["data"]["tabs"][0]["path"], "x");
    signed_in.patch("memory", &json!({"k": 1})).await;
    assert_eq!(socket.expect("changed").await["data"], json!({"k": 1}));
    signed_in.patch("memory", &json!({"k": null})).await;
    assert_eq!(socket.expect("changed").await["data"], json!({}));
}

#[tokio::test]
async fn concurrent_changes_converge() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut one, _) = Socket::open(&signed_in, "one").await;
    let (mut two, _) = Socket::open(&signed_in, "two").await;
    for seq in 1..=40 {
        one.update("memory", seq, json!({"one": seq, "last": "one"})).await;
        two.update("memory", seq, json!({"two": seq, "last": "two"})).await;
    }
    for (socket, name) in [(&mut one, "one"), (&mut two, "two")] {
        let mut acked = 0;
        while acked < 40 {
            let frame = socket.next().await.unwrap();
            if frame["type"] == "ack" {
                acked += 1;
                assert_eq!(frame["seq"], acked, "{name}");
            }
        }
    }
    let settled = signed_in.get("memory").await;
    assert_eq!(settled.data()["one"], 40);
    assert_eq!(settled.data()["two"], 40);
    // A client that received partial notifications gets the whole state.
    let version: u64 = settled.header("etag").unwrap().trim_matches('"').parse().unwrap();
    let mut last = [Value::Null, Value::Null];
    for (at, socket) in [&mut one, &mut two].into_iter().enumerate() {
        while let Ok(Some(Ok(Message::Text(text)))) =
            timeout(Duration::from_millis(500), socket.0.next()).await
        {
            last[at] = serde_json::from_str(&text).unwrap();
        }
    }
    let newest = last.iter().filter(|told| told["type"] == "changed");
    for told in newest {
        assert_eq!(told["version"], version);
        assert_eq!(told["data"], settled.data());
    }
}

#[tokio::test]
async fn reconnecting_client_neither_loses_nor_repeats_updates() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    for seq in 1..=3 {
        socket.update("memory", seq, json!({"n": seq})).await;
        socket.expect("ack").await;
    }
    drop(socket);
    // Another client has made a change meanwhile.
    signed_in.patch("memory", &json!({"n": 99})).await;
    let (mut socket, restored) = Socket::open(&signed_in, "tab").await;
    assert_eq!(restored["seq"], 3);
    assert_eq!(restored["data"]["session_memory"]["n"], 99);
    // It did not receive the acknowledgement of the third update, and sends it again with the
    // fourth.
    socket.update("memory", 3, json!({"n": 3})).await;
    socket.update("memory", 4, json!({"m": 4})).await;
    assert_eq!(socket.expect("ack").await["seq"], 3);
    assert_eq!(socket.expect("ack").await["seq"], 4);
    assert_eq!(signed_in.get("memory").await.data(), json!({"n": 99, "m": 4}));
}

#[tokio::test]
async fn new_connection_supersedes_the_old_one_of_a_client() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut first, _) = Socket::open(&signed_in, "tab").await;
    first.update("memory", 1, json!({"by": "first"})).await;
    first.expect("ack").await;
    let (mut second, restored) = Socket::open(&signed_in, "tab").await;
    assert_eq!(restored["seq"], 1);
    first.update("memory", 2, json!({"by": "first, again"})).await;
    assert_eq!(first.closed().await, 4409);
    second.update("memory", 2, json!({"by": "second"})).await;
    second.expect("ack").await;
    assert_eq!(signed_in.get("memory").await.data()["by"], "second");
}

#[tokio::test]
async fn burst_is_batched_and_acknowledged_individually() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    for seq in 1..=500 {
        let frame = json!({"type": "memory.update", "seq": seq, "data": {"n": seq}});
        socket.0.feed(Message::text(frame.to_string())).await.unwrap();
    }
    socket.0.flush().await.unwrap();
    let mut version = 0;
    for seq in 1..=500_u64 {
        let ack = socket.expect("ack").await;
        assert_eq!(ack["seq"], seq);
        version = ack["version"].as_u64().unwrap();
    }
    assert!(version < 250, "{version} writes");
    assert_eq!(signed_in.get("memory").await.data()["n"], 500);
}

#[tokio::test]
async fn invalid_update_is_refused_and_others_apply() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    socket.update("editor", 1, tabs(&["a"])).await;
    socket.update("editor", 2, json!({"tabs": 7})).await;
    socket.update("memory", 3, json!({"x".repeat(300): 1})).await;
    // Larger than a value may be, which the store reports at the write.
    socket.update("memory", 4, json!({"big": "x".repeat(120_000)})).await;
    socket.update("memory", 5, json!({"small": 1})).await;
    assert_eq!(socket.expect("ack").await["seq"], 1);
    for (seq, code) in [(2, "VALIDATION_FAILED"), (3, "VALIDATION_FAILED"), (4, "TOO_LARGE")] {
        let refused = socket.expect("error").await;
        assert_eq!((&refused["seq"], &refused["error"]["code"]), (&json!(seq), &json!(code)));
        assert!(refused["error"]["request_id"].is_string());
    }
    assert_eq!(socket.expect("ack").await["seq"], 5);
    assert_eq!(signed_in.get("memory").await.data(), json!({"small": 1}));
    assert_eq!(signed_in.get("editor").await.data()["tabs"][0]["path"], "a");
}

#[tokio::test]
async fn malformed_message_gets_an_error_and_a_close() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    for (message, code) in [
        (Message::binary(vec![1, 2]), 1003),
        (Message::text("no JSON"), 1007),
        (Message::text("[1]"), 1008),
        (Message::text(r#"{"type":"unknown"}"#), 1008),
        (Message::text(r#"{"type":"memory.update","seq":0,"data":{}}"#), 1008),
        (Message::text("[".repeat(100_000)), 1007),
        (Message::text("x".repeat(300_000)), 1009),
    ] {
        let (mut socket, _) = Socket::open(&signed_in, "tab").await;
        // Updates before it are applied.
        socket.update("memory", 1, json!({"before": code})).await;
        // The server may close before everything is sent.
        let _closed = socket.0.send(message).await;
        let mut error = Value::Null;
        let ended = loop {
            match timeout(PATIENCE, socket.0.next()).await.unwrap() {
                Some(Ok(Message::Text(text))) => error = serde_json::from_str(&text).unwrap(),
                Some(Ok(Message::Close(Some(close)))) => break u16::from(close.code),
                other => panic!("{other:?} instead of {code}"),
            }
        };
        assert_eq!(ended, code);
        assert_eq!((&error["type"], &error["seq"]), (&json!("error"), &Value::Null), "{code}");
    }
}

#[tokio::test]
async fn pings_are_answered_and_silent_clients_pinged() {
    let server = Running::start(&["--websocket-ping-interval", "200ms"]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    socket.say(&json!({"type": "ping"})).await;
    socket.expect("pong").await;
    socket.0.send(Message::Ping("x".into())).await.unwrap();
    let answer = timeout(PATIENCE, socket.0.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer, Message::Pong("x".into()));
    let asked = timeout(PATIENCE, socket.0.next()).await.unwrap().unwrap().unwrap();
    assert!(asked.is_ping());
    // A responding client stays connected.
    let stays = timeout(Duration::from_secs(2), async {
        while let Some(message) = socket.0.next().await {
            assert!(message.unwrap().is_ping());
        }
    });
    assert!(stays.await.is_err());

    // An unresponsive client is disconnected.
    let (socket, _) = Socket::open(&signed_in, "dead").await;
    let mut silent = socket.0.into_inner();
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut rest);
    timeout(PATIENCE, read).await.expect("to be left").unwrap();
}

#[tokio::test]
async fn unauthorized_client_is_refused_before_the_upgrade() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let asking = || Asking::of(&signed_in);
    assert_eq!(asking().refused().await, (401, "UNAUTHORIZED".into()));
    assert_eq!(asking().bearer("x").refused().await.0, 401);
    let protocols = |offer: &str| asking().header("sec-websocket-protocol", offer);
    let wrong = protocols("coditect.v1, ticket.nonsense").refused().await;
    assert_eq!(wrong, (401, "TICKET_INVALID".into()));
    let in_query = asking().query(&format!("token={}", signed_in.token));
    assert_eq!(in_query.refused().await.0, 401, "not where it isn't configured");
    let named = asking().bearer(&signed_in.token).query("client=a%20b");
    assert_eq!(named.refused().await, (400, "INVALID_QUERY".into()));
    let stranger = Device::register(server.address, "eve@example.org").await.token;
    assert_eq!(asking().bearer(&stranger).refused().await, (404, "NOT_FOUND".into()));
    for page in ["https://evil.example", "null", "http://test.evil.example"] {
        let foreign = asking().bearer(&signed_in.token).header("origin", page);
        assert_eq!(foreign.refused().await, (403, "ORIGIN_REFUSED".into()), "{page}");
    }
    let plain = signed_in.get("ws").await;
    assert_eq!((plain.status, plain.code().as_str()), (426, "UPGRADE_REQUIRED"));
    assert_eq!(plain.header("upgrade").unwrap(), "websocket");
    let old = asking().bearer(&signed_in.token).header("sec-websocket-version", "8");
    assert_eq!(old.refused().await.0, 426);

    let configured = Running::start(&["--websocket-token-in-query"]).await;
    let signed_in = SignedInSession::new(&configured, "ada@example.org").await;
    Asking::of(&signed_in).query(&format!("token={}", signed_in.token)).open().await;
}

#[tokio::test]
async fn ticket_opens_one_socket_and_is_not_echoed() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let get = || Call::post("/api/v5/auth/tickets").header("Origin", "http://test");
    let ticket = signed_in.call(get()).await.data()["ticket"].as_str().unwrap().to_owned();
    let ask = || {
        Asking::of(&signed_in)
            .header("sec-websocket-protocol", &format!("coditect.v1, ticket.{ticket}"))
            .header("origin", "http://test")
            .ask()
    };
    let (mut socket, response) = ask().await.map_err(|refused| format!("{refused:?}")).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "coditect.v1");
    socket.expect("restore").await;
    socket.update("memory", 1, json!({"k": 1})).await;
    socket.expect("ack").await;
    assert_eq!(ask().await.map(|_| ()).unwrap_err().0, 401);
    let both = Asking::of(&signed_in)
        .bearer(&signed_in.token)
        .header("sec-websocket-protocol", "ticket.x");
    assert_eq!(both.refused().await, (400, "INVALID_REQUEST".into()));
}

#[tokio::test]
async fn end_of_a_login_or_session_closes_its_sockets() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut stays, _) = Socket::open(&signed_in, "stays").await;
    let other = Device::login(server.address, "ada@example.org").await;
    let mut signed_out = Asking::of(&signed_in).bearer(&other.token).open().await;
    signed_out.expect("restore").await;
    let asked = std::time::Instant::now();
    logout(server.address, Some(&other.token), &json!({})).await;
    assert_eq!(signed_out.closed().await, 4401);
    assert!(asked.elapsed() < Duration::from_secs(10), "it is told, not found out");

    signed_in.call(Call::delete(&signed_in.path)).await;
    assert_eq!(stays.closed().await, 4404);
}

#[tokio::test]
async fn expiring_login_is_announced_and_can_be_renewed() {
    let server = Running::start(&["--access-token-ttl", "4s"]).await;
    let mut signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let device = Device::login(server.address, "ada@example.org").await;
    signed_in.token.clone_from(&device.token);
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    let (mut forgotten, _) = Socket::open(&signed_in, "forgotten").await;
    socket.expect("expiring").await;
    let renewed = device.refreshed(server.address).await;
    socket.say(&json!({"type": "authenticate", "token": renewed.token})).await;
    assert!(socket.expect("authenticated").await["expires_at"].is_string());
    assert_eq!(forgotten.closed().await, 4401);
    socket.update("memory", 1, json!({"k": 1})).await;
    socket.expect("ack").await;
    let stranger = Device::register(server.address, "eve@example.org").await.token;
    socket.say(&json!({"type": "authenticate", "token": stranger})).await;
    assert_eq!(socket.closed().await, 4401);
}

#[tokio::test]
async fn read_only_token_cannot_update() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let token = Call::post("/api/v5/auth/tokens").value(&json!({"name": "ci", "scopes": ["read"]}));
    let token = signed_in.call(token).await.data()["token"].as_str().unwrap().to_owned();
    let mut socket = Asking::of(&signed_in).bearer(&token).open().await;
    socket.expect("restore").await;
    signed_in.patch("memory", &json!({"k": 1})).await;
    socket.expect("changed").await;
    socket.update("memory", 1, json!({"k": 2})).await;
    assert_eq!(socket.expect("error").await["error"]["code"], "FORBIDDEN");
    assert_eq!(socket.closed().await, 1008);
    assert_eq!(signed_in.get("memory").await.data()["k"], 1);
}

#[tokio::test]
async fn shutdown_closes_sockets_with_a_code() {
    let server = Running::start(&[]).await;
    let signed_in = SignedInSession::new(&server, "ada@example.org").await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    socket.update("memory", 1, json!({"k": 1})).await;
    assert_eq!(socket.expect("ack").await["seq"], 1);
    let stopped = server.stop();
    assert_eq!(socket.closed().await, 1001);
    timeout(PATIENCE, stopped).await.unwrap().unwrap();
}
