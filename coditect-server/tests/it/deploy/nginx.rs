//! nginx in front of the real program and the IDE: access, identity and forwarding.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Error, Message, client::IntoClientRequest as _, handshake::client::Response,
        http::HeaderValue,
    },
};

use super::{
    ide::Ide,
    proxy::{Proxy, Setup},
};
use crate::{
    account::{Device, LOGIN, PASSWORD, REGISTER, credentials, logout},
    client::{Answer, Call, Client, PATIENCE, call},
    folder::Folder,
    process::{Process, on, program},
    signed_in_session::SignedInSession,
    socket::Socket,
    tls,
};

pub(super) const ADA: &str = "ada@example.org";
pub(super) const VERIFY: &str = "/api/v5/auth/verify";

/// The program, the IDE, and nginx in front of them.
pub(super) struct Site {
    pub(super) server: Process,
    pub(super) ide: Ide,
    pub(super) proxy: Proxy,
    pub(super) data: Folder,
}

impl Site {
    /// Returns `None` without nginx.
    pub(super) async fn start(flags: &[&str]) -> Option<Self> {
        Self::start_with(flags, |_| {}).await
    }

    /// Starts with a modified configuration.
    pub(super) async fn start_with(
        flags: &[&str],
        change: impl FnOnce(&mut Setup),
    ) -> Option<Self> {
        let data = Folder::new();
        let ide = Ide::start().await;
        let trusting = ["--trusted-proxy", "127.0.0.1"];
        let flags: Vec<&str> = trusting.iter().chain(flags).copied().collect();
        let server = Process::start(on(data.path(), &flags)).await;
        let mut setup = Setup::before(server.address, ide.address)?;
        change(&mut setup);
        let proxy = setup.start().await;
        Some(Self { server, ide, proxy, data })
    }

    pub(super) fn at(&self) -> SocketAddr {
        self.proxy.address
    }

    pub(super) async fn call(&self, wanted: Call) -> Answer {
        call(self.at(), wanted).await
    }

    /// Creates an account with access to the IDE.
    pub(super) async fn register(&self) -> Device {
        let device = Device::register(self.at(), ADA).await;
        self.operator(&["user", "grant-ide", ADA]).await;
        device
    }

    /// Runs an operator's subcommand.
    pub(super) async fn operator(&self, arguments: &[&str]) -> String {
        let output = program(arguments, self.data.path()).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the request seen by the IDE.
    pub(super) async fn seen(&self, wanted: Call) -> Value {
        let answer = self.call(wanted).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }
}

/// Returns the values of a header seen by the IDE.
fn values<'a>(seen: &'a Value, name: &str) -> Vec<&'a str> {
    let values = seen["headers"][name].as_array();
    values.into_iter().flatten().map(|value| value.as_str().unwrap()).collect()
}

/// Creates a personal access token for the user of `token`.
async fn personal(site: &Site, token: &str, scopes: &[&str]) -> String {
    let wanted = json!({"name": scopes.join("-"), "scopes": scopes});
    let made = site.call(Call::post("/api/v5/auth/tokens").bearer(token).value(&wanted)).await;
    made.data()["token"].as_str().unwrap().to_owned()
}

/// Returns the cookies of a response, as a browser sends them back.
fn cookies(answer: &Answer) -> String {
    let set = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    let pairs: Vec<_> = set.map(|(_, cookie)| cookie.split(';').next().unwrap()).collect();
    pairs.join("; ")
}

#[tokio::test]
async fn nginx_accepts_the_shipped_configuration() {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let Some(plain) = Setup::before(nowhere, nowhere) else { return };
    let mut secure = Setup::before(nowhere, nowhere).unwrap();
    tls::write(secure.folder.path());
    secure.with_tls();
    for setup in [plain, secure] {
        let (is_content, told) = setup.checked().await;
        assert!(is_content && !told.contains("[warn]"), "{told}");
    }
}

#[tokio::test]
async fn ide_requires_a_valid_token() {
    let Some(site) = Site::start(&["--access-token-ttl", "2s"]).await else { return };
    let device = site.register().await;
    let refused = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"));
        answer.header("www-authenticate").unwrap().to_owned()
    };
    assert_eq!(refused(&site.call(Call::get("/theia/")).await), "Bearer");
    let wrong = Call::get("/theia/").bearer("not.a.token");
    assert!(refused(&site.call(wrong).await).contains("invalid_token"));
    let two = Call::get("/theia/").bearer(&device.token).bearer(&device.token);
    assert!(matches!(site.call(two).await.status, 400 | 401));
    // In any spelling of the path.
    for path in ["/theia/x", "/%74heia/x", "//theia/x", "/api/v5/../../theia/x", "/theia/?a=/api/"]
    {
        refused(&site.call(Call::get(path)).await);
    }
    let forged = Call::get("/theia/").header("X-Auth-User", "ada").header("X-Auth-Session", "1");
    refused(&site.call(forged).await);
    assert_eq!(site.ide.asked(), 0);

    site.seen(Call::get("/theia/").bearer(&device.token)).await;
    assert_eq!(site.ide.asked(), 1);
    // An access token is accepted for five more seconds, because of slow clocks.
    tokio::time::sleep(Duration::from_secs(8)).await;
    refused(&site.call(Call::get("/theia/").bearer(&device.token)).await);
    assert_eq!(site.ide.asked(), 1);
}

#[tokio::test]
async fn logout_applies_to_the_next_request() {
    let Some(site) = Site::start(&[]).await else { return };
    let device = site.register().await;
    let mut kept = Client::connect(site.at()).await;
    let wanted = Call::get("/theia/").bearer(&device.token);
    assert_eq!(kept.call(wanted.clone()).await.status, 200);
    assert_eq!(logout(site.at(), Some(&device.token), &json!({})).await.status, 200);
    assert_eq!(kept.call(wanted).await.status, 401);
}

#[tokio::test]
async fn ide_gets_the_identity_from_the_server_only() {
    let Some(site) = Site::start(&[]).await else { return };
    let device = site.register().await;
    let told = site.call(Call::get(VERIFY).bearer(&device.token)).await;
    let mut forging = Call::post("/theia/deep/path%20x?q=1").bearer(&device.token).body("four");
    for name in ["User", "Tenant", "Session", "Expires", "Scopes"] {
        forging = forging
            .header(&format!("X-Auth-{name}"), "forged")
            .header(&format!("x-auth-{}", name.to_lowercase()), "forged")
            .header(&format!("X_Auth_{name}"), "forged")
            .header(&format!("X-Auth_{name}"), "forged");
    }
    for name in ["X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host", "Forwarded"] {
        forging = forging.header(name, "for=forged");
    }
    let seen = site.seen(forging.header("X-Forwarded-Proto", "https")).await;
    for name in ["x-auth-user", "x-auth-tenant", "x-auth-session", "x-auth-expires"] {
        assert_eq!(values(&seen, name), [told.header(name).unwrap()], "{name}");
    }
    assert!(!seen.to_string().contains("forged"), "{seen}");
    assert_eq!(values(&seen, "host"), ["test"]);
    assert_eq!(values(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&seen, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&seen, "authorization"), [""; 0], "what runs there cannot act as the user");
    assert_eq!((&seen["method"], &seen["uri"]), (&json!("POST"), &json!("/deep/path%20x?q=1")));
    assert_eq!(seen["bytes"], 4);

    // A non-default port is part of the host, which origins are compared with.
    let mut client = Client::connect(site.at()).await;
    let asked = format!(
        "GET /theia/ HTTP/1.1\r\nHost: test:8443\r\nOrigin: https://test:8443\r\n\
         Authorization: Bearer {}\r\n\r\n",
        device.token
    );
    client.send(asked.as_bytes()).await;
    assert_eq!(values(&client.answer().await.json(), "host"), ["test:8443"]);
}

/// As in the README of the deployment.
const INVITED: [&str; 2] = ["--registration", "invited"];

#[tokio::test]
async fn stranger_gets_neither_an_account_nor_the_ide() {
    let Some(site) = Site::start(&INVITED).await else { return };
    let refused = site.call(credentials(REGISTER, "stranger@example.org", PASSWORD)).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "INVITATION_REQUIRED"));
    let login = site.call(credentials(LOGIN, "stranger@example.org", PASSWORD)).await;
    assert_eq!(login.status, 401);
    assert_eq!(site.call(Call::get("/theia/")).await.status, 401);

    // With open registration, an account is not sufficient.
    let Some(site) = Site::start(&[]).await else { return };
    let stranger = Device::register(site.at(), "stranger@example.org").await;
    let refused = site.call(Call::get("/theia/").bearer(&stranger.token)).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"));
    let token = personal(&site, &stranger.token, &["ide:use"]).await;
    assert_eq!(site.call(Call::get("/theia/").bearer(&token)).await.status, 403);
    match open(site.at(), Some(&stranger.token), "http://test").await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{other:?}"),
    }
    // Nor can a stranger grant access to others.
    let invite = |ide| json!({"email": "other@example.org", "role": "member", "ide": ide});
    let invitations = || Call::post("/api/v5/tenant/invitations").bearer(&stranger.token);
    let refused = site.call(invitations().value(&invite(true))).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"));
    let made = site.call(invitations().value(&invite(false))).await;
    assert_eq!((made.status, &made.data()["ide"]), (201, &json!(false)));
    assert_eq!(site.ide.asked(), 0);
}

#[tokio::test]
async fn invited_user_may_use_the_ide_until_the_membership_ends() {
    let Some(site) = Site::start(&INVITED).await else { return };
    let said = site.operator(&["user", "create", ADA]).await;
    let reset = said.split_whitespace().find(|word| word.starts_with("cpr_")).unwrap();
    let body = json!({"token": reset, "new_password": PASSWORD});
    let confirm = Call::post("/api/v5/auth/password-reset/confirm").value(&body);
    assert_eq!(site.call(confirm).await.status, 200);
    let ada = Device::login(site.at(), ADA).await;
    site.seen(Call::get("/theia/").bearer(&ada.token)).await;

    let bob = "bob@example.org";
    let invitation = json!({"email": bob, "role": "member"});
    let invite = Call::post("/api/v5/tenant/invitations").bearer(&ada.token).value(&invitation);
    let invited = site.call(invite).await.data();
    let token = invited["token"].as_str().unwrap();
    let register = |email: &str| {
        let body = json!({"email": email, "password": PASSWORD, "invitation": token});
        Call::post(REGISTER).value(&body)
    };
    let refused = site.call(register("eve@example.org")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "INVITATION_INVALID"));
    let made = site.call(register(bob)).await;
    assert_eq!(made.status, 201, "{}", made.json());
    assert_eq!(made.data()["tenant_id"], ada.tenant(site.at()).await);
    let again = site.call(register(bob)).await;
    assert_eq!(again.code(), "INVITATION_INVALID");
    let bobs = Device::of(&made);
    site.seen(Call::get("/theia/").bearer(&bobs.token)).await;
    // Also for a login in the user's own tenant.
    let later = Device::login(site.at(), bob).await;
    site.seen(Call::get("/theia/").bearer(&later.token)).await;

    let user = made.data()["user"]["id"].as_str().unwrap().to_owned();
    let remove = Call::delete(&format!("/api/v5/tenant/members/{user}")).bearer(&ada.token);
    assert_eq!(site.call(remove).await.status, 204);
    let before = site.ide.asked();
    for token in [&bobs.token, &later.token] {
        let refused = site.call(Call::get("/theia/").bearer(token)).await;
        assert!(matches!(refused.status, 401 | 403), "{}", refused.status);
    }
    site.operator(&["user", "revoke-ide", ADA]).await;
    let refused = site.call(Call::get("/theia/").bearer(&ada.token)).await;
    assert_eq!(refused.status, 403);
    assert_eq!(site.ide.asked(), before);
}

#[tokio::test]
async fn personal_token_needs_the_ide_scope() {
    let Some(site) = Site::start(&[]).await else { return };
    let device = site.register().await;
    for scopes in [&["read", "write"][..], &["ide:used"], &["my-ide:use"]] {
        let token = personal(&site, &device.token, scopes).await;
        let refused = site.call(Call::get("/theia/").bearer(&token)).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"), "{scopes:?}");
    }
    assert_eq!(site.ide.asked(), 0);
    for scopes in [&["ide:use"][..], &["read", "ide:use"], &["a:b", "ide:use", "z:z"]] {
        let token = personal(&site, &device.token, scopes).await;
        let forged = Call::get("/theia/").bearer(&token).header("X-Auth-Session", "forged");
        let seen = site.seen(forged).await;
        assert_eq!(values(&seen, "x-auth-session"), [""; 0]);
        assert!(values(&seen, "x-auth-scopes")[0].contains("ide:use"));
    }
}

#[tokio::test]
async fn cookies_open_the_ide_for_pages_of_the_same_origin_only() {
    let Some(site) = Site::start(&["--cookies"]).await else { return };
    let body = json!({"email": ADA, "password": PASSWORD, "cookies": true});
    let signed_in = site.call(Call::post(REGISTER).value(&body)).await;
    site.operator(&["user", "grant-ide", ADA]).await;
    let kept = cookies(&signed_in);
    assert!(kept.contains("__Host-coditect-access=") && kept.contains("__Host-coditect-refresh="));
    for (sent, passed) in [
        (kept.clone(), None),
        (format!("theme=dark; {kept}"), Some("theme=dark")),
        (format!("{kept}; theme=dark"), Some("theme=dark")),
        (format!("a=1; {}; b=2", kept.replace("; ", "; c=3; ")), Some("a=1; c=3; b=2")),
        (kept.replace("; ", ";"), None),
    ] {
        let seen = site.seen(Call::get("/theia/").header("Cookie", &sent)).await;
        assert_eq!(values(&seen, "cookie"), passed.into_iter().collect::<Vec<_>>(), "{sent}");
        assert_eq!(values(&seen, "x-auth-session").len(), 1);
    }
    // The tokens of another server on this host are removed as well.
    let two = format!("__Host-b_2-access=a; x=\u{e9}; {kept}; __Host-b_2-refresh=b; c=1");
    let seen = site.seen(Call::get("/theia/").header("Cookie", &two)).await;
    assert_eq!(values(&seen, "cookie").len(), 1);
    assert!(!values(&seen, "cookie")[0].contains("__Host-"), "{seen}");
    assert!(values(&seen, "cookie")[0].ends_with("; c=1"), "{seen}");
    // With more tokens than can be removed, no cookies are passed on.
    let crowded = format!("{kept}; {}c=1", "__Host-x-refresh=a; ".repeat(3));
    let seen = site.seen(Call::get("/theia/").header("Cookie", &crowded)).await;
    assert_eq!(values(&seen, "cookie"), [""; 0]);

    let by_cookie = || Call::post("/theia/").header("Cookie", &kept);
    site.seen(by_cookie().header("Origin", "http://test").body("x")).await;
    site.seen(by_cookie().header("Origin", "https://TEST").body("x")).await;
    let before = site.ide.asked();
    for origin in [
        "https://evil.example",
        "null",
        "http://test.evil.example",
        "http://evil.test",
        "http://test:81",
    ] {
        let refused = site.call(by_cookie().header("Origin", origin).body("x")).await;
        assert_eq!((refused.status, refused.code().as_str()), (403, "FORBIDDEN"), "{origin}");
    }
    let both = by_cookie().bearer(signed_in.data()["token"].as_str().unwrap_or("x")).body("x");
    assert_eq!(site.call(both).await.status, 401);
    assert_eq!(site.ide.asked(), before);
}

/// Opens a WebSocket to the IDE.
async fn open(
    site: SocketAddr,
    token: Option<&String>,
    origin: &'static str,
) -> Result<(WebSocketStream<TcpStream>, Response), Error> {
    let mut request = "ws://test/theia/services?x=1".into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("origin", HeaderValue::from_static(origin));
    headers.insert("x-auth-user", HeaderValue::from_static("forged"));
    if let Some(token) = token {
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let stream = TcpStream::connect(site).await.unwrap();
    timeout(PATIENCE, client_async(request, stream)).await.unwrap()
}

#[tokio::test]
async fn websockets_pass_to_the_ide_and_the_server() {
    let Some(site) = Site::start(&[]).await else { return };
    let signed_in = SignedInSession::at(site.at(), ADA).await;
    site.operator(&["user", "grant-ide", ADA]).await;
    let (mut socket, _) = Socket::open(&signed_in, "tab").await;
    socket.update("memory", 1, json!({"k": 1})).await;
    assert_eq!(socket.expect("ack").await["seq"], 1);

    let (mut echo, opening) = open(site.at(), Some(&signed_in.token), "http://test").await.unwrap();
    let me = call(site.at(), Call::get(VERIFY).bearer(&signed_in.token)).await;
    assert_eq!(opening.headers()["x-told-user"], me.header("x-auth-user").unwrap());
    for message in [Message::text("hello"), Message::binary(vec![7; 200_000])] {
        echo.send(message.clone()).await.unwrap();
        assert_eq!(timeout(PATIENCE, echo.next()).await.unwrap().unwrap().unwrap(), message);
    }
    echo.close(None).await.unwrap();
    for (token, origin, status) in
        [(None, "http://test", 401), (Some(&signed_in.token), "https://evil.example", 403)]
    {
        match open(site.at(), token, origin).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), status),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn large_upload_is_streamed_and_not_buffered_on_disk() {
    const BYTES: usize = 48 << 20;
    const HALF: usize = BYTES / 2;
    let Some(site) = Site::start(&[]).await else { return };
    let signed_in = SignedInSession::at(site.at(), ADA).await;
    let path = signed_in.part("files/large.bin");
    site.operator(&["user", "grant-ide", ADA]).await;
    let before = site.proxy.peak_memory();
    let mut client = Client::connect(site.at()).await;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\nContent-Length: \
         {BYTES}\r\n\r\n",
        signed_in.token
    );
    client.send(head.as_bytes()).await;
    client.send(&vec![7; HALF]).await;
    // Everything sent so far has arrived, although the rest has not been sent.
    let begun_at = Instant::now();
    loop {
        let scrape = Call::get("/metrics").header("X-Forwarded-For", "127.0.0.1");
        let told = call(site.server.address, scrape).await;
        let told = String::from_utf8(told.body).unwrap();
        let line = told.lines().find(|it| it.starts_with("coditect_http_received_bytes_total"));
        let received: usize = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        if received > HALF - (1 << 20) {
            break;
        }
        assert!(begun_at.elapsed() < PATIENCE, "{received} bytes have arrived");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client.send(&vec![7; BYTES - HALF]).await;
    assert_eq!(client.answer().await.status, 201);
    let read = signed_in.get("files/large.bin").await;
    assert!(read.status == 200 && read.body.len() == BYTES && read.body.iter().all(|it| *it == 7));
    assert!(site.proxy.temporary_files().is_empty());
    let grown = site.proxy.peak_memory() - before;
    assert!(grown < 16 << 20, "{grown} bytes more");

    // Also to the IDE, with a chunked body.
    let chunked = format!(
        "POST /theia/upload HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        signed_in.token
    );
    client.send(chunked.as_bytes()).await;
    assert_eq!(client.answer().await.json()["bytes"], 11);
}

#[tokio::test]
async fn early_refusal_reaches_the_client() {
    const BYTES: usize = 8 << 20;
    const PIECE: usize = 64 << 10;
    let Some(site) = Site::start(&["--file-limit", "1MiB"]).await else { return };
    let signed_in = SignedInSession::at(site.at(), ADA).await;
    let path = signed_in.part("files/large.bin");
    for (token, status, code) in
        [("x", 401, "UNAUTHORIZED"), (&signed_in.token[..], 413, "PAYLOAD_TOO_LARGE")]
    {
        let head = format!(
            "PUT {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {BYTES}\r\n\r\n"
        );
        let mut client = Client::connect(site.at()).await;
        client.send(head.as_bytes()).await;
        // Like a network slower than the back end.
        let piece = vec![7; PIECE];
        for _ in 0..BYTES / PIECE {
            client.try_send(&piece).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let refused = client.answer().await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code));
    }
    let head = format!(
        "PUT {} HTTP/1.1\r\nHost: test\r\nContent-Length: 99999999\r\n\r\n",
        signed_in.part("files/large.bin")
    );
    let mut client = Client::connect(site.at()).await;
    client.send(head.as_bytes()).await;
    let refused = client.answer().await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(refused.header("x-content-type-options"), Some("nosniff"));
}

/// Returns the client address that the server records for a login.
async fn address_of(site: &Site, login: Call) -> String {
    let device = Device::of(&site.call(login).await);
    let listed = site.call(Call::get("/api/v5/auth/sessions").bearer(&device.token)).await.data();
    let listed = listed.as_array().unwrap().clone();
    let this = listed.iter().find(|it| it["current"] == true).unwrap();
    this["ip"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn client_address_is_that_of_the_connection() {
    let Some(site) = Site::start(&[]).await else { return };
    site.register().await;
    let login = || credentials(LOGIN, ADA, PASSWORD);
    let forged = login()
        .header("X-Forwarded-For", "192.0.2.1")
        .header("x-forwarded-for", "192.0.2.2, 192.0.2.3")
        .header("Forwarded", "for=192.0.2.4")
        .header("X-Forwarded-Proto", "https");
    let answer = site.call(forged.clone()).await;
    assert_eq!(answer.header("strict-transport-security"), None);
    assert_eq!(address_of(&site, forged).await, "127.0.0.1");

    let site = Site::start_with(&[], |setup| {
        setup.replace("# set_real_ip_from 10.0.0.0/8;", "set_real_ip_from 127.0.0.1;");
        setup.replace("# 10.0.0.0/8 1;", "127.0.0.1 1;");
    });
    let site = site.await.unwrap();
    let device = site.register().await;
    let balanced = login().header("X-Forwarded-For", "198.51.100.1, 192.0.2.7");
    assert_eq!(address_of(&site, balanced).await, "192.0.2.7");
    for (said, told) in [("https", Some("max-age=31536000")), ("http", None), ("x", None)] {
        for wanted in ["/api/v5/health", "/theia/"] {
            let wanted = Call::get(wanted).bearer(&device.token).header("X-Forwarded-Proto", said);
            let answer = site.call(wanted).await;
            assert_eq!((answer.status, answer.header("strict-transport-security")), (200, told));
        }
    }
}
